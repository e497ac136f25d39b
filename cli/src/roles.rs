//! The seam to the server roles: everything the command line needs of a coordinator, a worker
//! or both in one process.
//!
//! Invariant: a function here returns once the role serves, and what it returned must be stopped
//! with [`Running::stop`], which finishes or cancels what is running and releases the data folder.

use anyhow::bail;
use futures::future::BoxFuture;

use crate::config::{ClusterConfig, CoordinatorConfig, WorkerConfig};

/// A role, or a whole embedded cluster, that serves.
pub struct Running {
    /// The Flight SQL (or worker) address it got, as `grpc://host:port`.
    pub url: String,
    /// The address of console and metrics it got, as `http://host:port`, where it has one.
    pub http: Option<String>,
    ended: BoxFuture<'static, anyhow::Error>,
    stop: BoxFuture<'static, anyhow::Result<()>>,
}

impl Running {
    /// Describes a role that serves: `ended` resolves when it dies on its own (a pending future
    /// when it cannot), `stop` stops it.
    pub fn new(
        url: String,
        http: Option<String>,
        ended: BoxFuture<'static, anyhow::Error>,
        stop: BoxFuture<'static, anyhow::Result<()>>,
    ) -> Self {
        Self { url, http, ended, stop }
    }

    /// Waits until the role dies on its own, and says why.
    pub async fn ended(&mut self) -> anyhow::Error {
        (&mut self.ended).await
    }

    /// Stops it: no new statements, running ones get a grace period, files are closed.
    ///
    /// # Errors
    /// What could not be shut down in order; it is stopped nevertheless.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop.await
    }
}

/// Starts a coordinator and its workers in this process.
///
/// # Errors
/// A data folder in use or not ours, a port in use, and whatever a role reports.
pub async fn start_cluster(config: ClusterConfig) -> anyhow::Result<Running> {
    bail!("the embedded cluster is not wired yet (data folder {})", config.data_dir.display())
}

/// Starts a coordinator in this process.
///
/// # Errors
/// As [`start_cluster`].
pub async fn start_coordinator(config: CoordinatorConfig) -> anyhow::Result<Running> {
    bail!("the coordinator is not wired yet (data folder {})", config.data_dir.display())
}

/// Starts a worker in this process and registers it.
///
/// # Errors
/// As [`start_cluster`]; also a coordinator that cannot be reached or refuses the secret.
pub async fn start_worker(config: WorkerConfig) -> anyhow::Result<Running> {
    bail!("the worker is not wired yet (coordinator {})", config.coordinator_url)
}
