//! Joins whose build side is limited: `(SELECT ... LIMIT 5) x JOIN y`.
//!
//! datafusion-distributed broadcasts what is below the build side's merge, and leaves the merge,
//! with its limit, in every task of the join: each would take its own first rows (`check` refuses
//! that). Below another node the limited merge is a plan like any other, and is broadcast whole.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PartitionMode,
};
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};

/// Puts a node that does nothing else between such a join and its build side.
#[derive(Debug, Default)]
pub(crate) struct LimitedBuildSides;

impl PhysicalOptimizerRule for LimitedBuildSides {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let mut children: Vec<_> = node.children().into_iter().cloned().collect();
            if !collects_left(&node) || !is_limited_merge(&children[0]) {
                return Ok(Transformed::no(node));
            }
            children[0] = Arc::new(CooperativeExec::new(Arc::clone(&children[0])));
            let recompute = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
            Ok(Transformed::yes(node.replace_children(children, recompute)?))
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "limited_build_sides"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn collects_left(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.is::<NestedLoopJoinExec>()
        || node.is::<CrossJoinExec>()
        || node
            .downcast_ref::<HashJoinExec>()
            .is_some_and(|join| *join.partition_mode() == PartitionMode::CollectLeft)
}

fn is_limited_merge(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.is::<CoalescePartitionsExec>() && node.fetch().is_some()
}
