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
//!
//! Nor is a filter estimated above columns that a cast made of others in another order, such as the time
//! of day of a moment: DataFusion takes the cast bounds for the bounds of what is cast, and a least value
//! above the greatest ends the statement, too.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Expr, ExprSchemable, Filter, LogicalPlan, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Literal};

use crate::node_expressions::{any_part, columns_below};

/// A plan that is optimised already, with its filters with casts made so. Before, other rules look
/// for `=`.
pub(crate) fn unestimated(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up(rewritten).data()
}

fn rewritten(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Filter(filter) = &plan else { return Ok(Transformed::no(plan)) };
    let parts = split_conjunction(&filter.predicate);
    let schema = filter.input.schema();
    let is_true = |part: &Expr| matches!(part, Expr::IsTrue(_));
    let are_lost = !parts.iter().all(|part| is_true(part)) && has_lost_bounds(&filter.input)?;
    if !are_lost && !parts.iter().any(|part| is_estimated(part, schema)) {
        return Ok(Transformed::no(plan));
    }
    let parts = parts.into_iter().map(|part| match is_true(part) {
        false if are_lost || is_estimated(part, schema) => part.clone().is_true(),
        _ => part.clone(),
    });
    let Some(predicate) = conjunction(parts) else { return Ok(Transformed::no(plan)) };
    let filter = Filter::try_new(predicate, Arc::clone(&filter.input))?;
    Ok(Transformed::yes(LogicalPlan::Filter(filter)))
}

/// Whether a plan has columns whose bounds DataFusion may take for the wrong way round.
fn has_lost_bounds(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|node| {
        if !matches!(node, LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_)) {
            return Ok(false);
        }
        let schema = columns_below(node)?;
        any_part(node, |part| {
            let Expr::Cast(cast) = part else { return false };
            let from = cast.expr.get_type(&schema);
            !from.is_ok_and(|from| keeps_order(&from, cast.field.data_type()))
        })
    })
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

/// Whether the least and the largest value are that after a cast, too: of numbers, and of dates and
/// timestamps.
fn keeps_order(from: &DataType, to: &DataType) -> bool {
    let is_moment = |of: &DataType| {
        matches!(of, DataType::Date32 | DataType::Date64 | DataType::Timestamp(_, _))
    };
    from == to || (from.is_numeric() && to.is_numeric()) || (is_moment(from) && is_moment(to))
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
    #[test]
    fn casts_that_may_turn_a_range_round_are_told_apart() {
        let timestamp = DataType::Timestamp(TimeUnit::Nanosecond, None);
        let time = DataType::Time64(TimeUnit::Nanosecond);
        assert!(keeps_order(&timestamp, &DataType::Date32));
        assert!(keeps_order(&DataType::Float64, &DataType::Int8));
        assert!(!keeps_order(&timestamp, &time));
        assert!(!keeps_order(&DataType::Int64, &DataType::Utf8View));
        assert!(!keeps_order(&DataType::Utf8, &DataType::Int64));
    }
}
