//! Moves partners' copies from workers that have too many to workers that have too few.
//!
//! One worker may have too many and another too few without any slice that both may have; so
//! copies move along chains: `a` gives a slice to `b`, which gives another one to `c`. The
//! cheapest chain is a shortest path over workers (Dijkstra), where a copy that no disk has yet
//! is cheaper to move than one that must be sent.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::copies::copy_quotas;
use super::draft::Draft;

/// What it costs to place a copy elsewhere that was not anywhere yet: a longer chain is a worse one.
const NEW_COPY_COST: u32 = 1;
/// What it costs to move a copy that lies on a disk.
const SETTLED_COPY_COST: u32 = 8;
/// What it costs to widen an owner's cohort: as much as to move two copies, because each worker
/// more is for ever, and a copy is sent once.
const WIDER_COHORT_COST: u32 = 16;
/// What it costs to take the only slice away that an owner has with a partner, when it has few
/// partners.
const FEWER_PARTNERS_COST: u32 = 4;

/// Brings everybody's copies to their quota, as far as domains allow.
pub(super) fn balance_copies(draft: &mut Draft<'_>) {
    let quotas = copy_quotas(draft);
    let mut stuck = BTreeSet::new();
    // Each round moves at least one copy, and a chain that is cut short is tried again: twice the
    // copies there are is far more than any placement needs, and ends what would go in circles.
    for _ in 0..2 * draft.slices.len() * draft.copies {
        let over =
            |worker: &usize| draft.load(*worker) > quotas[*worker] && !stuck.contains(worker);
        let Some(worker) = (0..quotas.len()).find(over) else { return };
        let chain = cheapest_chain(draft, &quotas, worker);
        if chain.is_empty() {
            stuck.insert(worker);
        }
        // From the far end, so that nobody has too many in between. A step that an earlier one
        // made impossible ends the chain; what was moved by then is balanced by itself.
        for step in chain.iter().rev() {
            if step.cost(draft).is_none() {
                break;
            }
            draft.remove(step.slice, step.from);
            draft.add(step.slice, step.to);
        }
    }
}

/// One copy to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    slice: usize,
    from: usize,
    to: usize,
}

impl Step {
    /// What the step costs; `None` when it may not be done.
    fn cost(self, draft: &Draft<'_>) -> Option<u32> {
        let Self { slice, from, to } = self;
        let list = &draft.slices[slice];
        if list.contains(&to) || !list[1..].contains(&from) {
            return None;
        }
        if draft.domains(slice, Some(to), Some(from)) < draft.domains(slice, None, None) {
            return None;
        }
        let owner = list[0];
        let mut cost = NEW_COPY_COST;
        if draft.is_settled(slice, from) {
            cost += SETTLED_COPY_COST;
        }
        if draft.outgrows_cohort(owner, to, Some(from)) {
            cost += WIDER_COHORT_COST;
        }
        if draft.links(owner, from) == 1
            && draft.links(owner, to) > 0
            && draft.beyond_cohort(owner) == 0
        {
            cost += FEWER_PARTNERS_COST;
        }
        Some(cost)
    }
}

/// The cheapest steps that lead from a worker with too many copies to one with too few; empty when
/// there are none.
fn cheapest_chain(draft: &Draft<'_>, quotas: &[usize], start: usize) -> Vec<Step> {
    let mut best: Vec<Option<(u32, Option<Step>)>> = vec![None; quotas.len()];
    best[start] = Some((0, None));
    let mut queue = BinaryHeap::from([Reverse((0u32, start))]);
    let mut done = vec![false; quotas.len()];
    while let Some(Reverse((so_far, from))) = queue.pop() {
        if std::mem::replace(&mut done[from], true) {
            continue;
        }
        if draft.load(from) < quotas[from] {
            return chain_to(&best, from);
        }
        for slice in draft.held[from].iter().filter(|slice| draft.slices[**slice][0] != from) {
            for to in (0..quotas.len()).filter(|to| !done[*to]) {
                let step = Step { slice: *slice, from, to };
                let least = so_far + NEW_COPY_COST;
                if best[to].is_some_and(|(known, _)| known <= least) {
                    continue;
                }
                let Some(cost) = step.cost(draft) else { continue };
                if best[to].is_none_or(|(known, _)| so_far + cost < known) {
                    best[to] = Some((so_far + cost, Some(step)));
                    queue.push(Reverse((so_far + cost, to)));
                }
            }
        }
    }
    Vec::new()
}

/// The steps that lead to `end`, in order.
fn chain_to(best: &[Option<(u32, Option<Step>)>], end: usize) -> Vec<Step> {
    let mut chain = Vec::new();
    let mut worker = end;
    while let Some((_, Some(step))) = best[worker] {
        chain.push(step);
        worker = step.from;
    }
    chain.reverse();
    chain
}
