//! An aggregation that was taken apart, put together again in two steps.
//!
//! Invariant: the columns are those of the aggregation as it was, by name, type and place.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::logical_expr::expr::GroupingSet;
use datafusion::logical_expr::expr_fn::cast;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, Projection};

use super::grouped::Grouped;
use super::steps::{Functions, TwoSteps};
use super::{Early, union};
use crate::arithmetic::{AVERAGE_OF_SUM, BIGINT_OF_SUM};
use crate::join_order::Ordering;
use crate::join_order::cluster::Cluster;
use crate::join_order::enumerate::Order;
use crate::join_order::graph::Set;

impl Ordering<'_> {
    /// The joins of an aggregation over its early groups, and what is above them; `None` where keys do not join the
    /// rest one by one. Names of early columns have this number.
    pub(super) fn in_two_steps(
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
pub(super) struct LateStep {
    late: Aggregate,
    /// The columns of the aggregation as it was.
    exprs: Vec<Expr>,
}

impl LateStep {
    /// The second step of these rows.
    pub(super) fn over(self, joined: LogicalPlan) -> Result<LogicalPlan> {
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
