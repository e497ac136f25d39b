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
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Reconciler;
use super::copies::{Copies, FetchFailed, Fetched};
use super::standing::Standing;

/// Copies of one worker that are checked in a round, one after the other: enough that short rounds
/// do not stretch a pass, and few enough that their results are not long in coming.
const CHECKS_MAX: usize = 64;
/// The longest time that is made good for at once: what was not read while nobody could is not read
/// in a rush.
const CREDITED_MAX: Duration = Duration::from_secs(10);

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

/// What is known of a copy after its check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    Good,
    /// There is no good copy to mend it from.
    Bad,
    /// The worker could not say.
    Unknown,
}

/// Checks of some copies, one after the other, until one cannot be made.
#[derive(Debug)]
struct Batch {
    /// The copies, and how many of them are answered.
    due: Vec<Arc<SegmentRecord>>,
    answered: usize,
    /// Answers in this order.
    answers: mpsc::Receiver<Fetched>,
    task: JoinHandle<()>,
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The check of one worker's copies.
#[derive(Debug)]
struct Pass {
    state: ScrubState,
    began: Instant,
    /// The copy that was answered last, and the bytes of all until then.
    cursor: Option<SegmentId>,
    bytes: u64,
    /// Bytes that may be read beyond what is, as of when.
    credit: f64,
    credited: Instant,
    running: Option<Batch>,
}

/// The copies of one worker.
#[derive(Debug, Default)]
struct Held {
    segments: BTreeMap<SegmentId, Arc<SegmentRecord>>,
    bytes: u64,
}

/// The checks of all workers.
#[derive(Debug, Default)]
pub(crate) struct Scrubs {
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
    pub(crate) fn see(&mut self, snapshot: &Snapshot) {
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

    fn pass(&mut self, worker: WorkerId, now: Instant) -> &mut Pass {
        self.passes.entry(worker).or_insert_with(|| Pass::new(worker, now))
    }

    /// The copies of a worker to check now; none while others are being checked.
    pub(crate) fn due(
        &mut self,
        worker: WorkerId,
        every: Duration,
        now: Instant,
    ) -> Vec<Arc<SegmentRecord>> {
        let nothing = Held::default();
        let held = self.held.get(&worker).unwrap_or(&nothing);
        let pass = self.passes.entry(worker).or_insert_with(|| Pass::new(worker, now));
        pass.due(held, every, now)
    }

    /// What a check of one of a worker's copies found.
    #[cfg(test)]
    pub(crate) fn note(
        &mut self,
        worker: WorkerId,
        segment: SegmentKey,
        answer: Fetched,
    ) -> Option<Finding> {
        let record = self.held.get(&worker)?.segments.get(&segment.segment)?;
        Some(self.passes.get_mut(&worker)?.take(record, answer, true))
    }
}

impl Copies {
    /// Notes what is known of a copy after its check.
    pub(crate) fn note_finding(&mut self, worker: WorkerId, segment: SegmentKey, found: Finding) {
        match found {
            Finding::Good => self.note_good(worker, segment),
            Finding::Bad => self.note_missing(worker, std::iter::once(segment)),
            Finding::Unknown => {}
        }
    }
}

impl Pass {
    fn new(worker: WorkerId, began: Instant) -> Self {
        let (passes, checked, mended, failed) = (0, 0, 0, 0);
        let state = ScrubState { worker, passes, last_ended: None, checked, mended, failed };
        Self { state, began, cursor: None, bytes: 0, credit: 0.0, credited: began, running: None }
    }

    /// Takes what was answered since the last round.
    fn take_answers(&mut self) -> Vec<(SegmentKey, Finding)> {
        let Some(mut batch) = self.running.take() else { return vec![] };
        // Asked first: all that it sends is there once it is over.
        let is_over = batch.task.is_finished();
        let mut findings = Vec::new();
        while let Ok(answer) = batch.answers.try_recv() {
            let Some(record) = batch.due.get(batch.answered) else { break };
            findings.push((record.key(), self.take(record, answer, batch.answered == 0)));
            batch.answered += 1;
        }
        self.running = (!is_over).then_some(batch);
        findings
    }

    /// Takes one answer, the first of a batch or a later one.
    fn take(&mut self, record: &SegmentRecord, answer: Fetched, is_first: bool) -> Finding {
        let finding = self.note(record.key(), answer);
        // What cannot be checked is tried once more, as the first of the next batch.
        if finding != Finding::Unknown || is_first {
            self.cursor = Some(record.segment);
            self.bytes = self.bytes.saturating_add(record.bytes);
        }
        finding
    }

    fn note(&mut self, segment: SegmentKey, answer: Fetched) -> Finding {
        let (finding, is_mended) = match answer {
            Ok(bytes) => (Finding::Good, bytes > 0),
            Err(FetchFailed { no_good_copy: false, .. }) => return Finding::Unknown,
            Err(FetchFailed { message: error, .. }) => {
                tracing::error!(%segment, worker = %self.state.worker, error,
                    "a copy that was checked is bad and cannot be mended");
                (Finding::Bad, false)
            }
        };
        self.state.checked += 1;
        self.state.mended += u64::from(is_mended);
        self.state.failed += u64::from(finding == Finding::Bad);
        finding
    }

    /// The next copies to check: as large a part of all bytes as has passed of the time for a pass.
    /// Where that is much, because copies were added or the worker was away, it is caught up with
    /// at twice the pace, and not at once: others want to read, too.
    fn due(&mut self, held: &Held, every: Duration, now: Instant) -> Vec<Arc<SegmentRecord>> {
        let of_a_pass = |time: Duration| time.as_secs_f64() / every.as_secs_f64();
        let (all, part) = (held.bytes as f64, of_a_pass(now.duration_since(self.began)));
        let since = now.duration_since(self.credited).min(CREDITED_MAX);
        (self.credit, self.credited) = (self.credit + 2.0 * all * of_a_pass(since), now);
        self.credit = self.credit.min(2.0 * all * of_a_pass(CREDITED_MAX));
        let mut due = Vec::new();
        if self.running.is_some() {
            return due;
        }
        let (after, mut bytes) =
            (self.cursor.map_or(Bound::Unbounded, Bound::Excluded), self.bytes);
        for record in held.segments.range((after, Bound::Unbounded)).map(|(_, record)| record) {
            if bytes as f64 > part * all || self.credit < 0.0 || due.len() == CHECKS_MAX {
                return due;
            }
            bytes = bytes.saturating_add(record.bytes);
            self.credit -= record.bytes as f64;
            due.push(Arc::clone(record));
        }
        if due.is_empty() && part >= 1.0 {
            self.state.passes += 1;
            self.state.last_ended = Some(SystemTime::now());
            self.state.checked = 0;
            (self.began, self.bytes, self.cursor) = (now, 0, None);
        }
        due
    }
}

impl Reconciler {
    /// Takes what was checked, and begins the checks that are due.
    pub(super) fn scrub(&self) {
        let snapshot = self.inner.catalog.snapshot();
        let (every, now) = (self.inner.options.scrub_every, Instant::now());
        self.scrubs().see(&snapshot);
        for (worker, standing) in self.standings() {
            let findings = self.scrubs().pass(worker, now).take_answers();
            for (segment, finding) in findings {
                self.copies().note_finding(worker, segment, finding);
            }
            if !matches!(standing, Standing::Good | Standing::Draining) {
                // It may hang.
                self.scrubs().pass(worker, now).running = None;
                continue;
            }
            let due = self.scrubs().due(worker, every, now);
            if !due.is_empty() {
                let batch = self.check(&snapshot, worker, due);
                self.scrubs().pass(worker, now).running = Some(batch);
            }
        }
    }

    /// Checks copies of a worker, one after the other.
    fn check(&self, snapshot: &Snapshot, worker: WorkerId, due: Vec<Arc<SegmentRecord>>) -> Batch {
        let check = |segment: &Arc<SegmentRecord>| {
            let others = segment.holders.iter().copied().filter(|holder| *holder != worker);
            self.fetch(snapshot, segment, &others.collect::<Vec<_>>(), worker)
        };
        let checks: Vec<_> = due.iter().map_while(check).collect();
        let (sender, answers) = mpsc::channel(CHECKS_MAX);
        let task = tokio::spawn(async move {
            for check in checks {
                let answer = check.await;
                let goes_on = answer.as_ref().map_or_else(|error| error.no_good_copy, |_| true);
                if sender.send(answer).await.is_err() || !goes_on {
                    return;
                }
            }
        });
        Batch { due, answered: 0, answers, task }
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
                routed_by: None,
            };
            (segment, Arc::new(record))
        };
        Held { segments: bytes.iter().map(segment).collect(), bytes: bytes.iter().sum() }
    }

    /// A pass over `held`: how many copies are checked in each round, one a second, the first of
    /// them `late` seconds after the pass began.
    fn rounds(held: &Held, every: u64, late: u64, rounds: u64) -> (Vec<usize>, ScrubState) {
        let began = Instant::now();
        let mut pass = Pass::new(WorkerId::generate(), began);
        let every = Duration::from_secs(every);
        let counts = (late..=late + rounds).map(|second| {
            let due = pass.due(held, every, began + Duration::from_secs(second));
            answer(&mut pass, due.clone(), vec![Ok(0); due.len()]);
            due.len()
        });
        (counts.collect(), pass.state)
    }

    /// Has a batch answered.
    fn answer(pass: &mut Pass, due: Vec<Arc<SegmentRecord>>, with: Vec<Fetched>) -> Vec<Finding> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (sender, answers) = mpsc::channel(CHECKS_MAX);
        with.into_iter().for_each(|answer| sender.try_send(answer).unwrap());
        let task = runtime.spawn(async {});
        runtime.block_on(tokio::task::yield_now());
        pass.running = Some(Batch { due, answered: 0, answers, task });
        let findings = pass.take_answers();
        assert!(pass.running.is_none(), "the batch is over");
        findings.into_iter().map(|(_, finding)| finding).collect()
    }

    #[test]
    fn copies_are_spread_over_the_time_of_a_pass_by_their_bytes() {
        let (counts, state) = rounds(&held(&[10; 10]), 10, 0, 11);
        assert_eq!(counts, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 2], "then the next pass begins");
        assert_eq!(state.passes, 1);
    }

    #[test]
    fn a_pass_over_many_copies_takes_no_longer() {
        let (counts, state) = rounds(&held(&[1; 300]), 10, 0, 11);
        assert_eq!(counts.iter().sum::<usize>(), 300);
        assert_eq!(state.passes, 1);
    }

    #[test]
    fn what_is_late_is_caught_up_with_at_twice_the_pace() {
        let (counts, _) = rounds(&held(&[1; 1000]), 1000, 500, 100);
        assert!(counts[0] <= 21, "{counts:?}");
        assert!(counts[1..].iter().all(|count| *count <= 3), "{counts:?}");
        assert!(counts.iter().sum::<usize>() >= 200, "{counts:?}");
    }

    #[test]
    fn copies_without_bytes_are_checked_and_no_copies_are_a_pass() {
        assert_eq!(rounds(&held(&[0, 0]), 10, 0, 1).0.iter().sum::<usize>(), 2);
        assert_eq!(rounds(&held(&[]), 10, 0, 10).1.passes, 1);
    }

    #[test]
    fn what_could_not_be_checked_is_tried_again_and_does_not_stop_the_rest() {
        let (held, every) = (held(&[0; 4]), Duration::from_secs(10));
        let mut pass = Pass::new(WorkerId::generate(), Instant::now());
        let mut next = |with: Vec<Fetched>| {
            let due = pass.due(&held, every, Instant::now());
            (due.len(), answer(&mut pass, due, with), pass.state)
        };
        let gone = || Err(FetchFailed::other("it does not answer"));
        let bad = Err(FetchFailed { no_good_copy: true, message: "rotten".to_owned() });
        let (due, findings, state) = next(vec![Ok(0), gone()]);
        assert_eq!((due, findings), (4, vec![Finding::Good, Finding::Unknown]));
        assert_eq!(state.checked, 1);
        let (due, findings, _) = next(vec![gone()]);
        assert_eq!((due, findings), (3, vec![Finding::Unknown]), "the one that failed comes first");
        let (due, findings, state) = next(vec![bad, Ok(7)]);
        assert_eq!((due, findings), (2, vec![Finding::Bad, Finding::Good]));
        assert_eq!((state.checked, state.failed, state.mended), (3, 1, 1));
    }
}
