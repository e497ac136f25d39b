//! Distribution keys that are chosen for tables: they outlive restarts, stop nobody, and only count once all
//! segments lie by them.

use basalt_coordinator::catalog::{CatalogError, Change, Command, NewTable, SegmentSeen};
use basalt_engine::snapshot::{ChosenKey, Distribution};
use basalt_storage::ids::{ColumnId, TableId, TxnId};
use basalt_storage::manifest::SegmentRecord;

use super::fixtures::{Fixture, command, new_table, segment};

const KEY: ColumnId = ColumnId(1);

fn choice(table: TableId, column: ColumnId) -> Command {
    let key = ChosenKey { column, reason: "it is joined by it".to_owned() };
    command(vec![Change::ChooseKey { table, key }])
}

/// A cluster with an AUTO table of one segment.
async fn auto() -> (Fixture, TableId) {
    let fixture = Fixture::new().await;
    let id = fixture.catalog.allocate_table_id().await.unwrap();
    let new = NewTable { distribution: Distribution::Auto, ..new_table(id, "t") };
    fixture.catalog.commit(command(vec![Change::CreateTable(new)])).await.unwrap();
    fixture.append(id, 10).await;
    (fixture, id)
}

/// Replaces the first segment of the table by one that lies by a column.
fn routed(fixture: &Fixture, table: TableId, column: ColumnId) -> Command {
    let txn = TxnId::generate();
    let replaced = fixture.table("t").segments[0].clone();
    let rows = u32::try_from(replaced.rows).unwrap();
    let by_key =
        SegmentRecord { routed_by: Some(column), ..segment(table, txn, rows, fixture.workers[0]) };
    let change = Change::ReplaceSegments {
        table,
        schema_version: 1,
        replaced: vec![SegmentSeen { segment: replaced.segment, rows_deleted: 0 }],
        segments: vec![by_key],
    };
    Command::new(txn, 0, vec![change])
}

#[tokio::test]
async fn a_chosen_key_counts_once_all_segments_lie_by_it_also_after_a_restart() {
    let (fixture, table) = auto().await;
    let version = fixture.table("t").version;
    fixture.catalog.commit(choice(table, KEY)).await.unwrap();
    let chosen = fixture.table("t");
    assert_eq!(chosen.version, version, "nobody who read the table conflicts");
    assert_eq!((chosen.appended_by(), chosen.key_of_rows()), (Distribution::Key(KEY), None));

    fixture.catalog.commit(routed(&fixture, table, KEY)).await.unwrap();
    assert_eq!(fixture.table("t").key_of_rows(), Some(KEY));
    let fixture = fixture.reopen();
    assert_eq!(fixture.table("t").key_of_rows(), Some(KEY));
    assert_eq!(fixture.table("t").chosen_key, Some(chosen.chosen_key.clone().unwrap()));

    // An append that began before the choice.
    fixture.append(table, 3).await;
    assert_eq!(fixture.table("t").key_of_rows(), None);
    // Enough commits for a checkpoint, which then is what is read.
    for _ in 0..40 {
        fixture.append(table, 1).await;
    }
    let fixture = fixture.reopen();
    assert_eq!(fixture.table("t").appended_by(), Distribution::Key(KEY));
    assert_eq!(fixture.table("t").key_of_rows(), None);
}

#[tokio::test]
async fn segments_of_another_key_do_not_lie_by_the_chosen_one() {
    let (fixture, table) = auto().await;
    fixture.catalog.commit(choice(table, KEY)).await.unwrap();
    fixture.catalog.commit(routed(&fixture, table, ColumnId(2))).await.unwrap();
    assert_eq!(fixture.table("t").key_of_rows(), None);
    let unknown = fixture.catalog.commit(routed(&fixture, table, ColumnId(9))).await.unwrap_err();
    assert!(matches!(unknown, CatalogError::InvalidCommand { .. }), "{unknown}");
}

#[tokio::test]
async fn keys_are_chosen_for_auto_tables_and_once() {
    let (fixture, table) = auto().await;
    let refused = |error: CatalogError| {
        assert!(matches!(error, CatalogError::InvalidCommand { .. }), "{error}");
    };
    refused(fixture.catalog.commit(choice(table, ColumnId(9))).await.unwrap_err());
    fixture.catalog.commit(choice(table, KEY)).await.unwrap();
    refused(fixture.catalog.commit(choice(table, KEY)).await.unwrap_err());
    let even = fixture.create_table("even").await;
    refused(fixture.catalog.commit(choice(even, KEY)).await.unwrap_err());
    assert_eq!(fixture.table("even").chosen_key, None);
}
