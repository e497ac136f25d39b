//! ClickBench: a table of its shape, and its 43 queries.
//!
//! The original is a month of hits of a web counter: 100 million rows of 105 columns, which is too large
//! to carry around. This one is generated, with the same columns, order and skew: a few sites have
//! most of the hits, a few users come back often, most columns are nearly always 0 or empty, texts
//! are Cyrillic. Figures are not comparable to those that ClickBench publishes.

mod columns;
mod hits;
mod queries;
mod texts;

use crate::workload::{Table, Workload};

/// The table, and its queries.
pub static CLICKBENCH: Workload =
    Workload { name: "clickbench", tables: &TABLES, queries: &queries::QUERIES, operations: &[] };

static TABLES: [Table; 1] = [Table {
    name: "hits",
    columns: columns::COLUMNS,
    // The order of the original's primary key.
    distribution: "DISTSTYLE EVEN",
    sort_key: "SORTKEY(\"CounterID\", \"EventDate\", \"UserID\", \"EventTime\")",
    rows_per_scale: 1_000_000.0,
    is_scaled: true,
    schema: columns::schema,
    batches: hits::batches,
}];
