//! Reading every copy again, so that damage is found while there is another copy to mend it from.
//!
//! Each worker's copies are checked one after the other, in the order of their ids, at the pace at
//! which all of them are through within a configured time. To check a copy is to ask its holder for
//! it with the other holders as sources, as repair does: what is good is read and left alone, what is
//! not is mended at once. A pass that a restart of the coordinator interrupts begins anew.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
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
use super::standing::Standing;

/// Copies of one worker that are checked in a round, one after the other: enough that short rounds
/// do not stretch a pass, and few enough that their results are not long in coming.
const CHECKS_MAX: usize = 64;

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

/// What came of some checks, in their order.
type Checked = Vec<(SegmentKey, Fetched)>;

/// What is known of a copy after its check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
    Good,
    /// There is no good copy to mend it from.
    Bad,
    /// The worker could not say.
    Unknown,
}

/// The check of one worker's copies.
#[derive(Debug)]
struct Pass {
    state: ScrubState,
    began: Instant,
    /// Bytes of the copies that this pass has come to.
    bytes: u64,
    /// The copy that it came to last.
    cursor: Option<SegmentId>,
    running: Option<JoinHandle<Checked>>,
}

/// The copies of one worker.
#[derive(Debug, Default)]
struct Held {
    segments: BTreeMap<SegmentId, Arc<SegmentRecord>>,
    bytes: u64,
}

/// The checks of all workers.
#[derive(Debug, Default)]
pub(super) struct Scrubs {
    passes: HashMap<WorkerId, Pass>,
    /// Who has what at a commit: kept, as most rounds find the same one.
    held: HashMap<WorkerId, Held>,
    held_at: Option<u64>,
}

impl Scrubs {
    pub(super) fn list(&self) -> Vec<ScrubState> {
        let by_worker: BTreeMap<_, _> =
            self.passes.values().map(|pass| (pass.state.worker, pass.state)).collect();
        by_worker.into_values().collect()
    }

    /// Notes who has what.
    fn see(&mut self, snapshot: &Snapshot) {
        if self.held_at == Some(snapshot.version) {
            return;
        }
        self.held_at = Some(snapshot.version);
        self.held.clear();
        for segment in snapshot.segments() {
            for holder in &segment.holders {
                let held = self.held.entry(*holder).or_default();
                held.segments.insert(segment.segment, Arc::clone(segment));
                held.bytes = held.bytes.saturating_add(segment.bytes);
            }
        }
    }

    /// The results of checks that are over, and the copies that are due next; `None` while checks
    /// are under way.
    fn turn(
        &mut self,
        worker: WorkerId,
        every: Duration,
        now: Instant,
    ) -> Option<(Vec<(SegmentKey, Finding)>, Vec<Arc<SegmentRecord>>)> {
        let pass = self.passes.entry(worker).or_insert_with(|| Pass::new(worker, now));
        let findings = pass.take_ended()?;
        let nothing = Held::default();
        let held = self.held.get(&worker).unwrap_or(&nothing);
        let due = std::iter::from_fn(|| pass.next(held, every, now)).take(CHECKS_MAX);
        Some((findings, due.collect()))
    }
}

impl Pass {
    fn new(worker: WorkerId, began: Instant) -> Self {
        let (passes, checked, mended, failed) = (0, 0, 0, 0);
        let state = ScrubState { worker, passes, last_ended: None, checked, mended, failed };
        Self { state, began, bytes: 0, cursor: None, running: None }
    }

    /// Notes what came of the checks under way; `None`: they are not over.
    fn take_ended(&mut self) -> Option<Vec<(SegmentKey, Finding)>> {
        let Some(task) = &mut self.running else { return Some(vec![]) };
        // Checks that panicked have checked nothing; the next pass comes by again.
        let checked = task.now_or_never()?.unwrap_or_else(|error| {
            tracing::error!(%error, worker = %self.state.worker, "checks of copies ended");
            vec![]
        });
        self.running = None;
        Some(
            checked
                .into_iter()
                .map(|(segment, found)| (segment, self.note(segment, found)))
                .collect(),
        )
    }

    fn note(&mut self, segment: SegmentKey, found: Fetched) -> Finding {
        self.state.checked += 1;
        match found {
            Ok(bytes) => {
                self.state.mended += u64::from(bytes > 0);
                Finding::Good
            }
            Err(FetchFailed { no_good_copy: false, .. }) => Finding::Unknown,
            Err(FetchFailed { message: error, .. }) => {
                tracing::error!(%segment, worker = %self.state.worker, error,
                    "a copy that was checked is bad and cannot be mended");
                self.state.failed += 1;
                Finding::Bad
            }
        }
    }

    /// The next copy to check, once it is time for it: as large a part of all bytes is checked as
    /// has passed of the time for a pass.
    fn next(&mut self, held: &Held, every: Duration, now: Instant) -> Option<Arc<SegmentRecord>> {
        let part = now.duration_since(self.began).as_secs_f64() / every.as_secs_f64();
        let after = self.cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let Some((segment, record)) = held.segments.range((after, Bound::Unbounded)).next() else {
            if part >= 1.0 {
                self.state.passes += 1;
                self.state.last_ended = Some(SystemTime::now());
                self.state.checked = 0;
                (self.began, self.bytes, self.cursor) = (now, 0, None);
            }
            return None;
        };
        if self.bytes as f64 > part * held.bytes as f64 {
            return None;
        }
        self.bytes = self.bytes.saturating_add(record.bytes);
        self.cursor = Some(*segment);
        Some(Arc::clone(record))
    }
}

impl Reconciler {
    /// Takes what was checked, and begins the checks that are due.
    pub(super) fn scrub(&self) {
        let snapshot = self.inner.catalog.snapshot();
        let (every, now) = (self.inner.options.scrub_every, Instant::now());
        self.scrubs().see(&snapshot);
        for (worker, standing) in self.standings() {
            if !matches!(standing, Standing::Good | Standing::Draining) {
                continue;
            }
            let Some((findings, due)) = self.scrubs().turn(worker, every, now) else { continue };
            for (segment, finding) in findings {
                match finding {
                    Finding::Good => self.copies().note_good(worker, segment),
                    Finding::Bad => self.copies().note_missing(worker, std::iter::once(segment)),
                    Finding::Unknown => {}
                }
            }
            let checks = self.checks(&snapshot, worker, &due);
            if let Some(pass) = self.scrubs().passes.get_mut(&worker).filter(|_| !due.is_empty()) {
                pass.running = Some(checks);
            }
        }
    }

    /// Checks copies of a worker, one after the other.
    fn checks(
        &self,
        snapshot: &Snapshot,
        worker: WorkerId,
        due: &[Arc<SegmentRecord>],
    ) -> JoinHandle<Checked> {
        let check = |segment: &Arc<SegmentRecord>| {
            let others = segment.holders.iter().copied().filter(|holder| *holder != worker);
            let sources: Vec<_> = others.collect();
            Some((segment.key(), self.fetch(snapshot, segment, &sources, worker)?))
        };
        let checks: Vec<_> = due.iter().filter_map(check).collect();
        tokio::spawn(async move {
            let mut checked = Vec::with_capacity(checks.len());
            for (segment, check) in checks {
                checked.push((segment, check.await));
            }
            checked
        })
    }
}

#[cfg(test)]
mod tests {
    use basalt_storage::ids::{SliceId, TableId, TxnId};
    use basalt_storage::manifest::Layout;

    use super::*;

    fn held(bytes: &[u64]) -> Held {
        let segment = |bytes: &u64| {
            let segment = SegmentId::generate();
            let record = SegmentRecord {
                table: TableId(1),
                slice: SliceId(0),
                segment,
                txn: TxnId::generate(),
                layout: Layout::Packed,
                rows: 1,
                row_groups: vec![],
                bytes: *bytes,
                meta_digest: basalt_storage::digest::Digest::of(b""),
                columns: BTreeMap::new(),
                holders: vec![],
                deleted: None,
            };
            (segment, Arc::new(record))
        };
        Held { segments: bytes.iter().map(segment).collect(), bytes: bytes.iter().sum() }
    }

    /// How many copies a pass over `held` has come to, round by round.
    fn rounds(held: &Held, every: u64, rounds: u64) -> (Vec<usize>, ScrubState) {
        let began = Instant::now();
        let mut scrubs = Scrubs::default();
        let worker = WorkerId::generate();
        scrubs.passes.insert(worker, Pass::new(worker, began));
        let pass = scrubs.passes.get_mut(&worker).unwrap();
        let every = Duration::from_secs(every);
        let counts = (0..=rounds).map(|second| {
            let now = began + Duration::from_secs(second);
            std::iter::from_fn(|| pass.next(held, every, now)).take(CHECKS_MAX).count()
        });
        (counts.collect(), scrubs.list()[0])
    }

    #[test]
    fn copies_are_spread_over_the_time_of_a_pass_by_their_bytes() {
        let (counts, state) = rounds(&held(&[10; 10]), 10, 11);
        assert_eq!(counts, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 2], "then the next pass begins");
        assert_eq!(state.passes, 1);
    }

    #[test]
    fn a_pass_over_many_copies_takes_no_longer() {
        let (counts, state) = rounds(&held(&[1; 300]), 10, 10);
        assert_eq!(counts.iter().sum::<usize>(), 300);
        assert_eq!(state.passes, 1);
    }

    #[test]
    fn copies_without_bytes_are_checked_and_no_copies_are_a_pass() {
        assert_eq!(rounds(&held(&[0, 0]), 10, 1).0.iter().sum::<usize>(), 2);
        assert_eq!(rounds(&held(&[]), 10, 10).1.passes, 1);
    }
}
