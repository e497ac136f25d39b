//! A whole cluster in one process: a coordinator and N workers on loopback.
//!
//! What `basalt start` and `basalt demo` run, and what tests run against. Every role is the real
//! one and serves gRPC; fragments of queries go from role to role in memory ([`Links`]).
//!
//! ```text
//! <data dir>/coordinator/         catalog and cluster secret
//! <data dir>/worker-0/ ...        chunks of each worker
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use basalt_coordinator::membership::Liveness;
use basalt_coordinator::reconcile::ReconcileOptions;
use basalt_coordinator::statements::pressure::SegmentLimits;
use basalt_coordinator::{Coordinator, CoordinatorConfig, CoordinatorError};
use basalt_engine::channels::LocalWorkers;
use basalt_engine::files::AllowedRoots;
use basalt_engine::runtime::Resources;
use basalt_worker::{Worker, WorkerConfig, WorkerError};
use url::Url;

/// Memory of the coordinator's own part of queries, in parts of a worker's: it only merges.
const COORDINATOR_SHARE: usize = 4;

/// How the roles of an embedded cluster hand fragments of queries and their rows to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Links {
    /// In memory: plans are encoded, rows are not.
    #[default]
    InProcess,
    /// By gRPC on loopback, as roles in processes of their own do.
    Network,
}

/// What an embedded cluster is started with.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// Where everything lives. Made when missing.
    pub data_dir: PathBuf,
    /// Where clients connect; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How many workers; fixed for the life of the data directory.
    pub workers: u16,
    /// What COPY and file functions may read.
    pub allowed_roots: AllowedRoots,
    /// Memory that queries of all workers may use together, in bytes.
    pub memory_bytes: usize,
    /// How much of it one query may use; all of it at most.
    pub query_memory_bytes: usize,
    /// How much of it may hold decoded columns.
    pub column_cache_bytes: u64,
    /// How much of it rows of writes may take; a quarter at most.
    pub load_memory_bytes: usize,
    /// Spill space of each role, in bytes.
    pub spill_bytes_max: u64,
    /// How its roles reach each other.
    pub links: Links,
    /// When writes wait for compaction.
    pub segment_limits: SegmentLimits,
    /// Memory for answers that may be asked for again; none by default, so that what a test asks for is run.
    pub result_cache_bytes: usize,
}

impl EmbeddedConfig {
    /// A cluster on a free port with half of the machine's memory for queries.
    pub fn new(data_dir: impl Into<PathBuf>, workers: u16) -> Self {
        Self {
            data_dir: data_dir.into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            workers,
            allowed_roots: AllowedRoots::none(),
            memory_bytes: machine_memory_bytes() / 2,
            query_memory_bytes: usize::MAX,
            column_cache_bytes: machine_memory_bytes() as u64 / 4,
            load_memory_bytes: 2 << 30,
            spill_bytes_max: 100 << 30,
            links: Links::default(),
            segment_limits: SegmentLimits::default(),
            result_cache_bytes: 0,
        }
    }
}

/// The machine's memory in bytes; 4 GiB when it cannot be read.
pub fn machine_memory_bytes() -> usize {
    let total = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<usize>().ok()
    });
    total.map_or(4 << 30, |kib| kib * 1024)
}

/// Why an embedded cluster cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The coordinator cannot start.
    #[error(transparent)]
    Coordinator(#[from] CoordinatorError),
    /// A worker cannot start.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The data directory was made for another number of workers.
    #[error(
        "data directory {path} was made with {made} workers, not {asked}: use --workers {made}, or \
         another --data-dir"
    )]
    OtherWorkerCount {
        /// The directory.
        path: PathBuf,
        /// How many it was made with.
        made: u16,
        /// How many were asked for.
        asked: u16,
    },
    /// Its address is no URL.
    #[error("the coordinator's address is no URL: {0}")]
    Address(#[from] url::ParseError),
}

/// A running cluster. Dropping it ends all roles at once; [`EmbeddedCluster::stop`] is gentler.
pub struct EmbeddedCluster {
    coordinator: Coordinator,
    workers: Vec<Worker>,
}

impl EmbeddedCluster {
    /// Starts coordinator and workers, and waits until all of them serve.
    ///
    /// # Errors
    /// [`ClusterError`] when a role refuses to start.
    pub async fn start(config: &EmbeddedConfig) -> Result<Self, ClusterError> {
        let worker_memory = config.memory_bytes / usize::from(config.workers.max(1));
        let resources = |dir: &Path, memory_bytes| Resources {
            memory_bytes,
            spill_dir: dir.join("spill"),
            spill_bytes_max: config.spill_bytes_max,
        };
        // One set that all roles share, or one for each that stays by itself.
        let shared = LocalWorkers::default();
        let local_workers = || match config.links {
            Links::InProcess => shared.clone(),
            Links::Network => LocalWorkers::default(),
        };
        let dir = config.data_dir.join("coordinator");
        let coordinator = Coordinator::start(CoordinatorConfig {
            resources: resources(&dir, worker_memory / COORDINATOR_SHARE),
            data_dir: dir,
            listen: config.listen,
            workers_expected: Some(config.workers),
            allowed_roots: config.allowed_roots.clone(),
            local_workers: local_workers(),
            liveness: Liveness::default(),
            reconcile: ReconcileOptions::default(),
            segment_limits: config.segment_limits,
            result_cache_bytes: config.result_cache_bytes,
        })
        .await?;
        let made = coordinator.catalog().cluster().workers_expected;
        if let Some(made) = made.filter(|made| *made != config.workers) {
            let (path, asked) = (config.data_dir.clone(), config.workers);
            return Err(ClusterError::OtherWorkerCount { path, made, asked });
        }
        let url = Url::parse(&format!("http://{}", coordinator.address()))?;
        let mut workers = Vec::with_capacity(usize::from(config.workers));
        for index in 0..config.workers {
            let dir = config.data_dir.join(format!("worker-{index}"));
            let worker = WorkerConfig {
                resources: resources(&dir, worker_memory),
                data_dir: dir,
                listen: SocketAddr::from(([127, 0, 0, 1], 0)),
                advertise: None,
                domain: None,
                weight: 1,
                coordinator: url.clone(),
                secret: coordinator.secret().clone(),
                allowed_roots: config.allowed_roots.clone(),
                query_memory_bytes: (config.query_memory_bytes
                    / usize::from(config.workers.max(1)))
                .min(worker_memory),
                load_memory_bytes: (config.load_memory_bytes / usize::from(config.workers.max(1)))
                    .min(worker_memory / 4),
                column_cache_bytes: (config.column_cache_bytes / u64::from(config.workers.max(1)))
                    .min(worker_memory as u64),
                local_workers: local_workers(),
            };
            workers.push(Worker::start(worker).await?);
        }
        coordinator.wait_ready(usize::from(config.workers)).await;
        Ok(Self { coordinator, workers })
    }

    /// Where clients connect: `grpc://host:port`.
    pub fn url(&self) -> String {
        format!("grpc://{}", self.coordinator.address())
    }

    /// The coordinator.
    pub fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// The workers, in the order they were started.
    pub fn workers(&self) -> &[Worker] {
        &self.workers
    }

    /// Stops all roles, letting requests under way end for a while.
    pub async fn stop(self) {
        self.coordinator.stop().await;
        for worker in self.workers {
            worker.stop().await;
        }
    }
}
