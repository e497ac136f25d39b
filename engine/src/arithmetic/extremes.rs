//! `min` and `max` of floats per group, whatever the order of rows.
//!
//! DataFusion's grouped `min` and `max` take a NaN for anything, and anything for a NaN: the later
//! of the two stays (`sql-tests/upstream/min-max-of-nan.md`). They also start from the largest
//! finite number, so that the least of infinities is finite. These two compare in the total order
//! of IEEE 754-2008 (section 5.10), as sorting does and as the same functions do without groups:
//! NaN is greater than every number.
//!
//! Intervals are compared by their lengths (see `interval_extremes`). Everything else is DataFusion's.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::mem::size_of_val;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray,
};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type};
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator,
    ReversedUDAF, SetMonotonicity, Signature, StatisticsArgs,
};

use super::filled::{Filled, passing};
use super::interval_extremes::{interval_extreme, is_interval, sliding_interval_extreme};

/// The two functions, in the place of DataFusion's.
pub(super) fn float_extremes() -> [Arc<AggregateUDF>; 2] {
    [(min_udaf(), Extreme::Min), (max_udaf(), Extreme::Max)].map(|(inner, extreme)| {
        Arc::new(AggregateUDF::new_from_impl(FloatExtreme { inner, extreme }))
    })
}

/// `min` as it compares intervals.
pub(crate) fn min_of_intervals() -> Arc<AggregateUDF> {
    let [min, _] = float_extremes();
    min
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Extreme {
    Min,
    Max,
}

impl Extreme {
    /// What every value takes the place of.
    fn start<T: ArrowNativeTypeOp>(self) -> T {
        match self {
            Self::Min => T::MAX_TOTAL_ORDER,
            Self::Max => T::MIN_TOTAL_ORDER,
        }
    }

    fn is_nearer<T: ArrowNativeTypeOp>(self, value: T, than: T) -> bool {
        match self {
            Self::Min => value.is_lt(than),
            Self::Max => value.is_gt(than),
        }
    }
}

/// DataFusion's function with our groups of floats and our intervals.
struct FloatExtreme {
    inner: Arc<AggregateUDF>,
    extreme: Extreme,
}

impl fmt::Debug for FloatExtreme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FloatExtreme").field(&self.extreme).finish()
    }
}

impl PartialEq for FloatExtreme {
    fn eq(&self, other: &Self) -> bool {
        self.extreme == other.extreme
    }
}

impl Eq for FloatExtreme {}

impl Hash for FloatExtreme {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.extreme.hash(state);
    }
}

impl AggregateUDFImpl for FloatExtreme {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arguments)
    }

    fn accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let data_type = arguments.return_field.data_type();
        match is_interval(data_type) {
            true => interval_extreme(self.extreme, data_type),
            false => self.inner.accumulator(arguments),
        }
    }

    fn state_fields(
        &self,
        arguments: StateFieldsArgs<'_>,
    ) -> Result<Vec<arrow::datatypes::FieldRef>> {
        self.inner.state_fields(arguments)
    }

    fn groups_accumulator_supported(&self, arguments: AccumulatorArgs<'_>) -> bool {
        !is_interval(arguments.return_field.data_type())
            && self.inner.groups_accumulator_supported(arguments)
    }

    fn create_groups_accumulator(
        &self,
        arguments: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(match arguments.return_field.data_type() {
            DataType::Float16 => Box::new(GroupedExtremes::<Float16Type>::new(self.extreme)),
            DataType::Float32 => Box::new(GroupedExtremes::<Float32Type>::new(self.extreme)),
            DataType::Float64 => Box::new(GroupedExtremes::<Float64Type>::new(self.extreme)),
            _ => return self.inner.create_groups_accumulator(arguments),
        })
    }

    fn create_sliding_accumulator(
        &self,
        arguments: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>> {
        let data_type = arguments.return_field.data_type();
        match is_interval(data_type) {
            true => sliding_interval_extreme(self.extreme, data_type),
            false => self.inner.create_sliding_accumulator(arguments),
        }
    }

    fn is_descending(&self) -> Option<bool> {
        self.inner.is_descending()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arguments)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.inner.reverse_udf()
    }

    fn value_from_stats(&self, arguments: &StatisticsArgs<'_>) -> Option<ScalarValue> {
        let is_interval = is_interval(arguments.return_type);
        if is_interval { None } else { self.inner.value_from_stats(arguments) }
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        match is_interval(data_type) {
            // It is about the order that DataFusion has of them.
            true => SetMonotonicity::NotMonotonic,
            false => self.inner.inner().set_monotonicity(data_type),
        }
    }
}

/// The least or greatest value of each group.
#[derive(Debug)]
struct GroupedExtremes<T: ArrowPrimitiveType> {
    extreme: Extreme,
    values: Vec<T::Native>,
    filled: Filled,
}

impl<T: ArrowPrimitiveType> GroupedExtremes<T> {
    fn new(extreme: Extreme) -> Self {
        Self { extreme, values: Vec::new(), filled: Filled::default() }
    }

    fn take(&mut self, emit_to: EmitTo) -> ArrayRef {
        let values = emit_to.take_needed(&mut self.values);
        Arc::new(PrimitiveArray::<T>::new(values.into(), self.filled.take(emit_to)))
    }
}

impl<T: ArrowPrimitiveType + Send> GroupsAccumulator for GroupedExtremes<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<()> {
        let [values] = values else { return exec_err!("min or max of {} arguments", values.len()) };
        let values = values.as_primitive::<T>();
        let valid = passing(values.nulls(), filter);
        let extreme = self.extreme;
        self.values.resize(total_groups, extreme.start());
        let extremes = &mut self.values;
        let values = values.values();
        self.filled.visit(values, valid.as_ref(), groups, total_groups, |group, value| {
            if extreme.is_nearer(value, extremes[group]) {
                extremes[group] = value;
            }
        });
        Ok(())
    }

    fn merge_batch(
        &mut self,
        states: &[ArrayRef],
        groups: &[usize],
        total_groups: usize,
    ) -> Result<()> {
        self.update_batch(states, groups, None, total_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        Ok(self.take(emit_to))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.take(emit_to)])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let [values] = values else { return exec_err!("min or max of {} arguments", values.len()) };
        let values = values.as_primitive::<T>();
        let nulls = passing(values.nulls(), filter);
        Ok(vec![Arc::new(PrimitiveArray::<T>::new(values.values().clone(), nulls))])
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<T::Native>() + self.filled.size()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Float64Array;
    use proptest::prelude::*;

    use super::*;

    type Row = (usize, Option<f64>);

    fn grouped(extreme: Extreme, batches: &[Vec<Row>]) -> Vec<Option<u64>> {
        let mut state = GroupedExtremes::<Float64Type>::new(extreme);
        let mut total = 0;
        for batch in batches {
            let values: Float64Array = batch.iter().map(|(_, value)| *value).collect();
            let groups: Vec<usize> = batch.iter().map(|(group, _)| *group).collect();
            total = groups.iter().map(|group| group + 1).fold(total, usize::max);
            state.update_batch(&[Arc::new(values)], &groups, None, total).unwrap();
        }
        let extremes = state.evaluate(EmitTo::All).unwrap();
        extremes.as_primitive::<Float64Type>().iter().map(|v| v.map(f64::to_bits)).collect()
    }

    /// Groups are numbered as they appear, so each has a row.
    fn numbered(mut batches: Vec<Vec<Row>>) -> Vec<Vec<Row>> {
        let mut seen = Vec::new();
        for (group, _) in batches.iter_mut().flatten() {
            let number = seen.iter().position(|other| other == group);
            *group = number.unwrap_or_else(|| {
                seen.push(*group);
                seen.len() - 1
            });
        }
        batches
    }

    fn float() -> impl Strategy<Value = f64> {
        let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN, 0.0, -0.0];
        prop_oneof![proptest::sample::select(special.to_vec()), -4.0..4.0f64]
    }

    proptest! {
        #[test]
        fn extremes_are_those_of_the_total_order_in_any_batches(
            batches in proptest::collection::vec(
                proptest::collection::vec((0..4usize, proptest::option::of(float())), 0..9), 0..5),
        ) {
            let batches = numbered(batches);
            let rows: Vec<_> = batches.iter().flatten().copied().collect();
            let total = rows.iter().map(|(group, _)| group + 1).max().unwrap_or(0);
            let of = |group: usize| rows.iter().filter_map(move |(g, v)| v.filter(|_| *g == group));
            let min: Vec<_> = (0..total).map(|g| of(g).min_by(f64::total_cmp)).collect();
            let max: Vec<_> = (0..total).map(|g| of(g).max_by(f64::total_cmp)).collect();
            let bits = |values: Vec<Option<f64>>| -> Vec<Option<u64>> {
                values.into_iter().map(|value| value.map(f64::to_bits)).collect()
            };
            prop_assert_eq!(grouped(Extreme::Min, &batches), bits(min));
            prop_assert_eq!(grouped(Extreme::Max, &batches), bits(max));
        }
    }

    #[test]
    fn a_filter_and_emitted_groups_leave_the_others_alone() {
        let mut state = GroupedExtremes::<Float64Type>::new(Extreme::Min);
        let values: ArrayRef = Arc::new(Float64Array::from(vec![1.0, f64::INFINITY, 3.0]));
        let filter = BooleanArray::from(vec![Some(true), Some(true), None]);
        state.update_batch(&[values], &[0, 1, 2], Some(&filter), 3).unwrap();
        let first = state.state(EmitTo::First(1)).unwrap();
        assert_eq!(first[0].as_primitive::<Float64Type>(), &Float64Array::from(vec![1.0]));
        state.merge_batch(&first, &[1], 2).unwrap();
        let rest = state.evaluate(EmitTo::All).unwrap();
        let expected = Float64Array::from(vec![Some(f64::INFINITY), Some(1.0)]);
        assert_eq!(rest.as_primitive::<Float64Type>(), &expected);
    }
}
