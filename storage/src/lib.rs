//! Column files, segments and the chunk store of one worker's disk.
//!
//! Knows nothing of DataFusion, networks or SQL. Read the modules in this order:
//!
//! - [`ids`]: names of tables, slices, segments, columns, versions, transactions and workers
//! - [`digest`]: BLAKE3 digests that tie a chunk's bytes to the catalog
//! - [`schema`]: a table's columns, by stable id
//! - [`manifest`]: what the catalog knows about a segment
//! - [`zone_map`]: bounds and NULL counts

pub mod digest;
pub mod ids;
pub mod manifest;
pub mod schema;
pub mod zone_map;
