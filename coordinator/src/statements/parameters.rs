//! `$1..$n`: their types, and their values from a client's parameter rows.

use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;
use basalt_engine::error::{ErrorCode, SqlError};
use basalt_engine::types::wire_type;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;

/// The parameters of a plan in order; a type that nothing tells is Null.
pub(super) fn parameter_fields(
    plan: Option<&LogicalPlan>,
    count: usize,
) -> Result<Vec<Field>, DataFusionError> {
    let known = match plan {
        Some(plan) => plan.get_parameter_fields()?,
        None => Default::default(),
    };
    Ok((1..=count)
        .map(|number| {
            let name = format!("${number}");
            let data_type = known
                .get(&name)
                .and_then(|field| field.as_ref().map(|field| wire_type(field.data_type())))
                .unwrap_or(DataType::Null);
            Field::new(name, data_type, true)
        })
        .collect())
}

/// The values of one row of parameters.
pub(super) fn parameter_row(
    batch: &RecordBatch,
    row: usize,
) -> Result<Vec<ScalarValue>, DataFusionError> {
    batch.columns().iter().map(|column| ScalarValue::try_from_array(column, row)).collect()
}

/// Refuses another number of values than the statement has parameters.
pub(super) fn check_count(expected: usize, given: usize) -> Result<(), SqlError> {
    if expected == given {
        return Ok(());
    }
    let message = format!("the statement has {expected} parameters and {given} values were given");
    Err(SqlError::new(ErrorCode::InvalidParameter, message)
        .with_hint("give one value for each of $1..$n, in order"))
}

/// A plan with its parameters filled in.
pub(super) fn bind(
    plan: LogicalPlan,
    values: Vec<ScalarValue>,
) -> Result<LogicalPlan, DataFusionError> {
    match values.is_empty() {
        true => Ok(plan),
        false => plan.with_param_values(ParamValues::from(values)),
    }
}
