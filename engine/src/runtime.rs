//! The resources one process may use for queries: memory, spill space, no object stores.
//!
//! DataFusion's defaults are an unbounded memory pool and a `file://` store; both are wrong for a
//! server (RULES 20, FAULTS A5). Files from outside are read by our own leaf only.

use std::path::PathBuf;
use std::sync::Arc;

use datafusion::common::not_impl_err;
use datafusion::error::Result;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use object_store::ObjectStore;
use url::Url;

/// What queries of one process may use.
#[derive(Debug, Clone)]
pub struct Resources {
    /// Memory of sorts, joins and aggregations together, in bytes.
    pub memory_bytes: usize,
    /// Where they spill when that is not enough.
    pub spill_dir: PathBuf,
    /// How much they may spill, in bytes.
    pub spill_bytes_max: u64,
}

/// How many of the largest consumers an out-of-memory error names.
const TRACKED_CONSUMERS: usize = 5;

impl Resources {
    /// The DataFusion runtime with these limits.
    pub fn runtime(&self) -> Result<Arc<RuntimeEnv>> {
        let consumers =
            std::num::NonZeroUsize::new(TRACKED_CONSUMERS).unwrap_or(std::num::NonZeroUsize::MIN);
        let pool = TrackConsumersPool::new(FairSpillPool::new(self.memory_bytes), consumers);
        let disk = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![self.spill_dir.clone()]))
            .with_max_temp_directory_size(self.spill_bytes_max);
        RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(pool))
            .with_disk_manager_builder(disk)
            .with_object_store_registry(Arc::new(NoObjectStores))
            .build_arc()
    }
}

/// A registry without any store, so that no plan can reach a file or a URL through DataFusion.
#[derive(Debug)]
struct NoObjectStores;

impl ObjectStoreRegistry for NoObjectStores {
    fn register_store(&self, _: &Url, _: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        not_impl_err!("object stores are not available to plans: {}", url.scheme())
    }
}
