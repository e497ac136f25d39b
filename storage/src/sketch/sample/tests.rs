//! Samples of sets, histograms that hold equally many rows in each range, and checked bytes.

use std::sync::Arc;

use arrow::array::{
    BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, StringViewArray,
};
use proptest::prelude::*;

use super::*;

fn of(rows: &[(i64, u64)]) -> RowSample {
    let values = Int64Array::from_iter_values(rows.iter().map(|row| row.0));
    of_array(Arc::new(values), rows.iter().map(|row| row.1))
}

fn of_array(values: ArrayRef, ids: impl Iterator<Item = u64>) -> RowSample {
    let mut sample = RowSample::default();
    sample.add(&values, &UInt64Array::from_iter_values(ids)).unwrap();
    sample
}

fn int(value: &ZoneValue) -> i64 {
    match value {
        ZoneValue::Int(value) => *value,
        other => panic!("{other:?} is no integer"),
    }
}

#[test]
fn a_histogram_of_skewed_rows_follows_their_quantiles() {
    // Squares: half of the rows are below a quarter of the largest.
    let rows: Vec<_> = (0..100_000_i64).map(|n| (n * n, n as u64)).collect();
    let sample = of(&rows);
    assert_eq!(sample.rows(), SAMPLE_ROWS);
    let bounds: Vec<_> = sample.histogram(100).into_iter().map(int).collect();
    assert_eq!(bounds.len(), 101);
    assert!(bounds.is_sorted());
    for (percent, bound) in (0_i64..).zip(&bounds) {
        let below = bound.isqrt();
        // Five deviations of 1.6 % of the rows.
        assert!((below - percent * 1_000).abs() < 8_000, "{below} rows below bound {percent}");
    }
}

#[test]
fn few_rows_are_all_in_the_histogram() {
    let sample = of(&[(3, 0), (1, 1), (2, 2)]);
    assert_eq!(sample.histogram(100).into_iter().map(int).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(RowSample::default().histogram(100).is_empty());
}

#[test]
fn a_row_that_comes_twice_is_there_once_and_equal_values_of_two_rows_are_two() {
    assert_eq!(of(&[(5, 9), (5, 9)]).rows(), 1);
    assert_eq!(of(&[(5, 9), (5, 10)]).rows(), 2);
}

#[test]
fn nulls_and_nan_are_not_sampled() {
    let values = Float64Array::from(vec![Some(1.5), None, Some(f64::NAN)]);
    assert_eq!(of_array(Arc::new(values), 0..3).rows(), 1);
}

#[test]
fn every_kind_of_value_comes_back_from_its_bytes() {
    let long = "x".repeat(100);
    let decimals = Decimal128Array::from(vec![i128::MAX / 100, -1]);
    let arrays: [ArrayRef; 5] = [
        Arc::new(BooleanArray::from(vec![true, false])),
        Arc::new(Date32Array::from(vec![-1, 20_000])),
        Arc::new(Float64Array::from(vec![-0.5, f64::INFINITY])),
        Arc::new(StringViewArray::from(vec!["ü", long.as_str()])),
        Arc::new(decimals.with_precision_and_scale(38, 2).unwrap()),
    ];
    for array in arrays {
        let sample = of_array(Arc::clone(&array), 0..2);
        assert_eq!(sample.rows(), 2, "{}", array.data_type());
        assert_eq!(RowSample::from_bytes(&sample.to_bytes()).unwrap(), sample);
    }
}

#[test]
fn bytes_that_are_no_sample_are_refused() {
    let mut two_kinds = of(&[(1, 1)]).to_bytes();
    two_kinds.extend([0xff; 8]);
    two_kinds.extend([0, 1]);
    let mut twice = of(&[(1, 1)]).to_bytes();
    twice.extend_from_slice(&of(&[(1, 1)]).to_bytes()[1..]);
    let whole = of(&[(1, 1)]).to_bytes();
    let refused: [(&[u8], &str); 6] = [
        (&[], "too short"),
        (&[9], "its version is 9"),
        (&whole[..whole.len() - 1], "row 0 makes no sense"),
        (&[1, 0, 0, 0, 0, 0, 0, 0, 0, 5, 200], "row 0 makes no sense"),
        (&two_kinds, "row 1 is of another kind"),
        (&twice, "row 1 is out of order"),
    ];
    for (bytes, problem) in refused {
        let error = RowSample::from_bytes(bytes).unwrap_err().to_string();
        assert!(error.contains(problem), "{error} for {problem}");
    }
}

fn rows() -> impl Strategy<Value = Vec<(i64, u64)>> {
    prop::collection::vec((-100..100_i64, 0..4_000_u64), 0..3_000)
}

proptest! {
    #[test]
    fn the_sample_of_parts_is_that_of_the_whole(a in rows(), b in rows(), c in rows()) {
        let [a_sample, b_sample, c_sample] = [&a, &b, &c].map(|rows| of(rows));
        let whole = of(&[a, b, c].concat());
        let mut parts = a_sample.clone();
        parts.union(&b_sample);
        parts.union(&c_sample);
        prop_assert_eq!(&parts, &whole);
        let mut turned = c_sample;
        turned.union(&b_sample);
        turned.union(&a_sample);
        turned.union(&whole);
        prop_assert_eq!(&turned, &whole);
        prop_assert_eq!(&RowSample::from_bytes(&whole.to_bytes()).unwrap(), &whole);
    }
}
