//! What in a query deserves a second look, as in Redshift's `STL_ALERT_EVENT_LOG`: each alert names what would help.
//!
//! Pure: found in a plan, its stages and the tables that it reads.

use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{CrossJoinExec, NestedLoopJoinExec};
use serde::{Deserialize, Serialize};

use super::movement::movements;
use super::node_statistics::NodeStatistics;
use super::profile::StageProfile;
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
/// Alerts of a query that are kept.
const ALERTS_MAX: usize = 50;
/// Estimates that are so many times too low or too high are an alert.
const OFF: f64 = 100.0;

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
    found.truncate(ALERTS_MAX);
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
    use super::super::profile::Measured;
    use super::*;

    fn stage(rows_assigned: u64, rows_assigned_max: u64) -> StageProfile {
        StageProfile {
            part: None,
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
