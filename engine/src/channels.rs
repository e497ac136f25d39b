//! Connections between members of the cluster: one per peer, shared by all RPCs to it.
//!
//! Every request through a channel carries the cluster secret. Channels connect lazily and
//! reconnect by themselves; a peer that does not answer shows up as `UNAVAILABLE`.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::error::{DataFusionError, Result};
use datafusion_distributed::grpc::{BoxCloneSyncChannel, create_worker_client};
use datafusion_distributed::{ChannelResolver, WorkerChannel};
use http::{HeaderName, HeaderValue, Request, Response};
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tower::Service;
use url::Url;

use crate::secret::{ClusterSecret, SECRET_HEADER};

/// How long a TCP connect may take; peers are on one network.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often an idle connection is probed, so that a dead peer is noticed.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long a probe may stay unanswered.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 flow-control windows, in bytes: large enough that one exchange fills a 10 Gbit/s link at
/// a millisecond of latency.
const WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// The connections of one process to its peers.
#[derive(Clone)]
pub struct Channels {
    secret: HeaderValue,
    open: Arc<Mutex<HashMap<Url, Channel>>>,
}

impl Channels {
    /// Connections that prove membership with `secret`.
    pub fn new(secret: &ClusterSecret) -> Result<Self> {
        let mut value = HeaderValue::from_str(&secret.expose())
            .map_err(|error| DataFusionError::External(Box::new(error)))?;
        value.set_sensitive(true);
        Ok(Self { secret: value, open: Arc::default() })
    }

    /// The connection to a peer, made on first use.
    pub fn get(&self, url: &Url) -> Result<BoxCloneSyncChannel> {
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
                    .initial_stream_window_size(WINDOW_BYTES)
                    .initial_connection_window_size(WINDOW_BYTES)
                    .tcp_nodelay(true)
                    .connect_lazy();
                open.insert(url.clone(), channel.clone());
                channel
            }
        };
        Ok(BoxCloneSyncChannel::new(WithSecret { channel, secret: self.secret.clone() }))
    }
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Channels")
    }
}

#[async_trait]
impl ChannelResolver for Channels {
    async fn get_worker_client_for_url(&self, url: &Url) -> Result<Box<dyn WorkerChannel>> {
        Ok(create_worker_client(self.get(url)?))
    }
}

/// A channel that adds the cluster secret to every request.
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
