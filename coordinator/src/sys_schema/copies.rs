//! `sys.chunks`, `sys.repairs`, `sys.scrubs` and `sys.commit_records`: who has copies, who lacks
//! them, and what is done about it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use arrow::array::{ArrayRef, StringArray, TimestampMicrosecondArray, UInt64Array};
use arrow::record_batch::RecordBatch;
use basalt_engine::snapshot::Snapshot;
use basalt_storage::ids::{TableId, WorkerId};
use basalt_storage::layout::SegmentKey;
use datafusion::error::Result;

use super::{numbers, numbers_or_null, stored, strings, strings_or_null};
use crate::reconcile::{RecordsState, RepairRun, RepairState, ScrubState};

/// One row per column chunk.
pub(super) fn chunks(
    snapshot: &Snapshot,
    bad: &BTreeSet<(WorkerId, SegmentKey)>,
) -> Result<RecordBatch> {
    let cluster = &snapshot.cluster;
    let mut rows = Vec::new();
    for table in stored(snapshot) {
        let wanted = cluster.copies_wanted(table.replicas) as u64;
        for segment in &table.segments {
            let holders = &segment.holders;
            let is_good = |holder: &&WorkerId| {
                cluster.workers.contains_key(holder) && !bad.contains(&(**holder, segment.key()))
            };
            let reachable = holders.iter().filter(is_good).count() as u64;
            let state = match reachable {
                0 => "unavailable",
                _ if reachable < wanted => "degraded",
                _ => "full",
            };
            for (column, record) in &segment.columns {
                rows.push((table, segment, column, record, (wanted, reachable, state)));
            }
        }
    }
    let holders = rows.iter().map(|(_, segment, ..)| {
        segment.holders.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    });
    let column_name = rows.iter().map(|(table, _, column, ..)| {
        table.schema.column(**column).map_or("", |column| column.name.as_str()).to_owned()
    });
    let encoding = rows.iter().map(|row| row.3.encoding.map(|encoding| encoding.name().to_owned()));
    let slice = rows.iter().map(|(_, segment, ..)| u64::from(segment.slice.0));
    let segment = rows.iter().map(|(_, segment, ..)| segment.segment.to_string());
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("schema_name", strings(rows.iter().map(|(table, ..)| table.schema_name.clone())), false),
        ("table_name", strings(rows.iter().map(|(table, ..)| table.name.clone())), false),
        ("table_id", numbers(rows.iter().map(|(table, ..)| table.id.0)), false),
        ("slice", numbers(slice), false),
        ("segment", strings(segment), false),
        ("column_id", numbers(rows.iter().map(|(_, _, column, ..)| u64::from(column.0))), false),
        ("column_name", strings(column_name), false),
        ("version", numbers(rows.iter().map(|row| u64::from(row.3.version.0))), false),
        ("bytes", numbers(rows.iter().map(|row| row.3.bytes)), false),
        ("encoding", strings_or_null(encoding), true),
        ("holders", strings(holders), false),
        ("copies_wanted", numbers(rows.iter().map(|row| row.4.0)), false),
        ("copies_reachable", numbers(rows.iter().map(|row| row.4.1)), false),
        ("state", strings(rows.iter().map(|row| row.4.2.to_owned())), false),
    ])?)
}

/// One row per copy that is made, or was made lately.
pub(super) fn repairs(snapshot: &Snapshot, runs: &[RepairRun]) -> Result<RecordBatch> {
    let names: BTreeMap<TableId, String> = stored(snapshot)
        .into_iter()
        .map(|table| (table.id, format!("{}.{}", table.schema_name, table.name)))
        .collect();
    let started = runs.iter().map(|run| {
        let since = run.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    });
    let started: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(started));
    let elapsed: ArrayRef = Arc::new(UInt64Array::from_iter(runs.iter().map(|run| run.elapsed_ms)));
    let state = |run: &RepairRun| match run.state {
        RepairState::Running => "running".to_owned(),
        RepairState::Done => "done".to_owned(),
        RepairState::Failed(_) => "failed".to_owned(),
    };
    let error: ArrayRef =
        Arc::new(StringArray::from_iter(runs.iter().map(|run| match &run.state {
            RepairState::Failed(error) => Some(error.as_str()),
            RepairState::Running | RepairState::Done => None,
        })));
    let table: ArrayRef =
        Arc::new(StringArray::from_iter(runs.iter().map(|run| names.get(&run.table))));
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("table_name", table, true),
        ("segment", strings(runs.iter().map(|run| run.segment.to_string())), false),
        ("worker", strings(runs.iter().map(|run| run.worker.to_string())), false),
        ("reason", strings(runs.iter().map(|run| run.reason.clone())), false),
        ("state", strings(runs.iter().map(state)), false),
        ("started", started, false),
        ("elapsed_ms", elapsed, true),
        ("bytes", numbers(runs.iter().map(|run| run.bytes)), false),
        ("error", error, true),
    ])?)
}

/// One row per worker: how far the check of its copies is.
pub(super) fn scrubs(states: &[ScrubState]) -> Result<RecordBatch> {
    let ended = states.iter().map(|state| {
        let since = state.last_ended?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    });
    let ended: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter(ended));
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("worker", strings(states.iter().map(|state| state.worker.to_string())), false),
        ("passes", numbers(states.iter().map(|state| state.passes)), false),
        ("last_ended", ended, true),
        ("checked", numbers(states.iter().map(|state| state.checked)), false),
        ("mended", numbers(states.iter().map(|state| state.mended)), false),
        ("failed", numbers(states.iter().map(|state| state.failed)), false),
    ])?)
}

/// One row per member: up to which commit it knows what would be needed to make a catalog again.
pub(super) fn commit_records(snapshot: &Snapshot, records: &[RecordsState]) -> Result<RecordBatch> {
    let behind = |state: &RecordsState| state.known.map(|at| snapshot.version.saturating_sub(at));
    let state = |state: &RecordsState| match behind(state) {
        Some(0) => "current",
        Some(_) => "behind",
        None => "unknown",
    };
    let problems = records.iter().map(|state| state.problem.clone());
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("worker", strings(records.iter().map(|state| state.worker.to_string())), false),
        ("state", strings(records.iter().map(|of| state(of).to_owned())), false),
        ("known_commit", numbers_or_null(records.iter().map(|state| state.known)), true),
        ("behind", numbers_or_null(records.iter().map(behind)), true),
        ("problem", strings_or_null(problems), true),
    ])?)
}
