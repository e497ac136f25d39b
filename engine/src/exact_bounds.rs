//! `min` and `max` that are answered from statistics, below casts.
//!
//! DataFusion casts the least and the largest value and takes the results for the least and the largest
//! of the cast values. Of 9 and 10 they are, as BIGINT; as VARCHAR `'10'` is less than `'9'`
//! (`sql-tests/upstream/bounds-of-casts.md`). A plan with a cast that may change the order of values
//! computes its aggregates.

use std::sync::Arc;

use datafusion::common::tree_node::TreeNode;
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::CastExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;

use crate::physical_rules::Rule;
use crate::unestimated::keeps_ranges;

/// The name of DataFusion's rule.
pub(crate) const AGGREGATE_STATISTICS: &str = "aggregate_statistics";

/// That rule, kept from plans with casts.
#[derive(Debug)]
pub(crate) struct ExactBounds(pub(crate) Rule);

impl PhysicalOptimizerRule for ExactBounds {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match plan.exists(computes_cast)? {
            true => Ok(plan),
            // It only makes plans faster, and trips over two columns of which one has gone: `min(1)
            // FILTER (WHERE c IS NOT NULL)` over `SELECT min(k) AS c`.
            false => Ok(self.0.optimize(Arc::clone(&plan), config).unwrap_or(plan)),
        }
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
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
