//! The schema `sys`: the state of cluster and statements as tables.
//!
//! A table is computed when a statement names it, once per statement, from the pinned snapshot and
//! this process's memory, so it answers while workers are down (RULES 34).
//!
//! - `requests`: what came of writes
//! - `columns`: what columns declare, and how they are stored
//! - `copies`: chunks, repairs and scrubs
//! - `column_statistics`: what is known of columns
//! - `unsorted`: how much of a table is out of order

mod column_statistics;
mod columns;
mod copies;
mod distribution;
mod profiles;
mod requests;
mod unsorted;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, UNIX_EPOCH};

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use basalt_engine::column_cache::ColumnCacheUse;
use basalt_engine::error::SqlError;
use basalt_engine::snapshot::{Snapshot, TableSnapshot};
use basalt_storage::ids::WorkerId;
use basalt_storage::manifest::Layout;
use datafusion::catalog::{MemTable, SchemaProvider, TableProvider};
use datafusion::error::Result;

use crate::catalog::ledger::MemberStatus;
use crate::catalog::members::LOG_COPIES_DEFAULT;
use crate::catalog::{Catalog, ClusterState, LogStatus};
use crate::membership::Members;
use crate::reconcile::Reconciler;
use crate::statements::registry::{Registry, Run, RunState, Write};
use distribution::{colocation, reason, style};
use unsorted::unsorted_share;

const NAMES: [&str; 16] = [
    "workers",
    "slices",
    "tables",
    "columns",
    "segments",
    "queries",
    "query_stages",
    "query_alerts",
    "requests",
    "chunks",
    "repairs",
    "scrubs",
    "log_members",
    "commit_records",
    "cache",
    "column_statistics",
];

/// The tables of `sys` as one statement sees them.
pub(crate) struct SysSchema {
    catalog: Catalog,
    snapshot: Arc<Snapshot>,
    members: Arc<Members>,
    registry: Arc<Registry>,
    reconciler: Reconciler,
    /// What was computed already, in the order of [`NAMES`].
    computed: [OnceLock<Arc<dyn TableProvider>>; NAMES.len()],
}

impl SysSchema {
    pub(crate) fn new(
        catalog: Catalog,
        snapshot: Arc<Snapshot>,
        members: Arc<Members>,
        registry: Arc<Registry>,
        reconciler: Reconciler,
    ) -> Self {
        Self { catalog, snapshot, members, registry, reconciler, computed: Default::default() }
    }

    async fn compute(&self, name: &str) -> Result<Option<RecordBatch>> {
        Ok(Some(match name {
            "workers" => {
                workers(&self.snapshot, &self.members, &self.reconciler, &self.catalog.cluster())?
            }
            "slices" => slices(&self.snapshot)?,
            "tables" => tables(&self.snapshot)?,
            "columns" => columns::columns(&self.snapshot)?,
            "segments" => segments(&self.snapshot)?,
            "queries" => queries(&self.registry)?,
            "query_stages" => profiles::query_stages(&self.registry.list())?,
            "query_alerts" => profiles::query_alerts(&self.registry.list())?,
            "column_statistics" => column_statistics::column_statistics(&self.snapshot)?,
            "commit_records" => {
                copies::commit_records(&self.snapshot, &self.reconciler.commit_records())?
            }
            "log_members" => log_members(&self.catalog.log_status())?,
            "cache" => cache(&self.members.column_caches())?,
            "scrubs" => copies::scrubs(&self.reconciler.scrub_states())?,
            "chunks" => copies::chunks(&self.snapshot, &self.reconciler.bad_copies())?,
            "repairs" => copies::repairs(&self.snapshot, &self.reconciler.repairs())?,
            "requests" => {
                let remembered = self.catalog.requests().await.map_err(SqlError::from)?;
                requests::requests(&remembered, &self.registry.list())?
            }
            _ => return Ok(None),
        }))
    }
}

impl fmt::Debug for SysSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SysSchema")
    }
}

#[async_trait]
impl SchemaProvider for SysSchema {
    fn table_names(&self) -> Vec<String> {
        NAMES.map(str::to_owned).to_vec()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(place) = NAMES.iter().position(|known| *known == name) else { return Ok(None) };
        if let Some(table) = self.computed[place].get() {
            return Ok(Some(Arc::clone(table)));
        }
        let Some(batch) = self.compute(name).await? else { return Ok(None) };
        let table = Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?);
        Ok(Some(Arc::clone(self.computed[place].get_or_init(|| table))))
    }

    fn table_exist(&self, name: &str) -> bool {
        NAMES.contains(&name)
    }
}

fn strings(values: impl Iterator<Item = String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn numbers(values: impl Iterator<Item = u64>) -> ArrayRef {
    Arc::new(UInt64Array::from_iter_values(values))
}

fn strings_or_null(values: impl Iterator<Item = Option<String>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn numbers_or_null(values: impl Iterator<Item = Option<u64>>) -> ArrayRef {
    Arc::new(UInt64Array::from_iter(values))
}

/// Every member of the cluster, also those that were never heard of since this coordinator started.
fn workers(
    snapshot: &Snapshot,
    members: &Members,
    reconciler: &Reconciler,
    cluster: &ClusterState,
) -> Result<RecordBatch> {
    let heard = members.members();
    let rows: Vec<_> = reconciler
        .worker_states()
        .into_iter()
        .map(|(worker, duty)| (worker, duty, heard.iter().find(|member| member.worker == worker)))
        .collect();
    let slices = |worker| {
        let owners = snapshot.cluster.slice_owners.iter();
        owners.filter(|owner| **owner == worker).count() as u64
    };
    let mut held: BTreeMap<WorkerId, (u64, u64)> = BTreeMap::new();
    for segment in stored(snapshot).into_iter().flat_map(|table| &table.segments) {
        for holder in &segment.holders {
            let (segments, bytes) = held.entry(*holder).or_default();
            (*segments, *bytes) = (*segments + 1, *bytes + segment.bytes);
        }
    }
    let held = |worker: &WorkerId| held.get(worker).copied().unwrap_or_default();
    let url =
        StringArray::from_iter(rows.iter().map(|row| row.2.map(|member| member.url.as_str())));
    let state = rows.iter().map(|row| match row.2 {
        Some(member) => format!("{:?}", member.state).to_lowercase(),
        None => "unknown".to_owned(),
    });
    let candidate = |worker| cluster.candidate(worker).1;
    let domain = StringArray::from_iter(rows.iter().map(|row| candidate(row.0).domain));
    let silent = UInt64Array::from_iter(
        rows.iter().map(|row| row.2.map(|member| member.silent.as_millis() as u64)),
    );
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("worker", strings(rows.iter().map(|row| row.0.to_string())), false),
        ("url", Arc::new(url) as ArrayRef, true),
        ("state", strings(state), false),
        ("duty", strings(rows.iter().map(|row| row.1.to_owned())), false),
        ("domain", Arc::new(domain) as ArrayRef, true),
        ("weight", numbers(rows.iter().map(|row| u64::from(candidate(row.0).weight))), false),
        ("slices", numbers(rows.iter().map(|row| slices(row.0))), false),
        ("segments", numbers(rows.iter().map(|row| held(&row.0).0)), false),
        ("bytes", numbers(rows.iter().map(|row| held(&row.0).1)), false),
        ("silent_ms", Arc::new(silent) as ArrayRef, true),
    ])?)
}

/// The column caches of live workers.
fn cache(caches: &BTreeMap<WorkerId, ColumnCacheUse>) -> Result<RecordBatch> {
    let each = |of: fn(&ColumnCacheUse) -> u64| numbers(caches.values().map(of));
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more precision")]
    let hit_rate = |usage: &ColumnCacheUse| {
        let asked = usage.hits.saturating_add(usage.misses);
        (asked > 0).then(|| usage.hits as f64 / asked as f64)
    };
    let hit_rate: Float64Array = caches.values().map(hit_rate).collect();
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("worker", strings(caches.keys().map(ToString::to_string)), false),
        ("budget_bytes", each(|usage| usage.budget_bytes), false),
        ("room_bytes", each(|usage| usage.room_bytes), false),
        ("bytes", each(|usage| usage.bytes), false),
        ("columns", each(|usage| usage.columns), false),
        ("hits", each(|usage| usage.hits), false),
        ("misses", each(|usage| usage.misses), false),
        ("hit_rate", Arc::new(hit_rate) as ArrayRef, true),
    ])?)
}

fn slices(snapshot: &Snapshot) -> Result<RecordBatch> {
    let owners = &snapshot.cluster.slice_owners;
    Ok(RecordBatch::try_from_iter([
        ("slice", numbers((0..owners.len()).map(|slice| slice as u64))),
        ("owner", strings(owners.iter().map(ToString::to_string))),
        ("epoch", numbers(owners.iter().map(|_| snapshot.cluster.epoch.0))),
    ])?)
}

fn stored(snapshot: &Snapshot) -> Vec<&TableSnapshot> {
    snapshot.tables().map(Arc::as_ref).collect()
}

fn tables(snapshot: &Snapshot) -> Result<RecordBatch> {
    let tables = stored(snapshot);
    let members = snapshot.cluster.members;
    let sort_key = |table: &TableSnapshot| {
        let names = table.sort_key.iter().filter_map(|id| table.schema.column(*id));
        names.map(|column| column.name.clone()).collect::<Vec<_>>().join(", ")
    };
    let total = |table: &TableSnapshot, of: fn(&basalt_storage::manifest::SegmentRecord) -> u64| {
        table.segments.iter().map(|segment| of(segment)).sum::<u64>()
    };
    let rows = |table: &TableSnapshot| total(table, |segment| segment.live_rows());
    let unsorted: Float64Array = tables.iter().map(|table| unsorted_share(table)).collect();
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("schema_name", strings(tables.iter().map(|table| table.schema_name.clone())), false),
        ("table_name", strings(tables.iter().map(|table| table.name.clone())), false),
        ("table_id", numbers(tables.iter().map(|table| table.id.0)), false),
        ("distribution", strings(tables.iter().map(|table| style(table, members))), false),
        ("replicas", numbers(tables.iter().map(|table| u64::from(table.replicas))), false),
        ("sort_key", strings(tables.iter().map(|table| sort_key(table))), false),
        ("unsorted", Arc::new(unsorted) as ArrayRef, true),
        ("columns", numbers(tables.iter().map(|table| table.schema.columns.len() as u64)), false),
        ("segments", numbers(tables.iter().map(|table| table.segments.len() as u64)), false),
        ("rows", numbers(tables.iter().map(|table| rows(table))), false),
        ("bytes", numbers(tables.iter().map(|table| total(table, |s| s.bytes))), false),
        (
            "colocation",
            strings_or_null(tables.iter().map(|table| colocation(table, members))),
            true,
        ),
        (
            "distribution_reason",
            strings_or_null(tables.iter().map(|table| reason(table, members))),
            true,
        ),
    ])?)
}

fn segments(snapshot: &Snapshot) -> Result<RecordBatch> {
    let all: Vec<_> = stored(snapshot)
        .into_iter()
        .flat_map(|table| table.segments.iter().map(move |segment| (table, segment)))
        .collect();
    let layout = |layout| match layout {
        Layout::Wide => "wide".to_owned(),
        Layout::Packed => "packed".to_owned(),
    };
    let holders = |segment: &basalt_storage::manifest::SegmentRecord| {
        segment.holders.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    Ok(RecordBatch::try_from_iter([
        ("schema_name", strings(all.iter().map(|(table, _)| table.schema_name.clone()))),
        ("table_name", strings(all.iter().map(|(table, _)| table.name.clone()))),
        ("table_id", numbers(all.iter().map(|(table, _)| table.id.0))),
        ("slice", numbers(all.iter().map(|(_, segment)| u64::from(segment.slice.0)))),
        ("segment", strings(all.iter().map(|(_, segment)| segment.segment.to_string()))),
        ("layout", strings(all.iter().map(|(_, segment)| layout(segment.layout)))),
        ("rows", numbers(all.iter().map(|(_, segment)| segment.rows))),
        ("rows_deleted", numbers(all.iter().map(|(_, segment)| segment.rows_deleted()))),
        ("row_groups", numbers(all.iter().map(|(_, segment)| segment.row_groups.len() as u64))),
        ("bytes", numbers(all.iter().map(|(_, segment)| segment.bytes))),
        ("txn", strings(all.iter().map(|(_, segment)| segment.txn.to_string()))),
        ("holders", strings(all.iter().map(|(_, segment)| holders(segment)))),
    ])?)
}

fn queries(registry: &Registry) -> Result<RecordBatch> {
    let runs = registry.list();
    let state = |state: &RunState| match state {
        RunState::Running => "running".to_owned(),
        RunState::Done => "done".to_owned(),
        RunState::Cancelled => "cancelled".to_owned(),
        RunState::Failed(code) => format!("failed: {}", code.name()),
    };
    let started = runs.iter().map(|run| {
        let since = run.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    });
    let started: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(started));
    let milliseconds = |of: &dyn Fn(&Run) -> Option<Duration>| -> ArrayRef {
        let times = runs.iter().map(|run| Some(of(run)?.as_secs_f64() * 1000.0));
        Arc::new(Float64Array::from_iter(times))
    };
    let elapsed_ms = milliseconds(&|run| run.elapsed);
    let planning_ms = milliseconds(&|run| run.planning);
    let execution_ms = milliseconds(&|run| run.elapsed?.checked_sub(run.fetched?));
    let cached = runs.iter().map(|run| Some(run.is_cached));
    let plan_cached = runs.iter().map(|run| Some(run.is_plan_cached));
    let writes = || runs.iter().map(|run| run.write.as_ref());
    let request = writes().map(|write| Some(write?.request.as_ref()?.to_string()));
    let replayed = writes().map(|write| write.is_some_and(Write::is_replay));
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("query_id", strings(runs.iter().map(|run| run.query_id.to_string())), false),
        ("session", numbers(runs.iter().map(|run| run.session.0)), false),
        ("state", strings(runs.iter().map(|run| state(&run.state))), false),
        ("started", started, false),
        ("elapsed_ms", elapsed_ms, true),
        ("planning_ms", planning_ms, true),
        ("execution_ms", execution_ms, true),
        ("attempts", numbers(runs.iter().map(|run| u64::from(run.attempts))), false),
        ("rows", numbers(runs.iter().map(|run| run.rows)), false),
        ("fallback", strings_or_null(runs.iter().map(|run| run.fallback.clone())), true),
        ("result_cached", Arc::new(cached.collect::<BooleanArray>()), false),
        ("plan_cached", Arc::new(plan_cached.collect::<BooleanArray>()), false),
        ("request", strings_or_null(request), true),
        ("replayed", Arc::new(replayed.map(Some).collect::<BooleanArray>()), false),
        ("text", strings(runs.iter().map(|run| run.text.clone())), false),
    ])?)
}

/// The copies of the command log: the coordinator's, its members', and those that are filled.
fn log_members(log: &LogStatus) -> Result<RecordBatch> {
    let own = if log.is_leading { "writes" } else { "waits" };
    let members = log.members.iter().filter(|member| member.is_member).count();
    let state = |member: &MemberStatus| match (member.is_reachable, member.is_member) {
        (false, _) => "unreachable",
        // It would take the place of one that is lost.
        (true, false) if members >= usize::from(LOG_COPIES_DEFAULT) => "spare",
        (true, false) => "joining",
        (true, true) if member.seq < log.seq => "lagging",
        (true, true) => "current",
    };
    let each = |of: &dyn Fn(&MemberStatus) -> String, own: &str| {
        strings(std::iter::once(own.to_owned()).chain(log.members.iter().map(of)))
    };
    let seqs = || std::iter::once(log.seq).chain(log.members.iter().map(|member| member.seq));
    let worker = std::iter::once(None)
        .chain(log.members.iter().map(|member| Some(member.worker.to_string())));
    let problem =
        std::iter::once(None).chain(log.members.iter().map(|member| member.problem.clone()));
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("member", each(&|_| "worker".to_owned(), "coordinator"), false),
        ("worker", Arc::new(StringArray::from_iter(worker)) as ArrayRef, true),
        ("state", each(&|member| state(member).to_owned(), own), false),
        ("seq", numbers(seqs()), false),
        ("lag", numbers(seqs().map(|seq| log.seq.saturating_sub(seq))), false),
        ("log_epoch", numbers(seqs().map(|_| log.log_epoch.0)), false),
        ("problem", Arc::new(StringArray::from_iter(problem)) as ArrayRef, true),
    ])?)
}
