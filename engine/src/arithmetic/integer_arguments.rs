//! How aggregates take integers: in 64 bits, signed or not.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::error::Result;
use datafusion::logical_expr::AggregateUDF;
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;

/// What an argument is cast to: integers to 64 bits, the rest as `other` does.
///
/// NULL is a BIGINT, which has a sum and an average: what DataFusion makes of it has not.
pub(super) fn cast_argument(types: &[DataType], other: &AggregateUDF) -> Result<Vec<DataType>> {
    use DataType as T;
    match types {
        [T::Null | T::Int8 | T::Int16 | T::Int32 | T::Int64] => Ok(vec![T::Int64]),
        [T::UInt8 | T::UInt16 | T::UInt32 | T::UInt64] => Ok(vec![T::UInt64]),
        _ => {
            let fields = types.iter().map(|of| Arc::new(Field::new("", of.clone(), true)));
            let fields = fields_with_udf(&fields.collect::<Vec<_>>(), other)?;
            Ok(fields.iter().map(|field| field.data_type().clone()).collect())
        }
    }
}
