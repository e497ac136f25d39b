//! The steps of repair, taken: each copy that is under way is a task.
//!
//! Which steps, and what follows from how one ended, is decided in [`copies`](super::copies).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use basalt_engine::protocol::replicas_client::ReplicasClient;
use basalt_engine::protocol::{Endpoint, FetchRequest, SegmentRef, WireId};
use basalt_engine::snapshot::Snapshot;
use basalt_storage::ids::{SegmentId, TableId, WorkerId};
use basalt_storage::manifest::{Layout, SegmentRecord};
use futures::FutureExt;
use tokio::task::JoinHandle;

use super::Reconciler;
use super::copies::{
    FetchFailed, Fetched, RepairRun, RepairState, copy_reason, members_to_remove, segment_of,
};
use crate::catalog::{CatalogError, Change, CopyMove};
use crate::repair::{InFlight, Step};

/// How long a copy may take beside its bytes, and how fast these must go: a disk that hangs must not
/// keep others from being repaired.
const FETCH_WITHIN: Duration = Duration::from_secs(60);
const FETCH_BYTES_PER_SECOND_MIN: u64 = 1 << 20;

/// The copies that are under way, by what goes where.
#[derive(Debug, Default)]
pub(super) struct Tasks(HashMap<(SegmentId, WorkerId), JoinHandle<Fetched>>);

impl Tasks {
    fn start(&mut self, key: (SegmentId, WorkerId), task: JoinHandle<Fetched>) {
        if let Some(older) = self.0.insert(key, task) {
            older.abort();
        }
    }

    fn abort(&mut self, key: (SegmentId, WorkerId)) {
        if let Some(task) = self.0.remove(&key) {
            task.abort();
        }
    }

    /// Takes those that are over, and what came of them.
    fn take_ended(&mut self) -> Vec<((SegmentId, WorkerId), Fetched)> {
        let is_over = |(_, task): &(_, &JoinHandle<_>)| task.is_finished();
        let over: Vec<_> = self.0.iter().filter(is_over).map(|(key, _)| *key).collect();
        let take = |key| {
            let fetched = self.0.remove(&key)?.now_or_never()?;
            Some((key, fetched.unwrap_or_else(|error| Err(FetchFailed::other(error)))))
        };
        over.into_iter().filter_map(take).collect()
    }
}

/// A segment, and the table that lists it.
#[derive(Debug, Clone, Copy)]
struct OfTable<'a> {
    table: TableId,
    record: &'a SegmentRecord,
}

/// A segment that is copied, as messages name it.
fn to_wire(record: &SegmentRecord) -> SegmentRef {
    SegmentRef {
        table: record.table.0,
        slice: u32::from(record.slice.0),
        segment: record.segment.to_wire(),
        packed: record.layout == Layout::Packed,
        txn: record.txn.to_wire(),
        meta_digest: record.meta_digest.as_bytes().to_vec(),
    }
}

impl Reconciler {
    /// Commits the copies that were made since the last round, forgets holders that count no
    /// longer, and begins the next copies. Returns how long planning took.
    pub(super) async fn repair(&self) -> Result<Duration, CatalogError> {
        let (standings, now) = (self.standings(), Instant::now());
        for key in self.copies().abandon(&standings, now) {
            self.tasks().abort(key);
        }
        let ended = self.tasks().take_ended();
        let note = |(key, fetched)| self.copies().note_ended(key, fetched, now);
        self.move_copies(ended.into_iter().filter_map(note).collect()).await?;
        let (snapshot, cluster) = (self.inner.catalog.snapshot(), self.inner.catalog.cluster());
        let limits = (self.inner.options.copies_at_once, Instant::now());
        self.copies().heat = self.heat().all(now);
        let began = Instant::now();
        let steps = self.copies().next_steps(&snapshot, &cluster, standings, limits);
        let Some(steps) = steps else { return Ok(began.elapsed()) };
        let chosen: HashSet<_> = steps.iter().map(segment_of).collect();
        // By the table that lists a segment, which need not be the one that it was written for.
        let listed: HashMap<_, _> = snapshot
            .tables()
            .flat_map(|table| table.segments.iter().map(|record| (table.id, record)))
            .filter(|(_, record)| chosen.contains(&record.key()))
            .map(|(table, record)| (record.key(), OfTable { table, record }))
            .collect();
        let planning = began.elapsed();
        let mut forget = Vec::new();
        for step in steps {
            let Some(segment) = listed.get(&segment_of(&step)) else { continue };
            match step {
                Step::Copy { sources, to, reason, .. } => {
                    self.begin(&snapshot, segment, &sources, to, copy_reason(reason));
                }
                Step::Rebuild { sources, worker, .. } => {
                    self.begin(&snapshot, segment, &sources, worker, "bad copy");
                }
                Step::Forget { worker, .. } => forget.push(CopyMove {
                    table: segment.table,
                    segment: segment.record.segment,
                    add: vec![],
                    remove: vec![worker],
                }),
            }
        }
        self.move_copies(forget).await?;
        Ok(planning)
    }

    /// Removes members that are lost and have nothing any more.
    pub(super) async fn remove_lost_workers(&self) -> Result<(), CatalogError> {
        let (snapshot, cluster) = (self.inner.catalog.snapshot(), self.inner.catalog.cluster());
        let log = self.inner.catalog.log_status();
        let of_log: HashSet<_> =
            log.members.iter().filter(|m| m.is_member).map(|m| m.worker).collect();
        let lost = members_to_remove(&cluster, &snapshot, &self.standings());
        // One that keeps the catalog's log leaves its set first.
        for worker in lost.into_iter().filter(|worker| !of_log.contains(worker)) {
            tracing::warn!(%worker, "a lost worker with nothing left is no member any more");
            self.commit(vec![Change::RemoveWorker { worker }]).await?;
        }
        Ok(())
    }

    async fn move_copies(&self, moves: Vec<CopyMove>) -> Result<(), CatalogError> {
        match moves.is_empty() {
            true => Ok(()),
            false => self.commit(vec![Change::MoveCopies { moves }]).await,
        }
    }

    /// What asks a worker for a copy, once it is polled; `None` when it cannot be reached.
    pub(super) fn fetch(
        &self,
        snapshot: &Snapshot,
        segment: &SegmentRecord,
        sources: &[WorkerId],
        to: WorkerId,
    ) -> Option<impl Future<Output = Fetched> + Send + use<>> {
        let cluster = &snapshot.cluster;
        let channel = self.inner.channels.worker(to, cluster.workers.get(&to)?);
        let within = FETCH_WITHIN + Duration::from_secs(segment.bytes / FETCH_BYTES_PER_SECOND_MIN);
        let source = |worker: &WorkerId| {
            let url = cluster.workers.get(worker)?.to_string();
            Some(Endpoint { worker: worker.to_wire(), url })
        };
        let request = FetchRequest {
            epoch: cluster.epoch.0,
            segment: Some(to_wire(segment)),
            sources: sources.iter().filter_map(source).collect(),
        };
        Some(async move {
            let channel = channel.map_err(FetchFailed::other)?;
            let mut client = ReplicasClient::new(channel);
            let fetched = tokio::time::timeout(within, client.fetch(request)).await;
            Ok(fetched.map_err(|_| FetchFailed::other("it took too long"))??.into_inner().bytes)
        })
    }

    /// Begins to make a copy, unless bytes are copied at the rate that is allowed already.
    fn begin(
        &self,
        snapshot: &Snapshot,
        segment: &OfTable<'_>,
        sources: &[WorkerId],
        to: WorkerId,
        reason: &str,
    ) {
        let OfTable { table, record } = *segment;
        let rate = self.inner.options.bytes_per_second;
        let Some(from) = sources.first().copied() else { return };
        if !self.copies().may_start(record.bytes, rate, Instant::now()) {
            return;
        }
        let Some(fetch) = self.fetch(snapshot, record, sources, to) else { return };
        let run = RepairRun {
            table,
            segment: record.segment,
            worker: to,
            reason: reason.to_owned(),
            started: SystemTime::now(),
            elapsed_ms: None,
            bytes: 0,
            state: RepairState::Running,
        };
        let key = (run.segment, run.worker);
        self.copies().start(run, InFlight { segment: record.key(), from, to }, Instant::now());
        let ended = Arc::clone(&self.inner.copy_ended);
        let fetch = async move {
            let fetched = fetch.await;
            // One that failed waits for the next round, or a target that always fails would be asked for one
            // segment after the other.
            if fetched.is_ok() {
                ended.notify_one();
            }
            fetched
        };
        self.tasks().start(key, tokio::spawn(fetch));
    }
}
