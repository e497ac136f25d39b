//! A round of the reconciler, in the order of `Reconciler::round`: slices, garbage, scrubs, repair,
//! members that are gone.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use basalt_engine::error::SqlError;
use basalt_engine::snapshot::Snapshot;
use basalt_storage::ids::{SegmentId, WorkerId};
use basalt_storage::layout::SegmentKey;
use url::Url;

use super::coordinator::Waiting;
use super::log::Then;
use super::messages::{Address, Ask, Node, Reply};
use super::world::{Ms, World};
use crate::catalog::{CatalogError, Change, Committed, CopyMove};
use crate::reconcile::copies::members_to_remove;
use crate::reconcile::garbage::{Listed, held_by};
use crate::reconcile::slices::placement_due;
use crate::reconcile::standing::Standing;
use crate::repair::Step;

/// How long a worker may take to list its disk.
const LISTED_WITHIN: Ms = 3_000;
/// How long until the connection of a removal is known to be dead.
const REMOVED_WITHIN: Ms = 5_000;

/// Where a round is.
#[derive(Debug)]
enum Stage {
    Garbage,
    Scrub,
    Repair,
    Steps,
    Remove,
}

/// A round under way.
pub(super) struct Round {
    stage: Stage,
    /// Workers whose disks are to be listed.
    disks: VecDeque<(WorkerId, Url)>,
    /// What the worker that is listing had on record before.
    before: HashMap<SegmentId, SegmentKey>,
    standings: BTreeMap<WorkerId, Standing>,
    /// Who was silent for the grace time when these were looked at, as the oracle sees it.
    silent: BTreeSet<WorkerId>,
}

impl Round {
    pub(super) fn silent(&self) -> &BTreeSet<WorkerId> {
        &self.silent
    }
}

impl World {
    pub(super) fn round_begins(&mut self) {
        if self.brain().round.is_some() {
            return;
        }
        self.brain().round = Some(Round {
            stage: Stage::Garbage,
            disks: VecDeque::new(),
            before: HashMap::new(),
            standings: BTreeMap::new(),
            silent: BTreeSet::new(),
        });
        let snapshot = self.snapshot();
        let cluster = Arc::clone(&self.brain().published.cluster);
        match placement_due(&cluster, &snapshot, &self.standings()) {
            Some(place) => {
                self.seen.note("coordinator: slices are placed anew");
                self.round_commits(vec![place]);
            }
            None => self.round_goes_on(),
        }
    }

    fn round_commits(&mut self, changes: Vec<Change>) {
        let command = self.command(changes);
        self.commit(command, Then::Round);
    }

    fn round_moves(&mut self, moves: Vec<CopyMove>) {
        match moves.is_empty() {
            true => self.round_goes_on(),
            false => self.round_commits(vec![Change::MoveCopies { moves }]),
        }
    }

    pub(super) fn round_committed(&mut self, outcome: Result<Committed, CatalogError>) {
        match outcome {
            Ok(_) | Err(CatalogError::Conflict { .. }) => self.round_goes_on(),
            Err(error) => {
                let is_bug = matches!(error, CatalogError::InvalidCommand { .. });
                self.require(!is_bug, || format!("a round asks for what cannot be: {error}"));
                self.brain().round = None;
            }
        }
    }

    fn round_goes_on(&mut self) {
        let Some(round) = &mut self.brain().round else { return };
        match round.stage {
            Stage::Garbage => {
                round.stage = Stage::Scrub;
                self.list_disks();
            }
            Stage::Scrub => {
                round.stage = Stage::Repair;
                self.scrub();
                self.round_goes_on();
            }
            Stage::Repair => {
                round.stage = Stage::Steps;
                self.commit_copies();
            }
            Stage::Steps => {
                round.stage = Stage::Remove;
                self.take_steps();
            }
            Stage::Remove => self.remove_members(),
        }
    }

    fn list_disks(&mut self) {
        let members = self.members();
        let every = self.rules.options.inventory_every();
        let now = self.instant();
        let brain = self.brain();
        let workers = brain.published.snapshot.cluster.workers.clone();
        let due = brain.copies.due_for_inventory(workers, &members, every, now);
        if let Some(round) = &mut brain.round {
            round.disks = due.into_iter().collect();
        }
        self.list_next_disk();
    }

    fn list_next_disk(&mut self) {
        let snapshot = self.snapshot();
        let Some(round) = &mut self.brain().round else { return };
        let Some((worker, url)) = round.disks.pop_front() else { return self.round_goes_on() };
        round.before = held_by(&snapshot, worker);
        let to = Address::Worker(worker, url.port().unwrap_or(0));
        let call = self.ask(Node::Coordinator, to, Ask::Inventory, LISTED_WITHIN);
        self.brain().calls.insert(call, Waiting::Listed(worker));
    }

    pub(super) fn listed(&mut self, worker: WorkerId, answer: Result<Reply, SqlError>) {
        let Ok(Reply::Listed(here)) = answer else { return self.list_next_disk() };
        let clock = (self.instant(), self.rules.options.garbage_after);
        let snapshot = self.snapshot();
        let brain = self.brain();
        let Some(round) = &brain.round else { return };
        let (bad_before, oldest_pinned) = (brain.copies.bad.len(), brain.published.oldest_pinned());
        let oldest_write = brain.open_writes.oldest();
        let here = here.into_iter().collect();
        let listed = Listed {
            worker,
            before: &round.before,
            here: &here,
            snapshot: &snapshot,
            oldest_pinned,
            oldest_write,
            clock,
        };
        let due = brain.copies.judge(&listed);
        let is_found = brain.copies.bad.len() > bad_before;
        if is_found {
            self.seen.note("repair: a missing copy is found");
        }
        self.note_kept(&snapshot, worker, (&here, due.len()), (oldest_pinned, oldest_write));
        if due.is_empty() {
            return self.list_next_disk();
        }
        self.tell(|| format!("{worker} is told to remove {due:?}, pinned {oldest_pinned}"));
        let url = snapshot.cluster.workers.get(&worker).and_then(Url::port);
        let ask = Ask::Remove { epoch: snapshot.cluster.epoch, segments: due };
        let to = Address::Worker(worker, url.unwrap_or(0));
        let call = self.ask(Node::Coordinator, to, ask, REMOVED_WITHIN);
        self.brain().calls.insert(call, Waiting::Removed(worker));
    }

    fn note_kept(
        &mut self,
        snapshot: &Snapshot,
        worker: WorkerId,
        (here, due): (&std::collections::HashSet<SegmentId>, usize),
        (pinned, write): (u64, Option<std::time::Instant>),
    ) {
        let named = held_by(snapshot, worker);
        let garbage = here.iter().filter(|segment| !named.contains_key(segment)).count();
        if garbage > due && pinned < snapshot.version {
            self.seen.note("garbage: kept for a pin");
        }
        if garbage > due && write.is_some() {
            self.seen.note("garbage: kept for an open write");
        }
    }

    pub(super) fn removed(&mut self, worker: WorkerId) {
        self.brain().copies.left(worker);
        self.list_next_disk();
    }

    fn take_steps(&mut self) {
        let snapshot = self.snapshot();
        let limits = (self.rules.options.copies_at_once, self.instant());
        let brain = self.brain();
        let cluster = Arc::clone(&brain.published.cluster);
        let standings = brain.round.as_ref().map(|r| r.standings.clone()).unwrap_or_default();
        let steps = brain.copies.next_steps(&snapshot, &cluster, standings, limits);
        let steps = steps.unwrap_or_default();
        if steps.is_empty() {
            return self.round_goes_on();
        }
        let records: HashMap<_, _> =
            snapshot.segments().map(|r| (r.key(), Arc::clone(r))).collect();
        let mut forget = Vec::new();
        for step in steps {
            match step {
                Step::Copy { segment, sources, to, reason } => {
                    self.check_copy(&records[&segment], to, reason);
                    self.begin_copy(&snapshot, &records[&segment], &sources, to, false);
                }
                Step::Rebuild { segment, worker, sources } => {
                    self.begin_copy(&snapshot, &records[&segment], &sources, worker, true);
                }
                Step::Forget { segment, worker, .. } => {
                    self.seen.note("repair: a holder is forgotten");
                    forget.push(CopyMove {
                        table: segment.table,
                        segment: segment.segment,
                        add: vec![],
                        remove: vec![worker],
                    });
                }
            }
        }
        self.round_moves(forget);
    }

    fn commit_copies(&mut self) {
        let (standings, silent, now) = (self.standings(), self.silent(), self.instant());
        let brain = self.brain();
        for key in brain.copies.abandon(&standings, now) {
            if let Some(call) = brain.fetches.remove(&key) {
                brain.calls.remove(&call);
            }
            brain.ended.retain(|(ended, _)| *ended != key);
        }
        if let Some(round) = &mut brain.round {
            (round.standings, round.silent) = (standings, silent);
        }
        let mut moves = Vec::new();
        for (key, fetched) in std::mem::take(&mut brain.ended) {
            moves.extend(brain.copies.note_ended(key, fetched, now));
        }
        self.round_moves(moves);
    }

    fn remove_members(&mut self) {
        let standings = self.standings();
        let brain = self.brain();
        let (cluster, snapshot) = (&brain.published.cluster, &brain.published.snapshot);
        let leaving = members_to_remove(cluster, snapshot, &standings);
        // One at a time, each judged anew: the same as all that were found at once.
        match leaving.first() {
            Some(worker) => {
                self.seen.note("coordinator: a lost member is removed");
                let command = self.command(vec![Change::RemoveWorker { worker: *worker }]);
                self.commit(command, Then::Nothing);
                self.brain().round = None;
            }
            None => self.brain().round = None,
        }
    }
}
