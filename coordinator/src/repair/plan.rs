//! The plan of a round: what all segments need, the most urgent first, as far as limits allow.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use basalt_storage::ids::WorkerId;
use basalt_storage::layout::SegmentKey;

use super::budget::Budget;
use super::candidates::Candidates;
use super::work::{Case, Work};
use super::{CopyReason, InFlight, Limits, Observed, Plan, Progress, Segment, Step, Tally};
use crate::placement::SliceWorkers;

/// Decides what to do next.
///
/// `desired` says which workers should have the segments of each slice: a table that wants fewer
/// copies uses the first of them, one that wants more uses further workers too. `segments` are
/// looked at once and not kept, but for those that need something.
pub fn plan<'a>(
    segments: impl IntoIterator<Item = Segment<'a>>,
    desired: &SliceWorkers,
    observed: &Observed<'_>,
    limits: Limits,
) -> Plan {
    let mut candidates = Candidates::new(desired, observed);
    let in_flight = by_segment(observed.in_flight);
    let mut plan = Plan::default();
    let mut queue = Vec::new();
    for segment in segments {
        let case = case(segment, observed, &mut candidates, &in_flight);
        if case.is_settled() {
            plan.progress.full.add(1, segment.bytes);
            continue;
        }
        let work = case.work();
        plan.progress.add(&segment, &work);
        if work.sources.is_empty() {
            if plan.lost.len() < limits.steps_max {
                plan.lost.push(case.lost());
            }
        } else if !work.copies.is_empty() || !work.forgets.is_empty() {
            queue.push(Reverse(Urgency::of(segment, &work)));
        }
    }

    // Segments are weighed again when it is their turn: what they need takes more memory than they.
    let mut queue = BinaryHeap::from(queue);
    let mut budget = Budget::new(limits, observed.in_flight);
    while plan.steps.len() < limits.steps_max
        && let Some(Reverse(Urgency { segment, .. })) = queue.pop()
    {
        let work = case(segment, observed, &mut candidates, &in_flight).work();
        plan.steps.extend(steps(&segment, work, &mut budget));
    }
    plan.steps.truncate(limits.steps_max);
    plan
}

/// Copies in flight by what they are of.
type InFlightOf = BTreeMap<SegmentKey, Vec<InFlight>>;

fn case<'a>(
    segment: Segment<'a>,
    observed: &'a Observed<'a>,
    candidates: &'a mut Candidates<'_>,
    in_flight: &'a InFlightOf,
) -> Case<'a> {
    let in_flight = in_flight.get(&segment.key).map_or(&[][..], Vec::as_slice);
    let lost = candidates.lost;
    Case { segment, observed, candidates: candidates.of(segment.key), lost, in_flight }
}

fn by_segment(in_flight: &[InFlight]) -> InFlightOf {
    let mut by_segment = InFlightOf::new();
    for copy in in_flight {
        by_segment.entry(copy.segment).or_default().push(*copy);
    }
    by_segment
}

/// The steps for one segment that limits allow now.
fn steps(segment: &Segment<'_>, work: Work, budget: &mut Budget) -> Vec<Step> {
    let key = segment.key;
    let mut steps = Vec::new();
    for (to, reason) in work.copies {
        let Some(sources) = budget.admit(&work.sources, to) else { continue };
        steps.push(if segment.holders.contains(&to) {
            Step::Rebuild { segment: key, worker: to, sources }
        } else {
            Step::Copy { segment: key, sources, to, reason }
        });
    }
    // A holder that is read from in this very plan goes in a later one.
    let reads = |worker: &WorkerId| {
        steps.iter().any(|step| match step {
            Step::Copy { sources, .. } | Step::Rebuild { sources, .. } => sources.contains(worker),
            Step::Forget { .. } => false,
        })
    };
    let forgets = work.forgets.into_iter().filter(|(worker, _)| !reads(worker));
    let forgets: Vec<Step> =
        forgets.map(|(worker, reason)| Step::Forget { segment: key, worker, reason }).collect();
    steps.extend(forgets);
    steps
}

/// A segment that needs something; what is less is more urgent.
struct Urgency<'a> {
    /// What is missing goes before what is elsewhere, and this before what is nice to have.
    class: CopyReason,
    /// Good copies that can be read.
    copies: usize,
    segment: Segment<'a>,
}

impl<'a> Urgency<'a> {
    fn of(segment: Segment<'a>, work: &Work) -> Self {
        let reasons = work.copies.iter().map(|(_, reason)| match reason {
            CopyReason::Drain => CopyReason::Placement,
            other => *other,
        });
        Self {
            class: reasons.min().unwrap_or(CopyReason::Placement),
            copies: work.sources.len(),
            segment,
        }
    }

    /// Then the hot ones, the small ones, and always in the same order.
    fn key(&self) -> (CopyReason, usize, Reverse<u64>, u64, SegmentKey) {
        let Segment { key, bytes, heat, .. } = self.segment;
        (self.class, self.copies, Reverse(heat), bytes, key)
    }
}

impl PartialEq for Urgency<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Urgency<'_> {}

impl PartialOrd for Urgency<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Urgency<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl Progress {
    /// Counts a segment.
    fn add(&mut self, segment: &Segment<'_>, work: &Work) {
        let tally: &mut Tally = match work.sources.len() {
            0 => &mut self.lost,
            copies if copies >= segment.wanted => &mut self.full,
            1 => &mut self.single,
            _ => &mut self.degraded,
        };
        tally.add(1, segment.bytes);
        for (_, reason) in &work.copies {
            let tally = match reason {
                CopyReason::TooFew => &mut self.copies_missing,
                CopyReason::Drain | CopyReason::Placement | CopyReason::Everywhere => {
                    &mut self.moves
                }
            };
            tally.add(1, segment.bytes);
        }
    }
}
