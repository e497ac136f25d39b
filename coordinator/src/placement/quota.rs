//! How many of a number of equal things each of several takers gets, by weight.
//!
//! Invariant: what a taker gets is its exact share within its bounds, rounded up or down; so two
//! takers of equal weight and bounds differ by at most one. Those who have most now are rounded
//! up, which keeps what lies where it lies.

use std::cmp::Reverse;

/// One of those who share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taker {
    /// Relative size of its share; at least 1.
    pub(super) weight: u64,
    /// It gets at least so many.
    pub(super) lower: usize,
    /// It gets at most so many.
    pub(super) upper: usize,
    /// It has so many now.
    pub(super) now: usize,
}

/// What each of `takers` gets of `total`, which must lie between the sums of their bounds.
pub(super) fn apportion(total: usize, takers: &[Taker]) -> Vec<usize> {
    let mut fixed: Vec<Option<usize>> = vec![None; takers.len()];
    let (rest, weight) = loop {
        let (rest, weight) = left_to_share(total, takers, &fixed);
        if !fix_violators(rest, weight, takers, &mut fixed) {
            break (rest, weight);
        }
    };
    round(rest, weight, takers, &fixed)
}

/// What those who are not fixed share, and the sum of their weights.
fn left_to_share(total: usize, takers: &[Taker], fixed: &[Option<usize>]) -> (u128, u128) {
    let taken: usize = fixed.iter().flatten().sum();
    let free = takers.iter().zip(fixed).filter(|(_, fixed)| fixed.is_none());
    (total.saturating_sub(taken) as u128, free.map(|(taker, _)| u128::from(taker.weight)).sum())
}

/// Fixes takers whose share of `rest` lies outside their bounds at the bound; false when none does.
///
/// Only the side that misses by more is fixed: what it gives back or takes away may bring those on
/// the other side inside their bounds. (CSS resolves the flexible lengths of a line the same way.)
fn fix_violators(rest: u128, weight: u128, takers: &[Taker], fixed: &mut [Option<usize>]) -> bool {
    let above = |taker: &Taker| {
        (rest * u128::from(taker.weight)).saturating_sub(taker.upper as u128 * weight)
    };
    let below = |taker: &Taker| {
        (taker.lower as u128 * weight).saturating_sub(rest * u128::from(taker.weight))
    };
    let free = || takers.iter().zip(&*fixed).filter(|(_, fixed)| fixed.is_none());
    let above_sum: u128 = free().map(|(taker, _)| above(taker)).sum();
    let below_sum: u128 = free().map(|(taker, _)| below(taker)).sum();
    if above_sum == 0 && below_sum == 0 {
        return false;
    }
    for (taker, fixed) in takers.iter().zip(fixed).filter(|(_, fixed)| fixed.is_none()) {
        if above_sum >= below_sum && above(taker) > 0 {
            *fixed = Some(taker.upper);
        } else if below_sum >= above_sum && below(taker) > 0 {
            *fixed = Some(taker.lower);
        }
    }
    true
}

/// Whole numbers that add up: everybody's share rounded down, and one more for as many as needed.
fn round(rest: u128, weight: u128, takers: &[Taker], fixed: &[Option<usize>]) -> Vec<usize> {
    let mut gets: Vec<usize> = Vec::with_capacity(takers.len());
    let mut may_get_more = Vec::new();
    let mut left = rest;
    for (index, (taker, fixed)) in takers.iter().zip(fixed).enumerate() {
        let Some(fixed) = *fixed else {
            let exact = rest * u128::from(taker.weight);
            let (whole, fraction) = (exact / weight, exact % weight);
            left -= whole;
            let whole = usize::try_from(whole).unwrap_or(usize::MAX);
            if fraction > 0 {
                may_get_more.push((taker.now.saturating_sub(whole), fraction, index));
            }
            gets.push(whole);
            continue;
        };
        gets.push(fixed);
    }
    may_get_more.sort_by_key(|&(over, fraction, index)| (Reverse((over, fraction)), index));
    let left = usize::try_from(left).unwrap_or(usize::MAX);
    for (_, _, index) in may_get_more.into_iter().take(left) {
        gets[index] += 1;
    }
    gets
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taker(weight: u64, lower: usize, upper: usize, now: usize) -> Taker {
        Taker { weight, lower, upper, now }
    }

    #[test]
    fn shares_follow_weights_and_the_odd_ones_stay_where_they_are() {
        let three = [0, 0, 0].map(|now| taker(1, 0, 10, now));
        assert_eq!(apportion(10, &three), [4, 3, 3]);
        let three = [3, 3, 4].map(|now| taker(1, 0, 10, now));
        assert_eq!(apportion(10, &three), [3, 3, 4]);
        let weighted = [1, 2, 5].map(|weight| taker(weight, 0, 16, 0));
        assert_eq!(apportion(16, &weighted), [2, 4, 10]);
    }

    #[test]
    fn what_a_bound_gives_or_takes_is_shared_by_the_others() {
        let one_is_large = [100, 1, 1].map(|weight| taker(weight, 0, 10, 0));
        assert_eq!(apportion(20, &one_is_large), [10, 5, 5]);
        let one_must_have_more = [taker(1, 8, 10, 0), taker(1, 0, 10, 0), taker(1, 0, 10, 0)];
        assert_eq!(apportion(12, &one_must_have_more), [8, 2, 2]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn everything_is_shared_within_bounds_and_by_weight(
            raw in prop::collection::vec((1..50u64, 0..20usize, 0..40usize, 0..40usize), 1..12),
            part in 0..=1000usize,
        ) {
            let takers: Vec<Taker> =
                raw.iter().map(|&(weight, lower, room, now)| taker(weight, lower, lower + room, now)).collect();
            let lower: usize = takers.iter().map(|taker| taker.lower).sum();
            let upper: usize = takers.iter().map(|taker| taker.upper).sum();
            let total = lower + (upper - lower) * part / 1000;
            let gets = apportion(total, &takers);
            prop_assert_eq!(gets.iter().sum::<usize>(), total);
            for (taker, &gets) in takers.iter().zip(&gets) {
                prop_assert!((taker.lower..=taker.upper).contains(&gets), "{taker:?} gets {gets}");
            }
            // Whoever could give and whoever could take stand within one of the same price.
            for (rich, &has) in takers.iter().zip(&gets).filter(|(taker, has)| **has > taker.lower) {
                for (poor, &lacks) in takers.iter().zip(&gets).filter(|(taker, has)| **has < taker.upper) {
                    prop_assert!(
                        (has as u64 - 1) * poor.weight <= (lacks as u64 + 1) * rich.weight,
                        "{rich:?} has {has} while {poor:?} has {lacks}",
                    );
                }
            }
            let kept: Vec<Taker> =
                takers.iter().zip(&gets).map(|(taker, &now)| Taker { now, ..*taker }).collect();
            prop_assert_eq!(apportion(total, &kept), gets);
        }
    }
}
