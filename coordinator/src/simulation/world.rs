//! A world: its clock, its events, and all that is in it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use basalt_engine::settings::WriteConsistency;
use basalt_storage::ids::{ClusterId, WorkerId};

use super::clients::{Client, StatementId};
use super::coordinator::{Alarm, Brain};
use super::messages::{Caller, Message, Node};
use super::network::{Network, Way};
use super::oracle::Oracle;
use super::random::Random;
use super::seen::Seen;
use super::worker::{Duty, Machine};
use crate::membership::Liveness;
use crate::reconcile::ReconcileOptions;

/// Virtual milliseconds.
pub(super) type Ms = u64;

/// How long faults happen and clients begin statements.
const TROUBLE: Ms = 24_000;
/// How long a world may take to come to rest after that: to give up the lost, to repair with tries
/// that were held back, to scrub, and to let garbage grow old.
const REST_WITHIN: Ms = 400_000;

/// What happens next.
#[derive(Debug)]
pub(super) enum Event {
    Arrive(Way, Message),
    /// A call was not answered in time.
    GiveUp(Caller),
    /// Something a run of a worker's process does later.
    Worker(usize, u64, Duty),
    /// The same of a coordinator's.
    Coordinator(u64, Alarm),
    /// A client does something.
    Client(usize),
    /// A fault, or the end of one.
    Fault(super::faults::Fault),
}

/// What one world is like.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) slices: u16,
    pub(super) replicas: u16,
    pub(super) consistency: WriteConsistency,
    pub(super) liveness: Liveness,
    pub(super) options: ReconcileOptions,
    /// How long a worker remembers what it staged.
    pub(super) staging_kept: Ms,
    /// The mean time between two faults.
    pub(super) fault_every: Ms,
}

impl Rules {
    fn of(random: &mut Random) -> Self {
        let seconds =
            |random: &mut Random, least, most| Duration::from_secs(random.between(least, most));
        let liveness = Liveness {
            heartbeat_every: Duration::from_secs(1),
            suspect_after: Duration::from_secs(3),
            dead_after: seconds(random, 5, 9),
        };
        let options = ReconcileOptions {
            every: Duration::from_secs(2),
            lost_after: seconds(random, 7, 13),
            copies_at_once: random.between(1, 4) as usize,
            garbage_after: seconds(random, 3, 16),
            scrub_every: seconds(random, 10, 20),
            ..ReconcileOptions::default()
        };
        let consistency = match random.below(10) {
            0 | 1 => WriteConsistency::One,
            2 => WriteConsistency::Quorum,
            _ => WriteConsistency::All,
        };
        Self {
            slices: random.one_of(&[1, 2, 4]).unwrap_or(1),
            replicas: random.one_of(&[2, 2, 2, 3]).unwrap_or(2),
            consistency,
            liveness,
            options,
            staging_kept: random.between(2_000, 16_000),
            fault_every: random.between(500, 3_200),
        }
    }
}

/// Everything.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) random: Random,
    pub(super) seen: Seen,
    pub(super) rules: Rules,
    pub(super) now: Ms,
    /// What virtual time 0 is for those who want an [`Instant`]: only differences count.
    origin: Instant,
    events: BinaryHeap<Reverse<(Ms, u64)>>,
    waiting: BTreeMap<u64, Box<Event>>,
    next_event: u64,
    pub(super) calls: u64,
    pub(super) network: Network,
    pub(super) cluster: ClusterId,
    pub(super) machines: Vec<Machine>,
    pub(super) brain: Option<Brain>,
    /// Runs of the coordinator so far.
    pub(super) coordinator_run: u64,
    pub(super) coordinator_paused: Option<Ms>,
    /// The coordinator's disk: the commands, each as it was written.
    pub(super) log: Vec<Vec<u8>>,
    pub(super) clients: Vec<Client>,
    pub(super) next_statement: u64,
    pub(super) oracle: Oracle,
    /// No more faults, and no more statements.
    pub(super) is_calm: bool,
    /// Somebody wants to be told what happens.
    is_told: bool,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let rules = Rules::of(&mut random);
        let cluster = ClusterId(random.uuid());
        let network = Network {
            lost: random.one_of(&[0, 0, 1, 4]).unwrap_or(0),
            doubled: random.one_of(&[0, 2, 8]).unwrap_or(0),
            late: random.one_of(&[0, 0, 2, 5]).unwrap_or(0),
            ..Network::default()
        };
        let mut world = Self {
            seed,
            random,
            seen: Seen::default(),
            rules,
            now: 0,
            origin: Instant::now(),
            events: BinaryHeap::new(),
            waiting: BTreeMap::new(),
            next_event: 0,
            calls: 0,
            network,
            cluster,
            machines: Vec::new(),
            brain: None,
            coordinator_run: 0,
            coordinator_paused: None,
            log: Vec::new(),
            clients: Vec::new(),
            next_statement: 0,
            oracle: Oracle::default(),
            is_calm: false,
            is_told: std::env::var_os(super::TOLD_VARIABLE).is_some(),
        };
        world.found();
        world.coordinator_starts();
        for _ in 0..world.random.between(3, 5) {
            world.machine_joins();
        }
        world.clients_begin();
        world.next_fault();
        world
    }

    /// Runs to the end; panics when something is not as it must be.
    pub(super) fn run(mut self) -> Seen {
        self.run_until(TROUBLE);
        self.calm_down();
        let end = self.now + REST_WITHIN;
        loop {
            let until = self.now + 2_000;
            self.run_until(until);
            match self.what_is_not_at_rest() {
                None => break,
                Some(what) => self.require(self.now < end, || format!("no rest: {what}")),
            }
        }
        self.last_reads();
        self.seen
    }

    pub(super) fn run_until(&mut self, end: Ms) {
        while let Some(Reverse((at, number))) = self.events.peek().copied()
            && at <= end
        {
            self.events.pop();
            self.now = at;
            if let Some(event) = self.waiting.remove(&number) {
                self.happens(*event);
            }
        }
        self.now = end;
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Arrive(way, message) => self.arrives(way, message),
            Event::GiveUp(caller) => self.gives_up(caller),
            Event::Worker(machine, run, duty) => self.worker_does(machine, run, duty),
            Event::Coordinator(run, alarm) => self.coordinator_does(run, alarm),
            Event::Client(client) => self.client_acts(client),
            Event::Fault(fault) => self.fault_happens(fault),
        }
    }

    pub(super) fn after(&mut self, delay: Ms, event: Event) {
        self.next_event += 1;
        self.events.push(Reverse((self.now + delay, self.next_event)));
        self.waiting.insert(self.next_event, Box::new(event));
    }

    fn gives_up(&mut self, caller: Caller) {
        if self.run_of(caller.node) != caller.run || !self.is_up(caller.node) {
            return;
        }
        if let Some(until) = self.paused_until(caller.node) {
            self.after(until - self.now + 60, Event::GiveUp(caller));
            return;
        }
        let late = Message::Answer(caller.call, Err(super::messages::unavailable("no answer")));
        match caller.node {
            Node::Coordinator => self.coordinator_hears(late),
            Node::Machine(machine) => self.worker_hears(machine, late),
            Node::Client(client) => self.client_hears(client, late),
        }
    }

    /// Which run of a process it is, or the last one was.
    pub(super) fn run_of(&self, node: Node) -> u64 {
        match node {
            Node::Coordinator => self.coordinator_run,
            Node::Machine(machine) => self.machines[machine].runs,
            Node::Client(_) => 0,
        }
    }

    pub(super) fn is_up(&self, node: Node) -> bool {
        match node {
            Node::Coordinator => self.brain.is_some(),
            Node::Machine(machine) => self.machines[machine].process.is_some(),
            Node::Client(_) => true,
        }
    }

    /// Until when a process does not run, if it does not now.
    pub(super) fn paused_until(&self, node: Node) -> Option<Ms> {
        let until = match node {
            Node::Coordinator => self.coordinator_paused,
            Node::Machine(machine) => self.machines[machine].paused_until,
            Node::Client(_) => None,
        };
        until.filter(|until| *until > self.now)
    }

    pub(super) fn instant(&self) -> Instant {
        self.origin + Duration::from_millis(self.now)
    }

    pub(super) fn new_statement(&mut self) -> StatementId {
        self.next_statement += 1;
        StatementId(self.next_statement)
    }

    pub(super) fn machine_of(&self, worker: WorkerId) -> Option<usize> {
        self.machines.iter().position(|machine| machine.worker == worker)
    }

    /// Tells what happens, to somebody who looks at one seed.
    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        if self.is_told {
            eprintln!("{:>7} {}", self.now, what());
        }
    }

    /// Fails the run unless something holds.
    #[track_caller]
    pub(super) fn require(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            panic!("seed {} at {} ms: {}", self.seed, self.now, what());
        }
    }
}
