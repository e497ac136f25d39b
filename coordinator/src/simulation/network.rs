//! What becomes of messages: late, lost, doubled, or cut off in one direction or both.

use basalt_engine::error::SqlError;
use basalt_storage::ids::WorkerId;

use super::messages::{Address, Ask, CallId, Caller, Message, Node, Reply, unavailable};
use super::world::{Event, Ms, World};

/// The way of one message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    to: Node,
    /// The run of the process that it was sent to.
    run: u64,
    /// The worker that it is for.
    worker: Option<WorkerId>,
}

/// How unkind the network of one world is.
#[derive(Debug, Default)]
pub(super) struct Network {
    /// Ways that are cut: from, to.
    pub(super) cut: Vec<(Node, Node)>,
    /// Messages in a hundred that are lost, and that come twice.
    pub(super) lost: u64,
    pub(super) doubled: u64,
    /// Messages in a hundred that are much later than others.
    pub(super) late: u64,
}

impl Network {
    pub(super) fn cut(&mut self, from: Node, to: Node) {
        self.cut.push((from, to));
    }

    pub(super) fn heal(&mut self, ways: &[(Node, Node)]) {
        for way in ways {
            if let Some(place) = self.cut.iter().position(|cut| cut == way) {
                self.cut.swap_remove(place);
            }
        }
    }

    pub(super) fn heal_all(&mut self) {
        self.cut.clear();
        (self.lost, self.doubled, self.late) = (0, 0, 0);
    }

    fn is_cut(&self, from: Node, to: Node) -> bool {
        self.cut.contains(&(from, to))
    }
}

impl World {
    /// Asks, and gives up after `within`; never when that is 0, for what nobody waits for.
    pub(super) fn ask(&mut self, from: Node, to: Address, ask: Ask, within: Ms) -> CallId {
        self.calls += 1;
        let call = CallId(self.calls);
        let run = self.run_of(from);
        let caller = Caller { node: from, run, call };
        // What a client calls without a name is sent once: a connection does not double calls.
        let may_double = match &ask {
            Ask::Run(statement) => statement.key.is_some(),
            Ask::Query => false,
            _ => true,
        };
        self.send(from, to, Message::Ask(caller, ask), may_double);
        if within > 0 {
            self.after(within, Event::GiveUp(caller));
        }
        call
    }

    pub(super) fn answer(&mut self, from: Node, caller: Caller, answer: Result<Reply, SqlError>) {
        let to = match caller.node {
            Node::Coordinator => Address::Coordinator,
            Node::Client(client) => Address::Client(client),
            // Answers go back on the connection of the call, wherever its address leads by now.
            Node::Machine(machine) => match &self.machines[machine].process {
                Some(process) if process.run == caller.run => {
                    Address::Worker(self.machines[machine].worker, process.port)
                }
                _ => return,
            },
        };
        self.send(from, to, Message::Answer(caller.call, answer), false);
    }

    fn send(&mut self, from: Node, to: Address, message: Message, may_double: bool) {
        let Some(node) = self.listens(to) else {
            // Refused at once: nobody listens there.
            if let Message::Ask(caller, _) = message {
                self.refuse(caller, "nobody listens");
            }
            return;
        };
        if self.network.is_cut(from, node) || self.random.chance(self.network.lost) {
            return;
        }
        let worker = match to {
            Address::Worker(worker, _) => Some(worker),
            Address::Coordinator | Address::Client(_) => None,
        };
        // A connection is one to a run of a process: what is under way ends with it.
        let way = Way { to: node, run: self.run_of(node), worker };
        if may_double && self.random.chance(self.network.doubled) {
            let delay = self.delay() + self.random.below(3_000);
            self.after(delay, Event::Arrive(way, message.clone()));
        }
        let delay = self.delay();
        self.after(delay, Event::Arrive(way, message));
    }

    fn refuse(&mut self, caller: Caller, why: &str) {
        let delay = self.random.between(1, 20);
        let way = Way { to: caller.node, run: caller.run, worker: None };
        let refused = Message::Answer(caller.call, Err(unavailable(why)));
        self.after(delay, Event::Arrive(way, refused));
    }

    fn delay(&mut self) -> Ms {
        match self.random.chance(self.network.late) {
            true => self.random.between(500, 12_000),
            false => self.random.between(1, 15),
        }
    }

    fn listens(&self, address: Address) -> Option<Node> {
        match address {
            Address::Coordinator => self.brain.as_ref().map(|_| Node::Coordinator),
            Address::Client(client) => Some(Node::Client(client)),
            Address::Worker(_, port) => {
                let listens = |machine: &super::worker::Machine| {
                    machine.process.as_ref().is_some_and(|process| process.port == port)
                };
                self.machines.iter().position(listens).map(Node::Machine)
            }
        }
    }

    /// A message comes to where it was sent.
    pub(super) fn arrives(&mut self, way: Way, message: Message) {
        if self.run_of(way.to) != way.run || !self.is_up(way.to) {
            return;
        }
        if let Some(until) = self.paused_until(way.to) {
            // It waits in the buffers of a process that does not run.
            let delay = until - self.now + self.random.below(50);
            self.after(delay, Event::Arrive(way, message));
            return;
        }
        if let (Some(worker), Node::Machine(machine)) = (way.worker, way.to)
            && self.machines[machine].worker != worker
        {
            // As `engine::addressee` has it: another worker listens there now.
            if let Message::Ask(caller, _) = message {
                self.seen.note("network: another worker is at an address");
                self.refuse(caller, "another worker listens here");
            }
            return;
        }
        match way.to {
            Node::Coordinator => self.coordinator_hears(message),
            Node::Machine(machine) => self.worker_hears(machine, message),
            Node::Client(client) => self.client_hears(client, message),
        }
    }
}
