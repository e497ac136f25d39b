//! Queries: planned at GetFlightInfo, started at DoGet, streamed as they run.
//!
//! Invariant: GetFlightInfo runs a statement that changes something, once, and answers with
//! neither columns nor endpoints; there is then nothing to fetch that could run it again. For a
//! query it answers with one endpoint, whose ticket starts the query that was planned.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use basalt_engine::error::{ErrorCode, SqlError};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use prost::Message;
use tokio::time::Instant;
use tonic::metadata::MetadataValue;
use tonic::{Response, Status};

use super::caller::Caller;
use super::encode::{self, MessageStream, Origin};
use super::handle::Handle;
use super::tickets::{self, Planned, Running};
use super::{FlightSqlServer, status};
use crate::backend::{ExecuteRequest, Outcome, PlannedQuery, QueryId, RowStream, SessionId};

impl FlightSqlServer {
    /// Runs a statement, or plans it when it is a query, and says where its rows are.
    pub(super) async fn execute(
        &self,
        caller: &Caller,
        sql: &str,
        parameters: Option<RecordBatch>,
        descriptor: FlightDescriptor,
    ) -> Result<Response<FlightInfo>, Status> {
        let bytes = sql.len() + parameters.as_ref().map_or(0, RecordBatch::get_array_memory_size);
        let Caller { session, request } = caller.clone();
        let request = ExecuteRequest { session, sql: sql.to_owned(), parameters, request };
        match status::guard(sql, self.backend().execute(request)).await? {
            Outcome::Rows(query) => self.planned(query, sql, bytes, descriptor),
            Outcome::Done { rows_affected } => {
                let total =
                    rows_affected.map_or(-1, |rows| i64::try_from(rows).unwrap_or(i64::MAX));
                done(total, descriptor).map(Response::new)
            }
        }
    }

    fn planned(
        &self,
        query: PlannedQuery,
        sql: &str,
        bytes: usize,
        descriptor: FlightDescriptor,
    ) -> Result<Response<FlightInfo>, Status> {
        let query_id = query.query_id;
        let schema = Arc::clone(&query.schema);
        let planned = Planned { query, sql: sql.into() };
        let handle = self.shared.tickets.insert(planned, bytes, Instant::now());
        let ticket = TicketStatementQuery { statement_handle: handle.to_bytes() };
        let info = single_endpoint(&schema, ticket.as_any().encode_to_vec(), descriptor)?;
        let mut response = Response::new(info.with_app_metadata(query_id.to_string()));
        name_query(&mut response, query_id);
        Ok(response)
    }

    /// The schema of a statement's rows, without columns when it returns none.
    pub(super) async fn describe_schema(
        &self,
        session: SessionId,
        sql: &str,
    ) -> Result<SchemaRef, Status> {
        let description = status::guard(sql, self.backend().describe(session, sql)).await?;
        Ok(description.rows.unwrap_or_else(|| Arc::new(Schema::empty())))
    }

    /// Starts the query that a ticket stands for.
    pub(super) fn fetch_ticket(
        &self,
        ticket: &TicketStatementQuery,
    ) -> Result<Response<MessageStream>, Status> {
        let started = Handle::parse(&ticket.statement_handle)
            .ok_or_else(tickets::unknown)
            .and_then(|handle| self.shared.tickets.start(handle));
        let (planned, running) = started.map_err(|e| status::from_error(&e, "", None))?;
        stream_rows(planned, Some(running))
    }

    /// Runs a query whose text is the ticket. Only a query: a ticket may be fetched twice.
    pub(super) async fn fetch_sql(
        &self,
        session: SessionId,
        sql: &str,
    ) -> Result<Response<MessageStream>, Status> {
        let description = status::guard(sql, self.backend().describe(session, sql)).await?;
        if description.rows.is_none() {
            let error = SqlError::new(
                ErrorCode::InvalidStatement,
                "a ticket cannot hold a statement that changes something",
            );
            let error = error.with_hint("send it by GetFlightInfo, or as CommandStatementUpdate");
            return Err(status::from_error(&error, sql, None));
        }
        let sql_text = sql.to_owned();
        let request = ExecuteRequest { session, sql: sql_text, parameters: None, request: None };
        match status::guard(sql, self.backend().execute(request)).await? {
            Outcome::Rows(query) => stream_rows(Planned { query, sql: sql.into() }, None),
            Outcome::Done { .. } => {
                Err(status::error(ErrorCode::Internal, "a query returned no rows"))
            }
        }
    }
}

/// Starts a planned query; dropping the response's stream cancels it.
fn stream_rows(
    planned: Planned,
    running: Option<Running>,
) -> Result<Response<MessageStream>, Status> {
    let Planned { query: PlannedQuery { query_id, schema, start }, sql } = planned;
    let rows = catch_unwind(AssertUnwindSafe(start)).map_err(|panic| {
        status::from_error(&status::panicked(panic.as_ref()), &sql, Some(query_id))
    })?;
    let rows = match running {
        Some(running) => until_cancelled(rows, running),
        None => rows,
    };
    let origin = Origin { sql: Some(sql), query: Some(query_id) };
    let mut response = Response::new(encode::rows(schema, rows, origin));
    name_query(&mut response, query_id);
    Ok(response)
}

/// The rows, ended by an error once the query is cancelled.
fn until_cancelled(
    rows: RowStream,
    running: Running,
) -> BoxStream<'static, Result<RecordBatch, SqlError>> {
    stream::unfold((rows, running), |(mut rows, running)| async move {
        let item = tokio::select! {
            biased;
            () = running.cancelled.cancelled() => Some(Err(cancelled())),
            item = rows.next() => item,
        };
        item.map(|item| (item, (rows, running)))
    })
    .boxed()
}

fn cancelled() -> SqlError {
    SqlError::new(ErrorCode::Cancelled, "the query was cancelled")
}

/// The answer to a statement that is done: nothing to fetch, rows affected as the total.
pub(super) fn done(rows_affected: i64, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
    let info = FlightInfo {
        schema: encode::schema_bytes(&Schema::empty())?,
        flight_descriptor: Some(descriptor),
        total_records: rows_affected,
        total_bytes: -1,
        ..FlightInfo::default()
    };
    Ok(info)
}

/// The answer to anything with rows: one endpoint, at this server, rows and bytes unknown.
pub(super) fn single_endpoint(
    schema: &Schema,
    ticket: Vec<u8>,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo, Status> {
    let info = FlightInfo {
        schema: encode::schema_bytes(schema)?,
        flight_descriptor: Some(descriptor),
        total_records: -1,
        total_bytes: -1,
        ..FlightInfo::default()
    };
    Ok(info.with_endpoint(FlightEndpoint::new().with_ticket(Ticket::new(ticket))))
}

fn name_query<T>(response: &mut Response<T>, query: QueryId) {
    if let Ok(value) = MetadataValue::try_from(query.to_string()) {
        response.metadata_mut().insert(status::QUERY_ID_HEADER, value);
    }
}
