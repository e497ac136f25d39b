//! Columns of files to columns of a table, and casts that lose nothing.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Int32Array, Int64Array, IntervalDayTimeArray,
    ListArray, MapArray, NullArray, StringArray, TimestampMicrosecondArray,
    TimestampNanosecondArray, TimestampSecondArray,
};
use arrow::datatypes::{
    DataType, Field, Int32Type, IntervalDayTime, IntervalMonthDayNano, IntervalMonthDayNanoType,
    IntervalUnit, Schema, TimeUnit,
};
use basalt_engine::error::ErrorCode;
use basalt_engine::files::{Conversion, checked_cast, checked_cast_column, load_mapping};

fn schema(columns: &[(&str, DataType)]) -> Schema {
    Schema::new(columns.iter().map(|(n, t)| Field::new(*n, t.clone(), true)).collect::<Vec<_>>())
}

#[test]
fn columns_are_found_by_name_in_any_order_and_case() {
    let source = schema(&[
        ("B", DataType::Utf8View),
        ("a", DataType::Int64),
        ("X", DataType::Int8),
        ("x", DataType::Int16),
    ]);
    let target = schema(&[
        ("a", DataType::Int64),
        ("b", DataType::Utf8),
        ("x", DataType::Int16),
        ("X", DataType::Int8),
    ]);
    let found: Vec<_> =
        load_mapping(&source, &target).unwrap().iter().map(|m| (m.source, m.target)).collect();
    assert_eq!(found, [(1, 0), (0, 1), (3, 2), (2, 3)]);
}

#[test]
fn every_difference_is_in_one_error() {
    let source =
        schema(&[("amuont", DataType::Int64), ("f", DataType::Float64), ("t", DataType::Utf8)]);
    let target =
        schema(&[("amount", DataType::Int64), ("f", DataType::Int64), ("t", DataType::Date32)]);
    let error = load_mapping(&source, &target).unwrap_err();
    assert_eq!(error.code, ErrorCode::DatatypeMismatch);
    for part in [
        "column \"amount\" is not in the files (is it their \"amuont\"?)",
        "column \"amuont\" is not in the table",
        "column \"f\" is Int64 in the table and Float64 in the files",
        "column \"t\" is Date32 in the table and Utf8 in the files",
    ] {
        assert!(error.message.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_name_that_fits_two_columns_by_case_fits_none() {
    let source = schema(&[("Ab", DataType::Int64), ("aB", DataType::Int64)]);
    let error = load_mapping(&source, &schema(&[("ab", DataType::Int64)])).unwrap_err();
    assert_eq!(error.code, ErrorCode::UndefinedColumn);
}

#[test]
fn conversions_are_exact_checked_or_refused() {
    use Conversion::{Checked, Exact, Same};
    use DataType as T;
    let list = |t| T::List(Arc::new(Field::new_list_field(t, true)));
    let time = |unit, zone: Option<&str>| T::Timestamp(unit, zone.map(Into::into));
    for (from, to, expected) in [
        (T::Utf8View, T::Utf8, Some(Same)),
        (T::Dictionary(Box::new(T::Int8), Box::new(T::LargeUtf8)), T::Utf8, Some(Same)),
        (T::Int32, T::Int64, Some(Exact)),
        (T::UInt32, T::Int64, Some(Exact)),
        (T::UInt64, T::Int64, Some(Checked)),
        (T::Int64, T::Int32, Some(Checked)),
        (T::Int32, T::UInt64, Some(Checked)),
        (T::Float32, T::Float64, Some(Exact)),
        (T::Float64, T::Float32, None),
        (T::Float64, T::Int64, None),
        (T::Int32, T::Float64, Some(Exact)),
        (T::Int64, T::Float64, None),
        (T::Int64, T::Decimal128(20, 0), Some(Checked)),
        (T::Decimal128(10, 2), T::Decimal128(12, 4), Some(Checked)),
        (T::Decimal128(10, 2), T::Float64, None),
        (T::Utf8, T::Int64, None),
        (T::Int64, T::Utf8, None),
        (T::Utf8, T::Binary, None),
        (T::Boolean, T::Int8, None),
        (time(TimeUnit::Nanosecond, None), time(TimeUnit::Microsecond, None), Some(Checked)),
        (time(TimeUnit::Second, Some("UTC")), time(TimeUnit::Second, None), None),
        (T::Date32, time(TimeUnit::Second, None), None),
        (list(T::Int32), list(T::Int64), Some(Exact)),
        (list(T::Int64), list(T::Int32), None),
        (list(T::Utf8View), list(T::Utf8), Some(Same)),
        (T::Null, T::Int64, Some(Exact)),
        (T::Null, T::Utf8, Some(Exact)),
        (T::Null, list(T::Utf8), Some(Exact)),
        (list(T::Null), list(T::Utf8), Some(Exact)),
        (T::Interval(IntervalUnit::DayTime), T::Interval(IntervalUnit::MonthDayNano), Some(Same)),
    ] {
        let found = load_mapping(&schema(&[("a", from.clone())]), &schema(&[("a", to.clone())]));
        assert_eq!(found.ok().map(|m| m[0].conversion), expected, "{from} -> {to}");
    }
}

fn check_lost(array: impl Array + 'static, to: DataType, example: &str) {
    let array: ArrayRef = Arc::new(array);
    let error = checked_cast_column("c", &array, &to).unwrap_err();
    assert_eq!(error.code, ErrorCode::DataException);
    assert!(
        error.message.starts_with(&format!("column \"c\": value {example} of type")),
        "{error}"
    );
}

#[test]
fn a_value_that_would_change_is_named() {
    check_lost(
        Int64Array::from(vec![Some(1), None, Some(1 << 40)]),
        DataType::Int32,
        "1099511627776",
    );
    check_lost(Int32Array::from(vec![1, -5]), DataType::UInt64, "-5");
    let decimals =
        |values: Vec<i128>| Decimal128Array::from(values).with_precision_and_scale(10, 2).unwrap();
    check_lost(decimals(vec![100, 125]), DataType::Decimal128(10, 1), "1.25");
    check_lost(decimals(vec![100, 123_456]), DataType::Decimal128(4, 2), "1234.56");
    check_lost(decimals(vec![100, 150]), DataType::Int64, "1.50");
    check_lost(Int64Array::from(vec![1, 1_000_000]), DataType::Decimal128(5, 2), "1000000");
    check_lost(
        TimestampNanosecondArray::from(vec![1_000, 1_001]),
        DataType::Timestamp(TimeUnit::Microsecond, None),
        "1970-01-01T00:00:00.000001001",
    );
    check_lost(
        TimestampSecondArray::from(vec![0, 1 << 40]),
        DataType::Timestamp(TimeUnit::Nanosecond, None),
        "+36812-02-20T00:36:16",
    );
}

#[test]
fn values_that_fit_arrive_exactly() {
    let times: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![Some(-1_000), None]));
    let cast = checked_cast(&times, &DataType::Timestamp(TimeUnit::Microsecond, None)).unwrap();
    assert_eq!(cast.as_any().downcast_ref::<TimestampMicrosecondArray>().unwrap().value(0), -1);
    let integers: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None]));
    let cast = checked_cast(&integers, &DataType::Decimal128(10, 2)).unwrap();
    assert_eq!(cast.as_any().downcast_ref::<Decimal128Array>().unwrap().value(0), 700);
    let text: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    assert_eq!(checked_cast(&text, &DataType::Utf8View).unwrap().len(), 1);
    let lists: ArrayRef =
        Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1)])]));
    let wider = DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
    assert_eq!(checked_cast(&lists, &wider).unwrap().data_type(), &wider);
}

#[test]
fn values_without_a_type_are_nulls_of_every_type() {
    let untyped: ArrayRef = Arc::new(NullArray::new(3));
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    for to in [DataType::Utf8, DataType::Date32, list] {
        let cast = checked_cast(&untyped, &to).unwrap();
        assert_eq!((cast.data_type(), cast.null_count(), cast.len()), (&to, 3, 3));
    }
}

#[test]
fn layouts_that_the_cast_kernel_does_not_know_arrive_as_well() {
    let days: ArrayRef = Arc::new(IntervalDayTimeArray::from(vec![IntervalDayTime::new(-3, 5)]));
    let cast = checked_cast(&days, &DataType::Interval(IntervalUnit::MonthDayNano)).unwrap();
    let expected = IntervalMonthDayNano::new(0, -3, 5_000_000);
    assert_eq!(cast.as_primitive::<IntervalMonthDayNanoType>().value(0), expected);

    let keys = StringArray::from(vec!["a", "b"]);
    let values = Int32Array::from(vec![Some(1), None]);
    let map = MapArray::new_from_strings(keys.iter().flatten(), &values, &[0, 2]).unwrap();
    let (entries, offsets, rows, nulls, _) = map.clone().into_parts();
    let sorted: ArrayRef = Arc::new(MapArray::new(entries, offsets, rows, nulls, true));
    let stored = basalt_engine::types::storage_type(sorted.data_type()).unwrap();
    let cast = checked_cast(&sorted, &stored).unwrap();
    assert_eq!(cast.as_map().entries().column(1), map.entries().column(1));
}
