//! How many copies each worker has, and who gets the copies that slices lack.

use super::draft::Draft;
use super::quota::{Taker, apportion};

/// Makes every slice have its number of workers, in as many failure domains as can be.
pub(super) fn complete(draft: &mut Draft<'_>) {
    let quotas = copy_quotas(draft);
    for slice in 0..draft.slices.len() {
        while draft.slices[slice].len() > draft.copies && drop_partner(draft, &quotas, slice) {}
        let is_full = draft.slices[slice].len() == draft.copies;
        if is_full && draft.domains(slice, None, None) < draft.domains_max() {
            drop_partner(draft, &quotas, slice);
        }
    }
    for slice in 0..draft.slices.len() {
        while draft.slices[slice].len() < draft.copies && add_partner(draft, &quotas, slice) {}
    }
}

/// How many copies each worker should have.
///
/// Failure domains share first, since a slice has at most one copy in each where there are enough
/// of them, and at least one where there are not; then the workers of each domain.
pub(super) fn copy_quotas(draft: &Draft<'_>) -> Vec<usize> {
    copy_quotas_with(draft, &draft.owned)
}

/// The same when each worker owns so many.
pub(super) fn copy_quotas_with(draft: &Draft<'_>, owned: &[usize]) -> Vec<usize> {
    let slices = draft.slices.len();
    let domains = draft.workers.domain_sizes.len();
    let per_worker: Vec<Taker> = (0..draft.workers.len())
        .map(|worker| Taker {
            weight: draft.workers.weights[worker],
            lower: owned[worker],
            upper: slices,
            now: draft.load(worker),
        })
        .collect();
    let mut per_domain = vec![Taker { weight: 0, lower: 0, upper: 0, now: 0 }; domains];
    for (taker, domain) in per_worker.iter().zip(&draft.workers.domains) {
        let sum = &mut per_domain[*domain];
        sum.weight += taker.weight;
        sum.lower += taker.lower;
        sum.upper += taker.upper;
        sum.now += taker.now;
    }
    for sum in &mut per_domain {
        if domains >= draft.copies {
            sum.upper = slices;
        } else {
            sum.lower = slices;
        }
    }
    let mut members = vec![Vec::new(); domains];
    for (worker, domain) in draft.workers.domains.iter().enumerate() {
        members[*domain].push(worker);
    }
    let mut quotas = vec![0; per_worker.len()];
    let totals = apportion(slices * draft.copies, &per_domain);
    for (members, total) in members.into_iter().zip(totals) {
        let takers: Vec<Taker> = members.iter().map(|worker| per_worker[*worker]).collect();
        for (worker, quota) in members.into_iter().zip(apportion(total, &takers)) {
            quotas[worker] = quota;
        }
    }
    quotas
}

/// Drops the partner that is missed least; false when there is none.
fn drop_partner(draft: &mut Draft<'_>, quotas: &[usize], slice: usize) -> bool {
    let owner = draft.slices[slice][0];
    let domains = draft.domains(slice, None, None);
    let worth = |partner: usize| {
        let is_needed_for_domains = draft.domains(slice, None, Some(partner)) < domains;
        let has_too_many = draft.load(partner) > quotas[partner];
        let shrinks_cohort = draft.beyond_cohort(owner) > 0 && draft.shared(owner, partner) == 1;
        let spare = draft.load(partner) as i64 - quotas[partner] as i64;
        (is_needed_for_domains, !has_too_many, !shrinks_cohort, -spare)
    };
    // Of equals the last goes.
    let partners = draft.slices[slice].iter().skip(1).rev().copied();
    let Some(partner) = partners.min_by_key(|partner| worth(*partner)) else { return false };
    draft.remove(slice, partner);
    true
}

/// Adds the partner that fits best; false when everybody has the slice.
fn add_partner(draft: &mut Draft<'_>, quotas: &[usize], slice: usize) -> bool {
    let owner = draft.slices[slice][0];
    let mut best = None;
    if draft.neighbours(owner).len() >= draft.neighbours_aim() {
        let neighbours = draft.neighbours(owner).iter().copied();
        best = best_partner(draft, quotas, slice, neighbours);
    }
    if best.is_none_or(|(objections, _, _)| objections != Objections::default()) {
        best = best_partner(draft, quotas, slice, 0..draft.workers.len());
    }
    let Some((_, _, partner)) = best else { return false };
    draft.add(slice, partner);
    true
}

/// The one of `candidates` that fits best, and how well.
fn best_partner(
    draft: &Draft<'_>,
    quotas: &[usize],
    slice: usize,
    candidates: impl Iterator<Item = usize>,
) -> Option<(Objections, Rank, usize)> {
    let mut best: Option<(Objections, Rank, usize)> = None;
    let mut found = None;
    for partner in candidates.filter(|worker| !draft.slices[slice].contains(worker)) {
        let rank = Rank::of(draft, slice, partner);
        // Nearly everybody is passed over here: it is what makes thousands of slices and workers
        // quick.
        if found.is_some_and(|found| found <= rank) {
            continue;
        }
        let objections = Objections::to(draft, quotas, slice, partner);
        if best.is_none_or(|(least, first, _)| (objections, rank) < (least, first)) {
            best = Some((objections, rank, partner));
            found = (objections == Objections::default()).then_some(rank);
        }
    }
    best
}

/// Why a worker should not be a partner, the worst first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Objections {
    adds_no_domain: bool,
    exceeds_cohort: bool,
    has_its_quota: bool,
    widens_cohort: bool,
}

impl Objections {
    fn to(draft: &Draft<'_>, quotas: &[usize], slice: usize, partner: usize) -> Self {
        let domains = draft.domains(slice, None, None);
        Self {
            adds_no_domain: domains < draft.domains_max()
                && draft.domains(slice, Some(partner), None) == domains,
            exceeds_cohort: draft.outgrows(draft.neighbours_max(), slice, partner, None),
            has_its_quota: draft.load(partner) >= quotas[partner],
            widens_cohort: draft.outgrows(draft.neighbours_aim(), slice, partner, None),
        }
    }
}

/// Who is preferred among workers without objections: less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Slices of the same owner that it would have, by weight.
    slices_of_owner: u64,
    is_no_neighbour: bool,
    load: usize,
    /// Neighbours in turn: the same pattern for every owner is balanced by itself.
    distance: usize,
}

impl Rank {
    fn of(draft: &Draft<'_>, slice: usize, partner: usize) -> Self {
        let owner = draft.slices[slice][0];
        let count = draft.workers.len();
        let slices = u64::from(draft.partnered(owner, partner)) + 1;
        Self {
            slices_of_owner: (slices << 32) / draft.workers.weights[partner],
            is_no_neighbour: draft.shared(owner, partner) == 0,
            load: draft.load(partner),
            distance: (partner + count - owner) % count,
        }
    }
}
