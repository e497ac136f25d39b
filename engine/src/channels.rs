//! Connections between members of the cluster: one per peer, shared by all RPCs to it.
//!
//! Every request through a channel carries the cluster secret. Channels connect lazily and
//! reconnect by themselves; a peer that does not answer shows up as `UNAVAILABLE`.
//!
//! What goes through them is summed up at both ends ([`checksums`]).
//!
//! Invariant: the secret leaves this machine for nobody. Addresses of peers come from plans and
//! registrations, that is from other processes; without TLS only loopback ones are used.

pub mod checksums;
mod in_process;
mod partition_streams;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use basalt_storage::ids::WorkerId;
use datafusion::error::{DataFusionError, Result};
use datafusion_distributed::grpc::BoxCloneSyncChannel;
use datafusion_distributed::{ChannelResolver, WorkerChannel};
use http::{HeaderName, HeaderValue, Request, Response};
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tower::Service;
use url::{Host, Url};

use self::checksums::{ChecksummedChannel, OnDamage};
pub use self::in_process::LocalWorkers;
pub(crate) use self::in_process::in_own_task;
use self::partition_streams::PartitionStreams;
use crate::addressee::{self, WORKER_HEADER};
use crate::error::{ErrorCode, SqlError};
use crate::secret::{ClusterSecret, SECRET_HEADER};
use crate::session::FragmentSessions;

/// How long a TCP connect may take; peers are on one network.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often an idle connection is probed, so that a dead peer is noticed.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long a probe may stay unanswered.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// What a peer may send on one stream before we have read any of it, in bytes: enough to fill a
/// 10 Gbit/s link at a millisecond of latency.
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// The same for all streams of a connection together: the most that HTTP/2 allows, a thousand
/// full streams. Streams whose readers stall keep their part of it, and once it is used up they
/// would stop every other exchange between the two processes (RULES 23).
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;

/// The connections of one process to its peers.
#[derive(Clone)]
pub struct Channels {
    secret: HeaderValue,
    open: Arc<Mutex<HashMap<Url, Channel>>>,
    local: LocalWorkers,
}

impl Channels {
    /// Connections that prove membership with `secret`.
    pub fn new(secret: &ClusterSecret) -> Result<Self> {
        let mut value = HeaderValue::from_str(&secret.expose())
            .map_err(|error| DataFusionError::External(Box::new(error)))?;
        value.set_sensitive(true);
        Ok(Self { secret: value, open: Arc::default(), local: LocalWorkers::default() })
    }

    /// The same connections, where fragments for workers of this process need none.
    #[must_use]
    pub fn with_local(mut self, local: LocalWorkers) -> Self {
        self.local = local;
        self
    }

    /// The sessions of a worker of this process.
    pub(crate) fn local(&self, url: &Url) -> Option<Arc<FragmentSessions>> {
        self.local.sessions(url)
    }

    /// The connection to whoever listens at an address, made on first use.
    ///
    /// # Errors
    /// As [`check_peer_address`].
    pub fn get(&self, url: &Url) -> Result<BoxCloneSyncChannel> {
        self.connect(url, None)
    }

    /// The same to a worker: any other one that listens there refuses what comes.
    ///
    /// # Errors
    /// As [`check_peer_address`].
    pub fn worker(&self, worker: WorkerId, url: &Url) -> Result<BoxCloneSyncChannel> {
        self.connect(url, Some(addressee::to_header(worker)))
    }

    fn connect(&self, url: &Url, worker: Option<HeaderValue>) -> Result<BoxCloneSyncChannel> {
        check_peer_address(url)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = match open.get(url) {
            Some(channel) => channel.clone(),
            None => {
                let channel = Endpoint::from_shared(url.to_string())
                    .map_err(|error| DataFusionError::External(Box::new(error)))?
                    .connect_timeout(CONNECT_TIMEOUT)
                    .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
                    .keep_alive_timeout(KEEPALIVE_TIMEOUT)
                    .keep_alive_while_idle(true)
                    .initial_stream_window_size(STREAM_WINDOW_BYTES)
                    .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                    .tcp_nodelay(true)
                    // No memory of headers: see `checksums`.
                    .http2_header_table_size(0)
                    .connect_lazy();
                open.insert(url.clone(), channel.clone());
                channel
            }
        };
        let secret = self.secret.clone();
        let (all, bad) = (Arc::clone(&self.open), url.clone());
        let on_damage: OnDamage = Arc::new(move || {
            all.lock().unwrap_or_else(PoisonError::into_inner).remove(&bad);
        });
        let channel = ChecksummedChannel::new(WithSecret { channel, secret }, on_damage);
        Ok(BoxCloneSyncChannel::new(ToWorker { channel, worker }))
    }
}

/// The longest address of a peer, in bytes: a scheme, a host and a port.
pub const PEER_ADDRESS_BYTES_MAX: usize = 128;

/// Refuses an address that no member of a cluster has: `http://host:port` of this machine.
///
/// # Errors
/// [`ErrorCode::PermissionDenied`].
pub fn check_peer_address(url: &Url) -> Result<(), SqlError> {
    let is_loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    let is_bare = url.username().is_empty()
        && url.password().is_none()
        && matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none();
    let has_port = url.port_or_known_default().is_some_and(|port| port != 0);
    let is_short = url.as_str().len() <= PEER_ADDRESS_BYTES_MAX;
    if url.scheme() == "http" && is_loopback && is_bare && has_port && is_short {
        return Ok(());
    }
    let shown: String = url.as_str().chars().take(PEER_ADDRESS_BYTES_MAX).collect();
    let message = format!(
        "peer address {shown} is not http://host:port of this machine: without TLS nothing is sent \
         beyond it"
    );
    Err(SqlError::new(ErrorCode::PermissionDenied, message))
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Channels")
    }
}

#[async_trait]
impl ChannelResolver for Channels {
    async fn get_worker_client_for_url(&self, url: &Url) -> Result<Box<dyn WorkerChannel>> {
        match self.local.get(url) {
            Some(worker) => Ok(Box::new(worker)),
            None => Ok(Box::new(PartitionStreams::new(self.get(url)?))),
        }
    }
}

/// A channel that adds the cluster secret to every request: the last thing that is added.
#[derive(Clone)]
struct WithSecret {
    channel: Channel,
    secret: HeaderValue,
}

impl Service<Request<Body>> for WithSecret {
    type Response = Response<Body>;
    type Error = tonic::transport::Error;
    type Future = <Channel as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<Request<Body>>::poll_ready(&mut self.channel, cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.headers_mut().insert(HeaderName::from_static(SECRET_HEADER), self.secret.clone());
        self.channel.call(request)
    }
}

/// A channel that says whom every request is for, if that is known.
#[derive(Clone)]
struct ToWorker<S> {
    channel: S,
    worker: Option<HeaderValue>,
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for ToWorker<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(worker) = &self.worker {
            let name = HeaderName::from_static(WORKER_HEADER);
            request.headers_mut().insert(name, worker.clone());
        }
        self.channel.call(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_secret_is_sent_to_this_machine_only() {
        let check = |url: &str, is_allowed: bool| {
            let url = Url::parse(url).unwrap();
            assert_eq!(check_peer_address(&url).is_ok(), is_allowed, "{url}");
            let channels = Channels::new(&ClusterSecret::generate().unwrap()).unwrap();

            assert_eq!(channels.get(&url).is_ok(), is_allowed, "{url}");
        };
        for url in
            ["http://127.0.0.1:5", "http://127.8.8.8:5/", "http://[::1]:5", "http://localhost:5"]
        {
            check(url, true);
        }
        for url in [
            "http://169.254.169.254/",
            "http://0.0.0.0:5",
            "http://10.0.0.1:5",
            "http://example.org:5",
            "http://localhost.example.org:5",
            "https://127.0.0.1:5",
            "http://127.0.0.1:0",
            "http://user@127.0.0.1:5",
            "http://127.0.0.1:5/path",
            "http://127.0.0.1:5?query",
            "file:///etc/passwd",
            "unix:/x",
        ] {
            check(url, false);
        }
        let long = Url::parse(&format!("http://127.0.0.1:5#{}", "x".repeat(1 << 20))).unwrap();
        assert!(check_peer_address(&long).unwrap_err().message.len() < 300);
    }
}
