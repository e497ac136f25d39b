//! Column files, segments and the chunk store of one worker's disk.
//!
//! Knows nothing of DataFusion, networks or SQL. Read the modules in this order:
//!
//! - [`ids`]: names of tables, slices, segments, columns, versions, transactions and workers
//! - [`digest`]: BLAKE3 digests that tie a chunk's bytes to the catalog
//! - [`types`]: the closed set of storable types
//! - [`encoding`]: how a column's values are laid out, declared or chosen from a sample
//! - [`schema`]: a table's columns, by stable id
//! - [`manifest`]: what the catalog knows about a segment
//! - [`delete_vector`]: which rows of a segment are deleted
//! - [`zone_map`]: bounds and NULL counts
//! - [`slice_hash`]: which slice a row belongs to
//! - [`sketch`]: how many different values there are, and how they are spread
//! - [`layout`]: paths and sizes
//! - [`segment_writer`]: rows to encoded segments
//! - [`segment_meta`]: what is needed to read, verify and prune a segment
//! - [`row_group`]: the same in pieces, as scans read
//! - [`segment_reader`]: verified bytes to arrays
//! - [`chunk_store`]: segments on this disk
//! - [`vfs`], `durable_write`: the file system, and the rules by which bytes become durable
//! - [`command_log`]: the records of the catalog's log, and a member's copy of it
//! - [`commit_records`]: what a worker keeps of commits, to make a lost catalog again
//! - [`fail_point`]: named steps of a write, where a test ends the process
//! - [`error`]: what can go wrong
//!
//! The bytes themselves are specified in `FORMAT.md`.

pub mod chunk_store;
pub mod command_log;
pub mod commit_records;
pub mod delete_vector;
pub mod digest;
pub mod durable_write;
pub mod encoding;
pub mod error;
pub mod fail_point;
pub mod ids;
pub mod layout;
pub mod manifest;
mod parallel;
mod parquet_footer;
pub mod row_group;
pub mod schema;
pub mod segment_meta;
pub mod segment_reader;
pub mod segment_writer;
pub mod sketch;
pub mod slice_hash;
pub mod types;
pub mod vfs;
pub mod zone_map;

pub use error::{Result, StorageError};
