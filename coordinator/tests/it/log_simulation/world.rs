//! The simulated world: events in the order of their time, and what must hold at each.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use basalt_coordinator::catalog::ledger::{Answer, Ask, AskFor, Readiness, Step};
use basalt_coordinator::catalog::record::Mark;
use basalt_coordinator::catalog::{CatalogError, Change, Command, Committed};
use basalt_storage::command_log::{Append, Chain, LogCopy};
use basalt_storage::digest::Digest;
use basalt_storage::ids::{CoordinatorId, LogEpoch, LogWriter, TxnId, WorkerId};
use bytes::Bytes;

use super::coordinator::{Coordinator, LocalLog, Token, Writing};
use super::faults::Choices;
use super::log_disk::{Fault, MemDisk};

/// What may go wrong in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Profile {
    /// Crashes, pauses and a bad network. Everything comes back.
    Crashes,
    /// Coordinators lose their disks, too, and are restored from copies.
    LostCoordinators,
    /// Also a copy of a coordinator's disk is started beside it.
    CopiedCoordinators,
    /// Workers lose their disks, too: there may be no way on, but nothing false.
    LostWorkers,
}

impl Profile {
    pub(super) fn of(seed: u64) -> Self {
        match seed % 4 {
            0 => Self::Crashes,
            1 => Self::LostCoordinators,
            2 => Self::CopiedCoordinators,
            _ => Self::LostWorkers,
        }
    }
}

/// What happened in some runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) acknowledged: u64,
    pub(super) unknown: u64,
    pub(super) refused: u64,
    pub(super) reforms: u64,
    pub(super) restores: u64,
    pub(super) restores_refused: u64,
    pub(super) superseded: u64,
    pub(super) worker_crashes: u64,
    pub(super) torn_writes: u64,
    pub(super) coordinator_crashes: u64,
    pub(super) lost_messages: u64,
    pub(super) removals: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.refused += other.refused;
        self.reforms += other.reforms;
        self.restores += other.restores;
        self.restores_refused += other.restores_refused;
        self.superseded += other.superseded;
        self.worker_crashes += other.worker_crashes;
        self.torn_writes += other.torn_writes;
        self.coordinator_crashes += other.coordinator_crashes;
        self.lost_messages += other.lost_messages;
        self.removals += other.removals;
    }

    pub(super) fn check_that_everything_happened(&self) {
        let all = [
            self.acknowledged,
            self.unknown,
            self.refused,
            self.reforms,
            self.restores,
            self.restores_refused,
            self.superseded,
            self.worker_crashes,
            self.torn_writes,
            self.coordinator_crashes,
            self.lost_messages,
            self.removals,
        ];
        assert!(all.iter().all(|count| *count > 0), "{self:?}");
    }
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) disk: MemDisk,
    pub(super) copy: Option<LogCopy>,
    pub(super) is_gone: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Event {
    /// A coordinator looks at the clock.
    Tick {
        coordinator: usize,
        incarnation: u64,
    },
    /// The write of the own copy is done.
    Written {
        coordinator: usize,
        incarnation: u64,
    },
    /// A question reaches a worker.
    Question {
        coordinator: usize,
        incarnation: u64,
        ask: AskFor,
    },
    /// An answer reaches a coordinator.
    Answered {
        coordinator: usize,
        incarnation: u64,
        worker: WorkerId,
        id: u64,
        answer: Answer,
    },
    /// Clients send writes.
    Clients,
    /// Something goes wrong, or right again.
    Fault,
    StartWorker(usize),
    StartCoordinator(usize),
    Resume(usize),
    /// An operator looks after everything healed.
    Operator,
}

/// How long a run goes on with faults, and then without, in seconds of its own time.
const FAULTY_SECONDS: u64 = 60;
const HEALED_SECONDS: u64 = 90;
/// How often coordinators look at the clock.
const TICK_MS: u64 = 100;
/// How long an answer may take.
const ASK_TIMEOUT_MS: u64 = 3000;

pub(super) struct World {
    pub(super) choices: Choices,
    pub(super) profile: Profile,
    pub(super) now: Duration,
    events: BTreeMap<(Duration, u64), Event>,
    next_event: u64,
    pub(super) coordinators: Vec<Coordinator>,
    pub(super) workers: Vec<Worker>,
    /// Links that are cut, one way or both.
    pub(super) cut: BTreeSet<(usize, usize, bool)>,
    pub(super) is_healed: bool,
    next_write: u64,
    /// Acknowledged writes, and where.
    acknowledged: BTreeMap<u64, Mark>,
    /// What any reader saw, and what was acknowledged, by place.
    seen: BTreeMap<u64, Digest>,
    pub(super) counts: Counts,
    /// Whether what happens is told.
    is_told: bool,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut choices = Choices(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1));
        let workers = 1 + choices.below(4) as usize;
        let own = CoordinatorId(choices.id());
        let mut world = Self {
            choices,
            profile: Profile::of(seed),
            now: Duration::ZERO,
            events: BTreeMap::new(),
            next_event: 0,
            coordinators: vec![Coordinator::new(LocalLog::found(own))],
            workers: Vec::new(),
            cut: BTreeSet::new(),
            is_healed: false,
            next_write: 0,
            acknowledged: BTreeMap::new(),
            seen: BTreeMap::new(),
            counts: Counts::default(),
            is_told: std::env::var("BASALT_LOG_SEED").is_ok(),
        };
        for _ in 0..workers {
            world.new_worker();
        }
        world.at(0, Event::StartCoordinator(0));
        world.at(10, Event::Clients);
        world.at(2000, Event::Fault);
        world
    }

    pub(super) fn new_worker(&mut self) {
        let (disk, index) = (MemDisk::default(), self.workers.len());
        let id = WorkerId(self.choices.id());
        self.workers.push(Worker { id, disk, copy: None, is_gone: false });
        let delay = self.choices.below(1500);
        self.at(delay, Event::StartWorker(index));
    }

    /// Something happens so many milliseconds from now.
    pub(super) fn at(&mut self, delay_ms: u64, event: Event) {
        self.next_event += 1;
        let at = self.now + Duration::from_millis(delay_ms);
        self.events.insert((at, self.next_event), event);
    }

    pub(super) fn run(mut self) -> Result<Counts, String> {
        self.run_until(Duration::from_secs(FAULTY_SECONDS))?;
        self.heal();
        let acknowledged = self.acknowledged.len();
        let mut goes_on = false;
        for second in (5..=HEALED_SECONDS).step_by(5) {
            self.run_until(Duration::from_secs(FAULTY_SECONDS + second))?;
            goes_on = self.acknowledged.len() > acknowledged + 3;
            if goes_on {
                break;
            }
        }
        if !goes_on && self.profile != Profile::LostWorkers {
            return Err(format!(
                "after everything healed no commit came through: {}",
                self.state()
            ));
        }
        self.check_end()?;
        self.counts.acknowledged = self.acknowledged.len() as u64;
        Ok(self.counts)
    }

    fn run_until(&mut self, end: Duration) -> Result<(), String> {
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            if self.is_told && !matches!(event, Event::Tick { .. } | Event::Clients) {
                self.note(&format!("{event:?}").chars().take(300).collect::<String>());
            }
            self.happen(event).map_err(|problem| format!("at {:?}: {problem}", self.now))?;
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Tick { coordinator, incarnation }
            | Event::Written { coordinator, incarnation }
            | Event::Answered { coordinator, incarnation, .. } => {
                let it = &mut self.coordinators[coordinator];
                if it.incarnation != incarnation || it.ledger.is_none() {
                    return Ok(());
                }
                if it.paused {
                    it.held.push(event);
                    return Ok(());
                }
                self.coordinate(coordinator, event)
            }
            Event::Question { coordinator, incarnation, ask } => {
                self.question(coordinator, incarnation, ask);
                Ok(())
            }
            Event::Clients => self.clients(),
            Event::Fault => {
                self.fault();
                Ok(())
            }
            Event::StartWorker(index) => {
                self.start_worker(index);
                Ok(())
            }
            Event::StartCoordinator(index) => self.start_coordinator(index),
            Event::Operator => {
                self.operate();
                Ok(())
            }
            Event::Resume(index) => {
                self.coordinators[index].paused = false;
                for event in std::mem::take(&mut self.coordinators[index].held) {
                    self.at(0, event);
                }
                Ok(())
            }
        }
    }

    fn start_worker(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        if worker.copy.is_none() && !worker.is_gone {
            worker.disk = worker.disk.power_on();
            worker.copy = Some(LogCopy::open(std::sync::Arc::new(worker.disk.clone())).unwrap());
        }
    }

    fn start_coordinator(&mut self, index: usize) -> Result<(), String> {
        let now = self.now;
        let it = &mut self.coordinators[index];
        if it.ledger.is_some() || it.is_gone {
            return Ok(());
        }
        let shown = it.start(LogWriter(self.choices.id()), now);
        it.floor = self.acknowledged.values().map(|mark| mark.seq).max().unwrap_or(0);
        let incarnation = it.incarnation;
        self.note_hashes(index);
        self.at(0, Event::Tick { coordinator: index, incarnation });
        // Readers wait when it is not whole, but it is durable.
        let (chain, _is_whole) = shown;
        self.show(index, chain)
    }

    fn note_hashes(&mut self, index: usize) {
        let it = &mut self.coordinators[index];
        it.hashes =
            (1..).zip(&it.log.records).map(|(seq, bytes)| (seq, Digest::of(bytes))).collect();
    }

    /// One thing happens to a running coordinator, and it does what follows from it.
    fn coordinate(&mut self, index: usize, event: Event) -> Result<(), String> {
        let now = self.now;
        let reachable = self.reachable(index);
        let it = &mut self.coordinators[index];
        let Some(ledger) = &mut it.ledger else { return Ok(()) };
        match event {
            Event::Written { .. } => {
                if let Some(Writing { records, committed }) = it.writing.take() {
                    it.log.records.extend(records);
                    it.log.committed = committed;
                    ledger.written(now);
                }
            }
            Event::Answered { worker, id, answer, .. } => ledger.answered(worker, id, answer, now),
            Event::Tick { incarnation, coordinator } => {
                ledger.set_reachable(reachable, now);
                self.at(TICK_MS, Event::Tick { coordinator, incarnation });
            }
            _ => {}
        }
        if let Some(ledger) = &mut self.coordinators[index].ledger {
            ledger.poll(now);
        }
        self.register_workers(index);
        self.do_steps(index)
    }

    /// The workers that a coordinator knows the address of.
    fn reachable(&self, index: usize) -> BTreeSet<WorkerId> {
        let is_known = |(at, worker): &(usize, &Worker)| {
            worker.copy.is_some() && !self.cut.contains(&(index, *at, true))
        };
        self.workers.iter().enumerate().filter(is_known).map(|(_, worker)| worker.id).collect()
    }

    fn register_workers(&mut self, index: usize) {
        let (now, reachable) = (self.now, self.reachable(index));
        let Some(ledger) = &mut self.coordinators[index].ledger else { return };
        if !matches!(ledger.readiness(now), Readiness::Ready) {
            return;
        }
        let known = ledger.state().cluster().unwrap().workers.clone();
        let mut any = false;
        for worker in reachable.difference(&known) {
            let changes = vec![Change::RegisterWorker { worker: *worker }];
            let command = Command::new(TxnId::generate(), 0, changes);
            let payload = serde_json::to_vec(&command).unwrap();
            ledger.commit(command, &payload, Token::Worker);
            any = true;
        }
        if any {
            ledger.begin_group(now);
        }
    }

    /// Somebody changes something, if the coordinator takes it.
    pub(super) fn change(&mut self, index: usize, change: Change) {
        let now = self.now;
        let Some(ledger) = &mut self.coordinators[index].ledger else { return };
        if matches!(ledger.readiness(now), Readiness::Ready) {
            let command = Command::new(TxnId::generate(), 0, vec![change]);
            let payload = serde_json::to_vec(&command).unwrap();
            ledger.commit(command, &payload, Token::Worker);
            ledger.begin_group(now);
        }
    }

    pub(super) fn do_steps(&mut self, index: usize) -> Result<(), String> {
        loop {
            let it = &mut self.coordinators[index];
            let incarnation = it.incarnation;
            let Some(step) = it.ledger.as_mut().and_then(|ledger| ledger.next_step()) else {
                return Ok(());
            };
            match step {
                Step::Write { records, chain, committed } => {
                    assert!(it.writing.is_none(), "two writes at once");
                    let first = chain.seq - records.len() as u64 + 1;
                    for (seq, bytes) in (first..).zip(&records) {
                        it.hashes.insert(seq, Digest::of(bytes));
                    }
                    it.writing = Some(Writing { records, committed });
                    let delay = 1 + self.choices.below(8);
                    self.at(delay, Event::Written { coordinator: index, incarnation });
                }
                Step::Ask(ask) => self.send(index, incarnation, ask),
                Step::Publish => {
                    let ledger = it.ledger.as_ref().unwrap();
                    let (chain, version) = (ledger.chain(), ledger.state().version());
                    if version > it.log.records.len() as u64 {
                        return Err(format!(
                            "coordinator {index} shows record {version}, which is on no disk"
                        ));
                    }
                    self.check_durable(index, chain)?;
                    self.show(index, chain)?;
                    // What a paused one shows when it wakes up may be old, but not what it shows of
                    // the time before it was started.
                    let floor = self.coordinators[index].floor;
                    if floor > chain.seq {
                        return Err(format!(
                            "coordinator {index} shows {} after {floor}",
                            chain.seq
                        ));
                    }
                }
                Step::Reply(token, result) => self.replied(index, token, result)?,
            }
        }
    }

    fn send(&mut self, index: usize, incarnation: u64, mut ask: AskFor) {
        if let Ask::Append { after, run: run @ None, .. } = &mut ask.ask {
            *run = Some(self.coordinators[index].log.run(*after));
        }
        let (worker, id) = (ask.worker, ask.id);
        let failed = Answer::Failed("no answer in time".to_owned());
        let answer = failed;
        let timeout = Event::Answered { coordinator: index, incarnation, worker, id, answer };
        self.at(ASK_TIMEOUT_MS, timeout);
        for _ in 0..self.copies_of_message() {
            let delay = self.delay();
            self.at(delay, Event::Question { coordinator: index, incarnation, ask: ask.clone() });
        }
    }

    /// A worker does what it is asked, if it is there, and answers.
    fn question(&mut self, index: usize, incarnation: u64, ask: AskFor) {
        let Some(at) = self.workers.iter().position(|worker| worker.id == ask.worker) else {
            return;
        };
        if self.cut.contains(&(index, at, true)) {
            return;
        }
        if !self.is_healed && self.choices.one_in(400) {
            let kept = self.choices.below(300) as usize;
            self.workers[at].disk.fail(Fault::PowerFails(kept));
        }
        let worker = &mut self.workers[at];
        let Some(copy) = &mut worker.copy else { return };
        let done = match ask.ask {
            Ask::Promise => copy.promise(ask.promise).map(|verdict| (verdict, 0)),
            Ask::Append { after, run, committed } => {
                let run = run.unwrap();
                let upto = after + run.records.len() as u64;
                let records = run.records.iter().map(|r| Bytes::copy_from_slice(r)).collect();
                let promise = ask.promise;
                let append = Append { promise, after, hash: run.hash, records, committed };
                copy.append(&append).map(|verdict| (verdict, upto))
            }
            Ask::Read { after } => {
                let records = copy.read(after, 400).unwrap();
                let answer = Answer::Records(records);
                return self.answer(index, incarnation, at, ask.id, answer);
            }
        };
        if worker.disk.is_off() {
            self.counts.torn_writes += 1;
            return self.crash_worker(at);
        }
        let (verdict, upto) = done.unwrap();
        let position = copy.position();
        let answer = Answer::Position { verdict, position, upto };
        self.answer(index, incarnation, at, ask.id, answer);
    }

    fn answer(&mut self, index: usize, incarnation: u64, at: usize, id: u64, answer: Answer) {
        if self.cut.contains(&(index, at, false)) {
            return;
        }
        let worker = self.workers[at].id;
        for _ in 0..self.copies_of_message() {
            let answer = answer.clone();
            let event = Event::Answered { coordinator: index, incarnation, worker, id, answer };
            let delay = self.delay();
            self.at(delay, event);
        }
    }

    fn copies_of_message(&mut self) -> u64 {
        if self.is_healed {
            return 1;
        }
        match self.choices.below(100) {
            0..4 => {
                self.counts.lost_messages += 1;
                0
            }
            4..8 => 2,
            _ => 1,
        }
    }

    fn delay(&mut self) -> u64 {
        match self.choices.below(100) {
            0 if !self.is_healed => self.choices.below(8000),
            1..6 => 20 + self.choices.below(200),
            _ => 1 + self.choices.below(3),
        }
    }

    fn clients(&mut self) -> Result<(), String> {
        let delay = 20 + self.choices.below(if self.is_healed { 3000 } else { 700 });
        self.at(delay, Event::Clients);
        let running: Vec<usize> = (0..self.coordinators.len())
            .filter(|&at| self.coordinators[at].ledger.is_some() && !self.coordinators[at].paused)
            .collect();
        for index in running {
            self.write_some(index)?;
        }
        Ok(())
    }

    fn write_some(&mut self, index: usize) -> Result<(), String> {
        let (now, count) = (self.now, 1 + self.choices.below(3));
        let Some(ledger) = &mut self.coordinators[index].ledger else { return Ok(()) };
        match ledger.readiness(now) {
            Readiness::Busy => return Ok(()),
            Readiness::Refused(_) => {
                self.counts.refused += 1;
                // As the writer does with messages that it refuses.
                ledger.begin_group(now);
                return self.do_steps(index);
            }
            Readiness::Ready => {}
        }
        for _ in 0..count {
            self.next_write += 1;
            // Few names, so that states stay small; every second write drops what the first made.
            let name = format!("s{}", self.next_write % 5);
            let has = ledger.state().snapshot(&BTreeMap::new()).unwrap();
            let change = match has.schemas.contains_key(&name) {
                true => Change::DropSchema { name },
                false => Change::CreateSchema { name },
            };
            let command = Command::new(TxnId::generate(), self.next_write, vec![change]);
            let payload = serde_json::to_vec(&command).unwrap();
            ledger.commit(command, &payload, Token::Client(self.next_write));
        }
        ledger.begin_group(now);
        self.do_steps(index)
    }

    fn replied(
        &mut self,
        index: usize,
        token: Token,
        result: Result<Committed, CatalogError>,
    ) -> Result<(), String> {
        let Token::Client(number) = token else { return Ok(()) };
        match result {
            Ok(committed) => {
                let hash = self.coordinators[index].hashes[&committed.version];
                let mark = Mark { seq: committed.version, hash };
                self.acknowledged.insert(number, mark);
                self.see(index, mark)
            }
            Err(CatalogError::OutcomeUnknown { .. }) => {
                self.counts.unknown += 1;
                Ok(())
            }
            Err(_) => Ok(()),
        }
    }

    /// Readers of a coordinator see its chain.
    fn show(&mut self, index: usize, chain: Chain) -> Result<(), String> {
        let it = &mut self.coordinators[index];
        let fresh = (it.shown + 1).min(chain.seq)..=chain.seq;
        it.shown = chain.seq;
        for (seq, hash) in it.hashes.range(fresh) {
            let mark = Mark { seq: *seq, hash: *hash };
            if let Some(other) = self.seen.insert(mark.seq, mark.hash)
                && other != mark.hash
            {
                return Err(format!("coordinator {index} shows another record {seq}"));
            }
        }
        if let Some(ledger) = &it.ledger
            && let Some(reason) = ledger.superseded()
        {
            return Err(format!("coordinator {index} shows something and is superseded: {reason}"));
        }
        Ok(())
    }

    /// What is published is on enough disks, of those that can be looked at.
    fn check_durable(&self, index: usize, chain: Chain) -> Result<(), String> {
        let it = &self.coordinators[index];
        let Some(ledger) = &it.ledger else { return Ok(()) };
        let has = |worker: WorkerId| {
            let found = self.workers.iter().find(|other| other.id == worker);
            // One that is down, or lost its disk since it answered, is not asked.
            let copy = found.and_then(|worker| worker.copy.as_ref());
            copy.is_none_or(|copy| copy.position().tail.seq >= chain.seq)
        };
        match ledger.state().log_sets().is_durable(it.log.own, has) {
            true => Ok(()),
            false => Err(format!("coordinator {index} shows {}, which is not durable", chain.seq)),
        }
    }

    fn see(&mut self, index: usize, mark: Mark) -> Result<(), String> {
        match self.seen.insert(mark.seq, mark.hash) {
            Some(other) if other != mark.hash => {
                Err(format!("coordinator {index} acknowledges another record {}", mark.seq))
            }
            _ => Ok(()),
        }
    }

    /// Everything that was acknowledged or seen, in one log.
    pub(super) fn check_has_everything(
        &self,
        records: &[std::sync::Arc<[u8]>],
    ) -> Result<(), String> {
        for (seq, hash) in &self.seen {
            match records.get(*seq as usize - 1) {
                Some(bytes) if Digest::of(bytes) == *hash => {}
                Some(_) => return Err(format!("record {seq}, which was seen, is another one")),
                None => return Err(format!("record {seq}, which was seen, is lost")),
            }
        }
        Ok(())
    }

    fn newest_epoch(&self) -> LogEpoch {
        let epochs = self.coordinators.iter().filter_map(|it| it.ledger.as_ref());
        epochs.map(|ledger| ledger.state().log_epoch()).max().unwrap_or(LogEpoch(0))
    }

    /// The log of whoever leads at the end has everything, however long it is.
    fn check_end(&self) -> Result<(), String> {
        for it in &self.coordinators {
            let leads = it.ledger.as_ref().is_some_and(|ledger| {
                ledger.is_leading() && ledger.is_settled() && !ledger.state().log_sets().is_alone()
            });
            let is_last = it.ledger.as_ref().is_some_and(|ledger| {
                ledger.state().log_epoch() == self.newest_epoch() && ledger.superseded().is_none()
            });
            if leads && is_last {
                self.check_has_everything(&it.log.records)?;
            }
        }
        Ok(())
    }

    /// Tells of a single seed what happens.
    #[expect(clippy::print_stdout, reason = "what happened, for who asks for a seed")]
    pub(super) fn note(&self, what: &str) {
        if self.is_told {
            println!("{:>9.3} s: {what}", self.now.as_secs_f64());
        }
    }

    pub(super) fn state(&self) -> String {
        let coordinators = self.coordinators.iter().map(|it| match &it.ledger {
            Some(ledger) => format!(
                "{} at {:?}, paused {}, sets {:?}: {}",
                it.log.own,
                ledger.chain().seq,
                it.paused,
                ledger.state().log_sets(),
                ledger.superseded().map_or_else(|| ledger.missing(), str::to_owned)
            ),
            None => format!("{} down, gone {}", it.log.own, it.is_gone),
        });
        let coordinators: Vec<_> = coordinators.collect();
        let workers = self.workers.iter().map(|worker| {
            let position = worker.copy.as_ref().map(|copy| copy.position());
            format!("{} {position:?} gone {}", worker.id, worker.is_gone)
        });
        format!("{coordinators:#?} {:#?}", workers.collect::<Vec<_>>())
    }
}
