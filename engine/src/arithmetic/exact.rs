//! Sums that are exact whatever the order of their summands: nothing is lost on the way, and only
//! the final sum is asked whether it fits.
//!
//! A sum is 256 bits wide in two parts, because the second hardly ever changes:
//!
//! ```text
//! sum = low + wraps * 2^128        low: what i128 arithmetic gives; wraps: how often it wrapped
//! ```

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Int64Type, UInt64Type,
    i256,
};
use datafusion::common::exec_err;
use datafusion::error::Result;

/// What can be summed exactly.
pub(super) trait Summand:
    ArrowPrimitiveType<Native: Into<i128> + Into<Self::Low>> + std::fmt::Debug
{
    /// Whether 2^63 values cannot overflow 128 bits, so that nobody needs to look.
    const NARROW: bool;

    /// What a sum per group is kept in.
    type Low: Low;
}

macro_rules! summand {
    ($($type:ty, narrow: $narrow:literal, $low:ty;)*) => { $(
        impl Summand for $type {
            const NARROW: bool = $narrow;
            type Low = $low;
        }
    )* };
}

summand! {
    Int64Type, narrow: true, i64;
    UInt64Type, narrow: true, u64;
    Decimal32Type, narrow: true, i64;
    Decimal64Type, narrow: true, i64;
    Decimal128Type, narrow: false, i128;
}

/// A sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ExactSum {
    low: i128,
    wraps: i64,
}

impl ExactSum {
    #[inline(always)]
    pub(super) fn add(&mut self, value: i128) {
        let (low, wrapped) = self.low.overflowing_add(value);
        self.low = low;
        if wrapped {
            self.wraps += carry(value);
        }
    }

    #[inline(always)]
    pub(super) fn subtract(&mut self, value: i128) {
        let (low, wrapped) = self.low.overflowing_sub(value);
        self.low = low;
        if wrapped {
            self.wraps -= carry(value);
        }
    }

    pub(super) fn add_sum(&mut self, other: Self) {
        self.add(other.low);
        self.wraps += other.wraps;
    }

    pub(super) fn subtract_sum(&mut self, other: Self) {
        self.subtract(other.low);
        self.wraps -= other.wraps;
    }

    /// The sum, if it fits.
    pub(super) fn value(self) -> Option<i128> {
        (self.wraps == 0).then_some(self.low)
    }

    pub(super) fn to_i256(self) -> i256 {
        self.low.join_wide(self.wraps)
    }

    pub(super) fn from_i256(value: i256) -> Self {
        let (low, wraps) = i128::split_wide(value);
        Self { low, wraps }
    }

    /// The sum of partial sums.
    pub(super) fn of_partials(partials: &ArrayRef) -> Result<Self> {
        match partials.data_type() {
            DataType::Decimal128(..) => Ok(Self::of(partials.as_primitive::<Decimal128Type>())),
            DataType::Decimal256(..) => {
                let mut sum = Self::default();
                for partial in partials.as_primitive::<Decimal256Type>().iter().flatten() {
                    sum.add_sum(Self::from_i256(partial));
                }
                Ok(sum)
            }
            other => exec_err!("a partial sum is {other}"),
        }
    }

    /// The sum of an array's valid values.
    pub(super) fn of<T: Summand>(array: &PrimitiveArray<T>) -> Self {
        let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0);
        if T::NARROW {
            Self { low: wrapping_sum(array.values(), nulls).0, wraps: 0 }
        } else {
            match wrapping_sum(array.values(), nulls) {
                (low, false) => Self { low, wraps: 0 },
                (_, true) => {
                    let mut sum = Self::default();
                    array.iter().flatten().for_each(|value| sum.add(value.into()));
                    sum
                }
            }
        }
    }
}

/// What wrapped when a value was added: up for a positive one, down for a negative one.
#[inline(always)]
fn carry(value: i128) -> i64 {
    if value < 0 { -1 } else { 1 }
}

/// The low part of a sum of which there are many, as narrow as its summands: the sum is
/// `low + wraps * 2^BITS`, and memory is what many groups cost.
pub(super) trait Low: Copy + Default + std::fmt::Debug + Send + Sync + 'static {
    /// The sum, and whether it wrapped, which is nearly never.
    fn plus(self, value: Self) -> (Self, bool);

    /// What is to be added to `wraps` when adding `value` wrapped.
    fn carry(value: Self) -> i64;

    /// A number as the two parts.
    fn split(value: i128) -> (Self, i64);

    /// As [`split`](Self::split), of what [`join_wide`](Self::join_wide) made.
    fn split_wide(value: i256) -> (Self, i64);

    /// The two parts as a number, if 128 bits hold it.
    fn join(self, wraps: i64) -> Option<i128>;

    /// The two parts as a number.
    fn join_wide(self, wraps: i64) -> i256;

    /// Sums that never wrapped, as numbers.
    fn widen(sums: Vec<Self>) -> Vec<i128>;

    /// Sums that never wrapped, as they are.
    fn array(sums: Vec<Self>, nulls: Option<NullBuffer>) -> ArrayRef;
}

macro_rules! narrow_low {
    ($type:ty, $array:ty, |$value:ident| $carry:expr) => {
        impl Low for $type {
            #[inline(always)]
            fn plus(self, value: Self) -> (Self, bool) {
                self.overflowing_add(value)
            }

            fn carry($value: Self) -> i64 {
                $carry
            }

            #[inline(always)]
            fn split(value: i128) -> (Self, i64) {
                let low = value as Self;
                (low, ((value - i128::from(low)) >> 64) as i64)
            }

            fn split_wide(value: i256) -> (Self, i64) {
                Self::split(value.as_i128())
            }

            #[inline(always)]
            fn join(self, wraps: i64) -> Option<i128> {
                (i128::from(wraps) << 64).checked_add(i128::from(self))
            }

            fn join_wide(self, wraps: i64) -> i256 {
                i256::from_i128((i128::from(wraps) << 64).wrapping_add(i128::from(self)))
            }

            fn widen(sums: Vec<Self>) -> Vec<i128> {
                sums.into_iter().map(i128::from).collect()
            }

            fn array(sums: Vec<Self>, nulls: Option<NullBuffer>) -> ArrayRef {
                Arc::new(PrimitiveArray::<$array>::new(sums.into(), nulls))
            }
        }
    };
}

narrow_low!(i64, Int64Type, |value| if value < 0 { -1 } else { 1 });
narrow_low!(u64, UInt64Type, |_value| 1);

impl Low for i128 {
    #[inline(always)]
    fn plus(self, value: Self) -> (Self, bool) {
        self.overflowing_add(value)
    }

    fn carry(value: Self) -> i64 {
        carry(value)
    }

    #[inline(always)]
    fn split(value: i128) -> (Self, i64) {
        (value, 0)
    }

    #[inline(always)]
    fn split_wide(value: i256) -> (Self, i64) {
        let (low, high) = value.to_parts();
        let low = low as i128;
        (low, (high + i128::from(low < 0)) as i64)
    }

    #[inline(always)]
    fn join(self, wraps: i64) -> Option<i128> {
        (wraps == 0).then_some(self)
    }

    #[inline(always)]
    fn join_wide(self, wraps: i64) -> i256 {
        i256::from_parts(self as u128, i128::from(wraps) - i128::from(self < 0))
    }

    fn widen(sums: Vec<Self>) -> Vec<i128> {
        sums
    }

    fn array(sums: Vec<Self>, nulls: Option<NullBuffer>) -> ArrayRef {
        Arc::new(PrimitiveArray::<Decimal128Type>::new(sums.into(), nulls))
    }
}

/// The sum modulo 2^128, and whether it wrapped on the way.
fn wrapping_sum<N: Copy + Into<i128>>(values: &[N], nulls: Option<&NullBuffer>) -> (i128, bool) {
    let mut sum = 0_i128;
    let mut wrapped = false;
    let mut add = |value: i128| {
        let (next, overflow) = sum.overflowing_add(value);
        sum = next;
        wrapped |= overflow;
    };
    match nulls {
        None => values.iter().for_each(|value| add((*value).into())),
        Some(nulls) => {
            // Without a branch at each value: what is NULL adds zero.
            let bits = nulls.inner().bit_chunks();
            let chunks = values.chunks(64).zip(bits.iter_padded());
            for (chunk, valid) in chunks {
                for (index, value) in chunk.iter().enumerate() {
                    let keep = -i128::from(valid >> index & 1);
                    add((*value).into() & keep);
                }
            }
        }
    }
    (sum, wrapped)
}

/// The smallest and the largest sum that a result type holds, both in its unscaled form.
pub(super) fn limits(data_type: &DataType) -> (i128, i128) {
    match data_type {
        DataType::Int64 => (i64::MIN.into(), i64::MAX.into()),
        DataType::UInt64 => (0, u64::MAX.into()),
        DataType::Decimal128(precision, _) => {
            let bound = 10_i128.checked_pow(u32::from(*precision)).unwrap_or(i128::MAX);
            (1 - bound, bound - 1)
        }
        _ => (i128::MIN, i128::MAX),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Decimal128Array;
    use arrow::datatypes::i256;
    use proptest::prelude::*;

    use super::ExactSum;

    fn extremes() -> impl Strategy<Value = i128> {
        let edge = 10_i128.pow(38) - 1;
        prop_oneof![
            any::<i128>(),
            Just(i128::MAX),
            Just(i128::MIN),
            Just(edge),
            Just(-edge),
            -3_i128..3
        ]
    }

    proptest! {
        #[test]
        fn a_sum_equals_that_of_wider_arithmetic(
            added in prop::collection::vec(extremes(), 0..40),
            subtracted in prop::collection::vec(extremes(), 0..40),
        ) {
            let wide = |values: &[i128]| values.iter().fold(i256::ZERO, |sum, value| {
                sum.checked_add(i256::from_i128(*value)).unwrap()
            });
            let expected = wide(&added).checked_sub(wide(&subtracted)).unwrap();

            let mut one_by_one = ExactSum::default();
            added.iter().for_each(|value| one_by_one.add(*value));
            subtracted.iter().for_each(|value| one_by_one.subtract(*value));
            prop_assert_eq!(one_by_one.to_i256(), expected);
            prop_assert_eq!(ExactSum::from_i256(expected), one_by_one);
            prop_assert_eq!(one_by_one.value(), expected.to_i128());

            let array = |values: Vec<i128>| ExactSum::of(&Decimal128Array::from(values));
            let mut in_batches = array(added);
            in_batches.subtract_sum(array(subtracted));
            prop_assert_eq!(in_batches, one_by_one);
        }
    }
}
