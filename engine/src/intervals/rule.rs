//! The rule that finds where intervals are compared.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, not_impl_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{
    Between, Case, InList, InSubquery, ScalarFunction, SetComparison, Sort, WindowFunction,
};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    BinaryExpr, Distinct, Expr, ExprSchemable, JoinConstraint, LogicalPlan, LogicalPlanBuilder,
    ScalarUDF, Subquery, WindowFunctionDefinition, when,
};
use datafusion::optimizer::AnalyzerRule;

use super::correlated::by_columns;
use super::groups::{distinct_rows, grouped};
use super::justified::justified;
use super::{has_interval, is_compared_by_length, rows};
use crate::node_expressions::{any_part, columns_below};

/// Functions that compare what is in lists.
const COMPARE_ITEMS: [&str; 18] = [
    "array_distinct",
    "array_except",
    "array_has",
    "array_has_all",
    "array_has_any",
    "array_intersect",
    "array_max",
    "array_min",
    "array_position",
    "array_positions",
    "array_remove",
    "array_remove_all",
    "array_remove_n",
    "array_replace",
    "array_replace_all",
    "array_replace_n",
    "array_sort",
    "array_union",
];

/// Compares intervals by their lengths. After types are coerced.
#[derive(Debug, Default)]
pub(crate) struct ComparedIntervals;

impl AnalyzerRule for ComparedIntervals {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(compared_in).data()
    }

    fn name(&self) -> &'static str {
        "compared_intervals"
    }
}

fn compared_in(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let compared = match plan {
        LogicalPlan::Distinct(Distinct::All(input)) => {
            return Ok(match distinct_rows(&input)? {
                Some(groups) => Transformed::yes(groups),
                None => Transformed::no(LogicalPlan::Distinct(Distinct::All(input))),
            });
        }
        LogicalPlan::RecursiveQuery(query) => {
            let mut fields = query.schema.fields().iter();
            if query.is_distinct && fields.any(|field| has_interval(field.data_type())) {
                return not_impl_err!("UNION of recursive rows with intervals is not supported");
            }
            return Ok(Transformed::no(LogicalPlan::RecursiveQuery(query)));
        }
        LogicalPlan::Sort(mut sort) => {
            let schema = Arc::clone(sort.input.schema());
            let mut is_changed = false;
            for key in &mut sort.expr {
                let expr = std::mem::take(&mut key.expr);
                let compared = expr.transform_up(|expr| compared_by_length(expr, &schema))?;
                is_changed |= compared.transformed;
                key.expr = compared.data;
            }
            is_changed |= sort_keys(&mut sort.expr, &schema)?;
            Transformed::new_transformed(LogicalPlan::Sort(sort), is_changed)
        }
        LogicalPlan::Distinct(Distinct::On(mut distinct)) => {
            let schema = Arc::clone(distinct.input.schema());
            for key in &mut distinct.on_expr {
                key_by_length(key, &schema)?;
            }
            sort_keys(distinct.sort_expr.as_deref_mut().unwrap_or_default(), &schema)?;
            in_expressions(LogicalPlan::Distinct(Distinct::On(distinct)))?
        }
        LogicalPlan::Join(mut join) => {
            for (left, right) in &mut join.on {
                let is_changed = key_by_length(left, join.left.schema())?
                    | key_by_length(right, join.right.schema())?;
                if is_changed {
                    // Of USING, DataFusion wants columns.
                    join.join_constraint = JoinConstraint::On;
                }
            }
            in_expressions(LogicalPlan::Join(join))?
        }
        other => in_expressions(other)?,
    };
    compared.transform_data(|plan| match &plan {
        LogicalPlan::Aggregate(aggregate) => Ok(match grouped(aggregate)? {
            Some(groups) => Transformed::yes(groups),
            None => Transformed::no(plan),
        }),
        LogicalPlan::Filter(filter) => Ok(match by_columns(filter)? {
            Some(filtered) => Transformed::yes(filtered),
            None => Transformed::no(plan),
        }),
        _ => Ok(Transformed::no(plan)),
    })
}

/// A node whose expressions compare lengths.
fn in_expressions(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if !may_compare(&plan)? {
        return Ok(Transformed::no(plan));
    }
    let schema = columns_below(&plan)?;
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        let with_name = |expr: Expr| {
            let name = names.save(&expr);
            let compared = expr.transform_up(|expr| compared_by_length(expr, &schema))?;
            Ok(compared.update_data(|expr| name.restore(expr)))
        };
        match expr {
            Expr::GroupingSet(_) => expr.map_children(with_name),
            other => with_name(other),
        }
    })
}

/// Whether a node has anything to look at: many have columns only.
fn may_compare(plan: &LogicalPlan) -> Result<bool> {
    any_part(plan, |expr| {
        matches!(
            expr,
            Expr::BinaryExpr(_)
                | Expr::Between(_)
                | Expr::InList(_)
                | Expr::Case(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_)
                | Expr::AggregateFunction(_)
                | Expr::WindowFunction(_)
                | Expr::ScalarFunction(_)
        )
    })
}

/// Makes keys of an order lengths.
fn sort_keys(keys: &mut [Sort], schema: &DFSchema) -> Result<bool> {
    let mut is_changed = false;
    for key in keys {
        is_changed |= key_by_length(&mut key.expr, schema)?;
    }
    Ok(is_changed)
}

/// Makes a key or an operand that is an interval its length.
fn key_by_length(key: &mut Expr, schema: &DFSchema) -> Result<bool> {
    let is_interval = is_compared_by_length(&key.get_type(schema)?)?;
    if is_interval {
        *key = justified(std::mem::take(key));
    }
    Ok(is_interval)
}

fn keys_by_length<'a>(
    keys: impl IntoIterator<Item = &'a mut Expr>,
    schema: &DFSchema,
) -> Result<bool> {
    let mut is_changed = false;
    for key in keys {
        is_changed |= key_by_length(key, schema)?;
    }
    Ok(is_changed)
}

/// One comparison, function or window. Its operands are done.
fn compared_by_length(mut expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let is_changed = match &mut expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if op.supports_propagation() => {
            keys_by_length([left.as_mut(), right.as_mut()], schema)?
        }
        Expr::Between(Between { expr, low, high, .. }) => {
            keys_by_length([expr.as_mut(), low.as_mut(), high.as_mut()], schema)?
        }
        Expr::InList(InList { expr, list, .. }) => {
            keys_by_length(std::iter::once(expr.as_mut()).chain(list), schema)?
        }
        Expr::Case(Case { expr: Some(expr), when_then_expr, .. }) => {
            let values = when_then_expr.iter_mut().map(|(value, _)| value.as_mut());
            keys_by_length(std::iter::once(expr.as_mut()).chain(values), schema)?
        }
        Expr::InSubquery(InSubquery { expr, subquery, .. })
        | Expr::SetComparison(SetComparison { expr, subquery, .. }) => {
            let is_changed = key_by_length(expr, schema)?;
            if is_changed {
                column_by_length(subquery)?;
            }
            is_changed
        }
        Expr::AggregateFunction(call) => {
            let name = call.func.name();
            let arguments =
                arguments_by_length(name, call.params.distinct, &mut call.params.args, schema)?;
            sort_keys(&mut call.params.order_by, schema)? | arguments
        }
        Expr::WindowFunction(call) => window_by_length(call, schema)?,
        Expr::ScalarFunction(call) => return function_by_length(expr_of(call), schema),
        _ => false,
    };
    Ok(Transformed::new_transformed(expr, is_changed))
}

/// Takes a call out of its place.
fn expr_of(call: &mut ScalarFunction) -> ScalarFunction {
    ScalarFunction { func: Arc::clone(&call.func), args: std::mem::take(&mut call.args) }
}

fn window_by_length(call: &mut WindowFunction, schema: &DFSchema) -> Result<bool> {
    let params = &mut call.params;
    let arguments = match &call.fun {
        WindowFunctionDefinition::AggregateUDF(function) => {
            arguments_by_length(function.name(), params.distinct, &mut params.args, schema)?
        }
        WindowFunctionDefinition::WindowUDF(_) => false,
    };
    let partitions = keys_by_length(&mut params.partition_by, schema)?;
    Ok(sort_keys(&mut params.order_by, schema)? | partitions | arguments)
}

/// Makes arguments of an aggregate lengths, if it compares them and does not give one.
fn arguments_by_length(
    function: &str,
    is_distinct: bool,
    arguments: &mut [Expr],
    schema: &DFSchema,
) -> Result<bool> {
    match function {
        "min" | "max" => {
            for argument in arguments {
                is_compared_by_length(&argument.get_type(schema)?)?;
            }
            Ok(false)
        }
        "approx_distinct" => keys_by_length(arguments, schema),
        "count" if is_distinct => keys_by_length(arguments, schema),
        _ if is_distinct => {
            for argument in arguments {
                if has_interval(&argument.get_type(schema)?) {
                    return not_impl_err!("{function}(DISTINCT ...) of intervals is not supported");
                }
            }
            Ok(false)
        }
        _ => Ok(false),
    }
}

/// A scalar function that compares, in other words.
fn function_by_length(call: ScalarFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let name = call.name().to_owned();
    let replaced: fn() -> Arc<ScalarUDF> = match name.as_str() {
        "greatest" => rows::greatest,
        "least" => rows::least,
        "nullif" => return nullif(call, schema),
        name if COMPARE_ITEMS.contains(&name) => {
            for argument in &call.args {
                if has_interval(&argument.get_type(schema)?) {
                    return not_impl_err!("function {name} of intervals is not supported");
                }
            }
            return Ok(Transformed::no(Expr::ScalarFunction(call)));
        }
        _ => return Ok(Transformed::no(Expr::ScalarFunction(call))),
    };
    for argument in &call.args {
        if is_compared_by_length(&argument.get_type(schema)?)? {
            let call = ScalarFunction::new_udf(replaced(), call.args);
            return Ok(Transformed::yes(Expr::ScalarFunction(call)));
        }
    }
    Ok(Transformed::no(Expr::ScalarFunction(call)))
}

fn nullif(call: ScalarFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let [left, right] = call.args.as_slice() else {
        return Ok(Transformed::no(Expr::ScalarFunction(call)));
    };
    let is_interval = is_compared_by_length(&left.get_type(schema)?)?
        && is_compared_by_length(&right.get_type(schema)?)?;
    if !is_interval {
        return Ok(Transformed::no(Expr::ScalarFunction(call)));
    }
    // The operand is there twice.
    let is_long = left.exists(|part| Ok(matches!(part, Expr::Case(_))))? || left.is_volatile();
    if is_long {
        return not_impl_err!(
            "nullif of an interval that is a CASE, a nullif or volatile is not supported"
        );
    }
    let is_same = justified(left.clone()).eq(justified(right.clone()));
    let is_other = is_same.is_not_true();
    Ok(Transformed::yes(when(is_other, left.clone()).end()?))
}

/// Makes the only column of a subquery its length.
fn column_by_length(subquery: &mut Subquery) -> Result<()> {
    let plan = &subquery.subquery;
    let lengths = plan.schema().columns().into_iter().map(|column| {
        let name = column.name.clone();
        justified(Expr::Column(column)).alias(name)
    });
    let lengths = lengths.collect::<Vec<_>>();
    let plan = LogicalPlanBuilder::from(Arc::clone(plan)).project(lengths)?.build()?;
    subquery.subquery = Arc::new(plan);
    Ok(())
}
