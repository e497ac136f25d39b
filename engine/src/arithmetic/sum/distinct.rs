//! One sum of distinct values.

use std::hash::Hash;
use std::mem::{size_of, size_of_val};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::common::{HashMap, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;

use super::super::exact::{ExactSum, Summand};
use super::SumOf;

/// Sums each value once, however often it comes, until a sliding window has lost all of them.
#[derive(Debug)]
pub(in crate::arithmetic) struct DistinctSum<T: Summand> {
    of: SumOf,
    sum: ExactSum,
    /// How often each value is there.
    counts: HashMap<T::Native, u64>,
}

impl<T: Summand<Native: Hash + Eq>> DistinctSum<T> {
    pub(in crate::arithmetic) fn new(of: SumOf) -> Self {
        Self { of, sum: ExactSum::default(), counts: HashMap::default() }
    }

    pub(in crate::arithmetic) fn sum(&self) -> ExactSum {
        self.sum
    }

    /// How many values it is the sum of.
    pub(in crate::arithmetic) fn count(&self) -> u64 {
        self.counts.len() as u64
    }

    fn insert(&mut self, values: &PrimitiveArray<T>) {
        for value in values.iter().flatten() {
            let count = self.counts.entry(value).or_insert(0);
            *count += 1;
            if *count == 1 {
                self.sum.add(value.into());
            }
        }
    }
}

impl<T: Summand<Native: Hash + Eq>> Accumulator for DistinctSum<T> {
    fn update_batch(&mut self, batch: &[ArrayRef]) -> Result<()> {
        batch.iter().for_each(|array| self.insert(array.as_primitive::<T>()));
        Ok(())
    }

    fn retract_batch(&mut self, batch: &[ArrayRef]) -> Result<()> {
        for value in batch.iter().flat_map(|array| array.as_primitive::<T>().iter().flatten()) {
            if let Some(count) = self.counts.get_mut(&value) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&value);
                    self.sum.subtract(value.into());
                }
            }
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for list in states.iter().flat_map(|array| array.as_list::<i32>().iter().flatten()) {
            self.insert(list.as_primitive::<T>());
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = PrimitiveArray::<T>::from_iter_values(self.counts.keys().copied());
        let values = values.with_data_type(self.of.argument.clone());
        let list = SingleRowListArrayBuilder::new(Arc::new(values)).build_list_scalar();
        Ok(vec![list])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.counts.is_empty() {
            return ScalarValue::try_from(&self.of.result);
        }
        self.of.scalar(self.sum)
    }

    fn size(&self) -> usize {
        let entry = size_of::<(T::Native, u64)>() + 1;
        size_of_val(self) + self.of.name.capacity() + self.counts.capacity() * entry
    }
}
