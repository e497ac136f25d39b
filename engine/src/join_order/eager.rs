//! Rows are summed up before they are joined with what only names their groups.
//!
//! ```text
//! AGGREGATE BY c.name, d.year: sum(s.price)       AGGREGATE BY c.name, d.year: sum(x)
//!   JOIN s.customer = c.id                    ─▶    JOIN s.customer = c.id
//!     c                                               c
//!     JOIN s.day = d.id                               AGGREGATE BY s.customer, d.year: sum(s.price) AS x
//!       s, d                                            JOIN s.day = d.id
//!                                                         s, d
//! ```
//! A statement groups sales by the names of what was sold, or to whom; they are some wide texts, and the key by which
//! they are found is one number. All rows of an early group have the same keys, so that each of them is joined with the
//! same rows: nothing is lost or counted twice (eager aggregation, Yan and Larson, VLDB 1995).
//!
//! Early groups are also made of rows that the later joins leave out. So only what fails for no row is computed
//! early ([`sound`]), and only where these joins are estimated to leave out few.
//!
//! - `grouped`: an aggregation over joins, taken apart; what groups are made by early
//! - `sound`: what may be computed early
//! - `steps`: aggregates in two steps
//! - `two_steps`: the plan with both

mod grouped;
mod sound;
mod steps;
mod two_steps;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering as MemoryOrdering;

use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan};

use super::Ordering;
use super::cluster::Cluster;
use super::enumerate::Order;
use super::estimates::{distinct_values, estimate, share_of_column};
use super::graph::{Graph, Set};
use crate::session::SessionSpec;
use crate::settings::EagerAggregation;
use grouped::{Grouped, keys_of};
use two_steps::LateStep;

/// Relations that may be joined late: all sets of them are compared.
const LATE_MAX: usize = 6;
/// What a row costs to be read and joined, in numbers that are grouped by.
const JOINED: f64 = 3.0;
/// The same of a text that is grouped by.
const TEXT: f64 = 3.0;
/// Early groups must cost at most so much of the late ones alone.
const CLEARLY: f64 = 0.7;
/// And spare so many numbers that are grouped by: two exchanges more take some milliseconds.
const SPARED_MIN: f64 = 1e6;
/// Later joins may leave out so much, at most: what is left out is read and grouped for nothing.
const LEFT_OUT_MAX: f64 = 0.5;

/// What is grouped by early.
struct Early {
    /// The relations that are joined before.
    relations: Set,
    /// How they are.
    order: Order,
    keys: Vec<Expr>,
    cost: f64,
    /// The share of rows that later joins leave out.
    left_out: f64,
}

impl Early {
    /// Whether early groups cost clearly less than the late ones alone.
    fn pays(&self, late_alone: f64, wanted: EagerAggregation) -> bool {
        wanted == EagerAggregation::Always
            || self.left_out <= LEFT_OUT_MAX
                && self.cost < late_alone * CLEARLY
                && late_alone - self.cost > SPARED_MIN
    }
}

impl Ordering<'_> {
    /// An aggregation that makes groups before its last joins, where that is estimated to pay.
    pub(super) fn grouped_early(&self, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
        let LogicalPlan::Aggregate(aggregate) = plan else { return Ok(None) };
        let spec = self.state.config().get_extension::<SessionSpec>();
        let wanted = spec.map_or(EagerAggregation::On, |spec| spec.settings.eager_aggregation);
        if wanted == EagerAggregation::Off {
            return Ok(None);
        }
        match self.two_steps_of(aggregate, wanted) {
            Ok(Some((joined, two_steps))) => {
                // Only what is below: groups of early groups would be asked for again and again.
                let joined = self.order(joined)?.data;
                two_steps.over(joined).map(Some)
            }
            Ok(None) => Ok(None),
            Err(error) => {
                // Columns that had no names in common may have some where they are joined otherwise.
                tracing::debug!(%error, "an aggregation stays one step");
                Ok(None)
            }
        }
    }

    /// The late joins of an aggregation in two steps, and what is above them.
    fn two_steps_of(
        &self,
        aggregate: &Aggregate,
        wanted: EagerAggregation,
    ) -> Result<Option<(LogicalPlan, LateStep)>> {
        let Some(grouped) = self.grouped(aggregate)? else { return Ok(None) };
        let Some(early) = self.cheapest_early(&grouped, wanted)? else { return Ok(None) };
        let number = self.reducers.fetch_add(1, MemoryOrdering::Relaxed);
        self.in_two_steps(&grouped, &early, number)
    }

    /// The relations to join before groups are made early, if that pays for any.
    fn cheapest_early(
        &self,
        grouped: &Grouped<'_>,
        wanted: EagerAggregation,
    ) -> Result<Option<Early>> {
        let graph = &grouped.graph;
        let late: Vec<_> = graph.all().without(grouped.measured).relations().collect();
        if late.is_empty() || late.len() > LATE_MAX {
            return Ok(None);
        }
        let rows = graph.rows(graph.all());
        let weight = weight_of(&grouped.groups, &grouped.schema)? * grouped.sets as f64;
        let now = rows * (JOINED + weight);
        if wanted != EagerAggregation::Always && now <= SPARED_MIN {
            return Ok(None);
        }
        let mut known = HashMap::new();
        let mut best: Option<Early> = None;
        for chosen in 1_usize..1 << late.len() {
            let chosen = late.iter().enumerate().filter(|(place, _)| chosen >> place & 1 == 1);
            let late = union(chosen.map(|(_, relation)| Set::one(*relation)).collect());
            let relations = graph.all().without(late);
            let Some(order) = joined_of(&grouped.cluster.order, relations, graph) else { continue };
            let Some(keys) = keys_of(grouped, relations)? else { continue };
            let all = graph.rows(relations);
            let columns: HashSet<_> = keys.iter().flat_map(Expr::column_refs).collect();
            let of = |column: &Column| {
                let new = || self.distinct(column, &grouped.cluster);
                *known.entry(column.clone()).or_insert_with(new)
            };
            let distinct: f64 = columns.into_iter().map(of).product();
            let groups = drawn(distinct, all);
            let cost =
                all * (JOINED + weight_of(&keys, &grouped.schema)?) + groups * (JOINED + weight);
            let early = Early { relations, order, keys, cost, left_out: 1.0 - rows / all };
            if early.pays(now, wanted) && best.as_ref().is_none_or(|best| cost < best.cost) {
                best = Some(early);
            }
        }
        tracing::debug!(now, early = best.as_ref().map(|best| best.cost), "groups before joins");
        Ok(best)
    }

    /// How many different values a column has in the rows of its relation.
    fn distinct(&self, column: &Column, cluster: &Cluster) -> f64 {
        let of = |plan: &LogicalPlan| {
            let known = estimate(plan, self.state)?;
            let all = distinct_values(&Expr::Column(column.clone()), plan, &known);
            Some((all * share_of_column(plan, column, self.state)).max(1.0))
        };
        let plan = cluster.relations.iter().find(|plan| plan.schema().has_column(column));
        plan.and_then(of).unwrap_or(f64::INFINITY)
    }
}

/// Some relations of an order, joined as they are in it; `None` where keys would not join them.
fn joined_of(order: &Order, relations: Set, graph: &Graph) -> Option<Order> {
    only(order, relations).filter(|only| are_joined(only, graph))
}

fn are_joined(order: &Order, graph: &Graph) -> bool {
    match order {
        Order::Relation(_) => true,
        Order::Join(left, right) => {
            graph.are_joined(left.relations(), right.relations())
                && are_joined(left, graph)
                && are_joined(right, graph)
        }
    }
}

fn only(order: &Order, relations: Set) -> Option<Order> {
    match order {
        Order::Relation(relation) => relations.has(*relation).then(|| order.clone()),
        Order::Join(left, right) => match (only(left, relations), only(right, relations)) {
            (Some(left), Some(right)) => Some(Order::join(left, right)),
            (left, right) => left.or(right),
        },
    }
}

/// What it costs to group a row by some keys.
fn weight_of(keys: &[Expr], schema: &DFSchema) -> Result<f64> {
    let mut weight = 1.0;
    for key in keys.iter().collect::<HashSet<_>>() {
        let is_number = key.get_type(schema)?.primitive_width().is_some_and(|bytes| bytes <= 8);
        weight += if is_number { 1.0 } else { TEXT };
    }
    Ok(weight)
}

/// How many different values are probably among some drawn ones.
fn drawn(distinct: f64, rows: f64) -> f64 {
    match distinct.is_finite() {
        true => distinct * -(-rows / distinct).exp_m1(),
        false => rows,
    }
}

fn union(sets: Vec<Set>) -> Set {
    sets.into_iter().fold(Set::EMPTY, Set::and)
}
