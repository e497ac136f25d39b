//! Bounds as arrays of the column's type, as predicates over statistics want them.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, FixedSizeBinaryBuilder,
    PrimitiveArray, StringArray, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, DurationMicrosecondType, DurationMillisecondType,
    DurationNanosecondType, DurationSecondType, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, Time32MillisecondType, Time32SecondType, Time64MicrosecondType,
    Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use super::ZoneValue;
use crate::error::Result;

/// An array of `data_type` with one element per bound; unknown bounds, and bounds that the type
/// cannot express, are NULL, which every user of statistics must take for "unknown".
///
/// `data_type` is the storage type or a view, dictionary or narrow decimal form of it.
///
/// # Errors
/// [`crate::StorageError::InvalidData`] when Arrow has no such array.
pub fn zone_array<'a>(
    data_type: &DataType,
    bounds: impl Iterator<Item = Option<&'a ZoneValue>>,
) -> Result<ArrayRef> {
    use DataType as T;
    use TimeUnit as U;
    let array: ArrayRef = match data_type {
        T::Boolean => Arc::new(bounds.map(boolean).collect::<BooleanArray>()),
        T::Int8 => ints::<Int8Type>(bounds),
        T::Int16 => ints::<Int16Type>(bounds),
        T::Int32 => ints::<Int32Type>(bounds),
        T::Int64 => ints::<Int64Type>(bounds),
        T::Date32 => ints::<Date32Type>(bounds),
        T::Time32(U::Second) => ints::<Time32SecondType>(bounds),
        T::Time32(_) => ints::<Time32MillisecondType>(bounds),
        T::Time64(U::Nanosecond) => ints::<Time64NanosecondType>(bounds),
        T::Time64(_) => ints::<Time64MicrosecondType>(bounds),
        // With a zone the value is the same instant: only the type changes.
        T::Timestamp(unit, Some(_)) => {
            let plain = zone_array(&T::Timestamp(*unit, None), bounds)?;
            retyped(&plain, data_type)?
        }
        T::Timestamp(U::Second, None) => ints::<TimestampSecondType>(bounds),
        T::Timestamp(U::Millisecond, None) => ints::<TimestampMillisecondType>(bounds),
        T::Timestamp(U::Microsecond, None) => ints::<TimestampMicrosecondType>(bounds),
        T::Timestamp(U::Nanosecond, None) => ints::<TimestampNanosecondType>(bounds),
        T::Duration(U::Second) => ints::<DurationSecondType>(bounds),
        T::Duration(U::Millisecond) => ints::<DurationMillisecondType>(bounds),
        T::Duration(U::Microsecond) => ints::<DurationMicrosecondType>(bounds),
        T::Duration(U::Nanosecond) => ints::<DurationNanosecondType>(bounds),
        T::UInt8 => primitives::<UInt8Type>(bounds, unsigned),
        T::UInt16 => primitives::<UInt16Type>(bounds, unsigned),
        T::UInt32 => primitives::<UInt32Type>(bounds, unsigned),
        T::UInt64 => primitives::<UInt64Type>(bounds, unsigned),
        // A bound of a Float32 column came from one, so the cast back is exact.
        T::Float32 => primitives::<Float32Type>(bounds, |v| float(v).map(|f| f as f32)),
        T::Float64 => primitives::<Float64Type>(bounds, float),
        T::Decimal128(precision, scale) => Arc::new(
            bounds
                .map(|bound| bound.and_then(decimal))
                .collect::<PrimitiveArray<Decimal128Type>>()
                .with_precision_and_scale(*precision, *scale)?,
        ),
        T::Utf8 => Arc::new(bounds.map(text).collect::<StringArray>()),
        T::Binary => Arc::new(bounds.map(bytes).collect::<BinaryArray>()),
        T::FixedSizeBinary(width) => fixed_size_binary(*width, bounds)?,
        T::Utf8View => cast(&zone_array(&T::Utf8, bounds)?, data_type)?,
        T::BinaryView => cast(&zone_array(&T::Binary, bounds)?, data_type)?,
        T::Dictionary(_, value) => cast(&zone_array(value, bounds)?, data_type)?,
        T::Decimal32(precision, scale) | T::Decimal64(precision, scale) => {
            cast(&zone_array(&T::Decimal128(*precision, *scale), bounds)?, data_type)?
        }
        other => new_null_array(other, bounds.count()),
    };
    Ok(array)
}

fn primitives<'a, T: ArrowPrimitiveType>(
    bounds: impl Iterator<Item = Option<&'a ZoneValue>>,
    convert: impl Fn(&ZoneValue) -> Option<T::Native>,
) -> ArrayRef {
    Arc::new(bounds.map(|b| b.and_then(&convert)).collect::<PrimitiveArray<T>>())
}

fn ints<'a, T: ArrowPrimitiveType<Native: TryFrom<i64>>>(
    bounds: impl Iterator<Item = Option<&'a ZoneValue>>,
) -> ArrayRef {
    primitives::<T>(bounds, |value| match value {
        ZoneValue::Int(value) => T::Native::try_from(*value).ok(),
        _ => None,
    })
}

fn unsigned<T: TryFrom<u64>>(value: &ZoneValue) -> Option<T> {
    match value {
        ZoneValue::UInt(value) => T::try_from(*value).ok(),
        _ => None,
    }
}

fn float(value: &ZoneValue) -> Option<f64> {
    match value {
        ZoneValue::Float(value) => Some(*value),
        _ => None,
    }
}

fn decimal(value: &ZoneValue) -> Option<i128> {
    match value {
        ZoneValue::Decimal(value) => Some(*value),
        _ => None,
    }
}

fn boolean(value: Option<&ZoneValue>) -> Option<bool> {
    match value {
        Some(ZoneValue::Bool(value)) => Some(*value),
        _ => None,
    }
}

fn bytes(value: Option<&ZoneValue>) -> Option<&[u8]> {
    match value {
        Some(ZoneValue::Bytes { value, .. }) => Some(value),
        _ => None,
    }
}

fn text(value: Option<&ZoneValue>) -> Option<&str> {
    bytes(value).and_then(|value| str::from_utf8(value).ok())
}

/// A shortened bound has another width than the column and is unknown here.
fn fixed_size_binary<'a>(
    width: i32,
    bounds: impl Iterator<Item = Option<&'a ZoneValue>>,
) -> Result<ArrayRef> {
    let mut builder = FixedSizeBinaryBuilder::new(width);
    for bound in bounds {
        match bytes(bound).filter(|value| i32::try_from(value.len()) == Ok(width)) {
            Some(value) => builder.append_value(value)?,
            None => builder.append_null(),
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn retyped(array: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    let data = array.to_data().into_builder().data_type(data_type.clone()).build()?;
    Ok(arrow::array::make_array(data))
}
