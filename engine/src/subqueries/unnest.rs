//! Subqueries that take columns from the query around them, made joins of any shape.
//!
//! DataFusion pulls the conditions of such a subquery up into a join. Where that is not possible it
//! refuses the statement, and in some shapes it gives a wrong answer
//! (`sql-tests/upstream/three-values-of-in.md`, `sql-tests/upstream/subqueries-over-aggregates.md`): `IN`
//! that is not a condition of WHERE knows no NULL, aggregates without GROUP BY have no row where there
//! is nothing to aggregate, HAVING and LIMIT are lost. These shapes are joined here, by the method of
//! Thomas Neumann and Alfons Kemper, *Unnesting Arbitrary Queries*, BTW 2015: the distinct values of the
//! columns from outside (the *domain*) are joined to the leaves of the subquery and carried up through
//! every operator, so that the subquery has its rows for all of them at once; the query around is then
//! joined to that by the same values, NULL being equal to NULL.
//!
//! - `shape`: what DataFusion does right, and faster, which is left to it
//! - `outer`: the columns that a plan takes from around it
//! - `domain`: their distinct values
//! - `push`: the domain, carried up through a plan
//! - `attach`: the value of a subquery as a column of the query around it
//! - `repeatable`: the domain is computed beside the query around, so both must have the same rows
//!
//! Invariant: column names stay as they were.

mod attach;
mod domain;
mod outer;
mod push;
mod repeatable;
mod shape;

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinConstraint, NullEquality, not_impl_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Expr, Filter, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Operator,
};
use datafusion::optimizer::AnalyzerRule;

use self::attach::Attached;
use self::domain::{Domain, Names};
use self::outer::resolves;
pub(crate) use self::outer::{outer_columns, subquery_of};
pub(super) use self::shape::is_plain;
use self::shape::{Position, is_lateral_left_alone, is_left_alone};
use crate::plan_size::check_plan_size;

/// Makes joins of them.
#[derive(Debug, Default)]
pub(crate) struct UnnestSubqueries;

impl AnalyzerRule for UnnestSubqueries {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        if !has_subqueries(&plan)? {
            return Ok(plan);
        }
        let mut names = Names::after(&plan)?;
        let plan = plan.transform_up_with_subqueries(|node| unnested(node, &mut names))?;
        if !plan.transformed {
            return Ok(plan.data);
        }
        check_plan_size(&plan.data)?;
        // What was certain to have a value may be NULL now.
        let plan = plan
            .data
            .transform_up_with_subqueries(|node| Ok(Transformed::yes(node.recompute_schema()?)))?;
        Ok(plan.data)
    }

    fn name(&self) -> &'static str {
        "unnest_subqueries"
    }
}

fn has_subqueries(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        found |= matches!(node, LogicalPlan::Subquery(_)) || holds_subquery(node)?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Whether a node's own expressions have a subquery.
fn holds_subquery(node: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    node.apply_expressions(|expr| {
        found |= has_subquery(expr);
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

pub(super) fn has_subquery(expr: &Expr) -> bool {
    // The closure never fails.
    expr.exists(|part| Ok(is_subquery(part))).unwrap_or(false)
}

fn is_subquery(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_)
    )
}

/// A node whose inputs, and the inputs of whose subqueries, are unnested.
fn unnested(node: LogicalPlan, names: &mut Names) -> Result<Transformed<LogicalPlan>> {
    let holds = holds_subquery(&node)?;
    if let LogicalPlan::Join(join) = node {
        return match lateral_side(&join)? {
            Some(right) => lateral(join, right, names),
            None if holds => on_subqueries(join, names),
            None => Ok(Transformed::no(LogicalPlan::Join(join))),
        };
    }
    if let LogicalPlan::Aggregate(aggregate) = &node
        && aggregate.aggr_expr.iter().any(is_of_outer_columns)
    {
        return not_impl_err!(
            "an aggregate of columns of the query around alone is not supported: in standard SQL it \
             belongs to that query"
        );
    }
    if !holds {
        return Ok(Transformed::no(node));
    }
    match node {
        LogicalPlan::Filter(filter) => filtered(filter, names),
        LogicalPlan::Projection(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Sort(_) => computed(node, names),
        other => Ok(Transformed::no(other)),
    }
}

/// Whether the arguments of an aggregate are columns from outside, and none of its own rows.
fn is_of_outer_columns(expr: &Expr) -> bool {
    let is_outer = |part: &Expr| match part {
        Expr::AggregateFunction(aggregate) => {
            let arguments = &aggregate.params.args;
            arguments.iter().any(Expr::contains_outer)
                && !arguments.iter().any(Expr::any_column_refs)
        }
        _ => false,
    };
    // The closure never fails.
    expr.exists(|part| Ok(is_outer(part))).unwrap_or(false)
}

/// A filter: conditions in which NULL is as good as false, and subqueries that DataFusion joins.
fn filtered(filter: Filter, names: &mut Names) -> Result<Transformed<LogicalPlan>> {
    let schema = filter.input.schema();
    let conditions = split_conjunction_owned(filter.predicate.clone());
    let is_ours = |condition: &Expr| {
        shape::any_subquery(condition, Position::Condition, &mut |subquery, position| {
            Ok(!is_left_alone(subquery, position, schema)?)
        })
    };
    let ours = conditions.iter().map(is_ours).collect::<Result<Vec<_>>>()?;
    if !ours.contains(&true) {
        return Ok(Transformed::no(LogicalPlan::Filter(filter)));
    }
    // The domain is that of the rows that are left by what is simple.
    let (first, rest): (Vec<_>, Vec<_>) = conditions.into_iter().partition(|condition| {
        !has_subquery(condition) && !condition.contains_outer() && !condition.is_volatile()
    });
    let input = match conjunction(first) {
        Some(first) => LogicalPlan::Filter(Filter::try_new(first, Arc::clone(&filter.input))?),
        None => filter.input.as_ref().clone(),
    };
    let columns = input.schema().columns().into_iter().map(Expr::Column);
    let mut attached = Attached::new(input);
    let rest = rest
        .into_iter()
        .map(|condition| replaced(condition, Position::Condition, true, &mut attached, names));
    let rest = rest.collect::<Result<Vec<_>>>()?;
    let mut plan = LogicalPlanBuilder::from(attached.plan);
    for condition in rest {
        plan = plan.filter(condition)?;
    }
    Ok(Transformed::yes(plan.project(columns)?.build()?))
}

/// A node that computes expressions over its one input.
fn computed(node: LogicalPlan, names: &mut Names) -> Result<Transformed<LogicalPlan>> {
    let is_projection = matches!(node, LogicalPlan::Projection(_));
    let position = if is_projection { Position::Column } else { Position::Elsewhere };
    let schema = Arc::clone(node.inputs()[0].schema());
    let mut is_ours = false;
    node.apply_expressions(|expr| {
        is_ours |= shape::any_subquery(expr, position, &mut |subquery, position| {
            Ok(!is_left_alone(subquery, position, &schema)?)
        })?;
        Ok(if is_ours { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    if !is_ours {
        return Ok(Transformed::no(node));
    }
    let mut attached = Attached::new(node.inputs()[0].clone());
    let preserver = NamePreserver::new(&node);
    let columns = node.schema().columns();
    let node = node.map_expressions(|expr| {
        let name = preserver.save(&expr);
        let expr = replaced(expr, position, false, &mut attached, names)?;
        Ok(Transformed::yes(name.restore(expr)))
    })?;
    let expressions = node.data.expressions();
    let node = node.data.with_new_exprs(expressions, vec![attached.plan])?;
    match node.schema().fields().len() == columns.len() {
        true => Ok(Transformed::yes(node)),
        // A sort or a window hands on all columns of its input.
        false => LogicalPlanBuilder::from(node)
            .project(columns.into_iter().map(Expr::Column))?
            .build()
            .map(Transformed::yes),
    }
}

/// An expression with columns in the place of the subqueries that are not left alone.
fn replaced(
    expr: Expr,
    position: Position,
    null_is_false: bool,
    attached: &mut Attached,
    names: &mut Names,
) -> Result<Expr> {
    if !has_subquery(&expr) {
        return Ok(expr);
    }
    if is_subquery(&expr) {
        let stays = is_left_alone(&expr, position, attached.outside.schema())?;
        let expr = expr.map_children(|child| {
            let child = replaced(child, position.inside(), false, attached, names)?;
            Ok(Transformed::yes(child))
        })?;
        return match stays {
            true => Ok(expr.data),
            false => attached.value_of(expr.data, null_is_false, names),
        };
    }
    let (inside, keeps) = match &expr {
        Expr::BinaryExpr(BinaryExpr { op: Operator::And, .. }) => (position, true),
        Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. }) => (position.alternative(), true),
        Expr::Not(inner) if matches!(inner.as_ref(), Expr::InSubquery(_)) => {
            return replaced(shape::negated(expr), position, null_is_false, attached, names);
        }
        Expr::Alias(_) => (position, false),
        _ => (position.inside(), false),
    };
    let expr = expr.map_children(|child| {
        let child = replaced(child, inside, null_is_false && keeps, attached, names)?;
        Ok(Transformed::yes(child))
    })?;
    Ok(expr.data)
}

/// The right side of a LATERAL join without the node that says so; `None` of any other join.
fn lateral_side(join: &Join) -> Result<Option<LogicalPlan>> {
    let mut found = false;
    // Below another join the node belongs to that.
    let side = join.right.as_ref().clone().transform_down(|node| match node {
        LogicalPlan::Subquery(subquery) => {
            found = true;
            let plan = Arc::unwrap_or_clone(subquery.subquery);
            Ok(Transformed::new(plan, true, TreeNodeRecursion::Stop))
        }
        LogicalPlan::SubqueryAlias(_) | LogicalPlan::Projection(_) => Ok(Transformed::no(node)),
        other => Ok(Transformed::new(other, false, TreeNodeRecursion::Stop)),
    })?;
    Ok(found.then_some(side.data))
}

fn lateral(join: Join, right: LogicalPlan, names: &mut Names) -> Result<Transformed<LogicalPlan>> {
    let outside = join.left.schema();
    if is_lateral_left_alone(&right, outside)? {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    }
    if !matches!(join.join_type, JoinType::Inner | JoinType::Left) {
        return not_impl_err!("LATERAL on the right side of {} is not supported", join.join_type);
    }
    let columns = join.schema.columns().into_iter().map(Expr::Column);
    let domain = Domain::of(&right, &join.left, names)?;
    let keys = domain.keys();
    let right = push::push(right, &domain, names)?;
    let on = join.on.into_iter().map(|(left, right)| left.eq(right));
    let condition = conjunction(on.chain(join.filter));
    let (within, above) = match join.join_type {
        JoinType::Inner => (None, condition),
        _ => (condition, None),
    };
    let mut plan = LogicalPlanBuilder::from(LogicalPlan::Join(Join::try_new(
        join.left,
        Arc::new(right),
        keys,
        within,
        join.join_type,
        JoinConstraint::On,
        NullEquality::NullEqualsNull,
        false,
    )?));
    if let Some(above) = above {
        plan = plan.filter(above)?;
    }
    let plan = plan.project(columns)?.build()?;
    // The condition may have subqueries of its own.
    match plan {
        LogicalPlan::Projection(mut projection) => {
            let input = Arc::unwrap_or_clone(projection.input);
            projection.input = Arc::new(unnested(input, names)?.data);
            Ok(Transformed::yes(LogicalPlan::Projection(projection)))
        }
        other => Ok(Transformed::yes(other)),
    }
}

/// A join with subqueries in its condition.
fn on_subqueries(join: Join, names: &mut Names) -> Result<Transformed<LogicalPlan>> {
    let (with, on): (Vec<_>, Vec<_>) =
        join.on.into_iter().partition(|(left, right)| has_subquery(left) || has_subquery(right));
    let filters = join.filter.map(split_conjunction_owned).unwrap_or_default();
    let (mut with_subqueries, filters): (Vec<_>, Vec<_>) =
        filters.into_iter().partition(has_subquery);
    with_subqueries.extend(with.into_iter().map(|(left, right)| left.eq(right)));
    if join.join_type == JoinType::Inner {
        let below = Join { on, filter: conjunction(filters), ..join };
        let Some(condition) = conjunction(with_subqueries) else {
            return Ok(Transformed::no(LogicalPlan::Join(below)));
        };
        let filter = Filter::try_new(condition, Arc::new(LogicalPlan::Join(below)))?;
        return Ok(Transformed::yes(filtered(filter, names)?.data));
    }
    let columns = join.schema.columns().into_iter().map(Expr::Column);
    let mut left = Attached::new(join.left.as_ref().clone());
    let mut right = Attached::new(join.right.as_ref().clone());
    let conditions = with_subqueries.into_iter().map(|condition| {
        condition.transform_up(|part| {
            if !is_subquery(&part) {
                return Ok(Transformed::no(part));
            }
            let side = match [&left, &right].map(|side| is_of(&part, side)) {
                [Ok(true), _] => &mut left,
                [_, Ok(true)] => &mut right,
                _ => {
                    return not_impl_err!(
                        "a subquery with columns of both sides in ON of {} is not supported",
                        join.join_type
                    );
                }
            };
            side.value_of(part, false, names).map(Transformed::yes)
        })
    });
    let conditions = conditions.map(|c| c.map(|c| c.data)).collect::<Result<Vec<_>>>()?;
    let plan = LogicalPlan::Join(Join::try_new(
        Arc::new(left.plan),
        Arc::new(right.plan),
        on,
        conjunction(conditions.into_iter().chain(filters)),
        join.join_type,
        JoinConstraint::On,
        join.null_equality,
        join.null_aware,
    )?);
    Ok(Transformed::yes(LogicalPlanBuilder::from(plan).project(columns)?.build()?))
}

/// Whether a subquery takes its columns from one side of a join, or from further away.
fn is_of(subquery: &Expr, side: &Attached) -> Result<bool> {
    let schema = side.outside.schema();
    let mut columns = subquery.column_refs().into_iter();
    let plan = match subquery {
        Expr::ScalarSubquery(subquery)
        | Expr::Exists(Exists { subquery, .. })
        | Expr::InSubquery(InSubquery { subquery, .. }) => &subquery.subquery,
        _ => return Ok(false),
    };
    let outer = outer_columns(plan)?;
    // A column of neither side is one of a query further out.
    let is_here = |column: &_| resolves(schema, column);
    Ok(columns.all(is_here) && outer.iter().all(|outer| is_here(&outer.column)))
}
