//! What the stages of queries were, and what in them deserves a second look.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray};
use arrow::record_batch::RecordBatch;
use basalt_engine::distribute::{Alert, Measured, StageProfile};
use datafusion::error::Result;

use super::{numbers, numbers_or_null, strings};
use crate::statements::registry::Run;

/// The stages of those runs that left them behind.
pub(super) fn query_stages(runs: &[Run]) -> Result<RecordBatch> {
    let stages: Vec<(&Run, &StageProfile)> = runs
        .iter()
        .filter_map(|run| Some((run, run.profile.as_ref()?)))
        .flat_map(|(run, profile)| profile.stages.iter().map(move |stage| (run, stage)))
        .collect();
    let each = || stages.iter().map(|(_, stage)| *stage);
    let measured = |of: fn(&Measured) -> u64| {
        numbers_or_null(each().map(|stage| stage.measured.as_ref().map(of)))
    };
    let milliseconds = |of: fn(&Measured) -> f64| -> ArrayRef {
        Arc::new(each().map(|stage| stage.measured.as_ref().map(of)).collect::<Float64Array>())
    };
    let slowest =
        |stage: &StageProfile| Some(stage.measured.as_ref()?.workers.first()?.worker.clone());
    let slowest: StringArray = each().map(slowest).collect();
    let skew: Float64Array = each().map(StageProfile::skew).collect();
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("query_id", strings(stages.iter().map(|(run, _)| run.query_id.to_string())), false),
        ("part", Arc::new(each().map(|stage| stage.part.clone()).collect::<StringArray>()), true),
        ("stage", numbers(each().map(|stage| stage.stage as u64)), false),
        ("tasks", numbers(each().map(|stage| stage.tasks as u64)), false),
        ("exchange", strings(each().map(|stage| stage.exchange.clone())), false),
        ("operators", strings(each().map(|stage| stage.operators.clone())), false),
        ("tables", strings(each().map(|stage| stage.tables.join(", "))), false),
        ("rows_assigned", numbers(each().map(|stage| stage.rows_assigned)), false),
        ("skew", Arc::new(skew), true),
        ("rows_estimated", numbers_or_null(each().map(|stage| stage.rows_estimated)), true),
        ("rows", measured(|measured| measured.rows), true),
        ("bytes", measured(|measured| measured.bytes), true),
        ("compute_ms", milliseconds(|measured| measured.compute_ms), true),
        ("compute_ms_max", milliseconds(|measured| measured.compute_ms_max), true),
        ("wall_ms", milliseconds(|measured| measured.wall_ms), true),
        ("slowest_worker", Arc::new(slowest), true),
        ("spilled_bytes", measured(|measured| measured.spilled_bytes), true),
        ("cached_bytes", measured(|measured| measured.cached_bytes), true),
        ("local_bytes", measured(|measured| measured.local_bytes), true),
        ("peer_bytes", measured(|measured| measured.peer_bytes), true),
    ])?)
}

/// The alerts of runs.
pub(super) fn query_alerts(runs: &[Run]) -> Result<RecordBatch> {
    let alerts: Vec<(&Run, &Alert)> = runs
        .iter()
        .filter_map(|run| Some((run, run.profile.as_ref()?)))
        .flat_map(|(run, profile)| profile.alerts.iter().map(move |alert| (run, alert)))
        .collect();
    let text =
        |of: fn(&Alert) -> &String| strings(alerts.iter().map(|(_, alert)| of(alert).clone()));
    Ok(RecordBatch::try_from_iter([
        ("query_id", strings(alerts.iter().map(|(run, _)| run.query_id.to_string()))),
        ("kind", text(|alert| &alert.kind)),
        ("event", text(|alert| &alert.event)),
        ("remedy", text(|alert| &alert.remedy)),
        ("text", strings(alerts.iter().map(|(run, _)| run.text.clone()))),
    ])?)
}
