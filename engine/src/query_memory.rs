//! What one query may have of a worker's memory, so that a query that would take all of it leaves
//! its neighbours room to be answered in (RULES 20).
//!
//! The parts of one query on a worker share a pool: a limit in front of the pool of all queries. What can
//! spill spills at the limit; what cannot ends its query with `RESOURCES_EXHAUSTED`. Within the limit
//! they share as all queries do (`memory_shares`).
//!
//! In the coordinator a query has one part, which merges what workers send, and runs what needs no worker:
//! it may have three quarters of what there is.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use datafusion::error::Result;
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use datafusion::execution::runtime_env::RuntimeEnv;

use crate::memory_pool::SharedByUse;

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
            let own =
                SharedByUse::new("one query may have on a worker (--query-memory)", self.bytes_max);
            let shared = Arc::clone(&self.shared.memory_pool);
            let pool = Arc::new(QueryPool { own, shared });
            queries.insert(query.to_owned(), Arc::downgrade(&pool));
            pool
        });
        in_pool(&self.shared, pool)
    }
}

/// The runtime of a query's part that runs in the coordinator, which has one such part of each query.
pub(crate) fn of_coordinator(shared: &Arc<RuntimeEnv>) -> Arc<RuntimeEnv> {
    let bytes_max = match shared.memory_pool.memory_limit() {
        MemoryLimit::Finite(bytes) => bytes / 4 * 3,
        MemoryLimit::Infinite | MemoryLimit::Unknown => usize::MAX,
    };
    let own = SharedByUse::new("one query may have in the coordinator", bytes_max);
    in_pool(shared, Arc::new(QueryPool { own, shared: Arc::clone(&shared.memory_pool) }))
}

fn in_pool(shared: &Arc<RuntimeEnv>, pool: Arc<QueryPool>) -> Arc<RuntimeEnv> {
    Arc::new(RuntimeEnv { memory_pool: pool, ..RuntimeEnv::clone(shared) })
}

/// The memory of one query: both it and all queries must have what is asked for.
#[derive(Debug)]
struct QueryPool {
    own: SharedByUse,
    shared: Arc<dyn MemoryPool>,
}

impl fmt::Display for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, of {}", self.own, self.shared)
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
        self.own.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.own.grow(reservation, additional);
        self.shared.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.shared.shrink(reservation, shrink);
        self.own.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        self.own.try_grow(reservation, additional)?;
        let granted = self.shared.try_grow(reservation, additional);
        granted.inspect_err(|_| self.own.shrink(reservation, additional))
    }

    fn reserved(&self) -> usize {
        self.own.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.own.memory_limit()
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
        let says = "201.0 B more for a sort, which has 0.0 B: of 600.0 B that one query may have on a worker \
                    (--query-memory), 400.0 B are in use, and 200.0 B are for it";
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
    fn one_query_leaves_others_a_quarter_of_the_coordinators_memory() {
        let shared = memory().shared;
        let part = || MemoryConsumer::new("a sort").register(&of_coordinator(&shared).memory_pool);
        let (query, neighbour) = (part(), part());
        assert!(query.try_grow(ALL / 4 * 3 + 1).is_err());
        query.try_grow(ALL / 4 * 3).unwrap();
        neighbour.try_grow(ALL / 4).unwrap();
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
