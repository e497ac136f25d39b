//! Which plan nodes a worker runs. A plan is remote code: anything that reads or writes files or
//! URLs by itself is refused by name, and so is every node not listed here (RULES 29, FAULTS A5).
//!
//! datafusion-distributed gives a hook between decoding a plan and registering it, none before
//! decoding. Decoding opens nothing: the worker's runtime has no object store (`runtime`).

use std::sync::Arc;

use datafusion::catalog::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::common::plan_err;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::physical_plan::ExecutionPlan;

/// Names of nodes that only compute, merge and exchange, and our own leaves and sink.
const ALLOWED: [&str; 36] = [
    "AggregateExec",
    "AsyncFuncExec",
    "BoundedWindowAggExec",
    "BroadcastExec",
    "BufferExec",
    "CoalesceBatchesExec",
    "CoalescePartitionsExec",
    "CooperativeExec",
    "CrossJoinExec",
    "DistributedLeafExec",
    "EmptyExec",
    "FileScanExec",
    "FilterExec",
    "GlobalLimitExec",
    "HashJoinExec",
    "InterleaveExec",
    "LazyMemoryExec",
    "LocalLimitExec",
    "MetricsWrapperExec",
    "NestedLoopJoinExec",
    "NetworkBroadcastExec",
    "NetworkCoalesceExec",
    "NetworkShuffleExec",
    "PartialSortExec",
    "PlaceholderRowExec",
    "ProjectionExec",
    "RepartitionExec",
    "SegmentScanExec",
    "SliceAppendExec",
    "SortExec",
    "SortMergeJoinExec",
    "SortPreservingMergeExec",
    "SymmetricHashJoinExec",
    "UnionExec",
    "UnnestExec",
    "WindowAggExec",
];

/// Refuses a plan with a node that a worker does not run.
pub fn check_allowed(plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    plan.apply(|node| {
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
