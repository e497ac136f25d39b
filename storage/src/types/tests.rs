//! The closed set of storable types, and lossless conversion into it.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date64Array, DictionaryArray, FixedSizeListArray, Float16Array,
    Int32Array, IntervalYearMonthArray, LargeListArray, NullArray, StringArray, StringViewArray,
};
use arrow::datatypes::{
    DataType, Field, Fields, Int32Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
};

use super::{can_read_as, storage_type, to_storage, view_type};

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
        T::Decimal128(18, -3),
        T::Decimal128(38, 10),
        T::Date32,
        T::Time32(units[0]),
        T::Time32(units[1]),
        T::Time64(units[2]),
        T::Time64(units[3]),
        T::Interval(IntervalUnit::MonthDayNano),
        T::Utf8,
        T::Binary,
        T::FixedSizeBinary(7),
    ];
    for unit in units {
        types.push(T::Timestamp(unit, None));
        types.push(T::Timestamp(unit, Some("UTC".into())));
        types.push(T::Timestamp(unit, Some("Europe/Berlin".into())));
        types.push(T::Duration(unit));
    }
    let flat = types.clone();
    types.extend(flat.iter().map(|ty| list(ty.clone())));
    let fields = flat.iter().enumerate();
    types.push(T::Struct(
        fields.map(|(i, ty)| Field::new(format!("f{i}"), ty.clone(), true)).collect(),
    ));
    types.push(list(list(T::Interval(IntervalUnit::MonthDayNano))));
    types.push(super::map_type(
        Arc::new(Field::new("key", T::Utf8, false)),
        Arc::new(Field::new("value", list(T::Decimal128(20, -5)), true)),
    ));
    types
}

fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

fn check(array: impl Array + 'static, expected: impl Array + 'static) {
    let array: ArrayRef = Arc::new(array);
    let target = storage_type(array.data_type()).unwrap();
    assert_eq!(&target, expected.data_type());
    let stored = to_storage(&array, &target).unwrap();
    assert_eq!(stored.to_data(), expected.to_data());
}

#[test]
fn storage_types_are_their_own_storage_form() {
    for ty in storable_types() {
        assert_eq!(storage_type(&ty).unwrap(), ty);
    }
}

#[test]
fn what_cannot_be_stored_is_refused() {
    let deep = (0..40).fold(DataType::Int8, |ty, _| list(ty));
    for ty in [
        DataType::Decimal256(40, 2),
        DataType::Decimal128(39, 2),
        DataType::Decimal128(3, 5),
        DataType::Struct(Fields::empty()),
        DataType::FixedSizeBinary(0),
        DataType::Time32(TimeUnit::Nanosecond),
        deep,
    ] {
        assert!(storage_type(&ty).is_err(), "{ty}");
    }
}

#[test]
fn dictionaries_become_their_values() {
    let dictionary: DictionaryArray<Int32Type> =
        vec![Some("a"), None, Some("a")].into_iter().collect();
    check(dictionary, StringArray::from(vec![Some("a"), None, Some("a")]));
}

#[test]
fn views_halves_and_nulls_have_plain_forms() {
    check(StringViewArray::from(vec!["x", "y"]), StringArray::from(vec!["x", "y"]));
    check(NullArray::new(2), Int32Array::from(vec![None, None]));
    let half = Float16Array::from(vec![half_from(1.5)]);
    check(half, arrow::array::Float32Array::from(vec![1.5]));
}

fn half_from(
    value: f32,
) -> <arrow::datatypes::Float16Type as arrow::array::ArrowPrimitiveType>::Native {
    let array: ArrayRef = Arc::new(arrow::array::Float32Array::from(vec![value]));
    let half = arrow::compute::cast(&array, &DataType::Float16).unwrap();
    half.as_primitive::<arrow::datatypes::Float16Type>().value(0)
}

#[test]
fn every_kind_of_list_becomes_a_list() {
    let rows = || vec![Some(vec![Some(1), None]), None, Some(vec![Some(3), Some(4)])];
    let expected = rebuilt_list(rows());
    check(LargeListArray::from_iter_primitive::<Int32Type, _, _>(rows()), expected.clone());
    let fixed = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(rows(), 2);
    let fixed: ArrayRef = Arc::new(fixed);
    let stored = to_storage(&fixed, expected.data_type()).unwrap();
    let stored = stored.as_list::<i32>();
    let values = |list: &arrow::array::ListArray| list.iter().collect::<Vec<_>>();
    assert_eq!(values(stored), values(&expected));
}

fn rebuilt_list(rows: Vec<Option<Vec<Option<i32>>>>) -> arrow::array::ListArray {
    arrow::array::ListArray::from_iter_primitive::<Int32Type, _, _>(rows)
}

#[test]
fn months_become_intervals() {
    let array: ArrayRef = Arc::new(IntervalYearMonthArray::from(vec![14]));
    let target = storage_type(array.data_type()).unwrap();
    let stored = to_storage(&array, &target).unwrap();
    assert_eq!(stored.as_primitive::<IntervalMonthDayNanoType>().value(0).months, 14);
}

#[test]
fn a_date_with_a_time_of_day_is_an_error() {
    let whole: ArrayRef = Arc::new(Date64Array::from(vec![86_400_000 * 3]));
    assert!(to_storage(&whole, &DataType::Date32).is_ok());
    let broken: ArrayRef = Arc::new(Date64Array::from(vec![86_400_001]));
    assert_eq!(to_storage(&broken, &DataType::Date32).unwrap_err().code(), "INVALID_DATA");
}

#[test]
fn conversions_that_could_lose_values_are_refused() {
    let array: ArrayRef = Arc::new(arrow::array::Int64Array::from(vec![1]));
    assert!(to_storage(&array, &DataType::Int32).is_err());
    assert!(to_storage(&array, &DataType::Float64).is_err());
}

#[test]
fn physical_forms_come_back_as_they_were() {
    for ty in storable_types() {
        let array = arrow::array::new_null_array(&ty, 3);
        let physical = super::to_physical(&array).unwrap();
        assert_eq!(physical.data_type(), &super::physical_type(&ty));
        let logical = super::from_physical(&physical, &ty).unwrap();
        assert_eq!(logical.to_data(), array.to_data());
    }
}

#[test]
fn text_can_be_read_as_views_at_any_depth() {
    for ty in storable_types() {
        assert!(can_read_as(&ty, &ty));
        assert!(can_read_as(&ty, &view_type(&ty)), "{ty}");
    }
    assert!(!can_read_as(&DataType::Utf8, &DataType::Binary));
    assert!(!can_read_as(&DataType::Decimal128(19, 2), &DataType::Decimal64(19, 2)));
}
