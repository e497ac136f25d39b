//! Groups that nothing is joined to are not made.
//!
//! ```text
//! JOIN ON a.k = r.k                   JOIN ON a.k = r.k
//!   r                        ─▶         r
//!   AGGREGATE BY k AS a                 AGGREGATE BY k AS a
//!     x                                   SEMI JOIN r ON x.k = r.k
//!                                           x
//! ```
//! A correlated subquery with an aggregate becomes such a join, and makes groups of all rows of `x` where few are asked
//! for (TPC-H q17: of 200,000 parts some 200). Where `r` is small and read from one table, it is read once more. Magic sets
//! do the same in general (Mumick et al., SIGMOD 1990).

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};

use super::small_side::SmallSide;

/// The aggregate that a relation of a join is, and the key of its groups that a column of the relation is.
pub(super) fn aggregate_below<'a>(
    plan: &'a LogicalPlan,
    column: &Expr,
) -> Option<(&'a Aggregate, &'a Expr)> {
    let Expr::Column(column) = column else { return None };
    match plan {
        LogicalPlan::Aggregate(aggregate) => {
            let place = aggregate.schema.maybe_index_of_column(column)?;
            let key = aggregate.group_expr.get(place)?;
            let is_plain = matches!(key, Expr::Column(_));
            is_plain.then_some((aggregate, key))
        }
        LogicalPlan::Filter(filter) => {
            aggregate_below(&filter.input, &Expr::Column(column.clone()))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let place = alias.schema.maybe_index_of_column(column)?;
            let below = alias.input.schema().columns().into_iter().nth(place)?;
            aggregate_below(&alias.input, &Expr::Column(below))
        }
        LogicalPlan::Projection(projection) => {
            let place = projection.schema.maybe_index_of_column(column)?;
            let below = projection.expr.get(place)?.clone().unalias();
            aggregate_below(&projection.input, &below)
        }
        _ => None,
    }
}

/// A relation whose aggregate has groups only for keys that a small side has; `number` is one that no other has
/// in the plan.
pub(super) fn reduced(
    plan: &LogicalPlan,
    aggregate: &Aggregate,
    key: &Expr,
    by: &SmallSide<'_>,
    number: usize,
) -> Result<LogicalPlan> {
    if let LogicalPlan::Aggregate(found) = plan {
        let input = Arc::new(by.semi_joined(Arc::clone(&found.input), key, number)?);
        let (keys, values) = (aggregate.group_expr.clone(), aggregate.aggr_expr.clone());
        let made = Aggregate::try_new_with_schema(input, keys, values, Arc::clone(&found.schema))?;
        return Ok(LogicalPlan::Aggregate(made));
    }
    let inputs = plan.inputs();
    let inputs = inputs.into_iter().map(|input| reduced(input, aggregate, key, by, number));
    plan.with_new_exprs(plan.expressions(), inputs.collect::<Result<_>>()?)
}
