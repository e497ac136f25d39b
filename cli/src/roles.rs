//! The seam to the server roles: everything the command line needs of a coordinator, a worker
//! or both in one process.
//!
//! Invariant: a function here returns once the role serves, and what it returned must be stopped
//! with [`Running::stop`], which finishes or cancels what is running and releases the data folder.

use std::path::{Path, PathBuf};

use anyhow::Context;
use basalt_coordinator::Coordinator;
use basalt_coordinator::statements::pressure::SegmentLimits;
use basalt_engine::channels::{LocalWorkers, check_peer_address};
use basalt_engine::files::AllowedRoots;
use basalt_engine::runtime::Resources;
use basalt_engine::secret::ClusterSecret;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig, machine_memory_bytes};
use basalt_worker::Worker;
use futures::FutureExt;
use futures::future::BoxFuture;
use url::Url;

use crate::config::{ClusterConfig, CoordinatorConfig, WorkerConfig};
use crate::data_dir::{self, Role};

/// A role, or a whole embedded cluster, that serves.
pub struct Running {
    /// The Flight SQL (or worker) address it got, as `grpc://host:port`.
    pub url: String,
    ended: BoxFuture<'static, anyhow::Error>,
    stop: BoxFuture<'static, anyhow::Result<()>>,
}

impl Running {
    /// Describes a role that serves: `ended` resolves when it dies on its own (a pending future
    /// when it cannot), `stop` stops it.
    pub fn new(
        url: String,
        ended: BoxFuture<'static, anyhow::Error>,
        stop: BoxFuture<'static, anyhow::Result<()>>,
    ) -> Self {
        Self { url, ended, stop }
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
    let workers = u16::try_from(config.workers).context("so many workers do not fit")?;
    let embedded = EmbeddedConfig {
        listen: config.listen,
        allowed_roots: allowed_roots(&config.allow_path)?,
        memory_bytes: config.memory.memory_bytes,
        query_memory_bytes: config.memory.query_memory_bytes,
        column_cache_bytes: config.memory.column_cache_bytes,
        load_memory_bytes: config.memory.load_memory_bytes,
        result_cache_bytes: config.result_cache_bytes,
        ..EmbeddedConfig::new(config.data_dir, workers)
    };
    let cluster = EmbeddedCluster::start(&embedded).await?;
    let url = cluster.url();
    Ok(running(url, async move { cluster.stop().await }))
}

/// Starts a coordinator in this process.
///
/// # Errors
/// As [`start_cluster`].
pub async fn start_coordinator(config: CoordinatorConfig) -> anyhow::Result<Running> {
    data_dir::check_role(&config.data_dir, Role::Coordinator)?;
    let memory_bytes = machine_memory_bytes() / COORDINATOR_MEMORY_PART;
    let resources = resources(&config.data_dir, memory_bytes);
    let coordinator = Coordinator::start(basalt_coordinator::CoordinatorConfig {
        data_dir: config.data_dir,
        listen: config.listen,
        workers_expected: None,
        allowed_roots: allowed_roots(&config.allow_path)?,
        resources,
        local_workers: LocalWorkers::default(),
        liveness: config.timing.liveness(),
        reconcile: config.timing.reconcile(),
        segment_limits: SegmentLimits::default(),
        result_cache_bytes: config.result_cache_bytes,
    })
    .await?;
    let url = format!("grpc://{}", coordinator.address());
    Ok(running(url, async move { coordinator.stop().await }))
}

/// Starts a worker in this process and registers it.
///
/// # Errors
/// As [`start_cluster`]; also a coordinator that cannot be reached or refuses the secret.
pub async fn start_worker(config: WorkerConfig) -> anyhow::Result<Running> {
    data_dir::check_role(&config.data_dir, Role::Worker)?;
    let coordinator = http_url(&config.coordinator_url)?;
    check_peer_address(&coordinator)?;
    let resources = resources(&config.data_dir, config.memory.memory_bytes);
    let worker = Worker::start(basalt_worker::WorkerConfig {
        data_dir: config.data_dir,
        listen: config.listen,
        advertise: config.advertise.as_deref().map(http_url).transpose()?,
        domain: config.domain,
        weight: config.weight,
        coordinator,
        secret: ClusterSecret::read(&config.secret_file)?,
        allowed_roots: allowed_roots(&config.allow_path)?,
        query_memory_bytes: config.memory.query_memory_bytes,
        load_memory_bytes: config.memory.load_memory_bytes,
        resources,
        column_cache_bytes: config.memory.column_cache_bytes,
        local_workers: LocalWorkers::default(),
    })
    .await?;
    let url = worker.url().to_string().replacen("http://", "grpc://", 1);
    let url = url.trim_end_matches('/').to_owned();
    Ok(running(url, async move { worker.stop().await }))
}

/// A coordinator process uses this part of the machine's memory for queries: it only merges.
const COORDINATOR_MEMORY_PART: usize = 16;
/// Spill space of a process, in bytes.
const SPILL_BYTES_MAX: u64 = 100 << 30;

fn resources(data_dir: &Path, memory_bytes: usize) -> Resources {
    Resources { memory_bytes, spill_dir: data_dir.join("spill"), spill_bytes_max: SPILL_BYTES_MAX }
}

fn allowed_roots(paths: &[PathBuf]) -> anyhow::Result<AllowedRoots> {
    Ok(AllowedRoots::new(paths)?)
}

/// A process's address as its internal services are reached: `grpc://` and no scheme at all mean
/// plain HTTP/2.
pub(crate) fn http_url(text: &str) -> anyhow::Result<Url> {
    let rest = text.strip_prefix("grpc://").or_else(|| text.strip_prefix("http://"));
    let url = format!("http://{}", rest.unwrap_or(text));
    Url::parse(&url)
        .with_context(|| format!("{text} is not the address of a coordinator or worker"))
}

/// A role that only ends when it is stopped.
fn running(url: String, stop: impl Future<Output = ()> + Send + 'static) -> Running {
    let stop = async move {
        stop.await;
        Ok(())
    };
    Running::new(url, std::future::pending().boxed(), stop.boxed())
}
