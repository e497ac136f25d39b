//! The wire form of types: the closed set that every Flight SQL client understands.
//!
//! | engine | wire |
//! |---|---|
//! | `Utf8View`, `LargeUtf8` | `Utf8` |
//! | `BinaryView`, `LargeBinary` | `Binary` |
//! | dictionary or run-end encoded | the values |
//! | `Decimal32`, `Decimal64` | `Decimal128` |
//! | `Float16` | `Float32` |
//! | `Interval(_)` | `Interval(MonthDayNano)` |
//! | lists of any layout | `List` |
//! | all else, `Null` included | as it is |
//!
//! Invariant: every field is nullable, at every depth, but for a map's entries and keys, which
//! Arrow defines as never NULL; metadata is dropped.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, IntervalUnit, Schema, SchemaRef};

use crate::error::{ErrorCode, SqlError, from_datafusion, printable};

/// The schema that clients see for rows of `schema`.
pub fn wire_schema(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(nullable).collect::<Fields>()))
}

/// The type that clients see for values of a type.
pub fn wire_type(data_type: &DataType) -> DataType {
    use DataType as T;
    match data_type {
        T::Utf8View | T::LargeUtf8 => T::Utf8,
        T::BinaryView | T::LargeBinary => T::Binary,
        T::Dictionary(_, value) => wire_type(value),
        T::RunEndEncoded(_, value) => wire_type(value.data_type()),
        T::Decimal32(precision, scale) | T::Decimal64(precision, scale) => {
            T::Decimal128(*precision, *scale)
        }
        T::Float16 => T::Float32,
        T::Interval(_) => T::Interval(IntervalUnit::MonthDayNano),
        T::List(item)
        | T::LargeList(item)
        | T::ListView(item)
        | T::LargeListView(item)
        | T::FixedSizeList(item, _) => T::List(nullable(item)),
        T::Struct(fields) => T::Struct(fields.iter().map(nullable).collect()),
        T::Map(entries, sorted) => T::Map(map_entries(entries), *sorted),
        other => other.clone(),
    }
}

fn nullable(field: &FieldRef) -> FieldRef {
    Arc::new(Field::new(field.name(), wire_type(field.data_type()), true))
}

fn map_entries(entries: &FieldRef) -> FieldRef {
    let data_type = match entries.data_type() {
        DataType::Struct(fields) => DataType::Struct(
            fields
                .iter()
                .enumerate()
                .map(|(index, field)| {
                    let is_value = index > 0;
                    Arc::new(Field::new(field.name(), wire_type(field.data_type()), is_value))
                })
                .collect(),
        ),
        other => wire_type(other),
    };
    Arc::new(Field::new(entries.name(), data_type, false))
}

/// Casts a batch to a wire schema made by [`wire_schema`] from the schema of the batch.
///
/// # Errors
///
/// [`ErrorCode::Internal`] when the batch has other columns than the schema, and
/// [`ErrorCode::ResourcesExhausted`] when the text of one column is over 2 GiB.
pub fn to_wire(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, SqlError> {
    if batch.num_columns() != schema.fields().len() {
        return Err(mismatch(format!(
            "a batch has {} columns where {} were announced",
            batch.num_columns(),
            schema.fields().len()
        )));
    }
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(array, field)| column_to_wire(array, field))
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|error| mismatch(error.to_string()))
}

fn column_to_wire(array: &ArrayRef, field: &Field) -> Result<ArrayRef, SqlError> {
    if array.data_type() == field.data_type() {
        return Ok(Arc::clone(array));
    }
    let found = wire_type(array.data_type());
    if found != *field.data_type() && !is_other_precision(&found, field.data_type()) {
        return Err(mismatch(format!(
            "column \"{}\" has type {} where {} was announced",
            printable(field.name()),
            array.data_type(),
            field.data_type()
        )));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, field.data_type(), &options)
        .map_err(|error| from_datafusion(error.into()))
}

/// Whether types are decimals of another precision or of fewer digits after the point. DataFusion
/// rewrites a sum beside a distinct aggregate into a sum of sums, which announces DECIMAL(p) and
/// returns DECIMAL(p + 10), and `round(x, 2)` announces the scale of x; the cast loses no digit and
/// refuses a value that does not fit what was announced.
fn is_other_precision(found: &DataType, announced: &DataType) -> bool {
    match (found, announced) {
        (DataType::Decimal128(_, found), DataType::Decimal128(_, announced))
        | (DataType::Decimal256(_, found), DataType::Decimal256(_, announced)) => {
            found <= announced
        }
        _ => false,
    }
}

fn mismatch(what: String) -> SqlError {
    SqlError::new(ErrorCode::Internal, format!("internal error: {what}"))
        .with_hint("this is a bug: please report it with the statement")
}
