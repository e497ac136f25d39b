//! INSERT, CREATE TABLE AS and COPY: a plan whose rows go into slices.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema, UInt64Type};
use basalt_engine::defaults::default_expr;
use basalt_engine::dialect::{
    CopyFrom, CreateTable, Insert, ObjectRef, ParsedStatement, Statement,
};
use basalt_engine::error::{ErrorCode, Position, SqlError, from_datafusion};
use basalt_engine::files::{ColumnMapping, FileFormat, FileTable, load_mapping};
use basalt_engine::plan_size::check_plan_size;
use basalt_engine::session::execution_context;
use basalt_engine::snapshot::{Distribution, TableSnapshot};
use basalt_engine::write::{AppendTable, AppendTarget};
use basalt_storage::schema::TableSchema;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ScalarValue, TableReference};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Values};
use datafusion::physical_plan::execute_stream;
use datafusion::sql::parser::Statement as DFStatement;
use datafusion::sql::sqlparser::ast;
use futures::TryStreamExt;

use super::Statements;
use super::definition::{
    Existing, make_room, new_table, quoted, quoted_ref, schema_of, stored_columns,
};
use super::insert_defaults::{fill_defaults, source_with_defaults};
use super::parameters::{bind, check_count, parameter_row};
use super::registry::RunNotes;
use super::replan::Attempts;
use super::session::Pinned;
use super::target::TargetTable;
use super::transaction::Transaction;
use crate::catalog::{Change, find_table};

/// The name of the table that parameter rows are read from.
const PARAMETERS_TABLE: &str = "parameters";

impl Pinned {
    /// The rows of an INSERT, in the order and types of the target's columns.
    pub(super) async fn insert_plan(&self, insert: &Insert) -> Result<LogicalPlan, SqlError> {
        // The target must be a stored table, whatever DataFusion would insert into.
        let table = self.insert_target(insert)?;
        let statement = self.insert_statement(insert, source_with_defaults(insert, &table)?)?;
        let plan = self.state.statement_to_plan(statement).await.map_err(|error| {
            // Positions of the target count in a text that the user never wrote.
            SqlError { position: None, ..self.error(error) }
        })?;
        match plan {
            LogicalPlan::Dml(dml) => {
                check_plan_size(&dml.input).map_err(|e| self.error(e))?;
                nullable_values(Arc::unwrap_or_clone(dml.input))
                    .and_then(|rows| fill_defaults(&self.state, rows, &table, &insert.columns))
                    .map_err(|e| self.error(e))
            }
            other => Err(SqlError::new(
                ErrorCode::Internal,
                format!("an INSERT was planned as {}", other.display()),
            )),
        }
    }

    /// An INSERT of these rows as DataFusion's planner takes it. The rows are handed on as they were
    /// parsed: written out, `'a''''b'` becomes `'a''b'`, because the parser's printer takes two quotes
    /// in a value for one that is escaped.
    fn insert_statement(
        &self,
        insert: &Insert,
        source: Box<ast::Query>,
    ) -> Result<DFStatement, SqlError> {
        let columns: Vec<_> = insert.columns.iter().map(|column| quoted(column)).collect();
        let columns = match columns.is_empty() {
            true => String::new(),
            false => format!(" ({})", columns.join(", ")),
        };
        let sql = format!("INSERT INTO {}{columns} SELECT 1", quoted_ref(&insert.table));
        let dialect = self.state.config_options().sql_parser.dialect;
        let mut statement =
            self.state.sql_to_statement(&sql, &dialect).map_err(|error| self.error(error))?;
        if let DFStatement::Statement(inner) = &mut statement
            && let ast::Statement::Insert(insert) = inner.as_mut()
        {
            insert.source = Some(source);
            return Ok(statement);
        }
        Err(SqlError::new(ErrorCode::Internal, "an INSERT cannot be put together"))
    }

    fn insert_target(&self, insert: &Insert) -> Result<Arc<TableSnapshot>, SqlError> {
        self.table_to_write(&insert.table, insert.table_position)
    }

    /// The stored table that a statement names as what it changes.
    pub(super) fn table_to_write(
        &self,
        table: &ObjectRef,
        position: Position,
    ) -> Result<Arc<TableSnapshot>, SqlError> {
        let schema = schema_of(table);
        find_table(&self.spec.snapshot, &schema, &table.name)
            .map(Arc::clone)
            .map_err(|error| SqlError::from(error).at(position))
    }

    /// A new transaction's target in a table of the snapshot.
    pub(super) fn target(&self, table: &TableSnapshot) -> Result<AppendTarget, SqlError> {
        self.target_in(TargetTable::from(table))
    }

    /// The same for a table that may be created with its rows.
    pub(super) fn target_in(&self, table: TargetTable) -> Result<AppendTarget, SqlError> {
        let consistency = self.spec.settings.write_consistency;
        table.begin(&self.spec.snapshot.cluster, consistency)
    }
}

impl Statements {
    /// `INSERT INTO ... VALUES | SELECT`.
    pub(super) async fn insert(
        &self,
        run: &RunNotes,
        insert: &Insert,
        values: Vec<ScalarValue>,
    ) -> Result<u64, SqlError> {
        let pinned = self.pin_run(run)?;
        let plan = pinned.insert_plan(insert).await?;
        let plan = bind(plan, values).map_err(|e| pinned.error(e))?;
        let table = pinned.insert_target(insert)?;
        let transaction = self.begin_rows(pinned.target(&table)?).await?;
        let rows = self.append(&pinned, plan, transaction.target()).await?;
        self.commit_rows(run, transaction, vec![], rows).await
    }

    /// A statement run once per row of parameters, in one commit.
    pub(super) async fn execute_many(
        &self,
        run: &RunNotes,
        parsed: ParsedStatement,
        parameters: Vec<RecordBatch>,
    ) -> Result<u64, SqlError> {
        if parameters.iter().all(|batch| batch.num_rows() == 0) {
            return Ok(0);
        }
        let parsed = self.qualified(run.session(), parsed)?;
        let Statement::Insert(insert) = parsed.statement else {
            let message =
                format!("{} cannot be run with rows of parameters", parsed.statement.kind());
            return Err(SqlError::new(ErrorCode::FeatureNotSupported, message)
                .with_hint("only INSERT can; run other statements once per row"));
        };
        let schema = parameters.first().map(RecordBatch::schema);
        let schema = schema.unwrap_or_else(|| Arc::new(Schema::empty()));
        check_count(parsed.parameters, schema.fields().len())?;
        let batch = concat_batches(&schema, &parameters).map_err(|e| from_datafusion(e.into()))?;
        let pinned = self.pin_run(run)?;
        let plan = pinned.insert_plan(&insert).await?;
        let table = pinned.insert_target(&insert)?;
        let transaction = self.begin_rows(pinned.target(&table)?).await?;
        let error = |error| pinned.error(error);
        let rows = match over_parameter_rows(&plan, &batch).map_err(error)? {
            Some(plan) => self.append(&pinned, plan, transaction.target()).await?,
            None => {
                let mut rows = 0;
                for row in 0..batch.num_rows() {
                    let values = parameter_row(&batch, row).map_err(error)?;
                    let plan = bind(plan.clone(), values).map_err(error)?;
                    rows += self.append(&pinned, plan, transaction.target()).await?;
                }
                rows
            }
        };
        self.commit_rows(run, transaction, vec![], rows).await
    }

    /// `CREATE TABLE AS`: the table and its rows in one commit.
    pub(super) async fn create_table_as(
        &self,
        run: &RunNotes,
        create: &CreateTable,
        values: Vec<ScalarValue>,
    ) -> Result<u64, SqlError> {
        let mut attempts = Attempts::default();
        loop {
            let pinned = self.pin_run(run)?;
            match self.create_and_fill(run, &pinned, create, values.clone()).await {
                // Its name was free, and is taken now: there may be nothing to do any more.
                Err(error)
                    if (create.if_not_exists || create.or_replace)
                        && error.code == ErrorCode::DuplicateObject
                        && attempts
                            .again(&pinned.spec.snapshot, &self.inner.catalog.snapshot()) => {}
                result => return result,
            }
        }
    }

    async fn create_and_fill(
        &self,
        run: &RunNotes,
        pinned: &Pinned,
        create: &CreateTable,
        values: Vec<ScalarValue>,
    ) -> Result<u64, SqlError> {
        let snapshot = &pinned.spec.snapshot;
        let room =
            make_room(snapshot, &create.name, create.or_replace, create.if_not_exists, false)
                .map_err(|error| error.at(create.name_position))?;
        let Existing::Free(mut changes) = room else { return Ok(0) };
        let Some(query) = create.query.clone() else {
            return Err(SqlError::new(ErrorCode::Internal, "CREATE TABLE AS has no query"));
        };
        let statement = DFStatement::Statement(Box::new(ast::Statement::Query(query)));
        let plan = pinned.query_plan(statement).await?;
        let plan = bind(plan, values).map_err(|e| pinned.error(e))?;
        let (plan, columns) = match create.columns.is_empty() {
            true => {
                let columns = stored_columns(pinned.result_schema(&plan).fields())?;
                (plan, columns)
            }
            false => pinned.as_declared(plan, create)?,
        };
        let id = self.inner.catalog.allocate_table_id().await?;
        let table = new_table(id, create, columns, &snapshot.cluster)?;
        let target = pinned.target_in(TargetTable::from(&table))?;
        changes.push(Change::CreateTable(table));
        let transaction = self.begin(target);
        let rows = self.append(pinned, plan, transaction.target()).await?;
        self.commit_rows(run, transaction, changes, rows).await
    }

    /// `COPY ... FROM`: all files in one commit, or nothing.
    pub(super) async fn copy_from(&self, run: &RunNotes, copy: &CopyFrom) -> Result<u64, SqlError> {
        let pinned = self.pin_run(run)?;
        let schema = schema_of(&copy.table);
        let table = find_table(&pinned.spec.snapshot, &schema, &copy.table.name)
            .map_err(|error| SqlError::from(error).at(copy.table_position))?;
        let filled = load_schema(table, copy.columns.as_deref())?.to_arrow();
        let (path, format, options) = (copy.path.clone(), copy.format, copy.options.clone());
        let (declared, roots) = (Arc::clone(&filled), pinned.spec.sessions.allowed_roots.clone());
        let opened = tokio::task::spawn_blocking(move || {
            FileTable::open(&path, format, &options, Some(&declared), &roots)
        });
        let files = opened.await.map_err(|error| {
            SqlError::new(ErrorCode::Internal, format!("looking at the files failed: {error}"))
        })??;
        let even = matches!(table.appended_by(), Distribution::Even | Distribution::Auto);
        // Rows of Parquet files are split evenly over the workers, so they may stay where they are,
        // unless workers take different shares.
        let local = even && files.scan().format == FileFormat::Parquet;
        let mapping = load_mapping(&files.scan().schema, &filled)?;
        let plan = copy_plan(&pinned.state, files, table, &filled, &mapping)
            .map_err(|e| pinned.error(e))?;
        let target = pinned.target(table)?;
        let target = AppendTarget { local_slices: local && target.is_even(), ..target };
        let transaction = self.begin_rows(target).await?;
        let rows = self.append(&pinned, plan, transaction.target()).await?;
        self.commit_rows(run, transaction, vec![], rows).await
    }

    /// Starts a write; it aborts everywhere unless it is committed.
    pub(super) fn begin(&self, target: AppendTarget) -> Transaction {
        let open = self.inner.reconciler.begin_write(target.txn);
        Transaction::new(Arc::new(target), self.inner.channels.clone(), open)
    }

    /// Runs a plan into a target; returns how many rows its slices' owners took.
    pub(super) async fn append(
        &self,
        pinned: &Pinned,
        rows: LogicalPlan,
        target: &Arc<AppendTarget>,
    ) -> Result<u64, SqlError> {
        let error = |error| pinned.error(error);
        let plan = AppendTable::append_plan(rows, Arc::clone(target));
        let plan = pinned.distributed(&plan).await?;
        let counts = execute_stream(plan, execution_context(&pinned.state)).map_err(error)?;
        let counts: Vec<RecordBatch> = counts.try_collect().await.map_err(error)?;
        Ok(counts
            .iter()
            .filter_map(|batch| batch.column(0).as_primitive_opt::<UInt64Type>())
            .flat_map(|counts| counts.values().iter().copied())
            .sum())
    }
}

/// The rows of VALUES as columns that may be NULL. DataFusion takes NOT NULL over from the target,
/// and would refuse a NULL by the name of its own column; the write refuses it by the table's.
fn nullable_values(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let nullable = |values: Values| -> Result<Values, DataFusionError> {
        let fields = values.schema.iter().map(|(qualifier, field)| {
            (qualifier.cloned(), Arc::new(field.as_ref().clone().with_nullable(true)))
        });
        let schema =
            DFSchema::new_with_metadata(fields.collect(), values.schema.metadata().clone())?;
        Ok(Values { schema: Arc::new(schema), ..values })
    };
    plan.transform_up(|node| match node {
        LogicalPlan::Values(values) => Ok(Transformed::yes(LogicalPlan::Values(nullable(values)?))),
        other => Ok(Transformed::yes(other.recompute_schema()?)),
    })
    .data()
}

/// The columns that a COPY fills.
fn load_schema(table: &TableSnapshot, columns: Option<&[String]>) -> Result<TableSchema, SqlError> {
    let Some(names) = columns else { return Ok(table.schema.as_ref().clone()) };
    for name in names {
        if !table.schema.columns.iter().any(|column| column.name == *name) {
            let message = format!("column \"{name}\" of table \"{}\" does not exist", table.name);
            return Err(SqlError::new(ErrorCode::UndefinedColumn, message));
        }
    }
    let columns = table.schema.columns.iter().filter(|column| names.contains(&column.name));
    let version = table.schema.version;
    Ok(TableSchema { version, columns: columns.cloned().collect(), keys: vec![] })
}

/// The table's columns in order: from the file where it has them, and their defaults where
/// COPY leaves them out.
fn copy_plan(
    state: &SessionState,
    files: FileTable,
    table: &TableSnapshot,
    filled: &Schema,
    mapping: &[ColumnMapping],
) -> Result<LogicalPlan, DataFusionError> {
    let source = Arc::clone(&files.scan().schema);
    let scan = LogicalPlanBuilder::scan("files", provider_as_source(Arc::new(files)), None)?;
    let sources: HashMap<&String, &String> = mapping
        .iter()
        .map(|mapped| (filled.field(mapped.target).name(), source.field(mapped.source).name()))
        .collect();
    let outputs: Vec<Expr> = table
        .schema
        .columns
        .iter()
        .map(|column| {
            let value = match sources.get(&column.name) {
                Some(name) => Expr::Column(Column::new(Some(TableReference::bare("files")), *name)),
                None => default_expr(state, column)?,
            };
            Ok(value.alias(column.name.clone()))
        })
        .collect::<Result<_, DataFusionError>>()?;
    scan.project(outputs)?.build()
}

/// The rows of an `INSERT ... VALUES (...)` for all rows of parameters at once: the one row of
/// VALUES becomes a projection over a table of the parameters. `None` when the plan is not so.
fn over_parameter_rows(
    plan: &LogicalPlan,
    parameters: &RecordBatch,
) -> Result<Option<LogicalPlan>, DataFusionError> {
    let mut single_rows = 0;
    plan.apply(|node| {
        if let LogicalPlan::Values(values) = node {
            single_rows += usize::from(values.values.len() == 1);
        } else if node.inputs().is_empty() || !matches!(node, LogicalPlan::Projection(_)) {
            single_rows = usize::MAX / 2;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if single_rows != 1 {
        return Ok(None);
    }
    let fields = (1..)
        .zip(parameters.schema_ref().fields())
        .map(|(number, field)| Field::new(format!("p{number}"), field.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let batch = RecordBatch::try_new(Arc::clone(&schema), parameters.columns().to_vec())?;
    let table: Arc<MemTable> = Arc::new(MemTable::try_new(schema, vec![vec![batch]])?);
    let rewritten = plan.clone().transform_up(|node| match &node {
        LogicalPlan::Values(values) => {
            values_over(values, Arc::clone(&table)).map(Transformed::yes)
        }
        LogicalPlan::Projection(_) => node.recompute_schema().map(Transformed::yes),
        _ => Ok(Transformed::no(node)),
    })?;
    Ok(Some(rewritten.data))
}

fn values_over(values: &Values, table: Arc<MemTable>) -> Result<LogicalPlan, DataFusionError> {
    let scan = LogicalPlanBuilder::scan(PARAMETERS_TABLE, provider_as_source(table), None)?;
    let row = values.values.first().cloned().unwrap_or_default();
    let outputs = row
        .into_iter()
        .zip(values.schema.fields())
        .map(|(value, field)| {
            let value = value.transform_up(|expr| match &expr {
                Expr::Placeholder(Placeholder { id, .. }) => {
                    let name = format!("p{}", id.trim_start_matches('$'));
                    let table = Some(TableReference::bare(PARAMETERS_TABLE));
                    Ok(Transformed::yes(Expr::Column(Column::new(table, name))))
                }
                _ => Ok(Transformed::no(expr)),
            })?;
            Ok(value.data.alias(field.name()))
        })
        .collect::<Result<Vec<_>, DataFusionError>>()?;
    scan.project(outputs)?.build()
}
