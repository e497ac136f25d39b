//! Whether a plan has the same rows each time that it runs on the same tables.
//!
//! A domain is computed beside the rows that it is of. If the two are read apart and differ, rows find
//! no partner and have no value, silently. So what may differ is refused: LIMIT without an order that
//! leaves no choice, functions like `random()`, sums of floats, whose last digits depend on the order
//! of rows.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{
    Distinct, Expr, ExprSchemable, LogicalPlan, WindowFrame, WindowFrameUnits,
    WindowFunctionDefinition,
};
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::{Optimizer, OptimizerContext, OptimizerRule};

use crate::subqueries::single_row;

/// Aggregates whose result does not depend on the order of rows.
const UNORDERED: [&str; 13] = [
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "count",
    "cume_dist",
    "dense_rank",
    "max",
    "min",
    "percent_rank",
    "rank",
    "regr_count",
];

/// Aggregates of exact numbers whose result does not depend on the order of rows.
const UNORDERED_IF_EXACT: [&str; 2] = ["avg", "sum"];

/// What keeps a plan from having the same rows again; `None` if nothing does.
pub(super) fn unrepeatable(plan: &LogicalPlan) -> Result<Option<String>> {
    if first_reason(plan)?.is_none() {
        return Ok(None);
    }
    // A column that nothing asks for does not count.
    let rule: Arc<dyn OptimizerRule + Send + Sync> = Arc::new(OptimizeProjections::new());
    let asked_for = Optimizer::with_rules(vec![rule]).optimize(
        plan.clone(),
        &OptimizerContext::new().with_max_passes(1),
        |_, _| {},
    )?;
    first_reason(&asked_for)
}

fn first_reason(plan: &LogicalPlan) -> Result<Option<String>> {
    let mut why = None;
    plan.apply_with_subqueries(|node| {
        why = reason(node)?;
        Ok(if why.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(why)
}

fn reason(node: &LogicalPlan) -> Result<Option<String>> {
    let of_node = match node {
        LogicalPlan::Limit(_) => Some("LIMIT"),
        LogicalPlan::Sort(sort) if sort.fetch.is_some() => Some("LIMIT"),
        LogicalPlan::Distinct(Distinct::On(_)) => Some("DISTINCT ON"),
        LogicalPlan::Extension(_) => Some("an unknown operator"),
        _ => None,
    };
    let mut why = of_node.map(str::to_owned);
    node.apply_expressions(|expr| {
        expr.apply(|part| {
            let found = match part {
                Expr::AggregateFunction(aggregate) => {
                    let arguments = &aggregate.params.args;
                    of_aggregate(aggregate.func.name(), arguments, node)?
                }
                // Which rows are in a frame of rows depends on the order of peers.
                Expr::WindowFunction(window) if is_of_rows(&window.params.window_frame) => {
                    Some("a window over ROWS".to_owned())
                }
                Expr::WindowFunction(window) => match &window.fun {
                    WindowFunctionDefinition::AggregateUDF(function) => {
                        of_aggregate(function.name(), &window.params.args, node)?
                    }
                    WindowFunctionDefinition::WindowUDF(function) => {
                        of_aggregate(function.name(), &[], node)?
                    }
                },
                _ if part.is_volatile_node() => Some("a function like random()".to_owned()),
                _ => None,
            };
            why = why.take().or(found);
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(why)
}

fn is_of_rows(frame: &WindowFrame) -> bool {
    frame.units == WindowFrameUnits::Rows
        && !(frame.start_bound.is_unbounded() && frame.end_bound.is_unbounded())
}

fn of_aggregate(name: &str, arguments: &[Expr], node: &LogicalPlan) -> Result<Option<String>> {
    if UNORDERED.contains(&name) || name == single_row().name() {
        return Ok(None);
    }
    if UNORDERED_IF_EXACT.contains(&name) {
        let input = node.inputs()[0].schema();
        let mut types = arguments.iter().map(|argument| argument.get_type(input.as_ref()));
        let is_exact = types.try_fold(true, |exact, data_type| {
            data_type.map(|t| exact && !matches!(t, DataType::Float32 | DataType::Float64))
        })?;
        if is_exact {
            return Ok(None);
        }
    }
    Ok(Some(format!("{name}()")))
}
