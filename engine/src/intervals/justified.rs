//! `justified_interval(i)`: the one of all intervals as long as `i` that stands for them.
//!
//! Its days are 0 to 29 and its nanoseconds less than a day, none of them negative; the months have
//! the sign. So months, days and nanoseconds, compared one after the other, compare lengths. Where
//! the months do not hold it, the rest stays in the days and the nanoseconds, which still compare
//! rightly: the sum is that of an interval, so it fits.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, IntervalMonthDayNanoArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, FieldRef, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
};
use datafusion::common::{ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

/// Nanoseconds of a day.
pub(super) const DAY: i128 = 86_400_000_000_000;

/// Nanoseconds of a month.
const MONTH: i128 = 30 * DAY;

const NAME: &str = "justified_interval";

const TYPE: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// How long an interval is.
pub(crate) fn nanoseconds(interval: IntervalMonthDayNano) -> i128 {
    i128::from(interval.months) * MONTH
        + i128::from(interval.days) * DAY
        + i128::from(interval.nanoseconds)
}

/// Intervals of any unit as months, days and nanoseconds.
pub(crate) fn to_months_days_nanos(intervals: &ArrayRef) -> Result<IntervalMonthDayNanoArray> {
    let intervals = match *intervals.data_type() == TYPE {
        true => Arc::clone(intervals),
        false => cast(intervals, &TYPE)?,
    };
    Ok(intervals.as_primitive::<IntervalMonthDayNanoType>().clone())
}

fn justified_value(interval: IntervalMonthDayNano) -> IntervalMonthDayNano {
    let whole = |length: i128, unit: i128| -> i32 {
        let count = length.div_euclid(unit);
        i32::try_from(count).unwrap_or(if count < 0 { i32::MIN } else { i32::MAX })
    };
    let length = nanoseconds(interval);
    let months = whole(length, MONTH);
    let length = length - i128::from(months) * MONTH;
    let days = whole(length, DAY);
    // What days do not hold was in the nanoseconds before.
    let nanoseconds = (length - i128::from(days) * DAY) as i64;
    IntervalMonthDayNano { months, days, nanoseconds }
}

/// The function around an expression.
pub(super) fn justified(expr: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(function(), vec![expr]))
}

/// Whether an expression is one with the function around it.
pub(super) fn is_justified(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.func.inner().is::<Justified>())
}

/// The function as plans have it.
pub(super) fn function() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(ScalarUDF::new_from_impl(Justified::default())));
    Arc::clone(&FUNCTION)
}

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Justified {
    signature: Signature,
}

impl Default for Justified {
    fn default() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

/// The only one of what must be one.
fn only<T>(values: &[T]) -> Result<&T> {
    match values {
        [value] => Ok(value),
        other => plan_err!("{NAME} needs 1 argument, not {}", other.len()),
    }
}

impl ScalarUDFImpl for Justified {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match only(types)? {
            DataType::Interval(_) => Ok(TYPE),
            other => plan_err!("{NAME} needs an interval, not {other}"),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let field = only(args.arg_fields)?;
        let data_type = self.return_type(&[field.data_type().clone()])?;
        Ok(Arc::new(Field::new(NAME, data_type, field.is_nullable())))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let of = |intervals: &ArrayRef| -> Result<IntervalMonthDayNanoArray> {
            Ok(to_months_days_nanos(intervals)?.unary(justified_value))
        };
        Ok(match only(&args.args)? {
            ColumnarValue::Array(intervals) => ColumnarValue::Array(Arc::new(of(intervals)?)),
            ColumnarValue::Scalar(interval) => {
                let one = of(&interval.to_array()?)?;
                ColumnarValue::Scalar(ScalarValue::try_from_array(&one, 0)?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn interval() -> impl Strategy<Value = IntervalMonthDayNano> {
        let part =
            |ends: [i64; 4]| prop_oneof![proptest::sample::select(ends.to_vec()), -90..90i64];
        let ends = [i32::MIN, i32::MAX, 0, -1].map(i64::from);
        let day = DAY as i64;
        let nanos = prop_oneof![
            proptest::sample::select(vec![i64::MIN, i64::MAX, 0, day, -day, day - 1]),
            (-90..90i64).prop_map(move |hours| hours * (day / 24)),
        ];
        (part(ends), part(ends), nanos).prop_map(|(months, days, nanoseconds)| {
            let (months, days) = (months as i32, days as i32);
            IntervalMonthDayNano { months, days, nanoseconds }
        })
    }

    proptest! {
        #[test]
        fn what_is_justified_compares_as_lengths_do(a in interval(), b in interval()) {
            let (left, right) = (justified_value(a), justified_value(b));
            prop_assert_eq!(nanoseconds(left), nanoseconds(a));
            prop_assert_eq!(left.cmp(&right), nanoseconds(a).cmp(&nanoseconds(b)));
            prop_assert_eq!(left == right, nanoseconds(a) == nanoseconds(b));
        }
    }
}
