//! Where a semi join with a small side, which is read once more for it, spares something: groups that nothing is joined
//! to (`through_aggregates`), and rows that would move and match nothing (`fewer_moved`).

use std::sync::Arc;
use std::sync::atomic::Ordering as MemoryOrdering;

use datafusion::common::{JoinType, NullEquality};
use datafusion::error::Result;
use datafusion::logical_expr::{Aggregate, Expr, Join, LogicalPlan};

use super::Ordering;
use super::cluster::{Cluster, has_subquery};
use super::cost::Reduction;
use super::enumerate::Order;
use super::estimates::{distinct_values, estimate, row_bytes, rows_of, rows_read};
use super::fewer_moved::moved;
use super::graph::{Graph, Key, Relation};
use super::placement::{is_distribution_key, is_everywhere};
use super::small_side::{SmallSide, is_cheap};
use super::through_aggregates::{aggregate_below, reduced as reduced_groups};

/// An aggregate that is joined makes groups of a small side's keys only, if those are at most so many of all.
const FEW_GROUPS: f64 = 0.1;
/// The small side is read once more if it reads at most so many rows of those of the aggregate's input.
const FEW_READ: f64 = 0.5;
/// Semi joins below each other that are looked through for a small side.
const SIDES_DEEP: usize = 8;

/// A relation that has all values that a key of a plan has.
struct Side {
    plan: LogicalPlan,
    key: Expr,
    rows: f64,
}

impl Ordering<'_> {
    /// Inner joins with an aggregate that makes groups of many keys, of which only a few are joined.
    pub(super) fn with_fewer_groups(&self, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
        let Some(mut cluster) = Cluster::of_at_least(2, plan)? else { return Ok(None) };
        let Some(graph) = self.graph(&cluster) else { return Ok(None) };
        let mut reduced = None;
        'found: for class in &cluster.equal {
            let pairs = class.iter().flat_map(|one| class.iter().map(move |other| (one, other)));
            for ((relation, column), (small, key)) in pairs {
                let (of, by) = (&cluster.relations[*relation], &cluster.relations[*small]);
                let Some((aggregate, group)) = aggregate_below(of, column) else { continue };
                let keys = graph.relations[*small].rows;
                if relation != small && self.pays(aggregate, group, by, keys) {
                    let by = SmallSide { plan: by, key };
                    let number = self.reducers.fetch_add(1, MemoryOrdering::Relaxed);
                    let plan = reduced_groups(of, aggregate, group, &by, number)?;
                    reduced = Some((*relation, plan));
                    break 'found;
                }
            }
        }
        let Some((relation, plan_of_relation)) = reduced else { return Ok(None) };
        cluster.relations[relation] = plan_of_relation;
        cluster.joined(&cluster.order, plan).map(Some)
    }

    /// A join of another kind whose right side is such an aggregate, and comes out only where it matches.
    pub(super) fn with_fewer_groups_on_the_right(
        &self,
        plan: &LogicalPlan,
    ) -> Result<Option<LogicalPlan>> {
        let Some(join) = matched_right(plan) else { return Ok(None) };
        for (left, right) in join.on.iter().filter(|keys| are_same_each_time(keys)) {
            let Some((aggregate, group)) = aggregate_below(&join.right, right) else { continue };
            for Side { plan: by, key, rows } in self.small_sides(&join.left, left, SIDES_DEEP)? {
                if self.pays(aggregate, group, &by, rows) {
                    let by = SmallSide { plan: &by, key: &key };
                    let number = self.reducers.fetch_add(1, MemoryOrdering::Relaxed);
                    let right = reduced_groups(&join.right, aggregate, group, &by, number)?;
                    let join = Join { right: Arc::new(right), ..join.clone() };
                    return Ok(Some(LogicalPlan::Join(join)));
                }
            }
        }
        Ok(None)
    }

    /// Relations that have all values that a key of a plan has, the smallest first.
    fn small_sides(&self, plan: &LogicalPlan, key: &Expr, deep: usize) -> Result<Vec<Side>> {
        let mut sides = Vec::new();
        if let LogicalPlan::Join(join) = plan
            && join.join_type == JoinType::LeftSemi
            && join.null_equality == NullEquality::NullEqualsNothing
        {
            if deep == 0 {
                return Ok(sides);
            }
            // What is kept has a value of the right side, too.
            sides.extend(self.small_sides(&join.left, key, deep - 1)?);
            let same = join.on.iter().filter(|keys| keys.0 == *key && are_same_each_time(keys));
            for (_, right) in same {
                sides.extend(self.small_sides(&join.right, right, deep - 1)?);
            }
        } else if let Some(cluster) = Cluster::of_at_least(2, plan)? {
            let is_of_key = |class: &&Vec<(usize, Expr)>| class.iter().any(|(_, one)| one == key);
            if let (Some(graph), Some(class)) =
                (self.graph(&cluster), cluster.equal.iter().find(is_of_key))
            {
                sides.extend(class.iter().map(|(relation, key)| Side {
                    plan: cluster.relations[*relation].clone(),
                    key: key.clone(),
                    rows: graph.relations[*relation].rows,
                }));
            }
        } else if is_cheap(plan) {
            let rows = estimate(plan, self.state).and_then(|rows| rows_of(&rows));
            let side = |rows| Side { plan: plan.clone(), key: key.clone(), rows };
            sides.extend(rows.map(side));
        }
        sides.sort_by(|one, other| one.rows.total_cmp(&other.rows));
        Ok(sides)
    }

    /// Whether to make an aggregate's groups of the `keys` keys of a small side only spares more than to read that side
    /// once more.
    fn pays(&self, aggregate: &Aggregate, group: &Expr, small: &LogicalPlan, keys: f64) -> bool {
        let is_reduced = matches!(aggregate.input.as_ref(),
            LogicalPlan::Join(join) if join.join_type == JoinType::LeftSemi);
        let input = estimate(&aggregate.input, self.state);
        let Some((input, read)) = input.zip(rows_read(small, self.state)) else { return false };
        let groups = distinct_values(group, &aggregate.input, &input);
        !is_reduced
            && is_cheap(small)
            && keys <= groups * FEW_GROUPS
            && rows_of(&input).is_some_and(|rows| read <= rows * FEW_READ)
    }

    /// Reduces relations of a cluster that an order would move, by another that has all keys that matter. Whether it
    /// did for any.
    pub(super) fn move_fewer(
        &self,
        cluster: &mut Cluster,
        graph: &Graph,
        order: &Order,
    ) -> Result<bool> {
        let mut is_any = false;
        for relation in moved(order, graph, self.site) {
            let Relation { rows, row_bytes, .. } = graph.relations[relation];
            let mut best: Option<(Reduction, Expr, usize, Expr)> = None;
            for (class, known) in cluster.equal.iter().zip(&graph.equal) {
                let of = class.iter().zip(&known.0).find(|((one, _), _)| *one == relation);
                let Some(((_, key), Key { distinct, .. })) = of else { continue };
                for (small, by) in class.iter().filter(|(one, _)| *one != relation) {
                    let plan = &cluster.relations[*small];
                    let keys = graph.relations[*small].rows;
                    let is_fewer = best.as_ref().is_none_or(|(known, ..)| keys < known.keys);
                    let Some(read) = rows_read(plan, self.state).filter(|_| is_cheap(plan)) else {
                        continue;
                    };
                    let reduction = Reduction { rows, row_bytes, distinct: *distinct, keys, read };
                    if is_fewer && reduction.pays(self.site) {
                        best = Some((reduction, key.clone(), *small, by.clone()));
                    }
                }
            }
            let Some((_, key, small, by)) = best else { continue };
            let by = SmallSide { plan: &cluster.relations[small], key: &by };
            let number = self.reducers.fetch_add(1, MemoryOrdering::Relaxed);
            let plan = Arc::new(cluster.relations[relation].clone());
            cluster.relations[relation] = by.semi_joined(plan, &key, number)?;
            is_any = true;
        }
        Ok(is_any)
    }

    /// A join of another kind whose right side would move, and comes out only where it matches.
    pub(super) fn with_fewer_moved_on_the_right(
        &self,
        plan: &LogicalPlan,
    ) -> Result<Option<LogicalPlan>> {
        if self.site.workers == 1 {
            return Ok(None);
        }
        let Some(join) = matched_right(plan) else { return Ok(None) };
        let is_reduced = matches!(join.right.as_ref(),
            LogicalPlan::Join(join) if join.join_type == JoinType::LeftSemi);
        if is_reduced || is_everywhere(&join.right, self.members) && self.colocation {
            return Ok(None);
        }
        let Some(right) = estimate(&join.right, self.state) else { return Ok(None) };
        let lies_by = |(_, key): &(Expr, Expr)| is_distribution_key(key, &join.right);
        let stays = self.colocation && join.on.iter().any(lies_by);
        let Some(rows) = rows_of(&right).filter(|rows| self.site.shuffles(*rows) && !stays) else {
            return Ok(None);
        };
        let row_bytes = row_bytes(&join.right, &right);
        for (left, key) in join.on.iter().filter(|keys| are_same_each_time(keys)) {
            let distinct = distinct_values(key, &join.right, &right);
            for Side { plan: by, key: of, rows: keys } in
                self.small_sides(&join.left, left, SIDES_DEEP)?
            {
                let read = rows_read(&by, self.state).filter(|_| is_cheap(&by));
                let pays =
                    |read| Reduction { rows, row_bytes, distinct, keys, read }.pays(self.site);
                if read.is_some_and(pays) {
                    let by = SmallSide { plan: &by, key: &of };
                    let number = self.reducers.fetch_add(1, MemoryOrdering::Relaxed);
                    let right = by.semi_joined(Arc::clone(&join.right), key, number)?;
                    let join = Join { right: Arc::new(right), ..join.clone() };
                    return Ok(Some(LogicalPlan::Join(join)));
                }
            }
        }
        Ok(None)
    }
}

/// Whether both keys have the same values when they are read once more.
fn are_same_each_time((left, right): &(Expr, Expr)) -> bool {
    [left, right].into_iter().all(|key| !key.is_volatile() && !has_subquery(key).unwrap_or(true))
}

/// A join whose right side comes out only where it matches a row of the left.
fn matched_right(plan: &LogicalPlan) -> Option<&Join> {
    let LogicalPlan::Join(join) = plan else { return None };
    let is_matched = matches!(
        join.join_type,
        JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark | JoinType::Left
    );
    let has_nulls = join.null_aware || join.null_equality != NullEquality::NullEqualsNothing;
    (is_matched && !has_nulls).then_some(join)
}
