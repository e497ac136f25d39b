//! Zone maps of arrays in storage form.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::compute;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, DurationMicrosecondType, DurationMillisecondType,
    DurationNanosecondType, DurationSecondType, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, Time32MillisecondType, Time32SecondType, Time64MicrosecondType,
    Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use super::{ZONE_BYTES_MAX, ZoneMap, ZoneValue};

impl ZoneMap {
    /// The zone map of all values of an array in storage form.
    pub fn of(array: &ArrayRef) -> Self {
        let (min, max) = bounds(array.as_ref()).unwrap_or((None, None));
        Self { null_count: array.null_count() as u64, min, max }
    }
}

type Bounds = (Option<ZoneValue>, Option<ZoneValue>);

fn bounds(array: &dyn Array) -> Option<Bounds> {
    use DataType as T;
    use TimeUnit as U;
    match array.data_type() {
        T::Boolean => {
            let array = array.as_boolean();
            let min = compute::min_boolean(array)?;
            let max = compute::max_boolean(array)?;
            Some((Some(ZoneValue::Bool(min)), Some(ZoneValue::Bool(max))))
        }
        T::Int8 => int::<Int8Type>(array),
        T::Int16 => int::<Int16Type>(array),
        T::Int32 => int::<Int32Type>(array),
        T::Int64 => int::<Int64Type>(array),
        T::Date32 => int::<Date32Type>(array),
        T::Time32(U::Second) => int::<Time32SecondType>(array),
        T::Time32(U::Millisecond) => int::<Time32MillisecondType>(array),
        T::Time64(U::Microsecond) => int::<Time64MicrosecondType>(array),
        T::Time64(U::Nanosecond) => int::<Time64NanosecondType>(array),
        T::Timestamp(U::Second, _) => int::<TimestampSecondType>(array),
        T::Timestamp(U::Millisecond, _) => int::<TimestampMillisecondType>(array),
        T::Timestamp(U::Microsecond, _) => int::<TimestampMicrosecondType>(array),
        T::Timestamp(U::Nanosecond, _) => int::<TimestampNanosecondType>(array),
        T::Duration(U::Second) => int::<DurationSecondType>(array),
        T::Duration(U::Millisecond) => int::<DurationMillisecondType>(array),
        T::Duration(U::Microsecond) => int::<DurationMicrosecondType>(array),
        T::Duration(U::Nanosecond) => int::<DurationNanosecondType>(array),
        T::UInt8 => primitive::<UInt8Type>(array, |v| ZoneValue::UInt(v.into())),
        T::UInt16 => primitive::<UInt16Type>(array, |v| ZoneValue::UInt(v.into())),
        T::UInt32 => primitive::<UInt32Type>(array, |v| ZoneValue::UInt(v.into())),
        T::UInt64 => primitive::<UInt64Type>(array, ZoneValue::UInt),
        T::Decimal128(_, _) => primitive::<Decimal128Type>(array, ZoneValue::Decimal),
        T::Float32 => float::<Float32Type>(array, f64::from),
        T::Float64 => float::<Float64Type>(array, |value| value),
        T::Utf8 => {
            let array = array.as_string::<i32>();
            let (min, max) = (compute::min_string(array)?, compute::max_string(array)?);
            Some((Some(shortened(min.as_bytes(), true)), rounded_up_text(max)))
        }
        T::Binary => {
            let array = array.as_binary::<i32>();
            let (min, max) = (compute::min_binary(array)?, compute::max_binary(array)?);
            Some((Some(shortened(min, false)), rounded_up(max)))
        }
        T::FixedSizeBinary(_) => {
            let array = array.as_fixed_size_binary();
            let values = || array.iter().flatten();
            Some((Some(shortened(values().min()?, false)), rounded_up(values().max()?)))
        }
        _ => None,
    }
}

fn primitive<T: ArrowPrimitiveType>(
    array: &dyn Array,
    wrap: impl Fn(T::Native) -> ZoneValue,
) -> Option<Bounds> {
    let array = array.as_primitive::<T>();
    Some((compute::min(array).map(&wrap), compute::max(array).map(&wrap)))
}

fn int<T: ArrowPrimitiveType<Native: Into<i64>>>(array: &dyn Array) -> Option<Bounds> {
    primitive::<T>(array, |value| ZoneValue::Int(value.into()))
}

/// NaN is beyond every bound that a comparison could use, so one NaN leaves no bounds. Zeros get
/// the sign that widens the bounds: SQL takes -0.0 and 0.0 for equal, Arrow does not.
fn float<T: ArrowPrimitiveType>(
    array: &dyn Array,
    widen: impl Fn(T::Native) -> f64,
) -> Option<Bounds> {
    let array: &PrimitiveArray<T> = array.as_primitive();
    // In Arrow's total order NaNs lie at the two ends, so they show as the extremes.
    let (min, max) = (widen(compute::min(array)?), widen(compute::max(array)?));
    if min.is_nan() || max.is_nan() {
        return None;
    }
    let min = if min == 0.0 { -0.0 } else { min };
    let max = if max == 0.0 { 0.0 } else { max };
    Some((Some(ZoneValue::Float(min)), Some(ZoneValue::Float(max))))
}

/// A lower bound: a prefix sorts before what it was cut from. `text` is cut between characters.
fn shortened(value: &[u8], text: bool) -> ZoneValue {
    let mut end = value.len().min(ZONE_BYTES_MAX);
    while text && end < value.len() && value[end] & 0xC0 == 0x80 {
        end -= 1;
    }
    ZoneValue::Bytes { value: value[..end].to_vec(), exact: end == value.len() }
}

/// An upper bound of binary: the prefix with its last byte that can grow grown by one.
fn rounded_up(value: &[u8]) -> Option<ZoneValue> {
    if value.len() <= ZONE_BYTES_MAX {
        return Some(ZoneValue::Bytes { value: value.to_vec(), exact: true });
    }
    let prefix = &value[..ZONE_BYTES_MAX];
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut bound = prefix[..=last].to_vec();
    bound[last] += 1;
    Some(ZoneValue::Bytes { value: bound, exact: false })
}

/// An upper bound of text: the prefix with its last character that can grow replaced by the next
/// one, so that the bound is text too.
fn rounded_up_text(value: &str) -> Option<ZoneValue> {
    if value.len() <= ZONE_BYTES_MAX {
        return Some(ZoneValue::Bytes { value: value.as_bytes().to_vec(), exact: true });
    }
    let mut end = ZONE_BYTES_MAX;
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    let prefix = &value[..end];
    let (at, next) = prefix
        .char_indices()
        .rev()
        .find_map(|(at, character)| next_character(character).map(|next| (at, next)))?;
    let mut bound = prefix[..at].to_owned();
    bound.push(next);
    Some(ZoneValue::Bytes { value: bound.into_bytes(), exact: false })
}

/// The next character by code point, which is also the next in the order of UTF-8 bytes.
fn next_character(character: char) -> Option<char> {
    let next = u32::from(character).checked_add(1)?;
    // The surrogates are a hole in the middle of the code points.
    if next == 0xD800 { Some('\u{E000}') } else { char::from_u32(next) }
}
