//! Equal values hash equally in every form, and the function never changes.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Date64Array, Decimal128Array,
    DictionaryArray, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array,
    IntervalMonthDayNanoArray, ListArray, NullArray, StringArray, StringViewArray,
    TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt8Array,
    UInt64Array,
};
use arrow::datatypes::{Int8Type, Int32Type, IntervalMonthDayNano};

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

fn check_pinned(array: impl Array + 'static, expected: &[u64]) {
    assert_eq!(hashes(array), expected);
}

/// If this test fails, rows on existing disks are in the wrong slices: change the code, not the
/// numbers. They come from the reference implementation (xxHash 0.8 in C, through Python's
/// `xxhash`), given the bytes that `FORMAT.md` section 8 states.
#[test]
fn version_1_never_changes() {
    assert_eq!(SliceHashId::XXH3_V1, SliceHashId(1));
    assert_eq!((super::SEED, NULL_HASH), (0x6261_7361_6c74_0001, 0x6e75_6c6c_6e75_6c6c));
    check_pinned(
        Int64Array::from(vec![0, 1, -1, 42, i64::MAX]),
        &[
            0x1341_5edb_cbd7_d1be,
            0x17a0_f7e2_e22d_9f73,
            0x181e_5b85_750a_e6fe,
            0x302d_c4bf_ee47_35b8,
            0x55a5_a7f3_f3d2_aafa,
        ],
    );
    check_pinned(UInt64Array::from(vec![u64::MAX]), &[0x3562_a4d5_8c82_7e71]);
    check_pinned(decimals(vec![1_500], 9, 3), &[0x769d_7b76_3fef_261c]);
    check_pinned(decimals(vec![-1], 9, 2), &[0x0062_72ec_c61f_36d6]);
    check_pinned(
        Float64Array::from(vec![1.5, f64::NAN, -0.0]),
        &[0x1a00_c9af_a2d9_6c5b, 0x30c0_c669_9719_60ef, 0x1341_5edb_cbd7_d1be],
    );
    check_pinned(
        BooleanArray::from(vec![true, false]),
        &[0xc74b_ff15_c15c_40a5, 0x3ec3_4ac2_e303_bf50],
    );
    check_pinned(
        StringArray::from(vec!["", "a", "basalt", &"0123456789".repeat(30)]),
        &[
            0x57bc_3352_681e_3f53,
            0xdb98_675d_1525_94e9,
            0xac25_2e54_f770_9078,
            0x4321_d962_cee0_5176,
        ],
    );
    check_pinned(Date32Array::from(vec![10_957]), &[0x5e23_0a41_7578_57db]);
    check_pinned(TimestampSecondArray::from(vec![1]), &[0x0349_cc06_5775_86a0]);
    let interval = IntervalMonthDayNano::new(1, 2, 3);
    check_pinned(IntervalMonthDayNanoArray::from(vec![interval]), &[0xbb03_e56d_d963_e558]);
}
