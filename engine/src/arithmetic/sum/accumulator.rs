//! One sum.

use std::marker::PhantomData;
use std::mem::size_of_val;

use arrow::array::{Array, ArrayRef, AsArray};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;

use super::super::exact::{ExactSum, Summand};
use super::SumOf;

/// Sums values, and takes them back when a window slides.
#[derive(Debug)]
pub(super) struct SumAccumulator<T> {
    of: SumOf,
    sum: ExactSum,
    /// Values in the sum: none is NULL.
    values: u64,
    argument: PhantomData<fn(T)>,
}

impl<T: Summand> SumAccumulator<T> {
    pub(super) fn new(of: SumOf) -> Self {
        Self { of, sum: ExactSum::default(), values: 0, argument: PhantomData }
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
        for partials in states {
            self.sum.add_sum(ExactSum::of_partials(partials)?);
            // A partial sum is at least one value, and no more need be known.
            self.values += count_valid(partials);
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.of.state_scalar(self.sum, self.values == 0)?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.values == 0 {
            return ScalarValue::try_from(&self.of.result);
        }
        self.of.scalar(self.sum)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.of.name_bytes()
    }
}

pub(in crate::arithmetic) fn count_valid(array: &ArrayRef) -> u64 {
    (array.len() - array.null_count()) as u64
}
