//! A worker: stores chunks, runs fragments, takes rows, belongs to one cluster.
//!
//! Knows nothing of the catalog. Read the modules in this order:
//!
//! - [`config`]: what a worker is started with
//! - [`process`]: starting and stopping one
//! - [`registration`]: joining the cluster and staying alive in it
//! - [`fragment_gate`], [`fragments`]: running parts of plans, with what is `lent` to them; what ended goes (`task_sweep`)
//! - [`chunk_source`], [`chunk_service`]: chunks for our scans, and for peers'; small ones are kept (`small_chunks`)
//! - [`staging`], [`append_sink`], [`ingest_service`]: rows on their way into segments
//! - [`log_service`], `early_log`: a copy of the coordinator's command log
//! - [`commit_record_service`]: what is kept of commits, to make a lost catalog again
//! - [`replicas`]: copies of segments, to and from peers
//! - [`panics`]: requests that panic

pub mod append_sink;
pub mod chunk_service;
pub mod chunk_source;
pub mod commit_record_service;
pub mod config;
mod early_log;
mod error;
pub mod fragment_gate;
pub mod fragments;
pub mod ingest_service;
mod lent;
pub mod log_service;
pub mod panics;
pub mod process;
pub mod registration;
pub mod replicas;
mod small_chunks;
pub mod staging;
mod task_sweep;

pub use config::WorkerConfig;
pub use error::WorkerError;
pub use process::Worker;
