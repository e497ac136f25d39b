//! Rows that would move to the workers of their keys and then match nothing stay where they are.
//!
//! ```text
//! JOIN ON l.k = s.k                   JOIN ON l.k = s.k
//!   JOIN ON l.k = p.k       ─▶          JOIN ON l.k = p.k
//!     l, p                                l, p
//!   s                                   SEMI JOIN p ON s.k = p.k
//!                                         s
//! ```
//! What a join's build side knows of the keys reaches the scans of its own stage, and no other. Where a join moves the
//! rows of a large table, and a small relation has all keys that matter, that one is sent to all workers first
//! (semi-join reduction: Bernstein and Chiu, JACM 1981; SDD-1's semijoins before transfers: Bernstein et al., TODS 1981).

use super::cost::Site;
use super::enumerate::Order;
use super::graph::{Graph, Set};

/// The relations that an order sends, each by itself, to the workers of their keys.
pub(super) fn moved(order: &Order, graph: &Graph, site: Site) -> Vec<usize> {
    let mut found = Vec::new();
    collect(order, graph, site, &mut found);
    found
}

fn collect(order: &Order, graph: &Graph, site: Site, found: &mut Vec<usize>) {
    let Order::Join(left, right) = order else { return };
    let (l, r) = (left.relations(), right.relations());
    if is_shuffled(graph, site, l, r) {
        let (left_stays, right_stays) = graph.lie_by_key(l, r);
        for (side, stays) in [(left, left_stays), (right, right_stays)] {
            if let (Order::Relation(relation), false) = (side.as_ref(), stays) {
                found.push(*relation);
            }
        }
    }
    collect(left, graph, site, found);
    collect(right, graph, site, found);
}

fn is_shuffled(graph: &Graph, site: Site, left: Set, right: Set) -> bool {
    site.shuffles(graph.rows(left).min(graph.rows(right)))
        && !graph.is_everywhere(left)
        && !graph.is_everywhere(right)
}

#[cfg(test)]
mod tests {
    use super::super::graph::{EqualKeys, Key, Relation};
    use super::*;

    /// A large, a small and another large relation, all by one key; the last lies by it or not.
    fn moved_of(third_lies: bool, rows: f64, workers: usize) -> Vec<usize> {
        let relation = |rows| Relation { rows, row_bytes: 16.0, everywhere: false };
        let key = |relation, by_slice| Key { relation, distinct: 1e6, by_slice };
        let graph = Graph::new(
            vec![relation(1e7), relation(1e5), relation(rows)],
            vec![EqualKeys(vec![key(0, false), key(1, false), key(2, third_lies)])],
            vec![],
        );
        let first = Order::join(Order::Relation(1), Order::Relation(0));
        moved(&Order::join(Order::Relation(2), first), &graph, Site { workers })
    }

    #[test]
    fn a_large_side_moves_unless_it_lies_by_the_key() {
        assert_eq!(moved_of(false, 1e6, 3), [2]);
        assert_eq!(moved_of(true, 1e6, 3), [0_usize; 0]);
        assert_eq!(moved_of(false, 1e6, 1), [0_usize; 0], "there is one worker");
        assert_eq!(moved_of(false, 1e4, 3), [0_usize; 0], "it goes to all workers");
    }
}
