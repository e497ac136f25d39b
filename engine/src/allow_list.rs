//! Which plan nodes a worker runs. A plan is remote code: anything that reads or writes files or
//! URLs by itself is refused by name, and so is every node not listed here (RULES 29, FAULTS A5).
//!
//! This is the second look, at decoded nodes, in the hook that datafusion-distributed has between
//! decoding a plan and registering it; [`plan_gate`](crate::plan_gate) has had the first, at the
//! bytes. Plans are found only as children of plans: expressions hold none, and the nodes that
//! hide some from `children` (`DistributedLeafExec`) have no encoding and never arrive.

use std::sync::Arc;

use datafusion::catalog::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::common::plan_err;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use crate::fence::Fence;
use crate::plan_gate::PARTITIONS_MAX;
use crate::scan::SegmentScanExec;
use crate::write::SliceAppendExec;

/// Names of nodes that only compute, merge and exchange, and our own leaves and sink.
const ALLOWED: [&str; 38] = [
    "AggregateExec",
    "AsyncFuncExec",
    "BoundedWindowAggExec",
    "BroadcastExec",
    "BufferExec",
    "CoalesceBatchesExec",
    "CoalescePartitionsExec",
    "CooperativeExec",
    "CrossJoinExec",
    "EmptyExec",
    "FileScanExec",
    "FilterExec",
    "GlobalLimitExec",
    "HashJoinExec",
    "InterleaveExec",
    "LazyMemoryExec",
    "LocalLimitExec",
    "NestedLoopJoinExec",
    "NetworkBroadcastExec",
    "NetworkCoalesceExec",
    "NetworkShuffleExec",
    "PartialSortExec",
    "PlaceholderRowExec",
    "ProjectionExec",
    "RecursiveQueryExec",
    "RepartitionExec",
    "SegmentScanExec",
    "SharedRowsExec",
    "SliceAppendExec",
    "SortExec",
    "SortMergeJoinExec",
    "SortPreservingMergeExec",
    "SymmetricHashJoinExec",
    "UnionExec",
    "UnknownNullsExec",
    "UnnestExec",
    "WindowAggExec",
    "WorkTableExec",
];

/// Refuses a plan with a node that a worker does not run, or that was made for another cluster or
/// at an older epoch.
pub fn check_allowed(plan: &Arc<dyn ExecutionPlan>, fence: &Fence) -> Result<()> {
    plan.apply(|node| {
        check_fence(node, fence)?;
        let partitions = node.output_partitioning().partition_count();
        if partitions as u64 > PARTITIONS_MAX {
            return plan_err!("plan node {} has {partitions} partitions", node.name());
        }
        let in_memory = node.downcast_ref::<DataSourceExec>().is_some_and(|source| {
            source.data_source().downcast_ref::<MemorySourceConfig>().is_some()
        });
        // Some nodes add their mode to their name: "SortExec(TopK)".
        let name = node.name().split('(').next().unwrap_or_default();
        if in_memory || ALLOWED.contains(&name) {
            return Ok(TreeNodeRecursion::Continue);
        }
        plan_err!("plan node {} is not allowed on a worker", node.name())
    })
    .map(|_| ())
}

/// A returning worker serves no stale plan, and none writes for an old coordinator (RULES 15).
fn check_fence(node: &Arc<dyn ExecutionPlan>, fence: &Fence) -> Result<()> {
    if let Some(scan) = node.downcast_ref::<SegmentScanExec>() {
        fence.check_epoch(scan.table().epoch)?;
    }
    if let Some(append) = node.downcast_ref::<SliceAppendExec>() {
        fence.check_cluster(append.target().cluster)?;
        fence.check_epoch(append.target().epoch)?;
    }
    Ok(())
}
