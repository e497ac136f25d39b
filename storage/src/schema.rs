//! A table's columns by stable id, in their storage form.
//!
//! The type of a column is an Arrow [`DataType`] in *storage form*, the closed set that
//! `FORMAT.md` lists. Scans may hand out an equivalent form that is faster to compute with
//! (`Utf8View` for `Utf8`); what is stored and what is declared stay as they are here.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::convert::{IpcSchemaEncoder, fb_to_schema};
use arrow::ipc::root_as_schema;
use serde::{Deserialize, Serialize};

use crate::encoding::ChunkEncoding;
use crate::ids::ColumnId;

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The column's id, stable under renames.
    pub id: ColumnId,
    /// The name as the user wrote it, any text of 1 to 255 characters.
    pub name: String,
    /// The type, in storage form.
    #[serde(with = "data_type")]
    pub data_type: DataType,
    /// Whether NULL is allowed.
    pub nullable: bool,
    /// What was declared of it beyond its type.
    #[serde(default, skip_serializing_if = "Declared::is_nothing")]
    pub declared: Declared,
}

/// What was declared of a column beyond its type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// The text of its DEFAULT expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// The most characters a value may have: the `n` of `VARCHAR(n)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chars_max: Option<u32>,
    /// How its values are written, whatever a sample of them says: `ENCODE`. (Since format 6.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encode: Option<ChunkEncoding>,
}

impl Declared {
    /// Whether nothing was declared.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// A key of a table. It is information for people and tools and never enforced, so nothing may
/// conclude from it that rows are distinct.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableKey {
    /// Its name, unique in the table.
    pub name: String,
    /// What it says.
    pub kind: KeyKind,
    /// Its columns, in order.
    pub columns: Vec<ColumnId>,
}

/// What a key says of its columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum KeyKind {
    /// `PRIMARY KEY`.
    Primary,
    /// `UNIQUE`.
    Unique,
    /// `FOREIGN KEY`: by names, because the other table may be dropped and made again.
    Foreign {
        /// The schema of the table that it refers to.
        schema: String,
        /// That table.
        table: String,
        /// Its columns, one for each of the key's.
        columns: Vec<String>,
    },
}

/// The columns of a table at one schema version, in the order of `SELECT *`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSchema {
    /// Grows with every change to the columns.
    pub version: u32,
    /// The columns.
    pub columns: Vec<Column>,
    /// The keys, none of them enforced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<TableKey>,
}

impl TableSchema {
    /// The Arrow schema of the columns, in storage form.
    pub fn to_arrow(&self) -> SchemaRef {
        let fields =
            self.columns.iter().map(|c| Field::new(&c.name, c.data_type.clone(), c.nullable));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// The column with this id.
    pub fn column(&self, id: ColumnId) -> Option<&Column> {
        self.columns.iter().find(|c| c.id == id)
    }
}

/// An Arrow schema as its IPC flatbuffer (`Schema.fbs`).
pub fn schema_to_bytes(schema: &Schema) -> Vec<u8> {
    IpcSchemaEncoder::new().schema_to_fb(schema).finished_data().to_vec()
}

/// Reads what [`schema_to_bytes`] wrote. Arrow's decoder may panic on hostile bytes (arrow 59);
/// that is an error here.
///
/// # Errors
/// When the bytes are no schema.
pub fn schema_from_bytes(bytes: &[u8]) -> Result<Schema, ArrowError> {
    let malformed = || ArrowError::ParseError("the bytes are no Arrow schema".to_owned());
    let flatbuffer = root_as_schema(bytes).map_err(|_| malformed())?;
    std::panic::catch_unwind(|| fb_to_schema(flatbuffer)).map_err(|_| malformed())
}

/// Arrow types in the catalog are written as their IPC schema message, base16: Arrow's own,
/// specified and versioned encoding of every type.
mod data_type {
    use arrow::datatypes::{DataType, Field, Schema};
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(
        ty: &DataType,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let schema = Schema::new(vec![Field::new("t", ty.clone(), true)]);
        let encoded = super::schema_to_bytes(&schema);
        let hex: String = encoded.iter().map(|b| format!("{b:02x}")).collect();
        serializer.serialize_str(&hex)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<DataType, D::Error> {
        let hex = String::deserialize(deserializer)?;
        let bytes: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|i| hex.get(i..i + 2).and_then(|b| u8::from_str_radix(b, 16).ok()))
            .collect::<Option<_>>()
            .ok_or_else(|| D::Error::custom("a data type is not base16"))?;
        let schema = super::schema_from_bytes(&bytes).map_err(D::Error::custom)?;
        match schema.fields().as_ref() {
            [field] => Ok(field.data_type().clone()),
            _ => Err(D::Error::custom("a data type has not exactly one field")),
        }
    }
}
