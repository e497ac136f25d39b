//! `date_trunc` that cuts towards the past.
//!
//! DataFusion cuts a constant towards 1970: `date_trunc('millisecond', TIMESTAMP '1969-12-31
//! 23:59:59.9995')` is midnight there. Of a column it subtracts what is too much, also from what happens to
//! lie below a NULL, and past the first moment that a timestamp can be: that ends in a panic, or in the year
//! 2262 (`sql-tests/upstream/date-trunc-before-1970.md`). Units of one length are computed here; weeks and longer
//! ones, times of day, and hours and days of a zone are DataFusion's.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    ArrowTimestampType, DataType, FieldRef, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use datafusion::common::{DataFusionError, ScalarValue, internal_err};
use datafusion::error::Result;
use datafusion::functions::datetime::date_trunc::DateTruncFunc;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature,
};

use crate::error::{ErrorCode, SqlError};

/// The function, in the place of DataFusion's.
pub(super) fn date_trunc() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(DateTrunc { inner: DateTruncFunc::new() }))
}

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct DateTrunc {
    inner: DateTruncFunc,
}

/// Nanoseconds of a unit of one length, and whether that is so in every zone.
fn length(unit: &ScalarValue) -> Option<(i64, bool)> {
    let name = unit.try_as_str().flatten()?.to_ascii_lowercase();
    Some(match name.as_str() {
        "microsecond" => (1_000, true),
        "millisecond" => (1_000_000, true),
        "second" => (1_000_000_000, true),
        "minute" => (60_000_000_000, true),
        "hour" => (3_600_000_000_000, false),
        "day" => (86_400_000_000_000, false),
        _ => return None,
    })
}

/// The timestamps, cut to multiples of so many nanoseconds.
fn cut(values: &ArrayRef, nanos: i64) -> Result<ArrayRef> {
    match values.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => {
            cut_typed::<TimestampSecondType>(values, nanos / 1_000_000_000)
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            cut_typed::<TimestampMillisecondType>(values, nanos / 1_000_000)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            cut_typed::<TimestampMicrosecondType>(values, nanos / 1_000)
        }
        _ => cut_typed::<TimestampNanosecondType>(values, nanos),
    }
}

fn cut_typed<T: ArrowTimestampType>(values: &ArrayRef, length: i64) -> Result<ArrayRef> {
    // Finer than the type is.
    if length <= 1 {
        return Ok(Arc::clone(values));
    }
    let timestamps = values.as_primitive::<T>();
    let cut = timestamps.try_unary::<_, T, DataFusionError>(|value| {
        value.checked_sub(value.rem_euclid(length)).ok_or_else(|| {
            let message = "the result of date_trunc is before the first timestamp of its type";
            SqlError::new(ErrorCode::NumericOutOfRange, message)
                .with_hint("cast the argument to TIMESTAMP(6)")
                .into()
        })
    })?;
    Ok(Arc::new(cut.with_timezone_opt(timestamps.timezone())))
}

impl ScalarUDFImpl for DateTrunc {
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let nanos = match args.args.as_slice() {
            [ColumnarValue::Scalar(unit), timestamp] => match (length(unit), timestamp.data_type())
            {
                (Some((nanos, true)), DataType::Timestamp(_, _)) => Some(nanos),
                (Some((nanos, false)), DataType::Timestamp(_, None)) => Some(nanos),
                _ => None,
            },
            _ => None,
        };
        let Some(nanos) = nanos else { return self.inner.invoke_with_args(args) };
        Ok(match args.args.last() {
            Some(ColumnarValue::Array(values)) => ColumnarValue::Array(cut(values, nanos)?),
            Some(ColumnarValue::Scalar(value)) => {
                let cut = cut(&value.to_array()?, nanos)?;
                ColumnarValue::Scalar(ScalarValue::try_from_array(&cut, 0)?)
            }
            None => return internal_err!("date_trunc of nothing"),
        })
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(inputs)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::TimestampMillisecondArray;
    use arrow::buffer::NullBuffer;

    use super::*;

    #[test]
    fn what_lies_below_a_null_is_not_computed_with() {
        let nulls = NullBuffer::from(vec![true, false, true]);
        let values = vec![-1, i64::MIN, 86_400_001].into();
        let values = Arc::new(TimestampMillisecondArray::new(values, Some(nulls))) as ArrayRef;
        let expected =
            TimestampMillisecondArray::from(vec![Some(-86_400_000), None, Some(86_400_000)]);
        let actual = cut(&values, 86_400_000_000_000).unwrap();
        assert_eq!(actual.as_primitive::<TimestampMillisecondType>(), &expected);
        let first = Arc::new(TimestampMillisecondArray::from(vec![i64::MIN])) as ArrayRef;
        assert!(cut(&first, 86_400_000_000_000).is_err());
    }
}
