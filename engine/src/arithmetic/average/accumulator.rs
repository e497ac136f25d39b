//! One average.

use std::hash::Hash;
use std::marker::PhantomData;
use std::mem::size_of_val;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::UInt64Type;
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;

use super::super::exact::{ExactSum, Summand};
use super::super::sum::{DistinctSum, SumOf, count_valid};
use super::quotient::quotient;

/// The average of so many values.
fn average(sum: ExactSum, count: u64) -> Result<ScalarValue> {
    if count == 0 {
        return Ok(ScalarValue::Float64(None));
    }
    match sum.value() {
        Some(sum) => Ok(ScalarValue::Float64(Some(quotient(sum, count)))),
        // Of 2^64 integers.
        None => exec_err!("a sum of integers has more than 128 bits"),
    }
}

/// Averages values, and takes them back when a window slides.
#[derive(Debug)]
pub(super) struct AverageAccumulator<T> {
    of: SumOf,
    sum: ExactSum,
    /// Values in the sum: none is NULL.
    count: u64,
    argument: PhantomData<fn(T)>,
}

impl<T: Summand> AverageAccumulator<T> {
    pub(super) fn new(of: SumOf) -> Self {
        Self { of, sum: ExactSum::default(), count: 0, argument: PhantomData }
    }
}

impl<T: Summand> Accumulator for AverageAccumulator<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for array in values {
            self.sum.add_sum(ExactSum::of(array.as_primitive::<T>()));
            self.count += count_valid(array);
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for array in values {
            self.sum.subtract_sum(ExactSum::of(array.as_primitive::<T>()));
            self.count -= count_valid(array);
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::from(self.count), self.of.state_scalar(self.sum, self.count == 0)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [counts, sums] = states else {
            return exec_err!("{} states of an average", states.len());
        };
        self.sum.add_sum(ExactSum::of_partials(sums)?);
        self.count += counts.as_primitive::<UInt64Type>().iter().flatten().sum::<u64>();
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        average(self.sum, self.count)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.of.name_bytes()
    }
}

/// Averages each value once, however often it comes.
#[derive(Debug)]
pub(super) struct DistinctAverage<T: Summand> {
    sum: DistinctSum<T>,
}

impl<T: Summand<Native: Hash + Eq>> DistinctAverage<T> {
    pub(super) fn new(sum: DistinctSum<T>) -> Self {
        Self { sum }
    }
}

impl<T: Summand<Native: Hash + Eq>> Accumulator for DistinctAverage<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.sum.update_batch(values)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.sum.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.sum.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.sum.merge_batch(states)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        average(self.sum.sum(), self.sum.count())
    }

    fn size(&self) -> usize {
        self.sum.size()
    }
}
