//! An average per group.

use std::mem::size_of;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, UInt64Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Decimal128Type, UInt64Type};
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use super::super::exact::Summand;
use super::super::filled::passing;
use super::super::sum::GroupedSums;
use super::quotient::quotient;

/// The sums of all groups, and of how many values each is.
#[derive(Debug)]
pub(super) struct GroupedAverages<T: Summand> {
    sums: GroupedSums<T>,
    counts: Vec<u64>,
}

impl<T: Summand> GroupedAverages<T> {
    pub(super) fn new(sums: GroupedSums<T>) -> Self {
        Self { sums, counts: Vec::new() }
    }
}

impl<T: Summand> GroupsAccumulator for GroupedAverages<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<()> {
        self.counts.resize(total_groups, 0);
        match values.first().and_then(|values| passing(values.nulls(), filter)) {
            None => groups.iter().for_each(|group| self.counts[*group] += 1),
            Some(valid) => {
                valid.valid_indices().for_each(|row| self.counts[groups[row]] += 1);
            }
        }
        self.sums.update_batch(values, groups, filter, total_groups)
    }

    fn merge_batch(
        &mut self,
        states: &[ArrayRef],
        groups: &[usize],
        total_groups: usize,
    ) -> Result<()> {
        let [counts, sums] = states else {
            return exec_err!("{} states of an average", states.len());
        };
        self.counts.resize(total_groups, 0);
        for (group, count) in groups.iter().zip(counts.as_primitive::<UInt64Type>()) {
            self.counts[*group] += count.unwrap_or(0);
        }
        self.sums.merge_batch(std::slice::from_ref(sums), groups, total_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let [counts, sums] = self.parts(emit_to)?;
        let counts = counts.as_primitive::<UInt64Type>();
        let sums = sums.as_primitive::<Decimal128Type>();
        let nulls = NullBuffer::from_iter(counts.values().iter().map(|count| *count > 0));
        let parts = sums.values().iter().zip(counts.values());
        let averages = parts.map(|(sum, count)| quotient(*sum, (*count).max(1)));
        let averages: Vec<f64> = averages.collect();
        let nulls = Some(nulls).filter(|nulls| nulls.null_count() > 0);
        Ok(Arc::new(Float64Array::new(averages.into(), nulls)))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.parts(emit_to).map(Vec::from)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let mut state = self.sums.convert_to_state(values, filter)?;
        let [sums] = state.as_slice() else { return exec_err!("{} sums of values", state.len()) };
        let counts = (0..sums.len()).map(|row| u64::from(sums.is_valid(row)));
        state.insert(0, Arc::new(UInt64Array::from_iter_values(counts)));
        Ok(state)
    }

    fn size(&self) -> usize {
        self.sums.size() + self.counts.capacity() * size_of::<u64>()
    }
}

impl<T: Summand> GroupedAverages<T> {
    /// The numbers of values of groups, and their sums.
    fn parts(&mut self, emit_to: EmitTo) -> Result<[ArrayRef; 2]> {
        let counts = emit_to.take_needed(&mut self.counts);
        match self.sums.state(emit_to)?.as_slice() {
            [sums] => Ok([Arc::new(UInt64Array::from(counts)), Arc::clone(sums)]),
            other => exec_err!("{} states of a sum", other.len()),
        }
    }
}
