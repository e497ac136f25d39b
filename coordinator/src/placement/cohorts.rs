//! Keeps the number of workers small that each worker shares slices with.
//!
//! When a worker comes, everybody may have as many neighbours as they can already: it takes the
//! place between two that were neighbours, and all slices of these two are given to it or to
//! others that are neighbours of whoever stays.

use super::copies::copy_quotas;
use super::draft::Draft;

/// Ends neighbourhoods of workers that have too many, where all slices of one find another place.
pub(super) fn tighten_cohorts(draft: &mut Draft<'_>) {
    let quotas = copy_quotas(draft);
    for worker in 0..draft.workers.len() {
        while draft.beyond_cohort(worker) > 0 {
            let worth = |neighbour: usize| {
                (
                    draft.load(neighbour) < quotas[neighbour],
                    draft.beyond_cohort(neighbour) == 0,
                    draft.shared(worker, neighbour),
                )
            };
            let mut neighbours: Vec<usize> = draft.neighbours(worker).iter().copied().collect();
            neighbours.sort_by_key(|neighbour| (worth(*neighbour), *neighbour));
            if !neighbours.iter().any(|neighbour| separate(draft, &quotas, worker, *neighbour)) {
                break;
            }
        }
    }
}

/// Replaces one of two workers in every slice that both have; false, and nothing is changed, when
/// that would make a cohort too large or take a domain from a slice.
fn separate(draft: &mut Draft<'_>, quotas: &[usize], one: usize, other: usize) -> bool {
    let both: Vec<usize> = draft.held[one].intersection(&draft.held[other]).copied().collect();
    let mut done = Vec::new();
    for slice in both {
        let Some((from, to)) = best_replacement(draft, quotas, slice, [one, other]) else {
            for (slice, from, to) in done.into_iter().rev() {
                draft.replace(slice, to, from);
            }
            return false;
        };
        draft.replace(slice, from, to);
        done.push((slice, from, to));
    }
    true
}

/// Which of two holders of a slice should be replaced, and by whom.
fn best_replacement(
    draft: &Draft<'_>,
    quotas: &[usize],
    slice: usize,
    holders: [usize; 2],
) -> Option<(usize, usize)> {
    let spare = |worker: usize| draft.load(worker) as i64 - quotas[worker] as i64;
    let mut best: Option<(i64, (usize, usize))> = None;
    for from in holders.into_iter().filter(|holder| draft.slices[slice][0] != *holder) {
        if !draft.may_tidy(slice, from) {
            continue;
        }
        for to in 0..draft.workers.len() {
            let cost = spare(to) - spare(from);
            if best.is_none_or(|(least, _)| cost < least)
                && draft.can_replace(slice, from, to)
                && !draft.outgrows(draft.neighbours_max(), slice, to, Some(from))
            {
                best = Some((cost, (from, to)));
            }
        }
    }
    best.map(|(_, replacement)| replacement)
}
