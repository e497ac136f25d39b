//! Copies that the coordinator asks for: of repair, and of scrubs, which are the same request.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use basalt_engine::error::{ErrorCode, SqlError};
use basalt_engine::snapshot::Snapshot;
use basalt_storage::ids::{SegmentId, WorkerId};
use basalt_storage::layout::SegmentKey;
use basalt_storage::manifest::SegmentRecord;

use super::coordinator::Waiting;
use super::messages::{Address, Ask, Node, Reply};
use super::world::{Ms, World};
use crate::reconcile::RepairRun;
use crate::reconcile::RepairState;
use crate::reconcile::copies::{FetchFailed, Fetched};
use crate::reconcile::scrub::Finding;
use crate::reconcile::standing::Standing;
use crate::repair::InFlight;

/// How long a copy may take.
const FETCH_WITHIN: Ms = 15_000;

/// Checks of one worker's copies, one after the other.
#[derive(Debug, Default)]
pub(super) struct Checks {
    todo: VecDeque<(SegmentKey, Address, Ask)>,
    done: Vec<(SegmentKey, Fetched)>,
    is_busy: bool,
}

fn fetched_of(answer: Result<Reply, SqlError>) -> Fetched {
    match answer {
        Ok(Reply::Fetched(bytes)) => Ok(bytes),
        Ok(_) => Err(FetchFailed::other("another answer")),
        Err(error) => Err(FetchFailed {
            no_good_copy: error.code == ErrorCode::DataCorrupted,
            message: error.message,
        }),
    }
}

/// What asks a worker for a copy; `None` when it cannot be reached.
fn fetch_of(
    snapshot: &Snapshot,
    record: &Arc<SegmentRecord>,
    sources: &[WorkerId],
    to: WorkerId,
) -> Option<(Address, Ask)> {
    let port = |worker: &WorkerId| snapshot.cluster.workers.get(worker)?.port();
    let source = |worker: &WorkerId| Some((*worker, port(worker)?));
    let fetch = Ask::Fetch {
        epoch: snapshot.cluster.epoch,
        record: Arc::clone(record),
        sources: sources.iter().filter_map(source).collect(),
    };
    Some((Address::Worker(to, port(&to)?), fetch))
}

impl World {
    pub(super) fn begin_copy(
        &mut self,
        snapshot: &Snapshot,
        record: &Arc<SegmentRecord>,
        sources: &[WorkerId],
        to: WorkerId,
        is_rebuild: bool,
    ) {
        let (now, rate) = (self.instant(), self.rules.options.bytes_per_second);
        let Some(from) = sources.first().copied() else { return };
        if !self.brain().copies.may_start(record.bytes, rate, now) {
            return;
        }
        let Some((address, fetch)) = fetch_of(snapshot, record, sources, to) else { return };
        let key = (record.segment, to);
        let run = RepairRun {
            table: record.table,
            segment: record.segment,
            worker: to,
            reason: if is_rebuild { "bad copy" } else { "copy" }.to_owned(),
            started: SystemTime::UNIX_EPOCH,
            elapsed_ms: None,
            bytes: 0,
            state: RepairState::Running,
        };
        self.brain().copies.start(run, InFlight { segment: record.key(), from, to }, now);
        self.tell(|| format!("{} is copied to {to} from {sources:?}", record.segment));
        let call = self.ask(Node::Coordinator, address, fetch, FETCH_WITHIN);
        let brain = self.brain();
        brain.calls.insert(call, Waiting::Fetch(record.segment, to));
        if let Some(older) = brain.fetches.insert(key, call) {
            brain.calls.remove(&older);
        }
    }

    pub(super) fn fetched(&mut self, key: (SegmentId, WorkerId), answer: Result<Reply, SqlError>) {
        self.seen.note(match &answer {
            Ok(Reply::Fetched(0)) => "repair: a copy was there",
            Ok(_) => "repair: a copy is made",
            Err(_) => "repair: a copy fails",
        });
        self.tell(|| format!("{} on {}: {answer:?}", key.0, key.1));
        let brain = self.brain();
        brain.fetches.remove(&key);
        if brain.copies.bad.iter().any(|(worker, bad)| (bad.segment, *worker) == key)
            && answer.is_ok()
        {
            self.seen.note("repair: a copy is mended");
        }
        self.brain().ended.push((key, fetched_of(answer)));
    }

    /// Takes what was checked, and begins the checks that are due.
    pub(super) fn scrub(&mut self) {
        let snapshot = self.snapshot();
        let (every, now) = (self.rules.options.scrub_every, self.instant());
        self.brain().scrubs.see(&snapshot);
        for (worker, standing) in self.standings() {
            if !matches!(standing, Standing::Good | Standing::Draining) {
                continue;
            }
            let checks = self.brain().checks.entry(worker).or_default();
            if checks.is_busy {
                continue;
            }
            for (segment, found) in std::mem::take(&mut checks.done) {
                let brain = self.brain();
                let mended = matches!(found, Ok(bytes) if bytes > 0);
                let Some(finding) = brain.scrubs.note(worker, segment, found) else { continue };
                brain.copies.note_finding(worker, segment, finding);
                if mended || finding == Finding::Bad {
                    self.seen.note("scrub: a bad copy is found or mended");
                }
            }
            let due = self.brain().scrubs.due(worker, every, now);
            for record in due {
                let others = record.holders.iter().copied().filter(|holder| *holder != worker);
                let others: Vec<_> = others.collect();
                if let Some((to, ask)) = fetch_of(&snapshot, &record, &others, worker) {
                    let checks = self.brain().checks.entry(worker).or_default();
                    checks.todo.push_back((record.key(), to, ask));
                }
            }
            self.check_next(worker);
        }
    }

    fn check_next(&mut self, worker: WorkerId) {
        let checks = self.brain().checks.entry(worker).or_default();
        let next = checks.todo.pop_front();
        checks.is_busy = next.is_some();
        let Some((segment, to, ask)) = next else { return };
        let call = self.ask(Node::Coordinator, to, ask, FETCH_WITHIN);
        self.brain().calls.insert(call, Waiting::Check(worker, segment));
    }

    pub(super) fn checked(
        &mut self,
        worker: WorkerId,
        segment: SegmentKey,
        answer: Result<Reply, SqlError>,
    ) {
        let checks = self.brain().checks.entry(worker).or_default();
        checks.done.push((segment, fetched_of(answer)));
        self.check_next(worker);
    }
}
