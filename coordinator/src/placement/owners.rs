//! Who owns each slice: everybody their quota, and the data stays where it lies.
//!
//! To make a partner the owner moves no data, so owners are balanced along chains of such changes
//! first, each chain as short as possible: a matching of slices to workers that have them, found
//! by augmenting paths. A slice moves to a worker without a copy only where no chain leads to one
//! that owns too little.

use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};

use super::copies::copy_quotas_with;
use super::draft::Draft;
use super::quota::{Taker, apportion};

/// Gives every slice an owner and every worker its quota of them.
pub(super) fn balance_owners(draft: &mut Draft<'_>) {
    let quotas = owner_quotas(draft);
    let copies = copy_quotas_with(draft, &quotas);
    for worker in 0..draft.workers.len() {
        relieve(draft, &quotas, &copies, worker);
    }
    give_away_empty_slices(draft, &quotas);
}

/// Gives the slices that nobody has to those below their quota, in turn.
fn give_away_empty_slices(draft: &mut Draft<'_>, quotas: &[usize]) {
    let below = |worker: &usize| draft.owned[*worker] < quotas[*worker];
    let mut takers: BTreeSet<(usize, usize)> =
        (0..quotas.len()).filter(below).map(|worker| (draft.owned[worker], worker)).collect();
    for slice in 0..draft.slices.len() {
        if draft.slices[slice].is_empty() {
            // The quotas add up to the number of slices, so there is always somebody.
            let Some((owned, worker)) = takers.pop_first() else { return };
            draft.add(slice, worker);
            if owned + 1 < quotas[worker] {
                takers.insert((owned + 1, worker));
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
fn relieve(draft: &mut Draft<'_>, quotas: &[usize], copies: &[usize], worker: usize) {
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
            .max_by_key(|taker| (quotas[*taker] - draft.owned[*taker], Reverse(*taker)))
        else {
            return;
        };
        let Some(transfer) = best_transfer(draft, copies, &reached.order, taker) else { return };
        let source = draft.slices[transfer.slice][0];
        draft.add(transfer.slice, taker);
        draft.make_owner(transfer.slice, taker);
        draft.remove(transfer.slice, transfer.drops);
        reached.pass_ownership(draft, source);
        chains = source != worker;
    }
}

/// A slice to be given to a worker that has no copy, as its owner.
#[derive(Debug, Clone, Copy)]
struct Transfer {
    slice: usize,
    /// The holder whose copy the new owner's replaces.
    drops: usize,
}

/// What speaks against a transfer, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Objections {
    /// A slice that lost its owner stays with those who have its data, where others can go.
    is_orphan: bool,
    widens_cohort: bool,
    /// Others would have to give copies to the one that loses its copy.
    drops_needed: bool,
    /// Slices that the taker shares with the same worker already.
    shared: u32,
    /// Two neighbours that both become the taker's can end their own neighbourhood.
    drops_stranger: bool,
    /// The owner before stays a partner: it has what is asked for now in its caches.
    drops_owner: bool,
}

impl Transfer {
    fn objections(self, draft: &Draft<'_>, copies: &[usize], taker: usize) -> Objections {
        let Self { slice, drops } = self;
        let stay = || draft.slices[slice].iter().filter(|holder| **holder != drops);
        let new = stay().filter(|holder| draft.shared(taker, **holder) == 0).count();
        Objections {
            is_orphan: draft.orphans.contains(&slice),
            widens_cohort: draft.neighbours(taker).len() + new > draft.neighbours_aim(),
            drops_needed: draft.load(drops) <= copies[drops],
            shared: stay().map(|holder| draft.shared(taker, *holder)).max().unwrap_or(0),
            drops_stranger: draft.shared(taker, drops) == 0,
            drops_owner: drops == draft.slices[slice][0],
        }
    }
}

/// The transfer to `taker` of a slice of one of `sources` that least speaks against; of the first
/// of them that has one without weighty objections.
fn best_transfer(
    draft: &Draft<'_>,
    copies: &[usize],
    sources: &[usize],
    taker: usize,
) -> Option<Transfer> {
    let mut best: Option<(Objections, Transfer)> = None;
    for source in sources {
        for slice in draft.slices_of(*source) {
            for drops in draft.slices[slice].iter().copied() {
                let transfer = Transfer { slice, drops };
                let objections = transfer.objections(draft, copies, taker);
                if best.is_none_or(|(least, _)| objections < least) {
                    best = Some((objections, transfer));
                }
            }
        }
        let fits = |(objections, _): &(Objections, Transfer)| {
            !objections.is_orphan && !objections.widens_cohort
        };
        if best.as_ref().is_some_and(fits) {
            break;
        }
    }
    best.map(|(_, transfer)| transfer)
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
            for slice in draft.slices_of(owner) {
                for partner in &draft.slices[slice][1..] {
                    if *partner == start || reached.by[*partner].is_some() {
                        continue;
                    }
                    reached.by[*partner] = Some((owner, slice));
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
