//! An average of integers whose sum and count are known already: the last of two steps of an aggregation.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Int64Type};
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};

use super::quotient::quotient;

/// The function's name, in EXPLAIN and on the wire.
pub(super) const AVERAGE_OF_SUM: &str = "average_of_sum";

/// `average_of_sum(sum, count)`: the nearest DOUBLE, as `avg` gives it; NULL of no values.
pub(in crate::arithmetic) fn average_of_sum() -> Arc<ScalarUDF> {
    let types = vec![DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0), DataType::Int64];
    let signature = Signature::new(TypeSignature::Exact(types), Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(AverageOfSum { signature }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AverageOfSum {
    signature: Signature,
}

impl ScalarUDFImpl for AverageOfSum {
    fn name(&self) -> &str {
        AVERAGE_OF_SUM
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [sums, counts] = arrays.as_slice() else {
            return exec_err!("{AVERAGE_OF_SUM} takes a sum and a count");
        };
        let sums = sums.as_primitive_opt::<Decimal128Type>();
        let (Some(sums), Some(counts)) = (sums, counts.as_primitive_opt::<Int64Type>()) else {
            return exec_err!("{AVERAGE_OF_SUM} takes a sum and a count");
        };
        let average = |(sum, count): (Option<i128>, Option<i64>)| {
            let count = u64::try_from(count?).ok().filter(|count| *count > 0)?;
            Some(quotient(sum?, count))
        };
        let averages: Float64Array = sums.iter().zip(counts).map(average).collect();
        Ok(ColumnarValue::Array(Arc::new(averages) as ArrayRef))
    }
}
