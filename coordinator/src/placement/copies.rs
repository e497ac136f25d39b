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
    let slices = draft.slices.len();
    let domains = draft.workers.domain_sizes.len();
    let per_worker: Vec<Taker> = (0..draft.workers.len())
        .map(|worker| Taker {
            weight: draft.workers.weights[worker],
            lower: draft.owned[worker],
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
    let mut quotas = vec![0; per_worker.len()];
    for (domain, total) in apportion(slices * draft.copies, &per_domain).into_iter().enumerate() {
        let here = |worker: &usize| draft.workers.domains[*worker] == domain;
        let members: Vec<usize> = (0..per_worker.len()).filter(here).collect();
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
        let shrinks_cohort = draft.beyond_cohort(owner) > 0 && draft.links(owner, partner) == 1;
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
    let count = draft.workers.len();
    let domains = draft.domains(slice, None, None);
    let lacks_domains = domains < draft.domains_max();
    let cost = |partner: usize| {
        let wrong_domain = lacks_domains && draft.domains(slice, Some(partner), None) == domains;
        let links = u64::from(draft.links(owner, partner)) + 1;
        (
            wrong_domain,
            draft.load(partner) >= quotas[partner],
            draft.outgrows_cohort(owner, partner, None),
            // Heavier workers take more slices of each owner.
            (links << 32) / draft.workers.weights[partner],
            draft.load(partner),
            // Neighbours in turn: the same pattern for every owner is balanced by itself.
            (partner + count - owner) % count,
        )
    };
    let others = (0..count).filter(|worker| !draft.slices[slice].contains(worker));
    let Some(partner) = others.min_by_key(|partner| cost(*partner)) else { return false };
    draft.add(slice, partner);
    true
}
