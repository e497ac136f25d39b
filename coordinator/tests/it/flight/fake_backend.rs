//! A [`SqlBackend`] that is one in-process DataFusion context with tables in memory.
//!
//! Good enough for real drivers to work end to end; it counts what it runs, so that tests can
//! tell once from twice, and has statements that misbehave on purpose:
//! `PANIC`, `HANG` (never ends planning) and `FOREVER` (rows without end).

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use async_trait::async_trait;
use basalt_coordinator::backend::{
    ExecuteRequest, IngestMode, IngestRequest, Outcome, PlannedQuery, QueryId, RowStream,
    SessionId, SqlBackend, StatementDescription, UpdateRequest,
};
use basalt_coordinator::catalog::RequestKey;
use basalt_engine::error::{ErrorCode, SqlError};
use basalt_engine::snapshot::{
    CATALOG, ClusterView, DEFAULT_SCHEMA, Distribution, Relation, SchemaSnapshot, Snapshot,
    TableSnapshot, ViewSnapshot,
};
use basalt_storage::ids::{ClusterId, ColumnId, Epoch, TableId};
use basalt_storage::schema::{Column, TableSchema};
use datafusion::common::TableReference;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{ParamValues, ScalarValue, SchemaError};
use datafusion::config::ConfigOptions;
use datafusion::datasource::{MemTable, TableType};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};

/// The backend, and what it has seen.
pub(super) struct FakeBackend {
    context: SessionContext,
    streams: Streams,
    /// Statements that changed something.
    pub(super) changes: AtomicUsize,
    /// Statements that hang in planning now.
    pub(super) hanging: Arc<AtomicUsize>,
    /// Ingests that read their stream now.
    pub(super) ingesting: Arc<AtomicUsize>,
    /// Keys of the calls that ran something, in order.
    pub(super) keys: Mutex<Vec<Option<String>>>,
    /// Sessions that were closed.
    pub(super) closed_sessions: Mutex<Vec<SessionId>>,
}

impl FakeBackend {
    pub(super) fn new() -> Arc<Self> {
        let config = SessionConfig::new()
            .with_default_catalog_and_schema(CATALOG, DEFAULT_SCHEMA)
            .with_target_partitions(2)
            .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false)
            .set_bool("datafusion.sql_parser.collect_spans", true);
        // A query that gets out of hand fails, and fills neither memory nor disk.
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_limit(1 << 30, 1.0)
            .with_disk_manager_builder(
                DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled),
            )
            .build_arc()
            .unwrap();
        let state = SessionStateBuilder::new_with_default_features()
            .with_config(config)
            .with_runtime_env(runtime)
            .with_physical_optimizer_rule(Arc::new(YieldingJoins))
            .build();
        Arc::new(Self {
            context: SessionContext::new_with_state(state),
            streams: Streams::default(),
            changes: AtomicUsize::new(0),
            hanging: Arc::default(),
            ingesting: Arc::default(),
            keys: Mutex::default(),
            closed_sessions: Mutex::default(),
        })
    }

    /// Queries whose rows are being read.
    pub(super) fn running(&self) -> usize {
        self.streams.running.lock().unwrap().len()
    }

    /// Batches that streams have handed out.
    pub(super) fn batches(&self) -> usize {
        self.streams.batches.load(Ordering::SeqCst)
    }

    /// Adds an empty table, without SQL.
    pub(super) fn add_table(&self, name: &str, schema: SchemaRef) {
        let table = MemTable::try_new(schema, vec![Vec::new()]).unwrap();
        self.context.register_table(name, Arc::new(table)).unwrap();
    }

    fn note_key(&self, key: &Option<RequestKey>) {
        self.keys.lock().unwrap().push(key.as_ref().map(ToString::to_string));
    }

    async fn plan(&self, sql: &str) -> Result<LogicalPlan, SqlError> {
        let mut statements = parse(sql)?;
        match (statements.pop(), statements.is_empty()) {
            (Some(statement), true) => self.plan_statement(statement).await,
            (None, _) => Err(SqlError::new(ErrorCode::SyntaxError, "the statement is empty")),
            _ => Err(SqlError::new(ErrorCode::SyntaxError, "more than one statement")),
        }
    }

    async fn plan_statement(&self, statement: Statement) -> Result<LogicalPlan, SqlError> {
        self.context.state().statement_to_plan(statement).await.map_err(sql_error)
    }

    async fn run(&self, plan: LogicalPlan) -> Result<Option<u64>, SqlError> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        let counts = matches!(plan, LogicalPlan::Dml(_));
        let frame = self.context.execute_logical_plan(plan).await.map_err(sql_error)?;
        let batches = frame.collect().await.map_err(sql_error)?;
        let count = |batch: &RecordBatch| batch.column(0).as_primitive::<UInt64Type>().value(0);
        Ok(counts.then(|| batches.iter().map(count).sum()))
    }

    fn rows(&self, plan: LogicalPlan, query_id: QueryId) -> PlannedQuery {
        let schema = wire_schema(plan.schema().as_arrow());
        let frame = DataFrame::new(self.context.state(), plan);
        let wire = Arc::clone(&schema);
        let rows = stream::once(async move { frame.execute_stream().await }).try_flatten();
        let rows = rows.map(move |batch| to_wire(batch.map_err(sql_error)?, &wire));
        let streams = self.streams.clone();
        PlannedQuery {
            query_id,
            schema,
            start: Box::new(move || streams.counted(query_id, rows.boxed())),
        }
    }

    fn endless(&self, query_id: QueryId) -> PlannedQuery {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100_000));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![values]).unwrap();
        let rows = stream::repeat(batch).map(Ok).then(|batch| async {
            tokio::task::yield_now().await;
            batch
        });
        let streams = self.streams.clone();
        PlannedQuery {
            query_id,
            schema,
            start: Box::new(move || streams.counted(query_id, rows.boxed())),
        }
    }

    async fn hang(&self) {
        let hanging = Arc::clone(&self.hanging);
        hanging.fetch_add(1, Ordering::SeqCst);
        let _over = OnDrop(Some(move || {
            hanging.fetch_sub(1, Ordering::SeqCst);
        }));
        std::future::pending::<()>().await;
    }
}

/// What is known of the streams of rows.
#[derive(Clone, Default)]
struct Streams {
    running: Arc<Mutex<HashSet<QueryId>>>,
    batches: Arc<AtomicUsize>,
}

impl Streams {
    /// The rows, counted, and registered as running until they are dropped.
    fn counted(self, query: QueryId, rows: RowStream) -> RowStream {
        let running = self.running;
        running.lock().unwrap().insert(query);
        let over = OnDrop(Some(move || {
            running.lock().unwrap().remove(&query);
        }));
        rows.inspect(move |_| {
            let _alive = &over;
            self.batches.fetch_add(1, Ordering::SeqCst);
        })
        .boxed()
    }
}

struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(action) = self.0.take() {
            action();
        }
    }
}

#[async_trait]
impl SqlBackend for FakeBackend {
    async fn describe(&self, _: SessionId, sql: &str) -> Result<StatementDescription, SqlError> {
        if sql == "FOREVER" {
            let schema = self.endless(QueryId::nil()).schema;
            return Ok(StatementDescription { rows: Some(schema), parameters: Vec::new() });
        }
        let plan = self.plan(sql).await?;
        let mut parameters: Vec<(usize, Field)> = plan
            .get_parameter_fields()
            .map_err(sql_error)?
            .into_iter()
            .filter_map(|(name, field)| {
                let data_type = field.map_or(DataType::Null, |field| field.data_type().clone());
                let number = name.trim_start_matches('$').parse().ok()?;
                Some((number, Field::new(name, data_type, true)))
            })
            .collect();
        parameters.sort_by_key(|(number, _)| *number);
        let parameters = parameters.into_iter().map(|(_, field)| field).collect();
        let rows = is_query(&plan).then(|| wire_schema(plan.schema().as_arrow()));
        Ok(StatementDescription { rows, parameters })
    }

    async fn execute(&self, request: ExecuteRequest) -> Result<Outcome, SqlError> {
        self.note_key(&request.request);
        let query_id = QueryId::new_v4();
        match request.sql.as_str() {
            "PANIC" => panic!("as asked"),
            "HANG" => self.hang().await,
            "FOREVER" => return Ok(Outcome::Rows(self.endless(query_id))),
            _ => {}
        }
        let mut plan = self.plan(&request.sql).await?;
        if let Some(row) = &request.parameters {
            plan = bind(plan, row, 0)?;
        }
        if !is_query(&plan) {
            return Ok(Outcome::Done { rows_affected: self.run(plan).await? });
        }
        Ok(Outcome::Rows(self.rows(plan, query_id)))
    }

    async fn execute_update(&self, request: UpdateRequest) -> Result<u64, SqlError> {
        self.note_key(&request.request);
        let UpdateRequest { sql, parameters, .. } = request;
        let sql = sql.as_str();
        let mut affected = 0;
        let Some(parameters) = parameters else {
            for statement in parse(sql)? {
                let plan = self.plan_statement(statement).await?;
                affected += self.run(plan).await?.unwrap_or(0);
            }
            return Ok(affected);
        };
        let plan = self.plan(sql).await?;
        for batch in &parameters {
            for row in 0..batch.num_rows() {
                affected += self.run(bind(plan.clone(), batch, row)?).await?.unwrap_or(0);
            }
        }
        Ok(affected)
    }

    async fn ingest(
        &self,
        request: IngestRequest,
        schema: SchemaRef,
        batches: BoxStream<'static, Result<RecordBatch, SqlError>>,
    ) -> Result<u64, SqlError> {
        self.note_key(&request.request);
        let name = request.schema_name.unwrap_or_else(|| DEFAULT_SCHEMA.to_owned());
        let provider = self
            .context
            .catalog(CATALOG)
            .and_then(|catalog| catalog.schema(&name))
            .ok_or_else(|| undefined(&name))?;
        let table = request.table;
        let existing = provider.table(&table).await.map_err(sql_error)?;
        let existing = match (request.mode, existing) {
            (IngestMode::Create, Some(_)) => {
                let text = format!("table \"{table}\" exists already");
                return Err(SqlError::new(ErrorCode::DuplicateObject, text));
            }
            (IngestMode::Append, None) => return Err(undefined(&table)),
            (IngestMode::Replace, _) => None,
            (_, existing) => existing,
        };
        self.ingesting.fetch_add(1, Ordering::SeqCst);
        let ingesting = Arc::clone(&self.ingesting);
        let _over = OnDrop(Some(move || {
            ingesting.fetch_sub(1, Ordering::SeqCst);
        }));
        let target = existing.as_ref().map_or_else(|| schema.clone(), |table| table.schema());
        check_columns(&schema, &target)?;
        let target = wire_schema(&target);
        let mut rows: Vec<RecordBatch> =
            batches.map(|batch| to_wire(batch?, &target)).try_collect().await?;
        let loaded = rows.iter().map(|batch| batch.num_rows() as u64).sum();
        if existing.is_some() {
            let all = self
                .context
                .table(TableReference::full(CATALOG, name.as_str(), table.as_str()))
                .await;
            rows.extend(all.map_err(sql_error)?.collect().await.map_err(sql_error)?);
            rows = rows.into_iter().map(|b| to_wire(b, &target)).collect::<Result<_, _>>()?;
        }
        let memory = MemTable::try_new(target, vec![rows]).map_err(sql_error)?;
        provider.deregister_table(&table).map_err(sql_error)?;
        provider.register_table(table, Arc::new(memory)).map_err(sql_error)?;
        Ok(loaded)
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        let catalog = self.context.catalog(CATALOG).unwrap();
        let mut schemas = BTreeMap::new();
        for schema_name in catalog.schema_names() {
            let provider = catalog.schema(&schema_name).unwrap();
            let mut relations = BTreeMap::new();
            for name in provider.table_names() {
                let table = provider.table(&name).now_or_never().unwrap().unwrap().unwrap();
                let relation = match table.table_type() {
                    TableType::View => Relation::View(Arc::new(ViewSnapshot {
                        schema_name: schema_name.clone(),
                        name: name.clone(),
                        query: table.get_table_definition().unwrap_or_default().to_owned(),
                    })),
                    _ => Relation::Table(Arc::new(table_snapshot(
                        &schema_name,
                        &name,
                        &table.schema(),
                    ))),
                };
                relations.insert(name, relation);
            }
            schemas.insert(schema_name, Arc::new(SchemaSnapshot { relations }));
        }
        let cluster = ClusterView {
            cluster: ClusterId::generate(),
            epoch: Epoch(1),
            slice_owners: Vec::new(),
            slice_partners: Vec::new(),
            members: 0,
            workers: BTreeMap::new(),
            domains: [].into(),
            moved: [].into(),
        };
        Arc::new(Snapshot { version: 1, cluster: Arc::new(cluster), schemas, pin: Arc::default() })
    }

    async fn relation_schema(&self, schema: &str, relation: &str) -> Result<SchemaRef, SqlError> {
        let provider =
            self.context.table_provider(TableReference::full(CATALOG, schema, relation)).await;
        Ok(wire_schema(&provider.map_err(|_| undefined(relation))?.schema()))
    }

    fn cancel(&self, query: QueryId) -> bool {
        self.streams.running.lock().unwrap().remove(&query)
    }

    fn close_session(&self, session: SessionId) {
        self.closed_sessions.lock().unwrap().push(session);
    }
}

/// Makes joins yield, so that queries can be cancelled.
///
/// DataFusion makes leaves yield; a join that makes millions of rows of one batch polls its leaf
/// too rarely for that to help.
#[derive(Debug)]
struct YieldingJoins;

impl PhysicalOptimizerRule for YieldingJoins {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        plan.transform_up(|node| {
            Ok(if node.name().ends_with("JoinExec") {
                Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>)
            } else {
                Transformed::no(node)
            })
        })
        .map(|transformed| transformed.data)
    }

    fn name(&self) -> &str {
        "YieldingJoins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn table_snapshot(schema_name: &str, name: &str, schema: &Schema) -> TableSnapshot {
    let columns = schema.fields().iter().enumerate().map(|(i, field)| Column {
        id: ColumnId(i as u32 + 1),
        name: field.name().clone(),
        data_type: field.data_type().clone(),
        nullable: field.is_nullable(),
        declared: Default::default(),
    });
    TableSnapshot {
        id: TableId(1),
        schema_name: schema_name.to_owned(),
        name: name.to_owned(),
        version: 1,
        schema: Arc::new(TableSchema { version: 1, columns: columns.collect(), keys: vec![] }),
        distribution: Distribution::Even,
        chosen_key: None,
        sort_key: Vec::new(),
        replicas: 1,
        segments: Vec::new().into(),
        statistics: None,
    }
}

/// The statements of a text, with every `?` numbered.
fn parse(sql: &str) -> Result<Vec<Statement>, SqlError> {
    let syntax = |e: &dyn std::fmt::Display| SqlError::new(ErrorCode::SyntaxError, e.to_string());
    let tokens = Tokenizer::new(&GenericDialect, sql).tokenize().map_err(|e| syntax(&e))?;
    let mut number = 0;
    let numbered: String = tokens
        .into_iter()
        .map(|token| match token {
            Token::Placeholder(name) if name == "?" => {
                number += 1;
                format!("${number}")
            }
            token => token.to_string(),
        })
        .collect();
    let text = if number == 0 { sql } else { &numbered };
    DFParser::parse_sql(text).map(Vec::from).map_err(|e| syntax(&e.strip_backtrace()))
}

fn bind(plan: LogicalPlan, batch: &RecordBatch, row: usize) -> Result<LogicalPlan, SqlError> {
    let values = batch.columns().iter().map(|c| ScalarValue::try_from_array(c, row));
    let values = values.collect::<Result<Vec<_>, _>>().map_err(sql_error)?;
    plan.with_param_values(ParamValues::from(values)).map_err(sql_error)
}

fn is_query(plan: &LogicalPlan) -> bool {
    !matches!(
        plan,
        LogicalPlan::Dml(_)
            | LogicalPlan::Ddl(_)
            | LogicalPlan::Copy(_)
            | LogicalPlan::Statement(_)
    )
}

fn wire_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, value) => wire_type(value),
        other => other.clone(),
    }
}

fn wire_schema(schema: &Schema) -> SchemaRef {
    let fields =
        schema.fields().iter().map(|f| Field::new(f.name(), wire_type(f.data_type()), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn to_wire(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, SqlError> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| cast(column, field.data_type()));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    columns
        .collect::<Result<Vec<_>, _>>()
        .and_then(|c| RecordBatch::try_new_with_options(Arc::clone(schema), c, &options))
        .map_err(|e| SqlError::new(ErrorCode::DatatypeMismatch, e.to_string()))
}

/// Every difference between the columns sent and the table's, in one error.
fn check_columns(sent: &Schema, target: &Schema) -> Result<(), SqlError> {
    let mut differences = Vec::new();
    for field in target.fields() {
        match sent.field_with_name(field.name()) {
            Err(_) => differences.push(format!("column \"{}\" is missing", field.name())),
            Ok(f) if wire_type(f.data_type()) != wire_type(field.data_type()) => {
                differences.push(format!(
                    "column \"{}\" is {}, not {}",
                    field.name(),
                    f.data_type(),
                    field.data_type()
                ))
            }
            Ok(_) => {}
        }
    }
    for field in sent.fields().iter().filter(|f| target.field_with_name(f.name()).is_err()) {
        differences.push(format!("column \"{}\" is not in the table", field.name()));
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(SqlError::new(ErrorCode::DatatypeMismatch, differences.join("; ")))
}

fn undefined(name: &str) -> SqlError {
    SqlError::new(ErrorCode::UndefinedTable, format!("\"{name}\" does not exist"))
}

fn sql_error(error: DataFusionError) -> SqlError {
    let text = error.strip_backtrace();
    let code = match error.find_root() {
        DataFusionError::SQL(..) => ErrorCode::SyntaxError,
        DataFusionError::SchemaError(e, _) if matches!(**e, SchemaError::FieldNotFound { .. }) => {
            ErrorCode::UndefinedColumn
        }
        DataFusionError::ArrowError(..) => ErrorCode::DataException,
        DataFusionError::NotImplemented(_) => ErrorCode::FeatureNotSupported,
        _ if text.contains("already exists") => ErrorCode::DuplicateObject,
        _ if text.contains("not found") || text.contains("doesn't exist") => {
            ErrorCode::UndefinedTable
        }
        _ => ErrorCode::InvalidStatement,
    };
    SqlError::new(code, text)
}
