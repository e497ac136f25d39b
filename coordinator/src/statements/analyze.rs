//! `ANALYZE`: a plan over the workers that sketches columns, and a commit that keeps the sketches.
//!
//! ```text
//! scan of what is new ─▶ a sketch per column and task ─▶ union ─▶ Change::RecordAnalysis
//! ```
//! It reads a pinned snapshot and takes nobody's turn: who writes meanwhile does not wait, and what
//! is committed meanwhile is read the next time. A table that is dropped meanwhile has no statistics.
//!
//! In the background a table is analysed once more than a tenth of its rows changed since, as
//! PostgreSQL's autovacuum does: one table at a time, after whoever changes it has had its turn. No
//! two analyses of one table run at once, so after an ANALYZE nothing of it is under way.

mod due;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::AsArray;
use basalt_engine::dialect::Analyze;
use basalt_engine::error::{ErrorCode, Position, SqlError, did_you_mean};
use basalt_engine::scan::row_ids::ROW_ID_NAME;
use basalt_engine::session::execution_context;
use basalt_engine::settings::{CacheUse, Settings};
use basalt_engine::sketches::{distinct_sketch, row_sample};
use basalt_engine::snapshot::{ClusterView, Distribution, TableSnapshot};
use basalt_engine::statistics::{Analysis, AnalysisKind, ColumnSketch};
use basalt_engine::table::{ChosenRows, SegmentTable};
use basalt_engine::types::scan_type;
use basalt_storage::delete_vector::DeleteVector;
use basalt_storage::ids::{ColumnId, TableId, TxnId};
use basalt_storage::schema::Column;
use basalt_storage::sketch::{DistinctSketch, InvalidSketch, RowSample};
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::execute_stream;
use futures::{FutureExt, TryStreamExt};

use super::Statements;
use super::compact::table_by_id;
use super::registry::RunNotes;
use super::session::Pinned;
use crate::catalog::{Change, Command, wall_clock_ms};
pub(super) use due::Analyses;
use due::is_due;

/// Columns that one plan sketches: each takes 4 KiB in each partition of each task, and a sample as
/// much again and more. Of wider tables several plans read some columns each.
const PLAN_COLUMNS_MAX: usize = 64;

impl Statements {
    /// `ANALYZE t (columns)`, of the whole table, or of every table. Returns how many rows it read.
    pub(super) async fn analyze(&self, run: &RunNotes, analyze: &Analyze) -> Result<u64, SqlError> {
        let settings = self.inner.sessions.settings(run.session());
        let pinned = self.pin_with(settings.clone())?;
        if let Some((name, position)) = &analyze.table {
            let table = pinned.table_to_write(name, *position)?;
            let columns = named_columns(&table, &analyze.columns)?;
            drop(pinned);
            let _turn = self.inner.analyses.turns.of(table.id).await;
            return self.analyse_table(settings, table.id, columns).await;
        }
        let tables: Vec<_> = pinned.spec.snapshot.tables().map(|table| table.id).collect();
        drop(pinned);
        let mut rows = 0;
        for table in tables {
            let _turn = self.inner.analyses.turns.of(table).await;
            match self.analyse_table(settings.clone(), table, None).await {
                Ok(read) => rows += read,
                Err(_) if self.is_gone(table) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(rows)
    }

    /// Starts an analysis of a table in the background when the last write changed enough of it. One
    /// that runs takes the table up when it is done with others.
    pub(super) fn analyze_soon(&self, table: TableId) {
        let snapshot = self.inner.catalog.snapshot();
        if table_by_id(&snapshot, table).is_some_and(|table| is_due(table))
            && self.inner.analyses.ask(table)
        {
            let statements = self.clone();
            tokio::spawn(async move { statements.analyse_what_is_asked().await });
        }
    }

    async fn analyse_what_is_asked(&self) {
        while let Some(table) = self.inner.analyses.next() {
            // Whoever changes the table now would make much of what is read old at once.
            drop(self.inner.turns.of(table).await);
            let _turn = self.inner.analyses.turns.of(table).await;
            let snapshot = self.inner.catalog.snapshot();
            if !table_by_id(&snapshot, table).is_some_and(|table| is_due(table)) {
                continue;
            }
            drop(snapshot);
            // Unwind safe: nothing of an analysis that panicked is looked at again.
            let analysis = AssertUnwindSafe(self.analyse_table(in_background(), table, None));
            match analysis.catch_unwind().await {
                Ok(Ok(rows)) => tracing::debug!(%table, rows, "a table was analysed"),
                Ok(Err(_)) if self.is_gone(table) => {}
                // Nothing changed, and the next write tries again.
                Ok(Err(error)) => tracing::warn!(%table, %error, "an analysis was given up"),
                // This task takes all tables up: it goes on with the next.
                Err(_) => tracing::error!(%table, "an analysis panicked"),
            }
        }
    }

    fn is_gone(&self, table: TableId) -> bool {
        table_by_id(&self.inner.catalog.snapshot(), table).is_none()
    }

    /// Analyses some columns of a table, or all of them. Returns how many rows it read: of segments
    /// that were read before only if many of their rows are gone.
    async fn analyse_table(
        &self,
        settings: Settings,
        table: TableId,
        columns: Option<Vec<ColumnId>>,
    ) -> Result<u64, SqlError> {
        let pinned = self.pin_with(settings)?;
        let snapshot = &pinned.spec.snapshot;
        let Some(table) = table_by_id(snapshot, table).map(Arc::clone) else { return Ok(0) };
        let (version, cluster) = (snapshot.version, Arc::clone(&snapshot.cluster));
        let Some(Reading { kind, rows, columns, places }) = Reading::of(&table, columns) else {
            return Ok(0);
        };
        let mut found = BTreeMap::new();
        for columns in columns.chunks(PLAN_COLUMNS_MAX) {
            let plan = sketch_plan(&table, &cluster, columns, rows.clone());
            let plan = plan.map_err(|error| pinned.error(error))?;
            found.extend(sketches(&pinned, &plan, columns).await?);
        }
        let segments = places.iter().filter_map(|place| table.segments.get(*place as usize));
        let rows = segments.clone().map(|segment| segment.live_rows()).sum();
        let segments = match kind {
            AnalysisKind::Columns => vec![],
            AnalysisKind::Whole | AnalysisKind::Added => segments.map(|s| s.segment).collect(),
        };
        let time_ms = wall_clock_ms();
        let analysis = Analysis { kind, version, time_ms, rows, segments, columns: found };
        let change = Change::RecordAnalysis { table: table.id, analysis };
        let command = Command::new(TxnId::generate(), time_ms, vec![change]);
        self.inner.catalog.commit(command).await.map_err(SqlError::from)?;
        Ok(rows)
    }
}

/// The settings of analyses that nobody sent. They read everything once: the column cache is for what
/// queries read again.
pub(super) fn in_background() -> Settings {
    let mut settings = Settings::default();
    settings.scans.column_cache = CacheUse::Off;
    settings
}

/// The ids of columns that a statement names; `None` for all of the table's.
fn named_columns(
    table: &TableSnapshot,
    names: &[(String, Position)],
) -> Result<Option<Vec<ColumnId>>, SqlError> {
    let columns = &table.schema.columns;
    let id_of = |(name, position): &(String, Position)| {
        let found = columns.iter().find(|column| column.name == *name);
        found.map(|column| column.id).ok_or_else(|| {
            let message = format!("column \"{name}\" of table \"{}\" does not exist", table.name);
            let known = columns.iter().map(|column| column.name.as_str());
            let error = SqlError::new(ErrorCode::UndefinedColumn, message).at(*position);
            did_you_mean(error, name, known)
        })
    };
    match names {
        [] => Ok(None),
        names => names.iter().map(id_of).collect::<Result<_, _>>().map(Some),
    }
}

/// A column to sketch.
pub(super) struct SketchedColumn {
    pub(super) id: ColumnId,
    pub(super) name: String,
    /// Whether to sample it as well.
    pub(super) sampled: bool,
}

/// What an analysis reads.
struct Reading {
    kind: AnalysisKind,
    columns: Vec<SketchedColumn>,
    /// The segments, by their places in the snapshot's list.
    places: Vec<u32>,
    /// Their rows, when it is not all of the table.
    rows: Option<Arc<ChosenRows>>,
}

impl Reading {
    /// What there is to read; `None` when all of it was read before, or nothing can be sketched.
    fn of(table: &TableSnapshot, columns: Option<Vec<ColumnId>>) -> Option<Self> {
        let asked = |column: &&Column| columns.as_ref().is_none_or(|ids| ids.contains(&column.id));
        let sketched = table.schema.columns.iter().filter(asked).filter_map(|column| {
            let takes = DistinctSketch::takes(&scan_type(&column.data_type));
            let (id, name) = (column.id, column.name.clone());
            takes.then(|| SketchedColumn { id, name, sampled: is_key(table, id) })
        });
        let sketched: Vec<_> = sketched.collect();
        if sketched.is_empty() {
            return None;
        }
        let all = (0..).zip(&table.segments);
        let ids: Vec<_> = sketched.iter().map(|column| column.id).collect();
        let kept = table.statistics.as_ref().filter(|_| columns.is_none());
        let Some(known) = kept.filter(|known| known.can_grow(&ids, &table.segments)) else {
            let kind = if columns.is_none() { AnalysisKind::Whole } else { AnalysisKind::Columns };
            let places = all.map(|(place, _)| place).collect();
            return Some(Self { kind, columns: sketched, places, rows: None });
        };
        let new: Vec<_> = all.filter(|(_, segment)| !known.covers(segment.segment)).collect();
        let live = new.iter().filter_map(|(place, segment)| {
            let rows = DeleteVector::complement(segment.deleted.as_ref(), segment.rows)?;
            Some((*place, rows))
        });
        let rows = Some(Arc::new(ChosenRows::new(live.collect())));
        let places: Vec<_> = new.into_iter().map(|(place, _)| place).collect();
        let kind = AnalysisKind::Added;
        (!places.is_empty()).then_some(Self { kind, columns: sketched, places, rows })
    }
}

/// Whether the spread of a column matters: to which slices its rows go, or in which order they lie.
fn is_key(table: &TableSnapshot, column: ColumnId) -> bool {
    table.sort_key.contains(&column) || table.appended_by() == Distribution::Key(column)
}

/// One row: the sketches of each column, the sample after the sketch of distinct values.
pub(super) fn sketch_plan(
    table: &Arc<TableSnapshot>,
    cluster: &Arc<ClusterView>,
    columns: &[SketchedColumn],
    rows: Option<Arc<ChosenRows>>,
) -> Result<LogicalPlan, DataFusionError> {
    let mut source = SegmentTable::new(Arc::clone(table), Arc::clone(cluster));
    if let Some(rows) = rows {
        source = source.with_only(rows);
    }
    if columns.iter().any(|column| column.sampled) {
        source = source.with_lasting_row_ids();
    }
    let scan = LogicalPlanBuilder::scan("analysed", provider_as_source(Arc::new(source)), None)?;
    let mut sketches: Vec<Expr> = Vec::with_capacity(columns.len());
    for (place, column) in columns.iter().enumerate() {
        let values = named(&scan, &column.name)?;
        sketches.push(distinct_sketch().call(vec![values.clone()]).alias(format!("d{place}")));
        if column.sampled {
            let ids = named(&scan, ROW_ID_NAME)?;
            sketches.push(row_sample().call(vec![values, ids]).alias(format!("s{place}")));
        }
    }
    scan.aggregate(Vec::<Expr>::new(), sketches)?.build()
}

/// A column of the scan.
fn named(scan: &LogicalPlanBuilder, name: &str) -> Result<Expr, DataFusionError> {
    let found = scan.schema().iter().find(|(_, field)| field.name() == name).map(Expr::from);
    found.ok_or_else(|| DataFusionError::Internal(format!("a scan has no column \"{name}\"")))
}

/// Runs a [`sketch_plan`].
pub(super) async fn sketches(
    pinned: &Pinned,
    plan: &LogicalPlan,
    columns: &[SketchedColumn],
) -> Result<BTreeMap<ColumnId, ColumnSketch>, SqlError> {
    let error = |error| pinned.error(error);
    let plan = pinned.distributed(plan).await?;
    let batches = execute_stream(plan, execution_context(&pinned.state)).map_err(error)?;
    let batches: Vec<_> = batches.try_collect().await.map_err(error)?;
    let row = batches.iter().find(|batch| batch.num_rows() > 0);
    let mut bytes = row.into_iter().flat_map(|batch| batch.columns()).map(|sketch| {
        let sketch = sketch.as_binary_opt::<i32>().and_then(|sketch| sketch.iter().next());
        sketch.flatten().ok_or_else(|| malformed("it is of another type"))
    });
    let mut next = || bytes.next().unwrap_or_else(|| Err(malformed("it is missing")));
    let mut found = BTreeMap::new();
    for column in columns {
        let distinct = DistinctSketch::from_bytes(next()?).map_err(invalid)?;
        let sample = match column.sampled {
            true => Some(RowSample::from_bytes(next()?).map_err(invalid)?),
            false => None,
        };
        found.insert(column.id, ColumnSketch { distinct, sample });
    }
    Ok(found)
}

fn invalid(error: InvalidSketch) -> SqlError {
    malformed(&error.to_string())
}

fn malformed(problem: &str) -> SqlError {
    SqlError::new(ErrorCode::Internal, format!("a sketch of a column is malformed: {problem}"))
}
