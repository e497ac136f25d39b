//! Which workers should have each slice: a pure function of the workers and the placement before.
//!
//! ```text
//!  slice   owner  partners            owner    runs the slice's part of a query
//!    0       A     B                  partner  has a copy of all of it, and owns it next
//!    1       B     C                  cohort   a worker and all it shares slices with
//!    2       C     A
//!    3       A     C                  A's slices 0 and 3: another partner each
//! ```
//! Invariants, each with a property test (`placement/tests.rs`), the first in rank first:
//!
//! 1. A slice has no worker twice, and `copies` of them where there are so many.
//! 2. They are in different failure domains where labels allow it.
//! 3. Owners, and then copies, are balanced by weight: everybody's exact share, rounded.
//! 4. An owner's slices have different first partners: a lost worker's work goes to many.
//! 5. Cohorts have at most [`COHORT_WORKERS_MAX`] workers. All else ranks above it: with labels,
//!    weights or more than three copies per slice they may need more, and after a long history
//!    one is found with one more now and then.
//!
//! The placement before is kept as far as these allow. Nothing moves without a change; an owner
//! that goes is followed by one of its partners; a worker that comes takes its share, and one that
//! goes leaves its own, where cohorts may cost as much again or twice (`placement/tests/history.rs`
//! has the bounds); more copies per slice are added to those there are, unless weights, labels or
//! very few slices leave no balance without a move. Ownership passes between workers that have the
//! data as often as it helps: that moves nothing.
//!
//! Read `draft` (the state), `quota` (shares), then the steps in the order of [`solve`].
//!
//! Not here: which copies there are (the catalog), and how they get where they should be
//! ([`repair`](crate::repair)).

use std::collections::BTreeMap;

use basalt_storage::ids::WorkerId;
use serde::{Deserialize, Serialize};

mod balance;
mod chains;
mod cohorts;
mod copies;
mod draft;
mod owners;
mod quota;
mod spread;

#[cfg(test)]
mod tests;

use draft::{Draft, Workers};

/// How many workers a cohort should have: a worker and all it shares slices with.
///
/// Data is lost when all workers of some slice fail together. With two copies each and no cohorts,
/// nearly every two of `n` workers are such a pair once there are more slices than pairs; with
/// cohorts of `c` at most `n (c - 1) / 2` of the `n (n - 1) / 2` are. Larger cohorts would share
/// the work of a lost worker among more, and rebuild from more disks; with 8 the survivors of a
/// cohort run a seventh more each.
pub const COHORT_WORKERS: usize = 8;

/// How many a cohort may have at most.
///
/// Two more than it should: without that room a worker could only come or go where two others give
/// up each other, and about twice as many copies would move for it.
pub const COHORT_WORKERS_MAX: usize = 10;

/// How often a placement is improved at most. Each time must be better than the one before; two
/// are the rule, the second of which finds nothing.
const ROUNDS_MAX: usize = 16;

/// How often cohorts are tightened and copies balanced again at most. Once is the rule; what three
/// times do not bring down is wide because of labels or many copies.
const TIGHTENINGS_MAX: usize = 3;

/// A worker that slices may be placed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// Relative capacity; a worker of 0 takes nothing, and gives away what it has.
    pub weight: u32,
    /// What it fails together with, a rack or a host; `None` when nobody said.
    pub domain: Option<String>,
}

impl Default for Candidate {
    /// One like any other.
    fn default() -> Self {
        Self { weight: 1, domain: None }
    }
}

/// What is to be placed, and on whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How many slices there are.
    pub slices: u16,
    /// Workers per slice, the owner included; 0 is taken for 1.
    pub copies: usize,
    /// The workers.
    pub workers: BTreeMap<WorkerId, Candidate>,
}

/// For each slice the workers that should have it: the owner first, then its partners.
///
/// Fewer than `copies` only when there are fewer workers.
pub type SliceWorkers = Vec<Vec<WorkerId>>;

/// Places the slices; `previous` is the placement before, empty when there was none.
///
/// What it answers is a placement that it would not change: `solve(p, &solve(p, x))` is
/// `solve(p, x)`.
pub fn solve(problem: &Problem, previous: &SliceWorkers) -> SliceWorkers {
    let workers = Workers::of(problem);
    let mut draft = Draft::of(problem, &workers, previous);
    if workers.len() == 0 {
        return draft.into_placement();
    }
    let mut faults = Faults::of(&draft);
    for _ in 0..ROUNDS_MAX {
        let mut better = draft.successor();
        owners::balance_owners(&mut better);
        copies::complete(&mut better);
        // Balance may have to widen a cohort that could be tightened elsewhere.
        for _ in 0..TIGHTENINGS_MAX {
            cohorts::tighten_cohorts(&mut better);
            balance::balance_copies(&mut better);
            if (0..workers.len()).all(|worker| better.beyond_cohort(worker) == 0) {
                break;
            }
        }
        spread::spread_first_partners(&mut better);
        let faults_left = Faults::of(&better);
        if faults_left >= faults {
            break;
        }
        (draft, faults) = (better, faults_left);
        draft.forget_who_left();
    }
    draft.into_placement()
}

/// What is wrong with a placement, the worst first: less is better.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Faults {
    copies_missing: usize,
    copies_too_many: usize,
    domains_missing: usize,
    owned_off_quota: usize,
    copies_off_quota: usize,
    partners_missing: usize,
    beyond_cohorts: usize,
}

impl Faults {
    fn of(draft: &Draft<'_>) -> Self {
        let lists = || draft.slices.iter();
        let workers = || 0..draft.workers.len();
        let domains_max = draft.domains_max();
        let off = |quotas: Vec<usize>, has: &dyn Fn(usize) -> usize| {
            quotas.iter().enumerate().map(|(worker, quota)| quota.abs_diff(has(worker))).sum()
        };
        Self {
            copies_missing: lists().map(|list| draft.copies.saturating_sub(list.len())).sum(),
            copies_too_many: lists().map(|list| list.len().saturating_sub(draft.copies)).sum(),
            domains_missing: (0..draft.slices.len())
                .map(|slice| domains_max.saturating_sub(draft.domains(slice, None, None)))
                .sum(),
            owned_off_quota: off(owners::owner_quotas(draft), &|worker| draft.owned[worker]),
            copies_off_quota: off(copies::copy_quotas(draft), &|worker| draft.load(worker)),
            partners_missing: workers()
                .map(|owner| {
                    let firsts = draft.first_partners(owner).len();
                    draft.first_partners_max(owner).saturating_sub(firsts)
                })
                .sum(),
            beyond_cohorts: workers().map(|owner| draft.beyond_cohort(owner)).sum(),
        }
    }
}
