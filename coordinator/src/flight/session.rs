//! Connections and what belongs to them, and the handshake.
//!
//! A session is one TCP connection: it begins when the connection is accepted and ends, with its
//! prepared statements and settings, when the connection is closed (or earlier, when the client
//! sends CloseSession: the connection then starts over with a clean session).
//!
//! There is no authentication yet. Drivers that are given a user name insist on a bearer token,
//! so the handshake hands one out; nothing ever checks it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrow_flight::{HandshakeRequest, HandshakeResponse};
use basalt_engine::error::ErrorCode;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::{FlightSqlServer, status};
use crate::backend::SessionId;

/// What is known of the connection that a request came in on; in the request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionInfo {
    /// The session of the connection.
    pub session: SessionId,
    /// The client's address.
    pub peer: SocketAddr,
}

/// The sessions of open connections.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    last: AtomicU64,
    open: Mutex<HashSet<SessionId>>,
}

impl Sessions {
    /// A session for a new connection; `None` when `max` are open.
    pub(super) fn open(&self, max: usize) -> Option<SessionId> {
        let mut open = self.lock();
        if open.len() >= max {
            return None;
        }
        let session = SessionId(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        open.insert(session);
        Some(session)
    }

    /// Forgets a session: its connection is closed.
    pub(super) fn close(&self, session: SessionId) {
        self.lock().remove(&session);
    }

    /// Whether the session's connection is open.
    pub(super) fn is_open(&self, session: SessionId) -> bool {
        self.lock().contains(&session)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<SessionId>> {
        // A set of ids is whole after any panic.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FlightSqlServer {
    /// Drops what a session holds: its statements here, its settings in the backend.
    pub(super) fn reset_session(&self, session: SessionId) {
        self.shared.prepared.close_session(session);
        self.backend().close_session(session);
    }

    /// The connection a request came in on.
    pub(super) fn session_of<T>(request: &Request<T>) -> Result<SessionId, Status> {
        request.extensions().get::<ConnectionInfo>().map(|info| info.session).ok_or_else(|| {
            status::error(ErrorCode::Internal, "the connection was not accepted by flight::server")
        })
    }
}

/// Lets everybody in, with a token that satisfies drivers.
pub(super) fn handshake(
    request: Request<Streaming<HandshakeRequest>>,
) -> Result<Response<BoxStream<'static, Result<HandshakeResponse, Status>>>, Status> {
    let token = Uuid::new_v4().simple().to_string();
    let bearer = MetadataValue::try_from(format!("Bearer {token}"))
        .map_err(|e| status::error(ErrorCode::Internal, format!("a token is no header: {e}")))?;
    // The answer comes after the first message, if there is one: `authenticate(handler)` of
    // pyarrow sends its credentials in it, and the basic handshake sends none.
    let answer = stream::once(async move {
        let first = request.into_inner().next().await.transpose()?;
        let protocol_version = first.map_or(0, |message| message.protocol_version);
        Ok(HandshakeResponse { protocol_version, payload: token.into() })
    });
    let mut response = Response::new(answer.boxed());
    response.metadata_mut().insert("authorization", bearer);
    Ok(response)
}
