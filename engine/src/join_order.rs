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
//! - `sizes`: the same of joins and unions
//! - `graph`: sizes of joins
//! - `placement`: which rows need not be moved
//! - `reduce`: semi joins before inner joins
//! - `reductions`: where semi joins with a small side spare something
//! - `eager`: groups before joins
//! - `through_aggregates`: semi joins before aggregates that are joined
//! - `fewer_moved`: semi joins before rows that move
//! - `small_side`: what these are joined with
//! - `cost`: what one join costs
//! - `enumerate`: the cheapest of all orders

mod cluster;
mod cost;
mod eager;
mod enumerate;
mod estimates;
mod fewer_moved;
mod graph;
mod placement;
mod reduce;
mod reductions;
mod sizes;
mod small_side;
mod through_aggregates;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::Optimizer;
use datafusion::optimizer::optimize_projections::OptimizeProjections;

use cluster::Cluster;
use cost::Site;
use enumerate::{Order, cheapest};
use estimates::JOINS_DEEP;
use graph::Graph;
use placement::{is_distribution_key, is_everywhere};
use reduce::Reducer;
use sizes::Sizes;

use crate::distribute::{Colocation, Topology};
use crate::functional_dependencies::hide_wrong_dependencies;
use crate::logical_rules::LogicalRule;
use crate::snapshot::ClusterView;

/// An order must cost at most so much of the statement's own to be taken.
const CLEARLY: f64 = 0.8;
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
    let mut rules: Vec<LogicalRule> = vec![Arc::new(OptimizeProjections::new())];
    // Aggregates may be above joins of aggregates that were not there before.
    hide_wrong_dependencies(&mut rules);
    let prune = Optimizer::with_rules(rules);
    prune.optimize(ordered.data, state, |_, _| {})
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
    /// Few values are on the stack on the way down: plans may be hundreds of nodes deep.
    fn order(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let plan = plan.map_subqueries(|subquery| self.order(subquery))?;
        if let Some(ordered) = self.rewritten(&plan.data)? {
            return Ok(Transformed::yes(ordered));
        }
        if let Some(ordered) = self.clustered(&plan.data)? {
            let is_new = plan.transformed || ordered.transformed;
            return Ok(Transformed::new_transformed(ordered.data, is_new));
        }
        plan.transform_sibling(|plan| plan.map_children(|child| self.order(child)))
    }

    /// A plan that is something else at its top, ordered.
    fn rewritten(&self, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
        if let Some(early) = self.grouped_early(plan)? {
            return Ok(Some(early));
        }
        let rules = [
            Self::with_fewer_groups_on_the_right,
            Self::reduced,
            Self::with_fewer_groups,
            Self::with_fewer_moved_on_the_right,
        ];
        for rule in rules {
            if let Some(reduced) = rule(self, plan)? {
                return self.order(reduced).map(|ordered| Some(ordered.data));
            }
        }
        Ok(None)
    }

    /// A plan of inner joins at its top, ordered.
    fn clustered(&self, plan: &LogicalPlan) -> Result<Option<Transformed<LogicalPlan>>> {
        let Some(mut cluster) = Cluster::of(plan)? else { return Ok(None) };
        let graph = self.graph(&cluster);
        let cheaper = graph.as_ref().and_then(|graph| self.cheaper(graph, &cluster.order));
        let order = cheaper.as_ref().unwrap_or(&cluster.order).clone();
        let mut below = match &graph {
            Some(graph) => self.move_fewer(&mut cluster, graph, &order)?,
            None => false,
        };
        for relation in &mut cluster.relations {
            let ordered = self.order(std::mem::take(relation))?;
            below |= ordered.transformed;
            *relation = ordered.data;
        }
        let joined = match cheaper {
            Some(order) => Transformed::yes(cluster.joined(&order, plan)?),
            None if below => Transformed::yes(cluster.joined(&cluster.order, plan)?),
            None => Transformed::no(plan.clone()),
        };
        Ok(Some(joined))
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

    /// An order that is clearly cheaper than the one that the joins have.
    fn cheaper(&self, graph: &Graph, now: &Order) -> Option<Order> {
        let order = cheapest(graph, self.site)?;
        let (new, old) = (order.cost(graph, self.site), now.cost(graph, self.site));
        tracing::debug!(new, old, ?order, ?now, ?graph, "order of joins");
        (new < old * CLEARLY).then_some(order)
    }

    /// The sizes of what is joined, and where it lies; `None` if a size is not known.
    fn graph(&self, cluster: &Cluster) -> Option<Graph> {
        let mut graph = Sizes::of(cluster, self.state, JOINS_DEEP)?.graph;
        if !self.colocation {
            return Some(graph);
        }
        for (relation, plan) in graph.relations.iter_mut().zip(&cluster.relations) {
            relation.everywhere = is_everywhere(plan, self.members);
        }
        for (keys, class) in graph.equal.iter_mut().zip(&cluster.equal) {
            for (key, (relation, of)) in keys.0.iter_mut().zip(class) {
                key.by_slice = is_distribution_key(of, &cluster.relations[*relation]);
            }
        }
        Some(graph)
    }
}
