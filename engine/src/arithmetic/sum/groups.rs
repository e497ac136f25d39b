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

use super::super::exact::{Low, Summand, limits};
use super::super::filled::{Filled, passing};
use super::SumOf;

/// The sums of all groups, as in [`exact`](super::super::exact) but with the parts in two lists.
#[derive(Debug)]
pub(in crate::arithmetic) struct GroupedSums<T: Summand> {
    of: SumOf,
    low: Vec<T::Low>,
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
    pub(in crate::arithmetic) fn new(of: SumOf) -> Self {
        let (wraps, filled) = (Wraps::default(), Filled::default());
        Self { of, low: Vec::new(), wraps, filled, argument: PhantomData }
    }

    /// Adds each valid value, as the two parts of a sum, to the sum of its group.
    fn add_all<V: Copy>(
        &mut self,
        values: &[V],
        valid: Option<&NullBuffer>,
        groups: &[usize],
        total_groups: usize,
        parts: impl Fn(V) -> (T::Low, i64),
    ) {
        self.low.resize(total_groups, T::Low::default());
        let (low, wraps) = (&mut self.low, &mut self.wraps);
        self.filled.visit(values, valid, groups, total_groups, |group, value| {
            let (value, value_wraps) = parts(value);
            let sum = &mut low[group];
            let (next, wrapped) = sum.plus(value);
            *sum = next;
            if wrapped || value_wraps != 0 {
                wraps.add(group, value_wraps + if wrapped { T::Low::carry(value) } else { 0 });
            }
        });
    }

    /// The sums as values of the result, if it holds all of them.
    fn results<R>(
        &self,
        low: &[T::Low],
        wraps: &Wraps,
        convert: impl Fn(i128) -> R,
    ) -> Result<Vec<R>> {
        let (min, max) = limits(&self.of.result);
        let groups = low.iter().enumerate();
        groups
            .map(|(group, low)| match low.join(wraps.get(group)) {
                Some(sum) if (min..=max).contains(&sum) => Ok(convert(sum)),
                other => self.of.checked(other).map(&convert),
            })
            .collect()
    }

    /// As [`results`](Self::results), for decimals, and without a copy when all is well.
    fn decimals(&self, low: Vec<T::Low>, wraps: &Wraps) -> Result<Vec<i128>> {
        let (min, max) = limits(&self.of.result);
        if wraps.0.is_empty() {
            let sums = T::Low::widen(low);
            if let Some(sum) = sums.iter().find(|sum| !(min..=max).contains(*sum)) {
                self.of.checked(Some(*sum))?;
            }
            return Ok(sums);
        }
        self.results(&low, wraps, |sum| sum)
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
        let parts = |value: T::Native| (value.into(), 0);
        self.add_all(values.values(), valid.as_ref(), groups, total_groups, parts);
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
                self.add_all(partials, valid.as_ref(), groups, total_groups, T::Low::split);
            }
            DataType::Decimal256(..) => {
                let partials = partials.as_primitive::<Decimal256Type>().values();
                self.add_all(partials, valid.as_ref(), groups, total_groups, T::Low::split_wide);
            }
            other => return exec_err!("a partial sum is {other}"),
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let low = emit_to.take_needed(&mut self.low);
        let wraps = self.wraps.take(emit_to);
        let nulls = self.filled.take(emit_to);
        // In its limits: what is cut off here is the sign only.
        Ok(match &self.of.result {
            // 64 bits that never wrapped are the sum.
            DataType::Int64 | DataType::UInt64 if wraps.0.is_empty() => T::Low::array(low, nulls),
            DataType::Int64 => {
                let sums = self.results(&low, &wraps, |sum| sum as i64)?;
                Arc::new(Int64Array::new(sums.into(), nulls))
            }
            DataType::UInt64 => {
                let sums = self.results(&low, &wraps, |sum| sum as u64)?;
                Arc::new(UInt64Array::new(sums.into(), nulls))
            }
            result => {
                let sums = self.decimals(low, &wraps)?;
                Arc::new(Decimal128Array::new(sums.into(), nulls).with_data_type(result.clone()))
            }
        })
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let low = emit_to.take_needed(&mut self.low);
        let wraps = self.wraps.take(emit_to);
        let nulls = self.filled.take(emit_to);
        Ok(vec![match self.of.state() {
            state @ DataType::Decimal256(..) => {
                let groups = low.iter().enumerate();
                let sums = groups.map(|(group, low)| low.join_wide(wraps.get(group)));
                let sums = Decimal256Array::new(sums.collect::<Vec<_>>().into(), nulls);
                Arc::new(sums.with_data_type(state))
            }
            state => {
                let sums = if wraps.0.is_empty() {
                    T::Low::widen(low)
                } else {
                    let groups = low.iter().enumerate();
                    groups
                        .map(|(group, low)| self.of.partial(low.join(wraps.get(group))))
                        .collect::<Result<_>>()?
                };
                Arc::new(Decimal128Array::new(sums.into(), nulls).with_data_type(state))
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
            state @ DataType::Decimal256(..) => {
                let sums: Vec<_> = sums.map(i256::from_i128).collect();
                Arc::new(Decimal256Array::new(sums.into(), nulls).with_data_type(state))
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
            + self.low.capacity() * size_of::<T::Low>()
            + self.wraps.0.capacity() * size_of::<i64>()
            + self.filled.size()
    }
}
