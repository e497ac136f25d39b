//! The log's writer without thread, disk, clock and network: what it decides is here, what it
//! does is in [`writer`](super::writer).
//!
//! ```text
//!  start ─▶ Promising ──enough promises──▶ (Adopting: records that a member has and we do not)
//!               ▲                                     │
//!               │ a member promised another           ▼
//!               └────────────────────────────────  Raising ──durable──▶ Leading: groups of commands
//! ```
//! Things happen by calls ([`Ledger::commit`], [`Ledger::written`], [`Ledger::answered`],
//! [`Ledger::poll`]), and each leaves [`Step`]s to be done. One group of records is under way at a
//! time: the next one begins when it is durable in every log set that counts
//! ([`members`](super::members)).
//!
//! Invariants, all of them tried by `coordinator/tests/it/log_simulation`:
//! - [`Step::Publish`] and a good [`Step::Reply`] come only when their records are durable.
//! - A ledger that another writer has taken over from never makes a record durable again.
//! - An epoch is promised by enough members before anything is written in it, also when only the
//!   set changes: so an epoch has one writer, and whoever has its newest record has the newest log.
//! - A record that changes the log set is on the own disk before anybody else hears of it, so that
//!   a restart knows of every set that a member may know of.
//!
//! - `election`: becoming the one who writes
//! - `copies`: what members are asked, and what their answers mean
//! - `reform`: members that go and come
//! - `recent`: records that members still need

mod copies;
mod election;
mod recent;
mod reform;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use basalt_storage::command_log::Chain;
use basalt_storage::command_log::copy::Promise;
use basalt_storage::ids::{CoordinatorId, LogEpoch, LogWriter, TxnId, WorkerId};

pub use copies::{Answer, Ask, AskFor, MemberStatus};
pub use recent::{APPEND_BYTES_MAX, Run};

use super::Committed;
use super::command::Command;
use super::error::CatalogError;
use super::record::Mark;
use super::state::State;
use copies::Progress;
use election::Phase;
use recent::Recent;

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How often a member is asked for nothing, to see that it is there and still ours.
    pub heartbeat: Duration,
    /// The first wait after a member did not answer; it doubles up to `retry_max`.
    pub retry: Duration,
    /// The longest such wait.
    pub retry_max: Duration,
    /// Silence after which a member is left out, when the others are enough.
    pub leave_out_after: Duration,
    /// How long members may go on to promise themselves to somebody who does not write, until we
    /// ask them to be promised again.
    pub reclaim_after: Duration,
    /// How long a commit waits for members before its outcome is unknown, and later ones are
    /// refused at once.
    pub stall_after: Duration,
}

impl Default for Timing {
    /// A commit waits for the fastest members only, so a slow one may take its time; ten seconds
    /// is when a silent worker is dead (`Liveness`).
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(1),
            retry: Duration::from_millis(100),
            retry_max: Duration::from_secs(2),
            leave_out_after: Duration::from_secs(5),
            reclaim_after: Duration::from_secs(1),
            stall_after: Duration::from_secs(10),
        }
    }
}

impl Timing {
    /// How long a writer waits that was outbid: another time for each, and for each time.
    fn outbid_wait(&self, writer: LogWriter, ballot: LogEpoch) -> Duration {
        let mixed = (writer.0.as_u128() as u64 ^ ballot.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.retry + self.retry_max.mul_f64((mixed >> 40) as f64 / (1u64 << 24) as f64)
    }
}

/// Something to be done. `T` is who waits for a command.
#[derive(Debug)]
pub enum Step<T> {
    /// Append records to the own copy, then call [`Ledger::written`] or [`Ledger::write_failed`].
    Write {
        /// The records.
        records: Vec<Arc<[u8]>>,
        /// The end of the log with them.
        chain: Chain,
        /// The last record that is known to be durable.
        committed: Mark,
    },
    /// Ask a member. Exactly one call of [`Ledger::answered`] must follow, within bounded time.
    Ask(AskFor),
    /// Show [`Ledger::state`] to readers: it is durable.
    Publish,
    /// Tell who waits.
    Reply(T, Result<Committed, CatalogError>),
}

/// Whether commands are taken now.
#[derive(Debug)]
pub enum Readiness {
    /// Yes.
    Ready,
    /// Soon: a group is under way.
    Busy,
    /// No; nothing would be done.
    Refused(CatalogError),
}

/// A command that was applied or refused, and who waits to hear of it.
#[derive(Debug)]
struct Pending<T> {
    txn: TxnId,
    result: Result<Committed, CatalogError>,
    token: T,
}

/// The group of records that is under way, or being put together.
#[derive(Debug)]
struct Group<T> {
    /// Those that are not handed out to be written yet.
    records: Vec<Arc<[u8]>>,
    pending: Vec<Pending<T>>,
    /// Whether it changes the log set.
    is_of_members: bool,
    /// When it was handed out to be written.
    since: Option<Duration>,
}

impl<T> Default for Group<T> {
    fn default() -> Self {
        Self { records: Vec::new(), pending: Vec::new(), is_of_members: false, since: None }
    }
}

/// What a ledger begins with: an own copy of the log, read and checked.
#[derive(Debug)]
pub struct Opening {
    /// Whose copy it is.
    pub own: CoordinatorId,
    /// This run.
    pub writer: LogWriter,
    /// After its last record.
    pub state: State,
    /// Its end.
    pub chain: Chain,
    /// The last record that is known to be durable, if any is.
    pub committed: Option<Mark>,
}

/// The log's writer.
#[derive(Debug)]
pub struct Ledger<T> {
    own: CoordinatorId,
    writer: LogWriter,
    timing: Timing,
    state: State,
    /// The end of the log, with the group under way.
    chain: Chain,
    /// The last record on the own disk.
    written: u64,
    committed: Mark,
    group: Group<T>,
    phase: Phase,
    /// When the phase began.
    phase_since: Duration,
    /// The epoch that members are asked under.
    ballot: LogEpoch,
    progress: BTreeMap<WorkerId, Progress>,
    reachable: BTreeSet<WorkerId>,
    /// Members asked before this are asked again at once: somebody wants to know whether they are
    /// still ours.
    doubted_at: Option<Duration>,
    /// When commands last began to wait for a newcomer.
    held_at: Option<Duration>,
    recent: Recent,
    steps: VecDeque<Step<T>>,
    next_ask: u64,
}

impl<T> Ledger<T> {
    /// Begins with an own copy. Without members it leads at once.
    pub fn new(opening: Opening, timing: Timing, now: Duration) -> Self {
        let Opening { own, writer, state, chain, committed } = opening;
        let is_alone = state.log_sets().is_alone();
        let known = committed.unwrap_or(Mark::at(Chain::start()));
        let mut ledger = Self {
            own,
            writer,
            timing,
            chain,
            written: chain.seq,
            committed: if is_alone { Mark::at(chain) } else { known },
            group: Group::default(),
            phase: Phase::Leading,
            phase_since: now,
            ballot: chain.log_epoch,
            progress: BTreeMap::new(),
            reachable: BTreeSet::new(),
            doubted_at: None,
            held_at: None,
            recent: Recent::new(chain),
            steps: VecDeque::new(),
            next_ask: 0,
            state,
        };
        if !is_alone {
            ledger.ask_for_promises(chain.log_epoch.next(), now);
        }
        ledger
    }

    /// The state after the last record, which is durable when [`Self::is_settled`].
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The end of the log, with the group under way.
    pub fn chain(&self) -> Chain {
        self.chain
    }

    /// Whether every record is durable.
    pub fn is_settled(&self) -> bool {
        self.committed == Mark::at(self.chain) && self.group.pending.is_empty()
    }

    /// Whether this one writes the log, as far as it knows.
    pub fn is_leading(&self) -> bool {
        matches!(self.phase, Phase::Leading)
    }

    /// Why the ledger has stopped for good, when another coordinator has taken over or the copies
    /// contradict each other: what is known here may be old.
    pub fn superseded(&self) -> Option<&str> {
        match &self.phase {
            Phase::Stopped { reason, is_superseded: true } => Some(reason),
            _ => None,
        }
    }

    /// Whether commands are taken now.
    pub fn readiness(&self, now: Duration) -> Readiness {
        let began = match &self.phase {
            Phase::Stopped { reason, .. } => {
                return Readiness::Refused(CatalogError::Stopped { reason: reason.clone() });
            }
            Phase::Leading if self.group.since.is_none() => {
                let is_busy = self.is_to_publish() || self.is_held(now);
                return if is_busy { Readiness::Busy } else { Readiness::Ready };
            }
            Phase::Leading => self.group.since.unwrap_or(now),
            _ => self.phase_since,
        };
        if now.saturating_sub(began) < self.timing.stall_after {
            return Readiness::Busy;
        }
        Readiness::Refused(CatalogError::LogUnavailable { reason: self.missing() })
    }

    /// Applies a command to the group being put together; `token` hears of it when it is durable.
    /// Only for a ledger that is [`Readiness::Ready`], until [`Self::begin_group`].
    pub fn commit(&mut self, command: Command, payload: &[u8], token: T) {
        let txn = command.txn;
        let result = self.apply(command, payload);
        self.group.pending.push(Pending { txn, result, token });
    }

    fn apply(&mut self, command: Command, payload: &[u8]) -> Result<Committed, CatalogError> {
        let (committed, is_new) = self.state.apply_once(command)?;
        if !is_new {
            return Ok(committed);
        }
        let (epoch, log_epoch) = (self.state.epoch(), self.state.log_epoch());
        let record = self.chain.append(epoch, log_epoch, payload)?;
        self.group.records.push(Arc::from(record));
        Ok(committed)
    }

    /// Begins to make the group durable.
    pub fn begin_group(&mut self, now: Duration) {
        if self.group.records.is_empty() {
            // Nothing is new: replays and refusals, of a state that is durable. A group that is under
            // way, for too long to take more, stays so.
            if self.group.since.is_none() {
                self.reply_all();
            }
            return;
        }
        self.group.since.get_or_insert(now);
        let records = std::mem::take(&mut self.group.records);
        self.recent.push(&records);
        if !self.group.is_of_members && !self.state.log_sets().is_alone() {
            // Members write while we do.
            self.ask_members(now);
        }
        let (chain, committed) = (self.chain, self.committed);
        self.steps.push_back(Step::Write { records, chain, committed });
    }

    /// The last [`Step::Write`] is done, and survives a crash.
    pub fn written(&mut self, now: Duration) {
        self.written = self.chain.seq;
        self.advance(now);
    }

    /// The last [`Step::Write`] failed: what the disk kept is unknown until a restart.
    pub fn write_failed(&mut self, cause: &str) {
        self.stop(format!("a write failed: {cause}"), false);
    }

    /// Says which workers can be asked.
    pub fn set_reachable(&mut self, workers: BTreeSet<WorkerId>, now: Duration) {
        for worker in workers.difference(&self.reachable) {
            // Somebody who has just come may answer at once, and may have been emptied meanwhile.
            if let Some(progress) = self.progress.get_mut(worker) {
                if progress.is_foreign {
                    *progress = Progress::new(now);
                }
                progress.retry_at = now;
            }
        }
        self.reachable = workers;
    }

    /// Asks members at once whether they are still ours, for [`Self::confirmed`] to say.
    pub fn doubt(&mut self, now: Duration) {
        self.doubted_at = Some(now);
        self.ask_members(now);
    }

    /// Looks at the clock: asks members, gives up waiting, changes the set.
    pub fn poll(&mut self, now: Duration) {
        self.advance(now);
        self.give_up_waiting(now);
        self.reclaim(now);
        self.reform(now);
        self.ask_members(now);
    }

    /// Whether [`Self::poll`] has to be called now and then: there is somebody to ask.
    pub fn wants_clock(&self) -> bool {
        !matches!(self.phase, Phase::Stopped { .. })
            && (!self.state.log_sets().is_alone() || !self.newcomers().is_empty())
    }

    /// The next thing to be done.
    pub fn next_step(&mut self) -> Option<Step<T>> {
        self.steps.pop_front()
    }

    /// Whether readers are yet to be shown the state, which must not be another one by then.
    fn is_to_publish(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Publish))
    }

    /// Moves on as far as what is known allows.
    fn advance(&mut self, now: Duration) {
        self.advance_election(now);
        let is_own_turn = matches!(self.phase, Phase::Leading | Phase::Raising);
        let is_written = self.group.since.is_some() && self.written == self.chain.seq;
        if is_own_turn && is_written && self.is_durable(self.chain.seq) {
            self.committed = Mark::at(self.chain);
            self.recent.forget(self.written);
            if matches!(self.phase, Phase::Raising) {
                self.enter(Phase::Leading, now);
                tracing::info!(log_epoch = %self.ballot, seq = self.chain.seq,
                    "the command log is written by this coordinator");
            }
            self.steps.push_back(Step::Publish);
            self.reply_all();
        }
    }

    fn is_durable(&self, seq: u64) -> bool {
        let has = |worker| self.progress.get(&worker).is_some_and(|member| member.acked >= seq);
        self.state.log_sets().is_durable(self.own, has)
    }

    fn reply_all(&mut self) {
        let group = std::mem::take(&mut self.group);
        for Pending { token, result, .. } in group.pending {
            self.steps.push_back(Step::Reply(token, result));
        }
    }

    /// Those who wait too long are told that they do not know; the group stays under way.
    fn give_up_waiting(&mut self, now: Duration) {
        let waited = self.group.since.map(|since| now.saturating_sub(since));
        if waited.is_some_and(|waited| waited >= self.timing.stall_after) {
            let cause = self.missing();
            self.tell_unknown(&cause);
        }
    }

    fn tell_unknown(&mut self, cause: &str) {
        for Pending { txn, result, token } in std::mem::take(&mut self.group.pending) {
            let unknown = |_| Err(CatalogError::OutcomeUnknown { txn, cause: cause.to_owned() });
            self.steps.push_back(Step::Reply(token, result.and_then(unknown)));
        }
    }

    /// Ends for good.
    fn stop(&mut self, reason: String, is_superseded: bool) {
        self.tell_unknown(&reason);
        // What was to be written is not: a writer that has stopped adds nothing.
        self.steps.retain(|step| !matches!(step, Step::Write { .. } | Step::Ask(_)));
        self.phase = Phase::Stopped { reason, is_superseded };
    }

    fn enter(&mut self, phase: Phase, now: Duration) {
        // However many steps it takes to lead, what waits for that waits since the first.
        if self.is_leading() || matches!(phase, Phase::Leading) {
            self.phase_since = now;
        }
        self.phase = phase;
    }

    fn promise(&self) -> Promise {
        Promise { epoch: self.ballot, writer: self.writer }
    }
}
