//! Values of an incoming array in their storage form.
//!
//! Invariant: lossless. A value that the storage form cannot hold is an error, never a NULL.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, StructArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Date64Type, Field};

use super::storage_type;
use crate::error::{Result, StorageError};

/// Days are what a `Date64` may hold, in this many milliseconds each.
const DAY_MS: i64 = 86_400_000;

/// The values of `array` as `target`, which must be the storage form of its type up to the
/// names of nested fields.
///
/// # Errors
/// [`StorageError::UnsupportedType`] when `target` is not that form;
/// [`StorageError::InvalidData`] when a value does not fit (a `Date64` with a time of day, more
/// than 2 GiB of text in one array).
pub fn to_storage(array: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    if array.data_type() == target {
        return Ok(Arc::clone(array));
    }
    rebuild(&unwrapped(array)?, target, &|array, target| leaf(array, target))
}

/// The array with dictionaries, runs and the many kinds of lists replaced by plain forms, one
/// level deep.
fn unwrapped(array: &ArrayRef) -> Result<ArrayRef> {
    use DataType as T;
    let plain = match array.data_type() {
        T::Dictionary(_, value) => value.as_ref().clone(),
        T::RunEndEncoded(_, value) => value.data_type().clone(),
        T::LargeList(item)
        | T::ListView(item)
        | T::LargeListView(item)
        | T::FixedSizeList(item, _) => {
            T::List(Arc::new(Field::new(item.name(), item.data_type().clone(), true)))
        }
        _ => return Ok(Arc::clone(array)),
    };
    // A dictionary of dictionaries, or of lists, takes another round.
    unwrapped(&checked_cast(array, &plain)?)
}

fn leaf(array: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    let source = array.data_type();
    if source == target {
        return Ok(Arc::clone(array));
    }
    if source == &DataType::Null {
        return Ok(new_null_array(target, array.len()));
    }
    if storage_type(source)? != *target {
        return Err(StorageError::unsupported(source));
    }
    if source == &DataType::Date64 {
        let dates = array.as_primitive::<Date64Type>();
        if let Some(ms) = dates.iter().flatten().find(|ms| ms % DAY_MS != 0) {
            return Err(StorageError::invalid_data(format!(
                "date of {ms} milliseconds since 1970 is not a whole day"
            )));
        }
    }
    checked_cast(array, target)
}

fn checked_cast(array: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    Ok(cast_with_options(array, target, &options)?)
}

/// Converts the leaves of `array` with `leaf` and puts lists, structs and maps of type `target`
/// around them again.
pub(crate) fn rebuild(
    array: &ArrayRef,
    target: &DataType,
    leaf: &dyn Fn(&ArrayRef, &DataType) -> Result<ArrayRef>,
) -> Result<ArrayRef> {
    let child = |array: &ArrayRef, field: &Field| {
        if array.data_type() == field.data_type() {
            return Ok(Arc::clone(array));
        }
        rebuild(&unwrapped(array)?, field.data_type(), leaf)
    };
    match (array.data_type(), target) {
        (DataType::List(_), DataType::List(item)) => {
            let list = array.as_list::<i32>();
            let values = child(list.values(), item)?;
            let nulls = list.nulls().cloned();
            let list = ListArray::try_new(Arc::clone(item), list.offsets().clone(), values, nulls)?;
            Ok(Arc::new(list))
        }
        (DataType::Struct(from), DataType::Struct(fields)) if from.len() == fields.len() => {
            Ok(Arc::new(rebuild_struct(array.as_struct(), fields, &child)?))
        }
        (DataType::Map(_, _), DataType::Map(entries, sorted)) => {
            let map = array.as_map();
            let DataType::Struct(fields) = entries.data_type() else {
                return Err(StorageError::unsupported(target));
            };
            let rows = rebuild_struct(map.entries(), fields, &child)?;
            let (offsets, nulls) = (map.offsets().clone(), map.nulls().cloned());
            let map = MapArray::try_new(Arc::clone(entries), offsets, rows, nulls, *sorted)?;
            Ok(Arc::new(map))
        }
        _ => leaf(array, target),
    }
}

fn rebuild_struct(
    array: &StructArray,
    fields: &arrow::datatypes::Fields,
    child: &dyn Fn(&ArrayRef, &Field) -> Result<ArrayRef>,
) -> Result<StructArray> {
    let columns = array
        .columns()
        .iter()
        .zip(fields)
        .map(|(column, field)| child(column, field).map_err(|e| e.with_column(field.name())))
        .collect::<Result<Vec<_>>>()?;
    Ok(StructArray::try_new(fields.clone(), columns, array.nulls().cloned())?)
}
