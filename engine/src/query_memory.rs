//! What one query may have of a worker's memory, so that a query that would take all of it leaves
//! its neighbours room to be answered in (RULES 20).
//!
//! The parts of one query on a worker share a pool: a limit in front of the pool of all queries. What can
//! spill spills at the limit; what cannot ends its query with `RESOURCES_EXHAUSTED`. The shares that
//! DataFusion's `FairSpillPool` gives to those that can spill are still of all queries together.
//!
//! Not here: the coordinator's own part of a query, which merges.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use datafusion::common::human_readable_size;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use datafusion::execution::runtime_env::RuntimeEnv;

/// The queries that a worker runs parts of, and what each may have.
#[derive(Debug, Clone)]
pub(crate) struct QueryMemory {
    shared: Arc<RuntimeEnv>,
    bytes_max: usize,
    queries: Arc<Mutex<HashMap<String, Weak<QueryPool>>>>,
}

impl QueryMemory {
    /// At most so many bytes of the memory of `shared` for each query.
    pub(crate) fn new(shared: Arc<RuntimeEnv>, bytes_max: usize) -> Self {
        Self { shared, bytes_max, queries: Arc::default() }
    }

    /// The runtime of one query, the same memory for each of its parts.
    pub(crate) fn of(&self, query: &str) -> Arc<RuntimeEnv> {
        let mut queries = self.queries.lock().unwrap_or_else(PoisonError::into_inner);
        let known = queries.get(query).and_then(Weak::upgrade);
        let pool = known.unwrap_or_else(|| {
            queries.retain(|_, pool| pool.strong_count() > 0);
            let pool = Arc::new(QueryPool {
                shared: Arc::clone(&self.shared.memory_pool),
                bytes_max: self.bytes_max,
                reserved: AtomicUsize::new(0),
            });
            queries.insert(query.to_owned(), Arc::downgrade(&pool));
            pool
        });
        Arc::new(RuntimeEnv { memory_pool: pool, ..RuntimeEnv::clone(&self.shared) })
    }
}

/// The memory of one query.
#[derive(Debug)]
struct QueryPool {
    shared: Arc<dyn MemoryPool>,
    bytes_max: usize,
    reserved: AtomicUsize,
}

impl QueryPool {
    fn too_much(&self, reservation: &MemoryReservation, additional: usize) -> DataFusionError {
        DataFusionError::ResourcesExhausted(format!(
            "{} more for {} is more than one query may have of a worker's memory: {}, of which it has {} \
             (--query-memory)",
            human_readable_size(additional),
            reservation.consumer().name(),
            human_readable_size(self.bytes_max),
            human_readable_size(self.reserved()),
        ))
    }
}

impl fmt::Display for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query({}) of {}", human_readable_size(self.bytes_max), self.shared)
    }
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &'static str {
        "query"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.shared.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.shared.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.reserved.fetch_add(additional, Ordering::Relaxed);
        self.shared.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.shared.shrink(reservation, shrink);
        self.reserved.fetch_sub(shrink, Ordering::Relaxed);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let within = |reserved: usize| {
            reserved.checked_add(additional).filter(|grown| *grown <= self.bytes_max)
        };
        self.reserved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, within)
            .map_err(|_| self.too_much(reservation, additional))?;
        self.shared.try_grow(reservation, additional).inspect_err(|_| {
            self.reserved.fetch_sub(additional, Ordering::Relaxed);
        })
    }

    fn reserved(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::GreedyMemoryPool;
    use datafusion::execution::runtime_env::RuntimeEnvBuilder;

    use super::*;

    const ALL: usize = 1_000;
    const ONE: usize = 600;

    fn memory() -> QueryMemory {
        let pool = Arc::new(GreedyMemoryPool::new(ALL));
        let shared = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc().unwrap();
        QueryMemory::new(shared, ONE)
    }

    fn part_of(memory: &QueryMemory, query: &str) -> MemoryReservation {
        MemoryConsumer::new("a sort").register(&memory.of(query).memory_pool)
    }

    #[test]
    fn the_parts_of_a_query_have_its_memory_together_and_leave_the_rest_to_others() {
        let memory = memory();
        let (first, second) = (part_of(&memory, "a"), part_of(&memory, "a"));
        first.try_grow(400).unwrap();
        let refused = second.try_grow(201).unwrap_err().to_string();
        let says = "201.0 B more for a sort is more than one query may have of a worker's memory: 600.0 B, of which it \
                    has 400.0 B";
        assert!(refused.contains(says), "{refused}");
        second.try_grow(200).unwrap();
        let neighbour = part_of(&memory, "b");
        neighbour.try_grow(400).unwrap();
        assert!(neighbour.try_grow(1).is_err(), "no more than there is");
        first.shrink(100);
        second.try_grow(100).unwrap();
        drop((first, second, neighbour));
        assert_eq!(memory.shared.memory_pool.reserved(), 0);
    }

    #[test]
    fn what_the_worker_refuses_is_not_counted_as_the_querys() {
        let memory = memory();
        let (query, neighbour) = (part_of(&memory, "a"), part_of(&memory, "b"));
        neighbour.try_grow(ONE).unwrap();
        assert!(query.try_grow(ONE).is_err());
        drop(neighbour);
        query.try_grow(ONE).unwrap();
    }

    #[test]
    fn a_query_is_known_for_as_long_as_a_part_of_it_has_memory() {
        let memory = memory();
        let kept = part_of(&memory, "kept");
        kept.try_grow(ONE).unwrap();
        for query in 0..100 {
            part_of(&memory, &query.to_string()).try_grow(1).unwrap();
        }
        assert!(part_of(&memory, "kept").try_grow(1).is_err());
        assert!(memory.queries.lock().unwrap().len() <= 2, "ended queries are forgotten");
    }
}
