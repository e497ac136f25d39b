//! Catalog, membership, statement life cycle and the Flight SQL endpoint.
//!
//! Knows nothing of worker internals. Read the modules in this order:
//!
//! - [`backend`]: the seam between the Flight SQL service and the statement life cycle
//! - [`identity`]: the cluster secret
//! - [`catalog`]: the state machine of schemas, tables, segments and slices, and its log
//! - [`membership`]: which workers live, and where they listen

pub mod backend;
pub mod catalog;
pub mod identity;
pub mod membership;
