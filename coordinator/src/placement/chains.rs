//! The cheapest way to pass copies on from workers that have too many to ones that have too few.
//!
//! A shortest path over workers (Dijkstra): an edge is one copy that moves. A copy that no disk
//! has yet is cheaper to move than one that must be sent.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::draft::Draft;

/// What it costs to place a copy elsewhere that was not anywhere yet: a longer chain is a worse one.
const NEW_COPY_COST: u32 = 1;
/// What it costs to move a copy that lies on a disk.
const SETTLED_COPY_COST: u32 = 8;
/// The same where nothing should move: more than all else together.
const FORBIDDEN_COST: u32 = 1_000;
/// What it costs to widen an owner's cohort: as much as to move two copies, because each worker
/// more is for ever, and a copy is sent once.
const WIDER_COHORT_COST: u32 = 16;
/// What it costs to take the only slice away that an owner has with a partner, when it has few
/// partners.
const FEWER_PARTNERS_COST: u32 = 4;

/// Chains are looked for among everybody up to so many workers; where there are more, somebody with
/// too few copies is near enough.
const ANYBODY_WORKERS_MAX: usize = 64;

/// One copy to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) slice: usize,
    pub(super) from: usize,
    pub(super) to: usize,
    /// What it cost when it was found.
    pub(super) cost: u32,
}

impl Step {
    /// What it costs to send the copy, if it must be sent and would not be without the step.
    fn transfer_cost(self, draft: &Draft<'_>) -> u32 {
        let is_settled = |worker| draft.is_settled(self.slice, worker);
        match is_settled(self.from) && !is_settled(self.to) {
            true if draft.only_grows => FORBIDDEN_COST,
            true => SETTLED_COPY_COST,
            false => NEW_COPY_COST,
        }
    }

    /// What the step costs; `None` when it may not be done.
    pub(super) fn cost(self, draft: &Draft<'_>) -> Option<u32> {
        let Self { slice, from, to, .. } = self;
        if !draft.can_replace(slice, from, to) {
            return None;
        }
        let owner = draft.slices[slice][0];
        let mut cost = self.transfer_cost(draft);
        if draft.outgrows(draft.neighbours_max(), slice, to, Some(from)) {
            cost += WIDER_COHORT_COST;
        }
        if draft.partnered(owner, from) == 1 && draft.partnered(owner, to) > 0 {
            cost += FEWER_PARTNERS_COST;
        }
        Some(cost)
    }
}

/// Whom chains may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Via {
    /// Those who share slices with the slice's owner already, and who has too few.
    Neighbours,
    Anybody,
}

/// The cheapest steps that lead from a worker with too many copies to one with too few; empty when
/// there are none.
pub(super) fn cheapest_chain(draft: &Draft<'_>, quotas: &[usize], start: usize) -> Vec<Step> {
    // Among neighbours first, which is quick and keeps cohorts as they are.
    let chain = Search::new(draft, quotas, start, Via::Neighbours).run();
    let cost: u32 = chain.iter().map(|step| step.cost).sum();
    let is_cheap = !chain.is_empty() && cost < WIDER_COHORT_COST;
    if is_cheap || quotas.len() > ANYBODY_WORKERS_MAX {
        return chain;
    }
    Search::new(draft, quotas, start, Via::Anybody).run()
}

/// The best way known to a worker: what it costs, and its last step.
type Way = (u32, Option<Step>);

/// A search for the nearest worker with too few copies.
struct Search<'a> {
    draft: &'a Draft<'a>,
    quotas: &'a [usize],
    via: Via,
    /// Those with too few.
    ends: Vec<usize>,
    best: Vec<Option<Way>>,
    done: Vec<bool>,
    queue: BinaryHeap<Reverse<(u32, usize)>>,
}

impl<'a> Search<'a> {
    fn new(draft: &'a Draft<'a>, quotas: &'a [usize], start: usize, via: Via) -> Self {
        let workers = 0..quotas.len();
        let mut best = vec![None; quotas.len()];
        best[start] = Some((0, None));
        Self {
            draft,
            quotas,
            via,
            ends: workers.filter(|worker| draft.load(*worker) < quotas[*worker]).collect(),
            best,
            done: vec![false; quotas.len()],
            queue: BinaryHeap::from([Reverse((0, start))]),
        }
    }

    /// The steps to the nearest end, in order.
    fn run(mut self) -> Vec<Step> {
        while let Some(Reverse((so_far, from))) = self.queue.pop() {
            if std::mem::replace(&mut self.done[from], true) {
                continue;
            }
            if self.draft.load(from) < self.quotas[from] {
                return self.steps_to(from);
            }
            for slice in &self.draft.held[from] {
                let owner = self.draft.slices[*slice][0];
                if owner != from {
                    self.pass_on(so_far, *slice, owner, from);
                }
            }
        }
        Vec::new()
    }

    /// Looks at everybody whom `from` could give a slice.
    fn pass_on(&mut self, so_far: u32, slice: usize, owner: usize, from: usize) {
        let draft = self.draft;
        match self.via {
            Via::Neighbours => {
                for to in draft.neighbours(owner) {
                    self.look_at(so_far, Step { slice, from, to: *to, cost: 0 });
                }
                for index in 0..self.ends.len() {
                    self.look_at(so_far, Step { slice, from, to: self.ends[index], cost: 0 });
                }
            }
            Via::Anybody => {
                for to in 0..self.quotas.len() {
                    self.look_at(so_far, Step { slice, from, to, cost: 0 });
                }
            }
        }
    }

    fn look_at(&mut self, so_far: u32, step: Step) {
        let known = self.best[step.to].map(|(known, _)| known);
        let is_known = |cost: u32| known.is_some_and(|known| known <= so_far + cost);
        if self.done[step.to] || is_known(step.transfer_cost(self.draft)) {
            return;
        }
        let Some(cost) = step.cost(self.draft).filter(|cost| !is_known(*cost)) else { return };
        self.best[step.to] = Some((so_far + cost, Some(Step { cost, ..step })));
        self.queue.push(Reverse((so_far + cost, step.to)));
    }

    fn steps_to(&self, end: usize) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut worker = end;
        while let Some((_, Some(step))) = self.best[worker] {
            steps.push(step);
            worker = step.from;
        }
        steps.reverse();
        steps
    }
}
