//! What is known of rows below GROUPING SETS, ROLLUP and CUBE, and not above.
//!
//! A key that is constant or equal to another is NULL in the sets that leave it out. DataFusion says
//! of the groups what it knows of the rows, and drops sorts that are needed: `WHERE k = 1 GROUP BY
//! ROLLUP (k) ORDER BY k` (`sql-tests/upstream/order-of-grouping-sets.md`). So while rules look at the
//! plan, a node stands above such an aggregate that knows nothing of its rows.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::{ExecutionPlan, PlanProperties};

use crate::pass_through::PassThrough;

const NODE: &str = "UnknownGroups";

/// The first rule: puts the nodes in.
#[derive(Debug)]
pub(crate) struct ForgetGroups;

/// The last rule: takes them out again.
#[derive(Debug)]
pub(crate) struct RememberGroups;

impl PhysicalOptimizerRule for ForgetGroups {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let has_sets = |aggregate: &AggregateExec| aggregate.group_expr().has_grouping_set();
            match node.downcast_ref::<AggregateExec>().is_some_and(has_sets) {
                true => {
                    Ok(Transformed::yes(Arc::new(PassThrough::saying(NODE, node, of_no_order))))
                }
                false => Ok(Transformed::no(node)),
            }
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "forget_groups"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

impl PhysicalOptimizerRule for RememberGroups {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        PassThrough::removed(NODE, plan)
    }

    fn name(&self) -> &'static str {
        "remember_groups"
    }

    fn schema_check(&self) -> bool {
        true
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
