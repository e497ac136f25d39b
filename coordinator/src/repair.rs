//! Repair: what to do next so that every segment has its copies where they should be. Pure.
//!
//! ```text
//!  catalog: segments, holders ─┐
//!  placement (desired) ────────┼──▶ plan ──▶ steps, bounded, most urgent first
//!  workers, bad copies,        │             what is lost, and how far we are
//!  copies in flight (observed) ┘
//! ```
//! Level-triggered: a plan follows from what is, not from what happened, so a step that fails, or
//! a process that forgets all its plans, costs one round. No replica has a state that could wedge.
//!
//! Invariants, each checked at every step of a seeded simulation (`repair/tests/simulation.rs`):
//!
//! 1. A copy is made from verified copies only, onto a worker that has none.
//! 2. A holder leaves the record only while enough good copies stay on live workers; the last good
//!    copy never does.
//! 3. A worker that is away for less than the grace time causes no copy.
//! 4. When nothing changes any more, every segment that can be is on its placement after a bounded
//!    number of rounds, and then no step is left.
//!
//! Not here: carrying steps out, judging who is live, and finding bad copies. Whoever carries out
//! a [`Step::Forget`] must do so only if the holders are still those that the plan saw.

use std::collections::{BTreeMap, BTreeSet};

use basalt_storage::ids::WorkerId;
use basalt_storage::layout::SegmentKey;

mod budget;
mod candidates;
mod plan;
#[cfg(test)]
mod tests;
mod work;

pub use plan::plan;

/// A segment as the catalog knows it.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// Which one.
    pub key: SegmentKey,
    /// Bytes of one copy.
    pub bytes: u64,
    /// The workers that are on record with a copy.
    pub holders: &'a [WorkerId],
    /// How many copies its table wants; 0 is taken for 1.
    pub wanted: usize,
    /// Whether every worker should have a copy. Those beyond the ones wanted are a cache: they are
    /// made last, and nothing waits for them.
    pub everywhere: bool,
    /// How often it was read lately, by whatever measure: only the order counts.
    pub heat: u64,
}

/// What can be expected of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkerState {
    /// It answers and can be written to: its copies count, and it may get more.
    Live,
    /// It has not answered for less than the grace time: what it has may come back, so its copies
    /// are neither read nor made again.
    Away,
    /// It has not answered for longer: its copies do not count, but stay on record until there are
    /// enough others, since its disk may still come back.
    Lost,
    /// It is to be emptied: its copies can be read and do not count, and it gets no more.
    Draining,
}

/// A copy that is being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct InFlight {
    /// Of which segment.
    pub segment: SegmentKey,
    /// Who reads it out.
    pub from: WorkerId,
    /// Who will have it.
    pub to: WorkerId,
}

/// How things are.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The workers; one that is not listed counts as lost.
    pub workers: &'a BTreeMap<WorkerId, WorkerState>,
    /// Copies on record that are known to be missing or corrupt. A copy that was made again must
    /// be taken out.
    pub bad: &'a BTreeSet<(WorkerId, SegmentKey)>,
    /// Copies being made.
    pub in_flight: &'a [InFlight],
    /// What workers fail together with, of those that said so.
    pub domains: &'a BTreeMap<WorkerId, String>,
}

/// How much may be done at once: repair yields to queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Steps of one plan.
    pub steps_max: usize,
    /// Copies that one worker receives at a time, those in flight included.
    pub in_flight_per_target_max: usize,
    /// Copies that one worker reads out at a time, those in flight included.
    pub in_flight_per_source_max: usize,
}

impl Default for Limits {
    /// Two at a time in each direction keep a disk and a link busy while one of them waits for the
    /// other end; a plan of 256 steps keeps a hundred workers busy for a round.
    fn default() -> Self {
        Self { steps_max: 256, in_flight_per_target_max: 2, in_flight_per_source_max: 2 }
    }
}

/// Why a copy is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CopyReason {
    /// The segment has fewer copies than it should.
    TooFew,
    /// A worker that is drained has one of its copies.
    Drain,
    /// It has enough, but not where they should be.
    Placement,
    /// It has enough, and belongs on every worker.
    Everywhere,
}

/// Why a holder leaves the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ForgetReason {
    /// There are enough copies where they should be.
    Surplus,
    /// Its copy is bad, and there are enough elsewhere.
    Bad,
    /// It is being drained.
    Drained,
    /// It is lost.
    Lost,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make a copy on a worker that has none.
    Copy {
        /// Of which segment.
        segment: SegmentKey,
        /// Who has a good copy, the least busy first.
        sources: Vec<WorkerId>,
        /// Who gets it.
        to: WorkerId,
        /// What for.
        reason: CopyReason,
    },
    /// Make a copy again that is missing or corrupt on a holder.
    Rebuild {
        /// Of which segment.
        segment: SegmentKey,
        /// The holder.
        worker: WorkerId,
        /// Who has a good copy, the least busy first.
        sources: Vec<WorkerId>,
    },
    /// Take a holder off the record; what it has becomes garbage.
    Forget {
        /// Of which segment.
        segment: SegmentKey,
        /// The holder.
        worker: WorkerId,
        /// What for.
        reason: ForgetReason,
    },
}

/// A segment without a good copy on any worker that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostSegment {
    /// Which one.
    pub segment: SegmentKey,
    /// Holders that do not answer and are not known to have a bad copy: if one of them comes back
    /// with its disk, so does the segment.
    pub may_return_with: Vec<WorkerId>,
}

/// Segments, or copies of them, and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// How many bytes, one copy of each.
    pub bytes: u64,
}

impl Tally {
    fn add(&mut self, count: usize, bytes: u64) {
        self.count += count as u64;
        self.bytes = self.bytes.saturating_add(bytes.saturating_mul(count as u64));
    }
}

/// How far repair is. The first four add up to all segments; they count good copies on workers
/// that answer, drained ones included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Segments with at least as many good copies as wanted.
    pub full: Tally,
    /// Segments with fewer than wanted, and more than one.
    pub degraded: Tally,
    /// Segments with one good copy where more are wanted.
    pub single: Tally,
    /// Segments with none.
    pub lost: Tally,
    /// Copies to be made for segments that have too few, without those in flight.
    pub copies_missing: Tally,
    /// Copies to be made for segments that have enough, without those in flight.
    pub moves: Tally,
}

/// What to do next, and how far we are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The most urgent steps, the most urgent first.
    pub steps: Vec<Step>,
    /// Some of the segments that no step can help, as many as a plan may have steps.
    pub lost: Vec<LostSegment>,
    /// How far we are.
    pub progress: Progress,
}
