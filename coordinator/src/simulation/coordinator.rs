//! A coordinator: what it remembers between two crashes, who lives, and who may join.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use basalt_engine::error::SqlError;
use basalt_engine::snapshot::Snapshot;
use basalt_storage::ids::{Epoch, SegmentId, WorkerId};
use basalt_storage::layout::SegmentKey;

use super::copying::Checks;
use super::log::{Then, Writer};
use super::messages::{Address, Ask, CallId, Caller, Message, Node, Reply, unavailable};
use super::reads::ReadRun;
use super::rounds::Round;
use super::worker::versions;
use super::world::{Event, Ms, World};
use super::writes::WriteRun;
use crate::catalog::{CatalogError, Committed, Published, State};
use crate::membership::{
    Beat, Incarnation, Join, Member, MemberState, Roster, has_rows, note_beat, slices,
};
use crate::reconcile::OpenWrites;
use crate::reconcile::copies::{Copies, Fetched};
use crate::reconcile::scrub::Scrubs;
use crate::reconcile::standing::{Standing, standings};

/// How long an answer to a ping may take, and how often suspects are asked.
const PING_WITHIN: Ms = 1_000;
/// How often a registration plans again when somebody was faster.
const JOIN_TRIES_MAX: u32 = 16;

/// What a coordinator does later.
#[derive(Debug)]
pub(super) enum Alarm {
    Refresh,
    Round,
    LogSynced,
    LogShown,
    /// A write looks for workers again.
    WriteAgain(u64),
    ReadOn(u64),
    ReadAgain(u64),
}

/// Everything that a coordinator forgets when it ends.
pub(super) struct Brain {
    pub(super) started: Ms,
    pub(super) state: State,
    pub(super) published: Published,
    pub(super) roster: Roster,
    pub(super) writer: Writer,
    pub(super) log_fails_next: bool,
    pub(super) copies: Copies,
    pub(super) scrubs: Scrubs,
    pub(super) open_writes: OpenWrites,
    pub(super) calls: BTreeMap<CallId, Waiting>,
    pub(super) writes: BTreeMap<u64, WriteRun>,
    pub(super) reads: BTreeMap<u64, ReadRun>,
    pub(super) round: Option<Round>,
    /// Copies under way, by what goes where.
    pub(super) fetches: BTreeMap<(SegmentId, WorkerId), CallId>,
    /// Copies that ended since the last round.
    pub(super) ended: Vec<((SegmentId, WorkerId), Fetched)>,
    pub(super) checks: BTreeMap<WorkerId, Checks>,
    /// When each worker was heard of last, and since when it does not answer: what the roster knows,
    /// kept apart from it.
    pub(super) heard: BTreeMap<WorkerId, (Ms, Option<Ms>)>,
}

/// What an answer is for.
#[derive(Debug)]
pub(super) enum Waiting {
    Ping(WorkerId, Incarnation),
    Append(u64),
    Seal(u64, WorkerId),
    Abort,
    Fetch(SegmentId, WorkerId),
    Check(WorkerId, SegmentKey),
    Listed(WorkerId),
    Removed(WorkerId),
    Read(u64),
}

impl Brain {
    /// Whether its log is still written to.
    pub(super) fn takes_commits(&self) -> bool {
        !self.writer.has_failed()
    }
}

impl World {
    pub(super) fn coordinator_starts(&mut self) {
        if self.brain.is_some() {
            return;
        }
        self.coordinator_run += 1;
        self.coordinator_paused = None;
        let state = self.replayed();
        self.require(state.digest().ok() == self.oracle.truth.digest().ok(), || {
            "the log replays to another state".to_owned()
        });
        let published = Published::new(&state).unwrap();
        let roster = Roster::new(self.cluster, self.rules.liveness, versions());
        self.brain = Some(Brain {
            started: self.now,
            state,
            published,
            roster,
            writer: Writer::default(),
            log_fails_next: false,
            copies: Copies::default(),
            scrubs: Scrubs::default(),
            open_writes: OpenWrites::default(),
            calls: BTreeMap::new(),
            writes: BTreeMap::new(),
            reads: BTreeMap::new(),
            round: None,
            fetches: BTreeMap::new(),
            ended: Vec::new(),
            checks: BTreeMap::new(),
            heard: BTreeMap::new(),
        });
        let run = self.coordinator_run;
        self.after(1_000, Event::Coordinator(run, Alarm::Refresh));
        let every = self.rules.options.every.as_millis() as Ms;
        self.after(every, Event::Coordinator(run, Alarm::Round));
    }

    pub(super) fn coordinator_dies(&mut self) {
        self.note_lost_commits();
        self.brain = None;
        self.coordinator_paused = None;
    }

    pub(super) fn coordinator_does(&mut self, run: u64, alarm: Alarm) {
        if self.brain.is_none() || self.coordinator_run != run {
            return;
        }
        if let Some(until) = self.paused_until(Node::Coordinator) {
            let delay = until - self.now + self.random.below(50);
            self.after(delay, Event::Coordinator(run, alarm));
            return;
        }
        match alarm {
            Alarm::Refresh => {
                self.refresh();
                self.ping(|state| state == MemberState::Suspect);
                self.after(1_000, Event::Coordinator(run, Alarm::Refresh));
            }
            Alarm::Round => {
                self.round_begins();
                let every = self.rules.options.every.as_millis() as Ms;
                self.after(every, Event::Coordinator(run, Alarm::Round));
            }
            Alarm::LogSynced => self.log_synced(),
            Alarm::LogShown => self.log_shown(),
            Alarm::WriteAgain(write) => self.write_attempt(write),
            Alarm::ReadOn(read) => self.read_next(read),
            Alarm::ReadAgain(read) => self.read_again(read),
        }
    }

    pub(super) fn brain(&mut self) -> &mut Brain {
        self.brain.as_mut().unwrap()
    }

    pub(super) fn uptime(&self) -> Duration {
        let started = self.brain.as_ref().map_or(0, |brain| brain.started);
        Duration::from_millis(self.now - started)
    }

    pub(super) fn snapshot(&mut self) -> Arc<Snapshot> {
        Arc::clone(&self.brain().published.snapshot)
    }

    pub(super) fn members(&self) -> Vec<Member> {
        self.brain.as_ref().map_or(vec![], |brain| brain.roster.members(self.uptime()))
    }

    pub(super) fn standings(&self) -> BTreeMap<WorkerId, Standing> {
        let Some(brain) = &self.brain else { return BTreeMap::new() };
        let lost_after = self.rules.options.lost_after;
        standings(&brain.published.cluster, &self.members(), self.uptime(), lost_after)
    }

    /// Tells readers who lives.
    pub(super) fn refresh(&mut self) {
        let now = self.uptime();
        let brain = self.brain();
        let urls = brain.roster.urls(now);
        brain.published.move_workers(urls);
    }

    /// Asks workers whether they are there.
    pub(super) fn ping(&mut self, wanted: impl Fn(MemberState) -> bool) {
        for member in self.members() {
            if wanted(member.state) {
                let Some(port) = member.url.port() else { continue };
                let to = Address::Worker(member.worker, port);
                let call = self.ask(Node::Coordinator, to, Ask::Ping, PING_WITHIN);
                let waiting = Waiting::Ping(member.worker, member.incarnation);
                self.brain().calls.insert(call, waiting);
            }
        }
    }

    pub(super) fn coordinator_hears(&mut self, message: Message) {
        match message {
            Message::Ask(caller, ask) => self.coordinator_is_asked(caller, ask),
            Message::Answer(call, answer) => match self.brain().calls.remove(&call) {
                None | Some(Waiting::Abort) => {}
                Some(Waiting::Ping(worker, run)) => self.pinged(worker, run, answer),
                Some(Waiting::Append(write)) => self.appended(write, answer),
                Some(Waiting::Seal(write, owner)) => self.sealed(write, owner, answer),
                Some(Waiting::Fetch(segment, to)) => self.fetched((segment, to), answer),
                Some(Waiting::Check(worker, key)) => self.checked(worker, key, answer),
                Some(Waiting::Listed(worker)) => self.listed(worker, answer),
                Some(Waiting::Removed(worker)) => self.removed(worker),
                Some(Waiting::Read(read)) => self.read_answered(read, answer),
            },
        }
    }

    fn pinged(
        &mut self,
        worker: WorkerId,
        incarnation: Incarnation,
        answer: Result<Reply, SqlError>,
    ) {
        // Another run is left alone, and one that is dead until it registers again.
        let is_meant = self.members().iter().any(|member| {
            (member.worker, member.incarnation) == (worker, incarnation)
                && member.state != MemberState::Dead
        });
        let now = self.uptime();
        let answered = matches!(answer, Ok(Reply::Pong(run)) if run == incarnation);
        let roster = &mut self.brain().roster;
        match answered {
            true => roster.answered(worker, incarnation, now),
            false => roster.accuse(worker, incarnation, now),
        }
        let now = self.now;
        let heard = self.brain().heard.entry(worker).or_default();
        match answered {
            true if is_meant => *heard = (now, None),
            true => {}
            false => heard.1 = heard.1.or(Some(now)),
        }
        self.refresh();
    }

    fn note_heard(&mut self, worker: WorkerId) {
        let now = self.now;
        self.brain().heard.entry(worker).or_default().0 = now;
    }

    fn coordinator_is_asked(&mut self, caller: Caller, ask: Ask) {
        match ask {
            Ask::Register(join) => self.register(caller, join, 0),
            Ask::Heartbeat { worker, incarnation, epoch } => {
                let answer = self.heartbeat(worker, incarnation, epoch);
                self.answer(Node::Coordinator, caller, answer);
            }
            Ask::Run(statement) => self.write_begins(caller, statement),
            Ask::Query => self.read_begins(caller),
            _ => {}
        }
    }

    fn heartbeat(
        &mut self,
        worker: WorkerId,
        incarnation: Incarnation,
        epoch: Epoch,
    ) -> Result<Reply, SqlError> {
        let now = self.uptime();
        let brain = self.brain();
        let cluster = Arc::clone(&brain.published.cluster);
        let beat = note_beat(&mut brain.roster, Some(&cluster), (worker, incarnation, epoch), now);
        let register_again = match beat {
            Beat::Alive { changed } => {
                self.note_heard(worker);
                if changed {
                    self.refresh();
                }
                false
            }
            Beat::Register => true,
            Beat::FutureEpoch => return Err(unavailable("a worker has seen the future")),
        };
        Ok(Reply::Epoch { epoch: cluster.epoch, register_again })
    }

    fn register(&mut self, caller: Caller, join: Box<Join>, tries: u32) {
        let now = self.uptime();
        let brain = self.brain();
        let epoch = brain.published.cluster.epoch;
        if tries == 0
            && let Err(refusal) = brain.roster.register((*join).clone(), epoch, now)
        {
            self.seen.note("coordinator: a registration is refused");
            self.answer(Node::Coordinator, caller, Err(unavailable(&refusal.to_string())));
            return;
        }
        let brain = self.brain();
        let (cluster, snapshot) = (&brain.published.cluster, &brain.published.snapshot);
        let joins = (join.worker, &join.candidate);
        let changes = slices::join_changes(cluster, has_rows(snapshot), joins);
        if tries == 0 {
            let heard = (self.now, None);
            self.brain().heard.insert(join.worker, heard);
        }
        if changes.is_empty() {
            self.refresh();
            let reply = Reply::Epoch { epoch, register_again: false };
            self.answer(Node::Coordinator, caller, Ok(reply));
            return;
        }
        let command = self.command(changes);
        self.commit(command, Then::Registered(caller, join, tries + 1));
    }

    pub(super) fn registered(
        &mut self,
        caller: Caller,
        join: Box<Join>,
        tries: u32,
        outcome: Result<Committed, CatalogError>,
    ) {
        let answer = match outcome {
            // As `Members::record` has it: others may have registered at once.
            Ok(_) | Err(CatalogError::Conflict { .. }) if tries < JOIN_TRIES_MAX => {
                return self.register(caller, join, tries);
            }
            Ok(_) => Err(unavailable("the slice map changes all the time")),
            Err(error) => Err(error.into()),
        };
        self.answer(Node::Coordinator, caller, answer);
    }

    /// Members that are drained, by what the newest commit says.
    pub(super) fn draining(&self) -> BTreeSet<WorkerId> {
        self.oracle.truth.cluster().map_or_else(BTreeSet::new, |cluster| cluster.draining.clone())
    }
}
