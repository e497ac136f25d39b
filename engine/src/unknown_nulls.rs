//! What is known of keys below GROUPING SETS, ROLLUP and CUBE, and not above.
//!
//! A key is NULL in the sets that leave it out. DataFusion says of the groups that what was constant
//! in the rows, or equal to something, still is, and drops sorts that are needed: `WHERE k = 1 GROUP
//! BY ROLLUP (k) ORDER BY k` (`sql-tests/upstream/order-of-grouping-sets.md`). So while it decides about
//! sorts, a node stands above such an aggregate that knows nothing of its rows.
//!
//! Not here: outer joins, which do the same to constants of the side that they fill
//! (`sql-tests/upstream/order-of-outer-joins.md`). That is open.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::{ExecutionPlan, PlanProperties};

use crate::pass_through::PassThrough;

/// The rule that adds and drops sorts and exchanges.
pub(crate) const REQUIREMENTS: &str = "EnsureRequirements";

const GROUPS: &str = "UnknownGroups";

/// That rule, told less.
#[derive(Debug)]
pub(crate) struct UnknownNulls(pub(crate) Arc<dyn PhysicalOptimizerRule + Send + Sync>);

impl PhysicalOptimizerRule for UnknownNulls {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = plan.transform_up(with_nodes).data()?;
        let plan = self.0.optimize(plan, config)?;
        PassThrough::removed(GROUPS, plan)
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

fn with_nodes(node: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let has_sets = |aggregate: &AggregateExec| aggregate.group_expr().has_grouping_set();
    match node.downcast_ref::<AggregateExec>().is_some_and(has_sets) {
        true => Ok(Transformed::yes(Arc::new(PassThrough::saying(GROUPS, node, of_no_order)))),
        false => Ok(Transformed::no(node)),
    }
}

fn of_no_order(input: &Arc<dyn ExecutionPlan>) -> Arc<PlanProperties> {
    let known = input.properties();
    Arc::new(PlanProperties::new(
        EquivalenceProperties::new(input.schema()),
        known.partitioning.clone(),
        known.emission_type,
        known.boundedness,
    ))
}
