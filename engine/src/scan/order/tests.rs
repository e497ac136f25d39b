//! Chains are in order and have every row group once, however segments lie; so has a scan for first rows.

use proptest::prelude::*;

use super::*;
use crate::scan::tests::segment;

/// A least and a greatest value, if they are known, and whether there are NULLs.
type Bounds = (Option<(i64, i64)>, bool);

fn chained_bounds(bounds: &[Bounds], is_strict: bool, most: usize) -> Option<Vec<Vec<u32>>> {
    let int = |value: i64| ZoneValue::Int(value);
    let values: Vec<_> =
        bounds.iter().map(|(bounds, _)| bounds.map(|(min, max)| (int(min), int(max)))).collect();
    let ranges = (0..).zip(values.iter().zip(bounds)).map(|(segment, (values, (_, has_nulls)))| {
        let bounds = values.as_ref().map(|(min, max)| (min, max));
        KeyRange { segment, bounds, has_nulls: *has_nulls }
    });
    chained(ranges.collect(), is_strict, most)
}

fn known(bounds: &[(i64, i64)]) -> Vec<Bounds> {
    bounds.iter().map(|bounds| (Some(*bounds), false)).collect()
}

#[test]
fn segments_side_by_side_are_one_chain() {
    let bounds = known(&[(20, 29), (0, 9), (10, 19)]);
    assert_eq!(chained_bounds(&bounds, true, 9), Some(vec![vec![1, 2, 0]]));
}

#[test]
fn segments_that_overlap_are_in_different_chains_and_no_more_than_they_must() {
    let bounds = known(&[(0, 9), (5, 14), (10, 19), (15, 24)]);
    assert_eq!(chained_bounds(&bounds, true, 9), Some(vec![vec![0, 2], vec![1, 3]]));
    assert_eq!(chained_bounds(&bounds, true, 1), None, "more than were allowed");
}

#[test]
fn a_segment_that_begins_where_another_ends_follows_it_by_one_column_only() {
    let bounds = known(&[(0, 9), (9, 14)]);
    assert_eq!(chained_bounds(&bounds, false, 9), Some(vec![vec![0, 1]]));
    assert_eq!(chained_bounds(&bounds, true, 9), Some(vec![vec![0], vec![1]]));
}

#[test]
fn nothing_follows_nulls_or_what_is_not_known() {
    let bounds = [(Some((0, 9)), true), (Some((10, 19)), false), (None, false), (None, true)];
    assert_eq!(chained_bounds(&bounds, false, 9), Some(vec![vec![0], vec![1], vec![2], vec![3]]));
}

fn rows_of(segments: &[ScanSegment], unit: &ScanUnit) -> u64 {
    let groups = &segments[unit.segment as usize].row_groups;
    groups[unit.first as usize..unit.end as usize].iter().map(|rows| u64::from(*rows)).sum()
}

#[test]
fn one_long_chain_is_cut_into_equal_parts() {
    let segments: Vec<_> = (0..4).map(|_| segment(vec![100, 100])).collect();
    let (units, chains) = spread_chains(&segments, &[vec![2, 0, 1, 3]], true, 2);
    let rows = |units: &Vec<ScanUnit>| units.iter().map(|u| rows_of(&segments, u)).sum::<u64>();
    assert_eq!(units.iter().map(rows).collect::<Vec<_>>(), [400, 400]);
    let order = |units: &Vec<ScanUnit>| units.iter().map(|u| u.segment).collect::<Vec<_>>();
    assert_eq!(units.iter().map(order).collect::<Vec<_>>(), [vec![2, 0], vec![1, 3]]);
    assert_eq!(chains, [[2], [2]]);
}

proptest! {
    #[test]
    fn chains_are_in_order_and_have_every_segment_once(
        bounds in prop::collection::vec(
            (prop::option::weighted(0.9, (0i64..60, 0i64..10)), prop::bool::weighted(0.1)),
            0..30,
        ),
        is_strict: bool,
    ) {
        let bounds: Vec<Bounds> = bounds
            .into_iter()
            .map(|(bounds, nulls)| (bounds.map(|(min, width)| (min, min + width)), nulls))
            .collect();
        let chains = chained_bounds(&bounds, is_strict, usize::MAX).unwrap();
        for chain in &chains {
            for pair in chain.windows(2) {
                let (before, after) = (bounds[pair[0] as usize], bounds[pair[1] as usize]);
                let (end, begin) = (before.0.unwrap().1, after.0.unwrap().0);
                prop_assert!(!before.1, "NULLs come last");
                prop_assert!(end < begin || (!is_strict && end == begin));
            }
        }
        let mut seen: Vec<_> = chains.into_iter().flatten().collect();
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..bounds.len() as u32).collect::<Vec<_>>());
    }

    #[test]
    fn every_row_group_of_chains_is_read_once_and_in_their_order(
        groups in prop::collection::vec(prop::collection::vec(1u32..1000, 1..6), 1..12),
        chain_of in prop::collection::vec(0usize..4, 12),
        backwards: bool,
        merges: bool,
        partitions in 1usize..6,
    ) {
        let segments: Vec<_> = groups.into_iter().map(segment).collect();
        let mut chains = vec![Vec::new(); 4];
        for at in 0..segments.len() {
            chains[chain_of[at]].push(at as u32);
        }
        if backwards {
            chains.iter_mut().for_each(|chain| chain.reverse());
        }
        let sign = if backwards { -1 } else { 1 };
        let place = |(segment, group): &(u32, u32)| (sign * i64::from(*segment), *group);
        let (units, lengths) = spread_chains(&segments, &chains, merges, partitions);
        prop_assert_eq!(units.len(), partitions);
        let mut seen = Vec::new();
        for (units, lengths) in units.iter().zip(&lengths) {
            prop_assert_eq!(units.len(), lengths.iter().sum::<usize>());
            let is_one = merges || partitions < 4 || lengths.len() <= 1;
            prop_assert!(is_one, "chains that are enough partitions for are not merged");
            let mut rest = units.as_slice();
            for length in lengths {
                let (chain, after) = rest.split_at(*length);
                rest = after;
                let groups = |unit: &ScanUnit| {
                    let segment = unit.segment;
                    (unit.first..unit.end).map(move |group| (segment, group)).collect::<Vec<_>>()
                };
                let read: Vec<_> = chain.iter().flat_map(groups).collect();
                prop_assert!(read.is_sorted_by_key(place), "in the order of its chain");
                let of = chain_of[chain[0].segment as usize];
                prop_assert!(chain.iter().all(|unit| chain_of[unit.segment as usize] == of));
                seen.extend(read);
            }
        }
        seen.sort_unstable();
        let all = (0..).zip(&segments).flat_map(|(at, segment)| {
            (0..).zip(&segment.row_groups).map(move |(group, _)| (at, group))
        });
        prop_assert_eq!(seen, all.collect::<Vec<_>>());
    }

    #[test]
    fn a_scan_for_first_rows_reads_every_row_group_once(
        groups in prop::collection::vec(prop::collection::vec(1u32..1000, 0..6), 0..12),
        descending: bool,
        partitions in 1usize..6,
    ) {
        let segments: Vec<_> = groups.into_iter().map(segment).collect();
        let spread = spread_first_rows(&segments, &[], ColumnId(1), descending, partitions);
        prop_assert_eq!(spread.len(), partitions);
        let read = spread.iter().flatten().flat_map(|unit| {
            (unit.first..unit.end).map(move |group| (unit.segment, group))
        });
        let mut seen: Vec<_> = read.collect();
        seen.sort_unstable();
        let all = (0..).zip(&segments).flat_map(|(at, segment)| {
            (0..).zip(&segment.row_groups).map(move |(group, _)| (at, group))
        });
        prop_assert_eq!(seen, all.collect::<Vec<_>>());
    }
}
