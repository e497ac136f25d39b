//! Operators of intervals that DataFusion lacks or takes for others.
//!
//! - `i * n`, `n * i`, `i / n` become functions: a whole factor multiplies months, days and time each;
//!   otherwise the fraction of a month goes into its 30 days, and that of a day into its 24 hours, as in
//!   PostgreSQL
//! - `d + i` and `d - i` of a DATE and an interval that may have hours is a TIMESTAMP: a DATE would lose
//!   them. An interval that is written out and has none leaves it a DATE.
//! - `t < DATE '9999-12-31'` of a TIMESTAMP compares seconds: that day has no nanoseconds
//!
//! Where a statement is planned, since what is left of it DataFusion refuses there.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, IntervalMonthDayNanoArray};
use arrow::compute::cast as cast_array;
use arrow::datatypes::{
    DataType, Float64Type, Int64Type, IntervalMonthDayNano, IntervalUnit, TimeUnit,
};
use arrow::error::ArrowError;
use datafusion::common::{DFSchema, ScalarValue, internal_err, plan_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::expr_fn::cast;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::justified::{DAY, to_months_days_nanos};
use crate::error::{ErrorCode, SqlError};

/// Nanoseconds that the fraction of a day is rounded to: PostgreSQL's unit.
const MICROSECOND: f64 = 1_000.0;

/// Whole days from 1970 that 64 bits hold in nanoseconds.
const DAYS_OF_NANOSECONDS: u32 = 106_751;

/// How many operators an operand may have to be looked into first.
const DEPTH_MAX: usize = 8;

/// Plans the operators.
#[derive(Debug)]
pub(crate) struct IntervalOperators;

impl ExprPlanner for IntervalOperators {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        use BinaryOperator as B;
        if is_comparison(&expr.op) {
            return Ok(PlannerResult::Original(compared_by_seconds(expr, schema)));
        }
        let is_ours = matches!(expr.op, B::Plus | B::Minus | B::Multiply | B::Divide);
        if !is_ours || !may_be_ours(&expr, schema) {
            return Ok(PlannerResult::Original(expr));
        }
        let types = (expr.left.get_type(schema), expr.right.get_type(schema));
        let (Ok(left), Ok(right)) = types else { return Ok(PlannerResult::Original(expr)) };
        let RawBinaryExpr { op, left: a, right: b } = expr;
        Ok(match op {
            B::Multiply if is_length(&left) && right.is_numeric() => planned(multiply(), [a, b]),
            B::Multiply if left.is_numeric() && is_length(&right) => planned(multiply(), [a, b]),
            B::Divide if is_length(&left) && right.is_numeric() => planned(divide(), [a, b]),
            B::Plus | B::Minus if is_date(&left) && is_interval(&right) && !is_whole_days(&b) => {
                PlannerResult::Original(RawBinaryExpr { op, left: as_timestamp(a), right: b })
            }
            B::Plus if is_interval(&left) && is_date(&right) && !is_whole_days(&a) => {
                PlannerResult::Original(RawBinaryExpr { op, left: a, right: as_timestamp(b) })
            }
            _ => PlannerResult::Original(RawBinaryExpr { op, left: a, right: b }),
        })
    }
}

fn is_comparison(op: &BinaryOperator) -> bool {
    use BinaryOperator as B;
    matches!(op, B::Eq | B::NotEq | B::Lt | B::LtEq | B::Gt | B::GtEq)
}

/// A comparison of a timestamp with a day that is none of its nanoseconds': no second of those has
/// that day either, so seconds compare alike.
fn compared_by_seconds(expr: RawBinaryExpr, schema: &DFSchema) -> RawBinaryExpr {
    let timestamp = match (is_beyond_nanoseconds(&expr.left), is_beyond_nanoseconds(&expr.right)) {
        (true, false) => &expr.right,
        (false, true) => &expr.left,
        _ => return expr,
    };
    let Ok(DataType::Timestamp(TimeUnit::Nanosecond, zone)) = timestamp.get_type(schema) else {
        return expr;
    };
    let in_seconds = |side| cast(side, DataType::Timestamp(TimeUnit::Second, zone.clone()));
    RawBinaryExpr { op: expr.op, left: in_seconds(expr.left), right: in_seconds(expr.right) }
}

/// Whether an expression is a DATE that is written out and before 1677 or after 2262.
fn is_beyond_nanoseconds(expr: &Expr) -> bool {
    let Expr::Cast(Cast { expr, field }) = expr else { return false };
    match (expr.as_literal(), field.data_type()) {
        (Some(text), DataType::Date32) => matches!(
            text.cast_to(&DataType::Date32),
            Ok(ScalarValue::Date32(Some(day))) if day.unsigned_abs() > DAYS_OF_NANOSECONDS
        ),
        _ => false,
    }
}

/// Whether an operand may be an interval or a date. Of a long chain of operators, which leans to the
/// left, the right operands answer, so that it is not walked again for each of them.
fn may_be_ours(expr: &RawBinaryExpr, schema: &DFSchema) -> bool {
    let shallow = [&expr.left, &expr.right].into_iter().filter(|side| depth(side) <= DEPTH_MAX);
    let mut types = shallow.map(|side| side.get_type(schema)).peekable();
    types.peek().is_none() || types.any(|t| t.is_ok_and(|t| is_length(&t) || is_date(&t)))
}

/// How deep the operators of an expression are stacked, on its left side.
fn depth(expr: &Expr) -> usize {
    let mut expr = expr;
    let mut depth = 0;
    loop {
        expr = match expr {
            Expr::BinaryExpr(BinaryExpr { left, .. }) => left,
            Expr::ScalarFunction(call) if call.args.len() <= 2 => match call.args.first() {
                Some(first) => first,
                None => return depth,
            },
            _ => return depth,
        };
        depth += 1;
    }
}

fn planned(function: Arc<ScalarUDF>, operands: [Expr; 2]) -> PlannerResult<RawBinaryExpr> {
    let call = ScalarFunction::new_udf(function, operands.to_vec());
    PlannerResult::Planned(Expr::ScalarFunction(call))
}

fn is_interval(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(_))
}

/// Differences of timestamps are intervals, too.
fn is_length(data_type: &DataType) -> bool {
    is_interval(data_type) || matches!(data_type, DataType::Duration(_))
}

fn is_date(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Date32 | DataType::Date64)
}

fn as_timestamp(date: Expr) -> Expr {
    cast(date, DataType::Timestamp(TimeUnit::Nanosecond, None))
}

/// Whether an interval is written out and has no hours.
fn is_whole_days(interval: &Expr) -> bool {
    match interval {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) => {
            interval.nanoseconds == 0
        }
        Expr::Literal(ScalarValue::IntervalYearMonth(_), _) => true,
        Expr::Literal(value, _) => value.is_null(),
        Expr::Negative(interval) => is_whole_days(interval),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus | Operator::Minus, right }) => {
            is_whole_days(left) && is_whole_days(right)
        }
        Expr::ScalarFunction(call) if call.name() == MULTIPLY => match call.args.as_slice() {
            [interval, Expr::Literal(ScalarValue::Int64(_), _)]
            | [Expr::Literal(ScalarValue::Int64(_), _), interval] => is_whole_days(interval),
            _ => false,
        },
        _ => false,
    }
}

const MULTIPLY: &str = "multiply_interval";

/// `i * n`.
pub(super) fn multiply() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Scale::function(MULTIPLY, '*', false));
    Arc::clone(&FUNCTION)
}

/// `i / n`.
pub(super) fn divide() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Scale::function("divide_interval", '/', true));
    Arc::clone(&FUNCTION)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Scale {
    name: &'static str,
    symbol: char,
    divides: bool,
    signature: Signature,
}

/// Whole factors are exact.
#[derive(Debug, Clone, Copy)]
enum Factor {
    Whole(i64),
    Float(f64),
}

impl Scale {
    fn function(name: &'static str, symbol: char, divides: bool) -> Arc<ScalarUDF> {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Self { name, symbol, divides, signature }))
    }

    fn scaled(&self, interval: IntervalMonthDayNano, by: Factor) -> Result<IntervalMonthDayNano> {
        let scaled = match (by, self.divides) {
            (Factor::Whole(0), true) => return Err(ArrowError::DivideByZero.into()),
            (Factor::Float(0.0), true) => {
                return Err(ArrowError::DivideByZero.into());
            }
            (Factor::Whole(factor), false) => by_whole(interval, factor),
            (Factor::Float(factor), false) => by_parts(interval, |part| part * factor),
            (Factor::Whole(factor), true) => by_parts(interval, |part| part / factor as f64),
            (Factor::Float(factor), true) => by_parts(interval, |part| part / factor),
        };
        scaled.ok_or_else(out_of_range)
    }
}

fn by_whole(interval: IntervalMonthDayNano, factor: i64) -> Option<IntervalMonthDayNano> {
    let times = |part: i32| i32::try_from(i64::from(part).checked_mul(factor)?).ok();
    Some(IntervalMonthDayNano {
        months: times(interval.months)?,
        days: times(interval.days)?,
        nanoseconds: interval.nanoseconds.checked_mul(factor)?,
    })
}

/// Each part as a fraction, of which what is less than a month goes into days, and so on.
fn by_parts(
    interval: IntervalMonthDayNano,
    scale: impl Fn(f64) -> f64,
) -> Option<IntervalMonthDayNano> {
    let months = scale(f64::from(interval.months));
    // A millionth of a day is what floats make of a whole one.
    let days_of_months = (months.fract() * 30.0 * 1e6).round() / 1e6;
    let days = scale(f64::from(interval.days));
    let day = DAY as f64;
    let part_of_day = days.fract() + days_of_months.fract();
    let part_of_day = (part_of_day * day / MICROSECOND).round() * MICROSECOND;
    let more_days = (part_of_day / day).trunc();
    let days = days.trunc() + days_of_months.trunc() + more_days;
    let nanoseconds = scale(interval.nanoseconds as f64).round() + part_of_day - more_days * day;
    Some(IntervalMonthDayNano {
        months: whole(months.trunc(), f64::from(i32::MAX))? as i32,
        days: whole(days, f64::from(i32::MAX))? as i32,
        nanoseconds: whole(nanoseconds, i64::MAX as f64)?,
    })
}

/// A float that is an integer, if it is less than a bound in either direction.
fn whole(value: f64, bound: f64) -> Option<i64> {
    (value.abs() < bound).then_some(value as i64)
}

fn out_of_range() -> DataFusionError {
    SqlError::new(ErrorCode::NumericOutOfRange, "interval out of range")
        .with_hint("an interval has at most 2147483647 months, as many days, and 292 years of time")
        .into()
}

impl ScalarUDFImpl for Scale {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let coerced = types.iter().map(|data_type| match data_type {
            length if is_length(length) => Some(DataType::Interval(IntervalUnit::MonthDayNano)),
            factor if factor.is_integer() => Some(DataType::Int64),
            factor if factor.is_numeric() => Some(DataType::Float64),
            _ => None,
        });
        let coerced: Option<Vec<_>> = coerced.collect();
        match coerced.as_deref() {
            Some([left, right]) if is_interval(left) != is_interval(right) => {
                Ok(vec![left.clone(), right.clone()])
            }
            _ => plan_err!("{} needs an interval and a number", self.name),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Interval(IntervalUnit::MonthDayNano))
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [interval, factor] => {
                Ok(format!("{} {} {}", interval.schema_name(), self.symbol, factor.schema_name()))
            }
            _ => plan_err!("{} has {} operands", self.name, args.len()),
        }
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_scalar { 1 } else { args.number_rows };
        let (intervals, factors) = match args.args.as_slice() {
            [left, right] if is_interval(&left.data_type()) => (left, right),
            [left, right] => (right, left),
            other => return internal_err!("{} of {} operands", self.name, other.len()),
        };
        let intervals = to_months_days_nanos(&intervals.to_array(rows)?)?;
        let factors = factors.to_array(rows)?;
        let factors: Vec<Option<Factor>> = match factors.data_type().is_integer() {
            true => {
                let factors = cast_array(&factors, &DataType::Int64)?;
                factors.as_primitive::<Int64Type>().iter().map(|f| f.map(Factor::Whole)).collect()
            }
            false => {
                let factors = cast_array(&factors, &DataType::Float64)?;
                factors.as_primitive::<Float64Type>().iter().map(|f| f.map(Factor::Float)).collect()
            }
        };
        let scaled = intervals.iter().zip(factors).map(|pair| match pair {
            (Some(interval), Some(factor)) => self.scaled(interval, factor).map(Some),
            _ => Ok(None),
        });
        let scaled: IntervalMonthDayNanoArray = scaled.collect::<Result<_>>()?;
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&scaled, 0)?),
            false => ColumnarValue::Array(Arc::new(scaled) as Arc<dyn Array>),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(months: i32, days: i32, hours: i64) -> IntervalMonthDayNano {
        let nanoseconds = hours * (DAY as i64 / 24);
        IntervalMonthDayNano { months, days, nanoseconds }
    }

    #[test]
    fn fractions_of_months_are_days_and_those_of_days_are_hours() {
        for (of, factor, expected) in [
            (interval(1, 0, 0), 1.5, interval(1, 15, 0)),
            (interval(1, 1, 0), 0.5, interval(0, 15, 12)),
            (interval(0, 1, 0), 1.0 / 3.0, interval(0, 0, 8)),
            (interval(0, 3, 0), 1.0 / 3.0, interval(0, 1, 0)),
            (interval(7, 0, 0), 1.0 / 7.0, interval(1, 0, 0)),
            (interval(-1, 0, 10), 0.5, interval(0, -15, 5)),
            (interval(1, 1, 1), -2.0, interval(-2, -2, -2)),
        ] {
            let scaled = by_parts(of, |part| part * factor).unwrap();
            assert_eq!(scaled, expected, "{of:?} * {factor}");
        }
        assert_eq!(by_parts(interval(i32::MAX, 0, 0), |part| part * 2.0), None);
        assert_eq!(by_whole(interval(0, i32::MIN, 0), -1), None);
        assert_eq!(by_whole(interval(1, -2, 3), -2), Some(interval(-2, 4, -6)));
    }
}
