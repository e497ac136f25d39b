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
//! - `sound`: what may be computed early
//! - `steps`: aggregates in two steps

mod sound;
mod steps;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering as MemoryOrdering;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::logical_expr::expr::GroupingSet;
use datafusion::logical_expr::expr_fn::cast;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, Projection};

use super::Ordering;
use super::cluster::{Cluster, has_subquery, needs, owners};
use super::enumerate::Order;
use super::estimates::{distinct_values, estimate, share_of_column};
use super::graph::{Graph, Set};
use crate::arithmetic::{AVERAGE_OF_SUM, BIGINT_OF_SUM};
use crate::session::SessionSpec;
use crate::settings::EagerAggregation;
use sound::cannot_fail;
use steps::{Functions, Steps, TwoSteps};

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

/// An aggregation over inner joins, taken apart.
struct Grouped<'a> {
    aggregate: &'a Aggregate,
    cluster: Cluster,
    graph: Graph,
    /// The columns of all of its relations, and which one each is of.
    schema: DFSchema,
    owners: HashMap<Column, usize>,
    /// What is grouped by, over the columns of the joins.
    groups: Vec<Expr>,
    /// How often rows are grouped.
    sets: usize,
    steps: Vec<Steps>,
    /// Relations that the aggregates are of.
    measured: Set,
}

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

    fn grouped<'a>(&self, aggregate: &'a Aggregate) -> Result<Option<Grouped<'a>>> {
        let (leaves, sets) = leaves(&aggregate.group_expr);
        let names = leaves.iter().collect::<HashSet<_>>().len();
        let mut exprs: Vec<Expr> =
            leaves.into_iter().chain(&aggregate.aggr_expr).cloned().collect();
        let Some(input) = inlined(&aggregate.input, &mut exprs)? else { return Ok(None) };
        let Some(cluster) = Cluster::of_at_least(2, input)? else { return Ok(None) };
        let values = exprs.split_off(exprs.len() - aggregate.aggr_expr.len());
        let mut schema = DFSchema::empty();
        for relation in &cluster.relations {
            let Ok(joined) = schema.join(relation.schema()) else { return Ok(None) };
            schema = joined;
        }
        let mut steps = Vec::with_capacity(values.len());
        for value in &values {
            let Some(of) = Steps::of(value, &schema)? else { return Ok(None) };
            steps.push(of);
        }
        for group in &exprs {
            if !cannot_fail(group, &schema)? || !is_exact(&group.get_type(&schema)?) {
                return Ok(None);
            }
        }
        // Columns of two names may be one: what is grouped by once has no place for both.
        if exprs.iter().collect::<HashSet<_>>().len() != names {
            return Ok(None);
        }
        // They may meet rows that another join left out before.
        let keys = cluster.equal.iter().flatten().map(|(_, key)| key);
        for expr in keys.chain(cluster.conditions.iter().map(|(_, condition)| condition)) {
            if !cannot_fail(expr, &schema)? {
                return Ok(None);
            }
        }
        if exprs.is_empty() || has_subquery_or_chance(exprs.iter().chain(&values))? {
            return Ok(None);
        }
        let Some(graph) = self.graph(&cluster) else { return Ok(None) };
        let Some(owners) = owners(&cluster.relations) else { return Ok(None) };
        let arguments = steps.iter().flat_map(Steps::arguments);
        let measured = arguments.map(|argument| needs(argument, &owners));
        let Some(mut measured) = measured.collect::<Option<Vec<Set>>>().map(union) else {
            return Ok(None);
        };
        if measured.is_empty() {
            // Rows are counted: most of them are those of the largest relation.
            let rows = |relation: &usize| graph.relations[*relation].rows;
            let largest = graph.all().relations().max_by(|a, b| rows(a).total_cmp(&rows(b)));
            measured = largest.map_or(Set::EMPTY, Set::one);
        }
        let groups = exprs;
        let grouped =
            Grouped { aggregate, cluster, graph, schema, owners, groups, sets, steps, measured };
        Ok(Some(grouped))
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

    fn in_two_steps(
        &self,
        grouped: &Grouped<'_>,
        early: &Early,
        number: usize,
    ) -> Result<Option<(LogicalPlan, LateStep)>> {
        let functions = Functions {
            sum: self.state.udaf("sum")?,
            wide_sum: self.state.udaf("wide_sum")?,
            count: count_udaf(),
            average_of_sum: self.state.udf(AVERAGE_OF_SUM)?,
            bigint_of_sum: self.state.udf(BIGINT_OF_SUM)?,
        };
        let steps = grouped.steps.iter().enumerate();
        let steps = steps
            .map(|(place, of)| of.in_two(&format!("early_{number}_value_{place}"), &functions))
            .collect::<Result<Vec<TwoSteps>>>()?;
        // Columns keep their names, so that what is above finds them.
        let key_name = |place: usize| format!("early_{number}_key_{place}");
        let keys = early.keys.iter().enumerate().map(|(place, key)| match key {
            Expr::Column(_) => key.clone(),
            computed => computed.clone().alias(key_name(place)),
        });
        let renamed = |expr: &Expr| match early.keys.iter().position(|key| key == expr) {
            Some(place) if !matches!(expr, Expr::Column(_)) => {
                Expr::Column(Column::new_unqualified(key_name(place)))
            }
            _ => expr.clone(),
        };
        let input = Arc::new(grouped.cluster.part(&early.order)?);
        let first = steps.iter().flat_map(|steps| steps.first.clone()).collect();
        let summed = LogicalPlan::Aggregate(Aggregate::try_new(input, keys.collect(), first)?);
        let Some(joined) = with_one(&grouped.cluster, early.relations, summed, renamed)? else {
            return Ok(None);
        };
        let aggregate = grouped.aggregate;
        let mut groups = grouped.groups.iter().map(renamed);
        let group_expr = aggregate.group_expr.iter().map(|expr| with_leaves(expr, &mut groups));
        let group_expr = group_expr.collect::<Option<Vec<_>>>();
        let Some(group_expr) = group_expr else { return Ok(None) };
        let second = steps.iter().flat_map(|steps| steps.second.clone()).collect();
        let late = Aggregate::try_new(Arc::new(joined.clone()), group_expr, second)?;
        let restored = restored(aggregate, &late, steps.into_iter().map(|steps| steps.value))?;
        Ok(restored.map(|exprs| (joined, LateStep { late, exprs })))
    }
}

/// What is above the late joins.
struct LateStep {
    late: Aggregate,
    /// The columns of the aggregation as it was.
    exprs: Vec<Expr>,
}

impl LateStep {
    /// The second step of these rows.
    fn over(self, joined: LogicalPlan) -> Result<LogicalPlan> {
        let Aggregate { group_expr, aggr_expr, .. } = self.late;
        let late = Aggregate::try_new(Arc::new(joined), group_expr, aggr_expr)?;
        let late = Arc::new(LogicalPlan::Aggregate(late));
        Projection::try_new(self.exprs, late).map(LogicalPlan::Projection)
    }
}

/// The columns of an aggregation, of those of its second step.
fn restored(
    aggregate: &Aggregate,
    late: &Aggregate,
    values: impl Iterator<Item = Expr>,
) -> Result<Option<Vec<Expr>>> {
    let groups_of = |of: &Aggregate| of.schema.fields().len() - of.aggr_expr.len();
    let groups = groups_of(aggregate);
    if groups_of(late) != groups {
        return Ok(None);
    }
    let columns = late.schema.columns().into_iter().take(groups).map(Expr::Column);
    let exprs = columns.chain(values).zip(aggregate.schema.iter());
    let exprs = exprs.map(|(expr, (qualifier, field))| {
        let expr = match expr.get_type(&late.schema)? == *field.data_type() {
            true => expr,
            false => cast(expr, field.data_type().clone()),
        };
        Ok(match &expr {
            Expr::Column(column)
                if column.relation.as_ref() == qualifier && column.name == *field.name() =>
            {
                expr
            }
            _ => expr.alias_qualified(qualifier.cloned(), field.name()),
        })
    });
    exprs.collect::<Result<Vec<_>>>().map(Some)
}

/// The joins of a cluster, with one plan in the place of some relations; `None` where keys do not join the rest to it
/// one by one.
fn with_one(
    cluster: &Cluster,
    some: Set,
    plan: LogicalPlan,
    renamed: impl Fn(&Expr) -> Expr,
) -> Result<Option<LogicalPlan>> {
    let all = Set::first(cluster.relations.len());
    let rest: Vec<_> = all.without(some).relations().collect();
    let place = |relation: usize| rest.iter().position(|of| *of == relation).map_or(0, |at| at + 1);
    let moved = |set: Set| union(set.relations().map(|of| Set::one(place(of))).collect());
    let mut relations = vec![plan];
    relations.extend(rest.iter().map(|relation| cluster.relations[*relation].clone()));
    let class = |class: &Vec<(usize, Expr)>| {
        let early = class.iter().find(|(of, _)| some.has(*of)).map(|(_, key)| (0, renamed(key)));
        let late = class.iter().filter(|(of, _)| !some.has(*of));
        early.into_iter().chain(late.map(|(of, key)| (place(*of), key.clone()))).collect()
    };
    let equal: Vec<Vec<(usize, Expr)>> = cluster.equal.iter().map(class).collect();
    let is_later = |set: &Set| !some.contains(*set);
    let conditions = cluster.conditions.iter().filter(|(set, _)| is_later(set));
    let conditions = conditions.map(|(set, condition)| (moved(*set), condition.clone())).collect();
    let mut order = Order::Relation(0);
    let mut waiting: Vec<usize> = (1..relations.len()).collect();
    while !waiting.is_empty() {
        let joined = order.relations();
        let is_joined = |relation: &usize| {
            equal.iter().any(|class| {
                class.iter().any(|(of, _)| of == relation)
                    && class.iter().any(|(of, _)| joined.has(*of))
            })
        };
        let Some(next) = waiting.iter().position(is_joined) else { return Ok(None) };
        order = Order::join(order, Order::Relation(waiting.remove(next)));
    }
    let cluster = Cluster { relations, equal, conditions, order };
    cluster.part(&cluster.order).map(Some)
}

/// What rows of some relations are grouped by, so that all of a group are joined to the same rows and are in the same
/// group at the end; `None` where one of these keys cannot be.
fn keys_of(grouped: &Grouped<'_>, relations: Set) -> Result<Option<Vec<Expr>>> {
    let Grouped { cluster, schema, owners, .. } = grouped;
    let mut keys = Vec::new();
    let mut is_named_late = false;
    let own_columns = |expr: &Expr, keys: &mut Vec<Expr>| {
        for column in expr.column_refs() {
            if owners.get(column).is_some_and(|of| relations.has(*of)) {
                keys.push(Expr::Column(column.clone()));
            }
        }
    };
    for group in &grouped.groups {
        match needs(group, owners) {
            Some(set) if relations.contains(set) => keys.push(group.clone()),
            Some(_) => {
                is_named_late = true;
                own_columns(group, &mut keys);
            }
            None => return Ok(None),
        }
    }
    for class in &cluster.equal {
        let is_late = class.iter().any(|(of, _)| !relations.has(*of));
        let early = class.iter().find(|(of, _)| relations.has(*of));
        if let (true, Some((_, key))) = (is_late, early) {
            keys.push(key.clone());
        }
    }
    for (set, condition) in &cluster.conditions {
        if !relations.contains(*set) {
            own_columns(condition, &mut keys);
        }
    }
    if !is_named_late {
        return Ok(None);
    }
    let mut seen = HashSet::new();
    keys.retain(|key| !matches!(key, Expr::Literal(..)) && seen.insert(key.clone()));
    for key in &keys {
        if !is_exact(&key.get_type(schema)?) {
            return Ok(None);
        }
    }
    Ok((!keys.is_empty()).then_some(keys))
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

/// What an aggregation groups by, one by one, and in how many sets of it.
fn leaves(group_expr: &[Expr]) -> (Vec<&Expr>, usize) {
    match group_expr {
        [Expr::GroupingSet(GroupingSet::Rollup(exprs))] => {
            (exprs.iter().collect(), exprs.len() + 1)
        }
        [Expr::GroupingSet(GroupingSet::GroupingSets(sets))] => {
            (sets.iter().flatten().collect(), sets.len())
        }
        [Expr::GroupingSet(GroupingSet::Cube(exprs))] => {
            (exprs.iter().collect(), 1 << exprs.len().min(16))
        }
        exprs => (exprs.iter().collect(), 1),
    }
}

/// The same with others in the places of what is grouped by.
fn with_leaves(expr: &Expr, leaves: &mut dyn Iterator<Item = Expr>) -> Option<Expr> {
    let all = |exprs: &[Expr], leaves: &mut dyn Iterator<Item = Expr>| {
        exprs.iter().map(|_| leaves.next()).collect::<Option<Vec<_>>>()
    };
    Some(match expr {
        Expr::GroupingSet(GroupingSet::Rollup(exprs)) => {
            Expr::GroupingSet(GroupingSet::Rollup(all(exprs, leaves)?))
        }
        Expr::GroupingSet(GroupingSet::Cube(exprs)) => {
            Expr::GroupingSet(GroupingSet::Cube(all(exprs, leaves)?))
        }
        Expr::GroupingSet(GroupingSet::GroupingSets(sets)) => {
            let sets = sets.iter().map(|set| all(set, leaves)).collect::<Option<Vec<_>>>()?;
            Expr::GroupingSet(GroupingSet::GroupingSets(sets))
        }
        _ => leaves.next()?,
    })
}

/// What is below projections, and expressions over its columns; `None` where a column is not found.
fn inlined<'a>(mut plan: &'a LogicalPlan, exprs: &mut [Expr]) -> Result<Option<&'a LogicalPlan>> {
    while let LogicalPlan::Projection(projection) = plan {
        for expr in exprs.iter_mut() {
            *expr = below(expr.clone(), projection)?;
        }
        plan = &projection.input;
    }
    let is_known = |column: &&Column| plan.schema().has_column(column);
    let are_known = exprs.iter().all(|expr| expr.column_refs().iter().all(is_known));
    Ok(are_known.then_some(plan))
}

/// An expression over the columns that a projection is made of.
fn below(expr: Expr, projection: &Projection) -> Result<Expr> {
    let of = |part: Expr| {
        let Expr::Column(column) = &part else { return Ok(Transformed::no(part)) };
        let place = projection.schema.index_of_column(column)?;
        Ok(Transformed::yes(projection.expr[place].clone().unalias()))
    };
    // Not what was put in: its columns may have the names of others here.
    expr.transform_up(of).data()
}

fn has_subquery_or_chance<'a>(exprs: impl Iterator<Item = &'a Expr>) -> Result<bool> {
    for expr in exprs {
        if expr.is_volatile() || has_subquery(expr)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Types whose values are equal only if they are the same.
fn is_exact(of: &DataType) -> bool {
    use DataType as T;
    of.is_integer()
        || matches!(of, T::Boolean | T::Utf8 | T::Utf8View | T::LargeUtf8 | T::Date32)
        || matches!(of, T::Decimal128(..) | T::Timestamp(..))
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
