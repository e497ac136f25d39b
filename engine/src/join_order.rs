//! The order of joins by cost.
//!
//! DataFusion joins in the order in which a statement names its tables, and only swaps the sides of a join. Here inner
//! joins that lie next to each other are ordered by what they are estimated to cost: `SET join_order = off` leaves
//! them as they are.
//!
//! An order is taken only where it is estimated to be clearly cheaper than the statement's own: estimates are off
//! by factors, and who writes joins has thought about them.
//!
//! - `cluster`: joins taken apart and put together again
//! - `estimates`: rows and distinct values of plans
//! - `graph`: sizes of joins
//! - `placement`: which rows need not be moved
//! - `reduce`: semi joins before inner joins
//! - `through_aggregates`: semi joins before aggregates that are joined
//! - `fewer_moved`: semi joins before rows that move
//! - `small_side`: what these are joined with
//! - `cost`: what one join costs
//! - `enumerate`: the cheapest of all orders

mod cluster;
mod cost;
mod enumerate;
mod estimates;
mod fewer_moved;
mod graph;
mod placement;
mod reduce;
mod small_side;
mod through_aggregates;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as MemoryOrdering};

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinType, NullEquality};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Aggregate, Expr, Join, LogicalPlan};
use datafusion::optimizer::Optimizer;
use datafusion::optimizer::optimize_projections::OptimizeProjections;

use cluster::{Cluster, has_subquery};
use cost::{Reduction, Site};
use enumerate::{Order, cheapest};
use estimates::{distinct_values, estimate, row_bytes, rows_of, rows_read};
use fewer_moved::moved;
use graph::{Condition, EqualKeys, Graph, Key, Relation};
use placement::{is_distribution_key, is_everywhere};
use reduce::Reducer;
use small_side::{SmallSide, is_cheap};
use through_aggregates::{aggregate_below, reduced as reduced_groups};

use crate::distribute::{Colocation, Topology};
use crate::snapshot::ClusterView;

/// An order must cost at most so much of the statement's own to be taken.
const CLEARLY: f64 = 0.8;
/// An aggregate that is joined makes groups of a small side's keys only, if those are at most so many of all.
const FEW_GROUPS: f64 = 0.1;
/// The small side is read once more if it reads at most so many rows of those of the aggregate's input.
const FEW_READ: f64 = 0.5;
/// Semi joins below each other that are looked through for a small side.
const SIDES_DEEP: usize = 8;
/// What a condition between relations keeps, of which nothing is known.
const CONDITION_SHARE: f64 = 0.3;

/// Whether a session orders joins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JoinOrder(pub(crate) bool);

/// A plan that is optimised already, with its inner joins in the cheapest order.
pub(crate) fn ordered(plan: LogicalPlan, state: &SessionState) -> Result<LogicalPlan> {
    let config = state.config();
    if config.get_extension::<JoinOrder>().is_some_and(|switch| !switch.0) {
        return Ok(plan);
    }
    let workers = config.get_extension::<Topology>().map_or(1, |known| known.worker_count().max(1));
    let members = config.get_extension::<ClusterView>().map_or(1, |cluster| cluster.members);
    let colocation = config.get_extension::<Colocation>().is_none_or(|switch| switch.0);
    let reducers = AtomicUsize::new(0);
    let ordered =
        Ordering { state, site: Site { workers }, members, colocation, reducers }.order(plan)?;
    if !ordered.transformed {
        return Ok(ordered.data);
    }
    // Columns are left out as early as may be in this order, too.
    let prune = Optimizer::with_rules(vec![Arc::new(OptimizeProjections::new())]);
    prune.optimize(ordered.data, state, |_, _| {})
}

/// A relation that has all values that a key of a plan has.
struct Side {
    plan: LogicalPlan,
    key: Expr,
    rows: f64,
}

/// Where joins are ordered, and by what.
struct Ordering<'a> {
    state: &'a SessionState,
    site: Site,
    members: usize,
    /// Whether rows may be joined where they lie.
    colocation: bool,
    /// How many aggregates were reduced.
    reducers: AtomicUsize,
}

impl Ordering<'_> {
    fn order(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let plan = plan.map_subqueries(|subquery| self.order(subquery))?;
        if let Some(reduced) = self.with_fewer_groups_on_the_right(&plan.data)? {
            return self.order(reduced).map(|ordered| Transformed::yes(ordered.data));
        }
        if let Some(reduced) = self.reduced(&plan.data)? {
            return self.order(reduced).map(|ordered| Transformed::yes(ordered.data));
        }
        if let Some(reduced) = self.with_fewer_groups(&plan.data)? {
            return self.order(reduced).map(|ordered| Transformed::yes(ordered.data));
        }
        if let Some(reduced) = self.with_fewer_moved_on_the_right(&plan.data)? {
            return self.order(reduced).map(|ordered| Transformed::yes(ordered.data));
        }
        let Some(mut cluster) = Cluster::of(&plan.data)? else {
            return plan.transform_sibling(|plan| plan.map_children(|child| self.order(child)));
        };
        let cheaper = self.cheaper(&cluster);
        let order = cheaper.as_ref().unwrap_or(&cluster.order).clone();
        let mut below = self.move_fewer(&mut cluster, &order)?;
        for relation in &mut cluster.relations {
            let ordered = self.order(std::mem::take(relation))?;
            below |= ordered.transformed;
            *relation = ordered.data;
        }
        match cheaper {
            Some(order) => cluster.joined(&order, &plan.data).map(Transformed::yes),
            None if below => cluster.joined(&cluster.order, &plan.data).map(Transformed::yes),
            None => Ok(plan),
        }
    }

    /// A plan whose semi or anti join at the top is put below the inner joins that it is above, if those have more
    /// rows than the relation that it reduces.
    fn reduced(&self, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
        let Some(reducer) = Reducer::of(plan)? else { return Ok(None) };
        let Some(graph) = self.graph(&reducer.cluster) else { return Ok(None) };
        match graph.relations[reducer.relation].rows <= graph.rows(graph.all()) {
            true => reducer.reduced().map(Some),
            false => Ok(None),
        }
    }

    /// Inner joins with an aggregate that makes groups of many keys, of which only a few are joined.
    fn with_fewer_groups(&self, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
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
    fn with_fewer_groups_on_the_right(&self, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
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
    fn move_fewer(&self, cluster: &mut Cluster, order: &Order) -> Result<bool> {
        let Some(graph) = self.graph(cluster) else { return Ok(false) };
        let mut is_any = false;
        for relation in moved(order, &graph, self.site) {
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
    fn with_fewer_moved_on_the_right(&self, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
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

    /// An order that is clearly cheaper than the one that the joins have.
    fn cheaper(&self, cluster: &Cluster) -> Option<Order> {
        let graph = self.graph(cluster)?;
        let order = cheapest(&graph, self.site)?;
        let (new, old) = (order.cost(&graph, self.site), cluster.order.cost(&graph, self.site));
        tracing::debug!(new, old, ?order, now = ?cluster.order, ?graph, "order of joins");
        (new < old * CLEARLY).then_some(order)
    }

    /// The sizes of what is joined; `None` if one is not known.
    fn graph(&self, cluster: &Cluster) -> Option<Graph> {
        let known = cluster.relations.iter().map(|plan| estimate(plan, self.state));
        let known: Vec<_> = known.collect::<Option<_>>()?;
        let plans = cluster.relations.iter().zip(&known);
        let relation = |(plan, rows)| {
            Some(Relation {
                rows: rows_of(rows)?,
                row_bytes: row_bytes(plan, rows),
                everywhere: self.colocation && is_everywhere(plan, self.members),
            })
        };
        let relations = plans.map(relation).collect::<Option<_>>()?;
        let key = |(relation, key): &(usize, Expr)| Key {
            relation: *relation,
            distinct: distinct_values(key, &cluster.relations[*relation], &known[*relation]),
            by_slice: self.colocation && is_distribution_key(key, &cluster.relations[*relation]),
        };
        let equal = cluster.equal.iter();
        let equal = equal.map(|class| EqualKeys(class.iter().map(key).collect())).collect();
        let conditions = cluster.conditions.iter();
        let conditions = conditions
            .map(|(relations, _)| Condition { relations: *relations, share: CONDITION_SHARE })
            .collect();
        Some(Graph { relations, equal, conditions })
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
