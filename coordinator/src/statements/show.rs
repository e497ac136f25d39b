//! SHOW, DESCRIBE and EXPLAIN: answers made of text.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use basalt_engine::dialect::{Explain, ObjectRef, Statement};
use basalt_engine::distribute::{
    Alert, Measured, StageProfile, alerts, measured_stages, movements, plan_distributed, stages,
};
use basalt_engine::error::{ErrorCode, SqlError, from_datafusion};
use basalt_engine::session::execution_context;
use basalt_engine::shared_subplans::{SharedPart, SharedPlan};
use basalt_engine::snapshot::{Relation, Snapshot};
use basalt_engine::types::{column_type_name, type_name, wire_schema};
use basalt_storage::ids::ColumnId;
use basalt_storage::schema::{KeyKind, TableSchema};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion_distributed::{
    DistributedExt, DistributedMetricsFormat, display_plan_ascii, explain_analyze,
};
use futures::TryStreamExt;

use super::Statements;
use super::compression;
use super::create_text::create_text;
use super::definition::schema_of;
use super::failover::{MEASURED_WITHIN, tables_of};
use super::registry::{QueryProfile, RunNotes};
use super::session::Pinned;
use super::shared::{PartRows, may_be_sent, parts_of};
use crate::catalog::find_relation;

/// The columns of an answer, or `None` for a statement without one.
pub(super) fn schema(statement: &Statement) -> Option<SchemaRef> {
    let names: &[&str] = match statement {
        Statement::Show { .. } => &["name", "value", "description"],
        Statement::ShowTables => &["table_schema", "table_name", "table_type"],
        Statement::ShowSchemas => &["schema_name"],
        Statement::ShowColumns(_) | Statement::Describe(_) => {
            &["column_name", "column_type", "null", "key", "default"]
        }
        Statement::ShowCreate(_) => &["name", "create_statement"],
        Statement::Explain(_) => &["plan_type", "plan"],
        Statement::AnalyzeCompression(_) => return Some(compression::schema()),
        _ => return None,
    };
    let fields = names.iter().map(|name| Field::new(*name, DataType::Utf8, true));
    Some(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

/// The rows of SHOW and DESCRIBE.
pub(super) async fn rows(pinned: &Pinned, statement: &Statement) -> Result<RecordBatch, SqlError> {
    let snapshot = &pinned.spec.snapshot;
    let columns: Vec<ArrayRef> = match statement {
        Statement::Show { name } => {
            let settings = match name {
                Some(name) => vec![pinned.spec.settings.get(name)?],
                None => pinned.spec.settings.all(),
            };
            vec![
                text(settings.iter().map(|setting| setting.name)),
                text(settings.iter().map(|setting| setting.value.as_str())),
                text(settings.iter().map(|setting| setting.description)),
            ]
        }
        Statement::ShowTables => {
            let relations = relations(snapshot);
            vec![
                text(relations.iter().map(|(schema, ..)| *schema)),
                text(relations.iter().map(|(_, name, _)| *name)),
                text(relations.iter().map(|(.., kind)| *kind)),
            ]
        }
        Statement::ShowSchemas => vec![text(snapshot.schemas.keys().map(String::as_str))],
        Statement::ShowColumns(name) | Statement::Describe(name) => {
            columns_of(pinned, name).await?
        }
        Statement::ShowCreate(name) => {
            let relation = find_relation(&pinned.spec.snapshot, &schema_of(name), &name.name)?;
            let created = create_text(relation)?;
            vec![
                text([name.to_string().as_str()].into_iter()),
                text([created.as_str()].into_iter()),
            ]
        }
        other => {
            let message = format!("{} has no rows to show", other.kind());
            return Err(SqlError::new(ErrorCode::Internal, message));
        }
    };
    let schema = schema(statement).unwrap_or_else(|| Arc::new(Schema::empty()));
    RecordBatch::try_new(schema, columns).map_err(|error| from_datafusion(error.into()))
}

fn text<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn relations(snapshot: &Snapshot) -> Vec<(&str, &str, &'static str)> {
    snapshot
        .schemas
        .iter()
        .flat_map(|(schema, relations)| {
            relations.relations.iter().map(move |(name, relation)| {
                let kind = match relation {
                    Relation::Table(_) => "TABLE",
                    Relation::View(_) => "VIEW",
                };
                (schema.as_str(), name.as_str(), kind)
            })
        })
        .collect()
}

/// Name, type, NULL or not, keys and default of each column.
async fn columns_of(pinned: &Pinned, name: &ObjectRef) -> Result<Vec<ArrayRef>, SqlError> {
    let mut rows: Vec<[Option<String>; 5]> = Vec::new();
    let yes_or_no = |yes| Some(if yes { "YES" } else { "NO" }.to_owned());
    match find_relation(&pinned.spec.snapshot, &schema_of(name), &name.name)? {
        Relation::Table(table) => {
            rows.extend(table.schema.columns.iter().map(|column| {
                [
                    Some(column.name.clone()),
                    Some(column_type_name(column)),
                    yes_or_no(column.nullable),
                    key_of(&table.schema, column.id).map(str::to_owned),
                    column.declared.default.clone(),
                ]
            }));
        }
        Relation::View(view) => {
            let plan = pinned.stored_view_plan(&view.query).await?;
            let wire = wire_schema(&pinned.result_schema(&plan));
            rows.extend(wire.fields().iter().map(|field| {
                let shown = type_name(field.data_type()).unwrap_or_else(|arrow| arrow);
                [Some(field.name().clone()), Some(shown), yes_or_no(true), None, None]
            }));
        }
    }
    let column = |index: usize| {
        let values = rows.iter().map(|row| row.get(index).and_then(Option::as_deref));
        Arc::new(StringArray::from_iter(values)) as ArrayRef
    };
    Ok((0..5).map(column).collect())
}

/// The most telling key that a column is in: `PRI`, `UNI` or `FK`.
fn key_of(schema: &TableSchema, column: ColumnId) -> Option<&'static str> {
    let keys = || schema.keys.iter().filter(|key| key.columns.contains(&column));
    if keys().any(|key| key.kind == KeyKind::Primary) {
        return Some("PRI");
    }
    if keys().any(|key| key.kind == KeyKind::Unique) {
        return Some("UNI");
    }
    keys().next().map(|_| "FK")
}

/// Stages as a table: what was estimated beside what was, and how busy the busiest task was.
fn stage_lines(stages: &[StageProfile]) -> String {
    let titles = [
        "stage",
        "tasks",
        "to",
        "estimated",
        "rows",
        "bytes",
        "wall ms",
        "cpu ms",
        "busiest",
        "spilled",
        "cached",
        "local",
        "peers",
        "work",
    ];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    let or_dash = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    for stage in stages {
        let measured = stage.measured.as_ref();
        let number = |of: fn(&Measured) -> u64| or_dash(measured.map(of));
        let milliseconds = |of: fn(&Measured) -> f64| {
            measured.map_or("-".to_owned(), |measured| format!("{:.1}", of(measured)))
        };
        rows.push(vec![
            stage.stage.to_string(),
            stage.tasks.to_string(),
            stage.exchange.clone(),
            or_dash(stage.rows_estimated),
            number(|measured| measured.rows),
            number(|measured| measured.bytes),
            milliseconds(|measured| measured.wall_ms),
            milliseconds(|measured| measured.compute_ms),
            stage.skew().map_or("-".to_owned(), |skew| format!("{skew:.1} x")),
            number(|measured| measured.spilled_bytes),
            number(|measured| measured.cached_bytes),
            number(|measured| measured.local_bytes),
            number(|measured| measured.peer_bytes),
            stage.operators.clone(),
        ]);
    }
    aligned(&rows)
}

/// How long each worker was at each stage.
fn worker_lines(stages: &[StageProfile]) -> String {
    let mut rows = vec![["stage", "wall ms", "cpu ms", "worker"].map(str::to_owned).to_vec()];
    for stage in stages {
        for time in stage.measured.iter().flat_map(|measured| &measured.workers) {
            rows.push(vec![
                stage.stage.to_string(),
                format!("{:.1}", time.wall_ms),
                format!("{:.1}", time.compute_ms),
                time.worker.clone(),
            ]);
        }
    }
    aligned(&rows)
}

/// Rows below each other, all columns but the last as wide as their widest value.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |place: usize| rows.iter().map(|row| row[place].chars().count()).max().unwrap_or(0);
    let last = rows[0].len() - 1;
    let widths: Vec<_> = (0..last).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
        cells.chain([row[last].clone()]).collect::<Vec<_>>().join("  ")
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn alert_lines(alerts: &[Alert]) -> String {
    let line = |alert: &Alert| format!("{}: {}\n    {}", alert.kind, alert.event, alert.remedy);
    alerts.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The plans of a statement; with ANALYZE after running it, with what every task did.
pub(super) async fn explain(
    statements: &Statements,
    pinned: &Pinned,
    plan: &LogicalPlan,
    explain: &Explain,
    run: &RunNotes,
) -> Result<RecordBatch, SqlError> {
    let error = |error| pinned.error(error);
    let state = SessionStateBuilder::new_from_existing(pinned.state.clone())
        .with_distributed_metrics_collection(explain.analyze)
        .map_err(error)?
        .build();
    let explaining = Explaining { statements, pinned, state, explain, run };
    let shared = match explain.statement.as_ref() {
        Statement::Query(_) => parts_of(pinned, plan),
        _ => None,
    };
    let over_parts = match &shared {
        // What fails there is run as it was written, as the query would be.
        Some(shared) => explaining.shared(shared).await.unwrap_or_default(),
        None => None,
    };
    let lines = match over_parts {
        Some(lines) => lines,
        None => explaining.plan(plan, None).await?.unwrap_or_default(),
    };
    let columns = vec![
        text(lines.iter().map(|(kind, _)| kind.as_str())),
        text(lines.iter().map(|(_, line)| line.as_str())),
    ];
    let fields = ["plan_type", "plan"].map(|name| Field::new(name, DataType::Utf8, true));
    RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), columns)
        .map_err(|error| from_datafusion(error.into()))
}

/// What EXPLAIN says of a plan: what it is, and the text.
type Lines = Vec<(String, String)>;

/// An EXPLAIN under way.
struct Explaining<'a> {
    statements: &'a Statements,
    pinned: &'a Pinned,
    state: SessionState,
    explain: &'a Explain,
    run: &'a RunNotes,
}

impl Explaining<'_> {
    /// A statement over its parts, and the parts; `None` where one has too many rows to be shared.
    async fn shared(&self, shared: &SharedPlan) -> Result<Option<Lines>, SqlError> {
        let (mut parts, mut held) = (Vec::new(), Vec::new());
        for part in &shared.parts {
            let mut rows = PartRows::new(self.statements);
            let lines = self.plan(&part.plan, Some((part, &mut rows))).await?;
            let Some(lines) = lines else { return Ok(None) };
            held.push(rows);
            let name = part.table.name();
            let reads = format!("computed first, once; read in {} places", part.uses);
            parts.push((name.to_owned(), reads));
            parts.extend(lines.into_iter().map(|(kind, line)| (format!("{name} {kind}"), line)));
        }
        let Some(mut lines) = self.plan(&shared.main, None).await? else { return Ok(None) };
        lines.extend(parts);
        Ok(Some(lines))
    }

    /// One plan; that of a part gives its table the rows, and is `None` where they are too many.
    async fn plan(
        &self,
        plan: &LogicalPlan,
        part: Option<(&SharedPart, &mut PartRows)>,
    ) -> Result<Option<Lines>, SqlError> {
        let error = |error| self.pinned.error(error);
        let distributed = plan_distributed(&self.state, plan).await.map_err(error)?;
        let is_too_large = match &part {
            Some((part, _)) => part.is_too_large(&distributed.plan),
            None => !may_be_sent(&distributed.plan),
        };
        if is_too_large {
            return Ok(None);
        }
        let part_name = part.as_ref().map(|(part, _)| part.table.name().to_owned());
        self.run.note_fallback(distributed.fallback.clone());
        let moved: Vec<_> = movements(&distributed.plan).iter().map(ToString::to_string).collect();
        let mut lines: Vec<(&str, String)> = Vec::new();
        if self.explain.analyze {
            let Some(rows) = self.run(&distributed.plan, part).await? else { return Ok(None) };
            let format = match self.explain.verbose {
                true => DistributedMetricsFormat::PerTask,
                false => DistributedMetricsFormat::Aggregated,
            };
            let context = execution_context(&self.state);
            let measured = measured_stages(&distributed.plan, &context);
            let stages = match tokio::time::timeout(MEASURED_WITHIN, measured).await {
                Ok(stages) => stages.map_err(error)?,
                Err(_) => stages(&distributed.plan),
            };
            let tables = tables_of(&distributed.logical);
            let alerts = alerts(&distributed.plan, &stages, tables.values().map(Arc::as_ref));
            let text = explain_analyze(distributed.plan, format).await.map_err(error)?;
            lines.push(("Plan with Metrics", text));
            lines.push(("Rows", rows.to_string()));
            lines.push(("stages", stage_lines(&stages)));
            lines.push(("workers", worker_lines(&stages)));
            if !alerts.is_empty() {
                lines.push(("alerts", alert_lines(&alerts)));
            }
            let profile = QueryProfile { stages, alerts };
            self.run.note_profile(match part_name {
                Some(name) => profile.of_part(&name),
                None => profile,
            });
        } else {
            lines.push(("logical_plan", distributed.logical.display_indent().to_string()));
            lines.push(("physical_plan", display_plan_ascii(distributed.plan.as_ref(), false)));
        }
        if !moved.is_empty() {
            lines.push(("data_movement", moved.join("\n")));
        }
        if let Some(reason) = distributed.fallback {
            lines.push(("fallback", format!("planned as one task: {reason}")));
        }
        Ok(Some(lines.into_iter().map(|(kind, line)| (kind.to_owned(), line)).collect()))
    }

    /// Runs a plan; returns how many rows it has, `None` where they are too many for a part.
    async fn run(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        mut part: Option<(&SharedPart, &mut PartRows)>,
    ) -> Result<Option<usize>, SqlError> {
        let error = |error| self.pinned.error(error);
        let stream = execute_stream(Arc::clone(plan), execution_context(&self.state));
        let mut stream = stream.map_err(error)?;
        // Counted as they come: the rows themselves may be more than memory holds.
        let mut rows = 0;
        while let Some(batch) = stream.try_next().await.map_err(error)? {
            rows += batch.num_rows();
            if let Some((_, kept)) = &mut part
                && !kept.push(batch)
            {
                return Ok(None);
            }
        }
        if let Some((part, kept)) = part {
            kept.fill(part).map_err(error)?;
        }
        Ok(Some(rows))
    }
}
