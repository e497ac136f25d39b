//! Filters that choose columns, while projections are pushed down.
//!
//! A `FilterExec` may hand on some of its input's columns only. DataFusion's rule that pushes a projection
//! below such a filter takes the projection's columns, which count those that are handed on, for columns of
//! the filter's input. Where the names differ it fails, and where another column of the same name is in that
//! place, as in a join of two tables with the same columns, that one is the answer
//! (`sql-tests/upstream/names-of-pushed-projections.md`).
//!
//! So the rule sees filters that hand on everything, each below a projection that chooses; it makes one of the
//! two again.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

use crate::physical_rules::Rule;

/// The name of DataFusion's rule.
pub(crate) const PROJECTION_PUSHDOWN: &str = "ProjectionPushdown";

/// That rule, kept from filters that choose columns.
#[derive(Debug)]
pub(crate) struct FilterColumns(pub(crate) Rule);

impl PhysicalOptimizerRule for FilterColumns {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = plan.transform_up(with_projection).data()?;
        self.0.optimize(plan, config)
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

/// A filter that chooses columns as a projection over one that does not.
fn with_projection(node: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let Some(filter) = node.downcast_ref::<FilterExec>() else { return Ok(Transformed::no(node)) };
    let Some(chosen) = filter.projection() else { return Ok(Transformed::no(node)) };
    let schema = filter.input().schema();
    let columns: Vec<_> = chosen
        .iter()
        .map(|&index| {
            let name = schema.field(index).name();
            ProjectionExpr { expr: Arc::new(Column::new(name, index)), alias: name.clone() }
        })
        .collect();
    let whole = FilterExecBuilder::from(filter).apply_projection(None)?.build()?;
    let projection = ProjectionExec::try_new(columns, Arc::new(whole))?;
    Ok(Transformed::yes(Arc::new(projection)))
}
