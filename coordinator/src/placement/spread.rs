//! Different first partners for the slices of one owner.
//!
//! Where partners were filled in by [`complete`](super::copies::complete) they are spread already;
//! what is left is what changes of owners and balance left behind.

use super::draft::Draft;

/// Gives each owner as many different first partners as it can have.
pub(super) fn spread_first_partners(draft: &mut Draft<'_>) {
    for owner in 0..draft.workers.len() {
        for _ in 0..draft.first_partners_max(owner) {
            let firsts = draft.first_partners(owner);
            if firsts.len() >= draft.first_partners_max(owner) {
                break;
            }
            let slices: Vec<usize> = draft.held[owner]
                .iter()
                .copied()
                .filter(|slice| draft.slices[*slice][0] == owner)
                .filter(|slice| {
                    firsts.get(&draft.slices[*slice][1]).is_some_and(|count| *count > 1)
                })
                .collect();
            let is_new = |worker: usize| worker != owner && !firsts.contains_key(&worker);
            if !reorder(draft, &slices, is_new) && !exchange(draft, owner, &slices, is_new) {
                break;
            }
        }
    }
}

/// Puts a later partner first, which moves nothing; false when no slice has a new one.
fn reorder(draft: &mut Draft<'_>, slices: &[usize], is_new: impl Fn(usize) -> bool) -> bool {
    let found = slices.iter().find_map(|slice| {
        let mut later = draft.slices[*slice].iter().skip(2).copied();
        later.find(|partner| is_new(*partner)).map(|partner| (*slice, partner))
    });
    let Some((slice, partner)) = found else { return false };
    draft.put_first(slice, partner);
    true
}

/// Exchanges a copy with a slice of another owner, so that everybody has as many as before; false
/// when nobody has one to exchange.
fn exchange(
    draft: &mut Draft<'_>,
    owner: usize,
    slices: &[usize],
    is_new: impl Fn(usize) -> bool,
) -> bool {
    for slice in slices {
        let gives = draft.slices[*slice][1];
        for takes in (0..draft.workers.len()).filter(|worker| is_new(*worker)) {
            let fits = can_replace(draft, *slice, gives, takes);
            if !fits || draft.outgrows_cohort(owner, takes, Some(gives)) {
                continue;
            }
            let other = draft.held[takes].iter().copied().find(|other| {
                let other_owner = draft.slices[*other][0];
                let keeps_spread =
                    draft.links(other_owner, takes) > 1 || draft.links(other_owner, gives) == 0;
                other_owner != takes
                    && other_owner != owner
                    && keeps_spread
                    && !draft.outgrows_cohort(other_owner, gives, Some(takes))
                    && can_replace(draft, *other, takes, gives)
            });
            if let Some(other) = other {
                replace(draft, *slice, gives, takes);
                replace(draft, other, takes, gives);
                return true;
            }
        }
    }
    false
}

/// Whether a partner can stand in for another one of a slice.
fn can_replace(draft: &Draft<'_>, slice: usize, from: usize, to: usize) -> bool {
    !draft.slices[slice].contains(&to)
        && draft.domains(slice, Some(to), Some(from)) >= draft.domains(slice, None, None)
}

/// Puts a partner in the place of another one.
fn replace(draft: &mut Draft<'_>, slice: usize, from: usize, to: usize) {
    let was_first = draft.slices[slice][1] == from;
    draft.remove(slice, from);
    draft.add(slice, to);
    if was_first {
        draft.put_first(slice, to);
    }
}
