//! Statements that return rows.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use basalt_engine::dialect::shown_names;
use basalt_engine::error::SqlError;
use basalt_engine::plan_size::check_plan_size;
use basalt_engine::types::{to_wire, wire_schema};
use datafusion::common::ScalarValue;
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement as DFStatement;
use futures::{FutureExt, Stream, StreamExt, stream};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::Statements;
use super::parameters::bind;
use super::registry::{RunGuard, cancelled};
use super::result_cache::{Collected, KeptResult, ResultKey};
use super::session::Pinned;
use super::shared::Runnable;
use crate::backend::{PlannedQuery, RowStream, SessionId};

impl Pinned {
    /// The logical plan of a query: only reads, whatever its text says (FAULTS A5).
    pub(super) async fn query_plan(&self, statement: DFStatement) -> Result<LogicalPlan, SqlError> {
        let plan = self.state.statement_to_plan(statement).await.map_err(|e| self.error(e))?;
        check_plan_size(&plan).map_err(|e| self.error(e))?;
        read_only().verify_plan(&plan).map_err(|e| self.error(e))?;
        Ok(plan)
    }

    /// The columns of a plan's rows, before they take wire form. The plan as it was parsed has
    /// those of a UNION's first branch; what fits all branches is found when types are coerced. A
    /// plan whose parameters have no values yet may be beyond that.
    pub(super) fn result_schema(&self, plan: &LogicalPlan) -> Schema {
        let options = self.state.config_options();
        let coerced = self.state.analyzer().execute_and_check(plan.clone(), options, |_, _| {});
        shown_names(coerced.as_ref().unwrap_or(plan).schema().as_arrow())
    }
}

fn read_only() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}

impl Statements {
    /// Plans a query. Nothing runs before the returned query is started.
    pub(super) async fn query(
        &self,
        session: SessionId,
        query: DFStatement,
        values: Vec<ScalarValue>,
        mut run: RunGuard,
    ) -> Result<PlannedQuery, SqlError> {
        let notes = run.notes().clone();
        let planning = async {
            let pinned = self.pin(session)?;
            let plan = pinned.query_plan(query).await?;
            let plan = bind(plan, values).map_err(|e| pinned.error(e))?;
            let key = self.result_key(&pinned, &plan)?;
            if let Some(kept) = key.as_ref().and_then(|key| self.inner.results.get(key)) {
                return Ok(Planned::Kept(kept));
            }
            let (query, columns) = Runnable::plan(self, pinned, &plan, &notes).await?;
            Ok(Planned::New(Box::new((query, columns, key))))
        };
        let planned = run.part(planning).await?;
        notes.note_planned();
        let (query, columns, key) = match planned {
            Planned::Kept(KeptResult { schema, batches }) => {
                notes.note_cached();
                return Ok(wire_batches(run, schema, batches.to_vec()));
            }
            Planned::New(planned) => *planned,
        };
        let schema = wire_schema(&shown_names(&columns));
        let collected = key.map(|key| self.inner.results.collect(key));
        let (query_id, wire) = (run.query_id(), Arc::clone(&schema));
        let start = Box::new(move || {
            run.notes().note_fetched();
            WireRows::new(query.rows(), wire, run, collected).boxed()
        });
        Ok(PlannedQuery { query_id, schema, start })
    }

    /// What decides the answer of a plan, where that is asked for and known.
    fn result_key(
        &self,
        pinned: &Pinned,
        plan: &LogicalPlan,
    ) -> Result<Option<ResultKey>, SqlError> {
        let settings = &pinned.spec.settings;
        if !settings.result_cache || settings.profile || !self.inner.results.is_enabled() {
            return Ok(None);
        }
        ResultKey::of(plan, settings).map_err(|error| pinned.error(error))
    }
}

/// A query that is planned, or needs no plan.
enum Planned {
    Kept(KeptResult),
    New(Box<(Runnable, SchemaRef, Option<ResultKey>)>),
}

/// Rows that are there already (SHOW, EXPLAIN), as a query that was planned.
pub(super) fn ready_rows(run: RunGuard, batch: RecordBatch) -> Result<PlannedQuery, SqlError> {
    let schema = wire_schema(&batch.schema());
    let batch = to_wire(&batch, &schema)?;
    Ok(wire_batches(run, schema, vec![batch]))
}

/// The same of rows in wire form.
fn wire_batches(run: RunGuard, schema: SchemaRef, batches: Vec<RecordBatch>) -> PlannedQuery {
    let query_id = run.query_id();
    let start = Box::new(move || -> RowStream {
        let mut run = run;
        run.notes().note_fetched();
        run.notes().add_rows(batches.iter().map(|batch| batch.num_rows() as u64).sum());
        run.end(None);
        stream::iter(batches.into_iter().map(Ok)).boxed()
    });
    PlannedQuery { query_id, schema, start }
}

/// A query's rows in wire form, until they end, fail or are cancelled.
struct WireRows {
    rows: Option<RowStream>,
    schema: SchemaRef,
    run: RunGuard,
    collected: Option<Collected>,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl WireRows {
    fn new(
        rows: RowStream,
        schema: SchemaRef,
        run: RunGuard,
        collected: Option<Collected>,
    ) -> Self {
        let cancelled = Box::pin(run.token().clone().cancelled_owned());
        Self { rows: Some(rows), schema, run, collected, cancelled }
    }

    /// Ends the stream: what the query holds is freed now, not when the client lets go.
    fn end(&mut self, error: Option<SqlError>) -> Poll<Option<Result<RecordBatch, SqlError>>> {
        self.rows = None;
        self.run.end(error.as_ref());
        Poll::Ready(error.map(Err))
    }
}

impl Stream for WireRows {
    type Item = Result<RecordBatch, SqlError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(rows) = this.rows.as_mut() else { return Poll::Ready(None) };
        if this.cancelled.poll_unpin(cx).is_ready() {
            return this.end(Some(cancelled()));
        }
        match rows.poll_next_unpin(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                if let Some(collected) = this.collected.take() {
                    collected.keep(Arc::clone(&this.schema));
                }
                this.end(None)
            }
            Poll::Ready(Some(Err(error))) => this.end(Some(error)),
            Poll::Ready(Some(Ok(batch))) => match to_wire(&batch, &this.schema) {
                Ok(batch) => {
                    this.run.notes().add_rows(batch.num_rows() as u64);
                    if let Some(collected) = &mut this.collected {
                        collected.add(&batch);
                    }
                    Poll::Ready(Some(Ok(batch)))
                }
                Err(error) => this.end(Some(error)),
            },
        }
    }
}
