//! Filters without columns stay above aggregates that have a row for no rows.
//!
//! `SELECT count(*) FROM t HAVING NULL` has no rows. DataFusion pushes a predicate below an aggregate
//! when all its columns are keys, and a constant has none: the aggregate then makes its row from
//! nothing (`sql-tests/upstream/constant-below-aggregate.md`).

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Aggregate, Expr, Filter, GroupingSet, LogicalPlan};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

/// The name of DataFusion's rule.
pub(crate) const PUSH_DOWN_FILTER: &str = "push_down_filter";

/// DataFusion's rule that pushes filters down, kept from pushing these.
#[derive(Debug)]
pub(crate) struct KeepConstantFilters(pub(crate) Arc<dyn OptimizerRule + Send + Sync>);

impl OptimizerRule for KeepConstantFilters {
    fn name(&self) -> &str {
        PUSH_DOWN_FILTER
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let Some((predicates, aggregate)) = filtered_total(&plan) else {
            return self.0.rewrite(plan, config);
        };
        let (kept, others): (Vec<_>, Vec<_>) =
            predicates.into_iter().partition(|predicate| !predicate.any_column_refs());
        let Some(kept) = conjunction(kept) else { return self.0.rewrite(plan, config) };
        let below = match conjunction(others) {
            None => Transformed::no(aggregate.clone()),
            Some(others) => {
                let filter = Filter::try_new(others, Arc::new(aggregate.clone()))?;
                self.0.rewrite(LogicalPlan::Filter(filter), config)?
            }
        };
        if !below.transformed {
            return Ok(Transformed::no(plan));
        }
        let filter = Filter::try_new(kept, Arc::new(below.data))?;
        Ok(Transformed::yes(LogicalPlan::Filter(filter)))
    }
}

/// The predicates of filters on top of each other, and the aggregate below them, if that has a row
/// for no rows.
fn filtered_total(plan: &LogicalPlan) -> Option<(Vec<Expr>, &LogicalPlan)> {
    let mut predicates = Vec::new();
    let mut below = plan;
    while let LogicalPlan::Filter(filter) = below {
        predicates.extend(split_conjunction_owned(filter.predicate.clone()));
        below = &filter.input;
    }
    match below {
        LogicalPlan::Aggregate(aggregate) if has_total(aggregate) => Some((predicates, below)),
        _ => None,
    }
}

fn has_total(aggregate: &Aggregate) -> bool {
    match aggregate.group_expr.as_slice() {
        [] => true,
        [Expr::GroupingSet(GroupingSet::Rollup(_) | GroupingSet::Cube(_))] => true,
        [Expr::GroupingSet(GroupingSet::GroupingSets(sets))] => sets.iter().any(Vec::is_empty),
        _ => false,
    }
}
