//! How much of a table is out of the order of its sort key.
//!
//! Each segment is sorted by itself. A range of the key is found in few of them as long as their ranges
//! lie side by side; what overlaps is unsorted, as in Redshift's `svv_table_info.unsorted`.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use basalt_engine::snapshot::TableSnapshot;
use basalt_storage::ids::{ColumnId, SliceId};
use basalt_storage::manifest::SegmentRecord;
use basalt_storage::zone_map::ZoneValue;

/// A segment's rows, and its range of the key's first column, if it is known.
struct Run<'a> {
    rows: u64,
    range: Option<(&'a ZoneValue, &'a ZoneValue)>,
}

/// The share of a table's rows in segments that begin before another segment of their slice ends;
/// `None` without a sort key.
#[expect(clippy::cast_precision_loss, reason = "a share needs no more precision")]
pub(super) fn unsorted_share(table: &TableSnapshot) -> Option<f64> {
    let key = *table.sort_key.first()?;
    let mut slices: BTreeMap<SliceId, Vec<Run<'_>>> = BTreeMap::new();
    for segment in &table.segments {
        slices.entry(segment.slice).or_default().push(run(segment, key));
    }
    let rows: u64 = slices.values().flatten().map(|run| run.rows).sum();
    let unsorted: u64 = slices.into_values().map(unsorted_rows).sum();
    Some(if rows == 0 { 0.0 } else { unsorted as f64 / rows as f64 })
}

fn run(segment: &SegmentRecord, key: ColumnId) -> Run<'_> {
    let zone = segment.columns.get(&key).map(|column| &column.zone);
    let range = zone.and_then(|zone| Some((zone.min.as_ref()?, zone.max.as_ref()?)));
    Run { rows: segment.live_rows(), range }
}

/// Rows of one slice that are out of order. Where a segment's range is not known, it is taken to overlap.
fn unsorted_rows(runs: Vec<Run<'_>>) -> u64 {
    if runs.len() < 2 {
        return 0;
    }
    let unknown: u64 = runs.iter().filter(|run| run.range.is_none()).map(|run| run.rows).sum();
    let mut known: Vec<_> = runs.iter().filter_map(|run| Some((run.range?, run.rows))).collect();
    known.sort_by(|(a, _), (b, _)| compare(a.0, b.0));
    let (mut unsorted, mut end): (u64, Option<&ZoneValue>) = (unknown, None);
    for ((min, max), rows) in known {
        if end.is_some_and(|end| compare(min, end) == Ordering::Less) {
            unsorted += rows;
        }
        if end.is_none_or(|end| compare(end, max) == Ordering::Less) {
            end = Some(max);
        }
    }
    unsorted
}

/// Bounds of one column are of one kind.
fn compare(a: &ZoneValue, b: &ZoneValue) -> Ordering {
    a.compare(b).unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows out of order of segments of 10 rows each, by their ranges.
    fn unsorted(ranges: &[Option<(i64, i64)>]) -> u64 {
        let bounds: Vec<_> = ranges
            .iter()
            .map(|range| range.map(|(min, max)| (ZoneValue::Int(min), ZoneValue::Int(max))))
            .collect();
        let runs = bounds
            .iter()
            .map(|bounds| Run { rows: 10, range: bounds.as_ref().map(|(min, max)| (min, max)) });
        unsorted_rows(runs.collect())
    }

    #[test]
    fn segments_side_by_side_are_sorted() {
        assert_eq!(unsorted(&[Some((20, 30)), Some((0, 9)), Some((10, 20))]), 0);
    }

    #[test]
    fn a_segment_that_begins_before_another_ends_is_not() {
        assert_eq!(unsorted(&[Some((0, 9)), Some((5, 20)), Some((21, 30))]), 10);
        assert_eq!(unsorted(&[Some((0, 100)), Some((5, 20)), Some((21, 30))]), 20);
    }

    #[test]
    fn a_segment_without_bounds_may_overlap() {
        assert_eq!(unsorted(&[Some((0, 9)), None]), 10);
        assert_eq!(unsorted(&[None]), 0, "there is nothing beside it");
    }
}
