//! DataFusion integration: everything that coordinator and workers must agree on.
//!
//! Knows nothing of which process it runs in. Read the modules in this order:
//!
//! - [`error`]: the one error that SQL users see
//! - [`snapshot`]: what one statement sees

pub mod error;
pub mod snapshot;
