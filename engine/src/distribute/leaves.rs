//! What datafusion-distributed asks about our leaves: how many tasks, which part each, where.

use std::sync::Arc;

use datafusion::common::internal_datafusion_err;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::config::SessionConfig;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_distributed::{
    DesiredTaskCountEvent, DesiredTaskCountEventResponse, DistributedLeafExec, RouteTasksEvent,
    RouteTasksEventResponse, ScaleUpLeafNodeEvent, ScaleUpLeafNodeEventResponse,
};

use super::Topology;
use super::topology::busiest;
use crate::files::FileScanExec;
use crate::scan::{ScanSegment, SegmentScanExec};

/// Rows of a file that make a task of their own worth its set-up.
const FILE_ROWS_PER_TASK: u64 = 65_536;

fn topology(config: &SessionConfig) -> Result<Arc<Topology>> {
    config
        .get_extension::<Topology>()
        .ok_or_else(|| internal_datafusion_err!("a distributed session has no topology"))
}

/// How many tasks a leaf wants: one for each worker with a part of it.
pub fn desired_tasks(
    event: DesiredTaskCountEvent<'_>,
) -> Option<Result<DesiredTaskCountEventResponse>> {
    if let Some(scan) = event.plan.downcast_ref::<SegmentScanExec>() {
        return Some(
            scan_tasks(scan, event.session_config).map(DesiredTaskCountEventResponse::desired),
        );
    }
    let scan = event.plan.downcast_ref::<FileScanExec>()?;
    Some(topology(event.session_config).map(|topology| {
        let wanted = match scan.scan().rows() {
            Some(rows) => usize::try_from(rows.div_ceil(FILE_ROWS_PER_TASK)).unwrap_or(usize::MAX),
            None => scan.scan().files.len(),
        };
        DesiredTaskCountEventResponse::desired(wanted.clamp(1, topology.worker_count().max(1)))
    }))
}

/// One task, or all workers when several hold enough of the table.
fn scan_tasks(scan: &SegmentScanExec, config: &SessionConfig) -> Result<usize> {
    let topology = topology(config)?;
    let segments = scan
        .segments()
        .iter()
        .map(|segment| {
            Ok((topology.reader_of(segment.slice, &segment.holders)?, segment.rows.max(1)))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(topology.tasks_for(&segments, scan.schema().fields().len()))
}

/// Splits a leaf into one variant per task. Every row group is in exactly one of them.
pub fn scale_up_leaf(
    event: ScaleUpLeafNodeEvent<'_>,
) -> Option<Result<ScaleUpLeafNodeEventResponse>> {
    let partitions = event.session_config.target_partitions();
    let variants = if let Some(scan) = event.plan.downcast_ref::<SegmentScanExec>() {
        scan_variants(scan, event.task_count, partitions, event.session_config)
    } else {
        let scan = event.plan.downcast_ref::<FileScanExec>()?;
        file_variants(scan, event.task_count, partitions)
    };
    Some(variants.and_then(|variants| {
        let leaf = DistributedLeafExec::try_new(Arc::clone(event.plan), variants)?;
        Ok(ScaleUpLeafNodeEventResponse::new(Arc::new(leaf)))
    }))
}

fn scan_variants(
    scan: &SegmentScanExec,
    tasks: usize,
    partitions: usize,
    config: &SessionConfig,
) -> Result<Vec<Arc<dyn ExecutionPlan>>> {
    let topology = topology(config)?;
    let task_of = |segment: &ScanSegment| topology.task_of(segment.slice, &segment.holders, tasks);
    if let Some(unreachable) = scan.segments().iter().find_map(|segment| task_of(segment).err()) {
        return Err(unreachable);
    }
    let variants = scan.divided(tasks, partitions, |segment| task_of(segment).ok());
    Ok(variants.into_iter().map(|variant| Arc::new(variant) as Arc<dyn ExecutionPlan>).collect())
}

fn file_variants(
    scan: &FileScanExec,
    tasks: usize,
    partitions: usize,
) -> Result<Vec<Arc<dyn ExecutionPlan>>> {
    let units = scan.scan().split(tasks, partitions);
    let variant = |units| Ok(Arc::new(scan.with_units(units)?) as Arc<dyn ExecutionPlan>);
    units.into_iter().map(variant).collect()
}

/// Task t of a stage runs on worker t; a stage of one task runs where most of its rows are.
pub fn route_tasks(event: RouteTasksEvent<'_>) -> Option<Result<RouteTasksEventResponse>> {
    let route = || {
        let topology = topology(event.task_ctx.session_config())?;
        let first = match event.task_count {
            1 => busiest_reader(event.plan, &topology)?,
            _ => 0,
        };
        (first..first + event.task_count)
            .map(|task| {
                topology.url_of_task(task).cloned().ok_or_else(|| {
                    internal_datafusion_err!("a stage has more tasks than there are workers")
                })
            })
            .collect::<Result<Vec<_>>>()
            .map(RouteTasksEventResponse::new)
    };
    Some(route())
}

/// The worker with most of the rows that a stage reads.
pub(super) fn busiest_reader(plan: &Arc<dyn ExecutionPlan>, topology: &Topology) -> Result<usize> {
    let mut rows = vec![0u64; topology.worker_count().max(1)];
    plan.apply(|node| {
        let leaf = node.downcast_ref::<DistributedLeafExec>().map_or(node, |leaf| leaf.original());
        if let Some(scan) = leaf.downcast_ref::<SegmentScanExec>() {
            for segment in scan.segments() {
                rows[topology.reader_of(segment.slice, &segment.holders)?] += segment.rows.max(1);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(busiest(&rows))
}
