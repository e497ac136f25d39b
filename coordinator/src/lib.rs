//! Catalog, membership, statement life cycle and the Flight SQL endpoint.
//!
//! Knows nothing of worker internals. Read the modules in this order:
//!
//! - [`process`]: starting and stopping a coordinator
//! - [`catalog`]: what the cluster is made of, durable, changed by one writer
//! - [`log_links`], [`log_scrub`], [`log_sources`]: the workers that keep copies of the catalog's log
//! - [`commit_sources`]: what workers have left for a rebuilt catalog
//! - [`membership`], [`membership_service`]: which workers there are and which slices they own
//! - [`placement`]: which workers each slice should have, a pure function
//! - [`reconcile`]: slices and copies brought to where they should be
//! - [`repair`]: what to do next so that every segment has its copies there
//! - [`backend`]: the seam between the Flight SQL service and the statement life cycle
//! - `key_ranges`: where segments lie in the order of a sort key
//! - [`statements`]: the statement life cycle, with `sys_schema` to look at it
//! - [`flight`]: the Flight SQL service
//! - `simulation`: commit, membership and repair in one virtual cluster, for tests

pub mod backend;
pub mod catalog;
pub mod commit_sources;
pub mod flight;
mod key_ranges;
pub mod log_links;
pub mod log_scrub;
pub mod log_sources;
pub mod membership;
pub mod membership_service;
pub mod placement;
pub mod process;
pub mod reconcile;
pub mod repair;
#[cfg(test)]
mod simulation;
pub mod statements;
mod sys_schema;

pub use process::{Coordinator, CoordinatorConfig, CoordinatorError};
