//! One coordinator of a simulation: its own copy of the log, and the ledger of this run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use basalt_coordinator::catalog::ledger::{Ledger, Opening, Run, Timing};
use basalt_coordinator::catalog::record::{Mark, command};
use basalt_coordinator::catalog::{Change, Command, NewCluster, State};
use basalt_storage::command_log::{Chain, RawRecord};
use basalt_storage::ids::{CoordinatorId, LogWriter, TxnId};

/// Who waits for a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// A client, with the number of its write.
    Client(u64),
    /// A worker that registers.
    Worker,
}

/// The own copy: each write is there whole or not, as redb makes it.
#[derive(Debug, Clone)]
pub(super) struct LocalLog {
    pub(super) own: CoordinatorId,
    pub(super) records: Vec<Arc<[u8]>>,
    pub(super) committed: Mark,
}

impl LocalLog {
    /// A new cluster's.
    pub(super) fn found(own: CoordinatorId) -> Self {
        let changes = vec![
            Change::CreateCluster(NewCluster::generate()),
            Change::CreateSchema { name: "public".to_owned() },
        ];
        let founding = Command::new(TxnId::generate(), 0, changes);
        let payload = serde_json::to_vec(&founding).unwrap();
        let mut state = State::new();
        state.apply(founding).unwrap();
        let mut chain = Chain::start();
        let record = chain.append(state.epoch(), state.log_epoch(), &payload).unwrap();
        let records = vec![record.into()];
        Self { own, records, committed: Mark::at(chain) }
    }

    /// Reads and checks everything, as opening a catalog does.
    pub(super) fn replay(&self) -> (State, Chain) {
        self.replay_to(u64::MAX)
    }

    /// Whether nobody else is known to have a say.
    pub(super) fn is_alone(&self) -> bool {
        self.replay_to(self.committed.seq).0.log_sets().is_alone()
    }

    fn replay_to(&self, last: u64) -> (State, Chain) {
        let (mut state, mut chain) = (State::new(), Chain::start());
        for (seq, bytes) in (1..=last).zip(&self.records) {
            let raw = RawRecord::decode(seq, bytes).unwrap();
            chain.follow(seq, &raw).unwrap();
            state.apply(command(&raw).unwrap()).unwrap();
            assert_eq!((state.epoch(), state.log_epoch()), (raw.epoch, raw.log_epoch));
        }
        (state, chain)
    }

    pub(super) fn run(&self, after: u64) -> Run {
        let hash = match after {
            0 => Chain::start().hash,
            _ => basalt_storage::digest::Digest::of(&self.records[after as usize - 1]),
        };
        // Few at a time, so that a member that lags is filled in steps.
        let records = self.records.iter().skip(after as usize).take(3).cloned().collect();
        Run { hash, records }
    }
}

/// A write of the own copy that is not done yet.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) records: Vec<Arc<[u8]>>,
    pub(super) committed: Mark,
}

#[derive(Debug)]
pub(super) struct Coordinator {
    pub(super) log: LocalLog,
    /// `None` while it is down.
    pub(super) ledger: Option<Ledger<Token>>,
    /// Which run: messages to earlier ones come to nobody.
    pub(super) incarnation: u64,
    pub(super) writing: Option<Writing>,
    /// Stopped in the middle of whatever it did, until then.
    pub(super) paused: bool,
    /// What came while it was paused.
    pub(super) held: Vec<super::world::Event>,
    /// Its disk is lost for good.
    pub(super) is_gone: bool,
    /// The last record that was acknowledged when it started.
    pub(super) floor: u64,
    /// Up to where readers have seen that chain in this run.
    pub(super) shown: u64,
    /// Hash of each record of the chain it has shown or may show.
    pub(super) hashes: BTreeMap<u64, basalt_storage::digest::Digest>,
}

impl Coordinator {
    pub(super) fn new(log: LocalLog) -> Self {
        Self {
            log,
            ledger: None,
            incarnation: 0,
            writing: None,
            paused: false,
            held: Vec::new(),
            is_gone: false,
            floor: 0,
            shown: 0,
            hashes: BTreeMap::new(),
        }
    }

    /// Opens the own copy. Returns what is in its snapshots at once, and whether readers may see it.
    pub(super) fn start(&mut self, writer: LogWriter, now: Duration) -> (Chain, bool) {
        let (state, chain) = self.log.replay();
        let is_whole = state.log_sets().is_alone() || self.log.committed == Mark::at(chain);
        let shown = match is_whole {
            true => chain,
            // Without a mark the founding is known, as in `Log::open`.
            false => self.log.replay_to(self.log.committed.seq.max(1)).1,
        };
        let committed = if is_whole { Mark::at(chain) } else { Mark::at(shown) };
        let opening =
            Opening { own: self.log.own, writer, state, chain, committed: Some(committed) };
        self.ledger = Some(Ledger::new(opening, Timing::default(), now));
        self.incarnation += 1;
        self.shown = 0;
        (shown, is_whole)
    }

    pub(super) fn crash(&mut self) {
        (self.ledger, self.writing, self.paused) = (None, None, false);
        self.held.clear();
    }
}
