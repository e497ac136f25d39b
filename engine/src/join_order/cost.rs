//! What a join costs, in units of the time that one row of a build side takes.
//!
//! The weights are measured (`sql-tests/compare`, TPC-H scale 1 on two cores): to put a row into a hash table takes
//! about as long as to look up four, and a row that is handed on about as long as one that is looked up.

use super::graph::{Graph, Set};

const PROBE: f64 = 0.25;
const OUTPUT: f64 = 0.25;
/// Looking a row up in what a scan was told of a build side.
const FILTERED: f64 = 0.1;
/// Reading a row of a table.
const READ: f64 = 0.1;
/// Moving a byte to another worker.
const MOVED_BYTE: f64 = 0.02;
/// DataFusion collects a side of at most so many rows, and sends it to all workers; of two larger ones each row goes to
/// the worker of its key (`hash_join_single_partition_threshold_rows`).
const COLLECTED_ROWS: f64 = 131_072.0;
/// How much more must be spared than it costs, for estimates are off by factors.
const CLEARLY_MORE: f64 = 1.5;

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
    let bytes = |rows: f64, of: Set| rows * graph.row_bytes(of);
    let (left_bytes, right_bytes) = (bytes(left_rows, left), bytes(right_rows, right));
    let moved = match graph.lie_by_key(left, right) {
        _ if graph.is_everywhere(left) || graph.is_everywhere(right) => 0.0,
        (true, true) => 0.0,
        (true, false) if build > COLLECTED_ROWS => site.by_key(right_bytes),
        (false, true) if build > COLLECTED_ROWS => site.by_key(left_bytes),
        _ => site.moved_bytes(build, left_bytes, right_bytes),
    };
    build + PROBE * probe + OUTPUT * output + MOVED_BYTE * moved
}

/// Rows that would be sent to the workers of their keys, and those of a small side that has all keys that matter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reduction {
    /// Rows that would move.
    pub(super) rows: f64,
    /// Bytes of one.
    pub(super) row_bytes: f64,
    /// The different keys that they have.
    pub(super) distinct: f64,
    /// The rows that the small side has.
    pub(super) keys: f64,
    /// The rows that are read for them.
    pub(super) read: f64,
}

impl Reduction {
    /// Whether to read the small side once more, and send it to all workers, clearly spares more than it costs.
    pub(super) fn pays(self, site: Site) -> bool {
        let Self { rows, row_bytes, distinct, keys, read } = self;
        let kept = rows * (keys / distinct.max(1.0)).min(1.0);
        let handed_on = PROBE + OUTPUT + MOVED_BYTE * site.by_key(row_bytes);
        let spared = (rows - kept) * handed_on;
        let workers = site.workers as f64;
        let cost = FILTERED * rows + OUTPUT * kept + workers * (READ * read + keys);
        site.workers > 1 && spared > CLEARLY_MORE * cost
    }
}

impl Site {
    /// Whether each row of two sides goes to the worker of its key, where one has `build_rows` and no more.
    pub(super) fn shuffles(self, build_rows: f64) -> bool {
        self.workers > 1 && build_rows > COLLECTED_ROWS
    }

    /// The smaller side goes to all workers where it is collected, or each row of both to the worker of its key.
    fn moved_bytes(self, build_rows: f64, left: f64, right: f64) -> f64 {
        match build_rows <= COLLECTED_ROWS {
            true => left.min(right) * self.workers.saturating_sub(1) as f64,
            false => self.by_key(left + right),
        }
    }

    /// Each row goes to the worker of its key, on which one in as many is already.
    fn by_key(self, bytes: f64) -> f64 {
        bytes * self.workers.saturating_sub(1) as f64 / self.workers.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::super::graph::{EqualKeys, Key, Relation};
    use super::*;

    fn cost(everywhere: bool, by_slice: [bool; 2]) -> f64 {
        let relation = Relation { rows: 1e6, row_bytes: 16.0, everywhere: false };
        let key = |relation: usize| Key { relation, distinct: 1e6, by_slice: by_slice[relation] };
        let graph = Graph::new(
            vec![relation, Relation { everywhere, ..relation }],
            vec![EqualKeys(vec![key(0), key(1)])],
            vec![],
        );
        join_cost(&graph, Site { workers: 3 }, Set::one(0), Set::one(1))
    }

    #[test]
    fn rows_are_reduced_before_they_move_where_few_keys_of_many_are_left() {
        let three = Site { workers: 3 };
        let few = Reduction { rows: 8e5, row_bytes: 24.0, distinct: 2e5, keys: 1e4, read: 2e5 };
        assert!(few.pays(three));
        assert!(!few.pays(Site { workers: 1 }), "nothing moves");
        assert!(!Reduction { keys: 1e5, ..few }.pays(three), "half of the rows are left");
        assert!(!Reduction { read: 5e6, ..few }.pays(three), "it is dear to read");
        assert!(!Reduction { rows: 0.0, ..few }.pays(three));
    }

    #[test]
    fn what_lies_where_it_should_costs_nothing_to_move() {
        let nothing_moves = cost(false, [true, true]);
        let one_moves = cost(false, [false, true]);
        let both_move = cost(false, [false, false]);
        assert_eq!(cost(true, [false, false]), nothing_moves);
        assert!(nothing_moves < one_moves && one_moves < both_move);
        assert_eq!(
            (both_move - nothing_moves).round(),
            (2.0 * (one_moves - nothing_moves)).round()
        );
    }
}
