//! What datafusion-distributed asks about our leaves: how many tasks, which part each, where.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use datafusion::common::internal_datafusion_err;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::config::SessionConfig;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_distributed::{
    DesiredTaskCountEvent, DesiredTaskCountEventResponse, DistributedLeafExec, NetworkBoundaryExt,
    RouteTasksEvent, RouteTasksEventResponse, ScaleUpLeafNodeEvent, ScaleUpLeafNodeEventResponse,
};

use super::Topology;
use super::topology::busiest;
use crate::files::FileScanExec;
use crate::scan::{ScanSegment, SegmentScanExec};
use crate::session::FragmentOptions;
use crate::shared_subplans::SharedRowsExec;

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
    if let Some(rows) = event.plan.downcast_ref::<SharedRowsExec>() {
        return Some(topology(event.session_config).map(|topology| {
            let wanted = if rows.is_small() { 1 } else { topology.worker_count().max(1) };
            DesiredTaskCountEventResponse::desired(wanted)
        }));
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

/// One task, or all workers when several hold enough of the table, or all of them have all of more.
fn scan_tasks(scan: &SegmentScanExec, config: &SessionConfig) -> Result<usize> {
    let topology = topology(config)?;
    if scan.is_held_by_all() {
        let row_groups = scan.segments().iter().map(|segment| segment.row_groups.len()).sum();
        let tasks = topology.tasks_for_held(scan.assigned_rows(), row_groups);
        if tasks == 1 || scan.can_be_shared_out() {
            return Ok(tasks);
        }
    }
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
    } else if let Some(rows) = event.plan.downcast_ref::<SharedRowsExec>() {
        Ok(variants(rows.divided(event.task_count, partitions)))
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
    if tasks > 1 && scan.is_held_by_all() && scan.can_be_shared_out() {
        return Ok(variants(scan.shared_out(tasks, partitions)));
    }
    let task_of = |segment: &ScanSegment| topology.task_of(segment.slice, &segment.holders, tasks);
    if let Some(unreachable) = scan.segments().iter().find_map(|segment| task_of(segment).err()) {
        return Err(unreachable);
    }
    Ok(variants(scan.divided(tasks, partitions, |segment| task_of(segment).ok())))
}

/// Leaves as plans.
fn variants<T: ExecutionPlan + 'static>(leaves: Vec<T>) -> Vec<Arc<dyn ExecutionPlan>> {
    leaves.into_iter().map(|leaf| Arc::new(leaf) as Arc<dyn ExecutionPlan>).collect()
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

/// Task t of a stage runs on worker t; a stage of one task runs where most of its rows are, on one worker for the same
/// tables if every worker has all of them, and on any if it reads no table.
pub fn route_tasks(event: RouteTasksEvent<'_>) -> Option<Result<RouteTasksEventResponse>> {
    let route = || {
        let topology = topology(event.task_ctx.session_config())?;
        places_of_tasks(event.plan, event.task_count, &topology, event.task_ctx.session_config())?
            .map(|worker| {
                topology.url_of_task(worker).cloned().ok_or_else(|| {
                    internal_datafusion_err!("a stage has more tasks than there are workers")
                })
            })
            .collect::<Result<Vec<_>>>()
            .map(RouteTasksEventResponse::new)
    };
    Some(route())
}

/// The workers that run the tasks of a stage, by their place among all of them.
fn places_of_tasks(
    plan: &Arc<dyn ExecutionPlan>,
    tasks: usize,
    topology: &Topology,
    config: &SessionConfig,
) -> Result<Range<usize>> {
    let first = match tasks {
        1 => worker_of_task(plan, topology, &FragmentOptions::of(config.options()))?,
        _ => 0,
    };
    Ok(first..first + tasks)
}

/// The ids of the workers that run the tasks of a stage in a context.
///
/// # Errors
/// A stage whose rows are with no worker that can be reached.
pub(super) fn workers_of_stage(
    plan: &Arc<dyn ExecutionPlan>,
    tasks: usize,
    context: &TaskContext,
) -> Result<Vec<String>> {
    let topology = topology(context.session_config())?;
    let places = places_of_tasks(plan, tasks, &topology, context.session_config())?;
    Ok(places.filter_map(|place| topology.worker_at(place)).map(|id| id.to_string()).collect())
}

/// The worker that runs the only task of a stage of a query.
pub(super) fn worker_of_task(
    plan: &Arc<dyn ExecutionPlan>,
    topology: &Topology,
    query: &FragmentOptions,
) -> Result<usize> {
    match reads_tables(plan) {
        true => busiest_reader(plan, topology),
        false => Ok(any_worker(query, topology)),
    }
}

/// Whether a stage itself reads what lies with workers.
fn reads_tables(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let children = plan.children();
    table_scan(plan).is_some()
        || !plan.is_network_boundary() && children.iter().any(|child| reads_tables(child))
}

/// The scan of a table that a leaf is, as it is or divided into tasks: a query of one stage, which is of one task, has
/// its scans as they are.
fn table_scan(node: &Arc<dyn ExecutionPlan>) -> Option<&SegmentScanExec> {
    let leaf = node.downcast_ref::<DistributedLeafExec>().map_or(node, |leaf| leaf.original());
    leaf.downcast_ref()
}

/// A worker for what any may do: another one for each query, so that queries at once do not meet at one.
fn any_worker(query: &FragmentOptions, topology: &Topology) -> usize {
    worker_for(&query.query, topology.worker_count())
}

/// The worker with most of the rows that a stage reads. What every worker has decides nothing: where there is no more,
/// it is one worker for all stages of the same tables, as it keeps their columns in memory.
fn busiest_reader(plan: &Arc<dyn ExecutionPlan>, topology: &Topology) -> Result<usize> {
    let workers = topology.worker_count().max(1);
    let mut rows = vec![0u64; workers];
    let mut held_by_all = BTreeSet::new();
    plan.apply(|node| {
        if let Some(scan) = table_scan(node) {
            if scan.is_held_by_all() {
                held_by_all.insert(scan.table().table);
                return Ok(TreeNodeRecursion::Continue);
            }
            for segment in scan.segments() {
                rows[topology.reader_of(segment.slice, &segment.holders)?] += segment.rows.max(1);
            }
        }
        // What is below another stage's exchange is read there.
        Ok(match node.is_network_boundary() {
            true => TreeNodeRecursion::Jump,
            false => TreeNodeRecursion::Continue,
        })
    })?;
    if rows.iter().all(|rows| *rows == 0) && !held_by_all.is_empty() {
        return Ok(worker_for(&held_by_all, workers));
    }
    Ok(busiest(&rows))
}

/// One of some workers, always the same for what has the same hash.
fn worker_for(what: &impl Hash, workers: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    usize::try_from(hasher.finish() % workers.max(1) as u64).unwrap_or(0)
}
