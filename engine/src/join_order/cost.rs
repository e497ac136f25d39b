//! What a join costs, in units of the time that one row of a build side takes.
//!
//! The weights are measured (`sql-tests/compare`, TPC-H scale 1 on two cores): to put a row into a hash table takes
//! about as long as to look up four, and a row that is handed on about as long as one that is looked up.

use super::graph::{Graph, Set};

const PROBE: f64 = 0.25;
const OUTPUT: f64 = 0.25;
/// Moving a byte to another worker.
const MOVED_BYTE: f64 = 0.02;

/// Where joins run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Site {
    /// Workers that rows are moved between.
    pub(super) workers: usize,
}

/// What it costs to join two sets, beside what it costs to make them.
pub(super) fn join_cost(graph: &Graph, site: Site, left: Set, right: Set) -> f64 {
    let (left_rows, right_rows) = (graph.rows(left), graph.rows(right));
    let (build, probe) = (left_rows.min(right_rows), left_rows.max(right_rows));
    let output = graph.rows(left.and(right));
    let (left_bytes, right_bytes) =
        (left_rows * graph.row_bytes(left), right_rows * graph.row_bytes(right));
    build
        + PROBE * probe
        + OUTPUT * output
        + MOVED_BYTE * moved_bytes(site, left_bytes, right_bytes)
}

/// The smaller side goes to all workers, or each row of both to the worker of its key.
fn moved_bytes(site: Site, left: f64, right: f64) -> f64 {
    let others = site.workers.saturating_sub(1) as f64;
    let to_all = left.min(right) * others;
    let by_key = (left + right) * others / site.workers.max(1) as f64;
    to_all.min(by_key)
}
