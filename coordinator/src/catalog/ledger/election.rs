//! Becoming the one who writes: promises of an epoch, records that others have, and the record
//! that begins the epoch.
//!
//! What a member has when it promises is all that writers of older epochs ever get onto it. So
//! among the copies of enough members, the one whose last record has the newest epoch, and of
//! those the longest, has every record that was ever durable ([`members`](crate::catalog::members)):
//! it is continued, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use basalt_storage::command_log::{Chain, Position, RawRecord};
use basalt_storage::ids::{LogEpoch, TxnId, WorkerId};
use bytes::Bytes;

use super::Ledger;
use super::copies::Progress;
use crate::catalog::command::{Change, Command};
use crate::catalog::error::CatalogError;
use crate::catalog::members::LogSet;
use crate::catalog::{log, record, serialise, wall_clock_ms};

/// Where a writer is on its way.
#[derive(Debug)]
pub(super) enum Phase {
    /// Members are asked to promise the ballot.
    Promising {
        /// What those have who did.
        promises: BTreeMap<WorkerId, Position>,
        /// Whom records are read from that we do not have.
        adopting: Option<WorkerId>,
        /// Who are to be the workers of the set, when that is why.
        wanted: Option<BTreeSet<WorkerId>>,
    },
    /// The record that begins the epoch is under way.
    Raising,
    /// It is durable.
    Leading,
    /// Over.
    Stopped {
        /// Why.
        reason: String,
        /// Whether another coordinator writes the log.
        is_superseded: bool,
    },
}

/// Orders copies by how much of what was durable they can have.
fn age(chain: &Chain) -> (LogEpoch, u64) {
    (chain.log_epoch, chain.seq)
}

impl<T> Ledger<T> {
    pub(super) fn ask_for_promises(&mut self, ballot: LogEpoch, now: Duration) {
        self.ballot = ballot.max(self.ballot);
        for progress in self.progress.values_mut() {
            progress.forget_position();
        }
        let promises = BTreeMap::new();
        self.enter(Phase::Promising { promises, adopting: None, wanted: None }, now);
    }

    /// Asks for an epoch whose log set has these workers. Every epoch is promised before anything
    /// is written in it, so that no two writers ever write one: who has its newest record has
    /// everything.
    pub(super) fn ask_for_members(&mut self, workers: BTreeSet<WorkerId>, now: Duration) {
        let newest = self.ballot.max(self.chain.log_epoch);
        self.ask_for_promises(newest.next(), now);
        if let Phase::Promising { wanted, .. } = &mut self.phase {
            *wanted = Some(workers);
        }
        self.advance(now);
    }

    /// A member promised the ballot.
    pub(super) fn promised(&mut self, worker: WorkerId, position: Position, now: Duration) {
        if let Phase::Promising { promises, .. } = &mut self.phase {
            promises.insert(worker, position);
        }
        self.advance(now);
    }

    /// A member has promised something else already: asks for more.
    pub(super) fn outbid(&mut self, position: Position, now: Duration) {
        let theirs = position.promised.map_or(LogEpoch(0), |promise| promise.epoch);
        if matches!(self.phase, Phase::Promising { .. }) && theirs >= self.ballot {
            self.ask_for_promises(theirs.next(), now);
            // Whoever else asks gets the time to finish, or else neither ever would.
            let wait = now + self.timing.outbid_wait(self.writer, self.ballot);
            for progress in self.progress.values_mut() {
                progress.retry_at = progress.retry_at.max(wait);
            }
        }
    }

    /// Adopts records, or begins the epoch, once enough have promised.
    pub(super) fn advance_election(&mut self, now: Duration) {
        let Phase::Promising { promises, adopting, .. } = &self.phase else { return };
        if self.written != self.chain.seq {
            return;
        }
        let promised = |worker| promises.get(&worker).map(|position| position.complete);
        if !self.state.log_sets().is_won(Some(self.own), promised) {
            return;
        }
        let best = promises.iter().max_by_key(|(_, position)| age(&position.tail));
        if let Some((worker, _)) = promises.iter().find(|(_, position)| {
            age(&position.tail) == age(&self.chain) && position.tail.hash != self.chain.hash
        }) {
            let reason = format!("worker {worker} has another log of the same epoch");
            return self.stop(reason, true);
        }
        let newer = best.filter(|(_, position)| age(&position.tail) > age(&self.chain));
        match newer.map(|(worker, position)| (*worker, *position)) {
            Some((worker, _)) if *adopting == Some(worker) => {}
            Some((worker, position)) if position.tail.seq <= self.chain.seq => {
                // Where it ends, ours has a record of an older epoch, which nobody waits for.
                let epoch = position.tail.log_epoch;
                let reason =
                    format!("worker {worker} has a log that another one wrote, at epoch {epoch}");
                self.stop(reason, true);
            }
            Some((worker, position)) => {
                tracing::info!(%worker, from = self.chain.seq, to = position.tail.seq,
                    "records are taken over from a log member");
                if let Phase::Promising { adopting, .. } = &mut self.phase {
                    *adopting = Some(worker);
                }
            }
            None => self.raise(now),
        }
    }

    /// Takes over records that follow the own last one.
    pub(super) fn adopt(&mut self, from: WorkerId, records: &[Bytes], now: Duration) {
        match &self.phase {
            Phase::Promising { adopting, .. } if *adopting == Some(from) => {}
            _ => return,
        }
        if self.written != self.chain.seq {
            return;
        }
        for bytes in records {
            if RawRecord::decode(self.chain.seq + 1, bytes).is_err() {
                // Damaged on its way: what came before it is taken, the rest asked for again.
                break;
            }
            if let Err(error) = self.adopt_one(bytes) {
                return self
                    .stop(format!("the log of worker {from} cannot be followed: {error}"), true);
            }
        }
        if self.group.records.is_empty() {
            // Not at once again: it has said that it has more than it hands out.
            let retry_at = now + self.timing.retry;
            if let Some(progress) = self.progress.get_mut(&from) {
                progress.retry_at = retry_at;
            }
            return self.give_up_adopting(from);
        }
        self.group.since.get_or_insert(now);
        let records = std::mem::take(&mut self.group.records);
        self.recent.push(&records);
        let (chain, committed) = (self.chain, self.committed);
        self.steps.push_back(super::Step::Write { records, chain, committed });
    }

    /// Whom records are read from does not hand them out: others may win without it.
    pub(super) fn give_up_adopting(&mut self, worker: WorkerId) {
        if let Phase::Promising { promises, adopting, .. } = &mut self.phase
            && *adopting == Some(worker)
        {
            *adopting = None;
            promises.remove(&worker);
        }
    }

    fn adopt_one(&mut self, bytes: &Bytes) -> Result<(), CatalogError> {
        let seq = self.chain.seq + 1;
        let raw = RawRecord::decode(seq, bytes)?;
        let mut chain = self.chain;
        chain.follow(seq, &raw)?;
        let sets_other = |change: &Change| match change {
            Change::SetLogMembers { set, .. } => set.coordinator != self.own,
            _ => false,
        };
        let was_ours = self.state.log_sets().current.is_led_by(self.own);
        if was_ours && record::command(&raw)?.changes.iter().any(sets_other) {
            return Err(CatalogError::invalid(format!(
                "another coordinator has written the log since record {seq}"
            )));
        }
        log::apply_record(&mut self.state, &raw)?;
        self.chain = chain;
        self.group.records.push(bytes.as_ref().into());
        Ok(())
    }

    /// Begins the epoch with a record, on top of everything that may be durable.
    fn raise(&mut self, now: Duration) {
        let Phase::Promising { promises, wanted, .. } = &mut self.phase else { return };
        let wanted = wanted.take();
        let ends: Vec<_> = promises.iter().map(|(worker, at)| (*worker, at.tail.seq)).collect();
        for (worker, seq) in ends {
            let progress = self.progress.entry(worker).or_insert_with(|| Progress::new(now));
            progress.after = seq.min(self.chain.seq);
        }
        let current = &self.state.log_sets().current;
        let workers = wanted.unwrap_or_else(|| current.workers.clone());
        let (log_epoch, coordinator) = (self.ballot, self.own);
        let set = LogSet { log_epoch, coordinator, workers, ..current.clone() };
        self.enter(Phase::Raising, now);
        self.set_members(set, now);
    }

    /// Puts a record that sets the members under way.
    fn set_members(&mut self, set: LogSet, now: Duration) {
        let change = Change::SetLogMembers { set, forced: false };
        let command = Command::new(TxnId::generate(), wall_clock_ms(), vec![change]);
        self.group.is_of_members = true;
        let applied =
            serialise(&command).and_then(|payload| self.apply(command, &payload).map(|_| ()));
        match applied {
            Ok(()) => self.begin_group(now),
            Err(error) => self.stop(format!("log members cannot be set: {error}"), false),
        }
    }
}
