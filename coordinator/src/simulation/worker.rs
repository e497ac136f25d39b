//! A worker: a machine with a disk, and a process that comes and goes.
//!
//! It answers as `worker/src/replicas/service.rs` does: nothing is said to be there that was not
//! verified and synced, and what is older than the newest epoch it was told of is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use basalt_engine::error::{ErrorCode, SqlError};
use basalt_engine::fence::Fence;
use basalt_storage::ids::{Epoch, SegmentId, TxnId, WorkerId};
use basalt_storage::manifest::SegmentRecord;

use super::disk::Disk;
use super::messages::{Address, Ask, CallId, Caller, Message, Node, Reply, unavailable};
use super::sealing::Staged;
use super::world::{Event, Ms, World};
use crate::membership::{Incarnation, Join, Versions};
use crate::placement::Candidate;

/// How long a source of a copy may take.
const ANSWER_WITHIN: Ms = 4_000;

/// A data directory and the machine that has it.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) worker: WorkerId,
    pub(super) disk: Disk,
    pub(super) process: Option<Process>,
    /// Runs of its process so far.
    pub(super) runs: u64,
    pub(super) paused_until: Option<Ms>,
    pub(super) port: u16,
    /// It never comes back.
    pub(super) is_gone: bool,
    pub(super) domain: Option<String>,
}

/// One run of a worker's process: all that it forgets when it ends.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) run: u64,
    pub(super) incarnation: Incarnation,
    pub(super) port: u16,
    /// Absent until it has joined.
    pub(super) fence: Option<Fence>,
    /// The newest epoch that it was told of, kept apart from the fence.
    pub(super) told: Epoch,
    pub(super) staged: BTreeMap<TxnId, Staged>,
    /// Copies for other owners.
    pub(super) copies: BTreeMap<TxnId, (Ms, Vec<SegmentId>)>,
    pub(super) aborted: BTreeSet<TxnId>,
    pub(super) calls: BTreeMap<CallId, Waiting>,
    pub(super) fetches: BTreeMap<u64, FetchJob>,
}

/// What a worker's answer is for.
#[derive(Debug)]
pub(super) enum Waiting {
    Register,
    Heartbeat,
    Put { txn: TxnId, segment: SegmentId, partner: WorkerId },
    Source(u64),
}

/// A copy that a worker makes.
#[derive(Debug)]
pub(super) struct FetchJob {
    caller: Caller,
    epoch: Epoch,
    record: Arc<SegmentRecord>,
    sources: Vec<(WorkerId, u16)>,
}

/// What a worker does later.
#[derive(Debug)]
pub(super) enum Duty {
    Beat,
    /// The worker's own copies of a transaction are synced.
    Sealed(TxnId),
    /// A partner's copy is synced.
    PutSynced(Caller, Arc<SegmentRecord>),
    /// A fetched or confirmed copy is synced.
    FetchSynced(Caller, SegmentId, u64),
}

impl World {
    pub(super) fn machine_joins(&mut self) {
        let domain = match self.random.below(4) {
            0 => Some(format!("rack {}", self.random.below(3))),
            _ => None,
        };
        let number = self.machines.len();
        self.machines.push(Machine {
            worker: WorkerId(self.random.uuid()),
            disk: Disk::default(),
            process: None,
            runs: 0,
            paused_until: None,
            port: 7_000 + number as u16,
            is_gone: false,
            domain,
        });
        self.worker_starts(number);
    }

    pub(super) fn worker_starts(&mut self, machine: usize) {
        let incarnation = Incarnation(self.random.uuid());
        let port = self.machines[machine].port;
        let is_taken =
            self.machines.iter().any(|m| m.process.as_ref().is_some_and(|p| p.port == port));
        let port = if is_taken { 8_000 + self.calls as u16 % 1_000 } else { port };
        let machine_ = &mut self.machines[machine];
        if machine_.process.is_some() || machine_.is_gone {
            return;
        }
        machine_.port = port;
        machine_.runs += 1;
        machine_.paused_until = None;
        let run = machine_.runs;
        machine_.process = Some(Process {
            run,
            incarnation,
            port,
            fence: None,
            told: Epoch(0),
            staged: BTreeMap::new(),
            copies: BTreeMap::new(),
            aborted: BTreeSet::new(),
            calls: BTreeMap::new(),
            fetches: BTreeMap::new(),
        });
        self.registers(machine);
        let first = self.random.between(1, 1_000);
        self.after(first, Event::Worker(machine, run, Duty::Beat));
    }

    fn registers(&mut self, machine: usize) {
        let Machine { worker, disk, process: Some(process), domain, .. } = &self.machines[machine]
        else {
            return;
        };
        let join = Join {
            cluster: disk.cluster,
            worker: *worker,
            incarnation: process.incarnation,
            url: url_of(process.port),
            versions: versions(),
            epoch: process.fence.as_ref().map_or(Epoch(0), Fence::epoch),
            candidate: Candidate { weight: 1, domain: domain.clone() },
        };
        let ask = Ask::Register(Box::new(join));
        let call = self.ask(Node::Machine(machine), Address::Coordinator, ask, 3_000);
        self.waits(machine, call, Waiting::Register);
    }

    pub(super) fn waits(&mut self, machine: usize, call: CallId, waiting: Waiting) {
        if let Some(process) = &mut self.machines[machine].process {
            process.calls.insert(call, waiting);
        }
    }

    pub(super) fn worker_does(&mut self, machine: usize, run: u64, duty: Duty) {
        if self.machines[machine].process.as_ref().is_none_or(|process| process.run != run) {
            return;
        }
        if let Some(until) = self.paused_until(Node::Machine(machine)) {
            let delay = until - self.now + self.random.below(50);
            self.after(delay, Event::Worker(machine, run, duty));
            return;
        }
        match duty {
            Duty::Beat => self.beats(machine, run),
            Duty::Sealed(txn) => self.own_copies_synced(machine, txn),
            Duty::PutSynced(caller, record) => self.put_synced(machine, caller, &record),
            Duty::FetchSynced(caller, segment, bytes) => {
                let answer = match self.synced(machine, segment) {
                    true => Ok(Reply::Fetched(bytes)),
                    false => Err(unavailable("the copy was lost while it was synced")),
                };
                self.answer(Node::Machine(machine), caller, answer);
            }
        }
    }

    /// Syncs a copy, if it is still there.
    pub(super) fn synced(&mut self, machine: usize, segment: SegmentId) -> bool {
        let Machine { worker, disk, .. } = &mut self.machines[machine];
        let synced = disk.sync(segment);
        if synced {
            self.oracle.damaged.remove(&(*worker, segment));
        }
        synced
    }

    fn beats(&mut self, machine: usize, run: u64) {
        self.sweeps(machine);
        let Machine { worker, process: Some(process), .. } = &self.machines[machine] else {
            return;
        };
        let every = self.rules.liveness.heartbeat_every.as_millis() as Ms;
        match &process.fence {
            None => {
                if !process.calls.values().any(|waiting| matches!(waiting, Waiting::Register)) {
                    self.registers(machine);
                }
            }
            Some(fence) => {
                let (incarnation, epoch) = (process.incarnation, fence.epoch());
                let ask = Ask::Heartbeat { worker: *worker, incarnation, epoch };
                let call = self.ask(Node::Machine(machine), Address::Coordinator, ask, 0);
                self.waits(machine, call, Waiting::Heartbeat);
            }
        }
        self.after(every, Event::Worker(machine, run, Duty::Beat));
    }

    pub(super) fn worker_hears(&mut self, machine: usize, message: Message) {
        match message {
            Message::Ask(caller, ask) => self.worker_is_asked(machine, caller, ask),
            Message::Answer(call, answer) => {
                let Some(process) = &mut self.machines[machine].process else { return };
                match process.calls.remove(&call) {
                    None => {}
                    Some(Waiting::Register | Waiting::Heartbeat) => {
                        if let Ok(Reply::Epoch { epoch, register_again }) = answer {
                            self.is_told(machine, epoch, register_again);
                        }
                    }
                    Some(Waiting::Put { txn, segment, partner }) => {
                        self.partner_answers(machine, (txn, segment, partner), answer);
                    }
                    Some(Waiting::Source(job)) => self.source_answers(machine, job, answer),
                }
            }
        }
    }

    fn is_told(&mut self, machine: usize, epoch: Epoch, register_again: bool) {
        let cluster = self.cluster;
        let Machine { disk, process: Some(process), .. } = &mut self.machines[machine] else {
            return;
        };
        disk.cluster = Some(cluster);
        process.fence.get_or_insert_with(|| Fence::new(cluster, epoch)).advance(epoch);
        process.told = process.told.max(epoch);
        if register_again {
            self.registers(machine);
        }
    }

    /// What the fence says; what it lets pass must not be older than what the worker was told.
    pub(super) fn admits(&mut self, machine: usize, epoch: Epoch) -> Result<(), SqlError> {
        let Some(process) = &self.machines[machine].process else {
            return Err(unavailable("no process"));
        };
        let Some(fence) = &process.fence else { return Err(unavailable("it has not joined yet")) };
        let admitted = fence.check_epoch(epoch);
        if admitted.is_err() {
            self.seen.note("coordinator: a stale plan is refused");
            return admitted;
        }
        self.require(epoch >= process.told, || {
            format!("worker {machine} takes orders of epoch {epoch}, and was told {}", process.told)
        });
        Ok(())
    }

    fn worker_is_asked(&mut self, machine: usize, caller: Caller, ask: Ask) {
        let node = Node::Machine(machine);
        let answer = match ask {
            Ask::Ping => match &self.machines[machine].process {
                Some(process) => Ok(Reply::Pong(process.incarnation)),
                None => return,
            },
            Ask::Append { target, slice, rows } => self.append(machine, &target, slice, rows),
            Ask::Seal { epoch, txn } => match self.seal(machine, caller, epoch, txn) {
                Some(answer) => answer,
                None => return,
            },
            Ask::Abort { txn } => {
                self.abort_staged(machine, txn);
                Ok(Reply::Done)
            }
            Ask::Put { epoch, cluster, record } => {
                match self.put(machine, caller, (epoch, cluster), &record) {
                    Ok(()) => return,
                    Err(error) => Err(error),
                }
            }
            Ask::Fetch { epoch, record, sources } => {
                match self.fetch(machine, FetchJob { caller, epoch, record, sources }) {
                    Ok(()) => return,
                    Err(error) => Err(error),
                }
            }
            Ask::Inventory => {
                Ok(Reply::Listed(self.machines[machine].disk.copies.keys().copied().collect()))
            }
            Ask::Remove { epoch, segments } => self.remove(machine, epoch, &segments),
            Ask::Read { epoch, segment } => self.admits(machine, epoch).and_then(|()| {
                match self.machines[machine].disk.is_good(segment) {
                    true => Ok(Reply::Rows(self.oracle.contents[&segment].clone())),
                    false => Err(unavailable("the copy here is missing or bad")),
                }
            }),
            Ask::Register(_) | Ask::Heartbeat { .. } | Ask::Run(_) | Ask::Query => return,
        };
        self.answer(node, caller, answer);
    }

    fn remove(
        &mut self,
        machine: usize,
        epoch: Epoch,
        segments: &[SegmentId],
    ) -> Result<Reply, SqlError> {
        self.admits(machine, epoch)?;
        for segment in segments {
            if self.has_staged(machine, *segment) {
                self.seen.note("garbage: kept by a worker's staging");
            } else if self.machines[machine].disk.remove(*segment, self.now) {
                self.tell(|| format!("{} removes {segment}", self.machines[machine].worker));
                self.seen.note("garbage: removed");
                self.check_removal(machine, *segment);
            }
        }
        Ok(Reply::Done)
    }

    fn fetch(&mut self, machine: usize, job: FetchJob) -> Result<(), SqlError> {
        self.admits(machine, job.epoch)?;
        let segment = job.record.segment;
        if self.machines[machine].disk.is_good(segment) {
            self.sync_fetched(machine, job.caller, segment, 0);
            return Ok(());
        }
        self.next_source(machine, job);
        Ok(())
    }

    fn sync_fetched(&mut self, machine: usize, caller: Caller, segment: SegmentId, bytes: u64) {
        let (delay, run) = (self.random.between(1, 400), self.machines[machine].runs);
        self.after(delay, Event::Worker(machine, run, Duty::FetchSynced(caller, segment, bytes)));
    }

    fn next_source(&mut self, machine: usize, mut job: FetchJob) {
        if job.sources.is_empty() {
            let error = SqlError::new(ErrorCode::DataCorrupted, "no worker has a good copy");
            self.answer(Node::Machine(machine), job.caller, Err(error));
            return;
        }
        let (source, port) = job.sources.remove(0);
        let read = Ask::Read { epoch: job.epoch, segment: job.record.segment };
        let to = Address::Worker(source, port);
        let call = self.ask(Node::Machine(machine), to, read, ANSWER_WITHIN);
        let Some(process) = &mut self.machines[machine].process else { return };
        process.fetches.insert(call.0, job);
        process.calls.insert(call, Waiting::Source(call.0));
    }

    fn source_answers(&mut self, machine: usize, job: u64, answer: Result<Reply, SqlError>) {
        let Machine { disk, process: Some(process), .. } = &mut self.machines[machine] else {
            return;
        };
        let Some(job) = process.fetches.remove(&job) else { return };
        if answer.is_err() {
            self.next_source(machine, job);
            return;
        }
        let segment = job.record.segment;
        if !disk.is_good(segment) {
            disk.write(segment);
        }
        self.sync_fetched(machine, job.caller, segment, job.record.bytes);
    }
}

/// Where a worker listens.
pub(super) fn url_of(port: u16) -> url::Url {
    format!("http://127.0.0.1:{port}").parse().unwrap()
}

pub(super) fn versions() -> Versions {
    Versions { binary: "simulated".to_owned(), protocol: 1 }
}
