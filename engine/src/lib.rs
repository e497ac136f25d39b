//! DataFusion integration: everything that coordinator and workers must agree on.
//!
//! Knows nothing of which process it runs in. Read the modules in this order:
//!
//! - [`error`]: the one error that SQL users see
//! - [`dialect`]: SQL text to a closed set of statements
//! - [`types`]: SQL types, their stored form, their form in scans and on the wire
//! - [`files`]: Parquet and CSV files from outside
//! - [`snapshot`]: what one statement sees

pub mod dialect;
pub mod error;
pub mod files;
pub mod snapshot;
pub mod types;
