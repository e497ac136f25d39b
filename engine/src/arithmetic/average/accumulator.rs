//! One average.

use std::hash::Hash;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::UInt64Type;
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;

use super::super::exact::{ExactSum, Summand};
use super::super::sum::{DistinctSum, SumAccumulator};
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
    sum: SumAccumulator<T>,
}

impl<T: Summand> AverageAccumulator<T> {
    pub(super) fn new(sum: SumAccumulator<T>) -> Self {
        Self { sum }
    }
}

impl<T: Summand> Accumulator for AverageAccumulator<T> {
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
        let mut state = vec![ScalarValue::from(self.sum.count())];
        state.extend(self.sum.state()?);
        Ok(state)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [counts, sums] = states else {
            return exec_err!("{} states of an average", states.len());
        };
        let counts = counts.as_primitive::<UInt64Type>();
        self.sum.merge(sums, counts.iter().flatten().sum())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        average(self.sum.sum(), self.sum.count())
    }

    fn size(&self) -> usize {
        self.sum.size()
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
