//! Checked integer arithmetic over whole batches.
//!
//! Arrow's own checked kernels branch at every value. These compute as if nothing could overflow,
//! collect the overflows of a batch in one word, and look again only when there was one: a value
//! below a NULL may be anything, so what overflowed there does not count.

use arrow::array::{Array, ArrowPrimitiveType, AsArray, PrimitiveArray, downcast_integer};
use arrow::array::{ArrayRef, new_null_array};
use arrow::buffer::NullBuffer;
use datafusion::common::exec_err;
use datafusion::error::Result;
use std::sync::Arc;

use super::operators::Operation;
use super::out_of_range::integer_out_of_range;

/// An operand: a column, or one value for all rows.
pub(super) struct Operand {
    /// The values; exactly one when `is_scalar`.
    pub(super) values: ArrayRef,
    /// Whether the one value stands for every row.
    pub(super) is_scalar: bool,
}

/// Integers with an operation that says whether it overflowed.
///
/// The second result has its highest bit set exactly when the first one wrapped: the form that
/// compiles to vector instructions and can be collected with `|`.
pub(super) trait Integer: Copy + std::fmt::Display {
    const ZERO: Self;
    fn plus(self, other: Self) -> (Self, Self);
    fn minus(self, other: Self) -> (Self, Self);
    fn times(self, other: Self) -> (Self, Self);
    fn collect_flag(self, flag: Self) -> Self;
    fn is_flagged(self) -> bool;
}

macro_rules! integer {
    ($type:ty, |$a:ident, $b:ident, $v:ident| $plus:expr, $minus:expr) => {
        impl Integer for $type {
            const ZERO: Self = 0;

            #[inline(always)]
            fn plus(self, other: Self) -> (Self, Self) {
                let ($a, $b, $v) = (self, other, self.wrapping_add(other));
                ($v, $plus)
            }

            #[inline(always)]
            fn minus(self, other: Self) -> (Self, Self) {
                let ($a, $b, $v) = (self, other, self.wrapping_sub(other));
                ($v, $minus)
            }

            #[inline(always)]
            fn times(self, other: Self) -> (Self, Self) {
                let (value, wrapped) = self.overflowing_mul(other);
                (value, <$type>::from(wrapped) << (<$type>::BITS - 1))
            }

            #[inline(always)]
            fn collect_flag(self, flag: Self) -> Self {
                self | flag
            }

            #[inline(always)]
            fn is_flagged(self) -> bool {
                self >> (<$type>::BITS - 1) != 0
            }
        }
    };
}

macro_rules! integers {
    ($($signed:ty, $unsigned:ty);*) => { $(
        // The sign of the result differs from both operands', or from the first and not the second's.
        integer!($signed, |a, b, v| (a ^ v) & (b ^ v), (a ^ b) & (a ^ v));
        // The carry, or the borrow, out of the highest bit.
        integer!($unsigned, |a, b, v| (a & b) | ((a | b) & !v), (!a & b) | ((!a | b) & v));
    )* };
}

integers!(i8, u8; i16, u16; i32, u32; i64, u64);

/// Computes `left operation right` row by row; a negation has zero at its left.
///
/// # Errors
/// An overflow, with the values of the first row that has one.
pub(super) fn compute(operation: Operation, left: &Operand, right: &Operand) -> Result<ArrayRef> {
    macro_rules! typed {
        ($type:ty) => {
            match operation {
                Operation::Add => typed::<$type, _>(operation, left, right, Integer::plus),
                Operation::Subtract | Operation::Negate => {
                    typed::<$type, _>(operation, left, right, Integer::minus)
                }
                Operation::Multiply => typed::<$type, _>(operation, left, right, Integer::times),
            }
        };
    }
    downcast_integer! {
        left.values.data_type() => (typed),
        other => exec_err!("{} of {other} is not integer arithmetic", operation.name())
    }
}

fn typed<T, F>(
    operation: Operation,
    left: &Operand,
    right: &Operand,
    compute: F,
) -> Result<ArrayRef>
where
    T: ArrowPrimitiveType,
    T::Native: Integer,
    F: Fn(T::Native, T::Native) -> (T::Native, T::Native) + Copy,
{
    let (l, r) = (left.values.as_primitive::<T>(), right.values.as_primitive::<T>());
    let result = match (left.is_scalar, right.is_scalar) {
        (false, false) | (true, true) => {
            let nulls = NullBuffer::union(l.nulls(), r.nulls());
            let pairs = l.values().iter().zip(r.values()).map(|(a, b)| (*a, *b));
            checked::<T>(pairs, nulls, compute)
        }
        (false, true) if r.is_null(0) => return Ok(new_null_array(&T::DATA_TYPE, l.len())),
        (true, false) if l.is_null(0) => return Ok(new_null_array(&T::DATA_TYPE, r.len())),
        (false, true) => {
            let b = r.value(0);
            checked::<T>(l.values().iter().map(|a| (*a, b)), l.nulls().cloned(), compute)
        }
        (true, false) => {
            let a = l.value(0);
            checked::<T>(r.values().iter().map(|b| (a, *b)), r.nulls().cloned(), compute)
        }
    };
    match result {
        Ok(array) => Ok(Arc::new(array)),
        Err((a, b)) => Err(integer_out_of_range(&operation.show(&a, &b), &T::DATA_TYPE)),
    }
}

/// The results, or the operands of the first valid row that overflows.
fn checked<T>(
    pairs: impl Iterator<Item = (T::Native, T::Native)> + Clone,
    nulls: Option<NullBuffer>,
    compute: impl Fn(T::Native, T::Native) -> (T::Native, T::Native),
) -> std::result::Result<PrimitiveArray<T>, (T::Native, T::Native)>
where
    T: ArrowPrimitiveType,
    T::Native: Integer,
{
    let mut flags = T::Native::ZERO;
    let values: Vec<T::Native> = pairs
        .clone()
        .map(|(a, b)| {
            let (value, flag) = compute(a, b);
            flags = flags.collect_flag(flag);
            value
        })
        .collect();
    if flags.is_flagged() {
        let is_valid = |row| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
        let overflow = pairs
            .enumerate()
            .find(|(row, (a, b))| is_valid(*row) && compute(*a, *b).1.is_flagged());
        if let Some((_, operands)) = overflow {
            return Err(operands);
        }
    }
    Ok(PrimitiveArray::new(values.into(), nulls))
}

#[cfg(test)]
mod tests {
    use super::Integer;

    /// Compares with arithmetic that has room for every result.
    fn check<T: Integer + Into<i128>>(values: &[T], min: i128, max: i128) {
        for &a in values {
            for &b in values {
                let (x, y): (i128, i128) = (a.into(), b.into());
                for (name, exact, (value, flag)) in [
                    ("+", Some(x + y), a.plus(b)),
                    ("-", Some(x - y), a.minus(b)),
                    ("*", x.checked_mul(y), a.times(b)),
                ] {
                    let expected = exact.filter(|exact| (min..=max).contains(exact));
                    let actual = (!flag.is_flagged()).then(|| value.into());
                    assert_eq!(actual, expected, "{a} {name} {b}");
                }
            }
        }
    }

    #[test]
    fn every_pair_of_bytes_is_right_or_flagged() {
        check(&(i8::MIN..=i8::MAX).collect::<Vec<_>>(), i8::MIN.into(), i8::MAX.into());
        check(&(u8::MIN..=u8::MAX).collect::<Vec<_>>(), 0, u8::MAX.into());
    }

    #[test]
    fn the_edges_of_wider_integers_are_right_or_flagged() {
        macro_rules! edges {
            ($($type:ty),*) => { $(
                let (min, max) = (<$type>::MIN, <$type>::MAX);
                let half = max / 2;
                let values = [min, min + 1, min / 2, 0, 1, 2, 3, half, half + 1, max - 1, max];
                check(&values, min.into(), max.into());
            )* };
        }
        edges!(i16, u16, i32, u32, i64, u64);
    }
}
