//! What the stages of a plan are and, once it ran with metrics, what their tasks did.
//!
//! A profile of a plan alone has estimates only. With metrics it says how far they were off, which task was the
//! busiest, how long each worker took, and what was spilled or came out of the column cache: `EXPLAIN ANALYZE` shows
//! it, and `sys.query_stages` keeps it. What in it deserves a second look is found by [`alerts`](super::alerts()).

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion_distributed::{
    DISTRIBUTED_DATAFUSION_TASK_ID_LABEL, DistributedExec, DistributedLeafExec,
    DistributedMetricsFormat, NetworkBoundaryExt, NetworkBroadcastExec, NetworkShuffleExec,
    rewrite_distributed_plan_with_metrics,
};
use serde::{Deserialize, Serialize};

use super::leaves::workers_of_stage;
use super::node_statistics::NodeStatistics;
use crate::scan::SegmentScanExec;

/// Operators and tables of a stage that are named.
const NAMES_MAX: usize = 50;
/// Workers of a stage that are named: those that took longest.
const WORKERS_MAX: usize = 16;
/// Who does what is in no stage of the workers'.
const COORDINATOR: &str = "coordinator";

/// One stage of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageProfile {
    /// The part of the statement whose plan it is of, as EXPLAIN calls it; none: the statement's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// Its number, as in EXPLAIN; 0 is what the coordinator does.
    pub stage: usize,
    /// Its tasks.
    pub tasks: usize,
    /// What its rows do at its end: `answer`, `gather`, `shuffle` or `broadcast`.
    pub exchange: String,
    /// The operators that do the work, from the last to the first.
    pub operators: String,
    /// The tables that it reads.
    pub tables: Vec<String>,
    /// Rows of all tables that its tasks were given to read.
    pub rows_assigned: u64,
    /// The most that one task was given.
    pub rows_assigned_max: u64,
    /// Rows that it was estimated to give.
    pub rows_estimated: Option<u64>,
    /// What was measured, if it was.
    pub measured: Option<Measured>,
}

/// What the tasks of a stage did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Rows that the stage gave.
    pub rows: u64,
    /// Bytes that the next stage received of it, as Arrow arrays.
    pub bytes: u64,
    /// Time of processors in operators, all tasks, in milliseconds.
    pub compute_ms: f64,
    /// The same of the busiest task.
    pub compute_ms_max: f64,
    /// How long the slowest task was there, from the start of its first operator to the end of its last, in
    /// milliseconds: what is more than its time of processors it waited for.
    #[serde(default)]
    pub wall_ms: f64,
    /// What its workers took, the slowest first; of many those that took longest.
    #[serde(default)]
    pub workers: Vec<WorkerTime>,
    /// Bytes that were spilled to disk.
    pub spilled_bytes: u64,
    /// Bytes that scans found in the column cache.
    pub cached_bytes: u64,
    /// Bytes that scans read of chunks of their own worker.
    pub local_bytes: u64,
    /// Bytes that scans read of chunks of other workers.
    pub peer_bytes: u64,
}

/// What one worker's task of a stage took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerTime {
    /// The worker's id, or `coordinator`.
    pub worker: String,
    /// How long its task was there, in milliseconds.
    pub wall_ms: f64,
    /// Time of processors in operators, in milliseconds.
    pub compute_ms: f64,
}

impl StageProfile {
    /// The busiest task's part against the mean: of what was measured, else of the rows that tasks were given.
    pub fn skew(&self) -> Option<f64> {
        let (most, all) = match &self.measured {
            Some(measured) if measured.compute_ms > 0.0 => {
                (measured.compute_ms_max, measured.compute_ms)
            }
            _ => (self.rows_assigned_max as f64, self.rows_assigned as f64),
        };
        (all > 0.0).then(|| most * self.tasks as f64 / all)
    }
}

/// The stages of a plan, those first that others wait for last.
pub fn stages(plan: &Arc<dyn ExecutionPlan>) -> Vec<StageProfile> {
    profile(plan, None)
}

/// The same of a plan that ran with metrics in a context, once all tasks have said what they did.
///
/// # Errors
/// Metrics that do not fit the plan.
pub async fn measured_stages(
    plan: &Arc<dyn ExecutionPlan>,
    context: &TaskContext,
) -> Result<Vec<StageProfile>> {
    let format = DistributedMetricsFormat::PerTask;
    let metrics = rewrite_distributed_plan_with_metrics(Arc::clone(plan), format).await?;
    Ok(profile(plan, Some((&metrics, context))))
}

fn profile(
    plan: &Arc<dyn ExecutionPlan>,
    measured: Option<(&Arc<dyn ExecutionPlan>, &TaskContext)>,
) -> Vec<StageProfile> {
    let (metrics, context) = measured.unzip();
    let mut walk = Walk { statistics: NodeStatistics::default(), context, stages: vec![] };
    let head = |plan: &Arc<dyn ExecutionPlan>| match plan.downcast_ref::<DistributedExec>() {
        Some(_) => plan.children().first().map(|head| Arc::clone(head)),
        None => Some(Arc::clone(plan)),
    };
    let Some(root) = head(plan) else { return vec![] };
    let metrics = metrics.and_then(head);
    walk.stage(&root, metrics.as_ref(), StageOf { number: 0, tasks: 1, exchange: "answer" });
    walk.stages.sort_by_key(|stage| stage.stage);
    walk.stages
}

/// Which stage a plan is of.
#[derive(Clone, Copy)]
struct StageOf {
    number: usize,
    tasks: usize,
    exchange: &'static str,
}

struct Walk<'a> {
    statistics: NodeStatistics,
    /// What the plan ran with.
    context: Option<&'a TaskContext>,
    stages: Vec<StageProfile>,
}

/// What is gathered on the way through one stage.
#[derive(Default)]
struct Gathered {
    operators: Vec<String>,
    tables: Vec<String>,
    rows_of_task: BTreeMap<usize, u64>,
    time_of_task: BTreeMap<usize, TaskTime>,
    measured: Measured,
}

/// What one task took, in nanoseconds.
#[derive(Default)]
struct TaskTime {
    compute: u64,
    /// When its first operator started and its last one ended, by its worker's clock; 0: not known.
    started: u64,
    ended: u64,
}

impl TaskTime {
    fn wall(&self) -> u64 {
        if self.started == 0 { 0 } else { self.ended.saturating_sub(self.started) }
    }
}

fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

impl Walk<'_> {
    fn stage(
        &mut self,
        root: &Arc<dyn ExecutionPlan>,
        metrics: Option<&Arc<dyn ExecutionPlan>>,
        of: StageOf,
    ) {
        let mut gathered = Gathered::default();
        self.node(root, metrics, &mut gathered);
        let measured = metrics.map(|metrics| {
            let tasks = || gathered.time_of_task.values();
            Measured {
                rows: rows_of(metrics),
                compute_ms: milliseconds(tasks().map(|task| task.compute).sum()),
                compute_ms_max: milliseconds(tasks().map(|task| task.compute).max().unwrap_or(0)),
                wall_ms: milliseconds(tasks().map(TaskTime::wall).max().unwrap_or(0)),
                workers: self.worker_times(root, of, &gathered.time_of_task),
                ..gathered.measured
            }
        });
        self.stages.push(StageProfile {
            part: None,
            stage: of.number,
            tasks: of.tasks,
            exchange: of.exchange.to_owned(),
            operators: gathered.operators.join(", "),
            tables: gathered.tables,
            rows_assigned: gathered.rows_of_task.values().sum(),
            rows_assigned_max: gathered.rows_of_task.values().max().copied().unwrap_or(0),
            rows_estimated: self.statistics.rows(root).map(|rows| rows as u64),
            measured,
        });
    }

    /// What the workers of a stage took, the slowest first.
    fn worker_times(
        &self,
        root: &Arc<dyn ExecutionPlan>,
        of: StageOf,
        times: &BTreeMap<usize, TaskTime>,
    ) -> Vec<WorkerTime> {
        let workers = match (of.number, self.context) {
            (0, _) => vec![COORDINATOR.to_owned()],
            // Where a plan ran, its tasks were given to workers.
            (_, Some(context)) => workers_of_stage(root, of.tasks, context).unwrap_or_default(),
            (_, None) => vec![],
        };
        let time = |(task, worker): (usize, String)| {
            let time = times.get(&task)?;
            let (wall_ms, compute_ms) = (milliseconds(time.wall()), milliseconds(time.compute));
            Some(WorkerTime { worker, wall_ms, compute_ms })
        };
        let mut times: Vec<_> = workers.into_iter().enumerate().filter_map(time).collect();
        times.sort_by(|one, other| other.wall_ms.total_cmp(&one.wall_ms));
        times.truncate(WORKERS_MAX);
        times
    }

    fn node(
        &mut self,
        node: &Arc<dyn ExecutionPlan>,
        metrics: Option<&Arc<dyn ExecutionPlan>>,
        gathered: &mut Gathered,
    ) {
        if let Some(boundary) = node.as_network_boundary() {
            let stage = boundary.input_stage();
            let below = metrics.and_then(|metrics| metrics.children().first().copied().cloned());
            if let Some(plan) = stage.local_plan() {
                let exchange = if node.is::<NetworkShuffleExec>() {
                    "shuffle"
                } else if node.is::<NetworkBroadcastExec>() {
                    "broadcast"
                } else {
                    "gather"
                };
                let of = StageOf { number: stage.num(), tasks: stage.task_count(), exchange };
                self.stage(plan, below.as_ref(), of);
                if let (Some(received), Some(stage)) = (metrics, self.stages.last_mut())
                    && let Some(measured) = &mut stage.measured
                {
                    measured.bytes = sum_of(received, "output_bytes");
                }
            }
            return;
        }
        gathered.note_operator(node);
        if let Some(leaf) = node.downcast_ref::<DistributedLeafExec>() {
            gathered.note_leaf(leaf);
        }
        if let Some(metrics) = metrics {
            gathered.note_metrics(metrics);
        }
        let below = metrics.map(|metrics| metrics.children());
        for (place, child) in node.children().into_iter().enumerate() {
            let metrics = below.as_ref().and_then(|below| below.get(place).copied());
            self.node(child, metrics, gathered);
        }
    }
}

impl Gathered {
    /// Names what does something to rows, once each in a row.
    fn note_operator(&mut self, node: &Arc<dyn ExecutionPlan>) {
        let name = node.name().trim_end_matches("Exec");
        let is_passive =
            ["Cooperative", "CoalescePartitions", "Repartition", "Broadcast", "Projection"];
        let name = match node.downcast_ref::<DistributedLeafExec>() {
            Some(leaf) => match leaf.original().downcast_ref::<SegmentScanExec>() {
                Some(scan) => format!("scan of {}", scan.table().name),
                None => leaf.original().name().trim_end_matches("Exec").to_owned(),
            },
            None if is_passive.contains(&name) => return,
            None => name.to_owned(),
        };
        if self.operators.last() == Some(&name) || self.operators.len() > NAMES_MAX {
            return;
        }
        let is_last = self.operators.len() == NAMES_MAX;
        self.operators.push(if is_last { "...".to_owned() } else { name });
    }

    fn note_leaf(&mut self, leaf: &DistributedLeafExec) {
        if let Some(scan) = leaf.original().downcast_ref::<SegmentScanExec>()
            && self.tables.len() < NAMES_MAX
            && !self.tables.contains(&scan.table().name)
        {
            self.tables.push(scan.table().name.clone());
        }
        for (task, variant) in leaf.variants().iter().enumerate() {
            if let Some(scan) = variant.downcast_ref::<SegmentScanExec>() {
                *self.rows_of_task.entry(task).or_default() += scan.assigned_rows();
            }
        }
    }

    fn note_metrics(&mut self, node: &Arc<dyn ExecutionPlan>) {
        for metric in node.metrics().iter().flat_map(MetricsSet::iter) {
            let (name, value) = (metric.value().name(), metric.value().as_usize() as u64);
            let mut labels = metric.labels().iter();
            let task = labels.rfind(|l| l.name() == DISTRIBUTED_DATAFUSION_TASK_ID_LABEL);
            let task = task.and_then(|label| label.value().parse().ok()).unwrap_or(0);
            let time = self.time_of_task.entry(task).or_default();
            let measured = &mut self.measured;
            match name {
                "elapsed_compute" => time.compute += value,
                "start_timestamp" if time.started == 0 => time.started = value,
                // An operator that was never asked for rows has no time.
                "start_timestamp" if value > 0 => time.started = time.started.min(value),
                "end_timestamp" => time.ended = time.ended.max(value),
                "spilled_bytes" => measured.spilled_bytes += value,
                "cached_bytes" => measured.cached_bytes += value,
                "local_bytes" => measured.local_bytes += value,
                "peer_bytes" => measured.peer_bytes += value,
                _ => {}
            }
        }
    }
}

fn sum_of(node: &Arc<dyn ExecutionPlan>, name: &str) -> u64 {
    let metrics = node.metrics();
    let named =
        metrics.iter().flat_map(MetricsSet::iter).filter(|metric| metric.value().name() == name);
    named.map(|metric| metric.value().as_usize() as u64).sum()
}

/// The rows that a node gave, or the first below it that counts them.
fn rows_of(node: &Arc<dyn ExecutionPlan>) -> u64 {
    let counts = node.metrics().is_some_and(|set| set.output_rows().is_some());
    match (counts, node.children().as_slice()) {
        (false, [only]) => rows_of(only),
        _ => sum_of(node, "output_rows"),
    }
}
