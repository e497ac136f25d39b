//! Aggregates that are answered from statistics, and should not be.
//!
//! DataFusion casts the least and the largest value and takes the results for the least and the largest
//! of the cast values. Of 9 and 10 they are, as BIGINT; as VARCHAR `'10'` is less than `'9'`
//! (`sql-tests/upstream/bounds-of-casts.md`). A plan with a cast that may change the order of values
//! computes its aggregates.
//!
//! So does one in which an aggregate has a FILTER: looking for the first step of `min(c) FILTER (WHERE c >
//! 100)`, DataFusion passes it by and takes that of a subquery, `SELECT min(k) AS c`, whose least value is
//! then the answer (`sql-tests/upstream/statistics-past-filters.md`).
//!
//! And one that counts DISTINCT values: a constant column has one, also where it is NULL and where there are
//! no rows (`sql-tests/upstream/distinct-counts-of-constants.md`).

use std::sync::Arc;

use datafusion::common::tree_node::TreeNode;
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::CastExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::projection::ProjectionExec;

use crate::physical_rules::Rule;
use crate::unestimated::keeps_ranges;

/// The name of DataFusion's rule.
pub(crate) const AGGREGATE_STATISTICS: &str = "aggregate_statistics";

/// That rule, kept from plans with casts, with FILTER and with DISTINCT.
#[derive(Debug)]
pub(crate) struct ExactBounds(pub(crate) Rule);

impl PhysicalOptimizerRule for ExactBounds {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match plan.exists(|node| Ok(computes_cast(node)? || is_beyond_statistics(node)))? {
            true => Ok(plan),
            false => self.0.optimize(plan, config),
        }
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

/// Whether a node has an aggregate that statistics do not know.
fn is_beyond_statistics(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.downcast_ref::<AggregateExec>().is_some_and(|aggregate| {
        aggregate.filter_expr().iter().any(Option::is_some)
            || aggregate.aggr_expr().iter().any(|function| function.is_distinct())
    })
}

fn computes_cast(node: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let Some(projection) = node.downcast_ref::<ProjectionExec>() else { return Ok(false) };
    let schema = projection.input().schema();
    let is_cast = |node: &Arc<dyn PhysicalExpr>| {
        let Some(cast) = node.downcast_ref::<CastExpr>() else { return Ok(false) };
        Ok(!keeps_ranges(&cast.expr().data_type(&schema)?, cast.cast_type()))
    };
    for output in projection.expr() {
        if output.expr.exists(is_cast)? {
            return Ok(true);
        }
    }
    Ok(false)
}
