//! Storable types: the closed set, the canonical form of an incoming Arrow type, and what a
//! scan may ask for instead of the stored form.
//!
//! ```text
//! incoming            storage form (logical)       physical form in Parquet
//! Dictionary(_,Utf8)  Utf8                         BYTE_ARRAY (String)
//! Interval(DayTime)   Interval(MonthDayNano)       FIXED_LEN_BYTE_ARRAY(16)
//! Decimal128(9,-2)    Decimal128(9,-2)             INT32 Decimal(9,0), unscaled
//! everything else     itself                       itself
//! ```
//!
//! Invariant: both steps are lossless and depend on the type alone. Fields inside lists, structs
//! and maps are NULLable, carry no metadata, and list items and map entries have fixed names, so
//! that equal types compare equal.

mod convert;
mod physical;

use std::sync::Arc;

use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Field, FieldRef, Fields, IntervalUnit, TimeUnit,
};

use crate::error::{Result, StorageError};

pub(crate) use convert::rebuild;
pub use convert::to_storage;
pub(crate) use physical::{from_physical, physical_type, to_physical};

/// How deep lists, structs and maps may nest: bounds the recursion over types read from a file.
pub const TYPE_DEPTH_MAX: usize = 24;

/// The canonical storage form of an Arrow type.
///
/// # Errors
/// [`StorageError::UnsupportedType`] for types outside the closed set of `FORMAT.md`: unions,
/// 256-bit decimals, structs without fields, nesting deeper than [`TYPE_DEPTH_MAX`].
pub fn storage_type(data_type: &DataType) -> Result<DataType> {
    canonical(data_type, TYPE_DEPTH_MAX)
}

fn canonical(ty: &DataType, depth: usize) -> Result<DataType> {
    use DataType as T;
    let Some(depth) = depth.checked_sub(1) else {
        return Err(StorageError::unsupported(ty));
    };
    let child = |field: &FieldRef, name: &str, nullable: bool| -> Result<FieldRef> {
        Ok(Arc::new(Field::new(name, canonical(field.data_type(), depth)?, nullable)))
    };
    Ok(match ty {
        T::Boolean
        | T::Int8
        | T::Int16
        | T::Int32
        | T::Int64
        | T::UInt8
        | T::UInt16
        | T::UInt32
        | T::UInt64
        | T::Float32
        | T::Float64
        | T::Date32
        | T::Timestamp(_, _)
        | T::Duration(_)
        | T::Time32(TimeUnit::Second | TimeUnit::Millisecond)
        | T::Time64(TimeUnit::Microsecond | TimeUnit::Nanosecond)
        | T::Utf8
        | T::Binary => ty.clone(),
        T::Null => T::Int32,
        T::Float16 => T::Float32,
        T::Date64 => T::Date32,
        T::Interval(_) => T::Interval(IntervalUnit::MonthDayNano),
        T::Decimal32(p, s) | T::Decimal64(p, s) | T::Decimal128(p, s) if is_decimal128(*p, *s) => {
            T::Decimal128(*p, *s)
        }
        T::LargeUtf8 | T::Utf8View => T::Utf8,
        T::LargeBinary | T::BinaryView => T::Binary,
        T::FixedSizeBinary(width) if *width > 0 => ty.clone(),
        T::Dictionary(_, value) => canonical(value, depth)?,
        T::RunEndEncoded(_, value) => canonical(value.data_type(), depth)?,
        T::List(item)
        | T::LargeList(item)
        | T::ListView(item)
        | T::LargeListView(item)
        | T::FixedSizeList(item, _) => T::List(child(item, LIST_ITEM, true)?),
        T::Struct(fields) if !fields.is_empty() => {
            T::Struct(fields.iter().map(|f| child(f, f.name(), true)).collect::<Result<Fields>>()?)
        }
        T::Map(entries, _) => match entries.data_type() {
            T::Struct(fields) if fields.len() == 2 => {
                map_type(child(&fields[0], MAP_KEY, false)?, child(&fields[1], MAP_VALUE, true)?)
            }
            _ => return Err(StorageError::unsupported(ty)),
        },
        _ => return Err(StorageError::unsupported(ty)),
    })
}

/// Name of the item field of every stored list, Arrow's own default.
pub(crate) const LIST_ITEM: &str = "item";
/// Names of the fields of every stored map, as in the Arrow columnar format's text.
pub(crate) const MAP_ENTRIES: &str = "entries";
/// See [`MAP_ENTRIES`].
pub(crate) const MAP_KEY: &str = "key";
/// See [`MAP_ENTRIES`].
pub(crate) const MAP_VALUE: &str = "value";

pub(crate) fn map_type(key: FieldRef, value: FieldRef) -> DataType {
    let entries = DataType::Struct(Fields::from(vec![key, value]));
    DataType::Map(Arc::new(Field::new(MAP_ENTRIES, entries, false)), false)
}

fn is_decimal128(precision: u8, scale: i8) -> bool {
    (1..=DECIMAL128_MAX_PRECISION).contains(&precision)
        && scale.unsigned_abs() <= DECIMAL128_MAX_PRECISION
        && i16::from(scale) <= i16::from(precision)
}

/// The form of a stored type that computes fastest: text and binary as views, at any depth.
pub fn view_type(stored: &DataType) -> DataType {
    map_fields(stored, &|leaf| match leaf {
        DataType::Utf8 => DataType::Utf8View,
        DataType::Binary => DataType::BinaryView,
        other => other.clone(),
    })
}

/// Whether a chunk of type `stored` can be decoded straight into `target` without loss: the
/// stored form itself, views and dictionaries of text and binary, narrow decimals that hold the
/// precision, at any depth.
pub fn can_read_as(stored: &DataType, target: &DataType) -> bool {
    use DataType as T;
    let fields_fit = |a: &Field, b: &Field| {
        a.name() == b.name()
            && a.is_nullable() == b.is_nullable()
            && b.metadata().is_empty()
            && can_read_as(a.data_type(), b.data_type())
    };
    match (stored, target) {
        (a, b) if a == b => true,
        (T::Utf8, T::Utf8View) | (T::Binary, T::BinaryView) => true,
        (T::Utf8 | T::Binary, T::Dictionary(key, value)) => {
            **key == T::Int32 && value.as_ref() == stored
        }
        (T::Decimal128(p, s), T::Decimal64(q, t)) => p == q && s == t && *p <= 18 && *s >= 0,
        (T::Decimal128(p, s), T::Decimal32(q, t)) => p == q && s == t && *p <= 9 && *s >= 0,
        (T::List(a), T::List(b)) => fields_fit(a, b),
        (T::Map(a, false), T::Map(b, false)) => fields_fit(a, b),
        (T::Struct(a), T::Struct(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| fields_fit(a, b))
        }
        _ => false,
    }
}

/// Applies `leaf` to every type that is not a list, struct or map.
pub(crate) fn map_fields(ty: &DataType, leaf: &dyn Fn(&DataType) -> DataType) -> DataType {
    let child = |field: &FieldRef| {
        let data_type = map_fields(field.data_type(), leaf);
        Arc::new(field.as_ref().clone().with_data_type(data_type))
    };
    match ty {
        DataType::List(item) => DataType::List(child(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(child).collect()),
        DataType::Map(entries, sorted) => DataType::Map(child(entries), *sorted),
        other => leaf(other),
    }
}

#[cfg(test)]
pub(crate) mod tests;
