//! Catalog, membership, statement life cycle and the Flight SQL endpoint.
//!
//! Knows nothing of worker internals. Read the modules in this order:
//!
//! - [`backend`]: the seam between the Flight SQL service and the statement life cycle
//! - [`flight`]: the Flight SQL service

pub mod backend;
pub mod flight;
