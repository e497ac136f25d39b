//! What goes wrong, and when that is over.
//!
//! The premise of all promises is kept: faults of disks hit at most one copy fewer of a segment than
//! there should be until it is whole again, and never the last good one. Everything else happens
//! whenever it likes, all at once.

use basalt_storage::ids::{SegmentId, WorkerId};

use super::log::Then;
use super::messages::Node;
use super::world::{Event, Ms, World};
use crate::catalog::Change;

/// Workers that a world may have.
const MACHINES_MAX: usize = 6;

/// Something that goes wrong, or is over.
#[derive(Debug)]
pub(super) enum Fault {
    Next,
    WorkerStarts(usize),
    CoordinatorStarts,
    /// Somebody restarts a coordinator that takes no more commits.
    Restart(u64),
    Heal(Vec<(Node, Node)>),
}

impl World {
    pub(super) fn next_fault(&mut self) {
        let delay = self.random.between(1, 2 * self.rules.fault_every);
        self.after(delay, Event::Fault(Fault::Next));
    }

    pub(super) fn fault_happens(&mut self, fault: Fault) {
        match fault {
            Fault::Next if self.is_calm => {}
            Fault::Next => {
                self.something_fails();
                self.next_fault();
            }
            Fault::WorkerStarts(machine) => self.worker_starts(machine),
            Fault::CoordinatorStarts => self.coordinator_starts(),
            Fault::Restart(run) if run == self.coordinator_run => {
                self.coordinator_dies();
                self.coordinator_starts();
            }
            Fault::Restart(_) => {}
            Fault::Heal(ways) => self.network.heal(&ways),
        }
    }

    fn something_fails(&mut self) {
        let machine = self.random.below(self.machines.len() as u64) as usize;
        let fault = self.random.below(36);
        self.tell(|| {
            format!("fault {fault} of machine {machine} {}", self.machines[machine].worker)
        });
        match fault {
            0..=5 => self.worker_is_killed(machine),
            6 | 7 => self.power_fails(machine),
            8 => self.all_power_fails(),
            9 | 10 => self.disk_is_lost(machine, false),
            11 => self.disk_is_lost(machine, true),
            12..=16 => self.something_rots(machine),
            17..=20 => self.coordinator_is_killed(),
            21 => self.log_fails(),
            22..=24 => self.worker_pauses(machine),
            25 => self.coordinator_pauses(),
            26..=30 => self.way_is_cut(machine),
            31 | 32 if self.machines.len() < MACHINES_MAX => {
                self.seen.note("fault: worker joins");
                self.machine_joins();
            }
            33 | 34 => self.is_drained(machine),
            35 => self.machine_is_gone(machine),
            _ => {}
        }
    }

    fn dies(&mut self, machine: usize) {
        self.machines[machine].process = None;
        self.machines[machine].paused_until = None;
        // A few are away for so long that they are given up.
        let most = self.random.one_of(&[1_500, 6_000, 30_000]).unwrap_or(0);
        let delay = self.random.between(200, most);
        self.after(delay, Event::Fault(Fault::WorkerStarts(machine)));
    }

    fn worker_is_killed(&mut self, machine: usize) {
        self.seen.note("fault: worker killed");
        self.dies(machine);
    }

    fn power_fails(&mut self, machine: usize) {
        self.seen.note("fault: power of a worker");
        let undo = self.random.chance(40);
        self.machines[machine].disk.loses_power(self.now, undo);
        self.dies(machine);
    }

    fn all_power_fails(&mut self) {
        self.seen.note("fault: power of all");
        for machine in 0..self.machines.len() {
            self.power_fails(machine);
        }
        self.coordinator_is_killed();
    }

    fn coordinator_is_killed(&mut self) {
        self.seen.note("fault: coordinator killed");
        self.coordinator_dies();
        let delay = self.random.between(50, 5_000);
        self.after(delay, Event::Fault(Fault::CoordinatorStarts));
    }

    fn log_fails(&mut self) {
        if let Some(brain) = &mut self.brain {
            brain.log_fails_next = true;
            let (delay, run) = (self.random.between(1_000, 9_000), self.coordinator_run);
            self.after(delay, Event::Fault(Fault::Restart(run)));
        }
    }

    fn worker_pauses(&mut self, machine: usize) {
        self.seen.note("fault: worker paused");
        let most = self.random.one_of(&[2_000, 8_000, 20_000]).unwrap_or(0);
        self.machines[machine].paused_until = Some(self.now + self.random.between(300, most));
    }

    fn coordinator_pauses(&mut self) {
        self.seen.note("fault: coordinator paused");
        self.coordinator_paused = Some(self.now + self.random.between(500, 12_000));
    }

    fn way_is_cut(&mut self, machine: usize) {
        let here = Node::Machine(machine);
        let mut others = vec![Node::Coordinator];
        others.extend((0..self.machines.len()).filter(|m| *m != machine).map(Node::Machine));
        if self.random.chance(70) {
            let one = self.random.one_of(&others).unwrap_or(Node::Coordinator);
            others = vec![one];
        }
        let both = [(here, false), (here, true)];
        let chosen: &[(Node, bool)] = match self.random.below(3) {
            0 => &both[..1],
            1 => &both[1..],
            _ => &both,
        };
        self.seen.note(if chosen.len() == 2 {
            "fault: partition"
        } else {
            "fault: one-way partition"
        });
        let mut ways = Vec::new();
        for other in others {
            for (here, is_inward) in chosen {
                ways.push(if *is_inward { (other, *here) } else { (*here, other) });
            }
        }
        for (from, to) in &ways {
            self.network.cut(*from, *to);
        }
        let most = self.random.one_of(&[2_000, 7_000, 20_000]).unwrap_or(0);
        let delay = self.random.between(300, most);
        self.after(delay, Event::Fault(Fault::Heal(ways)));
    }

    /// Workers that will be there, and may have copies for good.
    fn stable(&self) -> usize {
        let draining = self.draining();
        self.machines.iter().filter(|m| !m.is_gone && !draining.contains(&m.worker)).count()
    }

    fn is_drained(&mut self, machine: usize) {
        let (worker, draining) = (self.machines[machine].worker, self.draining());
        let drain = !draining.contains(&worker);
        let is_member = self.oracle.truth.cluster().is_some_and(|c| c.workers.contains(&worker));
        self.forget_healed_hits();
        let spare = if self.oracle.hits.is_empty() { 1 } else { 2 };
        let enough = self.stable() >= usize::from(self.rules.replicas) + spare;
        if self.brain.is_none() || !is_member || (drain && !enough) {
            return;
        }
        self.seen.note(if drain {
            "fault: worker drained"
        } else {
            "fault: worker no longer drained"
        });
        let command = self.command(vec![Change::DrainWorker { worker, drain }]);
        self.commit(command, Then::Nothing);
    }

    /// Segments that have all their copies again may be hit again.
    fn forget_healed_hits(&mut self) {
        let Some(truth) = self.oracle.snapshot() else { return };
        let draining = self.draining();
        let mut healed = Vec::new();
        for segment in self.oracle.hits.keys() {
            let Some(record) = truth.segments().find(|r| r.segment == *segment) else {
                let is_staged = self.is_of_an_open_write(*segment).is_some();
                if !is_staged {
                    healed.push(*segment);
                }
                continue;
            };
            let whole =
                |holder: &WorkerId| self.has_good(*holder, *segment) && !draining.contains(holder);
            let wanted = truth.cluster.copies_wanted(self.rules.replicas);
            if self.may_be_recorded_bad(*segment) {
                continue;
            }
            if record.holders.iter().all(whole) && record.holders.len() >= wanted {
                healed.push(*segment);
            }
        }
        for segment in healed {
            self.oracle.hits.remove(&segment);
        }
    }

    /// Whether a spoiled copy that is not on record may come onto it.
    fn may_be_recorded_bad(&self, segment: SegmentId) -> bool {
        let mut damaged = self.oracle.damaged.iter().filter(|(_, of)| *of == segment);
        damaged.any(|(worker, _)| {
            let machine = self.machine_of(*worker).map(|machine| &self.machines[machine]);
            let is_there = machine.is_some_and(|m| m.disk.copies.contains_key(&segment));
            let is_coming = self.brain.as_ref().is_some_and(|brain| {
                let key = (segment, *worker);
                brain.fetches.contains_key(&key) || brain.ended.iter().any(|(k, _)| *k == key)
            });
            is_there || is_coming
        })
    }

    /// The copies that a write under way requires of a segment that it made.
    fn is_of_an_open_write(&self, segment: SegmentId) -> Option<u16> {
        let txn = self.oracle.writers.get(&segment)?;
        let brain = self.brain.as_ref()?;
        let mut open = brain.writes.values().filter_map(|write| write.txn());
        open.find(|(open, _)| open == txn).map(|(_, required)| required)
    }

    /// Whether the premise allows that a machine loses a copy.
    fn may_lose(&self, machine: usize, segment: SegmentId) -> bool {
        let hits = self.oracle.hits.get(&segment).copied().unwrap_or(0);
        let Some(truth) = self.oracle.snapshot() else { return false };
        let Some(record) = truth.segments().find(|record| record.segment == segment) else {
            return match self.is_of_an_open_write(segment) {
                Some(required) => hits + 1 < usize::from(required),
                None => true,
            };
        };
        let worker = self.machines[machine].worker;
        if !record.holders.contains(&worker) {
            // A copy that is garbage, or on its way onto the record.
            return hits + 1 < usize::from(self.rules.replicas);
        }
        let draining = self.draining();
        let others = record.holders.iter().filter(|holder| {
            **holder != worker && self.has_good(**holder, segment) && !draining.contains(holder)
        });
        others.count() > 0 && hits + 1 < usize::from(self.rules.replicas)
    }

    /// Notes that faults take copies of a machine, if the premise allows it.
    fn damages(&mut self, machine: usize, segments: &[SegmentId]) -> bool {
        self.forget_healed_hits();
        let is_tight = !self.draining().is_empty() || self.machines.iter().any(|m| m.is_gone);
        if is_tight && self.stable() <= usize::from(self.rules.replicas) {
            return false;
        }
        if !segments.iter().all(|segment| self.may_lose(machine, *segment)) {
            return false;
        }
        let worker = self.machines[machine].worker;
        for segment in segments {
            if self.oracle.damaged.insert((worker, *segment)) {
                *self.oracle.hits.entry(*segment).or_default() += 1;
            }
        }
        true
    }

    fn segments_on(&self, machine: usize) -> Vec<SegmentId> {
        self.machines[machine].disk.copies.keys().copied().collect()
    }

    fn disk_is_lost(&mut self, machine: usize, is_replaced: bool) {
        let segments = self.segments_on(machine);
        if segments.is_empty() || !self.damages(machine, &segments) {
            return;
        }
        self.seen.note(if is_replaced { "fault: machine replaced" } else { "fault: disk wiped" });
        self.dies(machine);
        let id = WorkerId(self.random.uuid());
        let machine = &mut self.machines[machine];
        machine.disk.wipe();
        if is_replaced {
            machine.worker = id;
            machine.disk.cluster = None;
        }
    }

    fn something_rots(&mut self, machine: usize) {
        let segments = self.segments_on(machine);
        let Some(segment) = self.random.one_of(&segments) else { return };
        if !self.machines[machine].disk.is_good(segment) || !self.damages(machine, &[segment]) {
            return;
        }
        self.seen.note("fault: copy corrupted");
        if let Some(copy) = self.machines[machine].disk.copies.get_mut(&segment) {
            copy.good = false;
        }
    }

    /// A machine that never comes back.
    fn machine_is_gone(&mut self, machine: usize) {
        let enough = self.stable() > usize::from(self.rules.replicas) + 1;
        let segments = self.segments_on(machine);
        if self.machines[machine].is_gone || !enough || !self.damages(machine, &segments) {
            return;
        }
        self.seen.note("fault: machine gone");
        let machine = &mut self.machines[machine];
        (machine.process, machine.is_gone) = (None, true);
        machine.disk.wipe();
    }

    /// Nothing fails any more, and all come back that can.
    pub(super) fn calm_down(&mut self) {
        self.is_calm = true;
        self.network.heal_all();
        self.coordinator_paused = None;
        if self.brain.as_ref().is_some_and(|brain| brain.log_fails_next || !brain.takes_commits()) {
            self.coordinator_dies();
        }
        self.coordinator_starts();
        for machine in 0..self.machines.len() {
            self.machines[machine].paused_until = None;
            let delay: Ms = self.random.between(1, 3_000);
            self.after(delay, Event::Fault(Fault::WorkerStarts(machine)));
        }
    }
}
