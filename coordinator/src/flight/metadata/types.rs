//! The SQL types: their names, what XDBC wants to know of them, and the metadata of columns.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, IntervalUnit, Schema, SchemaRef};
use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{Nullable, Searchable, XdbcDataType};
use basalt_engine::error::ErrorCode;
use basalt_engine::snapshot::CATALOG;
use tonic::Status;

use super::RelationName;
use crate::flight::status;

/// A relation's schema with what Flight SQL says of each column in its metadata.
pub(super) fn describe_columns(columns: &Schema, relation: &RelationName) -> Schema {
    let described = columns.fields().iter().map(|field| {
        let mut metadata = field.metadata().clone();
        metadata.extend(column_metadata(field, relation));
        field.as_ref().clone().with_metadata(metadata)
    });
    Schema::new(described.collect::<Vec<Field>>())
}

fn column_metadata(field: &Field, relation: &RelationName) -> HashMap<String, String> {
    let mut metadata = HashMap::new();
    let mut insert = |key: &str, value: String| {
        metadata.insert(format!("ARROW:FLIGHT:SQL:{key}"), value);
    };
    insert("CATALOG_NAME", CATALOG.to_owned());
    insert("SCHEMA_NAME", relation.schema.clone());
    insert("TABLE_NAME", relation.name.clone());
    insert("TYPE_NAME", sql_type(field.data_type()).to_owned());
    if let DataType::Decimal128(precision, scale) = field.data_type() {
        insert("PRECISION", precision.to_string());
        insert("SCALE", scale.to_string());
    }
    metadata
}

/// The SQL name of a type on the wire.
fn sql_type(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INTEGER",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INTEGER UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float16 | DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE",
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => "DECIMAL",
        DataType::Date32 | DataType::Date64 => "DATE",
        DataType::Time32(_) | DataType::Time64(_) => "TIME",
        DataType::Timestamp(_, None) => "TIMESTAMP",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE",
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR",
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => "VARBINARY",
        DataType::List(_)
        | DataType::LargeList(_)
        | DataType::FixedSizeList(..)
        | DataType::ListView(_)
        | DataType::LargeListView(_) => "ARRAY",
        DataType::Struct(_) => "STRUCT",
        DataType::Map(..) => "MAP",
        DataType::Dictionary(_, value) => sql_type(value),
        DataType::RunEndEncoded(_, values) => sql_type(values.data_type()),
        DataType::Union(..) => "UNION",
        DataType::Null => "NULL",
    }
}

/// The answer to GetXdbcTypeInfo, for one XDBC type or all.
pub(super) fn xdbc(data_type: Option<i32>) -> Result<RecordBatch, Status> {
    xdbc_data()?.record_batch(data_type).map_err(failed)
}

/// Its schema.
pub(super) fn xdbc_schema() -> Result<SchemaRef, Status> {
    Ok(xdbc_data()?.schema())
}

fn xdbc_data() -> Result<XdbcTypeInfoData, Status> {
    use DataType as T;
    let mut builder = XdbcTypeInfoDataBuilder::new();
    let integers = [
        (T::Int8, XdbcDataType::XdbcTinyint, 8),
        (T::Int16, XdbcDataType::XdbcSmallint, 16),
        (T::Int32, XdbcDataType::XdbcInteger, 32),
        (T::Int64, XdbcDataType::XdbcBigint, 64),
        (T::UInt8, XdbcDataType::XdbcTinyint, 8),
        (T::UInt16, XdbcDataType::XdbcSmallint, 16),
        (T::UInt32, XdbcDataType::XdbcInteger, 32),
        (T::UInt64, XdbcDataType::XdbcBigint, 64),
    ];
    for (arrow, xdbc, bits) in integers {
        let unsigned = matches!(arrow, T::UInt8 | T::UInt16 | T::UInt32 | T::UInt64);
        builder.append(XdbcTypeInfo { unsigned_attribute: Some(unsigned), ..number(&arrow, xdbc, bits, 2) });
    }
    builder.append(number(&T::Float32, XdbcDataType::XdbcReal, 24, 2));
    builder.append(number(&T::Float64, XdbcDataType::XdbcDouble, 53, 2));
    builder.append(XdbcTypeInfo {
        create_params: Some(vec!["precision".to_owned(), "scale".to_owned()]),
        fixed_prec_scale: true,
        minimum_scale: Some(0),
        maximum_scale: Some(38),
        ..number(&T::Decimal128(38, 0), XdbcDataType::XdbcDecimal, 38, 10)
    });
    builder.append(literal(&T::Boolean, XdbcDataType::XdbcBit, None));
    builder.append(XdbcTypeInfo {
        case_sensitive: true,
        ..literal(&T::Utf8, XdbcDataType::XdbcVarchar, Some("'"))
    });
    builder.append(literal(&T::Binary, XdbcDataType::XdbcVarbinary, Some("X'")));
    builder.append(literal(&T::Date32, XdbcDataType::XdbcDate, Some("DATE '")));
    let micros = arrow::datatypes::TimeUnit::Microsecond;
    builder.append(literal(&T::Time64(micros), XdbcDataType::XdbcTime, Some("TIME '")));
    let local = T::Timestamp(micros, None);
    builder.append(literal(&local, XdbcDataType::XdbcTimestamp, Some("TIMESTAMP '")));
    let zoned = T::Timestamp(micros, Some("UTC".into()));
    builder.append(literal(&zoned, XdbcDataType::XdbcTimestamp, Some("TIMESTAMP '")));
    let interval = T::Interval(IntervalUnit::MonthDayNano);
    builder.append(literal(&interval, XdbcDataType::XdbcInterval, Some("INTERVAL '")));
    builder.build().map_err(failed)
}

fn number(arrow: &DataType, xdbc: XdbcDataType, size: i32, radix: i32) -> XdbcTypeInfo {
    XdbcTypeInfo {
        column_size: Some(size),
        auto_increment: Some(false),
        unsigned_attribute: Some(false),
        num_prec_radix: Some(radix),
        ..literal(arrow, xdbc, None)
    }
}

/// A type whose literals are between `prefix` and a quote.
fn literal(arrow: &DataType, xdbc: XdbcDataType, prefix: Option<&str>) -> XdbcTypeInfo {
    let name = sql_type(arrow).to_owned();
    XdbcTypeInfo {
        type_name: name.clone(),
        local_type_name: Some(name),
        data_type: xdbc,
        sql_data_type: xdbc,
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        literal_prefix: prefix.map(str::to_owned),
        literal_suffix: prefix.map(|_| "'".to_owned()),
        ..XdbcTypeInfo::default()
    }
}

fn failed(e: arrow_flight::error::FlightError) -> Status {
    status::error(ErrorCode::Internal, format!("type information: {e}"))
}
