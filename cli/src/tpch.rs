//! TPC-H: its data, its tables on this engine, and its queries.
//!
//! For `basalt demo` and `basalt bench`. The data is tpchgen's, byte for byte that of the TPC's
//! own dbgen; the queries are the 22 of the specification with their validation parameters.
//! Derived from TPC-H and not comparable to published TPC-H results.

mod data;
mod load;
mod queries;
mod tables;

pub use data::{generate, parquet_rows};
pub use load::{Loaded, drop_tables, load};
pub use queries::{QUERIES, Query, run, statements};
pub use tables::{TABLES, Table};
