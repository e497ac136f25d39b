//! Bounds hold for every value, and are absent where they cannot be had.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int32Array,
    ListArray, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::array::{AsArray, types::Int32Type};
use arrow::datatypes::{DataType, TimeUnit};

use super::{ZONE_BYTES_MAX, ZoneMap, ZoneValue, zone_array};

fn zone(array: impl arrow::array::Array + 'static) -> ZoneMap {
    ZoneMap::of(&(Arc::new(array) as ArrayRef))
}

fn text(value: &str, exact: bool) -> Option<ZoneValue> {
    Some(ZoneValue::Bytes { value: value.as_bytes().to_vec(), exact })
}

#[test]
fn nulls_are_counted_and_not_compared() {
    let zone = zone(Int32Array::from(vec![Some(5), None, Some(-3), None]));
    assert_eq!(zone.null_count, 2);
    assert_eq!((zone.min, zone.max), (Some(ZoneValue::Int(-3)), Some(ZoneValue::Int(5))));
}

#[test]
fn only_nulls_and_no_rows_have_no_bounds() {
    let nulls = zone(Int32Array::from(vec![None, None]));
    assert_eq!(nulls, ZoneMap { null_count: 2, min: None, max: None });
    assert_eq!(zone(StringArray::from(Vec::<&str>::new())), ZoneMap::default());
}

#[test]
fn a_nan_of_either_sign_leaves_no_bounds() {
    for nan in [f64::NAN, -f64::NAN] {
        let zone = zone(Float64Array::from(vec![1.0, nan, 2.0]));
        assert_eq!((zone.min, zone.max), (None, None));
    }
}

#[test]
fn zeros_take_the_sign_that_widens() {
    let bits = |zone: ZoneMap| match (zone.min, zone.max) {
        (Some(ZoneValue::Float(min)), Some(ZoneValue::Float(max))) => {
            (min.to_bits(), max.to_bits())
        }
        other => panic!("{other:?}"),
    };
    let expected = ((-0.0_f64).to_bits(), 0.0_f64.to_bits());
    assert_eq!(bits(zone(Float64Array::from(vec![0.0, 0.0]))), expected);
    assert_eq!(bits(zone(Float32Array::from(vec![-0.0, -0.0]))), expected);
}

#[test]
fn long_text_is_cut_between_characters_and_its_maximum_rounded_up() {
    let long = "ä".repeat(ZONE_BYTES_MAX);
    let zone = zone(StringArray::from(vec![long.as_str()]));
    assert_eq!(zone.min, text(&"ä".repeat(32), false));
    assert_eq!(zone.max, text(&format!("{}å", "ä".repeat(31)), false));
}

#[test]
fn a_maximum_that_cannot_be_rounded_up_is_absent() {
    let last = "\u{10FFFF}".repeat(ZONE_BYTES_MAX);
    assert_eq!(zone(StringArray::from(vec![last.as_str()])).max, None);
    let last = [0xFF_u8; ZONE_BYTES_MAX + 1];
    assert_eq!(zone(BinaryArray::from(vec![last.as_slice()])).max, None);
}

#[test]
fn the_character_after_the_surrogates_is_found() {
    let long = "\u{D7FF}".repeat(ZONE_BYTES_MAX);
    let zone = zone(StringArray::from(vec![long.as_str()]));
    let expected = format!("{}\u{E000}", "\u{D7FF}".repeat(20));
    assert_eq!(zone.max, text(&expected, false));
}

#[test]
fn booleans_decimals_and_unsigned_have_bounds() {
    let booleans = zone(BooleanArray::from(vec![Some(true), None]));
    assert_eq!(booleans.min, Some(ZoneValue::Bool(true)));
    let decimals = Decimal128Array::from(vec![i128::from(u64::MAX), -1]);
    assert_eq!(zone(decimals).max, Some(ZoneValue::Decimal(u64::MAX.into())));
    assert_eq!(zone(UInt64Array::from(vec![u64::MAX])).max, Some(ZoneValue::UInt(u64::MAX)));
}

#[test]
fn nested_values_have_a_null_count_only() {
    let rows = vec![Some(vec![Some(1)]), None];
    let zone = zone(ListArray::from_iter_primitive::<Int32Type, _, _>(rows));
    assert_eq!(zone, ZoneMap { null_count: 1, min: None, max: None });
}

#[test]
fn merging_keeps_the_widest_bounds_and_ignores_runs_of_nulls() {
    let run = |min, max, null_count| ZoneMap {
        null_count,
        min: Some(ZoneValue::Int(min)),
        max: Some(ZoneValue::Int(max)),
    };
    let nulls = ZoneMap { null_count: 4, min: None, max: None };
    let merged = ZoneMap::merge([(10, &run(3, 9, 1)), (4, &nulls), (10, &run(-2, 5, 0))]);
    assert_eq!(merged, run(-2, 9, 5));
}

#[test]
fn merging_with_an_unknown_run_is_unknown() {
    let known = ZoneMap { null_count: 0, min: Some(ZoneValue::Int(1)), max: None };
    let unknown = ZoneMap::default();
    assert_eq!(ZoneMap::merge([(1, &known), (1, &unknown)]), ZoneMap::default());
    assert_eq!(ZoneMap::merge([(1, &unknown), (1, &known)]), ZoneMap::default());
}

#[test]
fn bounds_become_arrays_of_the_column_type() {
    let bounds = [Some(ZoneValue::Int(7)), None, Some(ZoneValue::Int(i64::MAX))];
    let array = zone_array(&DataType::Int32, bounds.iter().map(Option::as_ref)).unwrap();
    assert_eq!(array.as_ref(), &Int32Array::from(vec![Some(7), None, None]));

    let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("Europe/Berlin".into()));
    let array = zone_array(&zoned, bounds.iter().map(Option::as_ref)).unwrap();
    let expected = TimestampMicrosecondArray::from(vec![Some(7), None, Some(i64::MAX)]);
    assert_eq!(array.as_ref(), &expected.with_timezone("Europe/Berlin"));
}

#[test]
fn every_storable_type_has_an_array_of_bounds() {
    for ty in crate::types::tests::storable_types() {
        let array = zone_array(&ty, [None, None].into_iter()).unwrap();
        assert_eq!(array.data_type(), &ty);
        assert_eq!((array.len(), array.null_count()), (2, 2));
    }
}

#[test]
fn text_bounds_can_be_views() {
    let bound = text("abc", true);
    let array = zone_array(&DataType::Utf8View, [bound.as_ref()].into_iter()).unwrap();
    assert_eq!(array.as_string_view().value(0), "abc");
}

#[test]
fn json_keeps_every_bound() {
    let bounds = [
        ZoneValue::Float(f64::NEG_INFINITY),
        ZoneValue::Float(-0.0),
        ZoneValue::Decimal(i128::MIN),
        ZoneValue::Bytes { value: vec![0, 255, 16], exact: false },
        ZoneValue::UInt(u64::MAX),
    ];
    for bound in bounds {
        let zone = ZoneMap { null_count: 1, min: Some(bound), max: None };
        let json = serde_json::to_string(&zone).unwrap();
        assert_eq!(serde_json::from_str::<ZoneMap>(&json).unwrap(), zone, "{json}");
    }
    let bytes = ZoneValue::Bytes { value: vec![0, 255, 16], exact: true };
    assert!(serde_json::to_string(&bytes).unwrap().contains("\"00ff10\""));
}
