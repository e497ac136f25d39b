//! A domain carried up through a plan.
//!
//! Invariant: the result has the columns of the plan, named and qualified as they were, and those of
//! the domain without a qualifier; and for each row of the domain the rows that the plan would have,
//! were its columns from outside those values.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinConstraint, NullEquality, not_impl_err};
use datafusion::error::Result;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::expr::{AggregateFunction, Case};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Distinct, DistinctOn, Expr, ExprFunctionExt, ExprSchemable, FetchType,
    Join, JoinType, Limit, LogicalPlan, LogicalPlanBuilder, Operator, SkipType, SortExpr,
    SubqueryAlias, Union, Unnest, Values, Window, lit,
};

use super::domain::{Domain, Names};
use super::has_subquery;
use super::outer::{outer_columns, takes, with_columns};

/// A plan with the domain in it.
pub(super) fn push(plan: LogicalPlan, domain: &Domain, names: &mut Names) -> Result<LogicalPlan> {
    if domain.is_empty() {
        return Ok(plan);
    }
    if !depends(&plan, domain)? {
        return crossed(plan, domain);
    }
    let node = with_values(plan, domain)?;
    match node {
        LogicalPlan::Filter(_) => {
            let input = push(node.inputs()[0].clone(), domain, names)?;
            with_input(node, input)
        }
        LogicalPlan::Projection(projection) => {
            let input = push(Arc::unwrap_or_clone(projection.input), domain, names)?;
            let columns = projection.expr.into_iter().chain(own(domain));
            LogicalPlanBuilder::from(input).project(columns)?.build()
        }
        LogicalPlan::SubqueryAlias(alias) => pushed_alias(alias, domain, names),
        LogicalPlan::Aggregate(aggregate) => pushed_aggregate(aggregate, domain, names),
        LogicalPlan::Window(window) => pushed_window(window, domain, names),
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let input = push(Arc::unwrap_or_clone(input), domain, names)?;
            LogicalPlanBuilder::from(input).distinct()?.build()
        }
        LogicalPlan::Distinct(Distinct::On(distinct)) => {
            pushed_distinct_on(distinct, domain, names)
        }
        // Rows of a subquery have no order, but below LIMIT.
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => {
            push(Arc::unwrap_or_clone(sort.input), domain, names)
        }
        LogicalPlan::Limit(limit) => pushed_limit(&limit, domain, names),
        LogicalPlan::Join(join) => pushed_join(join, domain, names),
        LogicalPlan::Union(union) => pushed_union(union, domain, names),
        LogicalPlan::Unnest(unnest) => pushed_unnest(unnest, domain, names),
        LogicalPlan::Values(values) => pushed_values(values, domain, names),
        // A first table that is LATERAL: there is nothing beside it but what is around the whole.
        LogicalPlan::Subquery(lateral) => {
            push(Arc::unwrap_or_clone(lateral.subquery), domain, names)
        }
        other => not_impl_err!(
            "this subquery is not supported: it takes columns from the query around it into {}",
            other.display()
        ),
    }
}

fn depends(plan: &LogicalPlan, domain: &Domain) -> Result<bool> {
    Ok(outer_columns(plan)?.iter().any(|outer| domain.column_of(&outer.column).is_some()))
}

/// A plan that takes nothing from the domain, for each of its rows.
fn crossed(plan: LogicalPlan, domain: &Domain) -> Result<LogicalPlan> {
    LogicalPlanBuilder::from(domain.rows()).cross_join(plan)?.build()
}

/// The domain's columns as expressions.
fn own(domain: &Domain) -> impl Iterator<Item = Expr> {
    domain.columns().map(Expr::Column)
}

/// The columns of a schema as expressions.
fn all(schema: &DFSchema) -> impl Iterator<Item = Expr> {
    schema.columns().into_iter().map(Expr::Column)
}

/// A node with the domain's columns in the place of those from outside, not yet in its inputs.
fn with_values(node: LogicalPlan, domain: &Domain) -> Result<LogicalPlan> {
    if !takes(&node, &|column| domain.column_of(column).is_some())? {
        return Ok(node);
    }
    let preserver = NamePreserver::new(&node);
    node.map_expressions(|expr| {
        let name = preserver.save(&expr);
        let expr = with_columns(expr, &|outer| domain.column_of(outer))?;
        Ok(Transformed::yes(name.restore(expr)))
    })
    .data()
}

fn with_input(node: LogicalPlan, input: LogicalPlan) -> Result<LogicalPlan> {
    let expressions = node.expressions();
    node.with_new_exprs(expressions, vec![input])
}

fn pushed_alias(alias: SubqueryAlias, domain: &Domain, names: &mut Names) -> Result<LogicalPlan> {
    let columns = alias.schema.columns().into_iter().map(Expr::Column);
    let input = push(Arc::unwrap_or_clone(alias.input), domain, names)?;
    let qualified = domain.columns().map(|column| {
        let name = column.name;
        Expr::Column(Column::new(Some(alias.alias.clone()), name.as_str())).alias(name)
    });
    LogicalPlanBuilder::from(input)
        .alias(alias.alias.clone())?
        .project(columns.chain(qualified))?
        .build()
}

fn pushed_aggregate(
    aggregate: Aggregate,
    domain: &Domain,
    names: &mut Names,
) -> Result<LogicalPlan> {
    let Aggregate { input, group_expr, aggr_expr, .. } = aggregate;
    if group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) {
        return not_impl_err!(
            "GROUPING SETS, ROLLUP and CUBE in a subquery that takes columns from around it are not \
             supported"
        );
    }
    if !group_expr.is_empty() {
        let input = push(Arc::unwrap_or_clone(input), domain, names)?;
        let groups = group_expr.into_iter().chain(own(domain));
        let node = Aggregate::try_new(Arc::new(input), groups.collect(), aggr_expr)?;
        return Ok(LogicalPlan::Aggregate(node));
    }
    // There is a row even where there is nothing to aggregate: the domain has a row there, too, with
    // no partner, which the aggregates leave out.
    let present = names.fresh();
    let input = with_absent(input.as_ref(), domain, &present, names)?;
    let is_present = Expr::Column(Column::new_unqualified(present)).is_true();
    let aggregates = aggr_expr.into_iter().map(|expr| of_present(expr, &is_present));
    let aggregates = aggregates.collect::<Result<_>>()?;
    let node = Aggregate::try_new(Arc::new(input), own(domain).collect(), aggregates)?;
    Ok(LogicalPlan::Aggregate(node))
}

/// The rows of a plan, marked as present, and a row that is not for each of the domain without any.
fn with_absent(
    plan: &LogicalPlan,
    domain: &Domain,
    present: &str,
    names: &mut Names,
) -> Result<LogicalPlan> {
    let mark = lit(true).alias(present);
    let marked = |plan: LogicalPlan, columns: &mut dyn Iterator<Item = Expr>| {
        LogicalPlanBuilder::from(plan).project(columns.chain([mark.clone()]))?.build()
    };
    // The domain need not be joined twice where only one filter takes its columns.
    if let LogicalPlan::Filter(filter) = plan
        && !depends(&filter.input, domain)?
        && !has_subquery(&filter.predicate)
    {
        let condition = with_columns(filter.predicate.clone(), &|outer| domain.column_of(outer))?;
        let right = marked(filter.input.as_ref().clone(), &mut all(filter.input.schema()))?;
        return joined(domain.rows(), right, JoinType::Left, vec![], Some(condition));
    }
    let copy = domain.renamed(names)?;
    let columns = plan.schema().columns().into_iter().map(Expr::Column);
    let right = push(plan.clone(), &copy, names)?;
    let right = marked(right, &mut columns.chain(own(&copy)))?;
    let keys = own(domain).zip(own(&copy)).collect();
    joined(domain.rows(), right, JoinType::Left, keys, None)
}

/// A join in which the domains of both sides are equal.
fn joined(
    left: Arc<LogicalPlan>,
    right: LogicalPlan,
    join_type: JoinType,
    keys: Vec<(Expr, Expr)>,
    condition: Option<Expr>,
) -> Result<LogicalPlan> {
    let null_equality = match keys.is_empty() {
        true => NullEquality::NullEqualsNothing,
        false => NullEquality::NullEqualsNull,
    };
    let on = JoinConstraint::On;
    let right = Arc::new(right);
    let join = Join::try_new(left, right, keys, condition, join_type, on, null_equality, false)?;
    Ok(LogicalPlan::Join(join))
}

/// An aggregate of the rows that are present.
fn of_present(expr: Expr, is_present: &Expr) -> Result<Expr> {
    let name = expr.schema_name().to_string();
    let expr = expr.transform_down(|part| match part {
        Expr::AggregateFunction(AggregateFunction { func, mut params }) => {
            let filter = params.filter.take().map(|filter| filter.and(is_present.clone()));
            params.filter = Some(Box::new(filter.unwrap_or_else(|| is_present.clone())));
            let part = Expr::AggregateFunction(AggregateFunction { func, params });
            Ok(Transformed::new(part, true, TreeNodeRecursion::Stop))
        }
        other => Ok(Transformed::no(other)),
    })?;
    let expr = expr.data;
    Ok(if expr.schema_name().to_string() == name { expr } else { expr.alias(name) })
}

fn pushed_window(window: Window, domain: &Domain, names: &mut Names) -> Result<LogicalPlan> {
    let input = push(Arc::unwrap_or_clone(window.input), domain, names)?;
    let windows = window.window_expr.into_iter().map(|expr| {
        let name = expr.schema_name().to_string();
        // DataFusion's rules look below one alias.
        let expr = expr.unalias_nested().data.transform_down(|part| match part {
            Expr::WindowFunction(mut window) => {
                window.params.partition_by.extend(own(domain));
                let part = Expr::WindowFunction(window);
                Ok(Transformed::new(part, true, TreeNodeRecursion::Stop))
            }
            other => Ok(Transformed::no(other)),
        });
        expr.data().map(|expr| expr.alias(name))
    });
    let windows = windows.collect::<Result<Vec<_>>>()?;
    Ok(LogicalPlan::Window(Window::try_new(windows, Arc::new(input))?))
}

/// A plan in which the domain is, and the number of each row among those of its partition.
fn numbered(
    plan: LogicalPlan,
    partition: Vec<Expr>,
    order: Vec<SortExpr>,
    name: &str,
) -> Result<LogicalPlan> {
    let number = row_number().partition_by(partition).order_by(order).build()?.alias(name);
    Ok(LogicalPlan::Window(Window::try_new(vec![number], Arc::new(plan))?))
}

fn pushed_limit(limit: &Limit, domain: &Domain, names: &mut Names) -> Result<LogicalPlan> {
    let (SkipType::Literal(skip), FetchType::Literal(fetch)) =
        (limit.get_skip_type()?, limit.get_fetch_type()?)
    else {
        return not_impl_err!(
            "LIMIT and OFFSET of a subquery that takes columns from around it must be constants"
        );
    };
    let schema = Arc::clone(limit.input.schema());
    let (input, order, above) = ordered(&limit.input);
    let order = order.into_iter().map(|sort| {
        let expr = with_columns(sort.expr, &|outer| domain.column_of(outer))?;
        Ok(SortExpr { expr, ..sort })
    });
    let order = order.collect::<Result<Vec<_>>>()?;
    let name = names.fresh();
    let number = Expr::Column(Column::new_unqualified(name.as_str()));
    let input = push(input, domain, names)?;
    let mut plan = LogicalPlanBuilder::from(numbered(input, own(domain).collect(), order, &name)?);
    for columns in above {
        let columns = columns.into_iter().map(|expr| {
            let name = expr.schema_name().to_string();
            let is_column = matches!(expr, Expr::Column(_) | Expr::Alias(_));
            let expr = with_columns(expr, &|outer| domain.column_of(outer))?;
            Ok(if is_column { expr } else { expr.alias(name) })
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        plan = plan.project(columns.into_iter().chain(own(domain)).chain([number.clone()]))?;
    }
    plan = plan.filter(number.clone().gt(lit(skip as u64)))?;
    if let Some(fetch) = fetch {
        plan = plan.filter(number.lt_eq(lit(skip.saturating_add(fetch) as u64)))?;
    }
    plan.project(all(&schema).chain(own(domain)))?.build()
}

/// The input of a LIMIT below its order, the order, and the projections above it, the lowest first.
fn ordered(input: &LogicalPlan) -> (LogicalPlan, Vec<SortExpr>, Vec<Vec<Expr>>) {
    let mut above = Vec::new();
    let mut below = input;
    while let LogicalPlan::Projection(projection) = below {
        above.insert(0, projection.expr.clone());
        below = &projection.input;
    }
    match below {
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => {
            (sort.input.as_ref().clone(), sort.expr.clone(), above)
        }
        _ => (input.clone(), vec![], vec![]),
    }
}

fn pushed_distinct_on(
    distinct: DistinctOn,
    domain: &Domain,
    names: &mut Names,
) -> Result<LogicalPlan> {
    let DistinctOn { on_expr, select_expr, sort_expr, input, .. } = distinct;
    let input = push(Arc::unwrap_or_clone(input), domain, names)?;
    let name = names.fresh();
    let partition = on_expr.into_iter().chain(own(domain)).collect();
    let plan = numbered(input, partition, sort_expr.unwrap_or_default(), &name)?;
    LogicalPlanBuilder::from(plan)
        .filter(Expr::Column(Column::new_unqualified(name)).eq(lit(1_u64)))?
        .project(select_expr.into_iter().chain(own(domain)))?
        .build()
}

fn pushed_join(join: Join, domain: &Domain, names: &mut Names) -> Result<LogicalPlan> {
    use JoinType::{
        Full, Inner, Left, LeftAnti, LeftMark, LeftSemi, Right, RightAnti, RightMark, RightSemi,
    };
    let is_of_left = depends(&join.left, domain)?;
    let is_of_right = depends(&join.right, domain)?;
    let keeps_left = matches!(join.join_type, Inner | Left | LeftSemi | LeftAnti | LeftMark);
    let keeps_right = matches!(join.join_type, Inner | Right | RightSemi | RightAnti | RightMark);
    let columns: Vec<_> = all(&join.schema).collect();
    let rebuilt = |left: LogicalPlan, right: LogicalPlan, join: Join, condition: Option<Expr>| {
        let condition = join.filter.into_iter().chain(condition).reduce(Expr::and);
        let join = Join::try_new(
            Arc::new(left),
            Arc::new(right),
            join.on,
            condition,
            join.join_type,
            JoinConstraint::On,
            join.null_equality,
            join.null_aware,
        )?;
        Ok(LogicalPlan::Join(join))
    };
    if keeps_left && !is_of_right {
        let left = push(join.left.as_ref().clone(), domain, names)?;
        let right = join.right.as_ref().clone();
        return rebuilt(left, right, join, None);
    }
    if keeps_right && !is_of_left {
        let left = join.left.as_ref().clone();
        let right = push(join.right.as_ref().clone(), domain, names)?;
        return rebuilt(left, right, join, None);
    }
    let copy = domain.renamed(names)?;
    let left = push(join.left.as_ref().clone(), domain, names)?;
    let right = push(join.right.as_ref().clone(), &copy, names)?;
    let is_same = own(domain).zip(own(&copy)).map(|(left, right)| {
        Expr::BinaryExpr(BinaryExpr {
            left: Box::new(left),
            op: Operator::IsNotDistinctFrom,
            right: Box::new(right),
        })
    });
    let is_same = is_same.reduce(Expr::and);
    let join_type = join.join_type;
    let plan = rebuilt(left, right, join, is_same)?;
    let values = domain.columns().zip(domain.columns().zip(copy.columns())).map(
        |(column, (left, right))| {
            let (left, right) = (Expr::Column(left), Expr::Column(right));
            match join_type {
                Full => coalesce(vec![left, right]).alias(column.name),
                _ if keeps_left => left,
                _ => right.alias(column.name),
            }
        },
    );
    LogicalPlanBuilder::from(plan).project(columns.into_iter().chain(values))?.build()
}

fn pushed_union(union: Union, domain: &Domain, names: &mut Names) -> Result<LogicalPlan> {
    let branches = union.inputs.into_iter().map(|branch| {
        let columns = branch.schema().columns().into_iter().map(Expr::Column);
        let branch = push(Arc::unwrap_or_clone(branch), domain, names)?;
        let branch = LogicalPlanBuilder::from(branch).project(columns.chain(own(domain)))?;
        Ok(Arc::new(branch.build()?))
    });
    let whole = Union::try_new_with_loose_types(branches.collect::<Result<_>>()?)?;
    // Qualified as the columns were.
    let columns = whole.schema.columns().into_iter().zip(union.schema.iter());
    let columns = columns.map(|(column, (qualifier, field))| {
        Expr::Column(column).alias_qualified(qualifier.cloned(), field.name().as_str())
    });
    let columns: Vec<_> = columns.chain(own(domain)).collect();
    LogicalPlanBuilder::from(LogicalPlan::Union(whole)).project(columns)?.build()
}

fn pushed_unnest(unnest: Unnest, domain: &Domain, names: &mut Names) -> Result<LogicalPlan> {
    let input = push(Arc::unwrap_or_clone(unnest.input), domain, names)?;
    LogicalPlanBuilder::from(input)
        .unnest_columns_with_options(unnest.exec_columns, unnest.options)?
        .build()
}

/// Rows of VALUES with columns from outside: each is a branch of a CASE that all of them ask, for each row
/// around.
const VALUES_MAX: usize = 256;

/// The rows of VALUES for each row of the domain, told apart by their number.
fn pushed_values(values: Values, domain: &Domain, names: &mut Names) -> Result<LogicalPlan> {
    if values.values.len() > VALUES_MAX {
        return not_impl_err!(
            "this subquery is not supported: it takes columns from the query around it into more \
             than {VALUES_MAX} rows of VALUES"
        );
    }
    let name = names.fresh();
    let numbers = (0_u64..).zip(&values.values).map(|(number, _)| vec![lit(number)]).collect();
    let numbers = LogicalPlanBuilder::values(numbers)?;
    let number = numbers.schema().columns().into_iter().map(Expr::Column);
    let numbers = numbers.project(number.map(|number| number.alias(name.as_str())))?.build()?;
    let rows = crossed(numbers, domain)?;
    let columns = values.schema.fields().iter().enumerate().map(|(position, field)| {
        let of_rows = (0_u64..).zip(&values.values).map(|(number, row)| {
            let value = row[position].clone().cast_to(field.data_type(), rows.schema())?;
            Ok((Box::new(lit(number)), Box::new(value)))
        });
        let number = Expr::Column(Column::new_unqualified(name.as_str()));
        let value = Case::new(Some(Box::new(number)), of_rows.collect::<Result<_>>()?, None);
        Ok(Expr::Case(value).alias(field.name().as_str()))
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    LogicalPlanBuilder::from(rows).project(columns.into_iter().chain(own(domain)))?.build()
}
