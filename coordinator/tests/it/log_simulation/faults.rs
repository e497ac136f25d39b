//! What goes wrong in a simulation, and the operator who puts it right.

use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_coordinator::catalog::record::{Mark, command};
use basalt_coordinator::catalog::restore::doubts;
use basalt_coordinator::catalog::{Change, State};
use basalt_storage::command_log::{Chain, Position, RawRecord};
use basalt_storage::ids::{CoordinatorId, WorkerId};
use uuid::Uuid;

use super::coordinator::{Coordinator, LocalLog};
use super::world::{Event, Profile, World};

/// A seeded source of choices (SplitMix64).
#[derive(Debug)]
pub(super) struct Choices(pub(super) u64);

impl Choices {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    /// An id of anything: a seed gives the same ids, and so the same order of them.
    pub(super) fn id(&mut self) -> Uuid {
        let half = |choices: &mut Self| u128::from(choices.below(u64::MAX));
        Uuid::from_u128(half(self) << 64 | half(self))
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

impl World {
    /// One thing goes wrong, or an operator does something.
    pub(super) fn fault(&mut self) {
        if self.is_healed {
            return;
        }
        let delay = 100 + self.choices.below(4000);
        self.at(delay, Event::Fault);
        let worker = self.choices.below(self.workers.len() as u64) as usize;
        let coordinator = self.choices.below(self.coordinators.len() as u64) as usize;
        match self.choices.below(14) {
            0..3 => self.crash_worker(worker),
            3..5 => self.crash_coordinator(coordinator),
            5..7 => self.pause(coordinator),
            7 => {
                for one_way in [true, false] {
                    if self.choices.one_in(2) {
                        self.cut.insert((coordinator, worker, one_way));
                    }
                }
            }
            8 => self.cut.clear(),
            9 if self.profile != Profile::Crashes => self.lose_coordinator(coordinator),
            10 if self.profile == Profile::LostWorkers => self.lose_worker(worker),
            10 if self.profile == Profile::CopiedCoordinators => self.copy_coordinator(coordinator),
            11 if self.profile != Profile::Crashes => self.operator(),
            12 => self.drain_or_remove(coordinator, worker),
            _ => {}
        }
    }

    pub(super) fn crash_worker(&mut self, at: usize) {
        if self.workers[at].copy.take().is_some() {
            self.counts.worker_crashes += 1;
            self.workers[at].disk.power_off();
            let delay = 50 + self.choices.below(15_000);
            self.at(delay, Event::StartWorker(at));
        }
    }

    fn crash_coordinator(&mut self, at: usize) {
        let survives = self.choices.one_in(2);
        let it = &mut self.coordinators[at];
        if it.ledger.is_none() {
            return;
        }
        // The write that was under way is there whole or not at all.
        if let Some(writing) = it.writing.take()
            && survives
        {
            it.log.records.extend(writing.records);
            it.log.committed = writing.committed;
        }
        it.crash();
        self.counts.coordinator_crashes += 1;
        let delay = 50 + self.choices.below(8000);
        self.at(delay, Event::StartCoordinator(at));
    }

    fn pause(&mut self, at: usize) {
        if self.coordinators[at].ledger.is_some() && !self.coordinators[at].paused {
            self.coordinators[at].paused = true;
            let delay = 500 + self.choices.below(25_000);
            self.at(delay, Event::Resume(at));
            if self.profile != Profile::Crashes && self.choices.one_in(2) {
                // An operator takes it for dead.
                self.restore();
            }
        }
    }

    fn lose_coordinator(&mut self, at: usize) {
        let it = &mut self.coordinators[at];
        // A log that was never anywhere else is lost with its disk; nothing is to be shown there.
        if it.is_gone || it.log.is_alone() {
            return;
        }
        it.crash();
        it.is_gone = true;
        self.restore();
    }

    fn lose_worker(&mut self, at: usize) {
        if self.workers.iter().filter(|worker| !worker.is_gone).count() > 1 {
            self.workers[at].copy = None;
            self.workers[at].is_gone = true;
            self.new_worker();
        }
    }

    /// A worker is drained, or taken back; one that is drained and keeps no copy is removed, and
    /// registers again.
    fn drain_or_remove(&mut self, coordinator: usize, at: usize) {
        let (worker, drain) = (self.workers[at].id, self.choices.one_in(2));
        let Some(ledger) = &self.coordinators[coordinator].ledger else { return };
        let Some(cluster) = ledger.state().cluster() else { return };
        let is_free = !ledger.state().log_sets().current.workers.contains(&worker);
        let change = match cluster.draining.contains(&worker) {
            true if is_free => Change::RemoveWorker { worker },
            _ if cluster.workers.contains(&worker) => Change::DrainWorker { worker, drain },
            _ => return,
        };
        self.counts.removals += u64::from(matches!(change, Change::RemoveWorker { .. }));
        self.change(coordinator, change);
    }

    /// Somebody starts a copy of a coordinator's folder elsewhere.
    fn copy_coordinator(&mut self, at: usize) {
        let mut log = self.coordinators[at].log.clone();
        if self.coordinators[at].is_gone || log.is_alone() || self.is_crowded() {
            return;
        }
        log.own = CoordinatorId(self.choices.id());
        self.add_coordinator(log);
    }

    fn is_crowded(&self) -> bool {
        let is_alive = |it: &&Coordinator| {
            it.ledger.as_ref().is_some_and(|ledger| ledger.superseded().is_none())
        };
        self.coordinators.iter().filter(is_alive).count() > 2
    }

    fn add_coordinator(&mut self, log: LocalLog) {
        self.coordinators.push(Coordinator::new(log));
        let index = self.coordinators.len() - 1;
        self.at(100, Event::StartCoordinator(index));
    }

    /// An operator looks: when no coordinator runs, one is restored.
    fn operator(&mut self) {
        if self.coordinators.iter().all(|it| it.ledger.is_none()) {
            self.restore();
        }
    }

    /// Restores a coordinator from the copies that answer, if they are enough.
    fn restore(&mut self) {
        if self.is_crowded() {
            return;
        }
        let mut positions: BTreeMap<WorkerId, Position> = BTreeMap::new();
        let mut best: Option<(Chain, usize)> = None;
        for (at, worker) in self.workers.iter().enumerate() {
            let Some(copy) = &worker.copy else { continue };
            let tail = copy.position().tail;
            positions.insert(worker.id, copy.position());
            if best.is_none_or(|(old, _)| (old.log_epoch, old.seq) < (tail.log_epoch, tail.seq)) {
                best = Some((tail, at));
            }
        }
        let Some((tail, at)) = best else { return };
        let copy = self.workers[at].copy.as_ref().unwrap();
        let records: Vec<Arc<[u8]>> =
            copy.read(0, usize::MAX).unwrap().iter().map(|bytes| bytes.as_ref().into()).collect();
        let (mut state, mut chain) = (State::new(), Chain::start());
        for (seq, bytes) in (1..).zip(&records) {
            let raw: RawRecord<'_> = RawRecord::decode(seq, bytes).unwrap();
            chain.follow(seq, &raw).unwrap();
            state.apply(command(&raw).unwrap()).unwrap();
        }
        assert_eq!(chain, tail);
        let doubts = doubts(state.log_sets(), &positions);
        if !doubts.is_empty() {
            self.counts.restores_refused += 1;
            self.note(&format!("a restore is refused: {doubts:?}"));
            return;
        }
        if self.coordinators.iter().all(|it| it.ledger.is_none()) {
            // Nobody else can have written since.
            self.check_has_everything(&records).unwrap();
        }
        self.counts.restores += 1;
        let own = CoordinatorId(self.choices.id());
        let committed = Mark::at(Chain::start());
        self.add_coordinator(LocalLog { own, records, committed });
    }

    /// Everything that is not lost for good works from now on.
    pub(super) fn heal(&mut self) {
        self.is_healed = true;
        self.cut.clear();
        let running = self.coordinators.iter().filter_map(|it| it.ledger.as_ref());
        self.counts.superseded +=
            running.filter(|ledger| ledger.superseded().is_some()).count() as u64;
        let sets = self.coordinators.iter().map(|it| it.log.replay().0.log_epoch().0);
        self.counts.reforms += sets.max().unwrap_or(0);
        for at in 0..self.workers.len() {
            self.at(0, Event::StartWorker(at));
        }
        for at in 0..self.coordinators.len() {
            self.at(0, Event::Resume(at));
            self.at(1, Event::StartCoordinator(at));
        }
        // Where nothing was lost, it goes on by itself.
        if self.profile == Profile::Crashes {
            return;
        }
        // When every coordinator is lost or superseded, the operator restores one.
        for delay in [10_000, 20_000, 30_000, 40_000] {
            self.at(delay, Event::Operator);
        }
    }

    /// After healing: restores when nobody leads.
    pub(super) fn operate(&mut self) {
        let is_alive = |it: &Coordinator| {
            it.ledger
                .as_ref()
                .is_some_and(|ledger| ledger.superseded().is_none() && ledger.is_leading())
        };
        if !self.coordinators.iter().any(is_alive) {
            self.restore();
        }
    }
}
