//! How large a logical plan is, before anything works on it.
//!
//! A plan shares its parts: a view that names another twice holds one plan two times. What works on
//! it, from the optimizer to the encoder, walks it as a tree, and a tower of thirty such views has
//! a thousand million nodes. Texts are measured by the dialect; this measures what views add.
//!
//! Invariant: measuring stops at the limit, so it takes no longer than the limit is large.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::LogicalPlan;

use crate::error::{ErrorCode, SqlError};
use crate::subqueries::subquery_of;

/// Nodes of a plan, counted as a tree. TPC-DS stays below 200; a thousand branches of UNION ALL
/// over views have some thousands.
pub const PLAN_NODES_MAX: usize = 20_000;

/// Columns of a plan's rows: what a table can have. A join of two such rows is planned in
/// seconds, and without this limit every view could double them.
pub const PLAN_COLUMNS_MAX: usize = 20_000;

/// Subqueries inside subqueries' expressions: each level doubles the time of planning
/// (`sql-tests/upstream/subqueries-in-subqueries.md`).
pub(crate) const SUBQUERY_DEPTH_MAX: usize = 12;

/// Refuses a plan that is too large to work on.
///
/// # Errors
///
/// [`ErrorCode::InvalidStatement`] naming the limit.
pub fn check_plan_size(plan: &LogicalPlan) -> Result<()> {
    let columns = plan.schema().fields().len();
    if columns > PLAN_COLUMNS_MAX {
        return Err(too_large(format!(
            "the query has {columns} columns: at most {PLAN_COLUMNS_MAX} are allowed"
        )));
    }
    check_nodes(plan, PLAN_NODES_MAX)?;
    check_subqueries(plan, SUBQUERY_DEPTH_MAX)
}

/// Refuses a plan of subqueries that are deeper in each other.
fn check_subqueries(plan: &LogicalPlan, depth_max: usize) -> Result<()> {
    plan.apply(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                let Some(inner) = subquery_of(part) else {
                    return Ok(TreeNodeRecursion::Continue);
                };
                let Some(left) = depth_max.checked_sub(1) else {
                    return Err(too_large(format!(
                        "more than {SUBQUERY_DEPTH_MAX} subqueries are nested in each other, views \
                         written out"
                    )));
                };
                check_subqueries(&inner.subquery, left)?;
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(())
}

/// Refuses a plan of more nodes than a limit.
///
/// # Errors
///
/// [`ErrorCode::InvalidStatement`] naming the limit.
pub(crate) fn check_nodes(plan: &LogicalPlan, nodes_max: usize) -> Result<()> {
    let mut nodes = 0_usize;
    plan.apply_with_subqueries(|_| {
        nodes += 1;
        Ok(if nodes > nodes_max { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    if nodes > nodes_max {
        return Err(too_large(format!(
            "the query has more than {nodes_max} plan nodes, views and subqueries written out"
        )));
    }
    Ok(())
}

/// What is refused for its size.
pub(crate) fn too_large(message: String) -> DataFusionError {
    SqlError::new(ErrorCode::InvalidStatement, message)
        .with_hint("store what comes in between with CREATE TABLE ... AS SELECT")
        .into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::logical_expr::{LogicalPlanBuilder, exists, lit};

    use super::*;
    use crate::error::from_datafusion;

    #[test]
    fn a_plan_that_names_itself_twice_thirty_times_over_is_refused_at_once() {
        let mut plan = LogicalPlanBuilder::values(vec![vec![lit(1)]]).unwrap().build().unwrap();
        check_plan_size(&plan).unwrap();
        for _ in 0..30 {
            let twice = LogicalPlanBuilder::from(plan.clone()).union(plan).unwrap();
            plan = twice.limit(0, Some(1)).unwrap().build().unwrap();
        }
        let error = from_datafusion(check_plan_size(&plan).unwrap_err());
        assert_eq!(error.code, ErrorCode::InvalidStatement);
        assert!(error.message.contains("plan nodes"), "{error}");
    }
    #[test]
    fn subqueries_of_views_in_each_other_are_refused_when_they_are_too_deep() {
        let one = || LogicalPlanBuilder::values(vec![vec![lit(1)]]).unwrap();
        let nested = |depth: usize| {
            let mut plan = one().build().unwrap();
            for _ in 0..depth {
                plan = one().filter(exists(Arc::new(plan))).unwrap().build().unwrap();
            }
            plan
        };
        check_plan_size(&nested(SUBQUERY_DEPTH_MAX)).unwrap();
        let error = check_plan_size(&nested(SUBQUERY_DEPTH_MAX + 1)).unwrap_err();
        let error = from_datafusion(error);
        assert_eq!(error.code, ErrorCode::InvalidStatement);
        assert!(error.message.contains("nested in each other"), "{error}");
    }
}
