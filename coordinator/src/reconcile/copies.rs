//! The steps of repair: copies made, mended and forgotten.
//!
//! A copy that is under way is a task here; what it did is committed in the round after it ended. A
//! coordinator that restarts has forgotten both, and the next plan finds what is there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use basalt_engine::protocol::replicas_client::ReplicasClient;
use basalt_engine::protocol::{Endpoint, FetchRequest, SegmentRef, WireId};
use basalt_engine::snapshot::Snapshot;
use basalt_storage::ids::{SegmentId, TableId, WorkerId};
use basalt_storage::layout::SegmentKey;
use basalt_storage::manifest::{Layout, SegmentRecord};
use futures::FutureExt;
use tokio::task::JoinHandle;
use tonic::{Code, Status};
use url::Url;

use super::Reconciler;
use super::garbage::Garbage;
use super::slices::copies_placed;
use super::standing::Standing;
use crate::catalog::{CatalogError, Change, CopyMove};
use crate::membership::{Incarnation, Member};
use crate::repair::{
    CopyReason, InFlight, Limits, LostSegment, Observed, Plan, Progress, Segment, Step,
    WorkerState, plan,
};

/// How long a copy may take beside its bytes, and how fast these must go: a disk that hangs must not
/// keep others from being repaired.
const FETCH_WITHIN: Duration = Duration::from_secs(60);
const FETCH_BYTES_PER_SECOND_MIN: u64 = 1 << 20;
/// The first wait before a copy that failed is tried again, and the longest: it doubles each time.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(300);
/// Steps of one round: forgetting costs no more than a commit for all of them.
const STEPS_MAX: usize = 1_024;
/// Repairs that ended and are remembered.
const ENDED_MAX: usize = 1_000;

/// How a repair is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepairState {
    /// Bytes are being copied.
    Running,
    /// The copy is there.
    Done,
    /// It failed; the next round tries again.
    Failed(String),
}

/// One copy that was made or mended.
#[derive(Debug, Clone)]
pub struct RepairRun {
    /// The table.
    pub table: TableId,
    /// The segment.
    pub segment: SegmentId,
    /// The worker that gets the copy.
    pub worker: WorkerId,
    /// Why.
    pub reason: String,
    /// When it began.
    pub started: SystemTime,
    /// How long it took, once it is over.
    pub elapsed_ms: Option<u64>,
    /// Bytes that were copied, once it is over.
    pub bytes: u64,
    /// How it is doing.
    pub state: RepairState,
}

/// What a worker said of a copy.
pub(super) type Fetched = Result<u64, FetchFailed>;

/// Why a copy is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FetchFailed {
    /// Whether it is known that the copy is bad and no source has a good one; else the worker could
    /// not be asked, or could not write.
    pub(super) no_good_copy: bool,
    pub(super) message: String,
}

impl FetchFailed {
    pub(super) fn other(error: impl ToString) -> Self {
        Self { no_good_copy: false, message: error.to_string() }
    }
}

impl From<Status> for FetchFailed {
    fn from(status: Status) -> Self {
        let no_good_copy = matches!(status.code(), Code::NotFound | Code::DataLoss);
        Self { no_good_copy, message: status.message().to_owned() }
    }
}

/// A copy that is under way.
#[derive(Debug)]
pub(super) struct Running {
    run: RepairRun,
    in_flight: InFlight,
    began: Instant,
    task: JoinHandle<Fetched>,
}

/// All that repair knows beside the catalog: what is under way, and what was found bad.
#[derive(Debug, Default)]
pub(super) struct Copies {
    running: HashMap<(SegmentId, WorkerId), Running>,
    ended: VecDeque<RepairRun>,
    /// Copies that a holder lacks, or has bad ones of.
    pub(super) bad: BTreeSet<(WorkerId, SegmentKey)>,
    progress: Progress,
    /// Segments of which a copy failed: how often in a row, and when the next may be tried. Without
    /// this those that cannot succeed would take the place of all others.
    held_back: HashMap<SegmentKey, (u32, Instant)>,
    pub(super) garbage: Garbage,
    /// Which run of each worker it was whose disk was listed last, and when that was.
    listed: HashMap<WorkerId, (Option<Incarnation>, Instant)>,
    /// The commit at which nothing was left to do, and how workers counted then.
    at_rest: Option<(u64, BTreeMap<WorkerId, Standing>)>,
    /// Until when bytes that were asked for take, at the rate that is allowed.
    paid_until: Option<Instant>,
}

impl Copies {
    /// Running copies, then ended ones, the newest first.
    pub(super) fn list(&self) -> Vec<RepairRun> {
        let running = self.running.values().map(|running| running.run.clone());
        running.chain(self.ended.iter().rev().cloned()).collect()
    }

    /// Segments that are being copied to a worker.
    pub(super) fn coming_to(&self, worker: WorkerId) -> HashSet<SegmentId> {
        let coming = self.running.keys().filter(|(_, to)| *to == worker);
        coming.map(|(segment, _)| *segment).collect()
    }

    /// Workers whose disk should be listed: those that restarted, and those not listed for `every`.
    pub(super) fn due_for_inventory(
        &mut self,
        mut workers: BTreeMap<WorkerId, Url>,
        members: &[Member],
        every: Duration,
    ) -> BTreeMap<WorkerId, Url> {
        let now = Instant::now();
        let run_of = |worker: &WorkerId| {
            let member = members.iter().find(|member| member.worker == *worker);
            member.map(|member| member.incarnation)
        };
        workers.retain(|worker, _| match self.listed.get(worker) {
            Some((run, when)) => *run != run_of(worker) || now.duration_since(*when) >= every,
            None => true,
        });
        self.listed.extend(workers.keys().map(|worker| (*worker, (run_of(worker), now))));
        workers
    }

    /// Notes which segments a worker lacks that it should have, all of them.
    pub(super) fn note_missing(
        &mut self,
        worker: WorkerId,
        missing: impl Iterator<Item = SegmentKey>,
    ) {
        for segment in missing {
            if self.bad.insert((worker, segment)) {
                tracing::warn!(%worker, %segment, "a copy is missing on a worker's disk");
                self.at_rest = None;
            }
        }
    }

    /// Notes that a copy was read and is good.
    pub(super) fn note_good(&mut self, worker: WorkerId, segment: SegmentKey) {
        self.bad.remove(&(worker, segment));
    }

    /// Whether nothing changed since nothing was left to do.
    fn is_at_rest(&self, version: u64, standings: &BTreeMap<WorkerId, Standing>) -> bool {
        self.at_rest.as_ref().is_some_and(|(at, then)| *at == version && then == standings)
    }

    /// How far repair is.
    pub(super) fn progress(&self) -> Progress {
        self.progress
    }

    fn note_progress(&mut self, progress: Progress, lost: &[LostSegment]) {
        if let (Some(first), true) = (lost.first(), progress.lost != self.progress.lost) {
            tracing::error!(segments = progress.lost.count, first = %first.segment,
                "segments have no good copy on any worker that answers");
        }
        self.progress = progress;
    }

    /// Whether bytes may be asked for now; the time for them is taken when they are.
    pub(super) fn may_start(&mut self, bytes: u64, bytes_per_second: u64, now: Instant) -> bool {
        let paid_until = self.paid_until.unwrap_or(now).max(now);
        if paid_until > now + Duration::from_secs(1) {
            return false;
        }
        let takes = Duration::from_secs_f64(bytes as f64 / bytes_per_second.max(1) as f64);
        self.paid_until = Some(paid_until + takes);
        true
    }

    /// Notes a copy that begins.
    fn start(&mut self, run: RepairRun, in_flight: InFlight, task: JoinHandle<Fetched>) {
        let key = (run.segment, run.worker);
        let running = Running { run, in_flight, began: Instant::now(), task };
        if let Some(older) = self.running.insert(key, running) {
            older.task.abort();
        }
    }

    /// Ends copies to workers that are none of `good` any more.
    pub(super) fn abandon(&mut self, good: impl Fn(&WorkerId) -> bool) {
        let lost: Vec<_> = self.running.keys().filter(|(_, to)| !good(to)).copied().collect();
        for key in lost {
            if let Some(running) = self.running.remove(&key) {
                running.task.abort();
                self.end(running, Err(FetchFailed::other("the worker was lost")));
            }
        }
    }

    /// Takes what has ended since: each copy that is there now.
    pub(super) fn take_done(&mut self) -> Vec<RepairRun> {
        let ended: Vec<_> =
            self.running.iter().filter(|(_, r)| r.task.is_finished()).map(|(k, _)| *k).collect();
        let (mut done, now) = (Vec::new(), Instant::now());
        for key in ended {
            let Some(mut running) = self.running.remove(&key) else { continue };
            let Some(fetched) = (&mut running.task).now_or_never() else { continue };
            let fetched = fetched.unwrap_or_else(|error| Err(FetchFailed::other(error)));
            let copied = (running.in_flight.to, running.in_flight.segment);
            let run = self.end(running, fetched);
            if run.state == RepairState::Done {
                self.held_back.remove(&copied.1);
                self.bad.remove(&copied);
                done.push(run);
            } else {
                let (tries, _) = self.held_back.get(&copied.1).copied().unwrap_or((0, now));
                let wait = AGAIN_AFTER.saturating_mul(1 << tries.min(16)).min(AGAIN_AFTER_MAX);
                self.held_back.insert(copied.1, (tries + 1, now + wait));
            }
        }
        done
    }

    fn end(&mut self, running: Running, fetched: Fetched) -> RepairRun {
        let Running { mut run, began, .. } = running;
        run.elapsed_ms = Some(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        match fetched {
            Ok(bytes) => (run.bytes, run.state) = (bytes, RepairState::Done),
            Err(FetchFailed { message: error, .. }) => {
                tracing::warn!(segment = %run.segment, worker = %run.worker, error,
                    "a copy could not be made");
                run.state = RepairState::Failed(error);
            }
        }
        if self.ended.len() == ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(run.clone());
        run
    }
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
    /// longer, and begins the next copies.
    pub(super) async fn repair(&self) -> Result<(), CatalogError> {
        let standings = self.standings();
        self.copies()
            .abandon(|worker| !matches!(standings.get(worker), None | Some(Standing::Lost)));
        let done = self.copies().take_done();
        let made = done.into_iter().map(|run| CopyMove {
            table: run.table,
            segment: run.segment,
            add: vec![run.worker],
            remove: vec![],
        });
        self.move_copies(made.collect()).await?;
        let snapshot = self.inner.catalog.snapshot();
        if self.copies().is_at_rest(snapshot.version, &standings) {
            return Ok(());
        }
        let Plan { steps, lost, progress } = self.plan(&snapshot, &standings);
        let is_idle = |copies: &Copies| copies.running.is_empty() && copies.held_back.is_empty();
        if steps.is_empty() && is_idle(&self.copies()) {
            self.copies().at_rest = Some((snapshot.version, standings));
        }
        self.copies().note_progress(progress, &lost);
        let chosen: HashSet<_> = steps.iter().map(segment_of).collect();
        let records: HashMap<_, _> = snapshot
            .segments()
            .filter(|record| chosen.contains(&record.key()))
            .map(|record| (record.key(), record))
            .collect();
        let mut forget = Vec::new();
        for step in steps {
            let Some(record) = records.get(&segment_of(&step)) else { continue };
            match step {
                Step::Copy { sources, to, reason, .. } => {
                    self.begin(&snapshot, record, &sources, to, copy_reason(reason));
                }
                Step::Rebuild { sources, worker, .. } => {
                    self.begin(&snapshot, record, &sources, worker, "bad copy");
                }
                Step::Forget { worker, .. } => forget.push(CopyMove {
                    table: record.table,
                    segment: record.segment,
                    add: vec![],
                    remove: vec![worker],
                }),
            }
        }
        self.move_copies(forget).await
    }

    /// What to do next.
    fn plan(&self, snapshot: &Snapshot, standings: &BTreeMap<WorkerId, Standing>) -> Plan {
        let workers = standings.iter().map(|(worker, standing)| {
            let state = match standing {
                Standing::Good => WorkerState::Live,
                Standing::Away => WorkerState::Away,
                Standing::Lost => WorkerState::Lost,
                Standing::Draining => WorkerState::Draining,
            };
            (*worker, state)
        });
        let copies = self.copies();
        let in_flight: Vec<_> = copies.running.values().map(|running| running.in_flight).collect();
        let room = self.inner.options.copies_at_once.saturating_sub(in_flight.len());
        let cluster = self.inner.catalog.cluster();
        let observed = Observed {
            workers: &workers.collect(),
            bad: &copies.bad,
            in_flight: &in_flight,
            domains: &cluster.domains(),
        };
        let limits = Limits { steps_max: STEPS_MAX, ..Limits::default() };
        let desired = cluster.slice_workers();
        let now = Instant::now();
        let may_try = |segment: &Segment<'_>| {
            copies.held_back.get(&segment.key).is_none_or(|(_, again)| *again <= now)
        };
        let segments = segments_wanted(snapshot).filter(may_try);
        let mut plan = plan(segments, &desired, &observed, limits);
        let mut begun = 0;
        plan.steps.retain(|step| {
            let copies = !matches!(step, Step::Forget { .. });
            begun += usize::from(copies);
            !copies || begun <= room
        });
        plan
    }

    /// Members that are lost and have nothing any more are members no longer: they count for
    /// nothing, and come back as new ones.
    pub(super) async fn remove_lost_workers(&self) -> Result<(), CatalogError> {
        let (snapshot, cluster) = (self.inner.catalog.snapshot(), self.inner.catalog.cluster());
        let placed: HashSet<_> = cluster.slice_workers().into_iter().flatten().collect();
        let log = self.inner.catalog.log_status();
        let of_log: HashSet<_> =
            log.members.iter().filter(|m| m.is_member).map(|m| m.worker).collect();
        for (worker, standing) in self.standings() {
            let goes = standing == Standing::Lost
                && !of_log.contains(&worker)
                && !placed.contains(&worker)
                && !super::garbage::holds_any(&snapshot, worker);
            // Fewer members than copies would mean that fewer copies are wanted, and what is drained
            // would be given up.
            let cluster = self.inner.catalog.cluster();
            let staying = cluster.workers.len() - cluster.draining.len();
            if goes && staying > copies_placed(&snapshot) {
                tracing::warn!(%worker, "a lost worker with nothing left is no member any more");
                self.commit(vec![Change::RemoveWorker { worker }]).await?;
            }
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
        record: &SegmentRecord,
        sources: &[WorkerId],
        to: WorkerId,
        reason: &str,
    ) {
        let rate = self.inner.options.bytes_per_second;
        let Some(from) = sources.first().copied() else { return };
        if !self.copies().may_start(record.bytes, rate, Instant::now()) {
            return;
        }
        let Some(fetch) = self.fetch(snapshot, record, sources, to) else { return };
        let run = RepairRun {
            table: record.table,
            segment: record.segment,
            worker: to,
            reason: reason.to_owned(),
            started: SystemTime::now(),
            elapsed_ms: None,
            bytes: 0,
            state: RepairState::Running,
        };
        self.copies().start(run, InFlight { segment: record.key(), from, to }, tokio::spawn(fetch));
    }
}

fn segment_of(step: &Step) -> SegmentKey {
    match step {
        Step::Copy { segment, .. }
        | Step::Rebuild { segment, .. }
        | Step::Forget { segment, .. } => *segment,
    }
}

fn copy_reason(reason: CopyReason) -> &'static str {
    match reason {
        CopyReason::TooFew => "too few copies",
        CopyReason::Drain => "worker is drained",
        CopyReason::Placement => "moved",
    }
}

/// All segments, each with how many copies it should have.
fn segments_wanted(snapshot: &Snapshot) -> impl Iterator<Item = Segment<'_>> {
    snapshot.tables().flat_map(|table| {
        let wanted = snapshot.cluster.copies_wanted(table.replicas);
        table.segments.iter().map(move |segment| Segment {
            key: segment.key(),
            bytes: segment.bytes,
            holders: &segment.holders,
            wanted,
            // Reads are not counted by segment.
            heat: 0,
        })
    })
}
