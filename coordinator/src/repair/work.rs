//! What one segment needs.

use basalt_storage::ids::WorkerId;

use super::{CopyReason, ForgetReason, InFlight, LostSegment, Observed, Segment, WorkerState};

/// What is to be done about a segment.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Holders with a good copy that can be read: live ones, then draining ones.
    pub(super) sources: Vec<WorkerId>,
    /// Copies to make, the most urgent first.
    pub(super) copies: Vec<(WorkerId, CopyReason)>,
    /// Holders to take off the record.
    pub(super) forgets: Vec<(WorkerId, ForgetReason)>,
}

/// A segment, and all that a decision about it depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) segment: Segment<'a>,
    pub(super) observed: &'a Observed<'a>,
    /// The workers that may have copies, the best first.
    pub(super) candidates: &'a [WorkerId],
    /// Members that are lost: they may return, and count as long as they are members.
    pub(super) lost: usize,
    /// Copies of it that are being made.
    pub(super) in_flight: &'a [InFlight],
}

/// How a segment's holders are.
struct Holders {
    /// Live, with a good copy.
    good: Vec<WorkerId>,
    /// Draining, with a good copy.
    draining: Vec<WorkerId>,
    /// Away, and not known to have a bad copy.
    away: usize,
}

impl Case<'_> {
    /// Whether the copies are where they should be and nothing is going on. Nearly all segments
    /// are like that: this is what a round costs.
    pub(super) fn is_settled(&self) -> bool {
        let Segment { holders, .. } = self.segment;
        let best = self.best();
        self.in_flight.is_empty()
            && best.len() >= self.wanted()
            && holders.len() == best.len()
            && best.iter().all(|worker| {
                holders.contains(worker)
                    && self.state(*worker) == WorkerState::Live
                    && !self.is_bad(*worker)
            })
    }

    /// What is to be done.
    pub(super) fn work(&self) -> Work {
        let holders = self.holders();
        let sources = [holders.good.as_slice(), &holders.draining].concat();
        if sources.is_empty() {
            return Work::default();
        }
        Work { copies: self.copies(&holders), forgets: self.forgets(&holders), sources }
    }

    /// The segment as one that is lost.
    pub(super) fn lost(&self) -> LostSegment {
        let may_return = |worker: &WorkerId| {
            let is_gone = matches!(self.state(*worker), WorkerState::Away | WorkerState::Lost);
            is_gone && !self.is_bad(*worker)
        };
        let may_return_with = self.segment.holders.iter().copied().filter(may_return).collect();
        LostSegment { segment: self.segment.key, may_return_with }
    }

    fn wanted(&self) -> usize {
        self.segment.wanted.max(1)
    }

    /// The workers that should have the copies.
    fn best(&self) -> &[WorkerId] {
        match self.segment.everywhere {
            true => self.candidates,
            false => &self.candidates[..self.wanted().min(self.candidates.len())],
        }
    }

    fn state(&self, worker: WorkerId) -> WorkerState {
        self.observed.workers.get(&worker).copied().unwrap_or(WorkerState::Lost)
    }

    fn is_bad(&self, worker: WorkerId) -> bool {
        self.observed.bad.contains(&(worker, self.segment.key))
    }

    fn holders(&self) -> Holders {
        let mut holders = Holders { good: Vec::new(), draining: Vec::new(), away: 0 };
        let not_bad = self.segment.holders.iter().filter(|holder| !self.is_bad(**holder));
        for holder in not_bad.copied() {
            match self.state(holder) {
                WorkerState::Live => holders.good.push(holder),
                WorkerState::Draining => holders.draining.push(holder),
                WorkerState::Away => holders.away += 1,
                WorkerState::Lost => {}
            }
        }
        holders
    }

    /// The copies to make.
    fn copies(&self, holders: &Holders) -> Vec<(WorkerId, CopyReason)> {
        let is_coming = |worker: &WorkerId| self.in_flight.iter().any(|copy| copy.to == *worker);
        let lacks = |worker: &WorkerId| {
            self.state(*worker) == WorkerState::Live
                && !holders.good.contains(worker)
                && !is_coming(worker)
        };
        let coming = self.in_flight.iter().filter(|copy| {
            self.state(copy.to) == WorkerState::Live && !holders.good.contains(&copy.to)
        });
        let expected = holders.good.len() + holders.away + coming.count();
        let missing = self.wanted().min(self.candidates.len()).saturating_sub(expected);
        let best = self.best();
        let mut targets: Vec<WorkerId> = best.iter().copied().filter(lacks).collect();
        // Where somebody is away whom a copy belongs to and who has none, others are better than
        // fewer.
        let more = missing.saturating_sub(targets.len());
        let others = self.candidates[best.len()..].iter().copied();
        targets.extend(others.filter(lacks).take(more));
        let too_few = missing.saturating_sub(holders.draining.len());
        let reason = |place: usize| {
            if place < too_few {
                CopyReason::TooFew
            } else if place < missing {
                CopyReason::Drain
            } else if self.segment.everywhere {
                CopyReason::Everywhere
            } else {
                CopyReason::Placement
            }
        };
        targets.into_iter().enumerate().map(|(place, to)| (to, reason(place))).collect()
    }

    /// The holders to take off the record.
    ///
    /// One that is lost stays until there are as many copies as wanted, even if the cluster is too
    /// small for that: it may come back, and may then be the last. A worker can be drained from a
    /// cluster that is too small without it, but not while that is so only because another one is
    /// lost: what was to be given up may be needed.
    fn forgets(&self, holders: &Holders) -> Vec<(WorkerId, ForgetReason)> {
        let wanted = self.wanted();
        let possible = wanted.min(self.candidates.len() + self.lost).max(1);
        let best = self.best();
        let is_busy = |holder: &WorkerId| {
            self.in_flight.iter().any(|copy| copy.from == *holder || copy.to == *holder)
        };
        let mut good = holders.good.len();
        let mut forgets = Vec::new();
        let spare = |holder: &&WorkerId| !best.contains(holder) && !is_busy(holder);
        for holder in self.segment.holders.iter().rev().filter(spare).copied() {
            let (counts, enough, reason) = match self.state(holder) {
                WorkerState::Live if self.is_bad(holder) => (0, wanted, ForgetReason::Bad),
                WorkerState::Live => (1, wanted, ForgetReason::Surplus),
                WorkerState::Away => (0, wanted, ForgetReason::Surplus),
                WorkerState::Lost => (0, wanted, ForgetReason::Lost),
                WorkerState::Draining => (0, possible, ForgetReason::Drained),
            };
            if good >= enough + counts {
                good -= counts;
                forgets.push((holder, reason));
            }
        }
        forgets
    }
}
