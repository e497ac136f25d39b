//! Types: as SQL names them, as they are stored, scanned and sent.
//!
//! ```text
//! SQL name        --arrow_type-->   Arrow type     CREATE TABLE, CAST
//! Arrow type      --storage_type--> stored form    columns of a table
//! stored form     --scan_type-->    scan form      what a scan hands to operators
//! any Arrow type  --wire_type-->    wire form      what every client understands
//! ```
//!
//! Invariant: each step depends on the type alone, and the later three are lossless. A statement's
//! wire schema comes from [`wire_schema`] and nowhere else, and every batch sent is cast to it by
//! [`to_wire`]: Flight clients refuse a stream whose schema differs from the announced one in as
//! little as nullability (RULES 26).
//!
//! - `sql`: SQL type names
//! - `names`: and back
//! - `wire`: the wire form

mod names;
mod sql;
mod wire;

use arrow::datatypes::DataType;

pub use names::{column_type_name, identifier, type_name};
pub use sql::{SqlTypes, TIME_ZONE, arrow_type, split_length};
pub use wire::{to_wire, wire_schema, wire_type};

use crate::error::SqlError;
use datafusion::sql::sqlparser::ast::DataType as SqlType;

/// The type a column is stored in when it is declared with this SQL type, whatever its length.
///
/// # Errors
///
/// [`ErrorCode::FeatureNotSupported`](crate::error::ErrorCode::FeatureNotSupported) for types that
/// this engine does not have.
pub fn storage_type_of(sql_type: &SqlType) -> Result<DataType, SqlError> {
    storage_type(&arrow_type(&split_length(sql_type)?.0)?)
}

/// The form in which values of a type are stored.
///
/// # Errors
///
/// [`ErrorCode::FeatureNotSupported`](crate::error::ErrorCode::FeatureNotSupported) for types that
/// cannot be stored.
pub fn storage_type(data_type: &DataType) -> Result<DataType, SqlError> {
    basalt_storage::types::storage_type(data_type).map_err(|_| {
        let message = format!("type {data_type} cannot be stored");
        SqlError::new(crate::error::ErrorCode::FeatureNotSupported, message)
    })
}

/// The form in which a scan hands out values of a stored type.
///
/// Views at the top level, because operators are faster on them; nested types as they are stored.
pub fn scan_type(storage_type: &DataType) -> DataType {
    match storage_type {
        DataType::Utf8 => DataType::Utf8View,
        DataType::Binary => DataType::BinaryView,
        other => other.clone(),
    }
}
