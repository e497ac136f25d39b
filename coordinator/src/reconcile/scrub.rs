//! Reading every copy again, so that damage is found while there is another copy to mend it from.
//!
//! Each worker's copies are checked one after the other, in the order of their ids, at the pace at
//! which all of them are through within a configured time. To check a copy is to ask its holder for
//! it with the other holders as sources, as repair does: what is good is read and left alone, what is
//! not is mended at once. A pass that a restart of the coordinator interrupts begins anew.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use basalt_engine::snapshot::Snapshot;
use basalt_storage::ids::{SegmentId, WorkerId};
use basalt_storage::layout::SegmentKey;
use basalt_storage::manifest::SegmentRecord;
use futures::FutureExt;
use tokio::task::JoinHandle;

use super::Reconciler;
use super::copies::{FetchFailed, Fetched};
use super::garbage::segments;
use super::standing::Standing;

/// How far the check of one worker's copies is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubState {
    /// The worker.
    pub worker: WorkerId,
    /// Passes that were completed since the coordinator started.
    pub passes: u64,
    /// When the last of them ended.
    pub last_ended: Option<SystemTime>,
    /// Segments of the pass under way that were checked.
    pub checked: u64,
    /// Copies that were found bad and mended, in all passes.
    pub mended: u64,
    /// Copies that were found bad and could not be mended, in all passes.
    pub failed: u64,
}

/// The check of one worker's copies.
#[derive(Debug)]
struct Pass {
    state: ScrubState,
    began: Instant,
    bytes: u64,
    /// The copy that was checked last.
    cursor: Option<SegmentId>,
    running: Option<(SegmentKey, JoinHandle<Fetched>)>,
}

/// The checks of all workers.
#[derive(Debug, Default)]
pub(super) struct Scrubs(HashMap<WorkerId, Pass>);

impl Scrubs {
    pub(super) fn list(&self) -> Vec<ScrubState> {
        let by_worker: BTreeMap<_, _> =
            self.0.values().map(|p| (p.state.worker, p.state)).collect();
        by_worker.into_values().collect()
    }

    fn pass(&mut self, worker: WorkerId) -> &mut Pass {
        self.0.entry(worker).or_insert_with(|| Pass {
            state: ScrubState {
                worker,
                passes: 0,
                last_ended: None,
                checked: 0,
                mended: 0,
                failed: 0,
            },
            began: Instant::now(),
            bytes: 0,
            cursor: None,
            running: None,
        })
    }
}

impl Pass {
    /// Notes what came of the check under way: which copy, and whether it is good now, where that is
    /// known. `None` of the outside: the check is not over.
    fn take_ended(&mut self) -> Option<Option<(SegmentKey, bool)>> {
        let Some((segment, task)) = &mut self.running else { return Some(None) };
        let (segment, ended) = (*segment, task.now_or_never()?);
        self.running = None;
        self.state.checked += 1;
        match ended.unwrap_or_else(|error| Err(FetchFailed::other(error))) {
            Ok(bytes) => {
                self.state.mended += u64::from(bytes > 0);
                Some(Some((segment, true)))
            }
            Err(FetchFailed { no_good_copy: false, .. }) => Some(None),
            Err(FetchFailed { message: error, .. }) => {
                tracing::error!(%segment, worker = %self.state.worker, error,
                    "a copy that was checked is bad and cannot be mended");
                self.state.failed += 1;
                Some(Some((segment, false)))
            }
        }
    }

    /// The next copy to check, once it is time for it: as large a part of all bytes is checked as
    /// has passed of the time for a pass.
    fn next<'a>(
        &mut self,
        held: &'a BTreeMap<SegmentId, &Arc<SegmentRecord>>,
        every: Duration,
        now: Instant,
    ) -> Option<&'a Arc<SegmentRecord>> {
        let all: u64 = held.values().map(|segment| segment.bytes).sum();
        let part = now.duration_since(self.began).as_secs_f64() / every.as_secs_f64();
        let after = match self.cursor {
            Some(cursor) => held.range(cursor..).find(|(segment, _)| **segment != cursor),
            None => held.iter().next(),
        };
        let Some((segment, record)) = after else {
            if part >= 1.0 {
                self.state.passes += 1;
                self.state.last_ended = Some(SystemTime::now());
                self.state.checked = 0;
                (self.began, self.bytes, self.cursor) = (now, 0, None);
            }
            return None;
        };
        if self.bytes as f64 > part * all as f64 {
            return None;
        }
        self.bytes += record.bytes;
        self.cursor = Some(*segment);
        Some(*record)
    }
}

impl Reconciler {
    /// Takes what was checked, and begins the checks that are due: one copy of a worker at a time.
    pub(super) fn scrub(&self) {
        let snapshot = self.inner.catalog.snapshot();
        for (worker, standing) in self.standings() {
            if standing == Standing::Good {
                self.scrub_on(&snapshot, worker);
            }
        }
    }

    fn scrub_on(&self, snapshot: &Snapshot, worker: WorkerId) {
        let mut scrubs = self.scrubs();
        let pass = scrubs.pass(worker);
        match pass.take_ended() {
            None => return,
            Some(None) => {}
            Some(Some((segment, true))) => self.copies().note_good(worker, segment),
            Some(Some((segment, false))) => {
                self.copies().note_missing(worker, std::iter::once(segment));
            }
        }
        let held = segments(snapshot).filter(|segment| segment.holders.contains(&worker));
        let held: BTreeMap<_, _> = held.map(|segment| (segment.segment, segment)).collect();
        let every = self.inner.options.scrub_every;
        if let Some(segment) = pass.next(&held, every, Instant::now()) {
            let sources: Vec<_> =
                segment.holders.iter().copied().filter(|holder| *holder != worker).collect();
            if let Some(task) = self.fetch(snapshot, segment, &sources, worker) {
                pass.running = Some((segment.key(), task));
            }
        }
    }
}
