//! The Flight SQL client behind `basalt sql`, `load`, `slt`, `bench`, `demo` and our own tests.
//!
//! A thin layer over [`FlightSqlServiceClient`] that knows what a Basalt server promises: one
//! call runs one statement exactly once ([`Client::run`]), a query is a bounded stream of batches
//! ([`QueryStream`]), an upload is one commit or nothing ([`Client::ingest`]), and every failure
//! is a [`ClientError`] with the server's code, sentence and hint.
//!
//! Invariant: nothing here retries. A statement that was cut off may have committed, and only the
//! caller knows whether sending it again is safe: with a request key it is
//! ([`Client::with_request_key`]).
//! Not here: formatting (`basalt sql`), starting clusters (`cluster`).

mod error;
mod ingest;
mod prepared;
mod stream;

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{CommandStatementUpdate, DoPutUpdateResult, ProstMessageExt};
use arrow_flight::{Action, CancelFlightInfoRequest, FlightData, FlightDescriptor, FlightInfo};
use prost::Message;
use tonic::transport::{Channel, Endpoint};

pub use error::{ClientError, ServerError};
pub use ingest::{IngestMode, IngestTarget};
pub use prepared::Prepared;
pub use stream::QueryStream;

/// The address that every client subcommand uses when neither `--url` nor `BASALT_URL` is given.
pub const DEFAULT_URL: &str = "grpc://127.0.0.1:50051";

/// Largest message taken or sent, in bytes. A row can be this large at most; servers send batches
/// of about 2 MiB, so this only bounds what one hostile or very wide row can make us allocate.
const MESSAGE_BYTES_MAX: usize = 128 << 20;

/// How long a connect may take before the server counts as unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often an idle or silent connection is probed, so that a vanished server is noticed.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// HTTP/2 flow-control windows in bytes: large enough that one stream fills a fast link, and that
/// streams which are not being read leave the others of the connection theirs.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;

/// Names the one statement that a call runs: see [`Client::with_request_key`].
const REQUEST_HEADER: &str = "x-basalt-request";

/// What came of a statement.
#[expect(clippy::large_enum_variant, reason = "one per statement, moved once or twice")]
pub enum Answer {
    /// Rows to fetch; nothing has been fetched yet.
    Rows(QueryStream),
    /// It is done and committed.
    Done {
        /// Rows inserted, loaded or deleted, where that means something.
        rows_affected: Option<u64>,
    },
}

/// One connection to one server; clones share it, and with it the session (`SET` and the like).
#[derive(Clone)]
pub struct Client {
    url: String,
    flight: FlightSqlServiceClient<Channel>,
}

impl Client {
    /// Connects to `grpc://host:port`, `http://host:port` or `host:port`.
    ///
    /// # Errors
    /// [`ClientError::InvalidUrl`] for anything else, [`ClientError::Unreachable`] when nobody
    /// answers within ten seconds.
    pub async fn connect(url: &str) -> Result<Self, ClientError> {
        let endpoint = endpoint(url)?;
        let channel = endpoint.connect().await.map_err(|source| ClientError::Unreachable {
            url: url.to_owned(),
            reason: error::innermost(&source),
        })?;
        Ok(Self::from_channel(url, channel))
    }

    /// A client over a channel that exists already; `url` is only for error texts.
    pub fn from_channel(url: &str, channel: Channel) -> Self {
        let inner = FlightServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Self { url: url.to_owned(), flight: FlightSqlServiceClient::new_from_inner(inner) }
    }

    /// The address as the user gave it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The same connection, whose calls carry a request key: what one of them writes is written
    /// once, however often it is sent, and each send that succeeds has the answer of the first.
    ///
    /// # Errors
    /// [`ClientError::Local`] when the key cannot stand in a header: a `LABEL` may be any text.
    pub fn with_request_key(&self, key: &str) -> Result<Self, ClientError> {
        if key.is_empty() || !key.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            let text = format!("request key {key:?} cannot be sent: it is not ASCII text");
            return Err(ClientError::Local(text));
        }
        let mut client = self.clone();
        client.flight.set_header(REQUEST_HEADER, key);
        Ok(client)
    }

    /// Runs one statement, whatever its kind.
    ///
    /// A query is planned and its rows wait to be fetched; anything else is committed on return.
    /// Dropping the future cancels the statement.
    ///
    /// # Errors
    /// What the server says; after an `UNAVAILABLE` the outcome of a write is unknown.
    pub async fn run(&mut self, sql: &str) -> Result<Answer, ClientError> {
        let info = self.flight.execute(sql.to_owned(), None).await?;
        self.answer(info)
    }

    /// Runs a query and returns its rows as a stream.
    ///
    /// # Errors
    /// As [`Client::run`]; [`ClientError::Protocol`] when the statement returns no rows at all.
    pub async fn query(&mut self, sql: &str) -> Result<QueryStream, ClientError> {
        match self.run(sql).await? {
            Answer::Rows(stream) => Ok(stream),
            Answer::Done { .. } => {
                Err(ClientError::Protocol("the statement is not a query: it has no rows".into()))
            }
        }
    }

    /// Runs a query and holds all of its rows in memory: for results known to be small.
    ///
    /// # Errors
    /// As [`Client::query`].
    pub async fn query_all(
        &mut self,
        sql: &str,
    ) -> Result<(SchemaRef, Vec<RecordBatch>), ClientError> {
        let mut stream = self.query(sql).await?;
        let mut batches = Vec::new();
        while let Some(batch) = stream.next_batch().await? {
            batches.push(batch);
        }
        Ok((stream.schema().clone(), batches))
    }

    /// Runs one statement, or a script of several, for its effect. Returns the rows affected.
    ///
    /// # Errors
    /// What the server says. Statements of a script before the failing one stay committed.
    pub async fn execute_update(&mut self, sql: &str) -> Result<u64, ClientError> {
        let command = CommandStatementUpdate { query: sql.to_owned(), transaction_id: None };
        let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        let message = FlightData { flight_descriptor: Some(descriptor), ..Default::default() };
        let mut results = self.flight.do_put(futures::stream::iter([message])).await?;
        let result = results.message().await.map_err(ClientError::from)?;
        rows_affected(result.map(|result| result.app_metadata))
    }

    /// Prepares a statement; nothing runs until [`Prepared::run`].
    ///
    /// # Errors
    /// What the server says about the text.
    pub async fn prepare(&mut self, sql: &str) -> Result<Prepared, ClientError> {
        Prepared::create(self.clone(), sql).await
    }

    /// Writes batches into a table in one commit. Returns the rows written.
    ///
    /// When `batches` ends with an error, or the returned future is dropped, the upload is reset
    /// and the server keeps nothing of it.
    ///
    /// # Errors
    /// The first error of `batches`, or what the server says.
    pub async fn ingest<S>(
        &mut self,
        target: IngestTarget,
        schema: SchemaRef,
        batches: S,
    ) -> Result<u64, ClientError>
    where
        S: futures::Stream<Item = Result<RecordBatch, ClientError>> + Send + 'static,
    {
        ingest::ingest(&mut self.flight, target, schema, batches).await
    }

    /// Asks the server to stop the query behind `info`. Dropping its stream does the same; this
    /// also reaches a query whose stream was never opened.
    ///
    /// # Errors
    /// What the server says; a query that is over already is not an error.
    pub async fn cancel(&mut self, info: FlightInfo) -> Result<(), ClientError> {
        let request = CancelFlightInfoRequest::new(info);
        let action = Action::new("CancelFlightInfo", request.encode_to_vec());
        let mut results = self.flight.do_action(action).await?;
        while results.message().await.map_err(ClientError::from)?.is_some() {}
        Ok(())
    }

    /// The client of the protocol itself, for what this type does not offer (metadata calls).
    pub fn flight(&mut self) -> &mut FlightSqlServiceClient<Channel> {
        &mut self.flight
    }

    /// Turns a flight into an answer: a server says "done" with no columns and no endpoints.
    fn answer(&self, info: FlightInfo) -> Result<Answer, ClientError> {
        let stream = QueryStream::new(self.flight.clone(), info)?;
        if stream.schema().fields().is_empty() && stream.info().endpoint.is_empty() {
            let rows_affected = u64::try_from(stream.info().total_records).ok();
            return Ok(Answer::Done { rows_affected });
        }
        Ok(Answer::Rows(stream))
    }
}

/// Rows affected, from the metadata of the one result that an update or ingest answers with.
fn rows_affected(metadata: Option<bytes::Bytes>) -> Result<u64, ClientError> {
    let metadata = metadata.ok_or_else(|| {
        ClientError::Protocol("the server closed the call without a result".into())
    })?;
    let result = DoPutUpdateResult::decode(metadata)
        .map_err(|source| ClientError::Protocol(format!("the update result: {source}")))?;
    // -1 is the protocol's "unknown".
    Ok(u64::try_from(result.record_count).unwrap_or(0))
}

/// The transport settings for an address in any of the accepted forms.
fn endpoint(url: &str) -> Result<Endpoint, ClientError> {
    let invalid =
        |reason: &str| ClientError::InvalidUrl { url: url.to_owned(), reason: reason.to_owned() };
    let authority = match url.split_once("://") {
        Some(("grpc" | "grpc+tcp" | "http", rest)) => rest,
        Some(("grpc+tls" | "grpcs" | "https", _)) => {
            return Err(invalid("this server speaks plain gRPC: use grpc://host:port"));
        }
        Some((scheme, _)) => {
            return Err(invalid(&format!("the scheme {scheme} is not one of grpc, http")));
        }
        None => url,
    };
    let authority = authority.trim_end_matches('/');
    if authority.is_empty() || authority.contains('/') {
        return Err(invalid("expected grpc://host:port"));
    }
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))
        .map_err(|source| invalid(&error::innermost(&source)))?;
    if endpoint.uri().port_u16().is_none() {
        return Err(invalid("the port is missing: expected grpc://host:port"));
    }
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

#[cfg(test)]
mod tests;
