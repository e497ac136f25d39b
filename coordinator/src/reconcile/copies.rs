//! What is known of copies, and the steps that repair takes next: copies made, mended and forgotten.
//!
//! No I/O and no clock: the time is handed in, and what takes the steps says when one has ended
//! ([`steps`](super::steps)). What a step did is committed in the round after it ended. A coordinator
//! that restarts has forgotten all of it, and the next plan finds what is there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use basalt_engine::auto_distribution::auto_choice;
use basalt_engine::snapshot::{Distribution, Snapshot, TableSnapshot};
use basalt_storage::ids::{SegmentId, TableId, WorkerId};
use basalt_storage::layout::SegmentKey;
use tonic::{Code, Status};
use url::Url;

use super::garbage::{Garbage, holds_any};
use super::slices::copies_placed;
use super::standing::Standing;
use crate::catalog::{ClusterState, CopyMove};
use crate::membership::{Incarnation, Member};
use crate::repair::{
    CopyReason, InFlight, Limits, LostSegment, Observed, Plan, Progress, Segment, Step,
    WorkerState, plan,
};

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
pub(crate) type Fetched = Result<u64, FetchFailed>;

/// Why a copy is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FetchFailed {
    /// Whether it is known that the copy is bad and no source has a good one; else the worker could
    /// not be asked, or could not write.
    pub(crate) no_good_copy: bool,
    pub(crate) message: String,
}

impl FetchFailed {
    pub(crate) fn other(error: impl ToString) -> Self {
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
pub(crate) struct Running {
    run: RepairRun,
    in_flight: InFlight,
    began: Instant,
}

/// All that repair knows beside the catalog: what is under way, and what was found bad.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    running: HashMap<(SegmentId, WorkerId), Running>,
    ended: VecDeque<RepairRun>,
    /// Copies that a holder lacks, or has bad ones of.
    pub(crate) bad: BTreeSet<(WorkerId, SegmentKey)>,
    progress: Progress,
    /// How hot tables are that were read lately.
    pub(crate) heat: HashMap<TableId, u64>,
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
    pub(crate) fn list(&self) -> Vec<RepairRun> {
        let running = self.running.values().map(|running| running.run.clone());
        running.chain(self.ended.iter().rev().cloned()).collect()
    }

    /// Segments that are being copied to a worker.
    pub(crate) fn coming_to(&self, worker: WorkerId) -> HashSet<SegmentId> {
        let coming = self.running.keys().filter(|(_, to)| *to == worker);
        coming.map(|(segment, _)| *segment).collect()
    }

    /// Workers whose disk should be listed: those that restarted, and those not listed for `every`.
    pub(crate) fn due_for_inventory(
        &mut self,
        mut workers: BTreeMap<WorkerId, Url>,
        members: &[Member],
        every: Duration,
        now: Instant,
    ) -> BTreeMap<WorkerId, Url> {
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
    pub(crate) fn note_missing(
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
    pub(crate) fn note_good(&mut self, worker: WorkerId, segment: SegmentKey) {
        self.bad.remove(&(worker, segment));
    }

    /// Whether nothing changed since nothing was left to do.
    fn is_at_rest(&self, version: u64, standings: &BTreeMap<WorkerId, Standing>) -> bool {
        self.at_rest.as_ref().is_some_and(|(at, then)| *at == version && then == standings)
    }

    /// How far repair is.
    pub(crate) fn progress(&self) -> Progress {
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
    pub(crate) fn may_start(&mut self, bytes: u64, bytes_per_second: u64, now: Instant) -> bool {
        let paid_until = self.paid_until.unwrap_or(now).max(now);
        if paid_until > now + Duration::from_secs(1) {
            return false;
        }
        let takes = Duration::from_secs_f64(bytes as f64 / bytes_per_second.max(1) as f64);
        self.paid_until = Some(paid_until + takes);
        true
    }

    /// Notes a copy that begins.
    pub(crate) fn start(&mut self, run: RepairRun, in_flight: InFlight, now: Instant) {
        self.garbage.forget(run.worker, run.segment);
        let running = Running { in_flight, began: now, run };
        self.running.insert((running.run.segment, running.run.worker), running);
    }

    /// Ends copies to workers that are lost or members no longer; says which.
    pub(crate) fn abandon(
        &mut self,
        standings: &BTreeMap<WorkerId, Standing>,
        now: Instant,
    ) -> Vec<(SegmentId, WorkerId)> {
        let is_lost = |to: &WorkerId| matches!(standings.get(to), None | Some(Standing::Lost));
        let lost: Vec<_> = self.running.keys().filter(|(_, to)| is_lost(to)).copied().collect();
        for key in &lost {
            if let Some(running) = self.running.remove(key) {
                self.end(running, Err(FetchFailed::other("the worker was lost")), now);
            }
        }
        lost
    }

    /// Notes that a copy has ended; the change of the catalog that it makes, if it is there now.
    pub(crate) fn note_ended(
        &mut self,
        key: (SegmentId, WorkerId),
        fetched: Fetched,
        now: Instant,
    ) -> Option<CopyMove> {
        let running = self.running.remove(&key)?;
        let copied = (running.in_flight.to, running.in_flight.segment);
        let run = self.end(running, fetched, now);
        if run.state == RepairState::Done {
            self.held_back.remove(&copied.1);
            self.bad.remove(&copied);
            let RepairRun { table, segment, worker, .. } = run;
            return Some(CopyMove { table, segment, add: vec![worker], remove: vec![] });
        }
        let (tries, _) = self.held_back.get(&copied.1).copied().unwrap_or((0, now));
        let wait = AGAIN_AFTER.saturating_mul(1 << tries.min(16)).min(AGAIN_AFTER_MAX);
        self.held_back.insert(copied.1, (tries + 1, now + wait));
        None
    }

    /// What to do next at a commit; `None` when nothing changed since nothing was left to do.
    pub(crate) fn next_steps(
        &mut self,
        snapshot: &Snapshot,
        cluster: &ClusterState,
        standings: BTreeMap<WorkerId, Standing>,
        (at_once, now): (usize, Instant),
    ) -> Option<Vec<Step>> {
        if self.is_at_rest(snapshot.version, &standings) {
            return None;
        }
        // Those of tables that were dropped meanwhile: nothing is tried again.
        self.held_back.retain(|_, (_, again)| now < *again + AGAIN_AFTER_MAX);
        let Plan { steps, lost, progress } =
            self.plan(snapshot, cluster, &standings, (at_once, now));
        let is_waiting = !self.held_back.is_empty() || self.garbage.is_removing();
        if steps.is_empty() && self.running.is_empty() && !is_waiting {
            self.at_rest = Some((snapshot.version, standings));
        }
        self.note_progress(progress, &lost);
        Some(steps)
    }

    fn plan(
        &self,
        snapshot: &Snapshot,
        cluster: &ClusterState,
        standings: &BTreeMap<WorkerId, Standing>,
        (at_once, now): (usize, Instant),
    ) -> Plan {
        let workers = standings.iter().map(|(worker, standing)| {
            let state = match standing {
                Standing::Good => WorkerState::Live,
                Standing::Away => WorkerState::Away,
                Standing::Lost => WorkerState::Lost,
                Standing::Draining => WorkerState::Draining,
            };
            (*worker, state)
        });
        let in_flight: Vec<_> = self.running.values().map(|running| running.in_flight).collect();
        let room = at_once.saturating_sub(in_flight.len());
        let observed = Observed {
            workers: &workers.collect(),
            bad: &self.bad,
            in_flight: &in_flight,
            domains: &cluster.domains(),
        };
        let limits = Limits { steps_max: STEPS_MAX, ..Limits::default() };
        let desired = cluster.slice_workers();
        let may_try = |segment: &Segment<'_>| {
            self.held_back.get(&segment.key).is_none_or(|(_, again)| *again <= now)
        };
        let segments = segments_wanted(snapshot, &self.heat).filter(may_try);
        let mut plan = plan(segments, &desired, &observed, limits);
        let mut begun = 0;
        plan.steps.retain(|step| {
            let to = match step {
                Step::Copy { to, .. } => *to,
                Step::Rebuild { worker, .. } => *worker,
                Step::Forget { .. } => return true,
            };
            if self.garbage.is_leaving(to, segment_of(step).segment) {
                return false;
            }
            begun += 1;
            begun <= room
        });
        plan
    }

    fn end(&mut self, running: Running, fetched: Fetched, now: Instant) -> RepairRun {
        let Running { mut run, began, .. } = running;
        run.elapsed_ms = Some(u64::try_from((now - began).as_millis()).unwrap_or(u64::MAX));
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

/// Members that are lost and have nothing any more: they count for nothing, and come back as new
/// ones.
pub(crate) fn members_to_remove(
    cluster: &ClusterState,
    snapshot: &Snapshot,
    standings: &BTreeMap<WorkerId, Standing>,
) -> Vec<WorkerId> {
    let placed: HashSet<_> = cluster.slice_workers().into_iter().flatten().collect();
    let is_nothing = |(worker, standing): &(&WorkerId, &Standing)| {
        **standing == Standing::Lost && !placed.contains(*worker) && !holds_any(snapshot, **worker)
    };
    // Fewer members than copies would mean that fewer copies are wanted, and what is drained would
    // be given up.
    let staying = cluster.workers.len().saturating_sub(cluster.draining.len());
    let spare = staying.saturating_sub(copies_placed(snapshot));
    standings.iter().filter(is_nothing).map(|(worker, _)| *worker).take(spare).collect()
}

pub(super) fn segment_of(step: &Step) -> SegmentKey {
    match step {
        Step::Copy { segment, .. }
        | Step::Rebuild { segment, .. }
        | Step::Forget { segment, .. } => *segment,
    }
}

pub(super) fn copy_reason(reason: CopyReason) -> &'static str {
    match reason {
        CopyReason::TooFew => "too few copies",
        CopyReason::Drain => "worker is drained",
        CopyReason::Placement => "moved",
        CopyReason::Everywhere => "on every worker",
    }
}

/// Whether every worker should have all rows of a table.
fn is_everywhere(table: &TableSnapshot, members: usize) -> bool {
    let is_chosen = || auto_choice(table, members).is_some_and(|choice| choice.everywhere);
    table.distribution == Distribution::All || is_chosen()
}

/// All segments, each with how many copies it should have.
fn segments_wanted<'a>(
    snapshot: &'a Snapshot,
    heat: &HashMap<TableId, u64>,
) -> impl Iterator<Item = Segment<'a>> {
    snapshot.tables().flat_map(move |table| {
        let wanted = snapshot.cluster.copies_wanted(table.replicas);
        let heat = heat.get(&table.id).copied().unwrap_or(0);
        let everywhere = is_everywhere(table, snapshot.cluster.members);
        table.segments.iter().map(move |segment| Segment {
            key: segment.key(),
            bytes: segment.bytes,
            holders: &segment.holders,
            wanted,
            everywhere,
            heat,
        })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use basalt_engine::snapshot::{ClusterView, DEFAULT_SCHEMA, Pin, Relation, SchemaSnapshot};
    use basalt_storage::digest::Digest;
    use basalt_storage::ids::{ClusterId, Epoch, SliceId, TxnId};
    use basalt_storage::manifest::{Layout, SegmentRecord};
    use basalt_storage::schema::TableSchema;

    use super::super::garbage::Listed;
    use super::*;
    use crate::catalog::SliceHash;

    /// A table of one segment that one of two workers has, and both should.
    struct Scene {
        snapshot: Snapshot,
        cluster: ClusterState,
        segment: SegmentId,
        other: WorkerId,
    }

    impl Scene {
        fn new() -> Self {
            let (holder, other) = (WorkerId::generate(), WorkerId::generate());
            let (cluster, txn) = (ClusterId::generate(), TxnId::generate());
            let segment = SegmentRecord {
                table: TableId(1),
                slice: SliceId(0),
                segment: SegmentId::generate(),
                txn,
                layout: Layout::Packed,
                rows: 1,
                row_groups: vec![1],
                columns: BTreeMap::new(),
                meta_digest: Digest::of(b""),
                bytes: 1,
                holders: vec![holder],
                deleted: None,
                routed_by: None,
            };
            let id = segment.segment;
            let table = TableSnapshot {
                id: TableId(1),
                schema_name: DEFAULT_SCHEMA.to_owned(),
                name: "t".to_owned(),
                version: 1,
                schema: Arc::new(TableSchema { version: 1, columns: vec![], keys: vec![] }),
                distribution: Distribution::Even,
                chosen_key: None,
                sort_key: vec![],
                replicas: 2,
                segments: vec![Arc::new(segment)].into(),
                statistics: None,
            };
            let relations = BTreeMap::from([("t".to_owned(), Relation::Table(Arc::new(table)))]);
            let schema = Arc::new(SchemaSnapshot { relations });
            let view = ClusterView {
                cluster,
                epoch: Epoch(1),
                slice_owners: vec![holder],
                slice_partners: vec![vec![other]],
                members: 2,
                workers: BTreeMap::new(),
                domains: BTreeMap::new(),
                moved: HashMap::new(),
            };
            let snapshot = Snapshot {
                version: 7,
                cluster: Arc::new(view),
                schemas: BTreeMap::from([(DEFAULT_SCHEMA.to_owned(), schema)]),
                pin: Arc::new(Pin),
            };
            let cluster = ClusterState {
                cluster,
                slices: 1,
                slice_hash: SliceHash::Xxh3V1,
                workers_expected: None,
                epoch: Epoch(1),
                slice_owners: vec![holder],
                slice_partners: vec![vec![other]],
                workers: BTreeSet::from([holder, other]),
                draining: BTreeSet::new(),
                described: BTreeMap::new(),
                assigned_by: txn,
            };
            Self { snapshot, cluster, segment: id, other }
        }

        fn copies_begun(&self, copies: &mut Copies) -> usize {
            let standings = self.cluster.workers.iter().map(|w| (*w, Standing::Good)).collect();
            let limits = (4, Instant::now());
            let steps = copies.next_steps(&self.snapshot, &self.cluster, standings, limits);
            steps.unwrap_or_default().len()
        }

        /// What may go of the other worker's disk, where the segment is garbage of an earlier time.
        fn judge(&self, copies: &mut Copies) -> Vec<SegmentId> {
            copies.judge(&Listed {
                worker: self.other,
                before: &HashMap::new(),
                here: &HashSet::from([self.segment]),
                snapshot: &self.snapshot,
                oldest_pinned: self.snapshot.version,
                oldest_write: None,
                clock: (Instant::now(), Duration::ZERO),
            })
        }
    }

    #[test]
    fn nothing_is_copied_to_a_worker_that_may_be_removing_it() {
        let (scene, mut copies) = (Scene::new(), Copies::default());
        assert_eq!(scene.judge(&mut copies), [scene.segment]);
        assert_eq!(scene.copies_begun(&mut copies), 0, "it could be what goes");
        copies.left(scene.other);
        assert_eq!(scene.copies_begun(&mut copies), 1);
    }

    #[test]
    fn a_worker_that_is_removing_is_not_told_again() {
        let (scene, mut copies) = (Scene::new(), Copies::default());
        assert_eq!(scene.judge(&mut copies), [scene.segment]);
        assert_eq!(scene.judge(&mut copies), []);
        copies.left(scene.other);
        assert_eq!(scene.judge(&mut copies), [scene.segment]);
    }
}
