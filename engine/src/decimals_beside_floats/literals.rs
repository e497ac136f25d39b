//! Numbers with a point that are written beside decimals.
//!
//! `0.05` is a DOUBLE when it is parsed, and beside a DECIMAL(4, 2) it is meant to be 0.05: as a
//! decimal it says so, and can be compared with the bounds of zone maps. So can sums, differences and products of
//! such numbers: `0.06 + 0.01` is 0.07 and not the DOUBLE below it. A number has the digits of the
//! shortest text that is read as the same DOUBLE.

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

use crate::lossy_casts::digits;

/// A number: `value / 10^scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exact {
    value: i128,
    scale: u8,
}

/// Makes decimals of the floats among some operands, if all of these are written out and a decimal
/// type holds what any of the operands can be. Otherwise nothing is changed.
pub(super) fn make_exact(operands: &mut [&mut Expr], types: &[DataType]) -> Result<bool> {
    let (mut whole, mut scale) = (0, 0);
    let mut numbers = Vec::with_capacity(operands.len());
    for (operand, data_type) in operands.iter().zip(types) {
        let number = match data_type.is_floating() {
            true => match number(operand) {
                Some(number) => Some(number),
                None => return Ok(false),
            },
            false => None,
        };
        let held = number.map_or_else(|| digits(data_type), |number| Some(number.digits()));
        if let Some((held_whole, held_scale)) = held {
            (whole, scale) = (whole.max(held_whole), scale.max(held_scale));
        }
        numbers.push(number);
    }
    if whole + scale > i16::from(DECIMAL128_MAX_PRECISION) {
        return Ok(false);
    }
    let mut decimals = types.iter().filter(|data_type| data_type.is_decimal());
    let first = decimals.next();
    let only = first.filter(|first| decimals.all(|other| other == *first));
    for (operand, number) in operands.iter_mut().zip(numbers) {
        if let Some(number) = number {
            **operand = Expr::Literal(number.into_decimal(only), None);
        }
    }
    Ok(true)
}

/// Whether an expression is a number that is written out.
pub(super) fn is_written(expr: &Expr) -> bool {
    number(expr).is_some()
}

/// The number that an expression is, if it is written out.
fn number(expr: &Expr) -> Option<Exact> {
    match expr {
        Expr::Literal(ScalarValue::Float64(Some(value)), _) => Exact::of_double(*value),
        Expr::Literal(ScalarValue::Int64(Some(value)), _) => {
            Some(Exact { value: i128::from(*value), scale: 0 })
        }
        Expr::Alias(alias) => number(&alias.expr),
        Expr::Negative(operand) => number(operand).map(Exact::negated),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::Plus => number(left)?.plus(number(right)?),
            Operator::Minus => number(left)?.plus(number(right)?.negated()),
            Operator::Multiply => number(left)?.times(number(right)?),
            _ => None,
        },
        _ => None,
    }
}

impl Exact {
    fn of_double(value: f64) -> Option<Self> {
        // The shortest digits, and no exponent.
        let text = value.to_string();
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let scale = u8::try_from(fraction.len()).ok()?;
        let value = format!("{whole}{fraction}").parse().ok()?;
        Self { value, scale }.checked()
    }

    /// This number without zeros at its end, if a decimal holds it.
    fn checked(mut self) -> Option<Self> {
        while self.scale > 0 && self.value % 10 == 0 {
            self = Self { value: self.value / 10, scale: self.scale - 1 };
        }
        let (whole, scale) = self.digits();
        (whole + scale <= i16::from(DECIMAL128_MAX_PRECISION)).then_some(self)
    }

    /// Digits before and behind its point.
    fn digits(self) -> (i16, i16) {
        let all = self.value.unsigned_abs().checked_ilog10().map_or(0, |log| log as i16 + 1);
        let scale = i16::from(self.scale);
        ((all - scale).max(0), scale)
    }

    fn negated(self) -> Self {
        Self { value: -self.value, ..self }
    }

    fn plus(self, other: Self) -> Option<Self> {
        let scale = self.scale.max(other.scale);
        let value = self.at(scale)?.checked_add(other.at(scale)?)?;
        Self { value, scale }.checked()
    }

    fn times(self, other: Self) -> Option<Self> {
        let value = self.value.checked_mul(other.value)?;
        Self { value, scale: self.scale + other.scale }.checked()
    }

    /// How many units of a larger scale it has.
    fn at(self, scale: u8) -> Option<i128> {
        let factor = 10_i128.checked_pow(u32::from(scale.checked_sub(self.scale)?))?;
        self.value.checked_mul(factor)
    }

    /// A decimal of that type, if it holds this number, and of few digits otherwise.
    fn into_decimal(self, data_type: Option<&DataType>) -> ScalarValue {
        let (whole, own_scale) = self.digits();
        if let Some(DataType::Decimal128(precision, scale)) = data_type
            && let Ok(units) = u8::try_from(*scale)
            && own_scale <= i16::from(*scale)
            && whole + i16::from(*scale) <= i16::from(*precision)
            && let Some(value) = self.at(units)
        {
            return ScalarValue::Decimal128(Some(value), *precision, *scale);
        }
        // At most 38, as was checked.
        let precision = (whole + own_scale).max(1) as u8;
        ScalarValue::Decimal128(Some(self.value), precision, self.scale as i8)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::lit;

    use super::*;

    #[test]
    fn what_is_written_is_meant() {
        let exact = |value, scale| Some(Exact { value, scale });
        for (expr, expected) in [
            (lit(0.05), exact(5, 2)),
            (lit(-1.50), exact(-15, 1)),
            (lit(0.0), exact(0, 0)),
            (lit(1e20), exact(100_000_000_000_000_000_000, 0)),
            (lit(1e-20), exact(1, 20)),
            (lit(1e-39), None),
            (lit(1e39), None),
            (lit(f64::NAN), None),
            (lit(f64::NEG_INFINITY), None),
            (lit(0.06) + lit(0.01), exact(7, 2)),
            (lit(1_i64) - lit(0.05), exact(95, 2)),
            (lit(0.5) * lit(-0.25), exact(-125, 3)),
            (-lit(0.5), exact(-5, 1)),
            (lit(1e30) * lit(1e30), None),
            (lit(1e37) + lit(1e-37), None),
            (lit(0.5) / lit(2.0), None),
            (lit(f64::MIN_POSITIVE), None),
        ] {
            assert_eq!(number(&expr), expected, "{expr}");
        }
    }

    #[test]
    fn a_number_takes_the_type_of_the_decimals_that_holds_it() {
        use DataType as T;
        use ScalarValue::Decimal128 as D;
        let number = Exact { value: 125, scale: 2 };
        for (data_type, expected) in [
            (Some(&T::Decimal128(9, 4)), D(Some(12_500), 9, 4)),
            (Some(&T::Decimal128(9, 1)), D(Some(125), 3, 2)),
            (Some(&T::Decimal128(4, 4)), D(Some(125), 3, 2)),
            (None, D(Some(125), 3, 2)),
        ] {
            assert_eq!(number.into_decimal(data_type), expected, "{data_type:?}");
        }
    }
}
