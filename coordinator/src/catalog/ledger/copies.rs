//! What members are asked, and what their answers mean.
//!
//! One question to each at a time: an append of what it lacks, or of nothing at every heartbeat. A
//! member that does not have the record before is asked further back until it has; one that does
//! not answer is asked again later and later.

use std::time::Duration;

use basalt_storage::command_log::copy::Promise;
use basalt_storage::command_log::{Position, Verdict};
use basalt_storage::ids::{LogEpoch, WorkerId};
use bytes::Bytes;

use super::election::Phase;
use super::{Ledger, Run};

/// A question to a member.
#[derive(Debug, Clone)]
pub struct AskFor {
    /// Whom to ask.
    pub worker: WorkerId,
    /// Which question: its answer names it.
    pub id: u64,
    /// Who asks.
    pub promise: Promise,
    /// What for.
    pub ask: Ask,
}

/// What a member is asked for.
#[derive(Debug, Clone)]
pub enum Ask {
    /// To promise that it takes from nobody else.
    Promise,
    /// To take records.
    Append {
        /// They follow this one.
        after: u64,
        /// The records; `None`: those of the own copy, from the disk.
        run: Option<Run>,
        /// The last record that may be acknowledged: a copy without it is not complete.
        committed: u64,
    },
    /// To hand out records.
    Read {
        /// Those after this one.
        after: u64,
    },
}

/// A member's answer.
#[derive(Debug, Clone)]
pub enum Answer {
    /// To a promise or an append.
    Position {
        /// Whether it was done.
        verdict: Verdict,
        /// What the member has now.
        position: Position,
        /// The last record that was asked to be appended.
        upto: u64,
    },
    /// To a read.
    Records(Vec<Bytes>),
    /// None within the time, or an error.
    Failed(String),
}

/// How one member is doing.
#[derive(Debug)]
pub(super) struct Progress {
    /// What the next append follows.
    pub(super) after: u64,
    /// The member has our records up to here.
    pub(super) acked: u64,
    /// Whether its copy has everything that it ever said was durable.
    pub(super) complete: bool,
    /// The question that is not answered yet.
    asked: Option<u64>,
    asked_at: Option<Duration>,
    /// When we began to care.
    pub(super) since: Duration,
    /// When it last answered well, or when we began to care.
    pub(super) heard: Duration,
    /// When the newest question was asked that it answered as ours.
    confirmed: Option<Duration>,
    pub(super) failures: u32,
    pub(super) retry_at: Duration,
    /// Since when it is promised to somebody else, and at which epoch.
    pub(super) refused: Option<(Duration, LogEpoch)>,
    /// Its log is another coordinator's.
    pub(super) is_foreign: bool,
    /// How far to go back when it does not have the record before.
    back: u64,
    pub(super) problem: Option<String>,
}

impl Progress {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            after: u64::MAX,
            acked: 0,
            complete: false,
            asked: None,
            asked_at: None,
            since: now,
            heard: now,
            confirmed: None,
            failures: 0,
            retry_at: now,
            refused: None,
            is_foreign: false,
            back: 1,
            problem: None,
        }
    }

    /// Everything known is of an older ballot.
    pub(super) fn forget_position(&mut self) {
        (self.acked, self.back, self.refused, self.asked) = (0, 1, None, None);
    }
}

/// How one member is doing, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// The worker.
    pub worker: WorkerId,
    /// Whether it is of the current log set.
    pub is_member: bool,
    /// The last record that it is known to have of ours.
    pub seq: u64,
    /// Whether it answers.
    pub is_reachable: bool,
    /// What is wrong with it.
    pub problem: Option<String>,
}

impl<T> Ledger<T> {
    /// Asks every member that can be asked for what it can do now.
    pub(super) fn ask_members(&mut self, now: Duration) {
        let mut workers = self.state.log_sets().workers();
        if self.is_leading() {
            workers.extend(self.newcomers());
        }
        for worker in workers {
            self.progress.entry(worker).or_insert_with(|| Progress::new(now));
            let is_free = self.progress.get(&worker).is_some_and(|progress| {
                progress.asked.is_none() && progress.retry_at <= now && !progress.is_foreign
            });
            if !is_free || !self.reachable.contains(&worker) {
                continue;
            }
            if let Some(ask) = self.question(worker, now) {
                self.ask(worker, ask, now);
            }
        }
    }

    fn ask(&mut self, worker: WorkerId, ask: Ask, now: Duration) {
        self.next_ask += 1;
        let id = self.next_ask;
        if let Some(progress) = self.progress.get_mut(&worker) {
            (progress.asked, progress.asked_at) = (Some(id), Some(now));
        }
        let promise = self.promise();
        self.steps.push_back(super::Step::Ask(AskFor { worker, id, promise, ask }));
    }

    fn question(&self, worker: WorkerId, now: Duration) -> Option<Ask> {
        match &self.phase {
            Phase::Stopped { .. } => None,
            Phase::Promising { adopting: Some(from), .. } if *from == worker => {
                let is_idle = self.written == self.chain.seq;
                is_idle.then_some(Ask::Read { after: self.chain.seq })
            }
            Phase::Promising { promises, .. } => {
                (!promises.contains_key(&worker)).then_some(Ask::Promise)
            }
            Phase::Raising | Phase::Leading => self.records_for(worker, now),
        }
    }

    fn records_for(&self, worker: WorkerId, now: Duration) -> Option<Ask> {
        let progress = self.progress.get(&worker)?;
        // Members must not have a set, nor a coordinator alone a record, that its disk lacks.
        let is_held_back = self.group.is_of_members || self.state.log_sets().is_alone();
        let last = if is_held_back { self.written } else { self.chain.seq };
        // Where it is, is not known at first: an append of nothing finds out.
        let after = progress.after.min(last);
        let is_due = progress.asked_at.is_none_or(|at| {
            now >= at + self.timing.heartbeat || self.doubted_at.is_some_and(|doubted| at < doubted)
        });
        let is_refused = progress.refused.is_some();
        if after == last && !is_due && !is_refused && progress.failures == 0 {
            return None;
        }
        // One that is promised elsewhere is only asked whether it still is: at our end, which is never
        // read from the disk.
        let run = self.recent.run(after, last);
        // Until our epoch has begun, all that was taken over may be durable.
        let committed = match self.phase {
            Phase::Leading => self.committed.seq,
            _ => self.chain.seq,
        };
        Some(Ask::Append { after, run, committed })
    }

    /// A member answered, or did not.
    pub fn answered(&mut self, worker: WorkerId, id: u64, answer: Answer, now: Duration) {
        let Some(progress) = self.progress.get_mut(&worker) else { return };
        if progress.asked != Some(id) || matches!(self.phase, Phase::Stopped { .. }) {
            return;
        }
        progress.asked = None;
        if let Answer::Failed(problem) = answer {
            return self.failed(worker, problem, now);
        }
        (progress.heard, progress.retry_at) = (now, now);
        (progress.failures, progress.problem) = (0, None);
        match answer {
            Answer::Failed(_) => {}
            Answer::Records(records) => self.adopt(worker, &records, now),
            Answer::Position { verdict: Verdict::Refused, position, .. } => {
                self.refused(worker, position, now);
            }
            Answer::Position { position, .. } if matches!(self.phase, Phase::Promising { .. }) => {
                self.promised(worker, position, now);
            }
            Answer::Position { verdict: Verdict::Mismatch, position, .. } => {
                // What it had of ours it has no more, or has not yet.
                (progress.acked, progress.refused) = (0, None);
                let behind = position.tail.seq;
                let sets = self.state.log_sets();
                if behind >= progress.after
                    && position.complete
                    // Epochs of two histories do not compare.
                    && sets.forced > LogEpoch(0)
                    && !sets.workers().contains(&worker)
                {
                    progress.is_foreign = true;
                    progress.problem = Some(
                        "it has log records that an operator has given up, and they may be the only \
                         copy: to replace them, stop it and remove log and LOG_IDENTITY from its \
                         data directory"
                            .to_owned(),
                    );
                    return;
                }
                if behind < progress.after {
                    progress.after = behind;
                } else {
                    progress.after = progress.after.saturating_sub(progress.back);
                    progress.back = progress.back.saturating_mul(2);
                }
            }
            Answer::Position { upto, position, .. } => {
                progress.complete = position.complete;
                progress.confirmed = progress.asked_at;
                progress.acked = progress.acked.max(upto);
                (progress.after, progress.back, progress.refused) = (upto, 1, None);
            }
        }
        self.advance(now);
        self.ask_members(now);
    }

    fn failed(&mut self, worker: WorkerId, problem: String, now: Duration) {
        let timing = self.timing;
        if let Some(progress) = self.progress.get_mut(&worker) {
            let wait = timing.retry.saturating_mul(1 << progress.failures.min(6));
            progress.failures = progress.failures.saturating_add(1);
            progress.retry_at = now + wait.min(timing.retry_max);
            progress.problem = Some(problem);
        }
        self.give_up_adopting(worker);
    }

    /// It is promised to another writer, of this epoch or of a newer one.
    fn refused(&mut self, worker: WorkerId, position: Position, now: Duration) {
        let theirs = position.promised.map_or(LogEpoch(0), |promise| promise.epoch);
        if matches!(self.phase, Phase::Promising { .. }) {
            return self.outbid(position, now);
        }
        let Some(progress) = self.progress.get_mut(&worker) else { return };
        progress.retry_at = now + self.timing.retry;
        // Where it is then is not known: whoever it is promised to may write.
        (progress.after, progress.back) = (u64::MAX, 1);
        // We write all records of our epoch: a newer one is another coordinator's.
        if position.tail.log_epoch > self.chain.log_epoch {
            if self.state.log_sets().workers().contains(&worker) {
                let reason = format!(
                    "worker {worker} has the log of another coordinator, at log epoch {}",
                    position.tail.log_epoch
                );
                return self.stop(reason, true);
            }
            progress.is_foreign = true;
            progress.problem = Some("its log is another coordinator's".to_owned());
            return;
        }
        let since = progress.refused.map_or(now, |(since, _)| since);
        progress.refused = Some((since, theirs));
        progress.problem = Some(format!("it is promised to another writer at epoch {theirs}"));
    }

    /// When members stay promised to somebody who does not write, asks to be promised again.
    pub(super) fn reclaim(&mut self, now: Duration) {
        if !matches!(self.phase, Phase::Leading | Phase::Raising) {
            return;
        }
        let lasting = self.progress.values().filter_map(|progress| progress.refused);
        let lasting =
            lasting.filter(|(since, _)| now.saturating_sub(*since) >= self.timing.reclaim_after);
        if let Some(epoch) = lasting.map(|(_, epoch)| epoch).max() {
            self.ask_for_promises(epoch.max(self.ballot).next(), now);
        }
    }

    /// Until when it is certain that nobody else has written the log: enough members, asked then or
    /// later, were promised to nobody else. For ever when there are none.
    pub fn confirmed(&self) -> Option<Duration> {
        if !self.is_leading() {
            return None;
        }
        let sets = self.state.log_sets();
        if sets.is_alone() {
            return Some(Duration::MAX);
        }
        let at = |worker| self.progress.get(&worker).and_then(|progress| progress.confirmed);
        let mut times: Vec<_> = sets.workers().into_iter().filter_map(at).collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        times.into_iter().find(|time| {
            sets.is_durable(self.own, |worker| at(worker).is_some_and(|seen| seen >= *time))
        })
    }

    /// Why the log cannot be written now.
    pub fn missing(&self) -> String {
        let sets = self.state.log_sets();
        let problem = |worker: &WorkerId| {
            let known = self.progress.get(worker).and_then(|progress| progress.problem.clone());
            match (self.reachable.contains(worker), known) {
                (false, _) => Some(format!("worker {worker} has not registered or is dead")),
                (true, Some(problem)) => Some(format!("worker {worker}: {problem}")),
                (true, None) => None,
            }
        };
        let problems: Vec<_> = sets.workers().iter().filter_map(problem).collect();
        let (needed, members) = (sets.current.needed(), sets.current.members());
        let what = match problems.is_empty() {
            true => "its members have not answered yet".to_owned(),
            false => problems.join("; "),
        };
        format!("the command log needs {needed} of its {members} members: {what}")
    }

    /// How every member and newcomer is doing.
    pub fn members(&self) -> Vec<MemberStatus> {
        let current = &self.state.log_sets().current.workers;
        let mut workers = self.state.log_sets().workers();
        workers.extend(self.progress.keys().copied());
        let status = |worker: WorkerId| {
            let progress = self.progress.get(&worker);
            MemberStatus {
                worker,
                is_member: current.contains(&worker),
                seq: progress.map_or(0, |progress| progress.acked),
                is_reachable: self.reachable.contains(&worker)
                    && progress.is_some_and(|progress| progress.failures == 0),
                problem: progress.and_then(|progress| progress.problem.clone()),
            }
        };
        workers.into_iter().map(status).collect()
    }
}
