//! Segments on their way to the disk here, and to partners.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use basalt_engine::error::storage_error;
use basalt_storage::error::StorageError;
use basalt_storage::manifest::SegmentRecord;
use basalt_storage::segment_writer::{EncodedSegment, SegmentWriter};
use datafusion::error::{DataFusionError, Result};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::budget::Closing;
use super::{Phase, SliceWriter, StagedTable, Staging, join_error, lock, over};

impl Staging {
    /// Publishes a slice's rows so far as a segment of their own, here and on partners, in the
    /// background; their bytes count until then.
    pub(super) fn close_soon(
        self: &Arc<Self>,
        staged: &Arc<StagedTable>,
        writer: Option<SliceWriter>,
    ) {
        let Some(SliceWriter { segment, held }) = writer else { return };
        // A worker that stops does not wait for what has not begun.
        let (staging, table) = (Arc::downgrade(self), Arc::clone(staged));
        let task = tokio::spawn(close_or_fail(staging, table, segment, held.close()));
        lock(&staged.closing).push(task);
    }

    fn close(&self, staged: &StagedTable, segment: SegmentWriter) -> Result<()> {
        if lock(&staged.state).phase == Phase::Discarded {
            return Err(over(staged.target.txn));
        }
        let encoded = segment.encode().map_err(storage_error)?;
        let sent = self.send(staged, &encoded);
        self.publish(staged, vec![encoded], sent.into_iter().collect())
    }

    /// Starts to send a segment to partners; `None` when it has none.
    pub(super) fn send(&self, staged: &StagedTable, segment: &EncodedSegment) -> Option<Sent> {
        if staged.target.copies.wanted <= 1 {
            return None;
        }
        let (replicas, target) = (Arc::clone(&self.replicas), Arc::clone(&staged.target));
        let segment = segment.clone();
        Some(tokio::spawn(async move { replicas.replicate(&target, &segment).await }))
    }

    /// Writes segments to the disk here while those of them in `sent` go to partners, and notes
    /// all that is durable as part of the transaction.
    pub(super) fn publish(
        &self,
        staged: &StagedTable,
        segments: Vec<EncodedSegment>,
        sent: Vec<Sent>,
    ) -> Result<()> {
        let published = self.store.publish(segments).map_err(storage_error);
        let mut replicated = HashMap::new();
        let mut failed = None;
        for sent in sent {
            match Handle::current().block_on(sent).map_err(join_error).flatten() {
                Ok(record) => {
                    replicated.insert(record.segment, record);
                }
                Err(error) => failed = Some(error),
            }
        }
        let records = published?.into_iter();
        let records = records.map(|own| replicated.remove(&own.segment).unwrap_or(own));
        let mut state = lock(&staged.state);
        if failed.is_none() && state.phase != Phase::Discarded {
            state.published.extend(records);
            return Ok(());
        }
        drop(state);
        records.for_each(|record| self.remove(record.key(), record.layout));
        Err(failed.unwrap_or_else(|| over(staged.target.txn)))
    }
}

/// Closes a segment when it is its turn, and says in the table's state when that fails.
async fn close_or_fail(
    staging: Weak<Staging>,
    staged: Arc<StagedTable>,
    segment: SegmentWriter,
    closing: Closing,
) {
    if let Err(error) = close_in_turn(staging, Arc::clone(&staged), segment, &closing).await {
        lock(&staged.state).failed.get_or_insert_with(|| Arc::new(error));
    }
}

async fn close_in_turn(
    staging: Weak<Staging>,
    staged: Arc<StagedTable>,
    segment: SegmentWriter,
    closing: &Closing,
) -> Result<()> {
    let _turn = closing.turn().await.map_err(|e| DataFusionError::External(Box::new(e)))?;
    let closed = tokio::task::spawn_blocking(move || {
        let staging = staging.upgrade().ok_or_else(|| over(staged.target.txn))?;
        staging.close(&staged, segment)
    });
    closed.await.map_err(join_error)?
}

/// A segment on its way to partners.
pub(super) type Sent = JoinHandle<Result<SegmentRecord>>;

/// Encodes segments on as many threads as the machine has, each of which tells of every one.
pub(super) fn encode_all(
    segments: Vec<SegmentWriter>,
    encoded: impl Fn(&EncodedSegment) + Sync,
) -> Result<Vec<EncodedSegment>, StorageError> {
    let encode = |segment: SegmentWriter| segment.encode().inspect(&encoded);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(segments.len());
    if threads <= 1 {
        return segments.into_iter().map(encode).collect();
    }
    let queue = Mutex::new(segments.into_iter());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some(segment) = lock(&queue).next() else { break };
                    let encoded = encode(segment);
                    let failed = encoded.is_err();
                    lock(&done).push(encoded);
                    if failed {
                        break;
                    }
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect()
}
