//! What the stages of a plan are and, once it ran with metrics, what their tasks did; and what in it deserves a
//! second look.
//!
//! A profile of a plan alone has estimates only. With metrics it says how far they were off, which task was the
//! busiest, and what was spilled or came out of the column cache: `EXPLAIN ANALYZE` shows it, and `sys.query_stages`
//! keeps it. Alerts are Redshift's `STL_ALERT_EVENT_LOG`: each names what would help.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::error::Result;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{CrossJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion_distributed::{
    DISTRIBUTED_DATAFUSION_TASK_ID_LABEL, DistributedExec, DistributedLeafExec,
    DistributedMetricsFormat, NetworkBoundaryExt, NetworkBroadcastExec, NetworkShuffleExec,
    rewrite_distributed_plan_with_metrics,
};
use serde::{Deserialize, Serialize};

use super::movement::movements;
use super::node_statistics::NodeStatistics;
use crate::scan::SegmentScanExec;
use crate::snapshot::TableSnapshot;

/// Rows from which on it matters that a table was never analysed, and how its rows are spread over tasks.
const ROWS_TO_MIND: u64 = 100_000;
/// Rows that are sent to all workers, once for each, from which on that is an alert; and rows that both sides of a join move.
const ROWS_MOVED: u64 = 1_000_000;
/// Pairs that a join without equal keys looks at, from which on it is an alert.
const PAIRS: u64 = 100_000_000;
/// The busiest task reads so many times what the others do on average.
const SKEW: f64 = 2.0;
/// A side of fewer rows than these is looked through by each of the other's as a constant would be.
const PAIRED_ROWS: usize = 100;
/// Operators and tables of a stage that are named, and alerts of a query that are kept.
const NAMES_MAX: usize = 50;
/// Estimates that are so many times too low or too high are an alert.
const OFF: f64 = 100.0;

/// One stage of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageProfile {
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
    /// Bytes that were spilled to disk.
    pub spilled_bytes: u64,
    /// Bytes that scans found in the column cache.
    pub cached_bytes: u64,
    /// Bytes that scans read of chunks of their own worker.
    pub local_bytes: u64,
    /// Bytes that scans read of chunks of other workers.
    pub peer_bytes: u64,
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

/// The same of a plan that ran with metrics, once all tasks have said what they did.
///
/// # Errors
/// Metrics that do not fit the plan.
pub async fn measured_stages(plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<StageProfile>> {
    let format = DistributedMetricsFormat::PerTask;
    let metrics = rewrite_distributed_plan_with_metrics(Arc::clone(plan), format).await?;
    Ok(profile(plan, Some(&metrics)))
}

fn profile(
    plan: &Arc<dyn ExecutionPlan>,
    metrics: Option<&Arc<dyn ExecutionPlan>>,
) -> Vec<StageProfile> {
    let mut walk = Walk::default();
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

#[derive(Default)]
struct Walk {
    statistics: NodeStatistics,
    stages: Vec<StageProfile>,
}

/// What is gathered on the way through one stage.
#[derive(Default)]
struct Gathered {
    operators: Vec<String>,
    tables: Vec<String>,
    rows_of_task: BTreeMap<usize, u64>,
    compute_of_task: BTreeMap<String, u64>,
    measured: Measured,
}

impl Walk {
    fn stage(
        &mut self,
        root: &Arc<dyn ExecutionPlan>,
        metrics: Option<&Arc<dyn ExecutionPlan>>,
        of: StageOf,
    ) {
        let mut gathered = Gathered::default();
        self.node(root, metrics, &mut gathered);
        let measured = metrics.map(|metrics| {
            let nanoseconds = || gathered.compute_of_task.values();
            let milliseconds = |nanoseconds: u64| nanoseconds as f64 / 1e6;
            Measured {
                rows: rows_of(metrics),
                compute_ms: milliseconds(nanoseconds().sum()),
                compute_ms_max: milliseconds(nanoseconds().max().copied().unwrap_or(0)),
                ..gathered.measured
            }
        });
        self.stages.push(StageProfile {
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
            {
                let (name, value) = (metric.value().name(), metric.value().as_usize() as u64);
                let mut labels = metric.labels().iter();
                let task = labels.rfind(|l| l.name() == DISTRIBUTED_DATAFUSION_TASK_ID_LABEL);
                let measured = &mut self.measured;
                match name {
                    "elapsed_compute" => {
                        let task = task.map_or("", |label| label.value()).to_owned();
                        *self.compute_of_task.entry(task).or_default() += value;
                    }
                    "spilled_bytes" => measured.spilled_bytes += value,
                    "cached_bytes" => measured.cached_bytes += value,
                    "local_bytes" => measured.local_bytes += value,
                    "peer_bytes" => measured.peer_bytes += value,
                    _ => {}
                }
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

/// What in a query deserves a second look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// What kind of thing it is, in one word.
    pub kind: String,
    /// What was seen.
    pub event: String,
    /// What would help: a statement, where there is one.
    pub remedy: String,
}

/// What deserves a second look in a plan with these stages, over these tables.
pub fn alerts<'a>(
    plan: &Arc<dyn ExecutionPlan>,
    stages: &[StageProfile],
    tables: impl IntoIterator<Item = &'a TableSnapshot>,
) -> Vec<Alert> {
    let mut found: Vec<Alert> = tables.into_iter().filter_map(unanalysed).collect();
    let mut statistics = NodeStatistics::default();
    found.extend(movements(plan).into_iter().filter_map(|movement| {
        let kind = match movement.label {
            "DS_BCAST_INNER" if movement.rows_moved >= ROWS_MOVED => "large_broadcast",
            "DS_DIST_BOTH" if movement.rows_moved >= ROWS_MOVED => "large_redistribution",
            _ => return None,
        };
        let event = format!(
            "{}: {} moves about {} rows",
            movement.label, movement.join, movement.rows_moved
        );
        Some(Alert { kind: kind.to_owned(), event, remedy: movement.reasons.join("; ") })
    }));
    nested_loops(plan, &mut statistics, &mut found);
    found.extend(stages.iter().flat_map(stage_alerts));
    found.truncate(NAMES_MAX);
    found
}

fn unanalysed(table: &TableSnapshot) -> Option<Alert> {
    let (name, rows) = (format!("{}.{}", table.schema_name, table.name), table.live_rows());
    (table.statistics.is_none() && rows >= ROWS_TO_MIND).then(|| Alert {
        kind: "missing_statistics".to_owned(),
        event: format!("{name} has {rows} rows and was never analysed"),
        remedy: format!("ANALYZE {name}"),
    })
}

fn nested_loops(
    node: &Arc<dyn ExecutionPlan>,
    statistics: &mut NodeStatistics,
    found: &mut Vec<Alert>,
) {
    if (node.is::<NestedLoopJoinExec>() || node.is::<CrossJoinExec>())
        && let [left, right] = node.children().as_slice()
        && let (Some(left), Some(right)) = (statistics.rows(left), statistics.rows(right))
        && left.min(right) >= PAIRED_ROWS
        && (left as u64).saturating_mul(right as u64) >= PAIRS
    {
        found.push(Alert {
            kind: "nested_loop".to_owned(),
            event: format!("about {left} rows are each compared with about {right}"),
            remedy: "join by an equality, or filter one side first".to_owned(),
        });
    }
    node.children().into_iter().for_each(|child| nested_loops(child, statistics, found));
}

fn stage_alerts(stage: &StageProfile) -> Vec<Alert> {
    let mut found = Vec::new();
    let number = stage.stage;
    let mean = stage.rows_assigned as f64 / stage.tasks.max(1) as f64;
    if stage.tasks > 1
        && stage.rows_assigned >= ROWS_TO_MIND
        && stage.rows_assigned_max as f64 >= SKEW * mean
    {
        let (most, tables) = (stage.rows_assigned_max, stage.tables.join(", "));
        found.push(Alert {
            kind: "skew".to_owned(),
            event: format!("one of {} tasks of stage {number} reads {most} rows of {tables}, {mean:.0} on average", stage.tasks),
            remedy: "distribute by another key, or DISTSTYLE EVEN; sys.segments shows rows by slice".to_owned(),
        });
    }
    let Some(measured) = &stage.measured else { return found };
    if measured.spilled_bytes > 0 {
        found.push(Alert {
            kind: "spill".to_owned(),
            event: format!("stage {number} spilled {} bytes to disk", measured.spilled_bytes),
            remedy: "more --memory or --query-memory for workers".to_owned(),
        });
    }
    if let Some(estimated) = stage.rows_estimated {
        let (most, least) = (estimated.max(measured.rows), estimated.min(measured.rows).max(1));
        if most >= ROWS_TO_MIND && most as f64 >= OFF * least as f64 {
            found.push(Alert {
                kind: "wrong_estimate".to_owned(),
                event: format!(
                    "stage {number} gave {} rows, {estimated} were estimated",
                    measured.rows
                ),
                remedy: match stage.tables.is_empty() {
                    true => "ANALYZE".to_owned(),
                    false => format!("ANALYZE {}", stage.tables.join("; ANALYZE ")),
                },
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(rows_assigned: u64, rows_assigned_max: u64) -> StageProfile {
        StageProfile {
            stage: 3,
            tasks: 4,
            exchange: "shuffle".to_owned(),
            operators: "Aggregate, scan of public.t".to_owned(),
            tables: vec!["public.t".to_owned()],
            rows_assigned,
            rows_assigned_max,
            rows_estimated: Some(1_000),
            measured: None,
        }
    }

    fn kinds(stage: &StageProfile) -> Vec<String> {
        stage_alerts(stage).into_iter().map(|alert| alert.kind).collect()
    }

    #[test]
    fn a_task_that_reads_twice_the_mean_is_an_alert() {
        assert!(kinds(&stage(400_000, 199_000)).is_empty());
        assert_eq!(kinds(&stage(400_000, 200_000)), ["skew"]);
        assert!(kinds(&stage(4_000, 4_000)).is_empty(), "too few rows to mind");
        assert_eq!(stage(400_000, 200_000).skew(), Some(2.0));
        assert_eq!(stage(0, 0).skew(), None);
    }

    #[test]
    fn spills_and_estimates_that_are_far_off_are_alerts() {
        let measured = |rows, spilled_bytes| StageProfile {
            measured: Some(Measured { rows, spilled_bytes, ..Measured::default() }),
            ..stage(400_000, 100_000)
        };
        assert!(kinds(&measured(50_000, 0)).is_empty());
        assert_eq!(kinds(&measured(100_000, 0)), ["wrong_estimate"]);
        assert_eq!(kinds(&measured(1_000, 7)), ["spill"]);
        let alert = &stage_alerts(&measured(100_000, 0))[0];
        assert_eq!(alert.remedy, "ANALYZE public.t");
    }
}
