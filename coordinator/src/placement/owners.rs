//! Who owns each slice: everybody their quota, and the data stays where it lies.
//!
//! To make a partner the owner moves no data, so owners are balanced along chains of such changes
//! first, each chain as short as possible: a matching of slices to workers that have them, found
//! by augmenting paths. A slice moves to a worker without a copy only where no chain leads to one
//! that owns too little.

use std::collections::VecDeque;

use super::draft::Draft;
use super::quota::{Taker, apportion};

/// Gives every slice an owner and every worker its quota of them.
pub(super) fn balance_owners(draft: &mut Draft<'_>) {
    let quotas = owner_quotas(draft);
    for worker in 0..draft.workers.len() {
        relieve(draft, &quotas, worker);
    }
    // The quotas add up to the number of slices, so there is always somebody below theirs.
    for slice in 0..draft.slices.len() {
        if draft.slices[slice].is_empty() {
            let below = (0..quotas.len()).filter(|worker| draft.owned[*worker] < quotas[*worker]);
            if let Some(worker) = below.min_by_key(|worker| (draft.owned[*worker], *worker)) {
                draft.add(slice, worker);
            }
        }
    }
}

/// How many slices each worker should own.
pub(super) fn owner_quotas(draft: &Draft<'_>) -> Vec<usize> {
    let slices = draft.slices.len();
    let taker = |(weight, now): (&u64, &usize)| Taker {
        weight: *weight,
        lower: 0,
        upper: slices,
        now: *now,
    };
    let takers: Vec<Taker> = draft.workers.weights.iter().zip(&draft.owned).map(taker).collect();
    apportion(slices, &takers)
}

/// Takes slices from a worker that owns too many.
fn relieve(draft: &mut Draft<'_>, quotas: &[usize], worker: usize) {
    let mut chains = true;
    while draft.owned[worker] > quotas[worker] {
        let reached =
            if chains { Reached::from(draft, quotas, worker) } else { Reached::only(worker) };
        if let Some(end) = reached.end {
            reached.pass_ownership(draft, end);
            continue;
        }
        let Some(taker) = (0..quotas.len())
            .filter(|taker| draft.owned[*taker] < quotas[*taker])
            .max_by_key(|taker| (quotas[*taker] - draft.owned[*taker], std::cmp::Reverse(*taker)))
        else {
            return;
        };
        // A slice that lost its owner stays with those who have its data, where others can go.
        let source = reached.order.iter().find_map(|source| {
            best_to_move(draft, *source, taker, |slice| !draft.orphans.contains(&slice))
                .map(|slice| (*source, slice))
        });
        let Some((source, slice)) = source
            .or_else(|| best_to_move(draft, worker, taker, |_| true).map(|slice| (worker, slice)))
        else {
            return;
        };
        draft.make_owner(slice, taker);
        reached.pass_ownership(draft, source);
        // A slice that left makes no new chain from here.
        chains = source != worker;
    }
}

/// The workers that ownership can be passed to, in steps to partners, from one that has too much.
struct Reached {
    /// In the order they were reached; the first is where it started.
    order: Vec<usize>,
    /// For each worker, from whom and by which slice it was reached.
    by: Vec<Option<(usize, usize)>>,
    /// The first that owns less than its quota.
    end: Option<usize>,
}

impl Reached {
    fn only(start: usize) -> Self {
        Self { order: vec![start], by: Vec::new(), end: None }
    }

    fn from(draft: &Draft<'_>, quotas: &[usize], start: usize) -> Self {
        let mut reached = Self::only(start);
        reached.by = vec![None; quotas.len()];
        let mut queue = VecDeque::from([start]);
        while let Some(owner) = queue.pop_front() {
            for slice in draft.held[owner].iter().filter(|slice| draft.slices[**slice][0] == owner)
            {
                for partner in &draft.slices[*slice][1..] {
                    if *partner == start || reached.by[*partner].is_some() {
                        continue;
                    }
                    reached.by[*partner] = Some((owner, *slice));
                    reached.order.push(*partner);
                    if draft.owned[*partner] < quotas[*partner] {
                        reached.end = Some(*partner);
                        return reached;
                    }
                    queue.push_back(*partner);
                }
            }
        }
        reached
    }

    /// Passes one slice along each step from the start to `end`.
    fn pass_ownership(&self, draft: &mut Draft<'_>, end: usize) {
        let mut worker = end;
        while let Some((owner, slice)) = self.by.get(worker).copied().flatten() {
            draft.make_owner(slice, worker);
            worker = owner;
        }
    }
}

/// The slice of `owner` that `taker` should get: one with a holder that fits the taker's cohort.
fn best_to_move(
    draft: &Draft<'_>,
    owner: usize,
    taker: usize,
    may_move: impl Fn(usize) -> bool,
) -> Option<usize> {
    let cost = |slice: usize| {
        let holders = draft.slices[slice].iter();
        holders
            .map(|holder| {
                (draft.outgrows_cohort(taker, *holder, None), draft.links(taker, *holder))
            })
            .min()
    };
    let owned = draft.held[owner].iter().copied();
    owned
        .filter(|slice| draft.slices[*slice][0] == owner && may_move(*slice))
        .min_by_key(|slice| (cost(*slice), *slice))
}
