//! Clients: who sends statements, does not know what came of some, and sends those again.

use std::collections::BTreeSet;

use basalt_engine::error::{ErrorCode, SqlError};
use basalt_storage::digest::Digest;
use basalt_storage::ids::SliceId;

use super::disk::Row;
use super::messages::{Address, Ask, CallId, Message, Node, Reply};
use super::world::{Event, Ms, World};
use crate::catalog::{Request, RequestKey};

/// How long a client waits for an answer.
const ANSWER_WITHIN: Ms = 12_000;
/// How often a statement is sent again that is known to have failed.
const TRIES_MAX: u32 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StatementId(pub(super) u64);

/// A statement that writes.
#[derive(Debug, Clone)]
pub(super) struct Statement {
    pub(super) id: StatementId,
    pub(super) key: Option<RequestKey>,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Append { slices: Vec<SliceId>, rows: u64 },
    Delete,
    Update,
    Compact,
}

impl Statement {
    pub(super) fn request(&self) -> Option<Request> {
        let key = self.key.clone()?;
        Some(Request { key, payload: Digest::of(&self.id.0.to_le_bytes()) })
    }

    pub(super) fn first_row(&self) -> Row {
        self.id.0 << 8
    }
}

#[derive(Debug, Default)]
pub(super) struct Client {
    /// What it waits for.
    running: Option<Running>,
    query: Option<CallId>,
    /// The last key that it used, and that was done.
    last_key: Option<RequestKey>,
}

#[derive(Debug)]
struct Running {
    statement: Statement,
    calls: BTreeSet<CallId>,
    tries: u32,
    /// Some send of it may have been done.
    is_unknown: bool,
}

impl World {
    pub(super) fn clients_begin(&mut self) {
        for client in 0..self.random.between(2, 4) as usize {
            self.clients.push(Client::default());
            let delay = self.random.between(500, 4_000);
            self.after(delay, Event::Client(client));
        }
    }

    pub(super) fn clients_are_idle(&self) -> bool {
        self.clients.iter().all(|client| client.running.is_none() && client.query.is_none())
    }

    /// Sends the next statement, or the one that it waits for once more.
    pub(super) fn client_acts(&mut self, client: usize) {
        if self.clients[client].running.is_some() {
            return self.sends(client);
        }
        if self.is_calm || self.clients[client].query.is_some() {
            return;
        }
        if self.random.chance(30) {
            return self.queries(client);
        }
        let statement = self.next_write(client);
        let (calls, tries) = (BTreeSet::new(), 0);
        let running = Running { statement, calls, tries, is_unknown: false };
        self.clients[client].running = Some(running);
        self.sends(client);
    }

    pub(super) fn queries(&mut self, client: usize) {
        let node = Node::Client(client);
        let call = self.ask(node, Address::Coordinator, Ask::Query, 4 * ANSWER_WITHIN);
        self.clients[client].query = Some(call);
    }

    fn next_write(&mut self, client: usize) -> Statement {
        let kind = match self.random.below(10) {
            0 => Kind::Delete,
            1 | 2 => Kind::Update,
            3 => Kind::Compact,
            _ => {
                let slices = (0..self.rules.slices).map(SliceId);
                let chosen: Vec<_> = slices.filter(|_| self.random.chance(60)).collect();
                let slices = if chosen.is_empty() { vec![SliceId(0)] } else { chosen };
                Kind::Append { slices, rows: self.random.between(1, 3) }
            }
        };
        let id = self.new_statement();
        let has_key = !matches!(kind, Kind::Compact) && self.random.chance(70);
        let key = has_key.then(|| match &self.clients[client].last_key {
            Some(used) if self.random.chance(4) => used.clone(),
            _ => RequestKey::new(format!("request {}", id.0)).unwrap(),
        });
        Statement { id, key, kind }
    }

    fn sends(&mut self, client: usize) {
        let Some(running) = &mut self.clients[client].running else { return };
        running.tries += 1;
        let statement = running.statement.clone();
        let twice = statement.key.is_some() && self.random.chance(12);
        if twice {
            self.seen.note("clients: one request is under way twice");
        }
        for _ in 0..1 + u32::from(twice) {
            let ask = Ask::Run(statement.clone());
            let call = self.ask(Node::Client(client), Address::Coordinator, ask, ANSWER_WITHIN);
            if let Some(running) = &mut self.clients[client].running {
                running.calls.insert(call);
            }
        }
    }

    pub(super) fn client_hears(&mut self, client: usize, message: Message) {
        let Message::Answer(call, answer) = message else { return };
        if self.clients[client].query == Some(call) {
            self.clients[client].query = None;
            return self.thinks(client);
        }
        let Some(running) = &mut self.clients[client].running else { return };
        if !running.calls.remove(&call) {
            return;
        }
        match answer {
            Ok(Reply::Wrote { version, replayed }) => {
                let (id, was_unknown) = (running.statement.id, running.is_unknown);
                self.clients[client].last_key = running.statement.key.clone();
                self.check_ack(id, version, replayed);
                if was_unknown {
                    self.seen.note("clients: an unknown outcome is resolved");
                }
                self.is_done(client);
            }
            Ok(_) => {}
            Err(error) => self.client_fails(client, &error),
        }
    }

    fn client_fails(&mut self, client: usize, error: &SqlError) {
        let is_calm = self.is_calm;
        let Some(running) = &mut self.clients[client].running else { return };
        let is_unknown = error.code == ErrorCode::OutcomeUnknown || error.message == "no answer";
        running.is_unknown |= is_unknown;
        if error.code == ErrorCode::InvalidParameter {
            self.seen.note("clients: a request key is reused and refused");
        }
        let may_retry = running.statement.key.is_some()
            && (is_unknown || error.code.is_retryable())
            && (running.is_unknown || (running.tries < TRIES_MAX && !is_calm));
        if may_retry && !running.calls.is_empty() {
            // Another send of it may be answered yet.
        } else if may_retry {
            self.seen.note("clients: a write is sent again");
            let delay = self.random.between(300, 3_000);
            self.after(delay, Event::Client(client));
        } else if running.calls.is_empty() || running.statement.key.is_none() {
            self.is_done(client);
        }
    }

    fn is_done(&mut self, client: usize) {
        self.clients[client].running = None;
        self.thinks(client);
    }

    fn thinks(&mut self, client: usize) {
        let delay = self.random.between(100, 3_000);
        self.after(delay, Event::Client(client));
    }
}
