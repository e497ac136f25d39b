//! What commits of deleted rows and replaced segments promise.

use basalt_coordinator::catalog::{
    CatalogError, Change, Command, Committed, SegmentDeletes, SegmentSeen,
};
use basalt_engine::error::{ErrorCode, SqlError};
use basalt_storage::delete_vector::DeleteVector;
use basalt_storage::ids::{TableId, TxnId};

use super::fixtures::{Fixture, segment};

fn live_rows(fixture: &Fixture) -> u64 {
    fixture.table("t").segments.iter().map(|segment| segment.live_rows()).sum()
}

/// A deletion of some rows of the table's only segment, which had so many deleted rows when it
/// was read.
fn delete(fixture: &Fixture, rows_deleted: u64, rows: &[u32]) -> Command {
    let table = fixture.table("t");
    let seen = SegmentSeen { segment: table.segments[0].segment, rows_deleted };
    let rows = DeleteVector::from_positions(rows.iter().copied()).unwrap();
    let change =
        Change::DeleteRows { table: table.id, segments: vec![SegmentDeletes { seen, rows }] };
    Command::new(TxnId::generate(), 0, vec![change])
}

/// All segments of the table replaced by one of `rows` rows.
fn replace(fixture: &Fixture, rows: u32) -> Command {
    let (table, txn) = (fixture.table("t"), TxnId::generate());
    let replaced = table.segments.iter().map(|segment| SegmentSeen {
        segment: segment.segment,
        rows_deleted: segment.rows_deleted(),
    });
    let change = Change::ReplaceSegments {
        table: table.id,
        schema_version: 1,
        replaced: replaced.collect(),
        segments: vec![segment(table.id, txn, rows, fixture.workers[0])],
    };
    Command::new(txn, 0, vec![change])
}

async fn commit(fixture: &Fixture, command: Command) -> Result<Committed, CatalogError> {
    fixture.catalog.commit(command).await
}

async fn fixture() -> (Fixture, TableId) {
    let fixture = Fixture::new().await;
    let table = fixture.create_table("t").await;
    (fixture, table)
}

#[tokio::test]
async fn deleted_rows_are_gone_from_the_next_snapshot_and_stay_in_older_ones() {
    let (fixture, table) = fixture().await;
    fixture.append(table, 10).await;
    let before = fixture.table("t");
    commit(&fixture, delete(&fixture, 0, &[1, 2])).await.unwrap();
    assert_eq!(live_rows(&fixture), 8);
    commit(&fixture, delete(&fixture, 2, &[9])).await.unwrap();
    assert_eq!(live_rows(&fixture), 7);
    assert_eq!(before.segments[0].live_rows(), 10);
}

#[tokio::test]
async fn a_segment_that_loses_its_last_row_is_gone() {
    let (fixture, table) = fixture().await;
    fixture.append(table, 3).await;
    commit(&fixture, delete(&fixture, 0, &[0, 1, 2])).await.unwrap();
    assert!(fixture.table("t").segments.is_empty());
}

#[tokio::test]
async fn a_deletion_from_a_segment_that_lost_rows_since_it_was_read_is_a_conflict() {
    let (fixture, table) = fixture().await;
    fixture.append(table, 10).await;
    let late = delete(&fixture, 0, &[5]);
    let first = delete(&fixture, 0, &[1]);
    let winner = first.txn;
    commit(&fixture, first).await.unwrap();
    let error = commit(&fixture, late).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("table \"public.t\" was changed by transaction {winner}")
    );
    assert_eq!(SqlError::from(error).code, ErrorCode::Conflict);
    assert_eq!(live_rows(&fixture), 9);
}

#[tokio::test]
async fn an_append_disturbs_no_deletion() {
    let (fixture, table) = fixture().await;
    fixture.append(table, 10).await;
    let late = delete(&fixture, 0, &[5]);
    fixture.append(table, 4).await;
    commit(&fixture, late).await.unwrap();
    assert_eq!(live_rows(&fixture), 13);
}

#[tokio::test]
async fn rows_that_are_not_there_or_gone_already_cannot_be_deleted() {
    let (fixture, table) = fixture().await;
    fixture.append(table, 10).await;
    commit(&fixture, delete(&fixture, 0, &[5])).await.unwrap();
    for rows in [[10], [5]] {
        let error = commit(&fixture, delete(&fixture, 1, &rows)).await.unwrap_err();
        assert!(matches!(error, CatalogError::InvalidCommand { .. }), "{error}");
    }
    assert_eq!(live_rows(&fixture), 9);
}

#[tokio::test]
async fn segments_are_replaced_by_others_with_the_rows_that_live() {
    let (fixture, table) = fixture().await;
    fixture.append(table, 10).await;
    commit(&fixture, delete(&fixture, 0, &[5])).await.unwrap();
    fixture.append(table, 4).await;
    let version = fixture.table("t").version;
    commit(&fixture, replace(&fixture, 13)).await.unwrap();
    let after = fixture.table("t");
    assert_eq!((after.segments.len(), live_rows(&fixture)), (1, 13));
    assert_eq!(after.version, version, "no reader can tell");
}

#[tokio::test]
async fn a_replacement_that_would_lose_or_add_rows_is_refused() {
    let (fixture, table) = fixture().await;
    fixture.append(table, 10).await;
    for rows in [9, 11] {
        let error = commit(&fixture, replace(&fixture, rows)).await.unwrap_err();
        assert!(matches!(error, CatalogError::InvalidCommand { .. }), "{error}");
    }
    assert_eq!(live_rows(&fixture), 10);
}

#[tokio::test]
async fn a_replacement_of_a_segment_that_lost_rows_or_was_replaced_is_a_conflict() {
    let (fixture, table) = fixture().await;
    fixture.append(table, 10).await;
    let (late, later) = (replace(&fixture, 10), replace(&fixture, 10));
    commit(&fixture, delete(&fixture, 0, &[3])).await.unwrap();
    assert!(matches!(commit(&fixture, late).await, Err(CatalogError::Conflict { .. })));
    commit(&fixture, replace(&fixture, 9)).await.unwrap();
    assert!(matches!(commit(&fixture, later).await, Err(CatalogError::Conflict { .. })));
    assert_eq!(live_rows(&fixture), 9);
}

#[tokio::test]
async fn deletions_and_replacements_are_there_after_a_restart() {
    let (fixture, table) = fixture().await;
    fixture.append(table, 10).await;
    commit(&fixture, delete(&fixture, 0, &[5, 6])).await.unwrap();
    fixture.append(table, 4).await;
    commit(&fixture, replace(&fixture, 12)).await.unwrap();
    commit(&fixture, delete(&fixture, 0, &[0])).await.unwrap();
    let seen = fixture.seen();
    let fixture = fixture.reopen();
    assert_eq!((live_rows(&fixture), fixture.seen()), (11, seen));
}
