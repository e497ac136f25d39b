//! Primary and foreign keys. There are no such constraints yet, so every answer is empty: the
//! schemas are what clients need.

use arrow::datatypes::{DataType, Field, SchemaRef};

use super::{schema, text};

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
