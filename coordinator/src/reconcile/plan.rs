//! Which copies to make and which to forget: what should be, compared with what is. Pure.
//!
//! ```text
//! should be   the first workers of the segment's slice that live or may come back, as many as
//!             copies are wanted; others where these are too few
//! counts      a copy of a worker that lives and was not found bad; one of a worker that is away
//!             may come back, so nothing is copied for it, and nothing is forgotten on its account
//! ```
//! Invariants, with a simulation below: a copy is made from good ones only; a holder is forgotten
//! only while as many good copies as are wanted lie with workers that live and stay; no worker gets
//! a copy that it has; a cluster in which nothing happens any more comes to rest.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use basalt_storage::ids::{SegmentId, WorkerId};
use basalt_storage::manifest::SegmentRecord;

use super::standing::Standing;
use crate::catalog::CopyMove;

/// What is known beside the segments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Situation<'a> {
    /// How every worker counts.
    pub(super) standings: &'a BTreeMap<WorkerId, Standing>,
    /// The workers of each slice: the owner, then its partners.
    pub(super) slice_workers: &'a [Vec<WorkerId>],
    /// Copies that a holder lacks, or has bad ones of.
    pub(super) bad: &'a HashSet<(WorkerId, SegmentId)>,
    /// Copies that are being made.
    pub(super) under_way: &'a HashSet<(SegmentId, WorkerId)>,
}

/// A copy to make, or to mend where the worker is a holder already.
#[derive(Debug, Clone)]
pub(super) struct Copy {
    pub(super) segment: Arc<SegmentRecord>,
    /// Who has a good copy, the best first.
    pub(super) sources: Vec<WorkerId>,
    pub(super) to: WorkerId,
    pub(super) reason: &'static str,
}

/// What to do next.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Copies, the most urgent first.
    pub(super) copies: Vec<Copy>,
    /// Holders that count no longer.
    pub(super) forget: Vec<CopyMove>,
    /// Segments of which no good copy is known, on workers that live or may come back.
    pub(super) lost: Vec<SegmentId>,
}

/// How urgent a copy is: good copies that there are, then whether it is only a move, then bytes.
type Urgency = (usize, bool, u64);

/// Plans the next steps for some segments, each with the copies that it should have.
pub(super) fn plan<'a>(
    situation: Situation<'_>,
    segments: impl IntoIterator<Item = (&'a Arc<SegmentRecord>, usize)>,
) -> Plan {
    let mut plan = Plan::default();
    let mut copies: Vec<(Urgency, Copy)> = Vec::new();
    for (segment, wanted) in segments {
        let view = View::new(situation, segment, wanted);
        if view.good.is_empty() && view.maybe.is_empty() {
            plan.lost.push(segment.segment);
            continue;
        }
        copies.extend(view.copies());
        let remove = view.forgettable();
        if !remove.is_empty() {
            let (table, segment) = (segment.table, segment.segment);
            plan.forget.push(CopyMove { table, segment, add: vec![], remove });
        }
    }
    copies.sort_by_key(|(urgency, _)| *urgency);
    plan.copies = copies.into_iter().map(|(_, copy)| copy).collect();
    plan
}

/// One segment's copies, by what they are worth.
struct View<'a> {
    situation: Situation<'a>,
    segment: &'a Arc<SegmentRecord>,
    wanted: usize,
    /// Who should have one.
    desired: Vec<WorkerId>,
    /// Good copies that can be read now, those of workers that stay first.
    good: Vec<WorkerId>,
    /// Of those, how many stay.
    staying: usize,
    /// Copies of workers that are away.
    maybe: Vec<WorkerId>,
}

impl<'a> View<'a> {
    fn new(situation: Situation<'a>, segment: &'a Arc<SegmentRecord>, wanted: usize) -> Self {
        let standing = |worker: &WorkerId| situation.standings.get(worker).copied();
        let is_good = |worker: &&WorkerId| !situation.bad.contains(&(**worker, segment.segment));
        let with = |wanted: Standing| {
            let holders = segment.holders.iter().filter(is_good);
            holders.filter(move |holder| standing(holder) == Some(wanted)).copied()
        };
        let mut good: Vec<_> = with(Standing::Good).collect();
        let staying = good.len();
        good.extend(with(Standing::Draining));
        let maybe = with(Standing::Away).collect();
        let desired = desired(situation, segment, wanted);
        Self { situation, segment, wanted, desired, good, staying, maybe }
    }

    fn copies(&self) -> Vec<(Urgency, Copy)> {
        let segment = self.segment.segment;
        let may_take = |worker: &WorkerId| {
            self.situation.standings.get(worker) == Some(&Standing::Good)
                && !self.situation.under_way.contains(&(segment, *worker))
        };
        let copy = |to: WorkerId, is_move: bool, reason: &'static str| {
            let sources = self.good.iter().copied().filter(|source| *source != to).collect();
            let copy = Copy { segment: Arc::clone(self.segment), sources, to, reason };
            ((self.good.len(), is_move, self.segment.bytes), copy)
        };
        if self.good.is_empty() {
            // Those that are away may come back.
            return vec![];
        }
        let is_holder = |worker: &WorkerId| self.segment.holders.contains(worker);
        let is_bad = |worker: &WorkerId| self.situation.bad.contains(&(*worker, segment));
        let mend = self.segment.holders.iter().filter(|holder| is_bad(holder));
        let mut copies: Vec<_> =
            mend.filter(|holder| may_take(holder)).map(|to| copy(*to, false, "bad copy")).collect();
        let counted = self.staying + self.maybe.len();
        let lacking = self.wanted.saturating_sub(counted);
        let absent = self.desired.iter().filter(|worker| !is_holder(worker) && may_take(worker));
        for (number, to) in absent.enumerate() {
            let is_move = number >= lacking;
            copies.push(copy(*to, is_move, if is_move { "moved" } else { "too few copies" }));
        }
        copies
    }

    /// Holders that may go: of those that are lost or drained any, once as many good copies as
    /// wanted stay; of the others those that should have none, once all that should have one do.
    fn forgettable(&self) -> Vec<WorkerId> {
        if self.staying < self.wanted {
            return vec![];
        }
        let have = |worker: &WorkerId| self.good[..self.staying].contains(worker);
        let settled = self.desired.iter().all(have) && self.desired.len() >= self.wanted;
        let goes = |holder: &&WorkerId| match self.situation.standings.get(holder) {
            None | Some(Standing::Lost) => true,
            Some(Standing::Draining) => true,
            Some(Standing::Good | Standing::Away) => settled && !self.desired.contains(holder),
        };
        self.segment.holders.iter().filter(goes).copied().collect()
    }
}

/// Who should have a copy of a segment: the workers of its slice, then others that live, each
/// segment's from another one on.
fn desired(situation: Situation<'_>, segment: &SegmentRecord, wanted: usize) -> Vec<WorkerId> {
    let counts = |worker: &WorkerId| {
        matches!(situation.standings.get(worker), Some(Standing::Good | Standing::Away))
    };
    let placed = situation.slice_workers.get(usize::from(segment.slice.0));
    let placed = placed.into_iter().flatten().filter(|worker| counts(worker));
    let mut desired: Vec<_> = placed.take(wanted).copied().collect();
    let others: Vec<_> = situation.standings.keys().filter(|worker| counts(worker)).collect();
    let start = usize::from(segment.slice.0) % others.len().max(1);
    for other in others.iter().cycle().skip(start).take(others.len()) {
        if desired.len() < wanted && !desired.contains(other) {
            desired.push(**other);
        }
    }
    desired
}

#[cfg(test)]
mod tests;
