//! The shapes of subqueries that DataFusion makes joins of, and rightly: they are left to it, since
//! its semi and anti joins need no domain.

use std::collections::HashMap;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Cast, Distinct, Expr, ExprSchemable, LogicalPlan, Operator,
};

use super::outer::{outer_columns, resolves, takes};
use super::{has_subquery, is_subquery};

/// Where in a statement a subquery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    /// A condition of a filter, all of which must be true.
    Condition,
    /// An alternative within one, joined by OR.
    Alternative,
    /// Anywhere else in a filter.
    InFilter,
    /// In a column of a projection.
    Column,
    /// Below an aggregate, in ORDER BY and the like.
    Elsewhere,
}

impl Position {
    /// Within an expression that is not AND or OR.
    pub(super) fn inside(self) -> Self {
        match self {
            Self::Condition | Self::Alternative | Self::InFilter => Self::InFilter,
            other => other,
        }
    }

    /// Within OR.
    pub(super) fn alternative(self) -> Self {
        match self {
            Self::Condition | Self::Alternative => Self::Alternative,
            other => other,
        }
    }
}

/// Whether any subquery of an expression, in its position, is one that `is_meant`.
pub(super) fn any_subquery(
    expr: &Expr,
    position: Position,
    is_meant: &mut dyn FnMut(&Expr, Position) -> Result<bool>,
) -> Result<bool> {
    if !has_subquery(expr) {
        return Ok(false);
    }
    if is_subquery(expr) && is_meant(expr, position)? {
        return Ok(true);
    }
    let inside = match expr {
        Expr::BinaryExpr(BinaryExpr { op: Operator::And, .. }) | Expr::Alias(_) => position,
        Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. }) => position.alternative(),
        Expr::Not(inner) if matches!(inner.as_ref(), Expr::InSubquery(_)) => {
            return any_subquery(&negated(expr.clone()), position, is_meant);
        }
        _ => position.inside(),
    };
    let mut found = false;
    expr.apply_children(|child| {
        found |= any_subquery(child, inside, is_meant)?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// `NOT (x IN ...)` as `x NOT IN ...`, and the other way round.
pub(super) fn negated(expr: Expr) -> Expr {
    match expr {
        Expr::Not(inner) => match *inner {
            Expr::InSubquery(in_subquery) => {
                Expr::InSubquery(InSubquery { negated: !in_subquery.negated, ..in_subquery })
            }
            other => Expr::Not(Box::new(other)),
        },
        other => other,
    }
}

/// Whether DataFusion does right with a subquery in a node with this input.
pub(super) fn is_left_alone(expr: &Expr, position: Position, outside: &DFSchema) -> Result<bool> {
    use Position::{Alternative, Column as InColumn, Condition, Elsewhere};
    let Some(subquery) = super::outer::subquery_of(expr) else { return Ok(true) };
    let plan = subquery.subquery.as_ref();
    let outer = outer_columns(plan)?;
    if outer.iter().any(|outer| !resolves(outside, &outer.column)) {
        return Ok(false);
    }
    let is_correlated = !outer.is_empty();
    match expr {
        Expr::Exists(Exists { .. }) => {
            let is_filter = !matches!(position, InColumn | Elsewhere);
            Ok(is_filter && (!is_correlated || is_plain(plan)?))
        }
        Expr::InSubquery(in_subquery) => {
            if matches!(position, InColumn | Elsewhere) || is_correlated && !is_plain(plan)? {
                return Ok(false);
            }
            match plan.head_output_expr()? {
                Some(value) if position == Condition || !is_bare(&value) => {}
                _ => return Ok(false),
            }
            let is_null_false = match position {
                Condition => !(in_subquery.negated && is_correlated),
                Alternative => !in_subquery.negated,
                _ => false,
            };
            Ok(is_null_false || !may_be_null(in_subquery, outside)?)
        }
        Expr::ScalarSubquery(_) => {
            let is_plain =
                || -> Result<bool> { Ok(is_plain_aggregate(plan)? && !has_clash(plan)?) };
            Ok(!is_correlated || position != Elsewhere && is_plain()?)
        }
        // It becomes EXISTS, with the comparison in a filter above.
        _ => {
            let is_filter = !matches!(position, InColumn | Elsewhere);
            Ok(is_filter && (!is_correlated || is_plain(plan)?))
        }
    }
}

/// Whether a value is of a column without a table, as aggregates are. Where the join of `IN` marks rows,
/// DataFusion takes it for another than that of the join's side, and has both there
/// (`sql-tests/upstream/in-of-aggregates.md`).
fn is_bare(value: &Expr) -> bool {
    value.column_refs().iter().any(|column| column.relation.is_none())
}

/// Whether `IN` may be NULL.
fn may_be_null(in_subquery: &InSubquery, outside: &DFSchema) -> Result<bool> {
    let has_nulls = in_subquery.subquery.subquery.schema().fields().iter().any(|f| f.is_nullable());
    Ok(has_nulls || in_subquery.expr.nullable(outside)?)
}

/// Whether DataFusion does right with LATERAL of this plan. DISTINCT would be of the columns that are
/// pulled up, too.
pub(super) fn is_lateral_left_alone(plan: &LogicalPlan, outside: &DFSchema) -> Result<bool> {
    let outer = outer_columns(plan)?;
    if outer.is_empty() {
        return Ok(true);
    }
    let is_distinct = plan.exists(|node| Ok(matches!(node, LogicalPlan::Distinct(_))))?;
    let is_here = outer.iter().all(|outer| resolves(outside, &outer.column));
    Ok(is_here && !is_distinct && is_plain(plan)?)
}

/// Whether only filters take columns from outside, and nothing above them counts or cuts rows.
pub(in crate::subqueries) fn is_plain(plan: &LogicalPlan) -> Result<bool> {
    Ok(has_plain_rows(plan)? && !has_clash(plan)?)
}

/// Whether columns of several tables would have one name: those that are compared to columns from
/// outside are pulled up beside those that the subquery has already, and all get its alias for a
/// qualifier. A cast of `u.x` is a column without a table, called that.
fn has_clash(plan: &LogicalPlan) -> Result<bool> {
    let mut columns = plan.schema().columns();
    let mut rest = Some(plan);
    while let Some(node) = rest {
        if let LogicalPlan::Filter(filter) = node {
            let conditions = split_conjunction(&filter.predicate).into_iter();
            let correlated = conditions.filter(|condition| condition.contains_outer());
            columns.extend(correlated.flat_map(Expr::column_refs).cloned());
        }
        rest = match node.inputs().as_slice() {
            [input] if !outer_columns(input)?.is_empty() => Some(input),
            _ => None,
        };
    }
    let mut by_name: HashMap<String, &Column> = HashMap::new();
    let mut is_other = |name, column| *by_name.entry(name).or_insert(column) != column;
    Ok(columns.iter().any(|column| {
        is_other(column.name.clone(), column) || is_other(column.flat_name(), column)
    }))
}

fn has_plain_rows(plan: &LogicalPlan) -> Result<bool> {
    match plan {
        LogicalPlan::Filter(filter) => {
            // `outer.k IN (SELECT ...)` is joined to this filter's rows, which have no such column.
            let mut conditions = split_conjunction(&filter.predicate).into_iter();
            let is_mixed = conditions.any(|c| has_subquery(c) && c.contains_outer());
            Ok(!is_mixed && has_plain_rows(&filter.input)?)
        }
        LogicalPlan::SubqueryAlias(alias) => has_plain_rows(&alias.input),
        LogicalPlan::Distinct(Distinct::All(input)) => has_plain_rows(input),
        LogicalPlan::Projection(projection) => {
            Ok(!takes(plan, &|_: &Column| true)? && has_plain_rows(&projection.input)?)
        }
        other => Ok(outer_columns(other)?.is_empty()),
    }
}

/// Aggregates for which DataFusion knows the result over no rows.
const KNOWN_WHEN_EMPTY: [&str; 6] = ["avg", "count", "max", "median", "min", "sum"];

/// Whether a scalar subquery is an expression of aggregates, over rows with columns that are equal to
/// those from outside.
fn is_plain_aggregate(plan: &LogicalPlan) -> Result<bool> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => is_plain_aggregate(&alias.input),
        LogicalPlan::Projection(projection) => {
            // A constant would be NULL where there are no rows.
            let is_computed = projection.expr.iter().all(|expr| expr.any_column_refs());
            let is_own = is_computed
                && !takes(plan, &|_: &Column| true)?
                && !projection.expr.iter().any(has_subquery);
            Ok(is_own && is_plain_aggregate(&projection.input)?)
        }
        LogicalPlan::Aggregate(aggregate) => {
            let is_known = aggregate.group_expr.is_empty()
                && aggregate.aggr_expr.iter().all(is_known_when_empty)
                && !takes(plan, &|_: &Column| true)?;
            Ok(is_known && is_of_equals(aggregate)?)
        }
        _ => Ok(false),
    }
}

fn is_known_when_empty(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(alias) => is_known_when_empty(&alias.expr),
        Expr::AggregateFunction(aggregate) => KNOWN_WHEN_EMPTY.contains(&aggregate.func.name()),
        _ => false,
    }
}

fn is_of_equals(aggregate: &Aggregate) -> Result<bool> {
    let mut input = aggregate.input.as_ref();
    loop {
        input = match input {
            LogicalPlan::Filter(filter) => {
                let conditions = split_conjunction(&filter.predicate);
                let mut correlated =
                    conditions.into_iter().filter(|condition| condition.contains_outer());
                if !correlated.all(is_equal_to_outer) {
                    return Ok(false);
                }
                &filter.input
            }
            other => return Ok(outer_columns(other)?.is_empty()),
        };
    }
}

/// `column = something from outside`, either way round.
fn is_equal_to_outer(condition: &Expr) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else {
        return false;
    };
    let is_column = |expr: &Expr| match expr {
        Expr::Column(_) => true,
        Expr::Cast(Cast { expr, .. }) => matches!(expr.as_ref(), Expr::Column(_)),
        _ => false,
    };
    let is_outer = |expr: &Expr| expr.contains_outer() && !expr.any_column_refs();
    is_column(left) && is_outer(right) || is_outer(left) && is_column(right)
}
