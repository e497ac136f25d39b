//! The sessions that plans are made in (coordinator) and run in (workers), every setting explicit.
//!
//! Invariant: both sides agree on everything that changes results: batch size and time zone travel
//! with the plan in [`FragmentOptions`]; work stealing, which makes a task read its siblings'
//! files, is off on both (STORAGE.md T10).

mod fragment;
mod planning;

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::extensions_options;
use datafusion::config::{ConfigExtension, ConfigOptions};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::SessionConfig;

pub use fragment::{FragmentSessions, WorkerServices};
pub(crate) use planning::nested_state;
pub use planning::{
    Moment, PlanningSessions, SessionSpec, execution_context, planning_state, replanning_state,
    stored_view_state, view_state,
};

/// Sorts of one task keep at most this part of the memory free to merge.
const SORT_RESERVATION_PARTS: usize = 4;

extensions_options! {
    /// What travels with every fragment besides the plan.
    pub struct FragmentOptions {
        /// The query that the fragment is a part of: all of its parts on a worker share memory
        pub query: String, default = String::new()
        /// Rows per batch.
        pub batch_rows: usize, default = 8192
        /// The session's time zone.
        pub time_zone: String, default = "+00:00".to_owned()
        /// Whether joins are built on the side that clearly has fewer rows.
        pub smaller_builds: bool, default = true
        /// Partitions per task.
        pub target_partitions: usize, default = 2
        /// Whether scans evaluate filters.
        pub filter_pushdown: bool, default = true
        /// Whether scans pass over what zone maps rule out.
        pub pruning: bool, default = true
        /// Whether scans may read in the order of the sort key.
        pub sorted_scans: bool, default = true
        /// Whether scans put decoded columns into the column cache.
        pub caches_columns: bool, default = true
        /// Whether they look for columns there.
        pub finds_columns: bool, default = true
    }
}

impl ConfigExtension for FragmentOptions {
    const PREFIX: &'static str = "basalt";
}

impl FragmentOptions {
    /// Those of a session.
    pub(crate) fn of(options: &ConfigOptions) -> Self {
        options.extensions.get::<Self>().cloned().unwrap_or_default()
    }
}

/// What a plan runs with. It knows no functions: those of a plan that exists are in the plan, and to copy them
/// all takes longer than a small query.
pub(crate) fn running_context(
    session_id: String,
    config: SessionConfig,
    runtime: Arc<RuntimeEnv>,
) -> Arc<TaskContext> {
    Arc::new(TaskContext::new(
        None,
        session_id,
        config,
        HashMap::new(),
        HashMap::new(),
        HashMap::new(),
        HashMap::new(),
        runtime,
    ))
}

/// Memory that each sort keeps free to merge what it spilled, in bytes: DataFusion's default, and less where
/// the sorts of all partitions would then leave little to sort with.
fn sort_spill_reservation_bytes(runtime: &RuntimeEnv, partitions: usize) -> usize {
    let default = ConfigOptions::default().execution.sort_spill_reservation_bytes;
    match runtime.memory_pool.memory_limit() {
        MemoryLimit::Finite(bytes) => {
            default.min(bytes / SORT_RESERVATION_PARTS / partitions.max(1))
        }
        MemoryLimit::Infinite | MemoryLimit::Unknown => default,
    }
}

/// What planning does differently from DataFusion's defaults.
fn base_config() -> SessionConfig {
    let mut config = SessionConfig::new();
    let options = config.options_mut();
    options.execution.enable_file_stream_work_stealing = false;
    options.execution.parquet.schema_force_view_types = true;
    options.sql_parser.map_string_types_to_utf8view = true;
    // Errors of planning name the line and the column that they mean.
    options.sql_parser.collect_spans = true;
    // `SELECT min(a), min(b + 1)` would skip rows by the bound of `a` alone, and lose the least `b`
    // (sql-tests/upstream/min-of-two.md).
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    // Its branches would have to be partitioned alike, which they no longer are once they are in
    // stages of their own.
    options.optimizer.prefer_existing_union = true;
    // A scalar subquery that is a join says that it may be NULL, where the statement knows that it
    // is not: DataFusion takes that for an error in aggregates.
    options.execution.skip_physical_aggregate_schema_check = true;
    config
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::GreedyMemoryPool;
    use datafusion::execution::runtime_env::RuntimeEnvBuilder;

    use super::*;

    /// STORAGE.md T10: a task would read the files of its siblings.
    #[test]
    fn no_session_steals_work() {
        assert!(!base_config().options().execution.enable_file_stream_work_stealing);
    }

    fn reserved_of(memory_bytes: usize, partitions: usize) -> usize {
        let pool = Arc::new(GreedyMemoryPool::new(memory_bytes));
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build().unwrap();
        sort_spill_reservation_bytes(&runtime, partitions)
    }

    #[test]
    fn sorts_keep_no_more_than_a_quarter_of_the_memory_free_to_merge() {
        assert_eq!(reserved_of(16 << 20, 2), 2 << 20);
        assert_eq!(reserved_of(16 << 20, 16), 256 << 10);
        let default = ConfigOptions::default().execution.sort_spill_reservation_bytes;
        assert_eq!(reserved_of(8 << 30, 4), default);
    }
}
