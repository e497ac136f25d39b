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

use datafusion::common::{JoinType, NullEquality};
use datafusion::error::Result;
use datafusion::logical_expr::{
    Aggregate, Expr, Join, JoinConstraint, LogicalPlan, Projection, SubqueryAlias,
};

/// What reduces an aggregate's input: a key of a small relation.
pub(super) struct SmallSide<'a> {
    pub(super) plan: &'a LogicalPlan,
    pub(super) key: &'a Expr,
}

/// Whether reading a plan once more costs little: filters and columns of one table, the same each time.
pub(super) fn is_cheap(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => {
            scan.fetch.is_none() && !scan.filters.iter().any(Expr::is_volatile)
        }
        LogicalPlan::Filter(filter) => {
            !filter.predicate.is_volatile()
                && !has_subquery(&filter.predicate)
                && is_cheap(&filter.input)
        }
        LogicalPlan::Projection(projection) => {
            projection.expr.iter().all(|expr| matches!(expr, Expr::Column(_)))
                && is_cheap(&projection.input)
        }
        LogicalPlan::SubqueryAlias(alias) => is_cheap(&alias.input),
        _ => false,
    }
}

fn has_subquery(expr: &Expr) -> bool {
    // What cannot be told is taken for one.
    super::cluster::has_subquery(expr).unwrap_or(true)
}

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
        let keys = Projection::try_new(vec![by.key.clone()], Arc::new(by.plan.clone()))?;
        let name = format!("__reducer_{number}");
        let keys = SubqueryAlias::try_new(Arc::new(LogicalPlan::Projection(keys)), name)?;
        let keys = LogicalPlan::SubqueryAlias(keys);
        let other = Expr::Column(keys.schema().columns().swap_remove(0));
        let join = Join::try_new(
            Arc::clone(&found.input),
            Arc::new(keys),
            vec![(key.clone(), other)],
            None,
            JoinType::LeftSemi,
            JoinConstraint::On,
            NullEquality::NullEqualsNothing,
            false,
        )?;
        let input = Arc::new(LogicalPlan::Join(join));
        let (keys, values) = (aggregate.group_expr.clone(), aggregate.aggr_expr.clone());
        let made = Aggregate::try_new_with_schema(input, keys, values, Arc::clone(&found.schema))?;
        return Ok(LogicalPlan::Aggregate(made));
    }
    let inputs = plan.inputs();
    let inputs = inputs.into_iter().map(|input| reduced(input, aggregate, key, by, number));
    plan.with_new_exprs(plan.expressions(), inputs.collect::<Result<_>>()?)
}
