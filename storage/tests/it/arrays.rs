//! Random arrays of every storable type, from a seed.

use std::sync::Arc;

use arrow::array::{
    ArrayData, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, ListArray, MapArray,
    StringArray, StructArray, make_array,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields, IntervalUnit, TimeUnit};

/// One type of every kind, in storage form.
pub(crate) fn storable_types() -> Vec<DataType> {
    use DataType as T;
    let units =
        [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];
    let mut types = vec![
        T::Boolean,
        T::Int8,
        T::Int16,
        T::Int32,
        T::Int64,
        T::UInt8,
        T::UInt16,
        T::UInt32,
        T::UInt64,
        T::Float32,
        T::Float64,
        T::Decimal128(1, 0),
        T::Decimal128(9, 2),
        T::Decimal128(18, 18),
        T::Decimal128(18, -3),
        T::Decimal128(38, 10),
        T::Decimal128(38, -38),
        T::Date32,
        T::Time32(units[0]),
        T::Time32(units[1]),
        T::Time64(units[2]),
        T::Time64(units[3]),
        T::Interval(IntervalUnit::MonthDayNano),
        T::Utf8,
        T::Binary,
        T::FixedSizeBinary(1),
        T::FixedSizeBinary(16),
        T::FixedSizeBinary(70),
    ];
    for unit in units {
        types.push(T::Timestamp(unit, None));
        types.push(T::Timestamp(unit, Some("UTC".into())));
        types.push(T::Timestamp(unit, Some("Europe/Berlin".into())));
        types.push(T::Timestamp(unit, Some("+05:30".into())));
        types.push(T::Duration(unit));
    }
    let flat = types.clone();
    types.extend(flat.iter().map(|ty| list(ty.clone())));
    types.push(T::Struct(
        flat.iter()
            .enumerate()
            .map(|(i, ty)| Field::new(format!("f{i}"), ty.clone(), true))
            .collect(),
    ));
    types.push(list(list(T::Interval(IntervalUnit::MonthDayNano))));
    types.push(list(structure(vec![T::Utf8, list(T::Int32), T::Decimal128(5, -1)])));
    types.push(structure(vec![map(T::Utf8, T::Interval(IntervalUnit::MonthDayNano))]));
    types.push(map(T::Int64, list(T::Decimal128(20, -5))));
    types.push(map(T::Utf8, structure(vec![T::Boolean, T::Utf8])));
    types
}

pub(crate) fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

fn structure(types: Vec<DataType>) -> DataType {
    let fields = types.into_iter().enumerate();
    DataType::Struct(fields.map(|(i, ty)| Field::new(format!("s{i}"), ty, true)).collect())
}

fn map(key: DataType, value: DataType) -> DataType {
    let fields =
        Fields::from(vec![Field::new("key", key, false), Field::new("value", value, true)]);
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(fields), false)), false)
}

/// SplitMix64: reproducible, and good enough to fill arrays.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// One in eight values is NULL.
    fn nulls(&mut self, rows: usize, nullable: bool) -> Option<NullBuffer> {
        nullable.then(|| (0..rows).map(|_| self.below(8) != 0).collect::<Vec<bool>>().into())
    }

    fn offsets(&mut self, rows: usize, longest: u64) -> OffsetBuffer<i32> {
        OffsetBuffer::from_lengths((0..rows).map(|_| self.below(longest + 1) as usize))
    }
}

/// `rows` values of a type; few different ones when `low` is set.
pub(crate) fn random_array(
    random: &mut Random,
    ty: &DataType,
    rows: usize,
    nullable: bool,
    low: bool,
) -> ArrayRef {
    let nulls = random.nulls(rows, nullable);
    match ty {
        DataType::Boolean => {
            let values = (0..rows).map(|_| random.below(2) == 0).collect::<Vec<_>>();
            Arc::new(BooleanArray::new(values.into(), nulls))
        }
        DataType::Utf8 => {
            let texts = (0..rows).map(|_| text(random, low)).collect::<Vec<_>>();
            let array = StringArray::from(texts);
            Arc::new(StringArray::new(array.offsets().clone(), array.values().clone(), nulls))
        }
        DataType::Binary => {
            let bytes = (0..rows).map(|_| text(random, low).into_bytes()).collect::<Vec<_>>();
            let array = BinaryArray::from_iter_values(bytes);
            Arc::new(BinaryArray::new(array.offsets().clone(), array.values().clone(), nulls))
        }
        DataType::Decimal128(precision, scale) => {
            let bound = 10_i128.pow((*precision).into());
            let values = (0..rows).map(|_| {
                let wide = (i128::from(random.next()) << 64 | i128::from(random.next())) % bound;
                if low { wide % 3 } else { wide }
            });
            let values: Vec<i128> = values.collect();
            let array = Decimal128Array::new(values.into(), nulls);
            Arc::new(array.with_precision_and_scale(*precision, *scale).unwrap())
        }
        DataType::List(item) => {
            let offsets = random.offsets(rows, 3);
            let length = offsets.last().copied().unwrap_or_default() as usize;
            let values = random_array(random, item.data_type(), length, true, low);
            Arc::new(ListArray::new(Arc::clone(item), offsets, values, nulls))
        }
        DataType::Struct(fields) => Arc::new(random_struct(random, fields, rows, nulls, low)),
        DataType::Map(entries, sorted) => {
            let offsets = random.offsets(rows, 3);
            let length = offsets.last().copied().unwrap_or_default() as usize;
            let DataType::Struct(fields) = entries.data_type() else { panic!("{ty}") };
            let rows = random_struct(random, fields, length, None, low);
            Arc::new(MapArray::new(Arc::clone(entries), offsets, rows, nulls, *sorted))
        }
        fixed => {
            let width = match fixed {
                DataType::FixedSizeBinary(width) => *width as usize,
                other => other.primitive_width().unwrap(),
            };
            let mut bytes: Vec<u8> = (0..rows * width).map(|_| random.next() as u8).collect();
            if low {
                bytes.iter_mut().enumerate().for_each(|(i, b)| *b &= u8::from(i % width == 0));
            }
            let data = ArrayData::builder(fixed.clone())
                .len(rows)
                .add_buffer(Buffer::from_vec(bytes))
                .nulls(nulls)
                .align_buffers(true)
                .build();
            make_array(data.unwrap())
        }
    }
}

fn random_struct(
    random: &mut Random,
    fields: &Fields,
    rows: usize,
    nulls: Option<NullBuffer>,
    low: bool,
) -> StructArray {
    let columns = fields
        .iter()
        .map(|field| random_array(random, field.data_type(), rows, field.is_nullable(), low))
        .collect();
    StructArray::new(fields.clone(), columns, nulls)
}

fn text(random: &mut Random, low: bool) -> String {
    const CHARACTERS: [char; 8] = ['a', 'z', ' ', '\0', 'ä', '語', '😀', '\u{10FFFF}'];
    let length = if low { 1 } else { random.below(90) };
    (0..length).map(|_| CHARACTERS[random.below(8) as usize]).collect()
}
