//! Aggregations over inner joins, taken apart.
//!
//! Invariant: what is taken apart can be made early: nothing in it fails for a row, or is another value each time.

use std::collections::{HashMap, HashSet};

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::expr::GroupingSet;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, Projection};

use super::sound::cannot_fail;
use super::steps::Steps;
use super::union;
use crate::join_order::Ordering;
use crate::join_order::cluster::{Cluster, has_subquery, needs, owners};
use crate::join_order::graph::{Graph, Set};

/// An aggregation over inner joins, taken apart.
pub(super) struct Grouped<'a> {
    pub(super) aggregate: &'a Aggregate,
    pub(super) cluster: Cluster,
    pub(super) graph: Graph,
    /// The columns of all of its relations, and which one each is of.
    pub(super) schema: DFSchema,
    pub(super) owners: HashMap<Column, usize>,
    /// What is grouped by, over the columns of the joins.
    pub(super) groups: Vec<Expr>,
    /// How often rows are grouped.
    pub(super) sets: usize,
    pub(super) steps: Vec<Steps>,
    /// Relations that the aggregates are of.
    pub(super) measured: Set,
}

impl Ordering<'_> {
    /// An aggregation, taken apart; `None` of one that must stay one step.
    pub(super) fn grouped<'a>(&self, aggregate: &'a Aggregate) -> Result<Option<Grouped<'a>>> {
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
}

/// What rows of some relations are grouped by, so that all of a group are joined to the same rows and are in the same
/// group at the end; `None` where one of these keys cannot be.
pub(super) fn keys_of(grouped: &Grouped<'_>, relations: Set) -> Result<Option<Vec<Expr>>> {
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
