//! The cheapest order of joins.
//!
//! Up to [`RELATIONS_EXACT`] relations all orders are compared, bushy ones too, by dynamic programming over connected
//! sets (Moerkotte and Neumann, VLDB 2006, whose bound is the number of pairs that are joined). More are joined
//! greedily, the cheapest pair first (Fegaras, DEXA 1998).

use std::collections::HashMap;

use super::cost::{Site, join_cost};
use super::graph::{Graph, Set};

/// Sets of ten relations are 59,049 pairs at most: some milliseconds.
const RELATIONS_EXACT: usize = 10;

/// An order of joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    Relation(usize),
    Join(Box<Order>, Box<Order>),
}

impl Order {
    pub(super) fn join(left: Self, right: Self) -> Self {
        Self::Join(Box::new(left), Box::new(right))
    }

    pub(super) fn relations(&self) -> Set {
        match self {
            Self::Relation(relation) => Set::one(*relation),
            Self::Join(left, right) => left.relations().and(right.relations()),
        }
    }

    /// What all of its joins cost.
    pub(super) fn cost(&self, graph: &Graph, site: Site) -> f64 {
        match self {
            Self::Relation(_) => 0.0,
            Self::Join(left, right) => {
                let own = join_cost(graph, site, left.relations(), right.relations());
                own + left.cost(graph, site) + right.cost(graph, site)
            }
        }
    }
}

/// The cheapest order; `None` where keys do not join all relations.
pub(super) fn cheapest(graph: &Graph, site: Site) -> Option<Order> {
    match graph.relations.len() {
        0 => None,
        few if few <= RELATIONS_EXACT => exact(graph, site),
        _ => greedy(graph, site),
    }
}

/// The cheapest way to join a set.
#[derive(Debug, Clone, Copy)]
struct Best {
    cost: f64,
    /// One of its two parts.
    left: Set,
}

fn exact(graph: &Graph, site: Site) -> Option<Order> {
    let all = graph.all();
    let mut best: HashMap<Set, Best> =
        all.relations().map(|one| (Set::one(one), Best { cost: 0.0, left: Set::EMPTY })).collect();
    // Parts have smaller numbers than their whole.
    for number in 1..=all.0 {
        let whole = Set(number);
        if whole.len() < 2 {
            continue;
        }
        // Each pair of parts once: the one that has the first relation is the left.
        let first = number & number.wrapping_neg();
        let rest = number & !first;
        let mut part = rest;
        while part != 0 {
            let (right, left) = (Set(part), Set(number & !part));
            part = (part - 1) & rest;
            let (Some(l), Some(r)) = (best.get(&left), best.get(&right)) else { continue };
            if !graph.are_joined(left, right) {
                continue;
            }
            let cost = l.cost + r.cost + join_cost(graph, site, left, right);
            if best.get(&whole).is_none_or(|known| cost < known.cost) {
                best.insert(whole, Best { cost, left });
            }
        }
    }
    order_of(all, &best)
}

fn order_of(whole: Set, best: &HashMap<Set, Best>) -> Option<Order> {
    let known = best.get(&whole)?;
    if known.left.is_empty() {
        return whole.relations().next().map(Order::Relation);
    }
    let left = order_of(known.left, best)?;
    let right = order_of(whole.without(known.left), best)?;
    Some(Order::join(left, right))
}

fn greedy(graph: &Graph, site: Site) -> Option<Order> {
    let mut parts: Vec<Order> = graph.all().relations().map(Order::Relation).collect();
    while parts.len() > 1 {
        let mut best: Option<(f64, usize, usize)> = None;
        for (right, later) in parts.iter().enumerate() {
            for (left, earlier) in parts[..right].iter().enumerate() {
                let (l, r) = (earlier.relations(), later.relations());
                if !graph.are_joined(l, r) {
                    continue;
                }
                let cost = join_cost(graph, site, l, r);
                if best.is_none_or(|(known, ..)| cost < known) {
                    best = Some((cost, left, right));
                }
            }
        }
        let (_, left, right) = best?;
        // The later first, so that the earlier stays where it is.
        let later = parts.remove(right);
        let earlier = parts.remove(left);
        parts.push(Order::join(earlier, later));
    }
    parts.pop()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::graph::{Condition, EqualKeys, Key, Relation};
    use super::*;

    const ONE: Site = Site { workers: 1 };

    fn graph(rows: &[f64], joins: &[&[(usize, f64)]]) -> Graph {
        let key = |(relation, distinct): &(usize, f64)| Key {
            relation: *relation,
            distinct: *distinct,
            by_slice: false,
        };
        Graph::new(
            rows.iter()
                .map(|rows| Relation { rows: *rows, row_bytes: 16.0, everywhere: false })
                .collect(),
            joins.iter().map(|keys| EqualKeys(keys.iter().map(key).collect())).collect(),
            vec![],
        )
    }

    /// TPC-H q8 at scale 1 without its filters' shares: the part is one in 150.
    #[test]
    fn the_selective_relation_is_joined_first() {
        // part, lineitem, supplier, orders
        let graph = graph(
            &[1_300.0, 6_000_000.0, 10_000.0, 1_500_000.0],
            &[
                &[(0, 1_300.0), (1, 200_000.0)],
                &[(2, 10_000.0), (1, 10_000.0)],
                &[(3, 1_500_000.0), (1, 1_500_000.0)],
            ],
        );
        let order = cheapest(&graph, ONE).unwrap();
        let first = Order::join(Order::Relation(0), Order::Relation(1));
        let has_first = |order: &Order| {
            let mut parts = vec![order];
            while let Some(part) = parts.pop() {
                if *part == first {
                    return true;
                }
                if let Order::Join(left, right) = part {
                    parts.extend([left.as_ref(), right.as_ref()]);
                }
            }
            false
        };
        assert!(has_first(&order), "{order:?}");
    }

    #[test]
    fn relations_that_no_keys_join_have_no_order() {
        assert_eq!(cheapest(&graph(&[10.0, 10.0], &[]), ONE), None);
        let ten_and_one: Vec<f64> = vec![10.0; 11];
        assert_eq!(cheapest(&graph(&ten_and_one, &[]), ONE), None);
    }

    fn graphs(relations: std::ops::Range<usize>) -> impl Strategy<Value = Graph> {
        relations.prop_flat_map(|number| {
            let rows = prop::collection::vec(1.0..1e7, number);
            // A tree, and some more edges.
            let tree = prop::collection::vec(
                (any::<prop::sample::Index>(), 1.0..1e6, 1.0..1e6),
                number - 1,
            );
            let more = prop::collection::vec((0..number, 0..number, 0.001..1.0), 0..3);
            (rows, tree, more).prop_map(move |(rows, tree, more)| {
                let edges: Vec<_> = tree
                    .iter()
                    .enumerate()
                    .map(|(at, (to, left, right))| [(to.index(at + 1), *left), (at + 1, *right)])
                    .collect();
                let joins: Vec<&[(usize, f64)]> =
                    edges.iter().map(|edge| edge.as_slice()).collect();
                let mut graph = graph(&rows, &joins);
                graph.conditions = more
                    .into_iter()
                    .map(|(left, right, share)| Condition {
                        relations: Set::one(left).and(Set::one(right)),
                        share,
                    })
                    .collect();
                graph
            })
        })
    }

    /// All orders of a set, slowly.
    fn least_cost(graph: &Graph, site: Site, whole: Set) -> f64 {
        if whole.len() == 1 {
            return 0.0;
        }
        let mut least = f64::INFINITY;
        let mut part = (whole.0 - 1) & whole.0;
        while part != 0 {
            let (left, right) = (Set(part), whole.without(Set(part)));
            if graph.are_joined(left, right) {
                let cost = join_cost(graph, site, left, right)
                    + least_cost(graph, site, left)
                    + least_cost(graph, site, right);
                least = least.min(cost);
            }
            part = (part - 1) & whole.0;
        }
        least
    }

    proptest! {
        #[test]
        fn no_order_is_cheaper(graph in graphs(2..6), workers in 1_usize..4) {
            let site = Site { workers };
            let order = cheapest(&graph, site).unwrap();
            prop_assert_eq!(order.relations(), graph.all());
            let (cost, least) = (order.cost(&graph, site), least_cost(&graph, site, graph.all()));
            prop_assert!((cost - least).abs() <= 1e-6 * least, "{cost} and {least}");
        }

        #[test]
        fn many_relations_are_all_joined_by_keys(graph in graphs(11..30)) {
            let order = cheapest(&graph, ONE).unwrap();
            prop_assert_eq!(order.relations(), graph.all());
            let mut parts = vec![&order];
            while let Some(part) = parts.pop() {
                if let Order::Join(left, right) = part {
                    prop_assert!(graph.are_joined(left.relations(), right.relations()));
                    parts.extend([left.as_ref(), right.as_ref()]);
                }
            }
        }
    }
}
