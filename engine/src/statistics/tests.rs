//! What is covered, what is read again, and what the planner is told.

use basalt_storage::delete_vector::DeleteVector;
use basalt_storage::digest::Digest;
use basalt_storage::ids::{SliceId, TableId, TxnId};
use basalt_storage::manifest::Layout;
use datafusion::common::ColumnStatistics;

use super::*;

const A: ColumnId = ColumnId(1);

fn segment(rows: u64, rows_deleted: u32) -> Arc<SegmentRecord> {
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
        deleted: DeleteVector::from_positions(0..rows_deleted),
        routed_by: None,
    })
}

fn sketch(values: std::ops::Range<i64>) -> ColumnSketch {
    let values: arrow::array::ArrayRef =
        Arc::new(arrow::array::Int64Array::from_iter_values(values));
    let mut distinct = DistinctSketch::default();
    distinct.add(&values).unwrap();
    ColumnSketch { distinct, sample: None }
}

fn analysis(
    kind: AnalysisKind,
    segments: &[Arc<SegmentRecord>],
    values: std::ops::Range<i64>,
) -> Analysis {
    Analysis {
        kind,
        version: 5,
        time_ms: 0,
        rows: segments.iter().map(|segment| segment.live_rows()).sum(),
        segments: segments.iter().map(|segment| segment.segment).collect(),
        columns: BTreeMap::from([(A, sketch(values))]),
    }
}

fn analysed(segments: &[Arc<SegmentRecord>]) -> TableStatistics {
    let mut known = TableStatistics::default();
    known.record(analysis(AnalysisKind::Whole, segments, 0..100), segments);
    known
}

fn changed(known: &TableStatistics, segments: &[Arc<SegmentRecord>]) -> (u64, u64) {
    let ChangedRows { added, deleted } = known.changed(segments);
    (added, deleted)
}

#[test]
fn rows_that_came_and_went_since_are_told_apart() {
    let segments = [segment(100, 0), segment(50, 10)];
    let known = analysed(&segments);
    assert_eq!(changed(&known, &segments), (0, 0));
    let [first, _] = segments;
    let deleted_from = Arc::new(SegmentRecord {
        deleted: DeleteVector::from_positions(0..30),
        ..(*first).clone()
    });
    assert_eq!(changed(&known, &[deleted_from, segment(7, 0)]), (7, 30 + 40));
}

#[test]
fn new_segments_are_added_until_a_tenth_of_the_read_rows_is_gone() {
    let segments = [segment(90, 0), segment(10, 0)];
    let mut known = analysed(&segments);
    assert!(known.can_grow(&[A], &segments));
    assert!(known.can_grow(&[A], &segments[..1]), "a tenth is gone");
    assert!(!known.can_grow(&[A], &segments[1..]), "nine tenths are gone");
    assert!(!known.can_grow(&[A, ColumnId(2)], &segments), "a column is not known");
    assert!(!TableStatistics::default().can_grow(&[A], &segments), "nothing is known");

    let grown = [segments.as_slice(), &[segment(100, 0)]].concat();
    known.record(analysis(AnalysisKind::Added, &grown[2..], 50..150), &grown);
    assert_eq!(changed(&known, &grown), (0, 0));
    let column = known.column(A).unwrap();
    assert_eq!((column.rows, &column.sketch), (200, &sketch(0..150)));
}

#[test]
fn an_analysis_that_comes_twice_counts_once() {
    let segments = [segment(90, 0), segment(10, 0)];
    let mut known = analysed(&segments);
    let grown = [segments.as_slice(), &[segment(100, 0)]].concat();
    for _ in 0..2 {
        known.record(analysis(AnalysisKind::Added, &grown[2..], 50..150), &grown);
    }
    assert_eq!(changed(&known, &grown[..2]), (0, 100));
}

#[test]
fn segments_that_went_before_the_commit_are_not_covered() {
    let segments = [segment(90, 0), segment(10, 0)];
    let mut known = TableStatistics::default();
    known.record(analysis(AnalysisKind::Whole, &segments, 0..100), &segments[..1]);
    assert_eq!(changed(&known, &segments[..1]), (0, 0));
    assert!(!known.covers(segments[1].segment));
}

#[test]
fn compacted_segments_are_covered_when_all_their_rows_were_read() {
    let segments = [segment(60, 0), segment(40, 0)];
    let mut known = analysed(&segments);
    let merged = segment(100, 0);
    known.replaced(&segments, [merged.as_ref()]);
    assert_eq!(changed(&known, std::slice::from_ref(&merged)), (0, 0));

    let (unread, again) = (segment(5, 0), segment(105, 0));
    known.replaced(&[Arc::clone(&merged), unread], [again.as_ref()]);
    assert_eq!(changed(&known, &[again]), (105, 0), "they are read again, and none is deleted");
}

#[test]
fn a_column_that_is_analysed_by_itself_covers_nothing() {
    let segments = [segment(90, 0)];
    let mut known = TableStatistics::default();
    known.record(analysis(AnalysisKind::Columns, &segments, 0..10), &segments);
    assert_eq!(known.column(A).map(|column| column.rows), Some(90));
    assert_eq!(changed(&known, &segments), (90, 0));
}

#[test]
fn keys_grow_with_the_table_and_fixed_sets_do_not() {
    let column =
        |values, rows| AnalysedColumn { sketch: sketch(0..values), rows, version: 0, time_ms: 0 };
    let about = |estimate: u64, expected: u64| {
        assert!(estimate.abs_diff(expected) * 20 <= expected, "{estimate} instead of {expected}");
    };
    let key = column(1_000, 1_000);
    about(key.distinct_in(1_000), 1_000);
    about(key.distinct_in(4_000), 4_000);
    about(key.distinct_in(500), 500);
    let kinds = column(25, 1_000);
    assert_eq!(kinds.distinct_in(4_000), kinds.distinct_in(1_000));
    about(kinds.distinct_in(1_000), 25);
    assert_eq!(kinds.distinct_in(3), 3);
    assert_eq!(column(0, 0).distinct_in(10), 0);
}

#[test]
fn the_planner_hears_of_no_more_values_than_rows_and_never_exactly() {
    let known = analysed(&[segment(100, 0)]);
    for (rows, nulls, most) in [(100, 0, 105), (100, 60, 40), (10, 0, 10), (0, 0, 0)] {
        let told = ColumnStatistics {
            null_count: Precision::Exact(nulls),
            ..ColumnStatistics::new_unknown()
        };
        let mut statistics = Statistics {
            num_rows: Precision::Exact(rows),
            total_byte_size: Precision::Absent,
            column_statistics: vec![told, ColumnStatistics::new_unknown()],
        };
        add_distinct_counts(&mut statistics, &[A, ColumnId(2)], &known);
        let [told, other] = &statistics.column_statistics[..] else { panic!("two columns") };
        let Precision::Inexact(distinct) = told.distinct_count else {
            panic!("{:?} is not inexact", told.distinct_count)
        };
        assert!(distinct <= most, "{distinct} of {rows} rows with {nulls} NULLs");
        assert_eq!(other.distinct_count, Precision::Absent);
    }
}

#[test]
fn statistics_come_back_from_json() {
    let known = analysed(&[segment(90, 0)]);
    let json = serde_json::to_string(&known).unwrap();
    assert_eq!(serde_json::from_str::<TableStatistics>(&json).unwrap(), known);
}
