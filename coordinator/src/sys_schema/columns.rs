//! Columns of stored tables: what is declared of their encoding, and what they take on disk.

use arrow::record_batch::RecordBatch;
use basalt_engine::snapshot::Snapshot;
use basalt_engine::types::column_type_name;
use datafusion::error::Result;

use super::{numbers, stored, strings, strings_or_null};
use crate::statements::compression::{StoredColumn, declared_name};

/// One row per column, in the order of each table.
pub(super) fn columns(snapshot: &Snapshot) -> Result<RecordBatch> {
    let rows: Vec<_> = stored(snapshot)
        .into_iter()
        .flat_map(|table| table.schema.columns.iter().map(move |column| (table, column)))
        .map(|(table, column)| (table, column, StoredColumn::of(table, column.id)))
        .collect();
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("schema_name", strings(rows.iter().map(|row| row.0.schema_name.clone())), false),
        ("table_name", strings(rows.iter().map(|row| row.0.name.clone())), false),
        ("table_id", numbers(rows.iter().map(|row| row.0.id.0)), false),
        ("column_id", numbers(rows.iter().map(|row| u64::from(row.1.id.0))), false),
        ("column_name", strings(rows.iter().map(|row| row.1.name.clone())), false),
        ("data_type", strings(rows.iter().map(|row| column_type_name(row.1))), false),
        ("encode", strings(rows.iter().map(|row| declared_name(row.1).to_owned())), false),
        ("stored", strings_or_null(rows.iter().map(|row| row.2.names())), true),
        ("bytes", numbers(rows.iter().map(|row| row.2.bytes)), false),
    ])?)
}
