//! End-to-end tests against clusters, one binary: each module is a part.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail it")]

mod analyze;
mod append_port;
mod arrows;
mod auto_keys;
mod back_pressure;
mod basics;
mod colocation;
mod column_cache;
mod concurrent_changes;
mod definitions_at_once;
mod differential;
mod duckdb_oracle;
mod eager_aggregation;
mod encodings;
mod exchanges;
mod few_rows;
mod hostile_plans;
mod hostile_sql;
mod join_order;
mod load_memory;
mod lone;
mod lying_worker;
mod one_task;
mod plan_cache;
mod ports;
mod pruning;
mod query_memory;
mod query_profiles;
mod registration;
mod requests;
mod result_cache;
mod shared_subplans;
mod show_create;
mod slt_datafusion;
mod slt_runner;
mod sorted_scans;
mod sql_page;
mod sqlite_sample;
mod statement_mistakes;
mod suites;
mod traps;
mod unread_builds;
mod vertical;
mod worker_port;
