//! The longest and the shortest interval of a row, in the place of `greatest` and `least`.
//!
//! NULLs are passed over, as by those. Of intervals that are equally long it is the first.

use std::cmp::Ordering;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, IntervalMonthDayNanoArray};
use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::justified::{nanoseconds, to_months_days_nanos};

/// The longest of a row.
pub(super) fn greatest() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| OfRow::function("greatest_interval", Ordering::Greater));
    Arc::clone(&FUNCTION)
}

/// The shortest of a row.
pub(super) fn least() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| OfRow::function("least_interval", Ordering::Less));
    Arc::clone(&FUNCTION)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OfRow {
    name: &'static str,
    /// How the wanted interval compares to others.
    wanted: Ordering,
    signature: Signature,
}

impl OfRow {
    fn function(name: &'static str, wanted: Ordering) -> Arc<ScalarUDF> {
        let signature = Signature::variadic_any(Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Self { name, wanted, signature }))
    }

    fn of(
        &self,
        best: Option<IntervalMonthDayNano>,
        other: Option<IntervalMonthDayNano>,
    ) -> Option<IntervalMonthDayNano> {
        let (Some(one), Some(two)) = (best, other) else { return best.or(other) };
        let is_nearer = nanoseconds(two).cmp(&nanoseconds(one)) == self.wanted;
        Some(if is_nearer { two } else { one })
    }
}

impl ScalarUDFImpl for OfRow {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Interval(IntervalUnit::MonthDayNano))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_scalar { 1 } else { args.number_rows };
        let mut best: IntervalMonthDayNanoArray = (0..rows).map(|_| None).collect();
        for arg in &args.args {
            let others = to_months_days_nanos(&arg.to_array(rows)?)?;
            let pairs = best.iter().zip(others.iter());
            best = pairs.map(|(best, other)| self.of(best, other)).collect();
        }
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&best, 0)?),
            false => ColumnarValue::Array(Arc::new(best) as Arc<dyn Array>),
        })
    }
}
