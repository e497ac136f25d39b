//! The form in which values lie in Parquet, where Parquet cannot hold the logical type.
//!
//! - `Interval(MonthDayNano)`: 16 bytes, little endian: months `i32`, days `i32`, nanoseconds
//!   `i64`. Parquet's own INTERVAL has milliseconds only.
//! - decimals of negative scale: the unscaled number as a decimal of scale 0. Parquet allows no
//!   negative scale.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, IntervalMonthDayNanoArray};
use arrow::buffer::{Buffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Decimal128Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
};

use super::{map_fields, rebuild};
use crate::error::{Result, StorageError};

/// Bytes of a stored interval.
const INTERVAL_BYTES: usize = 16;
const INTERVAL_BYTES_I32: i32 = 16;

/// The physical form of a storage type (or of a form that a scan may ask for).
pub(crate) fn physical_type(logical: &DataType) -> DataType {
    map_fields(logical, &|leaf| match leaf {
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            DataType::FixedSizeBinary(INTERVAL_BYTES_I32)
        }
        DataType::Decimal128(precision, scale) if *scale < 0 => DataType::Decimal128(*precision, 0),
        other => other.clone(),
    })
}

/// Values in physical form; nothing is copied where both forms are the same.
pub(crate) fn to_physical(array: &ArrayRef) -> Result<ArrayRef> {
    let physical = physical_type(array.data_type());
    convert(array, &physical, &|array, target| match target {
        DataType::FixedSizeBinary(INTERVAL_BYTES_I32) => {
            Ok(Arc::new(encode_intervals(array.as_primitive::<IntervalMonthDayNanoType>())?))
        }
        DataType::Decimal128(_, 0) => Ok(Arc::new(
            array.as_primitive::<Decimal128Type>().clone().with_data_type(target.clone()),
        )),
        other => Err(StorageError::unsupported(other)),
    })
}

/// Values in logical form again; the reverse of [`to_physical`].
pub(crate) fn from_physical(array: &ArrayRef, logical: &DataType) -> Result<ArrayRef> {
    convert(array, logical, &|array, target| match target {
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            Ok(Arc::new(decode_intervals(array.as_fixed_size_binary())))
        }
        DataType::Decimal128(_, _) => Ok(Arc::new(
            array.as_primitive::<Decimal128Type>().clone().with_data_type(target.clone()),
        )),
        other => Err(StorageError::unsupported(other)),
    })
}

fn convert(
    array: &ArrayRef,
    target: &DataType,
    leaf: &dyn Fn(&ArrayRef, &DataType) -> Result<ArrayRef>,
) -> Result<ArrayRef> {
    if array.data_type() == target {
        return Ok(Arc::clone(array));
    }
    rebuild(array, target, &|array, target| {
        if array.data_type() == target { Ok(Arc::clone(array)) } else { leaf(array, target) }
    })
}

fn encode_intervals(array: &IntervalMonthDayNanoArray) -> Result<FixedSizeBinaryArray> {
    let mut bytes = Vec::with_capacity(array.len() * INTERVAL_BYTES);
    for value in array.values() {
        bytes.extend_from_slice(&value.months.to_le_bytes());
        bytes.extend_from_slice(&value.days.to_le_bytes());
        bytes.extend_from_slice(&value.nanoseconds.to_le_bytes());
    }
    let nulls = array.nulls().cloned();
    Ok(FixedSizeBinaryArray::try_new(INTERVAL_BYTES_I32, Buffer::from_vec(bytes), nulls)?)
}

fn decode_intervals(array: &FixedSizeBinaryArray) -> IntervalMonthDayNanoArray {
    let values: ScalarBuffer<IntervalMonthDayNano> = (0..array.len())
        .map(|row| {
            let mut bits = [0_u8; INTERVAL_BYTES];
            bits.copy_from_slice(array.value(row));
            let bits = u128::from_le_bytes(bits);
            // Truncation picks the field: months, days and nanoseconds in little-endian order.
            IntervalMonthDayNano::new(bits as i32, (bits >> 32) as i32, (bits >> 64) as i64)
        })
        .collect::<Vec<_>>()
        .into();
    IntervalMonthDayNanoArray::new(values, array.nulls().cloned())
}
