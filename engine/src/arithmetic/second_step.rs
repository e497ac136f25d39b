//! The last of two steps of an aggregation: what becomes of sums of sums, which are decimals.
//!
//! ```text
//! average_of_sum(sum, count)   avg of integers: the nearest DOUBLE; NULL of no values
//! bigint_of_sum(sum, 'sum(v)') sum of integers: an error when it does not fit
//! ```
//! They say and give what `avg` and `sum` do in one step.

use std::sync::Arc;

use arrow::array::{AsArray, Float64Array, Int64Array};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Int64Type};
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};

use super::average::quotient;
use super::out_of_range::sum_out_of_range;

/// The names of the functions, in EXPLAIN and on the wire.
pub(crate) const AVERAGE_OF_SUM: &str = "average_of_sum";
pub(crate) const BIGINT_OF_SUM: &str = "bigint_of_sum";

const SUM: DataType = DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0);

/// The functions.
pub(super) fn second_steps() -> [Arc<ScalarUDF>; 2] {
    let function = |name, other, result| {
        let signature =
            Signature::new(TypeSignature::Exact(vec![SUM, other]), Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(SecondStep { name, signature, result }))
    };
    [
        function(AVERAGE_OF_SUM, DataType::Int64, DataType::Float64),
        function(BIGINT_OF_SUM, DataType::Utf8, DataType::Int64),
    ]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SecondStep {
    name: &'static str,
    signature: Signature,
    result: DataType,
}

impl ScalarUDFImpl for SecondStep {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.result.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [sums, other] = args.args.as_slice() else {
            return exec_err!("{} takes two arguments", self.name);
        };
        let sums = sums.to_array(args.number_rows)?;
        let Some(sums) = sums.as_primitive_opt::<Decimal128Type>() else {
            return exec_err!("{} takes a sum", self.name);
        };
        // A name is not repeated for each row.
        if let ColumnarValue::Scalar(ScalarValue::Utf8(Some(name))) = other {
            let bigint = |sum: i128| {
                let beyond = |_| sum_out_of_range(name, Some(sum), &DataType::Int64);
                i64::try_from(sum).map_err(beyond)
            };
            let bigints = sums.iter().map(|sum| sum.map(bigint).transpose());
            return Ok(ColumnarValue::Array(Arc::new(bigints.collect::<Result<Int64Array>>()?)));
        }
        let other = other.to_array(args.number_rows)?;
        let Some(counts) = other.as_primitive_opt::<Int64Type>() else {
            return exec_err!("{} takes no {}", self.name, other.data_type());
        };
        let average = |(sum, count): (Option<i128>, Option<i64>)| {
            let count = u64::try_from(count?).ok().filter(|count| *count > 0)?;
            Some(quotient(sum?, count))
        };
        let result = Arc::new(sums.iter().zip(counts).map(average).collect::<Float64Array>());
        Ok(ColumnarValue::Array(result))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Decimal128Array};
    use arrow::datatypes::Field;
    use datafusion::config::ConfigOptions;

    use super::*;

    fn called(step: usize, sums: Vec<Option<i128>>, other: ColumnarValue) -> Result<ArrayRef> {
        let function = &second_steps()[step];
        let sums = Decimal128Array::from(sums).with_data_type(SUM);
        let rows = sums.len();
        let args = [ColumnarValue::Array(Arc::new(sums)), other];
        let field = |of: &ColumnarValue| Arc::new(Field::new("", of.data_type(), true));
        let args = ScalarFunctionArgs {
            arg_fields: args.iter().map(field).collect(),
            args: args.to_vec(),
            number_rows: rows,
            return_field: Arc::new(Field::new("", function.inner().return_type(&[])?, true)),
            config_options: Arc::new(ConfigOptions::default()),
        };
        function.inner().invoke_with_args(args)?.into_array(rows)
    }

    #[test]
    fn an_average_of_no_values_is_null_and_others_are_the_nearest_double() {
        let counts = ColumnarValue::Array(Arc::new(Int64Array::from(vec![3, 0, 1])));
        let averages = called(0, vec![Some(10), None, Some(i128::from(i64::MAX))], counts).unwrap();
        let expected = Float64Array::from(vec![Some(10.0 / 3.0), None, Some(i64::MAX as f64)]);
        assert_eq!(averages.as_ref(), &expected as &dyn arrow::array::Array);
    }

    #[test]
    fn a_sum_that_does_not_fit_is_the_error_that_it_is_in_one_step() {
        let names = || ColumnarValue::Scalar(ScalarValue::from("sum(t.v)"));
        let fits = called(1, vec![Some(7), None], names()).unwrap();
        assert_eq!(fits.as_primitive::<Int64Type>(), &Int64Array::from(vec![Some(7), None]));
        let beyond = vec![Some(i128::from(i64::MAX) + 1), None];
        let error = called(1, beyond, names()).unwrap_err().to_string();
        assert!(error.contains("integer out of range: sum(t.v) is 9223372036854775808"), "{error}");
    }
}
