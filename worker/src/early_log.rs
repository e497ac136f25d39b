//! The copy of the command log, served before this worker has joined.
//!
//! A worker serves everything else only once its coordinator has let it in. Its copy of the log
//! must not wait for that: after a restart of everything the coordinator itself waits for copies,
//! and when its disk is gone there is no coordinator until one is restored from them.

use std::net::TcpListener;
use std::time::Duration;

use basalt_engine::addressee;
use basalt_engine::channels::checksums::Checksums;
use basalt_engine::secret::ClusterSecret;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::service::InterceptorLayer;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::log_service::LogService;

/// How long questions under way may take when the worker has joined.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A server of the log alone.
#[derive(Debug)]
pub(crate) struct EarlyLog {
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl EarlyLog {
    /// Serves `log` on a socket that another server takes over later.
    ///
    /// # Errors
    /// What the operating system says of the socket.
    pub(crate) fn start(
        listener: &TcpListener,
        secret: ClusterSecret,
        log: LogService,
    ) -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let worker = log.worker();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = Server::builder()
            .layer(InterceptorLayer::new(move |request| secret.admit(request)))
            .layer(Checksums)
            .layer(InterceptorLayer::new(move |request| addressee::admit(worker, request)))
            .add_service(log.into_server())
            .serve_with_incoming_shutdown(incoming, async {
                let _ = stopped.await;
            });
        Ok(Self { stop, server: tokio::spawn(server) })
    }

    /// Stops taking questions; connections that come now wait for the next server.
    pub(crate) async fn stop(mut self) {
        let _ = self.stop.send(());
        if tokio::time::timeout(STOP_TIMEOUT, &mut self.server).await.is_err() {
            self.server.abort();
        }
    }
}
