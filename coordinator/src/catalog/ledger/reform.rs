//! Members that go and come: a record that leaves out who is silent and takes in who is filled.
//!
//! A set of two is never made smaller: the one that is left could not tell a later coordinator
//! that there were records without it. So a cluster of one worker waits for it, while in a larger
//! one the death of a member costs no commit any time. A member that is drained goes when another
//! worker has taken its place, or when nobody could.
//!
//! A set that was left counts until a record of another kind follows. So one is made at once: a
//! quiet cluster whose dead member was replaced must not need that member to be restored.

use std::collections::BTreeSet;
use std::time::Duration;

use basalt_storage::ids::{TxnId, WorkerId};

use super::Ledger;
use super::copies::Progress;
use crate::catalog::command::Command;
use crate::catalog::members::LogSet;
use crate::catalog::{serialise, wall_clock_ms};

/// Workers that are filled at the same time beyond those wanted: one that cannot be filled does
/// not hold up another one.
const SPARE_NEWCOMERS: usize = 1;

/// How many records a newcomer may lack for commands to wait until it has them: one message.
const LAG_MAX: u64 = 256;

/// How long commands wait for that, and how long not again.
const HOLD: Duration = Duration::from_millis(300);
const HOLD_AGAIN_AFTER: Duration = Duration::from_secs(10);

impl<T> Ledger<T> {
    /// Begins to change the set, when there is reason to and nothing else is under way.
    pub(super) fn reform(&mut self, now: Duration) {
        if !self.is_leading() || !self.is_settled() || self.group.since.is_some() {
            return;
        }
        if self.is_to_publish() {
            return;
        }
        if !self.state.log_sets().unsettled.is_empty() {
            return self.settle_sets(now);
        }
        self.hold_for_newcomers(now);
        let current = &self.state.log_sets().current;
        let mut workers: BTreeSet<_> = current.workers.clone();
        workers.retain(|worker| !self.is_to_leave(*worker, now));
        let filled = self.filled_newcomers(now);
        let wanted = usize::from(current.copies);
        let is_replaced = match self.newcomers().is_empty() {
            true => workers.iter().any(|worker| !self.is_drained(*worker)),
            false => !filled.is_empty(),
        };
        workers.retain(|worker| !is_replaced || !self.is_drained(*worker));
        workers.extend(filled.iter().take(wanted.saturating_sub(workers.len())));
        if workers == current.workers {
            return;
        }
        let set = LogSet { coordinator: self.own, workers, ..current.clone() };
        // The record needs both sets. When those who answer are not enough, it would only be in
        // the way of those who come back.
        let answers = |worker| self.answers(worker, now);
        if !set.is_durable(self.own, answers)
            || !self.state.log_sets().is_durable(self.own, answers)
        {
            return;
        }
        self.held_at = None;
        tracing::info!(workers = ?set.workers, "the members of the command log change");
        self.ask_for_members(set.workers, now);
    }

    /// Workers that are not members and could be: filled from our copy meanwhile.
    pub(super) fn newcomers(&self) -> Vec<WorkerId> {
        let Some(cluster) = self.state.cluster() else { return Vec::new() };
        let members = self.state.log_sets().workers();
        let current = &self.state.log_sets().current;
        let stays =
            |worker: &&WorkerId| self.reachable.contains(worker) && !self.is_drained(**worker);
        let wanted = usize::from(current.copies);
        let missing = wanted.saturating_sub(current.workers.iter().filter(stays).count());
        if missing == 0 {
            return Vec::new();
        }
        let failures = |worker: &WorkerId| {
            self.progress.get(worker).map_or(0, |progress: &Progress| progress.failures)
        };
        let is_foreign = |worker: &WorkerId| {
            self.progress.get(worker).is_some_and(|progress| progress.is_foreign)
        };
        let mut candidates: Vec<_> = (self.reachable.iter().copied())
            .filter(|worker| cluster.workers.contains(worker) && !members.contains(worker))
            .filter(|worker| !is_foreign(worker) && !self.is_drained(*worker))
            .collect();
        candidates.sort_by_key(|worker| (failures(worker), *worker));
        candidates.truncate(missing + SPARE_NEWCOMERS);
        candidates
    }

    /// Newcomers that have everything. While another one is about to, they wait for it: two are
    /// taken in by one record, and a set of two is the weaker one.
    fn filled_newcomers(&self, now: Duration) -> Vec<WorkerId> {
        let newcomers = self.newcomers();
        let has_all = |worker: &WorkerId| {
            // Only a copy that was complete once can vouch for anything.
            let known = self.progress.get(worker);
            known.is_some_and(|progress| progress.acked == self.chain.seq && progress.complete)
                && self.answers(*worker, now)
        };
        let is_about_to = |worker: &WorkerId| {
            self.progress.get(worker).is_none_or(|progress| {
                progress.failures == 0 && now < progress.since + self.timing.leave_out_after
            })
        };
        let filled: Vec<_> = newcomers.iter().copied().filter(has_all).collect();
        let current = &self.state.log_sets().current;
        let is_enough = current.workers.len() + filled.len() >= usize::from(current.copies);
        let is_alone = current.workers.is_empty();
        if is_alone && !is_enough && newcomers.iter().any(|w| !has_all(w) && is_about_to(w)) {
            return Vec::new();
        }
        filled
    }

    /// Under load a newcomer always lacks the last few records: commands wait until it has them.
    fn hold_for_newcomers(&mut self, now: Duration) {
        if self.held_at.is_some_and(|at| now < at + HOLD_AGAIN_AFTER) {
            return;
        }
        let lag = |worker: &WorkerId| {
            let acked = self.progress.get(worker).map_or(0, |progress| progress.acked);
            if acked == 0 { u64::MAX } else { self.chain.seq.saturating_sub(acked) }
        };
        let is_close = |worker| (1..=LAG_MAX).contains(&lag(worker)) && self.answers(*worker, now);
        if self.newcomers().iter().any(is_close) {
            self.held_at = Some(now);
        }
    }

    /// Whether commands wait for a newcomer.
    pub(super) fn is_held(&self, now: Duration) -> bool {
        self.held_at.is_some_and(|at| now < at + HOLD)
    }

    /// Whether a worker answered lately.
    fn answers(&self, worker: WorkerId, now: Duration) -> bool {
        self.reachable.contains(&worker)
            && self.progress.get(&worker).is_some_and(|progress| {
                progress.refused.is_none()
                    && now.saturating_sub(progress.heard) < self.timing.leave_out_after
            })
    }

    /// Puts a record of no change under way, after which older sets have no say.
    fn settle_sets(&mut self, now: Duration) {
        let command = Command::new(TxnId::generate(), wall_clock_ms(), Vec::new());
        let applied =
            serialise(&command).and_then(|payload| self.apply(command, &payload).map(|_| ()));
        match applied {
            Ok(()) => self.begin_group(now),
            Err(error) => self.stop(format!("log members cannot be settled: {error}"), false),
        }
    }

    fn is_drained(&self, worker: WorkerId) -> bool {
        self.state.cluster().is_some_and(|cluster| cluster.draining.contains(&worker))
    }

    /// Whether a member has been silent for long, or has left the cluster.
    fn is_to_leave(&self, worker: WorkerId, now: Duration) -> bool {
        let is_worker =
            self.state.cluster().is_some_and(|cluster| cluster.workers.contains(&worker));
        let began = self.phase_since;
        let heard = self.progress.get(&worker).map_or(began, |progress| progress.heard.max(began));
        !is_worker || now.saturating_sub(heard) >= self.timing.leave_out_after
    }
}
