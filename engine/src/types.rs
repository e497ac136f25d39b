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
//! - `wire`: the wire form

mod sql;
mod wire;

use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit};

pub use sql::{SqlTypes, TIME_ZONE, arrow_type};
pub use wire::{to_wire, wire_schema, wire_type};

use crate::error::SqlError;
use datafusion::sql::sqlparser::ast::DataType as SqlType;

/// The type a column is stored in when it is declared with this SQL type.
///
/// # Errors
///
/// [`ErrorCode::FeatureNotSupported`](crate::error::ErrorCode::FeatureNotSupported) for types that
/// this engine does not have.
pub fn storage_type_of(sql_type: &SqlType) -> Result<DataType, SqlError> {
    storage_type(&arrow_type(sql_type)?)
}

/// The form in which values of a type are stored.
///
/// # Errors
///
/// [`ErrorCode::FeatureNotSupported`](crate::error::ErrorCode::FeatureNotSupported) for types that
/// cannot be stored.
pub fn storage_type(data_type: &DataType) -> Result<DataType, SqlError> {
    use crate::error::ErrorCode;
    use DataType as T;
    let nested = |field: &FieldRef| -> Result<FieldRef, SqlError> {
        let data_type = storage_type(field.data_type())?;
        Ok(std::sync::Arc::new(Field::new(field.name(), data_type, field.is_nullable())))
    };
    Ok(match data_type {
        T::Utf8View | T::LargeUtf8 => T::Utf8,
        T::BinaryView | T::LargeBinary => T::Binary,
        T::Dictionary(_, value) => storage_type(value)?,
        T::Interval(_) => T::Interval(IntervalUnit::MonthDayNano),
        T::Decimal32(p, s) | T::Decimal64(p, s) => T::Decimal128(*p, *s),
        T::Float16 => T::Float32,
        T::Date64 => T::Date32,
        T::List(field)
        | T::LargeList(field)
        | T::ListView(field)
        | T::LargeListView(field)
        | T::FixedSizeList(field, _) => T::List(nested(field)?),
        T::Struct(fields) => T::Struct(fields.iter().map(nested).collect::<Result<_, _>>()?),
        T::Map(entries, sorted) => T::Map(nested(entries)?, *sorted),
        T::Union(..) | T::RunEndEncoded(..) | T::Decimal256(..) => {
            return Err(SqlError::new(
                ErrorCode::FeatureNotSupported,
                format!("type {data_type} cannot be stored"),
            ));
        }
        other => other.clone(),
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
