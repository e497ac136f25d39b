//! Prepared statements: a text and its description, and the parameter rows bound last.
//!
//! Invariants: preparing plans and never runs; a handle works on the connection that prepared it
//! and ends with it; a statement is planned anew at each execution, so that one prepared before
//! an ALTER or DROP gives today's columns or today's error.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema};
use arrow_flight::sql::{Any, DoPutPreparedStatementResult, ProstMessageExt};
use arrow_flight::{FlightData, FlightDescriptor, FlightInfo};
use basalt_engine::error::{ErrorCode, SqlError};
use bytes::Bytes;
use prost::Message;
use tonic::{Response, Status, Streaming};

use super::caller::Caller;
use super::handle::Handle;
use super::{FlightSqlServer, decode, encode, query, status};
use crate::backend::{ExecuteRequest, Outcome, SessionId, UpdateRequest};

/// Bytes of texts and parameters that one session may keep here.
const SESSION_BYTES_MAX: usize = 256 << 20;

/// The same of all sessions: they are many, and nobody asked them to close what they prepare.
const BYTES_MAX: usize = 1 << 30;

/// A prepared statement.
#[derive(Clone)]
pub(super) struct Prepared {
    sql: Arc<str>,
    parameters: Arc<[Field]>,
    is_query: bool,
    /// The rows of the last bind, without empty batches.
    bound: Option<Arc<[RecordBatch]>>,
}

/// The prepared statements of every session.
pub(super) struct PreparedStatements {
    limits: Limits,
    kept: Mutex<Kept>,
}

/// How much may be kept.
#[derive(Debug, Clone, Copy)]
struct Limits {
    statements_of_session: usize,
    bytes_of_session: usize,
    bytes: usize,
}

#[derive(Default)]
struct Kept {
    sessions: HashMap<SessionId, SessionStatements>,
    bytes: usize,
}

#[derive(Default)]
struct SessionStatements {
    statements: HashMap<Handle, Prepared>,
    bytes: usize,
}

impl Prepared {
    fn bytes(&self) -> usize {
        let bound = self.bound.iter().flat_map(|batches| batches.iter());
        let bound: usize = bound.map(RecordBatch::get_array_memory_size).sum();
        size_of::<(Handle, Self)>() + self.sql.len() + size_of_val(&*self.parameters) + bound
    }

    /// The one row of values to run a query with.
    fn single_row(&self) -> Result<Option<RecordBatch>, SqlError> {
        if self.parameters.is_empty() {
            return Ok(None);
        }
        match self.bound()? {
            [batch] if batch.num_rows() == 1 => Ok(Some(batch.clone())),
            batches => {
                let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
                let text = format!("a query takes one row of parameters, and {rows} were bound");
                Err(SqlError::new(ErrorCode::InvalidParameter, text)
                    .with_hint("run the query once per row"))
            }
        }
    }

    fn bound(&self) -> Result<&[RecordBatch], SqlError> {
        self.bound.as_deref().ok_or_else(|| {
            let text = format!(
                "the statement has {} parameters, and no values were bound",
                self.parameters.len()
            );
            SqlError::new(ErrorCode::InvalidParameter, text)
        })
    }

    /// Checks that rows of this schema fit the statement's parameters, by number.
    fn check_arity(&self, schema: &Schema) -> Result<(), SqlError> {
        let (expected, got) = (self.parameters.len(), schema.fields().len());
        if expected == got {
            return Ok(());
        }
        let text = format!("the statement has {expected} parameters, and {got} values were bound");
        Err(SqlError::new(ErrorCode::InvalidParameter, text))
    }
}

impl Kept {
    /// Counts `bytes` of a session in the place of `before`, or refuses them.
    fn count(
        &mut self,
        session: SessionId,
        before: usize,
        bytes: usize,
        limits: &Limits,
    ) -> Result<(), SqlError> {
        let own = self.sessions.get(&session).map_or(0, |kept| kept.bytes) - before + bytes;
        let all = self.bytes - before + bytes;
        let full = match (own > limits.bytes_of_session, all > limits.bytes) {
            (true, _) => ("this connection", limits.bytes_of_session),
            (false, true) => ("all connections", limits.bytes),
            (false, false) => {
                self.sessions.entry(session).or_default().bytes = own;
                self.bytes = all;
                return Ok(());
            }
        };
        let text = format!(
            "prepared statements of {} and their parameters would take more than {} bytes",
            full.0, full.1
        );
        Err(SqlError::new(ErrorCode::ResourcesExhausted, text).with_hint(CLOSE_HINT))
    }
}

const CLOSE_HINT: &str = "close statements (cursors) that are no longer needed";

impl PreparedStatements {
    pub(super) fn new(per_session_max: usize) -> Self {
        Self::within(Limits {
            statements_of_session: per_session_max,
            bytes_of_session: SESSION_BYTES_MAX,
            bytes: BYTES_MAX,
        })
    }

    fn within(limits: Limits) -> Self {
        Self { limits, kept: Mutex::default() }
    }

    /// Keeps a statement, if the session is still open by then.
    fn insert(
        &self,
        session: SessionId,
        statement: Prepared,
        is_open: impl FnOnce() -> bool,
    ) -> Result<Handle, SqlError> {
        let mut kept = self.lock();
        // Under the lock: a session that closes from here on finds the statement and drops it.
        if !is_open() {
            return Err(SqlError::new(ErrorCode::Cancelled, "the connection is closed"));
        }
        let open = kept.sessions.get(&session).map_or(0, |own| own.statements.len());
        if open >= self.limits.statements_of_session {
            let text = format!("too many prepared statements are open on this connection: {open}");
            return Err(SqlError::new(ErrorCode::ResourcesExhausted, text).with_hint(CLOSE_HINT));
        }
        kept.count(session, 0, statement.bytes(), &self.limits)?;
        let handle = Handle::generate();
        kept.sessions.entry(session).or_default().statements.insert(handle, statement);
        Ok(handle)
    }

    fn get(&self, session: SessionId, handle: &[u8]) -> Result<Prepared, SqlError> {
        let kept = self.lock();
        Handle::parse(handle)
            .and_then(|handle| kept.sessions.get(&session)?.statements.get(&handle))
            .cloned()
            .ok_or_else(unknown)
    }

    /// Binds rows in the place of those bound before; what is too much leaves them bound.
    fn bind(
        &self,
        session: SessionId,
        handle: &[u8],
        rows: Vec<RecordBatch>,
    ) -> Result<(), SqlError> {
        let mut kept = self.lock();
        let handle = Handle::parse(handle).ok_or_else(unknown)?;
        let own = kept.sessions.get(&session).ok_or_else(unknown)?;
        let before = own.statements.get(&handle).ok_or_else(unknown)?;
        let bound = Prepared { bound: Some(rows.into()), ..before.clone() };
        let before = before.bytes();
        kept.count(session, before, bound.bytes(), &self.limits)?;
        kept.sessions.entry(session).or_default().statements.insert(handle, bound);
        Ok(())
    }

    fn close(&self, session: SessionId, handle: &[u8]) {
        let mut guard = self.lock();
        let kept = &mut *guard;
        if let Some(own) = kept.sessions.get_mut(&session)
            && let Some(statement) = Handle::parse(handle).and_then(|h| own.statements.remove(&h))
        {
            own.bytes -= statement.bytes();
            kept.bytes -= statement.bytes();
        }
    }

    pub(super) fn close_session(&self, session: SessionId) {
        let dropped = {
            let mut kept = self.lock();
            let own = kept.sessions.remove(&session);
            kept.bytes -= own.as_ref().map_or(0, |own| own.bytes);
            own
        };
        drop(dropped);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing between two changes of the maps panics.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown() -> SqlError {
    SqlError::new(
        ErrorCode::UnknownHandle,
        "the prepared statement is unknown: it was closed, or prepared on another connection",
    )
}

/// `ActionCreatePreparedStatementResult` with the field that arrow-flight 59 lacks.
#[derive(Clone, PartialEq, prost::Message)]
struct PreparedResult {
    #[prost(bytes = "bytes", tag = "1")]
    prepared_statement_handle: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    dataset_schema: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    parameter_schema: Bytes,
    #[prost(bool, optional, tag = "4")]
    is_update: Option<bool>,
}

impl FlightSqlServer {
    /// Prepares a statement: the body of the action's result.
    pub(super) async fn prepare(&self, session: SessionId, sql: &str) -> Result<Vec<u8>, Status> {
        let description = status::guard(sql, self.backend().describe(session, sql)).await?;
        let parameters = Schema::new(description.parameters.clone());
        let statement = Prepared {
            sql: sql.into(),
            parameters: description.parameters.into(),
            is_query: description.rows.is_some(),
            bound: None,
        };
        let handle = self
            .shared
            .prepared
            .insert(session, statement, || self.shared.sessions.is_open(session))
            .map_err(|e| status::from_error(&e, "", None))?;
        let is_update = description.rows.is_none();
        let rows = description.rows.unwrap_or_else(|| Schema::empty().into());
        let result = PreparedResult {
            prepared_statement_handle: handle.to_bytes(),
            dataset_schema: encode::schema_bytes(&rows)?,
            parameter_schema: encode::schema_bytes(&parameters)?,
            is_update: Some(is_update),
        };
        let any = Any {
            type_url: arrow_flight::sql::ActionCreatePreparedStatementResult::type_url().to_owned(),
            value: result.encode_to_vec().into(),
        };
        Ok(any.encode_to_vec())
    }

    /// Closes a statement; closing one that is closed is no error.
    pub(super) fn close_prepared(&self, session: SessionId, handle: &[u8]) {
        self.shared.prepared.close(session, handle);
    }

    /// Runs a prepared statement with the row bound last, as `execute` does with a text.
    pub(super) async fn execute_prepared(
        &self,
        caller: &Caller,
        handle: &[u8],
        descriptor: FlightDescriptor,
    ) -> Result<Response<FlightInfo>, Status> {
        let statement = self.prepared(caller.session, handle)?;
        let rows: usize =
            statement.bound.iter().flat_map(|b| b.iter()).map(RecordBatch::num_rows).sum();
        if !statement.is_query && !statement.parameters.is_empty() && rows > 1 {
            let affected = self.update_prepared(caller, &statement).await?;
            return query::done(affected, descriptor).map(Response::new);
        }
        let parameters =
            statement.single_row().map_err(|e| status::from_error(&e, &statement.sql, None))?;
        self.execute(caller, &statement.sql, parameters, descriptor).await
    }

    /// The schema of a prepared statement's rows, planned anew.
    pub(super) async fn prepared_schema(
        &self,
        session: SessionId,
        handle: &[u8],
    ) -> Result<arrow::datatypes::SchemaRef, Status> {
        let statement = self.prepared(session, handle)?;
        self.describe_schema(session, &statement.sql).await
    }

    /// Binds the rows of an upload to a query, to be run by the next GetFlightInfo.
    pub(super) async fn put_parameters(
        &self,
        session: SessionId,
        handle: &Bytes,
        first: FlightData,
        rest: Streaming<FlightData>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let statement = self.prepared(session, handle)?;
        let rows = self.read_parameters(&statement, first, rest).await?;
        self.shared
            .prepared
            .bind(session, handle, rows)
            .map_err(|e| status::from_error(&e, "", None))?;
        // The handle stays the same: the driver only keeps (and closes) the one sent last.
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(handle.clone()) })
    }

    /// Runs a statement once per row of an upload, in one commit; once when it has no parameters.
    pub(super) async fn put_update(
        &self,
        caller: &Caller,
        handle: &[u8],
        first: FlightData,
        rest: Streaming<FlightData>,
    ) -> Result<i64, Status> {
        let mut statement = self.prepared(caller.session, handle)?;
        let rows = self.read_parameters(&statement, first, rest).await?;
        statement.bound = Some(rows.into());
        self.update_prepared(caller, &statement).await
    }

    async fn update_prepared(&self, caller: &Caller, statement: &Prepared) -> Result<i64, Status> {
        let sql = &statement.sql;
        let refused = |e: SqlError| status::from_error(&e, sql, None);
        if statement.is_query {
            return Err(refused(SqlError::new(
                ErrorCode::InvalidStatement,
                "a query was sent as an update, which has no rows to return",
            )));
        }
        let Caller { session, request } = caller.clone();
        if statement.parameters.is_empty() {
            let request =
                ExecuteRequest { session, sql: sql.to_string(), parameters: None, request };
            let Outcome::Done { rows_affected } =
                status::guard(sql, self.backend().execute(request)).await?
            else {
                return Err(status::error(ErrorCode::Internal, "an update returned rows"));
            };
            return Ok(i64::try_from(rows_affected.unwrap_or(0)).unwrap_or(i64::MAX));
        }
        let mut rows = statement.bound().map_err(refused)?.to_vec();
        if rows.is_empty() {
            // No rows change nothing, which is remembered when the client has a name for it.
            rows.push(RecordBatch::new_empty(Schema::new(statement.parameters.to_vec()).into()));
        }
        let (sql, parameters) = (sql.to_string(), Some(rows));
        let update = UpdateRequest { session, sql, parameters, request };
        let affected = status::guard(&statement.sql, self.backend().execute_update(update)).await?;
        Ok(i64::try_from(affected).unwrap_or(i64::MAX))
    }

    /// The rows of an upload that fit the statement's parameters, without empty batches.
    async fn read_parameters(
        &self,
        statement: &Prepared,
        first: FlightData,
        rest: Streaming<FlightData>,
    ) -> Result<Vec<RecordBatch>, Status> {
        let refused = |e: SqlError| status::from_error(&e, &statement.sql, None);
        let Some(upload) = decode::upload(first, rest).await? else {
            // No schema: nothing is bound, which fits a statement without parameters.
            statement.check_arity(&Schema::empty()).map_err(refused)?;
            return Ok(Vec::new());
        };
        statement.check_arity(&upload.schema).map_err(refused)?;
        let mut rows = decode::collect(upload, self.shared.options.parameter_bytes_max)
            .await
            .map_err(refused)?;
        rows.retain(|batch| batch.num_rows() > 0);
        Ok(rows)
    }

    fn prepared(&self, session: SessionId, handle: &[u8]) -> Result<Prepared, Status> {
        self.shared.prepared.get(session, handle).map_err(|e| status::from_error(&e, "", None))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    const SESSION: SessionId = SessionId(1);

    fn statement(sql: &str) -> Prepared {
        Prepared { sql: sql.into(), parameters: Arc::new([]), is_query: true, bound: None }
    }

    #[test]
    fn a_handle_works_on_its_own_connection_until_it_is_closed() {
        let prepared = PreparedStatements::new(10);
        let handle = prepared.insert(SESSION, statement("select 1"), || true).unwrap().to_bytes();
        assert!(prepared.get(SESSION, &handle).is_ok());
        let foreign = prepared.get(SessionId(2), &handle).err().unwrap();
        assert_eq!(foreign.code, ErrorCode::UnknownHandle);
        prepared.close(SESSION, &handle);
        prepared.close(SESSION, &handle);
        assert!(prepared.get(SESSION, &handle).is_err());
    }

    #[test]
    fn a_session_holds_a_bounded_number() {
        let prepared = PreparedStatements::new(2);
        let insert = || prepared.insert(SESSION, statement("select 1"), || true);
        let first = insert().unwrap();
        insert().unwrap();
        assert_eq!(insert().err().unwrap().code, ErrorCode::ResourcesExhausted);
        prepared.close(SESSION, &first.to_bytes());
        insert().unwrap();
    }

    fn rows(values: usize) -> Vec<RecordBatch> {
        let values: ArrayRef = Arc::new(Int64Array::from(vec![7; values]));
        vec![RecordBatch::try_from_iter([("1", values)]).unwrap()]
    }

    #[test]
    fn texts_and_parameters_of_a_session_and_of_all_are_bounded() {
        let prepared = PreparedStatements::within(Limits {
            statements_of_session: 100,
            bytes_of_session: 100_000,
            bytes: 150_000,
        });
        let is_full = |result: Result<(), SqlError>, whose: &str| {
            let error = result.unwrap_err();
            assert_eq!(error.code, ErrorCode::ResourcesExhausted);
            assert!(error.message.contains(whose), "{error}");
        };
        let insert = |session: SessionId, bytes: usize| {
            prepared.insert(session, statement(&"x".repeat(bytes)), || true)
        };
        let first = insert(SESSION, 60_000).unwrap().to_bytes();
        is_full(insert(SESSION, 60_000).map(drop), "this connection");
        let second = insert(SessionId(2), 60_000).unwrap().to_bytes();
        is_full(insert(SessionId(3), 60_000).map(drop), "all connections");
        // Parameters count, in the place of those before them.
        for _ in 0..10 {
            prepared.bind(SESSION, &first, rows(2_000)).unwrap();
        }
        is_full(prepared.bind(SESSION, &first, rows(8_000)), "this connection");
        is_full(prepared.bind(SessionId(2), &second, rows(3_000)), "all connections");
        let bound = prepared.get(SESSION, &first).unwrap().bound.unwrap();
        assert_eq!(bound[0].num_rows(), 2_000, "what was bound stays bound");
        prepared.close(SESSION, &first);
        prepared.bind(SessionId(2), &second, rows(3_000)).unwrap();
        prepared.close_session(SESSION);
        prepared.close_session(SessionId(2));
        assert_eq!(prepared.lock().bytes, 0);
    }

    #[test]
    fn a_closed_session_keeps_nothing() {
        let prepared = PreparedStatements::new(10);
        let handle = prepared.insert(SESSION, statement("select 1"), || true).unwrap().to_bytes();
        prepared.close_session(SESSION);
        assert!(prepared.get(SESSION, &handle).is_err());
        assert!(prepared.insert(SESSION, statement("select 1"), || false).is_err());
        assert!(prepared.lock().sessions.is_empty());
        assert_eq!(prepared.lock().bytes, 0);
    }
}
