//! Where segments lie in the order of their table's sort key.
//!
//! Each segment is sorted by itself. A range of the key is found in few of them as long as their
//! ranges lie side by side: those that overlap are out of order, and are merged by VACUUM and by
//! compaction. Only the key's first column counts.

use std::cmp::Ordering;

use basalt_storage::ids::ColumnId;
use basalt_storage::manifest::SegmentRecord;
use basalt_storage::zone_map::ZoneValue;

/// A segment's rows and its range of the key's first column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KeyRange {
    /// Its place in a list of segments.
    pub(crate) place: u32,
    /// Rows that are not deleted.
    pub(crate) rows: u64,
    /// The least and the largest value, as far as they are surely there; `None` when they are not
    /// known, or all are NULL.
    bounds: Option<(ZoneValue, ZoneValue)>,
}

impl KeyRange {
    /// Of a segment of a table that is sorted by `key` first.
    pub(crate) fn of(place: u32, segment: &SegmentRecord, key: ColumnId) -> Self {
        let zone = segment.columns.get(&key).map(|column| &column.zone);
        let bounds = zone.and_then(|zone| Some((zone.min.as_ref()?, zone.max.as_ref()?)));
        let bounds = bounds.map(|(min, max)| (min.clone(), certain_max(max)));
        Self { place, rows: segment.live_rows(), bounds }
    }
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
/// in different groups, one ends where the other begins, or before. Those whose bounds are not
/// known are one group, the last.
pub(crate) fn overlapping(mut ranges: Vec<KeyRange>) -> Vec<Vec<KeyRange>> {
    ranges.sort_by(|a, b| match (&a.bounds, &b.bounds) {
        (Some((a, _)), Some((b, _))) => compare(a, b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    });
    let mut groups: Vec<Vec<KeyRange>> = Vec::new();
    // Where the last group ends; `None` when that is not known.
    let mut end: Option<ZoneValue> = None;
    for range in ranges {
        let joins = match (&range.bounds, &end) {
            (Some((min, _)), Some(end)) => compare(min, end) == Ordering::Less,
            (bounds, end) => bounds.is_none() && end.is_none(),
        };
        let (max, known) = match &range.bounds {
            Some((_, max)) => (Some(max.clone()), true),
            None => (None, false),
        };
        match groups.last_mut() {
            Some(group) if joins => group.push(range),
            _ => {
                groups.push(vec![range]);
                end = None;
            }
        }
        end = match (end, max) {
            _ if !known => None,
            (Some(end), Some(max)) if compare(&max, &end) == Ordering::Less => Some(end),
            (_, max) => max,
        };
    }
    groups
}

/// Rows of one slice in segments that begin before another one ends.
pub(crate) fn rows_out_of_order(ranges: Vec<KeyRange>) -> u64 {
    let groups = overlapping(ranges);
    // The first segment of a group is where it should be.
    groups.iter().flat_map(|group| group.iter().skip(1)).map(|range| range.rows).sum()
}

/// Bounds of one column are of one kind.
fn compare(a: &ZoneValue, b: &ZoneValue) -> Ordering {
    a.compare(b).unwrap_or(Ordering::Equal)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Segments of 10 rows each.
    pub(crate) fn ranges(bounds: &[Option<(i64, i64)>]) -> Vec<KeyRange> {
        let int = ZoneValue::Int;
        let bounds = bounds.iter().map(|bounds| bounds.map(|(min, max)| (int(min), int(max))));
        (0..).zip(bounds).map(|(place, bounds)| KeyRange { place, rows: 10, bounds }).collect()
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
    fn a_text_that_was_rounded_up_does_not_overlap_what_follows_it() {
        let bytes = |text: &str, exact| ZoneValue::Bytes { value: text.into(), exact };
        let range = |place, min, max| KeyRange {
            place,
            rows: 10,
            bounds: Some((bytes(min, true), certain_max(&bytes(max, false)))),
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
