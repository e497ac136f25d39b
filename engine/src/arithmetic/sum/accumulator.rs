//! One sum.

use std::marker::PhantomData;
use std::mem::size_of_val;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type};
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;

use super::super::exact::{ExactSum, Summand};
use super::SumOf;

/// Sums values, and takes them back when a window slides.
#[derive(Debug)]
pub(in crate::arithmetic) struct SumAccumulator<T> {
    of: SumOf,
    sum: ExactSum,
    /// Values in the sum: none is NULL.
    values: u64,
    argument: PhantomData<fn(T)>,
}

impl<T: Summand> SumAccumulator<T> {
    pub(in crate::arithmetic) fn new(of: SumOf) -> Self {
        Self { of, sum: ExactSum::default(), values: 0, argument: PhantomData }
    }

    pub(in crate::arithmetic) fn sum(&self) -> ExactSum {
        self.sum
    }

    /// How many values it is the sum of, once partial sums were added with `merge` only.
    pub(in crate::arithmetic) fn count(&self) -> u64 {
        self.values
    }

    /// Adds partial sums of so many values.
    pub(in crate::arithmetic) fn merge(&mut self, partials: &ArrayRef, values: u64) -> Result<()> {
        match partials.data_type() {
            DataType::Decimal128(..) => {
                self.sum.add_sum(ExactSum::of(partials.as_primitive::<Decimal128Type>()));
            }
            DataType::Decimal256(..) => {
                for partial in partials.as_primitive::<Decimal256Type>().iter().flatten() {
                    self.sum.add_sum(ExactSum::from_i256(partial));
                }
            }
            other => return exec_err!("a partial sum is {other}"),
        }
        self.values += values;
        Ok(())
    }
}

impl<T: Summand> Accumulator for SumAccumulator<T> {
    fn update_batch(&mut self, batch: &[ArrayRef]) -> Result<()> {
        for array in batch {
            self.sum.add_sum(ExactSum::of(array.as_primitive::<T>()));
            self.values += count_valid(array);
        }
        Ok(())
    }

    fn retract_batch(&mut self, batch: &[ArrayRef]) -> Result<()> {
        for array in batch {
            self.sum.subtract_sum(ExactSum::of(array.as_primitive::<T>()));
            self.values -= count_valid(array);
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        // A partial sum is at least one value, which is all that a sum has to know.
        states.iter().try_for_each(|partials| self.merge(partials, count_valid(partials)))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let is_empty = self.values == 0;
        let state = match self.of.state() {
            DataType::Decimal256(precision, scale) => {
                let sum = (!is_empty).then(|| self.sum.to_i256());
                ScalarValue::Decimal256(sum, precision, scale)
            }
            DataType::Decimal128(precision, scale) => {
                let sum = if is_empty { None } else { Some(self.of.partial(self.sum.value())?) };
                ScalarValue::Decimal128(sum, precision, scale)
            }
            other => return exec_err!("a partial sum is {other}"),
        };
        Ok(vec![state])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.values == 0 {
            return ScalarValue::try_from(&self.of.result);
        }
        self.of.scalar(self.sum)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.of.name.capacity()
    }
}

fn count_valid(array: &ArrayRef) -> u64 {
    (array.len() - array.null_count()) as u64
}
