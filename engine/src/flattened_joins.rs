//! Conditions of inner joins that survive when the joins are put in another order.
//!
//! DataFusion takes a tree of inner joins apart and joins its leaves again, pair by pair, by the keys
//! that fit. A key with columns of several leaves on one side, as in `a JOIN (b CROSS JOIN c) ON a.k =
//! b.i + c.u`, fits no pair and is lost (`sql-tests/upstream/keys-of-several-tables.md`). As a filter of its
//! join such a condition is kept.

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, Join, LogicalPlan};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use crate::logical_rules::LogicalRule;

/// The name of DataFusion's rule.
const FLATTEN_JOINS: &str = "eliminate_cross_join";

/// Makes filters of such keys before the rule runs.
pub(crate) fn keep_conditions(rules: &mut [LogicalRule]) {
    for rule in rules {
        if rule.name() == FLATTEN_JOINS {
            *rule = Arc::new(KeptConditions(Arc::clone(rule)));
        }
    }
}

/// The rule.
#[derive(Debug)]
struct KeptConditions(LogicalRule);

impl OptimizerRule for KeptConditions {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let plan = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Join(join) if join.on.iter().any(|key| !is_of_leaves(key, &join)) => {
                Ok(Transformed::yes(LogicalPlan::Join(with_filters(join))))
            }
            other => Ok(Transformed::no(other)),
        })?;
        let is_changed = plan.transformed;
        let plan = self.0.rewrite(plan.data, config)?;
        Ok(Transformed { transformed: plan.transformed || is_changed, ..plan })
    }
}

fn with_filters(mut join: Join) -> Join {
    let (kept, others): (Vec<_>, Vec<_>) =
        std::mem::take(&mut join.on).into_iter().partition(|key| is_of_leaves(key, &join));
    join.on = kept;
    let filters = others.into_iter().map(|(left, right)| left.eq(right));
    join.filter = filters.chain(join.filter.take()).reduce(Expr::and);
    join
}

/// Whether each side of a key has columns of one leaf alone; true of joins that are not taken apart.
fn is_of_leaves((left, right): &(Expr, Expr), join: &Join) -> bool {
    join.join_type != JoinType::Inner
        || is_of_leaf(left, &join.left) && is_of_leaf(right, &join.right)
        || is_of_leaf(left, &join.right) && is_of_leaf(right, &join.left)
}

fn is_of_leaf(expr: &Expr, plan: &LogicalPlan) -> bool {
    let columns = expr.column_refs();
    let has_all = |plan: &LogicalPlan| {
        !columns.is_empty() && columns.iter().all(|column| plan.schema().has_column(column))
    };
    let mut leaf = plan;
    while let LogicalPlan::Join(join) = leaf
        && join.join_type == JoinType::Inner
    {
        leaf = match (has_all(&join.left), has_all(&join.right)) {
            (true, _) => &join.left,
            (_, true) => &join.right,
            _ => return false,
        };
    }
    has_all(leaf)
}
