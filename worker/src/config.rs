//! What a worker is started with.

use std::net::SocketAddr;
use std::path::PathBuf;

use basalt_engine::channels::LocalWorkers;
use basalt_engine::files::AllowedRoots;
use basalt_engine::runtime::Resources;
use basalt_engine::secret::ClusterSecret;
use url::Url;

/// Everything a worker needs to know.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Where its chunks, staging and identity live. Made when missing.
    pub data_dir: PathBuf,
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The address it gives to others, when it differs from the one it listens on.
    pub advertise: Option<Url>,
    /// What it fails together with, a rack or a host: copies go to different ones.
    pub domain: Option<String>,
    /// Its relative capacity, 1 to [`WORKER_WEIGHT_MAX`](basalt_engine::protocol::WORKER_WEIGHT_MAX).
    pub weight: u32,
    /// Where the coordinator is.
    pub coordinator: Url,
    /// The cluster secret.
    pub secret: ClusterSecret,
    /// What file scans may read.
    pub allowed_roots: AllowedRoots,
    /// What queries may use.
    pub resources: Resources,
    /// How much of their memory one of them may use, in bytes.
    pub query_memory_bytes: usize,
    /// How much of their memory may hold decoded columns while they do not need it, in bytes.
    pub column_cache_bytes: u64,
    /// How much of it rows of all writes may take until they are on the disk, in bytes.
    pub load_memory_bytes: usize,
    /// Workers of this process, where it adds itself; empty when it has a process of its own.
    pub local_workers: LocalWorkers,
}
