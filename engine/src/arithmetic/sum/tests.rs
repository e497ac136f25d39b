//! The aggregate's parts against a model that sums in 256 bits, however rows are cut into batches
//! and partial sums.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array, UInt64Array,
    new_empty_array,
};
use arrow::compute::concat;
use arrow::datatypes::{
    DataType, Decimal128Type, Field, FieldRef, Int64Type, Schema, UInt64Type, i256,
};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::col;
use proptest::prelude::*;

use super::{CheckedSum, limits};
use crate::error::{ErrorCode, from_datafusion};

const TYPES: [DataType; 4] =
    [DataType::Int64, DataType::UInt64, DataType::Decimal128(15, 2), DataType::Decimal128(38, 3)];

fn result_type(argument: &DataType) -> DataType {
    CheckedSum::new().return_type(std::slice::from_ref(argument)).unwrap()
}

/// Calls `make` with the arguments of `sum(v)` or `sum(DISTINCT v)`.
fn with_args<R>(
    argument: &DataType,
    is_distinct: bool,
    make: impl FnOnce(&CheckedSum, AccumulatorArgs<'_>) -> R,
) -> R {
    let field: FieldRef = Arc::new(Field::new("v", argument.clone(), true));
    let schema = Schema::new(vec![Arc::clone(&field)]);
    let exprs: [Arc<dyn PhysicalExpr>; 1] = [col("v", &schema).unwrap()];
    let args = AccumulatorArgs {
        return_field: Arc::new(Field::new("sum", result_type(argument), true)),
        schema: &schema,
        ignore_nulls: false,
        order_bys: &[],
        is_reversed: false,
        name: "sum(v)",
        is_distinct,
        exprs: &exprs,
        expr_fields: &[field],
    };
    make(&CheckedSum::new(), args)
}

fn accumulator(argument: &DataType, is_distinct: bool) -> Box<dyn Accumulator> {
    with_args(argument, is_distinct, |sum, args| sum.create_sliding_accumulator(args).unwrap())
}

fn groups(argument: &DataType) -> Box<dyn GroupsAccumulator> {
    with_args(argument, false, |sum, args| sum.create_groups_accumulator(args).unwrap())
}

fn array(argument: &DataType, values: &[Option<i128>]) -> ArrayRef {
    let values = values.iter().copied();
    match argument {
        DataType::Int64 => Arc::new(Int64Array::from_iter(values.map(|v| v.map(|v| v as i64)))),
        DataType::UInt64 => Arc::new(UInt64Array::from_iter(values.map(|v| v.map(|v| v as u64)))),
        _ => Arc::new(Decimal128Array::from_iter(values).with_data_type(argument.clone())),
    }
}

fn unscaled(array: &dyn Array) -> Vec<Option<i128>> {
    match array.data_type() {
        DataType::Int64 => {
            array.as_primitive::<Int64Type>().iter().map(|v| v.map(i128::from)).collect()
        }
        DataType::UInt64 => {
            array.as_primitive::<UInt64Type>().iter().map(|v| v.map(i128::from)).collect()
        }
        _ => array.as_primitive::<Decimal128Type>().iter().collect(),
    }
}

/// The sum of some values, or `Err` when the result's type does not hold it.
fn model(argument: &DataType, values: impl Iterator<Item = i128>) -> Result<Option<i128>, ()> {
    let mut values = values.peekable();
    if values.peek().is_none() {
        return Ok(None);
    }
    let sum = values.fold(i256::ZERO, |sum, v| sum.checked_add(i256::from_i128(v)).unwrap());
    let (min, max) = limits(&result_type(argument));
    match sum.to_i128() {
        Some(sum) if (min..=max).contains(&sum) => Ok(Some(sum)),
        _ => Err(()),
    }
}

/// What an argument of a type can be: small, or at its edges.
fn value(argument: &DataType) -> BoxedStrategy<i128> {
    let (min, max) = limits(argument);
    let small = if min < 0 { -9_i128..10 } else { 0..10 };
    prop_oneof![3 => small, 1 => Just(max), 1 => Just(min), 1 => Just(max / 2 + 1)].boxed()
}

/// A row: its group, its value, whether it passes the filter.
type Row = (usize, Option<i128>, bool);
const GROUPS: usize = 4;

fn rows() -> impl Strategy<Value = (DataType, Vec<Vec<Row>>)> {
    prop::sample::select(TYPES.to_vec()).prop_flat_map(|argument| {
        let row =
            (0..GROUPS, prop::option::weighted(0.8, value(&argument)), prop::bool::weighted(0.8));
        let batches = prop::collection::vec(prop::collection::vec(row, 0..150), 1..6);
        (Just(argument), batches)
    })
}

/// Groups as an aggregation numbers them: in the order in which it first sees them.
#[derive(Default)]
struct Numbering(Vec<usize>);

impl Numbering {
    fn number(&mut self, keys: impl Iterator<Item = usize>) -> Vec<usize> {
        keys.map(|key| {
            self.0.iter().position(|known| *known == key).unwrap_or_else(|| {
                self.0.push(key);
                self.0.len() - 1
            })
        })
        .collect()
    }
}

fn check_error(error: datafusion::error::DataFusionError) {
    let error = from_datafusion(error);
    assert_eq!(error.code, ErrorCode::NumericOutOfRange, "{error}");
    assert!(error.message.contains("sum(v)"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn one_sum_does_not_depend_on_how_rows_are_cut((argument, batches) in rows()) {
        let mut whole = accumulator(&argument, false);
        for batch in &batches {
            let values: Vec<_> = batch.iter().map(|row| row.1).collect();
            let values = array(&argument, &values);
            // What is taken back again was never there.
            let mut partial = accumulator(&argument, false);
            partial.update_batch(&[Arc::clone(&values)]).unwrap();
            partial.update_batch(&[Arc::clone(&values)]).unwrap();
            partial.retract_batch(&[values]).unwrap();
            let state = partial.state().unwrap().remove(0).to_array().unwrap();
            whole.merge_batch(&[state]).unwrap();
        }
        let expected = model(&argument, batches.iter().flatten().filter_map(|row| row.1));
        match (whole.evaluate(), expected) {
            (Ok(actual), Ok(expected)) => {
                prop_assert_eq!(unscaled(&actual.to_array().unwrap()), vec![expected]);
            }
            (Err(error), Err(())) => check_error(error),
            (actual, expected) => prop_assert!(false, "{actual:?} is not {expected:?}"),
        }
    }

    #[test]
    fn a_sum_of_distinct_values_counts_each_once((argument, batches) in rows()) {
        let mut whole = accumulator(&argument, true);
        for batch in &batches {
            let values: Vec<_> = batch.iter().map(|row| row.1).collect();
            let values = array(&argument, &values);
            let mut partial = accumulator(&argument, true);
            partial.update_batch(&[Arc::clone(&values)]).unwrap();
            partial.update_batch(&[Arc::clone(&values)]).unwrap();
            partial.retract_batch(&[values]).unwrap();
            let state = partial.state().unwrap().remove(0).to_array().unwrap();
            whole.merge_batch(&[state]).unwrap();
        }
        let mut distinct: Vec<_> = batches.iter().flatten().filter_map(|row| row.1).collect();
        distinct.sort_unstable();
        distinct.dedup();
        match (whole.evaluate(), model(&argument, distinct.into_iter())) {
            (Ok(actual), Ok(expected)) => {
                prop_assert_eq!(unscaled(&actual.to_array().unwrap()), vec![expected]);
            }
            (Err(error), Err(())) => check_error(error),
            (actual, expected) => prop_assert!(false, "{actual:?} is not {expected:?}"),
        }
    }

    #[test]
    fn sums_of_groups_do_not_depend_on_how_rows_are_cut(
        (argument, batches) in rows(),
        skip_partial in prop::collection::vec(any::<bool>(), 6),
        emit_first in 0..=GROUPS,
    ) {
        let (mut whole, mut whole_groups) = (groups(&argument), Numbering::default());
        for (batch, skip_partial) in batches.iter().zip(skip_partial) {
            let keys = batch.iter().map(|row| row.0);
            let values: Vec<_> = batch.iter().map(|row| row.1).collect();
            let values = array(&argument, &values);
            let filter = BooleanArray::from_iter(batch.iter().map(|row| row.2.then_some(true)));
            let (state, keys) = if skip_partial {
                let state = whole.convert_to_state(&[values], Some(&filter)).unwrap().remove(0);
                (state, keys.collect::<Vec<_>>())
            } else {
                let (mut partial, mut partial_groups) = (groups(&argument), Numbering::default());
                let indexes = partial_groups.number(keys);
                let total = partial_groups.0.len();
                partial.update_batch(&[values], &indexes, Some(&filter), total).unwrap();
                let first = partial.state(EmitTo::First(total.min(1))).unwrap().remove(0);
                let rest = partial.state(EmitTo::All).unwrap().remove(0);
                (concat(&[&first, &rest]).unwrap(), partial_groups.0)
            };
            let indexes = whole_groups.number(keys.into_iter());
            whole.merge_batch(&[state], &indexes, whole_groups.0.len()).unwrap();
        }
        let keys = whole_groups.0;
        let expected: Result<Vec<_>, ()> = keys
            .iter()
            .map(|group| {
                let rows = batches.iter().flatten();
                let values = rows.filter(|row| row.0 == *group && row.2).filter_map(|row| row.1);
                model(&argument, values)
            })
            .collect();
        let first = match emit_first.min(keys.len()) {
            0 => Ok(new_empty_array(&result_type(&argument))),
            some => whole.evaluate(EmitTo::First(some)),
        };
        match (first.and_then(|first| Ok((first, whole.evaluate(EmitTo::All)?))), expected) {
            (Ok((first, rest)), Ok(expected)) => {
                let actual = concat(&[&first, &rest]).unwrap();
                prop_assert_eq!(actual.data_type(), &result_type(&argument));
                prop_assert_eq!(unscaled(&actual), expected);
            }
            (Err(error), Err(())) => check_error(error),
            (actual, expected) => prop_assert!(false, "{actual:?} is not {expected:?}"),
        }
    }
}

#[test]
fn rows_without_null_and_filter_fill_every_group() {
    let mut sums = groups(&DataType::Int64);
    let batch = |values: &[i128]| {
        array(&DataType::Int64, &values.iter().copied().map(Some).collect::<Vec<_>>())
    };
    sums.update_batch(&[batch(&[1, 2])], &[0, 1], None, 2).unwrap();
    let none = BooleanArray::from(vec![false, false]);
    sums.update_batch(&[batch(&[4, 8])], &[1, 2], Some(&none), 3).unwrap();
    sums.update_batch(&[batch(&[16])], &[3], None, 4).unwrap();
    let actual = sums.evaluate(EmitTo::All).unwrap();
    assert_eq!(unscaled(&actual), [Some(1), Some(2), None, Some(16)]);
    // Emitting everything leaves nothing behind.
    sums.update_batch(&[batch(&[32])], &[0], None, 1).unwrap();
    assert_eq!(unscaled(&sums.evaluate(EmitTo::All).unwrap()), [Some(32)]);
}

#[test]
fn the_message_names_the_sum() {
    let mut sum = accumulator(&DataType::Int64, false);
    let values = array(&DataType::Int64, &[Some(i64::MAX.into()), Some(1)]);
    sum.update_batch(&[values]).unwrap();
    let error = from_datafusion(sum.evaluate().unwrap_err());
    assert_eq!(error.message, "integer out of range: sum(v) is 9223372036854775808");

    let mut sum = groups(&DataType::Decimal128(38, 0));
    let values = array(&DataType::Decimal128(38, 0), &[Some(10_i128.pow(38) - 1), Some(1)]);
    sum.update_batch(&[values], &[0, 0], None, 1).unwrap();
    let error = from_datafusion(sum.evaluate(EmitTo::All).unwrap_err());
    assert_eq!(error.message, "decimal out of range: sum(v) has more than 38 digits");
}
