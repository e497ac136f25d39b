//! Filters with casts, of which no share of rows is estimated.
//!
//! DataFusion estimates what a filter keeps by what it leaves of the range of each column. A range
//! that goes through a cast and back may grow: [0.5, 3.7] is [0, 3] after `CAST(x AS BIGINT)`, and
//! some hours around midnight are two days after `CAST(ts AS DATE)`. A share above one then ends the
//! statement with an internal error, and a range of one value makes a column constant that is not
//! (`sql-tests/upstream/selectivity-of-casts.md`). So such a filter becomes `... IS TRUE`, which
//! filters alike and is not looked into; scans take it off again, for pruning.
//!
//! Casts that keep values apart and in order are estimated as ever: to wider integers, and of dates
//! to timestamps.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Expr, ExprSchemable, Filter, LogicalPlan, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Literal};

/// A plan that is optimised already, with its filters with casts made so. Before, other rules look
/// for `=`.
pub(crate) fn unestimated(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up(rewritten).data()
}

fn rewritten(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Filter(filter) = &plan else { return Ok(Transformed::no(plan)) };
    let parts = split_conjunction(&filter.predicate);
    let schema = filter.input.schema();
    if !parts.iter().any(|part| is_estimated(part, schema)) {
        return Ok(Transformed::no(plan));
    }
    let parts = parts.into_iter().map(|part| match is_estimated(part, schema) {
        true => part.clone().is_true(),
        false => part.clone(),
    });
    let Some(predicate) = conjunction(parts) else { return Ok(Transformed::no(plan)) };
    let filter = Filter::try_new(predicate, Arc::clone(&filter.input))?;
    Ok(Transformed::yes(LogicalPlan::Filter(filter)))
}

/// Whether DataFusion would take the ranges of columns through a cast that changes them.
fn is_estimated(part: &Expr, schema: &DFSchema) -> bool {
    if matches!(part, Expr::IsTrue(_)) {
        return false;
    }
    let is_cast = |node: &Expr| {
        let Expr::Cast(cast) = node else { return Ok(false) };
        let from = cast.expr.get_type(schema);
        Ok(!from.is_ok_and(|from| keeps_ranges(&from, cast.field.data_type())))
    };
    part.exists(is_cast).unwrap_or(true)
}

/// What a filter filters by: `a` for `a IS TRUE`.
pub(crate) fn filtered_by(filter: &Arc<dyn PhysicalExpr>) -> &Arc<dyn PhysicalExpr> {
    let is_true = |expression: &Arc<dyn PhysicalExpr>| {
        expression
            .downcast_ref::<Literal>()
            .is_some_and(|literal| *literal.value() == ScalarValue::Boolean(Some(true)))
    };
    match filter.downcast_ref::<BinaryExpr>() {
        Some(binary) if *binary.op() == Operator::IsNotDistinctFrom && is_true(binary.right()) => {
            binary.left()
        }
        _ => filter,
    }
}

/// Whether a range of values is the same range after a cast.
pub(crate) fn keeps_ranges(from: &DataType, to: &DataType) -> bool {
    let wider = |bits| to.is_integer() && to.primitive_width().is_some_and(|to| to * 8 > bits);
    match from {
        DataType::Int8 => wider(8) && to.is_signed_integer(),
        DataType::Int16 => wider(16) && to.is_signed_integer(),
        DataType::Int32 => wider(32) && to.is_signed_integer(),
        DataType::UInt8 => wider(8),
        DataType::UInt16 => wider(16),
        DataType::UInt32 => wider(32),
        DataType::Date32 => matches!(to, DataType::Timestamp(_, _)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;

    use super::*;

    #[test]
    fn casts_that_may_make_a_range_larger_are_told_apart() {
        let timestamp = DataType::Timestamp(TimeUnit::Nanosecond, None);
        for (from, to) in [
            (DataType::Float64, DataType::Int64),
            (DataType::Int64, DataType::Float64),
            (timestamp.clone(), DataType::Date32),
            (timestamp.clone(), DataType::Timestamp(TimeUnit::Second, None)),
            (DataType::Int64, DataType::Int32),
            (DataType::Int8, DataType::UInt64),
            (DataType::Int64, DataType::Utf8View),
        ] {
            assert!(!keeps_ranges(&from, &to), "{from} to {to}");
        }
        for (from, to) in [
            (DataType::Int8, DataType::Int16),
            (DataType::UInt8, DataType::Int16),
            (DataType::UInt32, DataType::UInt64),
            (DataType::Date32, timestamp),
        ] {
            assert!(keeps_ranges(&from, &to), "{from} to {to}");
        }
    }
}
