//! DataFusion integration: everything that coordinator and workers must agree on.
//!
//! Knows nothing of which process it runs in. Read the modules in this order:
//!
//! - [`error`]: the one error that SQL users see
//! - [`snapshot`]: what one statement sees
//! - [`dialect`]: from text to statements
//! - [`types`]: SQL, storage, scan and wire types
//! - [`settings`]: what SQL may set
//! - [`arithmetic`]: integer arithmetic and sums that never wrap
//! - [`session`]: the sessions that plans are made and run in, with [`runtime`] limits
//! - [`table`], [`scan`], [`chunks`]: reading stored tables
//! - [`files`]: reading files from outside
//! - [`mod@write`]: rows into segments
//! - [`distribute`]: which worker runs what, and the plan checker
//! - [`codec`], [`allow_list`]: plans on the wire
//! - [`protocol`], [`secret`], [`channels`]: the internal gRPC contracts

pub mod allow_list;
pub mod arithmetic;
pub mod channels;
pub mod chunks;
pub mod codec;
pub mod dialect;
pub mod distribute;
pub mod error;
pub mod files;
pub mod protocol;
pub mod runtime;
pub mod scan;
pub mod secret;
pub mod session;
pub mod settings;
pub mod snapshot;
mod snapshot_catalog;
pub mod table;
pub mod types;
pub mod write;
mod yielding;
