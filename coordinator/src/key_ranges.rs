//! Where segments lie in the order of their table's sort key.
//!
//! Each segment is sorted by itself. A range of the key is found in few of them as long as their
//! ranges lie side by side: those that overlap are out of order, and are merged by VACUUM and by
//! compaction. Only the key's first column counts.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_storage::ids::{ColumnId, SliceId};
use basalt_storage::manifest::SegmentRecord;
use basalt_storage::zone_map::ZoneValue;

/// A segment's rows and its range of the key's first column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KeyRange {
    /// Its place in the table's list of segments.
    pub(crate) place: u32,
    /// Rows that are not deleted.
    pub(crate) rows: u64,
    range: Range,
}

#[derive(Debug, Clone, PartialEq)]
enum Range {
    /// The least and the largest value, as far as they are surely there.
    Values(ZoneValue, ZoneValue),
    /// Nothing but NULLs, which come after all values.
    Nulls,
    Unknown,
}

impl KeyRange {
    fn of(place: u32, segment: &SegmentRecord, key: ColumnId) -> Self {
        let zone = segment.columns.get(&key).map(|column| &column.zone);
        let range = match zone.map(|zone| (&zone.min, &zone.max, zone.null_count)) {
            Some((Some(min), Some(max), _)) => Range::Values(min.clone(), certain_max(max)),
            Some((_, _, nulls)) if nulls == segment.rows => Range::Nulls,
            _ => Range::Unknown,
        };
        Self { place, rows: segment.live_rows(), range }
    }
}

/// The ranges of a table's segments by slice, for the first column of its sort key.
pub(crate) fn ranges_by_slice(
    segments: &[Arc<SegmentRecord>],
    key: ColumnId,
) -> BTreeMap<SliceId, Vec<KeyRange>> {
    let mut slices: BTreeMap<SliceId, Vec<KeyRange>> = BTreeMap::new();
    for (place, segment) in (0..).zip(segments) {
        slices.entry(segment.slice).or_default().push(KeyRange::of(place, segment, key));
    }
    slices
}

/// The largest value that a segment surely reaches: a long text is shortened in bounds, and an
/// upper one rounded up then.
fn certain_max(max: &ZoneValue) -> ZoneValue {
    let ZoneValue::Bytes { value, exact: false } = max else { return max.clone() };
    let mut value = value.clone();
    if let Some(last) = value.last_mut() {
        *last = last.saturating_sub(1);
    }
    ZoneValue::Bytes { value, exact: false }
}

/// Segments of one slice in the order of the key, those together that overlap: of two that are
/// in different groups, one ends where the other begins, or before. Those of which nothing is known
/// are one group, the last.
pub(crate) fn overlapping(ranges: Vec<KeyRange>) -> Vec<Vec<KeyRange>> {
    let (mut values, mut nulls, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for range in ranges {
        match &range.range {
            Range::Values(min, max) => values.push((min.clone(), max.clone(), range)),
            Range::Nulls => nulls.push(vec![range]),
            Range::Unknown => unknown.push(range),
        }
    }
    values.sort_by(|(a, ..), (b, ..)| compare(a, b));
    let mut groups: Vec<Vec<KeyRange>> = Vec::new();
    let mut end: Option<ZoneValue> = None;
    for (min, max, range) in values {
        let joins = end.as_ref().is_some_and(|end| compare(&min, end) == Ordering::Less);
        match groups.last_mut().filter(|_| joins) {
            Some(group) => group.push(range),
            None => groups.push(vec![range]),
        }
        if end.as_ref().is_none_or(|end| compare(end, &max) == Ordering::Less) {
            end = Some(max);
        }
    }
    groups.extend(nulls);
    groups.extend((!unknown.is_empty()).then_some(unknown));
    groups
}

/// Rows of all.
pub(crate) fn rows_of(ranges: &[KeyRange]) -> u64 {
    ranges.iter().map(|range| range.rows).sum()
}

/// Rows of one slice in segments that begin before another one ends.
pub(crate) fn rows_out_of_order(ranges: Vec<KeyRange>) -> u64 {
    let groups = overlapping(ranges);
    // The first segment of a group is where it should be.
    groups.iter().map(|group| rows_of(group.get(1..).unwrap_or_default())).sum()
}

/// Bounds of one column are of one kind.
fn compare(a: &ZoneValue, b: &ZoneValue) -> Ordering {
    a.compare(b).unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Segments of 10 rows each; of some, nothing is known.
    fn ranges(bounds: &[Option<(i64, i64)>]) -> Vec<KeyRange> {
        let range = |bounds: &Option<(i64, i64)>| match bounds {
            Some((min, max)) => Range::Values(ZoneValue::Int(*min), ZoneValue::Int(*max)),
            None => Range::Unknown,
        };
        (0..)
            .zip(bounds)
            .map(|(place, bounds)| KeyRange { place, rows: 10, range: range(bounds) })
            .collect()
    }

    fn groups(bounds: &[Option<(i64, i64)>]) -> Vec<Vec<u32>> {
        let groups = overlapping(ranges(bounds)).into_iter();
        groups.map(|group| group.into_iter().map(|range| range.place).collect()).collect()
    }

    #[test]
    fn segments_side_by_side_are_sorted() {
        let bounds = [Some((20, 30)), Some((0, 9)), Some((10, 20))];
        assert_eq!(groups(&bounds), [[1], [2], [0]]);
        assert_eq!(rows_out_of_order(ranges(&bounds)), 0);
    }

    #[test]
    fn a_segment_that_begins_before_another_ends_is_not() {
        assert_eq!(groups(&[Some((0, 9)), Some((5, 20)), Some((21, 30))]), [vec![0, 1], vec![2]]);
        let inside = [Some((0, 100)), Some((5, 20)), Some((21, 30))];
        assert_eq!(groups(&inside), [[0, 1, 2]]);
        assert_eq!(rows_out_of_order(ranges(&inside)), 20);
    }

    #[test]
    fn segments_without_bounds_come_last_and_together() {
        assert_eq!(groups(&[None, Some((0, 9)), None]), [vec![1], vec![0, 2]]);
        assert_eq!(rows_out_of_order(ranges(&[None])), 0);
        assert!(groups(&[]).is_empty());
    }

    #[test]
    fn segments_of_nothing_but_nulls_are_in_order() {
        let nulls = |place| KeyRange { place, rows: 10, range: Range::Nulls };
        let mut list = vec![nulls(0), nulls(1)];
        list.extend(ranges(&[Some((0, 9))]));
        let groups = overlapping(list.clone());
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
        assert!(matches!(groups[0][0].range, Range::Values(..)), "NULLs come last");
        assert_eq!(rows_out_of_order(list), 0);
    }

    #[test]
    fn a_text_that_was_rounded_up_does_not_overlap_what_follows_it() {
        let bytes = |text: &str, exact| ZoneValue::Bytes { value: text.into(), exact };
        let range = |place, min, max| KeyRange {
            place,
            rows: 10,
            range: Range::Values(bytes(min, true), certain_max(&bytes(max, false))),
        };
        let side_by_side = vec![range(0, "abc", "abd"), range(1, "abcx", "abz")];
        assert_eq!(overlapping(side_by_side).len(), 2);
    }

    proptest! {
        #[test]
        fn segments_of_different_groups_never_overlap(
            bounds in prop::collection::vec((0i64..40, 0i64..10), 0..12),
        ) {
            let bounds: Vec<_> = bounds.iter().map(|(min, more)| Some((*min, min + more))).collect();
            let groups = groups(&bounds);
            prop_assert_eq!(groups.iter().flatten().count(), bounds.len());
            let bounds_of = |place: &u32| bounds[*place as usize].unwrap();
            for [first, second] in groups.array_windows::<2>() {
                let end = first.iter().map(|place| bounds_of(place).1).max().unwrap();
                prop_assert!(second.iter().all(|place| bounds_of(place).0 >= end));
            }
        }
    }
}
