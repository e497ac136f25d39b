//! Primary keys, which are declared and not enforced. Foreign keys are in `information_schema`
//! alone: here their answers are empty, with the schemas that clients need.

use std::sync::Arc;

use arrow::array::{Int32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow_flight::sql::CommandGetPrimaryKeys;
use basalt_engine::snapshot::{CATALOG, Relation, Snapshot};
use basalt_storage::schema::{KeyKind, TableKey, TableSchema};
use tonic::Status;

use super::{in_catalog, schema, text, texts, unencodable};

/// The primary key of a table, column by column; nothing for a table that has none or is not there.
pub(super) fn primary_keys(
    snapshot: &Snapshot,
    command: &CommandGetPrimaryKeys,
) -> Result<RecordBatch, Status> {
    let wanted = |name: &str| command.db_schema.as_deref().is_none_or(|wanted| wanted == name);
    let mut rows: Vec<(&str, &str, i32, &str)> = Vec::new();
    for (schema_name, relations) in snapshot.schemas.iter().filter(|(name, _)| wanted(name)) {
        if !in_catalog(command.catalog.as_deref()) {
            break;
        }
        if let Some(Relation::Table(table)) = relations.relations.get(&command.table)
            && let Some(key) = primary(&table.schema)
        {
            let columns = key.columns.iter().filter_map(|id| table.schema.column(*id));
            rows.extend((1..).zip(columns).map(|(n, column)| {
                (schema_name.as_str(), column.name.as_str(), n, key.name.as_str())
            }));
        }
    }
    let columns = vec![
        texts(rows.iter().map(|_| CATALOG)),
        texts(rows.iter().map(|(schema, ..)| *schema)),
        texts(rows.iter().map(|_| command.table.as_str())),
        texts(rows.iter().map(|(_, column, ..)| *column)),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|(_, _, n, _)| *n))),
        texts(rows.iter().map(|(.., key)| *key)),
    ];
    RecordBatch::try_new(primary_keys_schema(), columns).map_err(unencodable)
}

fn primary(table: &TableSchema) -> Option<&TableKey> {
    table.keys.iter().find(|key| key.kind == KeyKind::Primary)
}

/// The answer to GetPrimaryKeys.
pub(super) fn primary_keys_schema() -> SchemaRef {
    schema(vec![
        text("catalog_name", true),
        text("db_schema_name", true),
        text("table_name", false),
        text("column_name", false),
        Field::new("key_sequence", DataType::Int32, false),
        text("key_name", true),
    ])
}

/// The answer to GetImportedKeys, GetExportedKeys and GetCrossReference.
pub(super) fn foreign_keys_schema() -> SchemaRef {
    schema(vec![
        text("pk_catalog_name", true),
        text("pk_db_schema_name", true),
        text("pk_table_name", false),
        text("pk_column_name", false),
        text("fk_catalog_name", true),
        text("fk_db_schema_name", true),
        text("fk_table_name", false),
        text("fk_column_name", false),
        Field::new("key_sequence", DataType::Int32, false),
        text("fk_key_name", true),
        text("pk_key_name", true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ])
}
