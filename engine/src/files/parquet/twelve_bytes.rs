//! Parquet's types of 12 bytes, decoded here because the parquet crate changes their values.
//!
//! - INTERVAL is months, days and milliseconds; the crate has an Arrow type for two of the three
//!   or for one, and drops the rest.
//! - INT96 is a day and the nanoseconds in it, which Spark and Hive write for timestamps; the
//!   crate turns what is before 1677 or after 2262 into some other time.
//!
//! So such columns are made plain bytes in the footer, decoded as the 12 bytes that they are, and
//! become intervals and timestamps here.
//!
//! Invariant: a value arrives exactly, or is an error.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, FixedSizeBinaryArray, Int64Array, IntervalMonthDayNanoArray,
    make_array,
};
use arrow::datatypes::{DataType, FieldRef, IntervalMonthDayNano, IntervalUnit, TimeUnit};
use arrow::error::ArrowError;
use parquet::basic::{ConvertedType, Type as PhysicalType};
use parquet::errors::ParquetError;
use parquet::file::metadata::{FileMetaData, ParquetMetaData, ParquetMetaDataBuilder};
use parquet::schema::types::{SchemaDescriptor, Type, TypePtr};

/// Bytes of a value.
const BYTES: i32 = 12;

const NANOS_PER_MILLI: i64 = 1_000_000;
const NANOS_PER_DAY: i128 = 86_400_000_000_000;
/// The day 1970-01-01 as INT96 counts days, from noon of 4713 BC.
const JULIAN_DAY_OF_1970: i128 = 2_440_588;

/// A footer whose columns of 12 bytes are plain bytes; `None` when it has no such columns.
pub(super) fn as_bytes(
    metadata: &ParquetMetaData,
) -> Result<Option<ParquetMetaData>, ParquetError> {
    let file = metadata.file_metadata();
    let descriptor = file.schema_descr();
    if !descriptor.columns().iter().any(|column| is_twelve_bytes(column.self_type())) {
        return Ok(None);
    }
    let schema = plain(&descriptor.root_schema_ptr())?;
    let file = FileMetaData::new(
        file.version(),
        file.num_rows(),
        file.created_by().map(str::to_owned),
        file.key_value_metadata().cloned(),
        Arc::new(SchemaDescriptor::new(schema)),
        file.column_orders().cloned(),
    );
    let groups = metadata.row_groups().to_vec();
    Ok(Some(ParquetMetaDataBuilder::new(file).set_row_groups(groups).build()))
}

fn is_twelve_bytes(column: &Type) -> bool {
    column.get_physical_type() == PhysicalType::INT96
        || column.get_basic_info().converted_type() == ConvertedType::INTERVAL
}

/// The type with plain bytes for every column of 12 bytes.
fn plain(of: &TypePtr) -> Result<TypePtr, ParquetError> {
    let info = of.get_basic_info();
    let id = info.has_id().then(|| info.id());
    if of.is_group() {
        let fields = of.get_fields().iter().map(plain).collect::<Result<_, _>>()?;
        let mut group = Type::group_type_builder(of.name())
            .with_converted_type(info.converted_type())
            .with_logical_type(info.logical_type_ref().cloned())
            .with_fields(fields)
            .with_id(id);
        if info.has_repetition() {
            group = group.with_repetition(info.repetition());
        }
        return Ok(Arc::new(group.build()?));
    }
    if !is_twelve_bytes(of) {
        return Ok(Arc::clone(of));
    }
    let bytes = Type::primitive_type_builder(of.name(), PhysicalType::FIXED_LEN_BYTE_ARRAY)
        .with_repetition(info.repetition())
        .with_length(BYTES)
        .with_id(id);
    Ok(Arc::new(bytes.build()?))
}

/// Values with the intervals and timestamps of type `to` made of the bytes that were decoded, at
/// any depth.
/// Everything else stays as it is, whatever `to` says of it.
pub(super) fn decode(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let data = decode_data(array.to_data(), to)?;
    Ok(make_array(data))
}

fn decode_data(data: ArrayData, to: &DataType) -> Result<ArrayData, ArrowError> {
    use DataType as T;
    let inner = match (data.data_type(), to) {
        (T::FixedSizeBinary(BYTES), T::Interval(IntervalUnit::MonthDayNano)) => {
            return Ok(intervals(&FixedSizeBinaryArray::from(data)).into_data());
        }
        (T::FixedSizeBinary(BYTES), T::Timestamp(unit, _)) => {
            let counts = timestamps(&FixedSizeBinaryArray::from(data), *unit)?;
            return counts.into_data().into_builder().data_type(to.clone()).build();
        }
        (T::List(_), T::List(to))
        | (T::FixedSizeList(..), T::FixedSizeList(to, _))
        | (T::Map(..), T::Map(to, _)) => vec![to.data_type().clone()],
        (T::Struct(from), T::Struct(to)) if from.len() == to.len() => {
            to.iter().map(|field| field.data_type().clone()).collect()
        }
        _ => return Ok(data),
    };
    let children = data.child_data().iter().zip(&inner);
    let children: Vec<ArrayData> =
        children.map(|(child, to)| decode_data(child.clone(), to)).collect::<Result<_, _>>()?;
    let data_type = with_children(data.data_type(), &children);
    data.into_builder().data_type(data_type).child_data(children).build()
}

/// The nested type with the types that its children have now.
fn with_children(nested: &DataType, children: &[ArrayData]) -> DataType {
    use DataType as T;
    let retyped = |field: &FieldRef, child: Option<&ArrayData>| match child {
        Some(child) => Arc::new(field.as_ref().clone().with_data_type(child.data_type().clone())),
        None => Arc::clone(field),
    };
    match nested {
        T::List(item) => T::List(retyped(item, children.first())),
        T::FixedSizeList(item, length) => {
            T::FixedSizeList(retyped(item, children.first()), *length)
        }
        T::Map(entries, sorted) => T::Map(retyped(entries, children.first()), *sorted),
        T::Struct(fields) => T::Struct(
            (0..).zip(fields).map(|(index, field)| retyped(field, children.get(index))).collect(),
        ),
        other => other.clone(),
    }
}

fn intervals(bytes: &FixedSizeBinaryArray) -> IntervalMonthDayNanoArray {
    let values = bytes.iter().map(|value| {
        value.map(|value| IntervalMonthDayNano {
            // Unsigned in the specification. Writers of negative ones keep the bits, and no
            // interval of 178 million years is lost by taking them so.
            months: i32::from_le_bytes(part(value, 0)),
            days: i32::from_le_bytes(part(value, 4)),
            // Here 25 days are enough to need the last bit.
            nanoseconds: i64::from(u32::from_le_bytes(part(value, 8))) * NANOS_PER_MILLI,
        })
    });
    values.collect()
}

fn timestamps(bytes: &FixedSizeBinaryArray, unit: TimeUnit) -> Result<Int64Array, ArrowError> {
    let nanos_per_unit: i128 = match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    };
    let count = |value: &[u8]| {
        let nanos = i64::from_le_bytes(part(value, 0));
        let day = i128::from(i32::from_le_bytes(part(value, 8))) - JULIAN_DAY_OF_1970;
        let since_1970 = day * NANOS_PER_DAY + i128::from(nanos);
        let exact = since_1970 % nanos_per_unit == 0;
        let count = i64::try_from(since_1970 / nanos_per_unit).ok().filter(|_| exact);
        count.ok_or_else(|| {
            ArrowError::ComputeError(format!(
                "has an INT96 timestamp, day {day} since 1970 and nanosecond {nanos} in it, that \
                 type Timestamp({unit}) cannot hold"
            ))
        })
    };
    bytes.iter().map(|value| value.map(count).transpose()).collect()
}

fn part<const LENGTH: usize>(value: &[u8], at: usize) -> [u8; LENGTH] {
    let mut part = [0; LENGTH];
    part.iter_mut().zip(value.iter().skip(at)).for_each(|(to, from)| *to = *from);
    part
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, ListArray, StructArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::{Field, IntervalMonthDayNanoType};

    use super::*;

    fn stored(months: i32, days: i32, millis: u32) -> Vec<u8> {
        [months.to_le_bytes(), days.to_le_bytes(), millis.to_le_bytes()].concat()
    }

    #[test]
    fn months_days_and_milliseconds_are_all_kept_at_any_depth() {
        let values = [Some(stored(14, 3, u32::MAX)), None, Some(stored(-1, -2, 5))];
        let values =
            FixedSizeBinaryArray::try_from_sparse_iter_with_size(values.iter().cloned(), 12);
        let bytes: ArrayRef = Arc::new(values.unwrap());
        let field =
            |name, data_type: &DataType| Arc::new(Field::new(name, data_type.clone(), true));
        let pair = StructArray::from(vec![(field("i", bytes.data_type()), bytes)]);
        let item = field("element", pair.data_type());
        let lists = ListArray::new(item, OffsetBuffer::from_lengths([2, 1]), Arc::new(pair), None);
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        let to = DataType::Struct(vec![field("i", &interval)].into());
        let lists: ArrayRef = Arc::new(lists);
        let decoded = decode(&lists, &DataType::List(field("item", &to))).unwrap();
        let lists = decoded.as_list::<i32>();
        let intervals = lists.values().as_struct().column(0);
        let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
        let nanos = i64::from(u32::MAX) * 1_000_000;
        assert_eq!(intervals.value(0), IntervalMonthDayNano::new(14, 3, nanos));
        assert!(intervals.is_null(1));
        assert_eq!(intervals.value(2), IntervalMonthDayNano::new(-1, -2, 5_000_000));
    }

    #[test]
    fn a_timestamp_that_its_type_cannot_hold_is_an_error_and_not_another_time() {
        let stored = |day: i32, nanos: i64| {
            let bytes = [nanos.to_le_bytes().as_slice(), &(day + 2_440_588).to_le_bytes()].concat();
            FixedSizeBinaryArray::try_from_iter([bytes].into_iter()).unwrap()
        };
        let micros = timestamps(&stored(2_932_896, 86_399_999_999_000), TimeUnit::Microsecond);
        assert_eq!(micros.unwrap().value(0), 253_402_300_799_999_999);
        let nanos = timestamps(&stored(-1, 86_399_999_999_999), TimeUnit::Nanosecond);
        assert_eq!(nanos.unwrap().value(0), -1);
        let error = timestamps(&stored(2_932_896, 0), TimeUnit::Nanosecond).unwrap_err();
        assert!(error.to_string().contains("day 2932896 since 1970"), "{error}");
        assert!(timestamps(&stored(0, 1), TimeUnit::Microsecond).is_err());
    }
}
