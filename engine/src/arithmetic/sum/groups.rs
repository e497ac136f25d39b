//! A sum per group.

use std::marker::PhantomData;
use std::mem::{size_of, size_of_val};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Decimal256Array, Int64Array,
    UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, i256};
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use super::super::exact::{Summand, carry, join, limits, split};
use super::SumOf;
use super::filled::Filled;

/// The sums of all groups, as in [`exact`](super::super::exact) but with the parts in two lists.
#[derive(Debug)]
pub(super) struct GroupedSums<T> {
    of: SumOf,
    low: Vec<i128>,
    wraps: Wraps,
    filled: Filled,
    argument: PhantomData<fn(T)>,
}

/// How often the sum of each group wrapped. Empty until one does, which is nearly never.
#[derive(Debug, Default)]
struct Wraps(Vec<i64>);

impl Wraps {
    #[cold]
    fn add(&mut self, group: usize, by: i64) {
        if self.0.len() <= group {
            self.0.resize(group + 1, 0);
        }
        self.0[group] += by;
    }

    fn get(&self, group: usize) -> i64 {
        self.0.get(group).copied().unwrap_or(0)
    }

    fn take(&mut self, emit_to: EmitTo) -> Self {
        match emit_to {
            EmitTo::First(groups) if groups < self.0.len() => {
                Self(emit_to.take_needed(&mut self.0))
            }
            _ => Self(std::mem::take(&mut self.0)),
        }
    }
}

impl<T: Summand> GroupedSums<T> {
    pub(super) fn new(of: SumOf) -> Self {
        let (wraps, filled) = (Wraps::default(), Filled::default());
        Self { of, low: Vec::new(), wraps, filled, argument: PhantomData }
    }

    /// Adds each valid value to the sum of its group.
    fn add_all<V: Summand>(
        &mut self,
        values: &[V::Native],
        valid: Option<&NullBuffer>,
        groups: &[usize],
        total_groups: usize,
    ) {
        self.low.resize(total_groups, 0);
        let (low, wraps) = (&mut self.low, &mut self.wraps);
        self.filled.visit(values, valid, groups, total_groups, |group, value| {
            let value: i128 = value.into();
            let sum = &mut low[group];
            if V::NARROW {
                *sum = sum.wrapping_add(value);
                return;
            }
            let (next, wrapped) = sum.overflowing_add(value);
            *sum = next;
            if wrapped {
                wraps.add(group, carry(value));
            }
        });
    }

    /// As [`add_all`](Self::add_all), for partial sums in the wide form.
    fn add_all_wide(
        &mut self,
        partials: &[i256],
        valid: Option<&NullBuffer>,
        groups: &[usize],
        total_groups: usize,
    ) {
        self.low.resize(total_groups, 0);
        let (low, wraps) = (&mut self.low, &mut self.wraps);
        self.filled.visit(partials, valid, groups, total_groups, |group, partial| {
            let (value, value_wraps) = split(partial);
            let sum = &mut low[group];
            let (next, wrapped) = sum.overflowing_add(value);
            *sum = next;
            if wrapped || value_wraps != 0 {
                wraps.add(group, value_wraps + if wrapped { carry(value) } else { 0 });
            }
        });
    }

    /// Refuses sums that do not fit the result.
    fn check(&self, low: &[i128], wraps: &Wraps) -> Result<()> {
        let (min, max) = limits(&self.of.result);
        let outside = |sum: i128| (sum < min) | (sum > max);
        let any = low.iter().fold(false, |any, sum| any | outside(*sum));
        if !any && wraps.0.is_empty() {
            return Ok(());
        }
        for (group, sum) in low.iter().enumerate() {
            self.of.checked((wraps.get(group) == 0).then_some(*sum))?;
        }
        Ok(())
    }
}

impl<T: Summand> GroupsAccumulator for GroupedSums<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<()> {
        let [values] = values else { return exec_err!("sum of {} arguments", values.len()) };
        let values = values.as_primitive::<T>();
        let valid = passing(values.nulls(), filter);
        self.add_all::<T>(values.values(), valid.as_ref(), groups, total_groups);
        Ok(())
    }

    fn merge_batch(
        &mut self,
        states: &[ArrayRef],
        groups: &[usize],
        total_groups: usize,
    ) -> Result<()> {
        let [partials] = states else { return exec_err!("{} states of a sum", states.len()) };
        let valid = passing(partials.nulls(), None);
        match partials.data_type() {
            DataType::Decimal128(..) => {
                let partials = partials.as_primitive::<Decimal128Type>().values();
                self.add_all::<Decimal128Type>(partials, valid.as_ref(), groups, total_groups);
            }
            DataType::Decimal256(..) => {
                let partials = partials.as_primitive::<Decimal256Type>().values();
                self.add_all_wide(partials, valid.as_ref(), groups, total_groups);
            }
            other => return exec_err!("a partial sum is {other}"),
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let low = emit_to.take_needed(&mut self.low);
        let wraps = self.wraps.take(emit_to);
        let nulls = self.filled.take(emit_to);
        self.check(&low, &wraps)?;
        // Checked above: what is cut off here is the sign only.
        Ok(match &self.of.result {
            DataType::Int64 => {
                let sums: Vec<_> = low.into_iter().map(|sum| sum as i64).collect();
                Arc::new(Int64Array::new(sums.into(), nulls))
            }
            DataType::UInt64 => {
                let sums: Vec<_> = low.into_iter().map(|sum| sum as u64).collect();
                Arc::new(UInt64Array::new(sums.into(), nulls))
            }
            result => {
                let sums = Decimal128Array::new(low.into(), nulls);
                Arc::new(sums.with_data_type(result.clone()))
            }
        })
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let low = emit_to.take_needed(&mut self.low);
        let wraps = self.wraps.take(emit_to);
        let nulls = self.filled.take(emit_to);
        Ok(vec![match self.of.state() {
            DataType::Decimal256(precision, scale) => {
                let joined =
                    low.iter().enumerate().map(|(group, low)| join(*low, wraps.get(group)));
                let sums = Decimal256Array::new(joined.collect::<Vec<_>>().into(), nulls);
                Arc::new(sums.with_precision_and_scale(precision, scale)?)
            }
            state => {
                if wraps.0.iter().any(|wraps| *wraps != 0) {
                    self.of.partial(None)?;
                }
                Arc::new(Decimal128Array::new(low.into(), nulls).with_data_type(state))
            }
        }])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let [values] = values else { return exec_err!("sum of {} arguments", values.len()) };
        let values = values.as_primitive::<T>();
        let nulls = passing(values.nulls(), filter);
        let sums = values.values().iter().map(|value| (*value).into());
        Ok(vec![match self.of.state() {
            DataType::Decimal256(precision, scale) => {
                let sums: Vec<_> = sums.map(i256::from_i128).collect();
                let sums = Decimal256Array::new(sums.into(), nulls);
                Arc::new(sums.with_precision_and_scale(precision, scale)?)
            }
            state => {
                let sums: Vec<i128> = sums.collect();
                Arc::new(Decimal128Array::new(sums.into(), nulls).with_data_type(state))
            }
        }])
    }

    fn size(&self) -> usize {
        size_of_val(self)
            + self.of.name.capacity()
            + self.low.capacity() * size_of::<i128>()
            + self.wraps.0.capacity() * size_of::<i64>()
            + self.filled.size()
    }
}

/// The rows that have a value and pass the filter; `None` when all do.
fn passing(nulls: Option<&NullBuffer>, filter: Option<&BooleanArray>) -> Option<NullBuffer> {
    let filter = filter.map(|filter| match filter.nulls() {
        Some(known) => NullBuffer::new(filter.values() & known.inner()),
        None => NullBuffer::new(filter.values().clone()),
    });
    NullBuffer::union(nulls, filter.as_ref())
}
