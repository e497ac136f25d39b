//! TPC-H: its data, its tables on this engine, and its queries.
//!
//! The data is tpchgen's, byte for byte that of the TPC's own dbgen; the queries are the 22 of the
//! specification with their validation parameters. Derived from TPC-H and not comparable to published
//! TPC-H results.

mod operations;
mod queries;
mod tables;

use crate::workload::Workload;

/// TPC-H.
pub static TPCH: Workload = Workload {
    name: "tpch",
    tables: &tables::TABLES,
    queries: &queries::QUERIES,
    operations: &operations::OPERATIONS,
};

/// The lines of orders, sorted by order, for look-ups.
pub static LOOKUPS: Workload =
    Workload { name: "lookups", tables: &tables::LINES_BY_ORDER, queries: &[], operations: &[] };
