//! `percentile_cont` between two values, as exactly as a DOUBLE has it.
//!
//! DataFusion cuts the weight of the two to six digits, so that the 0.7 of 1, 2, 3 and 4 is 3.099999
//! (`sql-tests/upstream/digits-of-percentiles.md`), and an end of the range becomes `min` or `max`, of
//! which those of groups take a NaN for anything. What collects the values is DataFusion's; what is made of them in the end is
//! here. A percentile of n sorted values is at rank p * (n - 1), counted from 0, and on the line between the
//! two values around it.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, BooleanArray, ListArray,
    PrimitiveBuilder, RecordBatch,
};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type, Schema};
use datafusion::common::{ScalarValue, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{Accumulator, ColumnarValue, EmitTo, GroupsAccumulator};

/// The name of the function.
pub(super) const PERCENTILE_CONT: &str = "percentile_cont";

/// An accumulator of DataFusion's that gives exact percentiles.
pub(super) fn percentile_accumulator(
    inner: Box<dyn Accumulator>,
    arguments: &PercentileArguments,
) -> Box<dyn Accumulator> {
    Box::new(Percentile { inner, arguments: arguments.clone() })
}

/// A groups accumulator of DataFusion's that gives exact percentiles.
pub(super) fn percentile_groups(
    inner: Box<dyn GroupsAccumulator>,
    arguments: &PercentileArguments,
) -> Box<dyn GroupsAccumulator> {
    Box::new(PercentileGroups { inner, share: arguments.share })
}

/// What a use of the function says.
#[derive(Debug, Clone)]
pub(super) struct PercentileArguments {
    /// Which share of the values is below, in ascending order.
    share: f64,
    is_distinct: bool,
}

impl PercentileArguments {
    /// Those of a use, if it is one of values and a constant, as DataFusion demands.
    pub(super) fn of(arguments: &AccumulatorArgs<'_>) -> Result<Option<Self>> {
        let [_, share] = arguments.exprs else { return Ok(None) };
        let nothing = RecordBatch::new_empty(Arc::new(Schema::empty()));
        let share = match share.evaluate(&nothing) {
            Ok(ColumnarValue::Scalar(share)) => share.cast_to(&DataType::Float64)?,
            _ => return Ok(None),
        };
        let ScalarValue::Float64(Some(share)) = share else { return Ok(None) };
        let is_descending = arguments.order_bys.first().is_some_and(|by| by.options.descending);
        let share = if is_descending { 1.0 - share } else { share };
        Ok(Some(Self { share, is_distinct: arguments.is_distinct }))
    }
}

#[derive(Debug)]
struct Percentile {
    inner: Box<dyn Accumulator>,
    arguments: PercentileArguments,
}

impl Accumulator for Percentile {
    /// May be asked again when there are more values, so they are given back.
    fn evaluate(&mut self) -> Result<ScalarValue> {
        let state = self.inner.state()?;
        let [ScalarValue::List(list)] = state.as_slice() else {
            // Of values without a type.
            return self.inner.evaluate();
        };
        let percentiles = percentiles(list, self.arguments.share)?;
        // What keeps each value once has not given them away.
        if !self.arguments.is_distinct {
            let list = Arc::clone(list) as ArrayRef;
            self.inner.merge_batch(&[list])?;
        }
        ScalarValue::try_from_array(&percentiles, 0)
    }

    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(values)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }
}

struct PercentileGroups {
    inner: Box<dyn GroupsAccumulator>,
    share: f64,
}

impl GroupsAccumulator for PercentileGroups {
    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let state = self.inner.state(emit_to)?;
        match state.first().and_then(|lists| lists.as_list_opt::<i32>()) {
            Some(lists) => percentiles(lists, self.share),
            None => internal_err!("the state of {PERCENTILE_CONT} is no list"),
        }
    }

    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<()> {
        self.inner.update_batch(values, groups, filter, total_groups)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit_to)
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        total_groups: usize,
    ) -> Result<()> {
        self.inner.merge_batch(values, groups, total_groups)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(values, filter)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}

/// A float of 16 bits.
type Half = <Float16Type as ArrowPrimitiveType>::Native;

/// The percentile of each list.
fn percentiles(lists: &ListArray, share: f64) -> Result<ArrayRef> {
    match lists.value_type() {
        DataType::Float16 => typed::<Float16Type>(lists, share, |v| v.to_f64(), Half::from_f64),
        DataType::Float32 => typed::<Float32Type>(lists, share, f64::from, |v| v as f32),
        DataType::Float64 => typed::<Float64Type>(lists, share, |v| v, |v| v),
        other => internal_err!("{PERCENTILE_CONT} of {other}"),
    }
}

fn typed<T: ArrowPrimitiveType>(
    lists: &ListArray,
    share: f64,
    to_double: fn(T::Native) -> f64,
    from_double: fn(f64) -> T::Native,
) -> Result<ArrayRef> {
    let mut percentiles = PrimitiveBuilder::<T>::with_capacity(lists.len());
    for list in lists.iter() {
        let mut values = match &list {
            Some(list) => list.as_primitive::<T>().values().to_vec(),
            None => vec![],
        };
        percentiles.append_option(percentile(&mut values, share, to_double, from_double));
    }
    Ok(Arc::new(percentiles.finish()))
}

/// The percentile of some values; none of none.
fn percentile<N: ArrowNativeTypeOp>(
    values: &mut [N],
    share: f64,
    to_double: fn(N) -> f64,
    from_double: fn(f64) -> N,
) -> Option<N> {
    let last = values.len().checked_sub(1)?;
    let rank = share * last as f64;
    // Not beyond the last, as no share is above one.
    let before = (rank.floor() as usize).min(last);
    let weight = rank - before as f64;
    let (_, lower, above) = values.select_nth_unstable_by(before, |a, b| a.compare(*b));
    let lower = *lower;
    let upper = above.iter().copied().min_by(|a, b| a.compare(*b));
    let Some(upper) = upper.filter(|upper| weight > 0.0 && upper.is_ne(lower)) else {
        return Some(lower);
    };
    let (lower, upper) = (to_double(lower), to_double(upper));
    let distance = upper - lower;
    Some(from_double(match distance.is_infinite() && lower.is_finite() && upper.is_finite() {
        // The ends are further apart than a DOUBLE can say.
        true => lower * (1.0 - weight) + upper * weight,
        false => lower + distance * weight,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_on_the_line_between_two_values() {
        let same = |value: f64| value;
        for (values, share, expected) in [
            (vec![], 0.5, None),
            (vec![7.0], 0.3, Some(7.0)),
            (vec![4.0, 2.0, 3.0, 1.0], 0.0, Some(1.0)),
            (vec![4.0, 2.0, 3.0, 1.0], 1.0, Some(4.0)),
            (vec![4.0, 2.0, 3.0, 1.0], 0.5, Some(2.5)),
            (vec![0.0, 10_000_000.0], 0.123_456_7, Some(1_234_567.0)),
            (vec![f64::MIN, f64::MAX], 0.5, Some(0.0)),
            (vec![f64::INFINITY; 3], 0.3, Some(f64::INFINITY)),
            (vec![1.0, f64::INFINITY], 0.5, Some(f64::INFINITY)),
        ] {
            let mut sorted = values.clone();
            assert_eq!(
                percentile(&mut sorted, share, same, same),
                expected,
                "{share} of {values:?}"
            );
        }
        let with_nan = percentile(&mut [f64::NAN, 1.0, 2.0], 0.5, same, same);
        assert_eq!(with_nan, Some(2.0));
    }
}
