//! What is known of relations that are joined with each other: how large they are, and what joins them.
//!
//! Pure: estimates come in, sizes of joins come out. The order of joins changes no size.
//!
//! Sizes follow System R (Selinger et al., SIGMOD 1979): of rows whose keys are equal, one in as many as the side
//! with more distinct keys has. Keys that are equal to each other are one class, so that any two of them can be
//! joined on, and none is counted twice. Several keys together have no more values than there are rows: the items and
//! tickets of sales and of their returns are one key of two columns.

/// So many relations at most: a set of them is a word.
pub(super) const RELATIONS_MAX: usize = 64;

/// Pairs with several keys that are looked at: sizes of very many sets are asked for.
const SEVERAL_MAX: usize = 16;

/// A set of relations, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Set(pub(super) u64);

impl Set {
    pub(super) const EMPTY: Self = Self(0);

    pub(super) fn one(relation: usize) -> Self {
        Self(1 << relation)
    }

    pub(super) fn first(relations: usize) -> Self {
        Self(if relations >= RELATIONS_MAX { u64::MAX } else { (1 << relations) - 1 })
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) fn has(self, relation: usize) -> bool {
        self.0 & (1 << relation) != 0
    }

    pub(super) fn contains(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    pub(super) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn relations(self) -> impl Iterator<Item = usize> {
        (0..RELATIONS_MAX).filter(move |relation| self.has(*relation))
    }
}

/// A relation that is not itself joined of others here.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Relation {
    /// How many rows it probably has.
    pub(super) rows: f64,
    /// Bytes of one.
    pub(super) row_bytes: f64,
    /// Whether every worker has all of them.
    pub(super) everywhere: bool,
}

/// A key of a relation, and how many different ones there are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Key {
    pub(super) relation: usize,
    pub(super) distinct: f64,
    /// Whether rows are on the worker of its slice.
    pub(super) by_slice: bool,
}

/// Keys that are equal to each other, at most one of each relation.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct EqualKeys(pub(super) Vec<Key>);

/// Another condition, which some relations are needed for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Condition {
    pub(super) relations: Set,
    /// The share of rows that it keeps.
    pub(super) share: f64,
}

/// Relations, and what joins them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Graph {
    pub(super) relations: Vec<Relation>,
    pub(super) equal: Vec<EqualKeys>,
    pub(super) conditions: Vec<Condition>,
    /// Made of the rows and distinct values that relations and keys had when it was made.
    several: Vec<SeveralKeys>,
}

/// Two relations that several keys join.
#[derive(Debug, Clone, Copy, PartialEq)]
struct SeveralKeys {
    relations: Set,
    /// How much more often all of them are equal than each by itself says.
    times: f64,
}

impl EqualKeys {
    /// Relations that have one of the keys.
    pub(super) fn relations(&self) -> Set {
        self.0.iter().fold(Set::EMPTY, |set, key| set.and(Set::one(key.relation)))
    }

    /// How many different ones a relation has.
    fn distinct(&self, of: usize) -> Option<f64> {
        let key = self.0.iter().find(|key| key.relation == of)?;
        Some(key.distinct.max(1.0))
    }

    /// The share of the product of some relations in which their keys are equal.
    fn share(&self, among: Set) -> f64 {
        let keys = self.0.iter().filter(|key| among.has(key.relation));
        let (mut share, mut least) = (1.0, f64::INFINITY);
        for key in keys {
            let distinct = key.distinct.max(1.0);
            share /= distinct;
            least = f64::min(least, distinct);
        }
        // All but the fewest: those are in each of the others, or the join is smaller than thought.
        if least.is_finite() { share * least } else { 1.0 }
    }
}

impl Graph {
    pub(super) fn new(
        relations: Vec<Relation>,
        equal: Vec<EqualKeys>,
        conditions: Vec<Condition>,
    ) -> Self {
        let mut several = vec![];
        for right in 1..relations.len() {
            for left in 0..right {
                let keys =
                    |class: &EqualKeys| Some((class.distinct(left)?, class.distinct(right)?));
                let keys: Vec<_> = equal.iter().filter_map(keys).collect();
                let [left_rows, right_rows] = [left, right].map(|of| relations[of].rows);
                let times = times_of_several_keys(&keys, left_rows, right_rows)
                    .filter(|_| several.len() < SEVERAL_MAX);
                let relations = Set::one(left).and(Set::one(right));
                several.extend(times.map(|times| SeveralKeys { relations, times }));
            }
        }
        Self { relations, equal, conditions, several }
    }

    /// All relations.
    pub(super) fn all(&self) -> Set {
        Set::first(self.relations.len())
    }

    /// Whether keys join two sets.
    pub(super) fn are_joined(&self, left: Set, right: Set) -> bool {
        self.equal.iter().any(|keys| {
            let relations = keys.relations();
            relations.meets(left) && relations.meets(right)
        })
    }

    /// Whether every worker has all rows of some relations.
    pub(super) fn is_everywhere(&self, of: Set) -> bool {
        of.relations().all(|relation| self.relations[relation].everywhere)
    }

    /// Which of two sets have rows on the worker of a key's slice, by a key that they are joined by; both, where
    /// that is so for any key.
    pub(super) fn lie_by_key(&self, left: Set, right: Set) -> (bool, bool) {
        let mut known = (false, false);
        for keys in &self.equal {
            let lies = |set: Set| keys.0.iter().any(|key| key.by_slice && set.has(key.relation));
            let joins = keys.relations().meets(left) && keys.relations().meets(right);
            match (lies(left), lies(right)) {
                _ if !joins => {}
                (true, true) => return (true, true),
                (l, r) => known = if known == (false, false) { (l, r) } else { known },
            }
        }
        known
    }

    /// How much more often keys of several columns are equal in some relations than each column by itself says. Relations
    /// that have been looked at with others are not looked at with each other once more, and what is joined with two
    /// by the same keys counts once: all keys are equal no more often than the one is that is so least often.
    fn times_of_several_keys(&self, of: Set) -> f64 {
        let mut groups: Vec<(Set, f64)> = vec![];
        for pair in self.several.iter().filter(|pair| of.contains(pair.relations)) {
            if groups.iter().any(|(group, _)| group.contains(pair.relations)) {
                continue;
            }
            let mut merged = (pair.relations, pair.times);
            groups.retain(|(group, times)| {
                let meets = group.meets(pair.relations);
                if meets {
                    merged = (merged.0.and(*group), merged.1 * times);
                }
                !meets
            });
            groups.push(merged);
        }
        let most = |group: Set| {
            let shares = self.equal.iter().map(|keys| keys.share(group));
            let (all, least) = shares.fold((1.0, 1.0), |(all, least): (f64, f64), share| {
                (all * share, least.min(share))
            });
            least / all
        };
        groups.into_iter().map(|(group, times)| times.min(most(group))).product()
    }

    /// How many rows some relations have that are joined.
    pub(super) fn rows(&self, of: Set) -> f64 {
        let product: f64 =
            of.relations().map(|relation| self.relations[relation].rows.max(1.0)).product();
        let equal: f64 = self.equal.iter().map(|keys| keys.share(of)).product();
        let conditions =
            self.conditions.iter().filter(|condition| of.contains(condition.relations));
        let kept: f64 = conditions.map(|condition| condition.share).product();
        (product * equal * self.times_of_several_keys(of) * kept).max(1.0)
    }

    /// Bytes of a row of some relations that are joined.
    pub(super) fn row_bytes(&self, of: Set) -> f64 {
        of.relations().map(|relation| self.relations[relation].row_bytes).sum()
    }
}

/// How much more often several keys of two sides are equal than each by itself says, by their distinct values and the
/// sides' rows: a side has no more values of all keys together than it has rows. `None` of one key or none.
pub(super) fn times_of_several_keys(
    keys: &[(f64, f64)],
    left_rows: f64,
    right_rows: f64,
) -> Option<f64> {
    if keys.len() < 2 {
        return None;
    }
    let each: f64 = keys.iter().map(|(left, right)| left.max(*right)).product();
    let left: f64 = keys.iter().map(|(left, _)| left).product();
    let right: f64 = keys.iter().map(|(_, right)| right).product();
    let together = f64::max(left.min(left_rows), right.min(right_rows)).max(1.0);
    Some((each / together).max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation(rows: f64) -> Relation {
        Relation { rows, row_bytes: 8.0, everywhere: false }
    }

    fn keys(keys: &[(usize, f64)]) -> EqualKeys {
        EqualKeys(
            keys.iter()
                .map(|(relation, distinct)| Key {
                    relation: *relation,
                    distinct: *distinct,
                    by_slice: false,
                })
                .collect(),
        )
    }

    #[test]
    fn a_join_with_a_key_has_the_rows_of_the_other_side() {
        let graph = Graph::new(
            vec![relation(1_500_000.0), relation(6_000_000.0)],
            vec![keys(&[(0, 1_500_000.0), (1, 1_400_000.0)])],
            vec![],
        );
        assert_eq!(graph.rows(graph.all()).round(), 6_000_000.0);
    }

    #[test]
    fn equal_keys_of_three_are_counted_twice_and_not_thrice() {
        let graph = Graph::new(
            vec![relation(100.0); 3],
            vec![keys(&[(0, 100.0), (1, 100.0), (2, 100.0)])],
            vec![Condition { relations: Set::first(2), share: 0.5 }],
        );
        let rows = |of: Set| graph.rows(of).round();
        assert_eq!(rows(Set(0b110)), 100.0);
        assert_eq!(rows(Set(0b011)), 50.0);
        assert_eq!(rows(graph.all()), 50.0);
        assert!(graph.are_joined(Set(0b100), Set(0b001)), "any two of them");
    }

    #[test]
    fn keys_of_two_columns_have_no_more_values_than_rows() {
        let sales_and_returns = Graph::new(
            vec![relation(2_880_000.0), relation(287_000.0), relation(12.0)],
            vec![
                keys(&[(0, 18_000.0), (1, 17_000.0)]),
                keys(&[(0, 240_000.0), (1, 170_000.0)]),
                keys(&[(0, 12.0), (2, 12.0)]),
            ],
            vec![],
        );
        assert_eq!(sales_and_returns.rows(Set(0b011)).round(), 287_000.0);
        assert_eq!(sales_and_returns.rows(Set(0b111)).round(), 287_000.0);
        assert_eq!(sales_and_returns.rows(Set(0b101)).round(), 2_880_000.0);
    }

    #[test]
    fn keys_of_three_relations_are_combined_along_two_of_their_pairs() {
        let joined = |count: usize| {
            let class = |distinct: f64| {
                keys(&(0..count).map(|relation| (relation, distinct)).collect::<Vec<_>>())
            };
            Graph::new(vec![relation(1_000.0); count], [100.0, 200.0].map(class).to_vec(), vec![])
        };
        let [hub, leaf] = [1e6, 10.0];
        for rows in [[hub, leaf, leaf], [leaf, hub, leaf], [leaf, leaf, hub]] {
            let class = keys(&[(0, rows[0]), (1, rows[1]), (2, rows[2])]);
            let all = Graph::new(rows.map(relation).to_vec(), vec![class.clone(), class], vec![]);
            assert_eq!(all.rows(Set::first(3)).round(), 10.0, "{rows:?}");
        }
        assert_eq!(joined(2).rows(Set::first(2)).round(), 1_000.0);
        assert_eq!(joined(3).rows(Set::first(3)).round(), 1_000.0);
    }
}
