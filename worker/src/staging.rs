//! Rows of transactions that are not sealed yet, one segment writer per slice.
//!
//! ```text
//! append ─▶ slice writer ─▶ (full, or half the budget is used) ─▶ published segment ┐
//! seal   ─▶ slice writers of the table, all at once ───────────▶ published segments ┴▶ records
//!                                     each at once to partners ─▶ their copies
//! copy   ─▶ a partner's side of that: a published segment of another owner
//! ```
//!
//! Published segments are on the disk and named by no commit: a crash, an abort or a commit that
//! never comes leaves them as orphans, which no snapshot can see. Memory is bounded by a budget of
//! raw row bytes (`budget`): beyond half of it writers with more than their share are closed early,
//! in the background, and appends wait when those that are being closed hold the other half. So
//! a large load writes sorted runs, each a segment, rather than rows that are spilled and read
//! again; compaction merges runs.
//!
//! Invariant: a row that an append was told is taken is in the answer of the seal, or the
//! transaction is over. Rows that come after a seal or an abort are refused for as long as it is
//! remembered; those that come even later are never sealed, and dropped as abandoned.

mod budget;
mod closing;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::record_batch::RecordBatch;
use basalt_engine::error::{ErrorCode, SqlError, storage_error};
use basalt_engine::fence::Fence;
use basalt_engine::write::AppendTarget;
use basalt_storage::chunk_store::{ChunkStore, SegmentCopy};
use basalt_storage::fail_point::{self, FailPoint};
use basalt_storage::ids::{Epoch, SegmentId, SliceId, TableId, TxnId};
use basalt_storage::layout::SegmentKey;
use basalt_storage::manifest::{Layout, SegmentRecord};
use basalt_storage::segment_writer::{RowSource, SegmentSpec, SegmentWriter, WriterOptions};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::MemoryPool;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::replicas::sender::ReplicaSender;
use budget::{Budget, Held};
use closing::encode_all;

/// How long a transaction may stay without an append or a seal before it counts as abandoned.
const ABANDONED_AFTER: Duration = Duration::from_secs(60 * 60);
/// How long the records of a sealed transaction are kept for an abort.
const SEALED_KEPT: Duration = Duration::from_secs(10 * 60);
/// Sealed transactions whose records are kept at most, the latest ones: small inserts are many. An
/// abort of one that is forgotten leaves its segments as orphans, which no snapshot can see.
const SEALED_MAX: usize = 10_000;
/// Seals of one worker at a time: more would only wait for the same disk.
const SEALS_AT_ONCE: usize = 64;
/// How often all transactions are looked at for old ones.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How many aborted transactions are remembered, to refuse rows that arrive after the abort. A
/// row is late by the length of a network queue; this many aborts take far longer.
const ABORTED_KEPT: usize = 10_000;

/// The staging area of one worker.
#[derive(Debug)]
pub struct Staging {
    store: Arc<ChunkStore>,
    fence: Fence,
    replicas: Arc<ReplicaSender>,
    seals: Semaphore,
    budget: Arc<Budget>,
    staged: Mutex<Staged>,
}

#[derive(Debug, Default)]
struct Staged {
    tables: HashMap<(TxnId, TableId), Arc<StagedTable>>,
    /// Copies for other owners, by transaction, until these are surely over.
    copies: HashMap<TxnId, Copies>,
    /// The oldest first; some are gone from `tables`.
    sealed: VecDeque<(TxnId, TableId)>,
    /// The oldest first.
    aborted: VecDeque<TxnId>,
    swept: Option<Instant>,
}

/// Segments of other owners that one transaction has put here.
#[derive(Debug)]
struct Copies {
    touched: Instant,
    segments: Vec<SegmentCopy>,
}

/// One table of one transaction.
#[derive(Debug)]
struct StagedTable {
    target: Arc<AppendTarget>,
    slices: Mutex<HashMap<SliceId, Arc<Mutex<Option<SliceWriter>>>>>,
    /// Segments on their way to the disk; more come only while the phase is open.
    closing: Mutex<Vec<JoinHandle<()>>>,
    state: Mutex<State>,
}

/// How far a transaction is with a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Rows may come.
    Open,
    /// None may come any more. It stays so when the seal fails: a second one must never hand out
    /// a part of the segments as all of them.
    Sealing,
    /// All rows are durable.
    Sealed,
    /// What was written is removed, and what will be.
    Discarded,
}

#[derive(Debug)]
struct State {
    touched: Instant,
    /// Segments on the disk already.
    published: Vec<SegmentRecord>,
    phase: Phase,
    /// Why a segment could not be closed: the transaction cannot succeed any more.
    failed: Option<Arc<DataFusionError>>,
}

impl State {
    /// Refuses what comes too late, or is in vain.
    fn check_open(&self, txn: TxnId) -> Result<()> {
        match (&self.failed, self.phase) {
            (Some(error), _) => Err(DataFusionError::Shared(Arc::clone(error))),
            (None, Phase::Open) => Ok(()),
            (None, _) => Err(over(txn)),
        }
    }
}

/// A segment that takes rows.
#[derive(Debug)]
struct SliceWriter {
    segment: SegmentWriter,
    held: Held,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Staging {
    /// An empty staging area that holds at most about `bytes_max` bytes of raw rows in the memory of
    /// `pool`, for transactions that `fence` lets pass, whose segments `replicas` sends to partners.
    pub fn new(
        store: Arc<ChunkStore>,
        fence: Fence,
        replicas: Arc<ReplicaSender>,
        bytes_max: usize,
        pool: &Arc<dyn MemoryPool>,
    ) -> Self {
        let (budget, staged) = (Budget::new(bytes_max, pool), Mutex::default());
        let seals = Semaphore::new(SEALS_AT_ONCE);
        Self { store, fence, replicas, seals, budget, staged }
    }

    /// Appends rows of one source and slice, in storage form. Waits while the rows of all writes take more
    /// memory than they may.
    ///
    /// # Errors
    /// When this worker does not own the slice, the slices have moved since, the transaction is
    /// sealed, aborted or has another target, or a segment of it could not be written.
    pub async fn append(
        self: &Arc<Self>,
        target: &Arc<AppendTarget>,
        source: RowSource,
        slice: SliceId,
        batch: RecordBatch,
    ) -> Result<()> {
        self.fence.check_cluster(target.cluster)?;
        self.fence.check_epoch(target.epoch)?;
        if target.owner(slice)? != self.store.identity().worker {
            return Err(internal(format!("slice {slice} is not owned by this worker")));
        }
        let staged = self.table(target)?;
        self.budget.wait_for_room().await;
        let staging = Arc::clone(self);
        // Encoding a row group takes tens of milliseconds: not on a thread that serves RPCs.
        tokio::task::spawn_blocking(move || staging.append_blocking(&staged, source, slice, batch))
            .await
            .map_err(join_error)?
    }

    fn table(&self, target: &Arc<AppendTarget>) -> Result<Arc<StagedTable>> {
        let mut all = lock(&self.staged);
        if all.aborted.contains(&target.txn) {
            return Err(over(target.txn));
        }
        let staged = all.tables.entry((target.txn, target.table)).or_insert_with(|| {
            Arc::new(StagedTable {
                target: Arc::clone(target),
                slices: Mutex::default(),
                closing: Mutex::default(),
                state: Mutex::new(State {
                    touched: Instant::now(),
                    published: vec![],
                    phase: Phase::Open,
                    failed: None,
                }),
            })
        });
        if !Arc::ptr_eq(&staged.target, target) && staged.target != *target {
            let message = format!("transaction {} has another target", target.txn);
            return Err(SqlError::new(ErrorCode::InvalidParameter, message).into());
        }
        let mut state = lock(&staged.state);
        state.check_open(target.txn)?;
        state.touched = Instant::now();
        drop(state);
        Ok(Arc::clone(staged))
    }

    fn append_blocking(
        self: &Arc<Self>,
        staged: &Arc<StagedTable>,
        source: RowSource,
        slice: SliceId,
        batch: RecordBatch,
    ) -> Result<()> {
        let writer = Arc::clone(lock(&staged.slices).entry(slice).or_default());
        let mut writer = lock(&writer);
        // Again, under the writer's lock: a seal or an abort that came in between has taken this
        // writer already, or will wait for it.
        lock(&staged.state).check_open(staged.target.txn)?;
        let mut rest = batch;
        while rest.num_rows() > 0 {
            let SliceWriter { segment, held } = match writer.as_mut() {
                Some(writer) => writer,
                None => writer.insert(self.new_writer(&staged.target, slice)?),
            };
            let room = usize::try_from(segment.rows_left()).unwrap_or(usize::MAX);
            let rows = rest.num_rows().min(room);
            let piece = rest.slice(0, rows);
            let bytes = piece.get_array_memory_size().min(piece_bytes(&piece));
            segment.append_from(source, piece).map_err(storage_error)?;
            held.add(bytes);
            rest = rest.slice(rows, rest.num_rows() - rows);
            // Each writer pays for its own excess.
            if segment.rows_left() == 0 || held.should_close() {
                self.close_soon(staged, writer.take());
            }
        }
        fail_point::hit(FailPoint::AppendTaken);
        Ok(())
    }

    fn new_writer(&self, target: &AppendTarget, slice: SliceId) -> Result<SliceWriter> {
        let identity = self.store.identity();
        let spec = SegmentSpec {
            cluster: identity.cluster,
            table: target.table,
            slice,
            segment: SegmentId::generate(),
            txn: target.txn,
            schema: Arc::clone(&target.schema),
            sort_key: target.sort_key.clone(),
            holder: identity.worker,
        };
        let segment = SegmentWriter::new(spec, WriterOptions { encode_threads: 1 });
        Ok(SliceWriter { segment: segment.map_err(storage_error)?, held: self.budget.new_writer() })
    }

    /// Makes every row that was appended for a table durable, here and on partners.
    ///
    /// On `Ok` every segment in the answer survives a crash of each of its holders, of which there
    /// are as many as the transaction requires. A transaction that
    /// wrote nothing here gives an empty answer; sealing twice gives the same answer.
    ///
    /// # Errors
    /// When a segment cannot be encoded or written, the slices have moved since `epoch`, or the
    /// transaction was aborted.
    pub async fn seal(
        self: &Arc<Self>,
        txn: TxnId,
        table: TableId,
        epoch: Epoch,
    ) -> Result<Vec<SegmentRecord>> {
        self.fence.check_epoch(epoch)?;
        let staged = {
            let all = lock(&self.staged);
            if all.aborted.contains(&txn) {
                return Err(over(txn));
            }
            all.tables.get(&(txn, table)).map(Arc::clone)
        };
        let Some(staged) = staged else { return Ok(vec![]) };
        // Each holds a thread that may wait for a partner's, and threads of a process have an end.
        let _turn =
            self.seals.acquire().await.map_err(|e| DataFusionError::External(Box::new(e)))?;
        let staging = Arc::clone(self);
        tokio::task::spawn_blocking(move || staging.seal_blocking(&staged))
            .await
            .map_err(join_error)?
    }

    fn seal_blocking(&self, staged: &StagedTable) -> Result<Vec<SegmentRecord>> {
        {
            let mut state = lock(&staged.state);
            if state.phase == Phase::Sealed {
                return Ok(state.published.clone());
            }
            state.check_open(staged.target.txn)?;
            state.phase = Phase::Sealing;
        }
        fail_point::hit(FailPoint::SealBegun);
        let writers: Vec<_> = lock(&staged.slices).drain().map(|(_, writer)| writer).collect();
        let writers = writers.iter().filter_map(|writer| lock(writer).take());
        // Their bytes count until they are on the disk.
        let (segments, _closing): (Vec<_>, Vec<_>) =
            writers.map(|writer| (writer.segment, writer.held.close())).unzip();
        let runtime = Handle::current();
        // No append is under way any more: no more will close.
        for closing in std::mem::take(&mut *lock(&staged.closing)) {
            runtime.block_on(closing).map_err(join_error)?;
        }
        if let Some(error) = &lock(&staged.state).failed {
            return Err(DataFusionError::Shared(Arc::clone(error)));
        }
        let sent = Mutex::new(Vec::new());
        let encoded = encode_all(segments, |segment| {
            let _runtime = runtime.enter();
            lock(&sent).extend(self.send(staged, segment));
        });
        let sent = sent.into_inner().unwrap_or_else(PoisonError::into_inner);
        let encoded = encoded.map_err(storage_error)?;
        if !encoded.is_empty() {
            self.publish(staged, encoded, sent)?;
        }
        lock(&self.staged).sealed.push_back((staged.target.txn, staged.target.table));
        let mut state = lock(&staged.state);
        if state.phase == Phase::Discarded {
            return Err(over(staged.target.txn));
        }
        state.touched = Instant::now();
        state.phase = Phase::Sealed;
        fail_point::hit(FailPoint::SealBeforeReply);
        Ok(state.published.clone())
    }

    /// Forgets a transaction and removes what it has written so far. Unknown ones are fine.
    pub fn abort(&self, txn: TxnId) {
        let mut all = lock(&self.staged);
        let keys: Vec<_> = all.tables.keys().filter(|(id, _)| *id == txn).copied().collect();
        let aborted: Vec<_> = keys.iter().filter_map(|key| all.tables.remove(key)).collect();
        let copies = all.copies.remove(&txn);
        if !all.aborted.contains(&txn) {
            all.aborted.push_back(txn);
            if all.aborted.len() > ABORTED_KEPT {
                all.aborted.pop_front();
            }
        }
        drop(all);
        for staged in aborted {
            self.discard(&staged);
        }
        for copy in copies.into_iter().flat_map(|copies| copies.segments) {
            self.remove(copy.key, copy.layout);
        }
    }

    /// Refuses a copy of a transaction that was aborted, before its bytes come.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownHandle`].
    pub fn expect_copy(&self, copy: &SegmentCopy) -> Result<()> {
        match lock(&self.staged).aborted.contains(&copy.txn) {
            true => Err(over(copy.txn)),
            false => Ok(()),
        }
    }

    /// Notes a copy that is durable here, for an abort of its transaction; one that was aborted in
    /// the meantime loses it again.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownHandle`].
    pub fn keep_copy(&self, copy: SegmentCopy) -> Result<()> {
        let mut all = lock(&self.staged);
        if all.aborted.contains(&copy.txn) {
            drop(all);
            self.remove(copy.key, copy.layout);
            return Err(over(copy.txn));
        }
        let now = Instant::now();
        let copies = all
            .copies
            .entry(copy.txn)
            .or_insert_with(|| Copies { touched: now, segments: Vec::new() });
        copies.touched = now;
        copies.segments.push(copy);
        if all.copies.len() > SEALED_MAX {
            // Small inserts are many; an abort of one that is forgotten leaves an orphan.
            let oldest = all.copies.iter().min_by_key(|(_, copies)| copies.touched);
            let oldest = oldest.map(|(txn, _)| *txn);
            oldest.map(|txn| all.copies.remove(&txn));
        }
        Ok(())
    }

    /// Segments on the disk of transactions that still take rows here: nobody else may remove them.
    ///
    /// Those of a sealed transaction are not among them. Whether it committed is the coordinator's to
    /// say, who asks for no removal of what was found while a write of its own was under way, and
    /// none before the log has confirmed it. To keep them for as long as a transaction is remembered would
    /// keep garbage for as long.
    pub fn segments_being_written(&self) -> HashSet<SegmentId> {
        let all = lock(&self.staged);
        let states = all.tables.values().map(|staged| lock(&staged.state));
        let open = states.filter(|state| matches!(state.phase, Phase::Open | Phase::Sealing));
        open.flat_map(|state| state.published.iter().map(|r| r.segment).collect::<Vec<_>>())
            .collect()
    }

    fn remove(&self, key: SegmentKey, layout: Layout) {
        if let Err(error) = self.store.remove_segment(key, layout) {
            tracing::warn!(segment = %key, %error,
                "an aborted segment stays on the disk until garbage collection");
        }
    }

    fn discard(&self, staged: &StagedTable) {
        lock(&staged.state).phase = Phase::Discarded;
        for writer in lock(&staged.slices).values() {
            drop(lock(writer).take());
        }
        // What is on its way to the disk is removed when it is there.
        let published = std::mem::take(&mut lock(&staged.state).published);
        for record in published {
            self.remove(record.key(), record.layout);
        }
    }

    /// Drops abandoned transactions, and the memory of sealed ones. Called from time to time.
    pub fn sweep(&self) {
        let mut abandoned = Vec::new();
        let mut all = lock(&self.staged);
        if all.swept.is_some_and(|swept| swept.elapsed() < SWEEP_EVERY) {
            return;
        }
        all.swept = Some(Instant::now());
        while all.sealed.len() > SEALED_MAX {
            if let Some(oldest) = all.sealed.pop_front() {
                all.tables.remove(&oldest);
            }
        }
        // What becomes of a copy of a commit is the coordinator's to say by then.
        all.copies.retain(|_, copies| copies.touched.elapsed() < ABANDONED_AFTER);
        all.tables.retain(|_, staged| {
            let state = lock(&staged.state);
            let age = state.touched.elapsed();
            let is_sealed = state.phase == Phase::Sealed;
            if !is_sealed && age > ABANDONED_AFTER {
                abandoned.push(Arc::clone(staged));
                return false;
            }
            !(is_sealed && age > SEALED_KEPT)
        });
        drop(all);
        for staged in abandoned {
            tracing::warn!(txn = %staged.target.txn, "an abandoned transaction is dropped");
            self.discard(&staged);
        }
    }
}

/// Bytes of the rows of a slice of a batch: its share of the arrays' buffers.
fn piece_bytes(piece: &RecordBatch) -> usize {
    piece
        .columns()
        .iter()
        .map(|array| {
            array
                .to_data()
                .get_slice_memory_size()
                .unwrap_or_else(|_| array.get_array_memory_size())
        })
        .sum()
}

fn join_error(error: tokio::task::JoinError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The answer to what comes too late for a transaction.
fn over(txn: TxnId) -> DataFusionError {
    let message = format!("transaction {txn} is over: it was sealed or aborted");
    SqlError::new(ErrorCode::UnknownHandle, message).into()
}

fn internal(message: String) -> DataFusionError {
    DataFusionError::Internal(message)
}
