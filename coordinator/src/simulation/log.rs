//! The coordinator's log: commands made durable in groups, then shown, then answered.
//!
//! As `catalog/writer.rs` has it: one group at a time; a crash before its write loses it, one after
//! it leaves it durable and perhaps unanswered; after a write that failed no more commits are taken.

use std::collections::{BTreeMap, VecDeque};

use basalt_storage::ids::TxnId;

use super::coordinator::Alarm;
use super::messages::Caller;
use super::world::{Event, World};
use crate::catalog::{
    CatalogError, Change, Command, Committed, NewCluster, NewTable, SliceHash, State,
};
use crate::membership::Join;

type Outcome = Result<Committed, CatalogError>;

/// Who goes on when a commit is answered.
#[derive(Debug)]
pub(super) enum Then {
    Registered(Caller, Box<Join>, u32),
    /// The round under way goes on with the next stage.
    Round,
    Write(u64),
    Nothing,
}

/// A command that was applied or refused.
#[derive(Debug)]
struct Pending {
    outcome: Outcome,
    /// What is written; absent of a command that changes nothing.
    record: Option<Vec<u8>>,
    then: Then,
}

/// Commands on their way into the log.
#[derive(Debug, Default)]
pub(super) struct Writer {
    queue: VecDeque<(Command, Then)>,
    group: Vec<Pending>,
    failed: bool,
}

impl Writer {
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.group.is_empty()
    }
}

impl World {
    /// The first commands of a cluster: it, its schema, and one table.
    pub(super) fn found(&mut self) {
        let new = NewCluster {
            cluster: self.cluster,
            slices: self.rules.slices,
            slice_hash: SliceHash::Xxh3V1,
            workers_expected: self.random.chance(50).then_some(3),
        };
        let public = Change::CreateSchema { name: "public".to_owned() };
        let table: NewTable = super::oracle::new_table(self.rules.replicas);
        let commands = [
            vec![Change::CreateCluster(new), public, Change::ReserveTableIds { count: 1 }],
            vec![Change::CreateTable(table)],
        ];
        for changes in commands {
            let txn = TxnId(self.random.uuid());
            let record = serde_json::to_vec(&Command::new(txn, 0, changes)).unwrap();
            self.becomes_durable(record);
        }
    }

    /// What the log says, from its first record on.
    pub(super) fn replayed(&self) -> State {
        let mut state = State::new();
        for record in &self.log {
            let command: Command = serde_json::from_slice(record).unwrap();
            let applied = state.apply(command);
            self.require(applied.is_ok(), || format!("the log cannot be replayed: {applied:?}"));
        }
        state
    }

    pub(super) fn commit(&mut self, command: Command, then: Then) {
        let Some(brain) = &mut self.brain else { return };
        brain.writer.queue.push_back((command, then));
        self.serve();
    }

    pub(super) fn command(&mut self, changes: Vec<Change>) -> Command {
        Command::new(TxnId(self.random.uuid()), self.now, changes)
    }

    /// Begins the next group, unless one is under way.
    fn serve(&mut self) {
        let Some(brain) = &mut self.brain else { return };
        if !brain.writer.group.is_empty() || brain.writer.queue.is_empty() {
            return;
        }
        for (command, then) in std::mem::take(&mut brain.writer.queue) {
            let payload = serde_json::to_vec(&command).unwrap();
            let applied = match brain.writer.failed {
                true => Err(CatalogError::Stopped { reason: "a write failed".to_owned() }),
                false => brain.state.apply_once(command),
            };
            let (outcome, record) = match applied {
                Ok((committed, is_new)) => (Ok(committed), is_new.then_some(payload)),
                Err(error) => (Err(error), None),
            };
            brain.writer.group.push(Pending { outcome, record, then });
        }
        let run = self.coordinator_run;
        let delay = self.random.between(1, 80);
        self.after(delay, Event::Coordinator(run, Alarm::LogSynced));
    }

    /// The disk has the group, unless it failed; then nobody knows.
    pub(super) fn log_synced(&mut self) {
        let Some(brain) = &mut self.brain else { return };
        let fails = std::mem::take(&mut brain.log_fails_next);
        let mut records = Vec::new();
        for pending in &mut brain.writer.group {
            records.extend(pending.record.take());
        }
        if fails && !records.is_empty() {
            self.seen.note("fault: log write fails");
            brain.writer.failed = true;
            brain.published.note_failed_write();
            for pending in &mut brain.writer.group {
                if let Ok(Committed { txn, .. }) = pending.outcome {
                    let cause = "an fsync failed".to_owned();
                    pending.outcome = Err(CatalogError::OutcomeUnknown { txn, cause });
                }
            }
            if self.random.chance(50) {
                records.clear();
            }
        }
        for record in records {
            self.becomes_durable(record);
        }
        let run = self.coordinator_run;
        let delay = self.random.between(1, 40);
        self.after(delay, Event::Coordinator(run, Alarm::LogShown));
    }

    fn becomes_durable(&mut self, record: Vec<u8>) {
        self.log.push(record);
        self.observe_commit();
    }

    /// Readers see the group, and those who wait hear of it.
    pub(super) fn log_shown(&mut self) {
        let Some(brain) = &mut self.brain else { return };
        if !brain.writer.failed {
            brain.published.show(&brain.state);
        }
        let group = std::mem::take(&mut brain.writer.group);
        for Pending { outcome, then, .. } in group {
            match then {
                Then::Registered(caller, join, tries) => {
                    self.registered(caller, join, tries, outcome);
                }
                Then::Round => self.round_committed(outcome),
                Then::Write(write) => self.write_committed(write, outcome),
                Then::Nothing => {}
            }
        }
        self.serve();
    }

    /// Takes note of what dies with a coordinator.
    pub(super) fn note_lost_commits(&mut self) {
        let Some(brain) = &self.brain else { return };
        let writes = brain.writer.group.iter().filter(|p| matches!(p.then, Then::Write(_)));
        let (lost, unanswered): (Vec<_>, Vec<_>) = writes.partition(|p| p.record.is_some());
        if !lost.is_empty() {
            self.seen.note("coordinator: a commit is lost with its coordinator");
        }
        if unanswered.iter().any(|p| p.outcome.is_ok()) {
            self.seen.note("coordinator: a commit is durable and never answered");
        }
    }
}

/// Where workers listen, for a state that nobody serves.
pub(super) fn nowhere() -> BTreeMap<basalt_storage::ids::WorkerId, url::Url> {
    BTreeMap::new()
}
