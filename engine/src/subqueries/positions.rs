//! Scalar subqueries below aggregates and in ORDER BY.
//!
//! DataFusion makes joins of the scalar subqueries of filters and projections only. So one that
//! stands elsewhere is computed in a projection below, and a column takes its place.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, col};
use datafusion::optimizer::AnalyzerRule;

use crate::node_expressions::{Sets, map_parts};

/// What the columns are called; no statement's own columns are.
const COLUMN_PREFIX: &str = "__basalt_scalar_subquery_";

/// Moves scalar subqueries to where they can be joined.
#[derive(Debug, Default)]
pub(crate) struct ProjectScalarSubqueries;

impl AnalyzerRule for ProjectScalarSubqueries {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) | LogicalPlan::Sort(_) => {
                projected(plan)
            }
            other => Ok(Transformed::no(other)),
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "project_scalar_subqueries"
    }
}

fn projected(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let mut found = Vec::new();
    let rewritten = map_parts(plan.clone(), Sets::Change, |expression| match expression {
        Expr::ScalarSubquery(_) => Ok(Transformed::yes(column_for(expression, &mut found))),
        other => Ok(Transformed::no(other)),
    })?;
    if found.is_empty() {
        return Ok(Transformed::no(plan));
    }
    let input = plan.inputs()[0].clone();
    let columns = input.schema().columns().into_iter().map(Expr::Column);
    let computed = found.into_iter().map(|(name, subquery)| subquery.alias(name));
    let below = LogicalPlanBuilder::from(input).project(columns.chain(computed))?.build()?;
    let above = match rewritten.data {
        LogicalPlan::Sort(mut sort) => {
            let columns = plan.schema().columns().into_iter().map(Expr::Column);
            sort.input = Arc::new(below);
            let sorted = LogicalPlan::Sort(sort);
            LogicalPlanBuilder::from(sorted).project(columns)?.build()?
        }
        other => {
            let expressions = other.expressions();
            other.with_new_exprs(expressions, vec![below])?
        }
    };
    let columns = plan.schema().columns().into_iter().map(Expr::Column);
    match above.schema().fields().len() == plan.schema().fields().len() {
        true => Ok(Transformed::yes(above)),
        // A window hands on all columns of its input.
        false => LogicalPlanBuilder::from(above).project(columns)?.build().map(Transformed::yes),
    }
}

/// The column of a subquery, the same for the same subquery.
fn column_for(subquery: Expr, found: &mut Vec<(String, Expr)>) -> Expr {
    if let Some((name, _)) = found.iter().find(|(_, known)| *known == subquery) {
        return col(name.as_str());
    }
    let name = format!("{COLUMN_PREFIX}{}", found.len());
    found.push((name.clone(), subquery));
    col(name)
}
