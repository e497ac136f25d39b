//! States are merged as sets are, and those that a worker made up are refused.

use arrow::array::{BinaryArray, Int64Array, UInt64Array};

use super::*;

fn states(bytes: Vec<u8>) -> [ArrayRef; 1] {
    [Arc::new(BinaryArray::from_iter_values([bytes]))]
}

#[test]
fn merged_states_are_the_sketch_of_all_rows() {
    let column = |range| -> ArrayRef { Arc::new(Int64Array::from_iter_values(range)) };
    let ids = |range| -> ArrayRef { Arc::new(UInt64Array::from_iter_values(range)) };
    let makers: [fn() -> Box<dyn Accumulator>; 2] =
        [|| Box::new(DistinctValues::default()), || Box::new(SampledRows::default())];
    for make in makers {
        let [mut first, mut second, mut whole, mut merged] = [make(), make(), make(), make()];
        first.update_batch(&[column(0..5_000), ids(0..5_000)]).unwrap();
        second.update_batch(&[column(4_000..9_000), ids(4_000..9_000)]).unwrap();
        whole.update_batch(&[column(0..9_000), ids(0..9_000)]).unwrap();
        let [first, second] =
            [first, second].map(|mut part| match part.state().unwrap().remove(0) {
                ScalarValue::Binary(Some(bytes)) => bytes,
                other => panic!("{other} is no sketch"),
            });
        for bytes in [first.clone(), second, first] {
            merged.merge_batch(&states(bytes)).unwrap();
        }
        assert_eq!(merged.evaluate().unwrap(), whole.evaluate().unwrap());
    }
}

#[test]
fn malformed_states_are_typed_errors() {
    for accumulator in [
        &mut DistinctValues::default() as &mut dyn Accumulator,
        &mut SampledRows::default() as &mut dyn Accumulator,
    ] {
        let error = accumulator.merge_batch(&states(vec![7, 7, 7])).unwrap_err();
        let error = crate::error::from_datafusion(error);
        assert_eq!(error.code, ErrorCode::Internal);
        assert!(error.message.contains("malformed sketch"), "{}", error.message);
        let numbers: [ArrayRef; 1] = [Arc::new(Int64Array::from(vec![1]))];
        assert!(accumulator.merge_batch(&numbers).is_err());
    }
}
