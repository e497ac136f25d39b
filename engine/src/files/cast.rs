//! A cast that loses nothing: every value arrives exactly, or the first that does not is the error.
//! Only the sign of a NaN or of a zero does not, as SQL has one of each.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, new_null_array};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;
use basalt_storage::error::StorageError;
use basalt_storage::types::to_storage;

use crate::arithmetic::normalize_floats;
use crate::error::{ErrorCode, SqlError, printable};
use crate::types::storage_type;

/// Casts values to a type; equal types are handed through.
///
/// # Errors
///
/// [`ErrorCode::DataException`] with an example when a value would change, overflow or lose
/// digits; [`ErrorCode::DatatypeMismatch`] when the types cannot be cast at all.
pub fn checked_cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, SqlError> {
    cast_normal(array, to).map_err(|why| why.into_error(None, array, to))
}

/// As [`checked_cast`]; errors also name the column.
///
/// # Errors
///
/// As [`checked_cast`].
pub fn checked_cast_column(
    column: &str,
    array: &ArrayRef,
    to: &DataType,
) -> Result<ArrayRef, SqlError> {
    cast_normal(array, to).map_err(|why| why.into_error(Some(column), array, to))
}

fn cast_normal(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, Why> {
    // Before too: a negative zero is an integer like the other. After: text has signs of its own.
    cast_values(&normalize_floats(Arc::clone(array)), to).map(normalize_floats)
}

enum Why {
    /// The value in this row does not fit.
    Row(usize),
    /// The kernel refused.
    Arrow(ArrowError),
    /// A value has no storage form.
    Storage(StorageError),
}

impl From<ArrowError> for Why {
    fn from(error: ArrowError) -> Self {
        Self::Arrow(error)
    }
}

impl Why {
    fn into_error(self, column: Option<&str>, array: &ArrayRef, to: &DataType) -> SqlError {
        let column =
            column.map(|name| format!("column \"{}\": ", printable(name))).unwrap_or_default();
        match self {
            Self::Row(row) => {
                let value = array_value_to_string(array, row).unwrap_or_default();
                let value: String = value.chars().take(60).collect();
                SqlError::new(
                    ErrorCode::DataException,
                    format!(
                        "{column}value {} of type {} does not fit type {to} exactly",
                        printable(&value),
                        array.data_type()
                    ),
                )
                .with_hint("give the column a wider type, or cast it in a query yourself")
            }
            Self::Storage(error @ StorageError::InvalidData { .. }) => SqlError::new(
                ErrorCode::DataException,
                format!("{column}{}", printable(&error.to_string())),
            ),
            Self::Storage(error) => SqlError::new(
                ErrorCode::DatatypeMismatch,
                format!("{column}{}", printable(&error.to_string())),
            ),
            Self::Arrow(error) => SqlError::new(
                ErrorCode::DatatypeMismatch,
                format!(
                    "{column}type {} cannot become type {to}: {}",
                    array.data_type(),
                    printable(&error.to_string())
                ),
            ),
        }
    }
}

fn cast_values(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, Why> {
    let from = array.data_type();
    if from == to {
        return Ok(ArrayRef::clone(array));
    }
    if *from == DataType::Null {
        return Ok(new_null_array(to, array.len()));
    }
    // Another layout of the same values: the kernel does not know all of them.
    if *from != DataType::Date64 && storage_type(from).is_ok_and(|stored| stored == *to) {
        return to_storage(array, to).map_err(Why::Storage);
    }
    if from.is_nested() || to.is_nested() {
        // Inside nested types only exact conversions are planned; the kernel still must not
        // turn what it cannot cast into NULL.
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        return Ok(cast_with_options(array, to, &strict)?);
    }
    // The lenient cast makes NULLs of values that do not fit, which tells where they are.
    let result = cast(array, to)?;
    if result.logical_null_count() != array.logical_null_count() {
        let (before, after) = (array.logical_nulls(), result.logical_nulls());
        let is_null = |nulls: &Option<arrow::buffer::NullBuffer>, row| {
            nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
        };
        let lost = (0..array.len()).find(|&row| is_null(&after, row) && !is_null(&before, row));
        if let Some(row) = lost {
            return Err(Why::Row(row));
        }
    }
    // What fits may still have been rounded: it must be the same on the way back.
    if may_round(from, to) {
        let back = cast(&result, from)?;
        let changed: BooleanArray = distinct(&back, array)?;
        if let Some(row) = (0..changed.len()).find(|&row| changed.value(row)) {
            return Err(Why::Row(row));
        }
    }
    Ok(result)
}

fn may_round(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    let layout_only = |ty: &DataType| {
        matches!(
            ty,
            T::Utf8
                | T::LargeUtf8
                | T::Utf8View
                | T::Binary
                | T::LargeBinary
                | T::BinaryView
                | T::FixedSizeBinary(_)
                | T::Dictionary(..)
                | T::Null
        )
    };
    let integers = from.is_integer() && to.is_integer();
    !(integers || layout_only(from) || layout_only(to))
}
