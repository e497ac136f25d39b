//! The seam to the Flight SQL service: every kind of statement to the one that runs it.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use basalt_engine::dialect::{self, Explain, ParsedStatement, Statement};
use basalt_engine::error::{ErrorCode, SqlError, from_datafusion};
use basalt_engine::settings::SEARCH_PATH;
use basalt_engine::snapshot::{CATALOG, Snapshot};
use basalt_engine::stack::LargeStack;
use basalt_engine::types::wire_schema;
use datafusion::common::ScalarValue;
use futures::stream::BoxStream;

use super::definition::quoted;
use super::parameters::{bind, check_count, parameter_fields, parameter_row};
use super::query::ready_rows;
use super::registry::{RunGuard, RunNotes, RunRequest};
use super::session::Pinned;
use super::{Statements, parse_one, show};
use crate::backend::{
    ExecuteRequest, IngestRequest, Outcome, QueryId, SessionId, SqlBackend, StatementDescription,
    UpdateRequest,
};
use crate::catalog::RequestKey;

#[async_trait]
impl SqlBackend for Statements {
    async fn describe(
        &self,
        session: SessionId,
        sql: &str,
    ) -> Result<StatementDescription, SqlError> {
        LargeStack::new(async move {
            self.inner.catalog.readable().await?;
            let parsed = self.qualified(session, parse_one(sql)?)?;
            let count = parsed.parameters;
            let pinned = self.pin(session)?;
            let none = |rows| {
                parameter_fields(None, count)
                    .map(|parameters| StatementDescription { rows, parameters })
                    .map_err(from_datafusion)
            };
            match parsed.statement {
                Statement::Query(query) => {
                    let plan = pinned.query_plan(query).await?;
                    let parameters =
                        parameter_fields(Some(&plan), count).map_err(|e| pinned.error(e))?;
                    let rows = Some(wire_schema(&pinned.result_schema(&plan)));
                    Ok(StatementDescription { rows, parameters })
                }
                Statement::Insert(insert) => {
                    let plan = pinned.insert_plan(&insert).await?;
                    let parameters =
                        parameter_fields(Some(&plan), count).map_err(|e| pinned.error(e))?;
                    Ok(StatementDescription { rows: None, parameters })
                }
                Statement::Delete(delete) => {
                    let plan = pinned.rows_plan(&delete.rows).await?;
                    let parameters =
                        parameter_fields(Some(&plan), count).map_err(|e| pinned.error(e))?;
                    Ok(StatementDescription { rows: None, parameters })
                }
                Statement::Update(update) => {
                    let plan = pinned.update_plan(&update).await?;
                    let parameters =
                        parameter_fields(Some(&plan), count).map_err(|e| pinned.error(e))?;
                    Ok(StatementDescription { rows: None, parameters })
                }
                statement => none(show::schema(&statement).map(|schema| wire_schema(&schema))),
            }
        })
        .await
    }

    async fn execute(&self, request: ExecuteRequest) -> Result<Outcome, SqlError> {
        LargeStack::new(async move {
            self.inner.catalog.readable().await?;
            let parsed = parse_one(&request.sql)?;
            let values = match &request.parameters {
                None => vec![],
                Some(batch) if batch.num_rows() == 1 => {
                    parameter_row(batch, 0).map_err(from_datafusion)?
                }
                Some(batch) => {
                    let message =
                        format!("{} rows of parameters were given, not one", batch.num_rows());
                    return Err(SqlError::new(ErrorCode::InvalidParameter, message));
                }
            };
            check_count(parsed.parameters, values.len())?;
            let key = request.request.as_ref();
            let parameters = request.parameters.as_slice();
            let named = self.request_of(request.session, &parsed, key, parameters)?;
            let run = self.inner.registry.start(request.session, &request.sql);
            self.run(request.session, parsed, values, run, named).await
        })
        .await
    }

    async fn execute_update(&self, request: UpdateRequest) -> Result<u64, SqlError> {
        LargeStack::new(async move {
            self.inner.catalog.readable().await?;
            let UpdateRequest { session, sql, parameters, request: key } = request;
            match parameters {
                Some(rows) if rows.iter().any(|batch| batch.num_columns() > 0) => {
                    let parsed = parse_one(&sql)?;
                    let named = self.request_of(session, &parsed, key.as_ref(), &rows)?;
                    let run = self.inner.registry.start(session, &sql);
                    let notes = run.notes().writing(named).with_consistency(parsed.consistency);
                    let work = async { self.execute_many(&notes, parsed, rows).await.map(Some) };
                    let rows = run.finish_change(self.once(&notes, work)).await?;
                    Ok(rows.unwrap_or(0))
                }
                _ => {
                    let statements = dialect::parse(&sql)?;
                    check_one_request(key.as_ref(), statements.len())?;
                    let mut affected = 0;
                    for parsed in statements {
                        check_count(parsed.parameters, 0)?;
                        let named = self.request_of(session, &parsed, key.as_ref(), &[])?;
                        let run = self.inner.registry.start(session, &parsed.text);
                        if let Outcome::Done { rows_affected: Some(rows) } =
                            self.run(session, parsed, vec![], run, named).await?
                        {
                            affected += rows;
                        }
                    }
                    Ok(affected)
                }
            }
        })
        .await
    }

    async fn ingest(
        &self,
        request: IngestRequest,
        schema: SchemaRef,
        batches: BoxStream<'static, Result<RecordBatch, SqlError>>,
    ) -> Result<u64, SqlError> {
        self.inner.catalog.readable().await?;
        let run = self.inner.registry.start(request.session, &format!("INGEST {}", request.table));
        let notes = run.notes().writing(request.request.clone().map(RunRequest::unread));
        run.finish_change(self.ingest_once(&notes, request, schema, batches)).await
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.catalog.snapshot()
    }

    async fn relation_schema(&self, schema: &str, relation: &str) -> Result<SchemaRef, SqlError> {
        LargeStack::new(async move {
            self.inner.catalog.readable().await?;
            let pinned = self.pin(SessionId(u64::MAX))?;
            let provider =
                pinned.state.catalog_list().catalog(CATALOG).and_then(|c| c.schema(schema));
            let table = match provider {
                Some(provider) => provider.table(relation).await.map_err(|e| pinned.error(e))?,
                None => None,
            };
            table.map(|table| wire_schema(&table.schema())).ok_or_else(|| {
                let message = format!("relation \"{schema}.{relation}\" does not exist");
                SqlError::new(ErrorCode::UndefinedTable, message)
            })
        })
        .await
    }

    fn cancel(&self, query: QueryId) -> bool {
        self.inner.registry.cancel(query)
    }

    fn session_schema(&self, session: SessionId) -> Option<String> {
        self.inner.sessions.settings(session).search_path.into_iter().next()
    }

    fn set_session_schema(&self, session: SessionId, schema: Option<&str>) -> Result<(), SqlError> {
        match schema {
            Some(schema) => self.set(session, SEARCH_PATH, &quoted(schema)),
            None => self.inner.sessions.change(session, |settings| settings.reset(SEARCH_PATH)),
        }
    }

    fn close_session(&self, session: SessionId) {
        self.inner.sessions.forget(session);
    }
}

/// A request key of a call names one statement.
fn check_one_request(key: Option<&RequestKey>, statements: usize) -> Result<(), SqlError> {
    match key {
        Some(key) if statements != 1 => {
            let message =
                format!("request key \"{key}\" names one statement, and {statements} were sent");
            Err(SqlError::new(ErrorCode::InvalidParameter, message)
                .with_hint("give each statement that writes a LABEL of its own"))
        }
        _ => Ok(()),
    }
}

fn done(rows_affected: Option<u64>) -> Outcome {
    Outcome::Done { rows_affected }
}

impl Statements {
    /// Runs one statement of any kind.
    async fn run(
        &self,
        session: SessionId,
        parsed: ParsedStatement,
        values: Vec<ScalarValue>,
        mut run: RunGuard,
        request: Option<RunRequest>,
    ) -> Result<Outcome, SqlError> {
        if parsed.statement.is_write() {
            let notes = run.notes().writing(request).with_consistency(parsed.consistency);
            // Names are looked up once it is known that the statement is still to be done.
            let work = async {
                let parsed = self.qualified(session, parsed)?;
                self.change(&notes, parsed.statement, values, &parsed.text).await
            };
            return run.finish_change(self.once(&notes, work)).await.map(done);
        }
        let parsed = run.part(async { self.qualified(session, parsed) }).await?;
        let notes = run.notes().clone();
        match parsed.statement {
            Statement::Query(query) => {
                self.query(session, query, values, run).await.map(Outcome::Rows)
            }
            Statement::Explain(explain) => {
                let explained = async {
                    let pinned = self.pin(session)?;
                    self.explain(&pinned, &explain, values, &notes).await
                };
                let batch = run.part(explained).await?;
                ready_rows(run, batch).map(Outcome::Rows)
            }
            Statement::AnalyzeCompression(analyze) => {
                self.analyze_compression(session, &analyze, run).await.map(Outcome::Rows)
            }
            statement if statement.is_read_only() => {
                let shown = async { show::rows(&self.pin(session)?, &statement).await };
                let batch = run.part(shown).await?;
                ready_rows(run, batch).map(Outcome::Rows)
            }
            statement => {
                let work = self.change(&notes, statement, values, &parsed.text);
                run.finish_change(work).await.map(done)
            }
        }
    }

    /// Runs a statement that changes something; returns the rows affected where that is a number.
    async fn change(
        &self,
        run: &RunNotes,
        statement: Statement,
        values: Vec<ScalarValue>,
        text: &str,
    ) -> Result<Option<u64>, SqlError> {
        let session = run.session();
        match statement {
            statement if statement.changes_rows() => {
                self.write_surviving(run, &statement, &values).await.map(Some)
            }
            Statement::CreateTable(create) => self.create_table(run, &create).await.map(|()| None),
            Statement::DropTable(drop) => self.drop_tables(run, &drop).await.map(|()| None),
            Statement::CreateView(create) => self.create_view(run, &create).await.map(|()| None),
            Statement::DropView(drop) => self.drop_views(run, &drop).await.map(|()| None),
            Statement::CreateSchema(create) => {
                self.create_schema(run, &create).await.map(|()| None)
            }
            Statement::DropSchema(drop) => self.drop_schema(run, &drop).await.map(|()| None),
            Statement::Vacuum(table) => {
                let table = table.as_ref().map(|(table, position)| (table, *position));
                self.vacuum(session, table).await.map(|_| None)
            }
            statement @ Statement::Analyze(_) => {
                self.write_surviving(run, &statement, &[]).await.map(|_| None)
            }
            Statement::DrainWorker(drain) => self.drain_worker(&drain).await.map(|()| None),
            Statement::Set { name, value } => self.set(session, &name, &value).map(|()| None),
            Statement::Reset { name } => {
                let name = name.as_deref().unwrap_or("all");
                self.inner.sessions.change(session, |settings| settings.reset(name)).map(|()| None)
            }
            Statement::Begin | Statement::Commit | Statement::Rollback => Err(SqlError::new(
                ErrorCode::FeatureNotSupported,
                "transactions are not supported yet",
            )
            .with_hint("each statement is a transaction of its own")),
            other => {
                tracing::error!(kind = other.kind(), text, "a statement kind is not dispatched");
                Err(SqlError::new(
                    ErrorCode::Internal,
                    format!("{} is not dispatched", other.kind()),
                ))
            }
        }
    }

    /// Runs a statement that changes rows or analyses them, once. What it wrote is aborted when it
    /// fails.
    pub(super) async fn write_once(
        &self,
        run: &RunNotes,
        statement: &Statement,
        values: &[ScalarValue],
    ) -> Result<u64, SqlError> {
        match statement {
            Statement::CreateTable(create) => {
                self.create_table_as(run, create, values.to_vec()).await
            }
            Statement::Insert(insert) => self.insert(run, insert, values.to_vec()).await,
            Statement::Delete(delete) => self.delete(run, delete, values).await,
            Statement::Update(update) => self.update(run, update, values).await,
            Statement::CopyFrom(copy) => self.copy_from(run, copy).await,
            Statement::Analyze(analyze) => self.analyze(run, analyze).await,
            other => {
                let message = format!("{} is no write", other.kind());
                Err(SqlError::new(ErrorCode::Internal, message))
            }
        }
    }

    /// EXPLAIN: the plan as text, after running it when ANALYZE says so.
    async fn explain(
        &self,
        pinned: &Pinned,
        explain: &Explain,
        values: Vec<ScalarValue>,
        run: &RunNotes,
    ) -> Result<RecordBatch, SqlError> {
        let plan = match explain.statement.as_ref() {
            Statement::Query(query) => pinned.query_plan(query.clone()).await?,
            Statement::Insert(insert) => pinned.insert_plan(insert).await?,
            other => {
                let message = format!("EXPLAIN of {} is not supported", other.kind());
                return Err(SqlError::new(ErrorCode::FeatureNotSupported, message)
                    .with_hint("explain the query by itself"));
            }
        };
        let plan = bind(plan, values).map_err(|e| pinned.error(e))?;
        show::explain(self, pinned, &plan, explain, run).await
    }
}
