//! Accepts connections, gives each a session, and serves them within limits.
//!
//! Invariant: a connection's session ends when its socket is dropped, whatever ended it.
//!
//! Limits, so that no client can hold more than its share: connections, requests in flight per
//! connection, header bytes, resets that the client sends without reading (CVE-2023-44487), time
//! to send the HTTP/2 preface, and a ping that a vanished client does not answer.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::{ConnectionInfo, FlightOptions, FlightSqlServer};
use crate::backend::SessionId;

/// The HTTP/2 connection preface (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;
/// How long a client may take to send it.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);
/// A ping goes out after this long without a frame, and must be answered within as long again.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Bytes of headers a request may have: a bearer token and a few options.
const HEADER_BYTES_MAX: u32 = 64 << 10;
/// Bytes in flight towards us on one stream, and on one connection: ingest at full speed over a
/// LAN without letting a client park more than this in our memory.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Pause after an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often planned queries that nobody fetched are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Serves `service` on `listener` until `shutdown` completes and running requests have ended,
/// or [`FlightOptions::shutdown_grace`] has passed.
///
/// # Errors
/// When the transport fails as a whole; a failing connection only ends itself.
pub async fn serve(
    listener: TcpListener,
    service: FlightSqlServer,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    serve_with_routes(listener, service, Routes::default(), shutdown).await
}

/// As [`serve`], with other gRPC services on the same port.
///
/// # Errors
/// As [`serve`].
pub async fn serve_with_routes(
    listener: TcpListener,
    service: FlightSqlServer,
    routes: Routes,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let stop = CancellationToken::new();
    let kill = CancellationToken::new();
    let options = &service.shared.options;
    let serving = configured(options)
        .add_routes(routes.add_service(service.clone().into_service()))
        .serve_with_incoming_shutdown(
            incoming(listener, service.clone(), kill.clone()),
            stop.clone().cancelled_owned(),
        );
    let stopping = async {
        shutdown.await;
        stop.cancel();
        tokio::time::sleep(options.shutdown_grace).await;
        kill.cancel();
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        result = serving => result,
        never = stopping => match never {},
        never = sweep(&service) => match never {},
    }
}

/// Drops planned queries that nobody fetched in time.
async fn sweep(service: &FlightSqlServer) -> Infallible {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        service.shared.tickets.expire(Instant::now());
    }
}

/// A tonic server with this endpoint's limits.
fn configured(options: &FlightOptions) -> Server {
    Server::builder()
        .max_concurrent_streams(options.streams_per_connection_max)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(64))
        .http2_max_local_error_reset_streams(Some(256))
}

/// The connections of `listener`, each with a session; all fail once `kill` is cancelled.
pub fn incoming(
    listener: TcpListener,
    service: FlightSqlServer,
    kill: CancellationToken,
) -> impl Stream<Item = io::Result<ClientConnection>> {
    futures::stream::unfold((listener, service, kill), |(listener, service, kill)| async move {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let max = service.shared.options.connections_max;
                    let Some(session) = service.shared.sessions.open(max) else {
                        tracing::warn!(%peer, max, "connection refused: too many are open");
                        continue;
                    };
                    let session = OpenSession { service: service.clone(), session };
                    let connection = ClientConnection::new(stream, peer, session, kill.clone());
                    return Some((Ok(connection), (listener, service, kill)));
                }
                Err(e) => {
                    tracing::warn!(error = %e, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

/// A session whose end is this value's end.
struct OpenSession {
    service: FlightSqlServer,
    session: SessionId,
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        // First closed, then emptied: nothing can be added in between.
        self.service.shared.sessions.close(self.session);
        self.service.reset_session(self.session);
    }
}

/// A client's socket, and the session that lives as long.
pub struct ClientConnection {
    stream: TcpStream,
    info: ConnectionInfo,
    preface: Option<Preface>,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
    _session: OpenSession,
}

/// What is still to come of the preface, and by when.
struct Preface {
    bytes_left: usize,
    deadline: Pin<Box<Sleep>>,
}

impl ClientConnection {
    fn new(
        stream: TcpStream,
        peer: std::net::SocketAddr,
        session: OpenSession,
        kill: CancellationToken,
    ) -> Self {
        if let Err(e) = stream.set_nodelay(true) {
            tracing::debug!(%peer, error = %e, "a socket stays without TCP_NODELAY");
        }
        let deadline = Box::pin(tokio::time::sleep(PREFACE_TIMEOUT));
        Self {
            stream,
            info: ConnectionInfo { session: session.session, peer },
            preface: Some(Preface { bytes_left: PREFACE_BYTES, deadline }),
            killed: Box::pin(kill.cancelled_owned()),
            _session: session,
        }
    }

    fn check_preface(&mut self, cx: &mut Context<'_>, received: usize) -> io::Result<()> {
        let Some(preface) = &mut self.preface else { return Ok(()) };
        preface.bytes_left = preface.bytes_left.saturating_sub(received);
        if preface.bytes_left == 0 {
            self.preface = None;
        } else if preface.deadline.as_mut().poll(cx).is_ready() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no HTTP/2 preface in time"));
        }
        Ok(())
    }
}

impl Connected for ClientConnection {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        self.info
    }
}

impl AsyncRead for ClientConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.killed.as_mut().poll(cx).is_ready() {
            let stopped = io::Error::new(io::ErrorKind::ConnectionAborted, "the server stops");
            return Poll::Ready(Err(stopped));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let received = buf.filled().len() - before;
        match self.check_preface(cx, received) {
            Err(late) if polled.is_pending() => Poll::Ready(Err(late)),
            _ => polled,
        }
    }
}

impl AsyncWrite for ClientConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
