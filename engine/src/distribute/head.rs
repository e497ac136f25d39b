//! Keeping work off the coordinator.
//!
//! datafusion-distributed runs the head stage where the query was planned. Ours only merges and
//! relays: a head that scans, joins, sorts or groups goes to a worker as a stage of one task.

use std::sync::Arc;

use datafusion::common::internal_err;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion_distributed::{
    DistributedExec, DistributedLeafExec, NetworkBoundary, NetworkBoundaryExt, NetworkCoalesceExec,
    Stage,
};
use uuid::Uuid;

use crate::files::FileScanExec;
use crate::scan::SegmentScanExec;
use crate::shared_subplans::SharedRowsExec;

/// Whether a plan reads tables or files, so that workers have to take part.
pub(super) fn reads_data(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let is_data = |node: &Arc<dyn ExecutionPlan>| {
        Ok(node.is::<SegmentScanExec>()
            || node.is::<FileScanExec>()
            || node.is::<SharedRowsExec>()
            || node.is::<DistributedLeafExec>())
    };
    plan.exists(is_data).unwrap_or(true)
}

/// A plan whose head stage only merges and relays.
pub(super) fn relieve_head(
    plan: Arc<dyn ExecutionPlan>,
    collect_metrics: bool,
) -> Result<Arc<dyn ExecutionPlan>> {
    let head = match plan.downcast_ref::<DistributedExec>() {
        Some(distributed) => Arc::clone(distributed.children()[0]),
        None if reads_data(&plan) => plan,
        None => return Ok(plan),
    };
    let head = if stays(&head) { head } else { one_task_stage(head)? };
    Ok(Arc::new(DistributedExec::new(head).with_metrics_collection(collect_metrics)))
}

/// Whether every node above the first boundaries is cheap enough for the coordinator.
fn stays(node: &Arc<dyn ExecutionPlan>) -> bool {
    if node.is_network_boundary() {
        return true;
    }
    let cheap = node.is::<CoalescePartitionsExec>()
        || node.is::<SortPreservingMergeExec>()
        || node.is::<ProjectionExec>()
        || node.is::<FilterExec>()
        || node.is::<GlobalLimitExec>()
        || node.is::<LocalLimitExec>()
        || node.is::<CooperativeExec>()
        || node
            .downcast_ref::<AggregateExec>()
            .is_some_and(|aggregate| aggregate.group_expr().is_empty());
    cheap && !node.children().is_empty() && node.children().into_iter().all(stays)
}

/// Makes `head` a stage of one task, below a boundary that the coordinator reads.
fn one_task_stage(head: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let head: Arc<dyn ExecutionPlan> = match head.output_partitioning().partition_count() {
        1 => head,
        _ => Arc::new(CoalescePartitionsExec::new(head)),
    };
    let (query_id, stages) = stage_ids(&head)?;
    let boundary = NetworkCoalesceExec::try_new(head, 1, 1)?;
    let Stage::Local(mut stage) = boundary.input_stage().clone() else {
        return internal_err!("a new boundary has a remote stage");
    };
    stage.query_id = query_id;
    stage.num = stages + 1;
    let boundary = boundary.with_input_stage(Stage::Local(stage))?;
    // EXPLAIN looks for stages below nodes and would overlook a boundary on top; with one partition
    // this node only hands on.
    Ok(Arc::new(CoalescePartitionsExec::new(boundary)))
}

/// The query id of a plan's stages, a new one when it has none, and the largest stage number.
fn stage_ids(plan: &Arc<dyn ExecutionPlan>) -> Result<(Uuid, usize)> {
    let (mut query_id, mut largest) = (None, 0);
    plan.apply(|node| {
        if let Some(boundary) = node.as_network_boundary() {
            query_id = Some(boundary.input_stage().query_id());
            largest = largest.max(boundary.input_stage().num());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok((query_id.unwrap_or_else(Uuid::new_v4), largest))
}
