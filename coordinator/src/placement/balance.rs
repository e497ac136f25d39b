//! Moves partners' copies from workers that have too many to workers that have too few.
//!
//! One worker may have too many and another too few without any slice that both may have; so
//! copies move along [chains](super::chains): `a` gives a slice to `b`, which gives another one
//! to `c`.

use std::collections::BTreeSet;

use super::chains::{Step, cheapest_chain};
use super::copies::copy_quotas;
use super::draft::Draft;

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
        let mut chain = cheapest_chain(draft, &quotas, worker);
        let Some(end) = chain.last().map(|step| step.to) else {
            stuck.insert(worker);
            continue;
        };
        while follow(draft, &chain)
            && draft.load(worker) > quotas[worker]
            && draft.load(end) < quotas[end]
        {
            let Some(again) = same_way(draft, &chain) else { break };
            chain = again;
        }
    }
}

/// Takes the steps; false when one could not be taken.
///
/// From the far end, so that nobody has too many in between. A step that a later one made
/// impossible ends it; what was moved by then is balanced by itself.
fn follow(draft: &mut Draft<'_>, chain: &[Step]) -> bool {
    for step in chain.iter().rev() {
        if step.cost(draft).is_none() {
            return false;
        }
        draft.replace(step.slice, step.from, step.to);
    }
    true
}

/// Steps between the same workers with other slices, none of which costs more.
fn same_way(draft: &Draft<'_>, chain: &[Step]) -> Option<Vec<Step>> {
    let other = |step: &Step| {
        let mut others = draft.held[step.from].iter().map(|slice| Step { slice: *slice, ..*step });
        others.find(|other| other.cost(draft).is_some_and(|cost| cost <= step.cost))
    };
    chain.iter().map(other).collect()
}
