//! The choice of an encoding, as a pure function.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Decimal128Array, Int32Array, StringArray};
use arrow::datatypes::{DataType, Field, IntervalUnit};

use super::{ChunkEncoding, Sample, choose, count_distinct};

/// A sample of 8,192 values of `width` bytes out of a full row group.
fn sample(width: u64, distinct: u64, once: u64, twice: u64) -> Sample {
    Sample {
        values: 8_192,
        distinct,
        once,
        twice,
        plain_bytes: 8_192 * width,
        lz4_bytes: 8_192 * width,
        delta_bytes: None,
        group_rows: 131_072,
    }
}

fn check(sample: Sample, expected: &str) {
    assert_eq!(choose(&sample).name(), expected, "{sample:?}");
}

#[test]
fn few_distinct_wide_values_get_a_dictionary() {
    check(sample(8, 50, 0, 0), "bytedict");
    check(sample(25, 7, 0, 0), "bytedict");
    check(sample(8, 6_000, 4_200, 1_500), "bytedict");
}

#[test]
fn many_distinct_values_are_plain() {
    check(sample(8, 8_192, 8_192, 0), "raw");
    check(sample(27, 8_100, 8_010, 88), "raw");
}

#[test]
fn narrow_values_need_a_much_smaller_dictionary() {
    check(sample(4, 2_500, 200, 400), "raw");
    check(sample(4, 7, 0, 0), "bytedict");
}

#[test]
fn a_dictionary_too_large_for_the_cache_is_none() {
    check(sample(2_000, 1_000, 0, 0), "raw");
}

#[test]
fn compression_must_save_more_than_a_fifth() {
    let distinct = sample(27, 8_192, 8_192, 0);
    check(Sample { lz4_bytes: distinct.plain_bytes * 81 / 100, ..distinct }, "raw");
    check(Sample { lz4_bytes: distinct.plain_bytes * 79 / 100, ..distinct }, "lz4");
}

#[test]
fn differences_must_halve_the_bytes_and_go_before_compression() {
    let keys = sample(8, 8_192, 8_192, 0);
    let small = keys.plain_bytes / 4;
    check(Sample { delta_bytes: Some(small), lz4_bytes: small, ..keys }, "delta");
    check(Sample { delta_bytes: Some(keys.plain_bytes * 6 / 10), ..keys }, "raw");
}

#[test]
fn types_without_a_count_get_no_dictionary() {
    check(sample(8, 0, 0, 0), "raw");
}

#[test]
fn nothing_but_nulls_is_plain() {
    assert_eq!(choose(&Sample::default()), ChunkEncoding::Raw);
}

#[test]
fn distinct_values_are_counted_without_nulls() {
    let counts = |array: ArrayRef| count_distinct(&array);
    let numbers = Int32Array::from(vec![Some(1), None, Some(1), Some(2), Some(0)]);
    assert_eq!(counts(Arc::new(numbers.clone())), Some((4, 3, 2, 1)));
    assert_eq!(counts(Arc::new(numbers.slice(1, 3))), Some((2, 2, 2, 0)));
    let texts = StringArray::from(vec![Some("a"), Some("b"), Some("a"), None]);
    assert_eq!(counts(Arc::new(texts)), Some((3, 2, 1, 1)));
    let decimals = |digits| {
        let decimals = Decimal128Array::from(vec![5, 5]).with_precision_and_scale(digits, 0);
        counts(Arc::new(decimals.unwrap()))
    };
    assert_eq!(decimals(18), Some((2, 1, 0, 1)));
    assert_eq!(decimals(19), None);
    assert_eq!(counts(Arc::new(BooleanArray::from(vec![true]))), None);
}

#[test]
fn names_and_descriptions_lead_back_to_their_encodings() {
    for encoding in ChunkEncoding::ALL {
        assert_eq!(ChunkEncoding::from_name(encoding.name()), Some(encoding));
        assert_eq!(ChunkEncoding::from_description(encoding.description()), Some(encoding));
        let json = serde_json::to_string(&encoding).unwrap();
        assert_eq!(json, format!("\"{}\"", encoding.name()), "the catalog has the names of SQL");
    }
    assert_eq!(ChunkEncoding::from_name("RAW"), None);
}

#[test]
fn encodings_fit_the_types_that_they_can_hold() {
    let fitting = |ty: &DataType| {
        let all = ChunkEncoding::ALL.into_iter().filter(|encoding| encoding.fits(ty));
        all.map(ChunkEncoding::name).collect::<Vec<_>>().join(" ")
    };
    let item = Arc::new(Field::new("item", DataType::Int32, true));
    for (ty, expected) in [
        (DataType::Int64, "raw bytedict delta lz4 zstd"),
        (DataType::Date32, "raw bytedict delta lz4 zstd"),
        (DataType::Decimal128(18, -3), "raw bytedict delta lz4 zstd"),
        (DataType::Decimal128(19, 0), "raw lz4 zstd"),
        (DataType::Float64, "raw bytedict lz4 zstd"),
        (DataType::Utf8, "raw bytedict lz4 zstd"),
        (DataType::Boolean, "raw lz4 zstd"),
        (DataType::Interval(IntervalUnit::MonthDayNano), "raw lz4 zstd"),
        (DataType::List(item), "raw lz4 zstd"),
    ] {
        assert_eq!(fitting(&ty), expected, "{ty}");
    }
}
