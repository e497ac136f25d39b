//! Estimates within their bound, unions as of sets, and bytes that are checked.

use std::sync::Arc;

use arrow::array::{
    Decimal128Array, DictionaryArray, Float64Array, Int32Array, Int64Array, ListArray, StringArray,
    StringViewArray,
};
use arrow::datatypes::{Int8Type, Int32Type};
use proptest::prelude::*;

use super::*;

fn of(values: impl IntoIterator<Item = i64>) -> DistinctSketch {
    of_array(Arc::new(Int64Array::from_iter_values(values)))
}

fn of_array(values: ArrayRef) -> DistinctSketch {
    let mut sketch = DistinctSketch::default();
    sketch.add(&values).unwrap();
    sketch
}

fn union(parts: &[&DistinctSketch]) -> DistinctSketch {
    let mut all = DistinctSketch::default();
    parts.iter().for_each(|part| all.union(part));
    all
}

/// Five standard deviations of 1.6 %, and one value.
fn check_estimate(sketch: &DistinctSketch, distinct: u64) {
    let error = sketch.estimate().abs_diff(distinct);
    let estimate = sketch.estimate();
    assert!(error * 1000 <= distinct * 82 + 1000, "{estimate} instead of {distinct}");
}

#[test]
fn estimates_are_within_five_deviations_from_one_value_to_a_million() {
    assert_eq!(DistinctSketch::default().estimate(), 0);
    for (step, distinct) in
        [1, 2, 25, 100, 1_000, 4_096, 10_000, 20_000, 100_000, 1_000_000].into_iter().enumerate()
    {
        let first = 1_000_003 * step as i64;
        check_estimate(&of(first..first + distinct), distinct as u64);
    }
}

#[test]
fn skew_does_not_matter() {
    // Of 100,000 rows half are one value, and so on: 10,000 different ones in all.
    let skewed = (0..100_000_i64).map(|row| if row % 2 == 0 { 7 } else { row * row % 10_007 });
    let distinct = skewed.clone().collect::<std::collections::HashSet<_>>().len();
    check_estimate(&of(skewed), distinct as u64);
}

#[test]
fn nulls_are_no_values() {
    let nulls: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(1), None, Some(1)]));
    assert_eq!(of_array(nulls), of([1]));
    let none: ArrayRef = Arc::new(Int64Array::from(vec![None; 10]));
    assert_eq!(of_array(none), DistinctSketch::default());
}

#[test]
fn equal_values_are_one_whatever_they_are_stored_as() {
    let text = ["b", "a", "b"];
    let plain = of_array(Arc::new(StringArray::from_iter_values(text)));
    let dictionary: DictionaryArray<Int8Type> = text.into_iter().collect();
    assert_eq!(of_array(Arc::new(dictionary)), plain);
    assert_eq!(of_array(Arc::new(StringViewArray::from_iter_values(text))), plain);
    assert_eq!(of_array(Arc::new(Int32Array::from(vec![5]))), of([5]));
    let decimals = |unscaled, scale| -> ArrayRef {
        let decimals = Decimal128Array::from(vec![unscaled]);
        Arc::new(decimals.with_precision_and_scale(20, scale).unwrap())
    };
    assert_eq!(of_array(decimals(150, 2)), of_array(decimals(15, 1)));
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN]));
    assert_eq!(of_array(floats).estimate(), 2);
}

#[test]
fn keys_of_a_dictionary_that_stand_for_null_are_no_values() {
    let values = StringArray::from(vec![Some("a"), None]);
    let keys = arrow::array::Int8Array::from(vec![Some(0), Some(1), None]);
    let dictionary = DictionaryArray::<Int8Type>::new(keys, Arc::new(values));
    let plain = StringArray::from(vec!["a"]);
    assert_eq!(of_array(Arc::new(dictionary)), of_array(Arc::new(plain)));
}

#[test]
fn lists_have_no_hash_and_are_refused() {
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)])]);
    let lists: ArrayRef = Arc::new(lists);
    assert!(DistinctSketch::default().add(&lists).is_err());
}

#[test]
fn few_values_take_few_bytes_and_many_three_kilobytes() {
    assert_eq!(DistinctSketch::default().to_bytes().len(), 2);
    assert_eq!(of([1, 2]).to_bytes().len(), 2 + 2 * 3);
    assert_eq!(of(0..100_000).to_bytes().len(), 2 + 3072);
}

#[test]
fn bytes_that_are_no_sketch_are_refused() {
    let many = of(0..100_000).to_bytes();
    let mut saturated = many.clone();
    saturated[2] |= 0x3f;
    let refused: [(&[u8], &str); 9] = [
        (&[], "too short"),
        (&[1], "too short"),
        (&[2, 0], "its version is 2"),
        (&[1, 7], "its form is 7"),
        (&[1, 0, 5], "cut off"),
        (&[1, 0, 5, 0, 54], "register 5 cannot be 54 there"),
        (&[1, 0, 5, 0, 1, 5, 0, 1], "register 5 cannot be 1 there"),
        (&many[..100], "98 bytes of ranks"),
        (&saturated, "a register is 63"),
    ];
    for (bytes, problem) in refused {
        let error = DistinctSketch::from_bytes(bytes).unwrap_err().to_string();
        assert!(error.contains(problem), "{error} for {problem}");
    }
}

/// On disk for ever: what was written once is read, and written the same again.
#[test]
fn the_bytes_of_a_sketch_do_not_change() {
    assert_eq!(of([1, 2, 3]).to_bytes(), GOLDEN);
    assert_eq!(DistinctSketch::from_bytes(&GOLDEN).unwrap(), of([1, 2, 3]));
}

const GOLDEN: [u8; 11] = [1, 0, 122, 1, 5, 252, 1, 4, 84, 2, 1];

fn values() -> impl Strategy<Value = Vec<i64>> {
    prop::collection::vec(-5_000..5_000_i64, 0..3_000)
}

proptest! {
    #[test]
    fn unions_are_those_of_sets(a in values(), b in values(), c in values()) {
        let [a_sketch, b_sketch, c_sketch] = [&a, &b, &c].map(|values| of(values.iter().copied()));
        let all = of(a.into_iter().chain(b).chain(c));
        prop_assert_eq!(&union(&[&a_sketch, &b_sketch, &c_sketch]), &all);
        let turned = union(&[&c_sketch, &union(&[&b_sketch, &a_sketch])]);
        prop_assert_eq!(&turned, &all);
        prop_assert_eq!(&union(&[&all, &a_sketch, &all]), &all);
    }

    #[test]
    fn bytes_bring_the_sketch_back(values in values()) {
        let sketch = of(values);
        prop_assert_eq!(&DistinctSketch::from_bytes(&sketch.to_bytes()).unwrap(), &sketch);
        let json = serde_json::to_string(&sketch).unwrap();
        prop_assert_eq!(serde_json::from_str::<DistinctSketch>(&json).unwrap(), sketch);
    }

    #[test]
    fn estimates_keep_their_bound(distinct in 1..200_000_u32, first in any::<u32>()) {
        let first = i64::from(first);
        check_estimate(&of(first..first + i64::from(distinct)), u64::from(distinct));
    }

    #[test]
    fn damaged_bytes_are_an_error_or_a_sketch_but_never_a_panic(
        values in values(), place in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = of(values).to_bytes();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        if let Ok(sketch) = DistinctSketch::from_bytes(&bytes) {
            let again = DistinctSketch::from_bytes(&sketch.to_bytes()).unwrap();
            prop_assert_eq!(again, sketch);
        }
    }
}
