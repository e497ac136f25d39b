//! Which segments of a table are written again: pure functions of what the catalog says of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use basalt_engine::snapshot::TableSnapshot;
use basalt_storage::ids::{ColumnId, SliceId};
use basalt_storage::manifest::SegmentRecord;

use crate::key_ranges::{KeyRange, overlapping, ranges_by_slice, rows_of, rows_out_of_order};

/// Segments of fewer live rows than this are small: those that are stored packed.
const SMALL_ROWS_BELOW: u64 = 65_536;
/// Segments of fewer bytes than this are small whatever their rows are.
const SMALL_BYTES_BELOW: u64 = 1 << 20;
/// How many segments fewer there must be afterwards before a write starts a compaction.
pub(super) const MERGE_SEGMENTS_MIN: usize = 16;
/// A segment is worth rewriting by itself when one of so many rows is deleted.
const DELETED_ONE_OF: u64 = 4;
/// Rows that one compaction reads at most: what it holds is bounded by this.
const MERGE_ROWS_MAX: u64 = 8 << 20;

/// So many segments that overlap are merged in the background: that is in how many a range of the key
/// is looked for at most, and one of how many rows are written again by each merge.
const OVERLAPPING_MAX: usize = 16;

/// Chooses the segments that a background compaction merges, by their place in the list.
fn worth_merging(segments: &[Arc<SegmentRecord>]) -> Vec<u32> {
    let mut small: Vec<(u64, u32)> = (0..)
        .zip(segments)
        .map(|(place, segment)| (segment.live_rows(), place))
        .filter(|(rows, _)| *rows < SMALL_ROWS_BELOW)
        .collect();
    small.sort_unstable();
    let (mut sum, mut count) = (0, 0);
    for (rows, _) in &small {
        // The next one would be copied for the sake of far fewer rows.
        if count >= 2 && *rows > 2 * sum {
            break;
        }
        if sum + rows > MERGE_ROWS_MAX {
            break;
        }
        sum += rows;
        count += 1;
    }
    small.truncate(count);
    // Rows of a keyed table stay in their slices: one segment of each slice is what is left.
    let slices: BTreeSet<_> =
        small.iter().filter_map(|(_, place)| Some(segments.get(*place as usize)?.slice)).collect();
    if small.len() < slices.len() + MERGE_SEGMENTS_MIN {
        return vec![];
    }
    small.into_iter().map(|(_, place)| place).collect()
}

/// Chooses the segments that VACUUM writes again: all small ones, and those with many deleted rows.
fn worth_rewriting(segments: &[Arc<SegmentRecord>]) -> Vec<u32> {
    let small = segments.iter().filter(|segment| is_small(segment)).count();
    (0..)
        .zip(segments)
        .filter(|(_, segment)| is_sparse(segment) || (small > 1 && is_small(segment)))
        .map(|(place, _)| place)
        .collect()
}

/// How many of some segments are so small that there should be fewer: in bytes as well, as rows so wide that
/// few of them fill the memory for rows of writes are as well merged as they can be.
pub(in crate::statements) fn mergeable_segments(segments: &[Arc<SegmentRecord>]) -> usize {
    segments.iter().filter(|segment| is_small(segment) && segment.bytes < SMALL_BYTES_BELOW).count()
}

fn is_small(segment: &SegmentRecord) -> bool {
    segment.live_rows() < SMALL_ROWS_BELOW
}

fn is_sparse(segment: &SegmentRecord) -> bool {
    segment.rows_deleted() * DELETED_ONE_OF >= segment.rows
}

/// Segments that are written again together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::statements) struct Rewrite {
    /// Their places in the table's list.
    pub(super) places: Vec<u32>,
    /// The slice that their rows stay in and are merged for, in the order of the sort key; otherwise
    /// rows go where new ones would.
    pub(super) merged_slice: Option<SliceId>,
    /// What it is for.
    pub(super) aim: Aim,
}

/// What a rewrite is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::statements) enum Aim {
    /// Fewer segments.
    Fewer,
    /// Segments that lie side by side, or without deleted rows.
    Tidier,
}

/// What VACUUM writes again of a table with a sort key: segments that overlap, small neighbours, and
/// those with many deleted rows.
fn worth_sorting(segments: &[Arc<SegmentRecord>], key: ColumnId) -> Vec<Rewrite> {
    let mut rewrites = Vec::new();
    for (slice, ranges) in ranges_by_slice(segments, key) {
        let groups = overlapping(ranges);
        let mut merged: Vec<Vec<KeyRange>> = Vec::new();
        for group in groups {
            match merged.last_mut() {
                Some(last) if rows_of(last) + rows_of(&group) < SMALL_ROWS_BELOW => {
                    last.extend(group);
                }
                _ => merged.push(group),
            }
        }
        let is_sparse =
            |range: &KeyRange| segments.get(range.place as usize).is_some_and(|s| is_sparse(s));
        let worth =
            merged.into_iter().filter(|group| group.len() > 1 || group.iter().any(is_sparse));
        rewrites.extend(worth.map(|group| Rewrite {
            places: places_of(&group),
            merged_slice: Some(slice),
            aim: Aim::Tidier,
        }));
    }
    rewrites
}

fn places_of(ranges: &[KeyRange]) -> Vec<u32> {
    ranges.iter().map(|range| range.place).collect()
}

/// The segments that overlap too much and that a background compaction merges next: the smallest of
/// a group, as many as it may read, if they overlap each other. What it writes does not, so it is not
/// chosen again.
fn overlapping_too_much(segments: &[Arc<SegmentRecord>], key: ColumnId) -> Option<Rewrite> {
    let slices = ranges_by_slice(segments, key).into_iter();
    let groups = slices.flat_map(|(slice, ranges)| {
        overlapping(ranges).into_iter().map(move |group| (slice, group))
    });
    groups.filter(|(_, group)| group.len() >= OVERLAPPING_MAX).find_map(|(slice, mut group)| {
        group.sort_by_key(|range| range.rows);
        let mut rows = 0;
        let fitting = group.iter().take_while(|range| {
            rows += range.rows;
            rows <= MERGE_ROWS_MAX
        });
        let chosen = fitting.count();
        group.truncate(chosen);
        let places = places_of(&group);
        let is_worth = chosen >= OVERLAPPING_MAX / 2
            && 2 * rows_out_of_order(group.clone()) >= rows_of(&group);
        is_worth.then_some(Rewrite { places, merged_slice: Some(slice), aim: Aim::Tidier })
    })
}

/// What a background compaction does next for a table: where it has a sort key, in one slice. That
/// there should be fewer segments counts only with `wants_fewer`.
pub(super) fn next_merge(table: &TableSnapshot, wants_fewer: bool) -> Option<Rewrite> {
    let small = if wants_fewer { worth_merging(&table.segments) } else { vec![] };
    match table.sort_key.first() {
        None => (!small.is_empty()).then_some(Rewrite {
            places: small,
            merged_slice: None,
            aim: Aim::Fewer,
        }),
        Some(key) => largest_of_a_slice(&table.segments, &small)
            .or_else(|| overlapping_too_much(&table.segments, *key)),
    }
}

/// Rows and bytes that are written again by a key at once: who deletes from the table waits that long.
const ROUTED_ROWS_MAX: u64 = 4 << 20;
const ROUTED_BYTES_MAX: u64 = 512 << 20;

/// The segments that are written again next so that a table lies by the key that was chosen for it: those of
/// commits that follow each other, so that what lies together by time stays so.
pub(in crate::statements) fn unrouted(table: &TableSnapshot) -> Option<Rewrite> {
    let key = table.chosen_key.as_ref()?.column;
    let (mut rows, mut bytes) = (0, 0);
    let mut places: Vec<u32> = Vec::new();
    for (place, segment) in (0..).zip(&table.segments) {
        if segment.routed_by == Some(key) {
            continue;
        }
        rows += segment.live_rows();
        bytes += segment.bytes;
        if !places.is_empty() && (rows > ROUTED_ROWS_MAX || bytes > ROUTED_BYTES_MAX) {
            break;
        }
        places.push(place);
    }
    (!places.is_empty()).then_some(Rewrite { places, merged_slice: None, aim: Aim::Tidier })
}

/// Those of some segments that are in the slice with most of them, if it has several.
fn largest_of_a_slice(segments: &[Arc<SegmentRecord>], places: &[u32]) -> Option<Rewrite> {
    let mut slices: BTreeMap<SliceId, Vec<u32>> = BTreeMap::new();
    for place in places {
        slices.entry(segments.get(*place as usize)?.slice).or_default().push(*place);
    }
    let (slice, places) = slices.into_iter().max_by_key(|(_, places)| places.len())?;
    let merged_slice = Some(slice);
    (places.len() > 1).then_some(Rewrite { places, merged_slice, aim: Aim::Fewer })
}

/// What VACUUM does for a table.
pub(super) fn vacuumed(table: &TableSnapshot) -> Vec<Rewrite> {
    if let Some(key) = table.sort_key.first() {
        return worth_sorting(&table.segments, *key);
    }
    let places = worth_rewriting(&table.segments);
    match places.is_empty() {
        true => vec![],
        false => vec![Rewrite { places, merged_slice: None, aim: Aim::Tidier }],
    }
}

#[cfg(test)]
mod tests {
    use basalt_engine::snapshot::{ChosenKey, Distribution};
    use basalt_storage::delete_vector::DeleteVector;
    use basalt_storage::digest::Digest;
    use basalt_storage::ids::{ColumnVersion, SegmentId, TableId, TxnId};
    use basalt_storage::manifest::{ColumnRecord, Layout};
    use basalt_storage::schema::TableSchema;
    use basalt_storage::zone_map::{ZoneMap, ZoneValue};
    use proptest::prelude::*;

    use super::*;

    fn segment(rows: u64, deleted: u32) -> Arc<SegmentRecord> {
        Arc::new(SegmentRecord {
            table: TableId(1),
            slice: SliceId(0),
            segment: SegmentId::generate(),
            txn: TxnId::generate(),
            layout: Layout::Packed,
            rows,
            row_groups: vec![],
            bytes: 0,
            meta_digest: Digest::of(b""),
            columns: BTreeMap::new(),
            holders: vec![],
            deleted: DeleteVector::from_positions(0..deleted),
            routed_by: None,
        })
    }

    fn segments(rows: &[u64]) -> Vec<Arc<SegmentRecord>> {
        rows.iter().map(|rows| segment(*rows, 0)).collect()
    }

    #[test]
    fn segments_of_few_wide_rows_are_not_waited_for() {
        let mut segments = segments(&[10, 10, SMALL_ROWS_BELOW]);
        assert_eq!(mergeable_segments(&segments), 2);
        Arc::make_mut(&mut segments[0]).bytes = SMALL_BYTES_BELOW;
        assert_eq!(mergeable_segments(&segments), 1);
    }

    #[test]
    fn a_table_that_is_filled_row_by_row_is_merged_now_and_then() {
        assert!(worth_merging(&segments(&[1; 16])).is_empty());
        assert_eq!(worth_merging(&segments(&[1; 17])).len(), 17);
    }

    #[test]
    fn one_segment_in_each_slice_is_not_copied_again_and_again() {
        let in_slice = |(slice, segment): (u16, Arc<SegmentRecord>)| {
            Arc::new(SegmentRecord { slice: SliceId(slice), ..(*segment).clone() })
        };
        let mut list: Vec<_> = (0..).zip(segments(&[60_000; 16])).map(in_slice).collect();
        list.push(segment(1, 0));
        assert!(worth_merging(&list).is_empty());
    }

    #[test]
    fn a_large_segment_is_not_copied_for_the_sake_of_few_rows() {
        let mut rows = vec![1; 20];
        rows.insert(7, 1_000);
        let chosen = worth_merging(&segments(&rows));
        assert_eq!(chosen.len(), 20);
        assert!(!chosen.contains(&7));
    }

    #[test]
    fn full_segments_are_left_alone() {
        assert!(worth_merging(&segments(&[SMALL_ROWS_BELOW; 40])).is_empty());
        assert!(worth_rewriting(&segments(&[SMALL_ROWS_BELOW; 40])).is_empty());
    }

    #[test]
    fn what_does_not_lie_by_the_chosen_key_is_written_again_in_turn() {
        let routed = |rows, routed_by: Option<u32>| {
            let routed_by = routed_by.map(ColumnId);
            Arc::new(SegmentRecord { routed_by, ..(*segment(rows, 0)).clone() })
        };
        let large = ROUTED_ROWS_MAX / 2;
        let mut table = TableSnapshot {
            id: TableId(1),
            schema_name: "public".to_owned(),
            name: "t".to_owned(),
            version: 1,
            schema: Arc::new(TableSchema { version: 1, columns: vec![], keys: vec![] }),
            distribution: Distribution::Auto,
            chosen_key: None,
            sort_key: vec![],
            replicas: 1,
            segments: vec![
                routed(large, None),
                routed(7, Some(1)),
                routed(large, Some(2)),
                routed(large, None),
            ]
            .into(),
            statistics: None,
        };
        assert_eq!(unrouted(&table), None, "no key is chosen");
        let key = ChosenKey { column: KEY, reason: String::new() };
        table.chosen_key = Some(Arc::new(key));
        assert_eq!(unrouted(&table).unwrap().places, [0, 2]);
        Arc::make_mut(&mut table.segments[0]).bytes = 2 * ROUTED_BYTES_MAX;
        assert_eq!(unrouted(&table).unwrap().places, [0], "one at least");
        for place in [0, 2, 3] {
            Arc::make_mut(&mut table.segments[place]).routed_by = Some(KEY);
        }
        assert_eq!(unrouted(&table), None);
    }

    const KEY: ColumnId = ColumnId(1);

    /// A segment of a slice with a range of the key.
    fn run(slice: u16, rows: u64, min: i64, max: i64) -> Arc<SegmentRecord> {
        let zone = ZoneMap {
            null_count: 0,
            min: Some(ZoneValue::Int(min)),
            max: Some(ZoneValue::Int(max)),
        };
        let column = ColumnRecord { version: ColumnVersion(1), zone, bytes: 0, encoding: None };
        let columns = [(KEY, column)].into();
        Arc::new(SegmentRecord { slice: SliceId(slice), columns, ..(*segment(rows, 0)).clone() })
    }

    fn sorted(list: &[Arc<SegmentRecord>]) -> Vec<(u16, Vec<u32>)> {
        let rewrites = worth_sorting(list, KEY).into_iter();
        rewrites.map(|rewrite| (rewrite.merged_slice.unwrap().0, rewrite.places)).collect()
    }

    #[test]
    fn vacuum_merges_what_overlaps_in_a_slice_and_nothing_else() {
        let full = SMALL_ROWS_BELOW;
        let list =
            [run(0, full, 0, 9), run(1, full, 0, 9), run(1, full, 5, 7), run(0, full, 9, 20)];
        assert_eq!(sorted(&list), [(1, vec![1, 2])]);
    }

    #[test]
    fn vacuum_merges_small_neighbours_but_not_across_a_large_segment() {
        let list = [
            run(0, 10, 0, 9),
            run(0, 10, 10, 19),
            run(0, SMALL_ROWS_BELOW, 20, 29),
            run(0, 10, 30, 39),
        ];
        assert_eq!(sorted(&list), [(0, vec![0, 1])]);
    }

    #[test]
    fn small_segments_of_a_sorted_table_are_merged_slice_by_slice() {
        let list: Vec<_> = (0..20).map(|i| run(u16::from(i > 12), 10, 0, 9)).collect();
        let merge = largest_of_a_slice(&list, &worth_merging(&list)).unwrap();
        assert_eq!((merge.merged_slice, merge.places), (Some(SliceId(0)), (0..13).collect()));
        assert_eq!(largest_of_a_slice(&list, &[3, 15]), None);
    }

    #[test]
    fn many_overlapping_segments_are_merged_in_the_background_the_smallest_first() {
        let mut list: Vec<_> = (0..15).map(|i| run(0, 400_000 + i, 0, 100)).collect();
        assert_eq!(overlapping_too_much(&list, KEY), None);
        list.push(run(0, 8_000_000, 0, 100));
        let merge = overlapping_too_much(&list, KEY).unwrap();
        assert_eq!((merge.merged_slice, merge.places), (Some(SliceId(0)), (0..15).collect()));
    }

    #[test]
    fn what_a_merge_has_put_side_by_side_is_not_merged_again() {
        let mut list: Vec<_> = (0..8).map(|i| run(0, 1_000_000, i * 10, i * 10 + 10)).collect();
        list.extend((0..8).map(|_| run(0, 2_000_000, 0, 100)));
        assert_eq!(overlapping_too_much(&list, KEY), None);
    }

    #[test]
    fn vacuum_writes_segments_with_many_deleted_rows_again() {
        let list = [segment(100_000, 24_000), segment(100_000, 25_000), segment(10, 0)];
        assert_eq!(worth_rewriting(&list), [1]);
        let list = [segment(10, 0), segment(100_000, 0), segment(20, 0)];
        assert_eq!(worth_rewriting(&list), [0, 2]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        /// Rows are written O(log n) times: filling a table row by row copies few.
        #[test]
        fn filling_a_table_row_by_row_copies_every_row_a_few_times(inserts in 500usize..2_000) {
            let (mut rows, mut copied) = (Vec::new(), 0);
            for insert in std::iter::repeat_n(1, inserts) {
                rows.push(insert);
                let chosen = worth_merging(&segments(&rows));
                if !chosen.is_empty() {
                    let merged: u64 = chosen.iter().map(|place| rows[*place as usize]).sum();
                    let mut place = 0;
                    rows.retain(|_| { place += 1; !chosen.contains(&(place - 1)) });
                    rows.push(merged);
                    copied += merged;
                }
            }
            prop_assert_eq!(rows.iter().sum::<u64>(), inserts as u64);
            prop_assert!(rows.len() < 40, "{} segments are left", rows.len());
            prop_assert!(copied < 12 * inserts as u64, "{copied} rows were copied");
        }
    }
}
