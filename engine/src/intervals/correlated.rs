//! Lengths that a subquery compares with those of rows outside.
//!
//! DataFusion decorrelates `WHERE u.i = outer.i` below an aggregate only where one side is a column. So the
//! length of `u.i` becomes one, below the filter, and is left out again above it.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, LogicalPlanBuilder};

use super::groups::free_name;
use super::justified::is_justified;

/// A filter that compares columns with what is outside; `None` if it compares no lengths with that.
pub(super) fn by_columns(filter: &Filter) -> Result<Option<LogicalPlan>> {
    if !filter.predicate.contains_outer() {
        return Ok(None);
    }
    let schema = filter.input.schema();
    let columns: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
    let mut lengths: Vec<(Expr, Column)> = Vec::new();
    let predicate = filter.predicate.clone().transform_down(|expr| {
        if !is_justified(&expr) || expr.contains_outer() || !expr.any_column_refs() {
            return Ok(Transformed::no(expr));
        }
        let known = lengths.iter().find(|(length, _)| *length == expr);
        let column = match known {
            Some((_, column)) => column.clone(),
            None => {
                let column = free_name("outer_length", lengths.len(), schema);
                lengths.push((expr, column.clone()));
                column
            }
        };
        Ok(Transformed::new(Expr::Column(column), true, TreeNodeRecursion::Jump))
    })?;
    if lengths.is_empty() {
        return Ok(None);
    }
    let lengths = lengths.into_iter().map(|(length, column)| length.alias(column.name()));
    let below = LogicalPlanBuilder::from(Arc::clone(&filter.input))
        .project(columns.iter().cloned().chain(lengths))?
        .build()?;
    let filter = LogicalPlan::Filter(Filter::try_new(predicate.data, Arc::new(below))?);
    LogicalPlanBuilder::from(filter).project(columns)?.build().map(Some)
}
