//! The Flight SQL endpoint: what ADBC, JDBC and pyarrow.flight speak, over [`SqlBackend`].
//!
//! ```text
//!  client ── TCP ──> server      one session per connection, limits, keepalive
//!                      │
//!                    service     the ten RPCs of Arrow Flight
//!                      │
//!                    command     descriptor or ticket -> command | SQL text | path
//!        ┌─────────┬───┴────┬─────────┬──────────┬──────────┐
//!      query   prepared   update   ingest    metadata    actions
//!        └─────────┴───┬────┴─────────┘     sql_info     (cancel, session options)
//!                   backend (crate::backend::SqlBackend)
//! ```
//!
//! Invariant: a statement that changes something runs exactly once, in the RPC that
//! FLIGHT_SQL.md 3.4 names; describing, preparing and fetching never run it.
//!
//! Not here: SQL (the backend), authentication and transactions (both come later; a client that
//! asks for a transaction hears UNIMPLEMENTED, and every user name is let in).
//!
//! - [`server`]: accepts connections and serves them within limits
//! - `service`: the RPCs, routed to one module per command family
//! - `command`: what a descriptor or ticket asks for
//! - `caller`: who calls, and what a call is called
//! - `session`: connections and what belongs to them; the handshake
//! - `query`: planning queries and streaming their rows
//! - `prepared`: prepared statements and their parameters
//! - `update`: statements that change something, without preparing them
//! - `ingest`: bulk loads
//! - `metadata`, `sql_info`: what drivers ask about the database and the server
//! - `actions`: DoAction: prepare, close, cancel, session options
//! - `tickets`: planned queries that wait to be fetched
//! - `encode`, `decode`: record batches to and from messages of bounded size
//! - [`strict_body`]: request streams that break off are errors
//! - [`oversized`]: requests above the message limit
//! - `status`: the one table from errors to gRPC

mod actions;
mod caller;
mod command;
mod decode;
mod encode;
mod handle;
mod ingest;
mod metadata;
pub mod oversized;
mod prepared;
mod query;
pub mod server;
mod service;
mod session;
mod session_options;
mod sql_info;
mod status;
pub mod strict_body;
mod tickets;
mod update;

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;

use crate::backend::SqlBackend;
use oversized::Oversized;
use prepared::PreparedStatements;
use session::Sessions;
use strict_body::StrictBodies;
use tickets::Tickets;

pub use session::ConnectionInfo;

/// What the endpoint allows, and what it calls itself.
#[derive(Debug, Clone)]
pub struct FlightOptions {
    /// The server's name in SqlInfo 0.
    pub server_name: String,
    /// The server's version in SqlInfo 1.
    pub server_version: String,
    /// Largest message that clients may send, in bytes: one ingest batch of a client's choosing.
    pub message_bytes_max: usize,
    /// Queries that may be planned and not fetched at once; one more drops the oldest.
    pub tickets_max: usize,
    /// How long a planned query waits to be fetched.
    pub ticket_ttl: Duration,
    /// Prepared statements that one connection may hold open.
    pub prepared_per_session_max: usize,
    /// Bytes of parameter rows that one bind may carry.
    pub parameter_bytes_max: usize,
    /// Connections open at once; one more is closed on accept.
    pub connections_max: usize,
    /// RPCs in flight on one connection.
    pub streams_per_connection_max: u32,
    /// How long running requests may take to end once the server is told to stop.
    pub shutdown_grace: Duration,
}

impl Default for FlightOptions {
    fn default() -> Self {
        Self {
            server_name: "basalt".to_owned(),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            message_bytes_max: 64 << 20,
            tickets_max: 1_000,
            ticket_ttl: Duration::from_secs(300),
            prepared_per_session_max: 10_000,
            parameter_bytes_max: 64 << 20,
            connections_max: 4_096,
            streams_per_connection_max: 256,
            shutdown_grace: Duration::from_secs(5),
        }
    }
}

/// The Flight SQL service; clones share their state.
///
/// It answers on connections that [`server::incoming`] accepted, since those carry the session
/// they belong to: serve it with [`server::serve`] or [`server::serve_with_routes`].
#[derive(Clone)]
pub struct FlightSqlServer {
    shared: Arc<Shared>,
}

/// What all connections share.
struct Shared {
    backend: Arc<dyn SqlBackend>,
    options: FlightOptions,
    sessions: Sessions,
    prepared: PreparedStatements,
    tickets: Tickets,
    sql_info: sql_info::SqlInfos,
}

impl FlightSqlServer {
    /// A service in front of `backend`; does nothing until it is served.
    pub fn new(backend: Arc<dyn SqlBackend>, options: FlightOptions) -> Self {
        let shared = Shared {
            backend,
            sessions: Sessions::default(),
            prepared: PreparedStatements::new(options.prepared_per_session_max),
            tickets: Tickets::new(options.tickets_max, options.ticket_ttl),
            sql_info: sql_info::SqlInfos::new(&options),
            options,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The tonic service, with its message limits and without request compression; a client that
    /// breaks off a stream is never taken for one that ended it.
    pub fn into_service(self) -> StrictBodies<Oversized<FlightServiceServer<Self>>> {
        // The encoder refuses larger rows itself, with a text that helps: this is a backstop.
        let encoded_max = encode::MESSAGE_BYTES_MAX + (1 << 20);
        let decoded_max = self.shared.options.message_bytes_max;
        let service = FlightServiceServer::new(self)
            .max_decoding_message_size(decoded_max)
            .max_encoding_message_size(encoded_max);
        StrictBodies::new(Oversized::new(service))
    }

    fn backend(&self) -> &dyn SqlBackend {
        self.shared.backend.as_ref()
    }
}
