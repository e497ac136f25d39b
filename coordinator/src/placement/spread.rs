//! Different first partners for the slices of one owner.
//!
//! Where partners were filled in by [`complete`](super::copies::complete) they are spread already;
//! what is left is what changes of owners and balance left behind. For that alone no more copies
//! move than move anyway: that two slices have the same partner is not worth much.

use super::draft::Draft;

/// Gives each owner as many different first partners as it can have.
pub(super) fn spread_first_partners(draft: &mut Draft<'_>) {
    let mut moves_left = copies_to_send(draft);
    for owner in 0..draft.workers.len() {
        for _ in 0..draft.first_partners_max(owner) {
            let firsts = draft.first_partners(owner);
            if firsts.len() >= draft.first_partners_max(owner) {
                break;
            }
            let slices: Vec<usize> = draft
                .slices_of(owner)
                .filter(|slice| {
                    firsts.get(&draft.slices[*slice][1]).is_some_and(|count| *count > 1)
                })
                .collect();
            let is_new = |worker: usize| worker != owner && !firsts.contains_key(&worker);
            if reorder(draft, &slices, is_new) {
                continue;
            }
            if moves_left == 0 || !exchange(draft, owner, &slices, is_new) {
                break;
            }
            // One in each direction.
            moves_left = moves_left.saturating_sub(2);
        }
    }
}

/// How many copies must be sent for the placement so far.
fn copies_to_send(draft: &Draft<'_>) -> usize {
    let new = |(slice, list): (usize, &Vec<usize>)| {
        list.iter().filter(|worker| !draft.is_settled(slice, **worker)).count()
    };
    draft.slices.iter().enumerate().map(new).sum()
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

/// Gives a slice to a new first partner, so that everybody has as many as before; false when there
/// is no way to do that.
fn exchange(
    draft: &mut Draft<'_>,
    owner: usize,
    slices: &[usize],
    is_new: impl Fn(usize) -> bool,
) -> bool {
    for slice in slices.iter().copied() {
        let gives = draft.slices[slice][1];
        for takes in (0..draft.workers.len()).filter(|worker| is_new(*worker)) {
            if !may_replace(draft, slice, gives, takes) {
                continue;
            }
            let back = in_return(draft, owner, takes, gives);
            if back.is_none() && !can_have_the_odd_one(draft, gives, takes) {
                continue;
            }
            draft.replace(slice, gives, takes);
            if let Some(back) = back {
                draft.replace(back, takes, gives);
            }
            return true;
        }
    }
    false
}

/// Whether a partner may stand in for another one for the sake of spread alone.
fn may_replace(draft: &Draft<'_>, slice: usize, from: usize, to: usize) -> bool {
    draft.may_tidy(slice, from)
        && draft.can_replace(slice, from, to)
        && !draft.outgrows(draft.neighbours_max(), slice, to, Some(from))
}

/// A slice of another owner that `from` can give to `to`, without a loss to that owner's spread.
fn in_return(draft: &Draft<'_>, owner: usize, from: usize, to: usize) -> Option<usize> {
    let mut slices = draft.held[from].iter().copied();
    slices.find(|slice| {
        let other = draft.slices[*slice][0];
        let keeps_spread = draft.partnered(other, from) > 1 || draft.partnered(other, to) == 0;
        other != owner && other != from && keeps_spread && may_replace(draft, *slice, from, to)
    })
}

/// Whether of two equals one has one copy more than the other, which may as well be the other.
fn can_have_the_odd_one(draft: &Draft<'_>, gives: usize, takes: usize) -> bool {
    let domain_size = |worker: usize| draft.workers.domain_sizes[draft.workers.domains[worker]];
    draft.load(gives) == draft.load(takes) + 1
        && draft.workers.weights[gives] == draft.workers.weights[takes]
        && domain_size(gives) == 1
        && domain_size(takes) == 1
}
