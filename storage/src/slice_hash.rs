//! The hash that assigns rows to slices under `DISTSTYLE KEY`. It is on disk for ever.
//!
//! Invariant: values that SQL's `=` takes for equal hash equally, whatever the width, unit, scale
//! or encoding of the arrays they come in, on every CPU and in every release. The function is
//! pinned by its id in the catalog; a change is a new id, never an edit here.
//!
//! Version 1 is XXH3-64 with seed [`SEED`] over a canonical form of the value:
//! ```text
//! integers, whole decimals, dates (days),
//!   times, timestamps, durations (ns)        i64 LE, 8 bytes; i128 LE, 16 bytes, if beyond i64
//! other decimals                             exponent (i8), then unscaled i128 LE, no zeros at the end
//! floats                                     the bits of the f64, LE; one zero, one NaN
//! booleans                                   one byte, 0 or 1
//! text, binary                               its bytes
//! Interval(MonthDayNano)                     months, days (i32 LE), nanoseconds (i64 LE)
//! ```
//! NULL has the hash [`NULL_HASH`]. The slice is the hash modulo the number of slices, a power of
//! two.

use std::iter::repeat_n;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type,
    DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType,
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType, IntervalUnit, Time32MillisecondType, Time32SecondType,
    Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::error::{Result, StorageError};

/// Names a slice hash function, in the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SliceHashId(pub u16);

impl SliceHashId {
    /// The function of this module.
    pub const XXH3_V1: Self = Self(1);
}

/// The seed: "basalt" and the version, as ASCII.
pub const SEED: u64 = u64::from_be_bytes(*b"basalt\0\x01");

/// The hash of NULL: the hash of no bytes is that of the empty text, so NULL gets a number.
pub const NULL_HASH: u64 = 0x6e75_6c6c_6e75_6c6c;

const DAY_MS: i64 = 86_400_000;

/// The slice of each value.
///
/// # Errors
/// [`StorageError::InvalidRequest`] when `slice_count` is no power of two,
/// [`StorageError::UnsupportedType`] for types that cannot be a distribution key (lists, structs,
/// maps).
pub fn slices_of(array: &ArrayRef, slice_count: u16) -> Result<Vec<u16>> {
    if !slice_count.is_power_of_two() {
        return Err(StorageError::invalid_request(format!(
            "{slice_count} slices: the number of slices is a power of two"
        )));
    }
    let mask = u64::from(slice_count - 1);
    // Fits: the mask has 16 bits.
    Ok(hashes_of(array)?.into_iter().map(|hash| (hash & mask) as u16).collect())
}

/// The hash of each value.
///
/// # Errors
/// [`StorageError::UnsupportedType`] as of [`slices_of`].
pub fn hashes_of(array: &ArrayRef) -> Result<Vec<u64>> {
    use DataType as T;
    use TimeUnit as U;
    Ok(match array.data_type() {
        T::Null => repeat_n(NULL_HASH, array.len()).collect(),
        T::Boolean => {
            array.as_boolean().iter().map(|v| hash_or_null(v, |v| hash(&[u8::from(v)]))).collect()
        }
        T::Int8 => integers::<Int8Type>(array, 1),
        T::Int16 => integers::<Int16Type>(array, 1),
        T::Int32 => integers::<Int32Type>(array, 1),
        T::Int64 => integers::<Int64Type>(array, 1),
        T::UInt8 => integers::<UInt8Type>(array, 1),
        T::UInt16 => integers::<UInt16Type>(array, 1),
        T::UInt32 => integers::<UInt32Type>(array, 1),
        T::UInt64 => integers::<UInt64Type>(array, 1),
        T::Date32 => integers::<Date32Type>(array, 1),
        T::Date64 => values::<Date64Type>(array, |ms| integer(i128::from(ms.div_euclid(DAY_MS)))),
        T::Time32(U::Second) => integers::<Time32SecondType>(array, SECOND),
        T::Time32(_) => integers::<Time32MillisecondType>(array, MILLISECOND),
        T::Time64(U::Microsecond) => integers::<Time64MicrosecondType>(array, MICROSECOND),
        T::Time64(_) => integers::<Time64NanosecondType>(array, 1),
        T::Timestamp(U::Second, _) => integers::<TimestampSecondType>(array, SECOND),
        T::Timestamp(U::Millisecond, _) => integers::<TimestampMillisecondType>(array, MILLISECOND),
        T::Timestamp(U::Microsecond, _) => integers::<TimestampMicrosecondType>(array, MICROSECOND),
        T::Timestamp(U::Nanosecond, _) => integers::<TimestampNanosecondType>(array, 1),
        T::Duration(U::Second) => integers::<DurationSecondType>(array, SECOND),
        T::Duration(U::Millisecond) => integers::<DurationMillisecondType>(array, MILLISECOND),
        T::Duration(U::Microsecond) => integers::<DurationMicrosecondType>(array, MICROSECOND),
        T::Duration(U::Nanosecond) => integers::<DurationNanosecondType>(array, 1),
        T::Decimal32(_, scale) => values::<Decimal32Type>(array, |v| decimal(v.into(), *scale)),
        T::Decimal64(_, scale) => values::<Decimal64Type>(array, |v| decimal(v.into(), *scale)),
        T::Decimal128(_, scale) => values::<Decimal128Type>(array, |v| decimal(v, *scale)),
        T::Float16 => values::<Float16Type>(array, |v| float(v.to_f64())),
        T::Float32 => values::<Float32Type>(array, |v| float(v.into())),
        T::Float64 => values::<Float64Type>(array, float),
        T::Interval(IntervalUnit::MonthDayNano) => values::<IntervalMonthDayNanoType>(array, |v| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v.months.to_le_bytes());
            bytes[4..8].copy_from_slice(&v.days.to_le_bytes());
            bytes[8..].copy_from_slice(&v.nanoseconds.to_le_bytes());
            hash(&bytes)
        }),
        T::Interval(_) => hashes_of(&cast(array, &T::Interval(IntervalUnit::MonthDayNano))?)?,
        T::Utf8 => bytes(array.as_string::<i32>().iter()),
        T::LargeUtf8 => bytes(array.as_string::<i64>().iter()),
        T::Utf8View => bytes(array.as_string_view().iter()),
        T::Binary => bytes(array.as_binary::<i32>().iter()),
        T::LargeBinary => bytes(array.as_binary::<i64>().iter()),
        T::BinaryView => bytes(array.as_binary_view().iter()),
        T::FixedSizeBinary(_) => bytes(array.as_fixed_size_binary().iter()),
        T::Dictionary(_, _) => dictionary(array)?,
        T::RunEndEncoded(_, values) => hashes_of(&cast(array, values.data_type())?)?,
        other => return Err(StorageError::unsupported(other)),
    })
}

const SECOND: i128 = 1_000_000_000;
const MILLISECOND: i128 = 1_000_000;
const MICROSECOND: i128 = 1_000;

fn hash(bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, SEED)
}

fn hash_or_null<T>(value: Option<T>, hash: impl FnOnce(T) -> u64) -> u64 {
    value.map_or(NULL_HASH, hash)
}

fn values<T: ArrowPrimitiveType>(array: &ArrayRef, hash: impl Fn(T::Native) -> u64) -> Vec<u64> {
    array.as_primitive::<T>().iter().map(|value| hash_or_null(value, &hash)).collect()
}

fn integers<T: ArrowPrimitiveType<Native: Into<i128>>>(array: &ArrayRef, unit: i128) -> Vec<u64> {
    // No overflow: 64 bits times 10^9 takes 94.
    values::<T>(array, |value| integer(value.into() * unit))
}

fn integer(value: i128) -> u64 {
    match i64::try_from(value) {
        Ok(value) => hash(&value.to_le_bytes()),
        Err(_) => hash(&value.to_le_bytes()),
    }
}

/// A decimal is `unscaled * 10^-scale`. Without zeros at its end there is one way to write it.
fn decimal(mut unscaled: i128, scale: i8) -> u64 {
    let mut exponent = -i16::from(scale);
    if unscaled == 0 {
        return integer(0);
    }
    while exponent < 0 && unscaled % 10 == 0 {
        unscaled /= 10;
        exponent += 1;
    }
    while exponent > 0 {
        match unscaled.checked_mul(10) {
            Some(more) => unscaled = more,
            None => break,
        }
        exponent -= 1;
    }
    if exponent == 0 {
        return integer(unscaled);
    }
    let mut bytes = [0; 17];
    // Fits: it is between the negated scale, an i8 from -38 to 38, and 0.
    bytes[0] = exponent.to_le_bytes()[0];
    bytes[1..].copy_from_slice(&unscaled.to_le_bytes());
    hash(&bytes)
}

fn float(value: f64) -> u64 {
    let canonical = if value.is_nan() {
        CANONICAL_NAN
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    };
    hash(&canonical.to_le_bytes())
}

/// The quiet NaN without sign and payload; what Rust's own constant is may differ by platform.
const CANONICAL_NAN: u64 = 0x7ff8_0000_0000_0000;

fn bytes<T: AsRef<[u8]>>(values: impl Iterator<Item = Option<T>>) -> Vec<u64> {
    values.map(|value| hash_or_null(value, |value| hash(value.as_ref()))).collect()
}

/// Each value of the dictionary is hashed once.
fn dictionary(array: &ArrayRef) -> Result<Vec<u64>> {
    let dictionary = array.as_any_dictionary();
    let hashes = hashes_of(dictionary.values())?;
    if hashes.is_empty() {
        // Without values every key is NULL.
        return Ok(vec![NULL_HASH; array.len()]);
    }
    let keys = dictionary.normalized_keys();
    let key_hash = |(row, key): (usize, usize)| match hashes.get(key) {
        Some(hash) if dictionary.keys().is_valid(row) => *hash,
        _ => NULL_HASH,
    };
    Ok(keys.into_iter().enumerate().map(key_hash).collect())
}

#[cfg(test)]
mod tests;
