//! The seam between the Flight SQL service, which speaks to clients, and the statement life
//! cycle, which plans, runs and commits.
//!
//! Invariant: a statement that changes something runs exactly once, in [`SqlBackend::execute`]
//! or [`SqlBackend::execute_update`]; describing it never runs it (RULES 26).

use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use basalt_engine::error::{ErrorCode, SqlError};
use basalt_engine::snapshot::{DEFAULT_SCHEMA, Snapshot};
use futures::stream::BoxStream;
use uuid::Uuid;

use crate::catalog::RequestKey;

/// Rows on their way to a client, in the wire form of [`PlannedQuery::schema`].
///
/// Dropping the stream cancels the statement and frees what it holds on every worker.
pub type RowStream = BoxStream<'static, Result<RecordBatch, SqlError>>;

/// Names one run of one statement, in logs, errors and `sys.queries`.
pub type QueryId = Uuid;

/// Names one client connection: what `SET` changes lasts as long as the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub u64);

/// What a statement is, found without running it.
#[derive(Debug, Clone)]
pub struct StatementDescription {
    /// The wire schema of its rows (every field nullable), or `None` when it returns no rows.
    pub rows: Option<SchemaRef>,
    /// Its parameters `$1..$n` in order; an unknown type is `DataType::Null`.
    pub parameters: Vec<Field>,
}

/// A query that is planned on a pinned snapshot and not started yet.
pub struct PlannedQuery {
    /// The id of this run.
    pub query_id: QueryId,
    /// The wire schema; every batch of the stream has exactly this schema.
    pub schema: SchemaRef,
    /// Starts the query.
    pub start: Box<dyn FnOnce() -> RowStream + Send>,
}

/// What came of a statement.
pub enum Outcome {
    /// Rows to fetch.
    Rows(PlannedQuery),
    /// It is done and committed; rows affected where that means something.
    Done {
        /// Rows inserted, loaded or deleted.
        rows_affected: Option<u64>,
    },
}

/// One statement to run.
#[derive(Debug, Clone)]
pub struct ExecuteRequest {
    /// The connection it came from.
    pub session: SessionId,
    /// Its text: exactly one statement.
    pub sql: String,
    /// One row with the values of `$1..$n` in order, when it has parameters.
    pub parameters: Option<RecordBatch>,
    /// What the client calls it, when it is to be done once however often it is sent.
    pub request: Option<RequestKey>,
}

/// A statement to run for its effect, or a script of them.
#[derive(Debug, Clone)]
pub struct UpdateRequest {
    /// The connection it came from.
    pub session: SessionId,
    /// Its text: exactly one statement when it has parameters or a key.
    pub sql: String,
    /// Rows with the values of `$1..$n` in order, when it has parameters.
    pub parameters: Option<Vec<RecordBatch>>,
    /// As [`ExecuteRequest::request`].
    pub request: Option<RequestKey>,
}

/// What to do when the target of an ingest does not exist, or does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IngestMode {
    /// Create; an existing table is an error.
    Create,
    /// Append; a missing table is an error.
    Append,
    /// Drop an existing table and create it again, in one commit with the rows.
    Replace,
    /// Create when missing, append when there.
    CreateAppend,
}

/// Where the rows of an ingest go.
#[derive(Debug, Clone)]
pub struct IngestRequest {
    /// The connection it came from.
    pub session: SessionId,
    /// The schema, when the client named one.
    pub schema_name: Option<String>,
    /// The table.
    pub table: String,
    /// What to do when it is missing or there.
    pub mode: IngestMode,
    /// Options by name, from the request's option map (`distkey`, `sortkey`, `diststyle`).
    pub options: Vec<(String, String)>,
    /// As [`ExecuteRequest::request`]; the rows are part of what the key stands for.
    pub request: Option<RequestKey>,
}

/// The statement life cycle, as the Flight SQL service sees it.
///
/// Every method may be cancelled by dropping its future; a statement cancelled before its
/// commit leaves nothing behind.
#[async_trait]
pub trait SqlBackend: Send + Sync + 'static {
    /// Parses and plans one statement without running it.
    async fn describe(
        &self,
        session: SessionId,
        sql: &str,
    ) -> Result<StatementDescription, SqlError>;

    /// Runs one statement: a query is planned and handed back, anything else is done on return.
    async fn execute(&self, request: ExecuteRequest) -> Result<Outcome, SqlError>;

    /// Runs one statement once per parameter row in one commit, or every statement of a script
    /// in order when there are no parameters. Returns the rows affected in total.
    async fn execute_update(&self, request: UpdateRequest) -> Result<u64, SqlError>;

    /// Writes a stream of batches into a table in one commit. Returns the rows written.
    async fn ingest(
        &self,
        request: IngestRequest,
        schema: SchemaRef,
        batches: BoxStream<'static, Result<RecordBatch, SqlError>>,
    ) -> Result<u64, SqlError>;

    /// The current snapshot, for metadata: answers while workers are down (RULES 28).
    fn snapshot(&self) -> Arc<Snapshot>;

    /// The columns a view has, or a table, as clients see them on the wire.
    async fn relation_schema(&self, schema: &str, relation: &str) -> Result<SchemaRef, SqlError>;

    /// Cancels a running statement; `false` when it is unknown or over.
    fn cancel(&self, query: QueryId) -> bool;

    /// The schema that a session creates in when a name has none; `None` when it has no such.
    fn session_schema(&self, _session: SessionId) -> Option<String> {
        Some(DEFAULT_SCHEMA.to_owned())
    }

    /// Makes a schema the whole search path of a session; `None` sets the path to the default.
    ///
    /// Fails when there is no such schema.
    fn set_session_schema(
        &self,
        _session: SessionId,
        schema: Option<&str>,
    ) -> Result<(), SqlError> {
        match schema {
            None | Some(DEFAULT_SCHEMA) => Ok(()),
            Some(_) => {
                let message = "sessions have one schema";
                Err(SqlError::new(ErrorCode::InvalidParameter, message))
            }
        }
    }

    /// Forgets a session's settings: its connection is closed.
    fn close_session(&self, session: SessionId);
}
