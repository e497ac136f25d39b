//! Queries of one task on a worker of this process: run there and then.
//!
//! A small table lies with one worker, and a query of it is a stage of one task below a head that
//! hands rows on. Where that worker is in the coordinator's own process, the stage needs no
//! message: it runs in the worker's session, with the worker's memory and chunks, and what would
//! have set it up (encoding, decoding, a session, two streams) takes longer than a small query.
//!
//! What is measured goes the long way, as metrics are those of tasks.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion_distributed::{
    DistributedConfig, DistributedExec, DistributedLeafExec, NetworkBoundaryExt,
};

use super::Topology;
use super::leaves::worker_of_task;
use crate::channels::{Channels, in_own_task};
use crate::late_builds::late_builds;
use crate::session::FragmentOptions;
use crate::window_memory::count_windows;

/// Starts a plan that [`plan_distributed`](super::plan_distributed) made.
///
/// # Errors
/// What the plan's nodes say.
pub fn start(
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    channels: &Channels,
) -> Result<SendableRecordBatchStream> {
    let Some(theirs) = worker_of_one_task(&plan, &context, channels)? else {
        return execute_stream(plan, context);
    };
    let rows = execute_stream(in_one_piece(plan)?, theirs)?;
    Ok(Box::pin(RecordBatchStreamAdapter::new(rows.schema(), in_own_task(rows))))
}

/// The session of the worker that runs all of a plan's only task, if it is in this process.
fn worker_of_one_task(
    plan: &Arc<dyn ExecutionPlan>,
    context: &Arc<TaskContext>,
    channels: &Channels,
) -> Result<Option<Arc<TaskContext>>> {
    let config = context.session_config();
    let (Some(topology), true) = (config.get_extension::<Topology>(), plan.is::<DistributedExec>())
    else {
        return Ok(None);
    };
    if DistributedConfig::from_session_config(config)?.collect_metrics {
        return Ok(None);
    }
    let Some(stage) = only_stage(plan)? else { return Ok(None) };
    let options = FragmentOptions::of(config.options());
    let worker = worker_of_task(&stage, &topology, &options)?;
    let local = topology.url_of_task(worker).and_then(|url| channels.local(url));
    let Some(sessions) = local else { return Ok(None) };
    sessions.own_context(options).map(Some)
}

/// The plan of the only stage below the head, if that is one task.
fn only_stage(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let (mut stages, mut only) = (0, None);
    plan.apply(|node| {
        if let Some(boundary) = node.as_network_boundary() {
            stages += 1;
            let stage = boundary.input_stage();
            only = stage.local_plan().filter(|_| stage.task_count() == 1).cloned();
        }
        Ok(if stages > 1 { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(only.filter(|_| stages == 1))
}

/// A plan of one task without the boundary between it and the head.
fn in_one_piece(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let whole = plan.transform_up(|node| {
        if let Some(leaf) = node.downcast_ref::<DistributedLeafExec>() {
            let only = leaf.variants().first().unwrap_or(leaf.original());
            return Ok(Transformed::yes(Arc::clone(only)));
        }
        let is_joint = node.is::<DistributedExec>() || node.is_network_boundary();
        match node.children().first() {
            Some(child) if is_joint => Ok(Transformed::yes(Arc::clone(child))),
            _ => Ok(Transformed::no(node)),
        }
    });
    late_builds(count_windows(whole.data()?)?)
}
