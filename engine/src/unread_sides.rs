//! Joins that would wait for partitions that nobody reads.
//!
//! A hash join with one build side for all partitions filters its probe side by the build side's bounds, and
//! waits until every partition has reported that it is there. A partition of a join above that has
//! no rows on its own build side ends without reading its probe side, if the join has no rows then, and where no
//! exchange is between the two, that partition of the lower join never reports: the others wait forever
//! (`sql-tests/upstream/hang-of-dynamic-filters.md`).
//!
//! So while filters are pushed down, nothing passes below such a lower join, which then has no filter and
//! waits for nobody.
//!
//! Invariant: the plan is the same otherwise; what is lost is pruning.

use std::sync::Arc;

use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};

use crate::pass_through::PassThrough;
use crate::physical_rules::Rule;

/// The name of DataFusion's rule that gives joins these filters.
pub(crate) const FILTER_PUSHDOWN_POST: &str = "FilterPushdown(Post)";
/// The node that lets no filter through.
const BARRIER: &str = "UnreadSide";

/// That rule, kept from joins that would wait.
#[derive(Debug)]
pub(crate) struct UnreadSides(pub(crate) Rule);

impl PhysicalOptimizerRule for UnreadSides {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = with_barriers(plan, false)?;
        let plan = self.0.optimize(plan, config)?;
        PassThrough::removed(BARRIER, plan)
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

/// A plan of which some partitions may not be read, while others are.
fn with_barriers(node: Arc<dyn ExecutionPlan>, is_unread: bool) -> Result<Arc<dyn ExecutionPlan>> {
    let mut is_changed = false;
    let mut children = Vec::new();
    for (index, child) in node.children().into_iter().enumerate() {
        let below = with_barriers(Arc::clone(child), may_be_unread(&node, index, is_unread))?;
        let below = match is_unread && index == 1 && waits(&node) {
            true => Arc::new(PassThrough::new(BARRIER, below)),
            false => below,
        };
        is_changed |= !Arc::ptr_eq(&below, child);
        children.push(below);
    }
    if !is_changed {
        return Ok(node);
    }
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    node.replace_children(children, options)
}

/// Whether some partitions of a node's child may not be read, while others are.
fn may_be_unread(node: &Arc<dyn ExecutionPlan>, index: usize, is_unread: bool) -> bool {
    // Who reads one partition of these reads all of what is below.
    let is_exchange = node.is::<RepartitionExec>()
        || node.is::<CoalescePartitionsExec>()
        || node.is::<SortPreservingMergeExec>();
    let is_left_out = index == 1
        && node.downcast_ref::<HashJoinExec>().is_some_and(|join| {
            *join.partition_mode() == PartitionMode::Partitioned
                && join.join_type().empty_build_side_produces_empty_result()
        });
    !is_exchange && (is_unread || is_left_out)
}

/// Whether a node is a join of which each partition waits for all.
fn waits(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.downcast_ref::<HashJoinExec>()
        .is_some_and(|join| *join.partition_mode() == PartitionMode::CollectLeft)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::common::tree_node::TreeNode;
    use datafusion::common::{JoinType, NullEquality};
    use datafusion::physical_expr::expressions::col;
    use datafusion::physical_plan::empty::EmptyExec;

    use super::*;

    fn join(
        kind: JoinType,
        mode: PartitionMode,
        right: Arc<dyn ExecutionPlan>,
    ) -> Arc<dyn ExecutionPlan> {
        let left = leaf();
        let on = vec![(col("k", &left.schema()).unwrap(), col("k", &right.schema()).unwrap())];
        let equality = NullEquality::NullEqualsNothing;
        let join = HashJoinExec::try_new(left, right, on, None, &kind, None, mode, equality, false);
        Arc::new(join.unwrap())
    }

    fn leaf() -> Arc<dyn ExecutionPlan> {
        let schema = Schema::new(vec![Field::new("k", DataType::Int64, false)]);
        Arc::new(EmptyExec::new(Arc::new(schema)))
    }

    /// Whether a join with one build side has no filter where it is the probe side of a join of that type.
    fn is_kept_below(kind: JoinType) -> bool {
        let lower = join(JoinType::RightSemi, PartitionMode::CollectLeft, leaf());
        let plan = with_barriers(join(kind, PartitionMode::Partitioned, lower), false).unwrap();
        plan.exists(|node| Ok(node.name() == BARRIER)).unwrap()
    }

    #[test]
    fn filters_are_kept_from_joins_below_those_that_may_leave_their_probe_side_unread() {
        for kind in [JoinType::Inner, JoinType::Left, JoinType::LeftSemi, JoinType::RightSemi] {
            assert!(is_kept_below(kind), "{kind}");
        }
        for kind in [JoinType::Right, JoinType::RightAnti, JoinType::RightMark, JoinType::Full] {
            assert!(!is_kept_below(kind), "{kind}");
        }
    }
}
