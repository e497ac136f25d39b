//! Statistics in the catalog: hints that outlive restarts, follow their rows and stop nobody.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use basalt_coordinator::catalog::{
    CatalogError, Change, Command, SegmentDeletes, SegmentSeen, find_table,
};
use basalt_engine::snapshot::TableSnapshot;
use basalt_engine::statistics::{Analysis, AnalysisKind, ChangedRows, ColumnSketch};
use basalt_storage::delete_vector::DeleteVector;
use basalt_storage::ids::{ColumnId, TableId, TxnId};
use basalt_storage::sketch::DistinctSketch;

use super::fixtures::{Fixture, command, segment};

fn sketch(values: i64) -> ColumnSketch {
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..values));
    let mut distinct = DistinctSketch::default();
    distinct.add(&values).unwrap();
    ColumnSketch { distinct, sample: None }
}

/// What an analysis of the whole table finds.
fn analysis(table: &TableSnapshot, column: ColumnId) -> Command {
    let analysis = Analysis {
        kind: AnalysisKind::Whole,
        version: table.version,
        time_ms: 1_000,
        rows: table.segments.iter().map(|segment| segment.live_rows()).sum(),
        segments: table.segments.iter().map(|segment| segment.segment).collect(),
        columns: BTreeMap::from([(column, sketch(5))]),
    };
    command(vec![Change::RecordAnalysis { table: table.id, analysis }])
}

/// Rows that were added, and deleted, since the table was analysed.
fn changed(fixture: &Fixture) -> Option<(u64, u64)> {
    let table = fixture.table("t");
    let ChangedRows { added, deleted } = table.statistics.as_ref()?.changed(&table.segments);
    Some((added, deleted))
}

async fn analysed() -> (Fixture, TableId) {
    let fixture = Fixture::new().await;
    let table = fixture.create_table("t").await;
    fixture.append(table, 10).await;
    fixture.append(table, 4).await;
    fixture.catalog.commit(analysis(&fixture.table("t"), ColumnId(1))).await.unwrap();
    (fixture, table)
}

#[tokio::test]
async fn what_was_found_is_there_after_a_restart() {
    let (fixture, table) = analysed().await;
    // Enough commits for a checkpoint, which then is what is read.
    for commits in [0, 3, 40] {
        for _ in 0..commits {
            fixture.append(table, 1).await;
        }
    }
    let (kept, rows) = (fixture.table("t").statistics.clone(), changed(&fixture));
    assert_eq!(rows, Some((43, 0)));
    let fixture = fixture.reopen();
    assert_eq!(fixture.table("t").statistics, kept);
    let column = kept.as_ref().and_then(|kept| kept.column(ColumnId(1))).unwrap();
    assert_eq!((column.rows, &column.sketch), (14, &sketch(5)));
}

#[tokio::test]
async fn an_analysis_changes_no_version_and_conflicts_with_nobody() {
    let (fixture, table) = analysed().await;
    let before = fixture.table("t");
    fixture.append(table, 3).await;
    let late = analysis(&before, ColumnId(1));
    let version = fixture.table("t").version;
    fixture.catalog.commit(late).await.unwrap();
    assert_eq!(fixture.table("t").version, version);
    assert_eq!(changed(&fixture), Some((3, 0)));
    let drop = Change::DropTable { table, version: Some(version) };
    fixture.catalog.commit(command(vec![drop])).await.unwrap();
}

#[tokio::test]
async fn an_analysis_of_a_table_that_was_dropped_is_a_conflict_that_says_so() {
    let (fixture, table) = analysed().await;
    let late = analysis(&fixture.table("t"), ColumnId(1));
    let drop = command(vec![Change::DropTable { table, version: None }]);
    fixture.catalog.commit(drop).await.unwrap();
    let error = fixture.catalog.commit(late).await.unwrap_err();
    assert!(matches!(error, CatalogError::Conflict { what: "dropped", .. }), "{error}");
    assert!(find_table(&fixture.catalog.snapshot(), "public", "t").is_err());
}

#[tokio::test]
async fn an_analysis_of_a_column_that_is_not_there_is_refused() {
    let (fixture, _) = analysed().await;
    let wrong = analysis(&fixture.table("t"), ColumnId(77));
    let error = fixture.catalog.commit(wrong).await.unwrap_err();
    assert!(matches!(error, CatalogError::InvalidCommand { .. }), "{error}");
    assert_eq!(changed(&fixture), Some((0, 0)));
}

#[tokio::test]
async fn deleted_rows_count_and_compaction_does_not() {
    let (fixture, table) = analysed().await;
    let segments = fixture.table("t").segments.clone();
    let seen =
        |place: usize, rows_deleted| SegmentSeen { segment: segments[place].segment, rows_deleted };
    let some =
        SegmentDeletes { seen: seen(0, 0), rows: DeleteVector::from_positions([1]).unwrap() };
    let all = DeleteVector::from_positions(0..4).unwrap();
    let all = SegmentDeletes { seen: seen(1, 0), rows: all };
    let delete = Change::DeleteRows { table, segments: vec![some, all] };
    fixture.catalog.commit(command(vec![delete])).await.unwrap();
    assert_eq!(changed(&fixture), Some((0, 5)));

    let txn = TxnId::generate();
    let replace = Change::ReplaceSegments {
        table,
        schema_version: 1,
        replaced: vec![seen(0, 1)],
        segments: vec![segment(table, txn, 9, fixture.workers[0])],
    };
    fixture.catalog.commit(Command::new(txn, 0, vec![replace])).await.unwrap();
    assert_eq!(changed(&fixture), Some((0, 5)));
    let kept = fixture.table("t").statistics.clone();
    assert_eq!(fixture.reopen().table("t").statistics, kept);
}
