//! The steps of repair: copies made, mended and forgotten.
//!
//! A copy that is under way is a task here; what it did is committed in the round after it ended. A
//! coordinator that restarts has forgotten both, and the next plan finds what is there.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use basalt_storage::ids::{SegmentId, TableId, WorkerId};
use tokio::task::JoinHandle;

use super::garbage::Garbage;

/// Repairs that ended and are remembered.
const ENDED_MAX: usize = 1_000;

/// How a repair is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepairState {
    /// Bytes are being copied.
    Running,
    /// The copy is there.
    Done,
    /// It failed; the next round tries again.
    Failed(String),
}

/// One copy that was made or mended.
#[derive(Debug, Clone)]
pub struct RepairRun {
    /// The table.
    pub table: TableId,
    /// The segment.
    pub segment: SegmentId,
    /// The worker that gets the copy.
    pub worker: WorkerId,
    /// Why.
    pub reason: String,
    /// When it began.
    pub started: SystemTime,
    /// How long it took, once it is over.
    pub elapsed_ms: Option<u64>,
    /// Bytes that were copied, once it is over.
    pub bytes: u64,
    /// How it is doing.
    pub state: RepairState,
}

/// What a worker said of a copy.
pub(super) type Fetched = Result<u64, String>;

/// A copy that is under way.
#[derive(Debug)]
pub(super) struct Running {
    run: RepairRun,
    began: Instant,
    task: JoinHandle<Fetched>,
}

/// All that repair knows beside the catalog: what is under way, and what was found bad.
#[derive(Debug, Default)]
pub(super) struct Copies {
    running: HashMap<(SegmentId, WorkerId), Running>,
    ended: VecDeque<RepairRun>,
    /// Copies that a holder lacks, or has bad ones of.
    pub(super) bad: HashSet<(WorkerId, SegmentId)>,
    pub(super) garbage: Garbage,
    /// Until when bytes that were asked for take, at the rate that is allowed.
    paid_until: Option<Instant>,
}

impl Copies {
    /// Running copies, then ended ones, the newest first.
    pub(super) fn list(&self) -> Vec<RepairRun> {
        let running = self.running.values().map(|running| running.run.clone());
        running.chain(self.ended.iter().rev().cloned()).collect()
    }

    /// Segments that are being copied to a worker.
    pub(super) fn coming_to(&self, worker: WorkerId) -> HashSet<SegmentId> {
        let coming = self.running.keys().filter(|(_, to)| *to == worker);
        coming.map(|(segment, _)| *segment).collect()
    }

    /// What is under way.
    pub(super) fn under_way(&self) -> impl Iterator<Item = (SegmentId, WorkerId)> + '_ {
        self.running.keys().copied()
    }

    /// Whether bytes may be asked for now; the time for them is taken when they are.
    pub(super) fn may_start(&mut self, bytes: u64, bytes_per_second: u64, now: Instant) -> bool {
        let paid_until = self.paid_until.unwrap_or(now).max(now);
        if paid_until > now + Duration::from_secs(1) {
            return false;
        }
        let takes = Duration::from_secs_f64(bytes as f64 / bytes_per_second.max(1) as f64);
        self.paid_until = Some(paid_until + takes);
        true
    }

    /// Notes a copy that begins.
    pub(super) fn start(&mut self, run: RepairRun, task: JoinHandle<Fetched>) {
        let key = (run.segment, run.worker);
        let running = Running { run, began: Instant::now(), task };
        if let Some(older) = self.running.insert(key, running) {
            older.task.abort();
        }
    }

    /// Ends copies to workers that are none of `good` any more.
    pub(super) fn abandon(&mut self, good: impl Fn(&WorkerId) -> bool) {
        let lost: Vec<_> = self.running.keys().filter(|(_, to)| !good(to)).copied().collect();
        for key in lost {
            if let Some(running) = self.running.remove(&key) {
                running.task.abort();
                self.end(running, Err("the worker was lost".to_owned()));
            }
        }
    }

    /// Takes what has ended since: each copy that is there now.
    pub(super) async fn take_done(&mut self) -> Vec<RepairRun> {
        let ended: Vec<_> =
            self.running.iter().filter(|(_, r)| r.task.is_finished()).map(|(k, _)| *k).collect();
        let mut done = Vec::new();
        for key in ended {
            let Some(mut running) = self.running.remove(&key) else { continue };
            // It is finished, so this does not wait.
            let fetched = (&mut running.task).await.unwrap_or_else(|error| Err(error.to_string()));
            let run = self.end(running, fetched);
            if run.state == RepairState::Done {
                self.bad.remove(&(run.worker, run.segment));
                done.push(run);
            }
        }
        done
    }

    fn end(&mut self, running: Running, fetched: Fetched) -> RepairRun {
        let Running { mut run, began, .. } = running;
        run.elapsed_ms = Some(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        match fetched {
            Ok(bytes) => (run.bytes, run.state) = (bytes, RepairState::Done),
            Err(error) => {
                tracing::warn!(segment = %run.segment, worker = %run.worker, error,
                    "a copy could not be made");
                run.state = RepairState::Failed(error);
            }
        }
        if self.ended.len() == ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(run.clone());
        run
    }
}
