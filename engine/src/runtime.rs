//! The resources one process may use for queries: memory, spill space, no object stores.
//!
//! DataFusion's defaults are an unbounded memory pool and a `file://` store; both are wrong for a
//! server (RULES 20, FAULTS A5). Files from outside are read by our own leaf only.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::common::not_impl_err;
use datafusion::error::Result;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, TrackConsumersPool,
};
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use object_store::ObjectStore;
use url::Url;

use crate::column_cache::ColumnCache;
use crate::memory_pool::SharedByUse;

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
        self.runtime_with(self.memory())
    }

    /// The DataFusion runtime with these limits, whose memory `columns` has as far as queries do not
    /// need it.
    pub fn runtime_beside(&self, columns: Arc<ColumnCache>) -> Result<Arc<RuntimeEnv>> {
        let queries = self.memory();
        self.runtime_with(QueriesFirst { queries, memory_bytes: self.memory_bytes, columns })
    }

    fn memory(&self) -> SharedByUse {
        SharedByUse::new("queries may have", self.memory_bytes)
    }

    fn runtime_with(&self, pool: impl MemoryPool) -> Result<Arc<RuntimeEnv>> {
        let consumers =
            std::num::NonZeroUsize::new(TRACKED_CONSUMERS).unwrap_or(std::num::NonZeroUsize::MIN);
        let pool = TrackConsumersPool::new(pool, consumers);
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

/// Memory that queries and the column cache share: the cache gives back what queries reserve.
#[derive(Debug)]
struct QueriesFirst {
    queries: SharedByUse,
    memory_bytes: usize,
    columns: Arc<ColumnCache>,
}

impl QueriesFirst {
    fn leave_room(&self) {
        self.columns
            .leave_room(|| self.memory_bytes.saturating_sub(self.queries.reserved()) as u64);
    }
}

impl fmt::Display for QueriesFirst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.queries)
    }
}

impl MemoryPool for QueriesFirst {
    fn name(&self) -> &'static str {
        "queries_first"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.queries.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.queries.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.queries.grow(reservation, additional);
        self.leave_room();
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.queries.shrink(reservation, shrink);
        self.leave_room();
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let grown = self.queries.try_grow(reservation, additional);
        self.leave_room();
        grown
    }

    fn reserved(&self) -> usize {
        self.queries.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.queries.memory_limit()
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

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::DataType;
    use basalt_storage::digest::Digest;
    use basalt_storage::ids::{ColumnId, SegmentId};

    use super::*;
    use crate::column_cache::{ColumnKey, DecodedColumn};

    const MEMORY: usize = 64 << 20;

    fn scene() -> (Arc<ColumnCache>, Arc<RuntimeEnv>) {
        let columns = Arc::new(ColumnCache::new(MEMORY as u64 / 2));
        let resources =
            Resources { memory_bytes: MEMORY, spill_dir: std::env::temp_dir(), spill_bytes_max: 0 };
        let runtime = resources.runtime_beside(Arc::clone(&columns)).unwrap();
        (columns, runtime)
    }

    /// Keeps as much as there is room for.
    fn fill(columns: &ColumnCache) {
        let (segment, meta_digest) = (SegmentId::generate(), Digest::of(b""));
        for row_group in 0..200 {
            let key = ColumnKey { segment, meta_digest, column: ColumnId(1), row_group };
            let values: ArrayRef = Arc::new(Int64Array::from(vec![0]));
            let column = DecodedColumn::new(DataType::Int64, vec![values], 256 << 10);
            columns.keep(key, Arc::new(column));
        }
    }

    #[test]
    fn the_column_cache_gives_queries_all_of_the_memory() {
        let (columns, runtime) = scene();
        fill(&columns);
        assert!(columns.usage().bytes > MEMORY as u64 / 4);

        let query = MemoryConsumer::new("a query").register(&runtime.memory_pool);
        query.try_grow(MEMORY).unwrap();
        assert_eq!(columns.usage().bytes, 0);
        assert!(query.try_grow(1).is_err(), "no more than all of it");
        drop(query);
        assert_eq!(columns.usage().room_bytes, columns.usage().budget_bytes);
    }

    #[test]
    fn many_queries_and_the_column_cache_have_no_more_than_all_of_the_memory() {
        let (columns, runtime) = scene();
        let pool = &runtime.memory_pool;
        let queries = |_| {
            for round in 0..200 {
                let query = MemoryConsumer::new("a query").register(pool);
                while query.size() < MEMORY / 8 && query.try_grow(100_000).is_ok() {}
                if round % 10 == 0 {
                    fill(&columns);
                }
                query.shrink(query.size() / 2);
            }
        };
        std::thread::scope(|scope| {
            (0..4).for_each(|number| drop(scope.spawn(move || queries(number))));
        });
        assert_eq!(pool.reserved(), 0);
        assert_eq!(columns.usage().room_bytes, columns.usage().budget_bytes, "all is given back");
        // Grown bit by bit to nearly all of it.
        fill(&columns);
        let query = MemoryConsumer::new("a query").register(pool);
        while query.try_grow(100_000).is_ok() {
            let used = columns.usage().bytes + query.size() as u64;
            assert!(used <= (MEMORY + MEMORY / 64) as u64, "{used} bytes");
        }
    }
}
