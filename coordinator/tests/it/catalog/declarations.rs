//! Defaults, lengths, encodings and keys in the catalog: kept as they are, absent in catalogs of format 1.

use basalt_coordinator::catalog::{Change, NewTable};
use basalt_engine::error::{ErrorCode, SqlError};
use basalt_storage::encoding::ChunkEncoding;
use basalt_storage::ids::{ColumnId, TableId};
use basalt_storage::schema::{Declared, KeyKind, TableKey};

use super::fixtures::{Fixture, command, new_table};

/// A table with one of everything that can be declared.
fn declared(id: TableId) -> NewTable {
    let mut table = new_table(id, "t");
    let [key, note] = table.columns.columns.as_mut_slice() else { panic!() };
    key.declared.default = Some("1 + 1".to_owned());
    note.declared = Declared {
        default: Some("'x'".to_owned()),
        chars_max: Some(5),
        encode: Some(ChunkEncoding::Bytedict),
    };
    let foreign = KeyKind::Foreign {
        schema: "public".to_owned(),
        table: "t".to_owned(),
        columns: vec!["id".to_owned()],
    };
    table.columns.keys = [KeyKind::Primary, KeyKind::Unique, foreign]
        .into_iter()
        .zip(["a", "b", "c"])
        .map(|(kind, name)| TableKey { name: name.to_owned(), kind, columns: vec![ColumnId(1)] })
        .collect();
    table
}

#[tokio::test]
async fn declarations_survive_a_restart() {
    let fixture = Fixture::new().await;
    let id = fixture.catalog.allocate_table_id().await.unwrap();
    let table = declared(id);
    let columns = table.columns.clone();
    fixture.catalog.commit(command(vec![Change::CreateTable(table)])).await.unwrap();
    assert_eq!(*fixture.table("t").schema, columns);
    // Enough commits for a checkpoint, which then is what is read.
    for _ in 0..3 {
        let fixture_table = fixture.table("t").id;
        fixture.append(fixture_table, 2).await;
    }
    let fixture = fixture.reopen();
    assert_eq!(*fixture.table("t").schema, columns);
}

#[test]
fn a_table_of_format_1_declares_nothing() {
    let written = serde_json::to_value(new_table(TableId(1), "t")).unwrap();
    let columns = written["columns"].as_object().unwrap();
    assert!(!columns.contains_key("keys"), "what is not declared is not written: {columns:?}");
    assert!(columns["columns"].as_array().unwrap().iter().all(|c| c.get("declared").is_none()));
    // These are the bytes of format 1, and they are read.
    let read: NewTable = serde_json::from_value(written).unwrap();
    assert_eq!(read, new_table(TableId(1), "t"));
}

#[tokio::test]
async fn a_key_names_columns_of_its_table() {
    let fixture = Fixture::new().await;
    let id = fixture.catalog.allocate_table_id().await.unwrap();
    for (columns, problem) in [
        (vec![ColumnId(9)], "key \"a\" names a column that it does not have"),
        (vec![], "key \"a\" has no columns"),
    ] {
        let mut table = declared(id);
        table.columns.keys[0].columns = columns;
        let refused = fixture.catalog.commit(command(vec![Change::CreateTable(table)])).await;
        let error = SqlError::from(refused.unwrap_err());
        assert_eq!(error.code, ErrorCode::InvalidStatement);
        assert!(error.message.ends_with(problem), "{}", error.message);
    }
}
