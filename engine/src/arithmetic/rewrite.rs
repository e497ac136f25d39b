//! What replaces integer operators by checked functions: two rules, and a planner of constants.
//!
//! Invariant: no integer `+`, `-`, `*` or unary minus that DataFusion could fold or run is left
//! after either rule, but for `sum(x + 1)` after the first: nothing can fold what has a column, and
//! DataFusion's rewrite of many such sums knows operators only.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::expr::{AggregateFunction, ScalarFunction};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, ScalarUDF};
use datafusion::optimizer::analyzer::AnalyzerRule;
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::operators::{CheckedArithmetic, Operation};
use crate::node_expressions::{Sets, any_part, columns_below, map_parts};

/// Plans constants as functions at once: DataFusion folds those in the arguments of table functions
/// before it has a plan.
#[derive(Debug)]
pub(super) struct CheckConstants;

impl ExprPlanner for CheckConstants {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        _: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let operation = match expr.op {
            BinaryOperator::Plus => Operation::Add,
            BinaryOperator::Minus => Operation::Subtract,
            BinaryOperator::Multiply => Operation::Multiply,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let is_constant = |expr: &Expr| match expr {
            Expr::Literal(ScalarValue::Int64(Some(_)), _) => true,
            other => is_checked(other),
        };
        Ok(match is_constant(&expr.left) && is_constant(&expr.right) {
            true => PlannerResult::Planned(call(operation, vec![expr.left, expr.right])),
            false => PlannerResult::Original(expr),
        })
    }
}

/// Runs once per plan, after type coercion and before anything folds constants.
#[derive(Debug)]
pub(super) struct CheckBeforeFolding;

impl AnalyzerRule for CheckBeforeFolding {
    fn name(&self) -> &'static str {
        "check_integer_arithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let check = |plan| check_node(plan, LinearSums::Leave);
        plan.transform_up_with_subqueries(check).map(|transformed| transformed.data)
    }
}

/// The last rule of every optimizer pass, for what the rules before it made.
#[derive(Debug)]
pub(super) struct CheckAll;

impl OptimizerRule for CheckAll {
    fn name(&self) -> &'static str {
        "check_all_integer_arithmetic"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        check_node(plan, LinearSums::Check)
    }
}

/// What becomes of `sum(x + 1)`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LinearSums {
    Leave,
    Check,
}

fn check_node(plan: LogicalPlan, linear_sums: LinearSums) -> Result<Transformed<LogicalPlan>> {
    if !has_arithmetic(&plan)? {
        return Ok(Transformed::no(plan));
    }
    let schema = columns_below(&plan)?;
    // The functions are named like the operators, except in the ORDER BY of a window.
    map_parts(plan, Sets::Change, |expr| match expr {
        Expr::AggregateFunction(function) if linear_sums == LinearSums::Leave => {
            Ok(leave_linear_sum(function))
        }
        other => check(other, &schema),
    })
}

/// Whether a node has anything to look at: most have not.
fn has_arithmetic(plan: &LogicalPlan) -> Result<bool> {
    any_part(plan, |expr| match expr {
        Expr::BinaryExpr(binary) => Operation::of(binary.op).is_some(),
        Expr::Negative(_) => true,
        _ => false,
    })
}

fn check(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            if let Some(operation) = Operation::of(op) {
                let data_type = operand_type(&left, schema)?;
                // Coercion leaves two integers of one type; dates and decimals are not for us.
                if data_type.is_integer() && operand_type(&right, schema)? == data_type {
                    return Ok(Transformed::yes(call(operation, vec![*left, *right])));
                }
            }
            Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })))
        }
        Expr::Negative(operand) if operand_type(&operand, schema)?.is_signed_integer() => {
            Ok(Transformed::yes(call(Operation::Negate, vec![*operand])))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// The functions that this module puts into plans, in the order of [`Operation::ALL`].
static FUNCTIONS: LazyLock<[Arc<ScalarUDF>; 4]> = LazyLock::new(|| {
    Operation::ALL
        .map(|operation| Arc::new(ScalarUDF::new_from_impl(CheckedArithmetic::new(operation))))
});

fn call(operation: Operation, args: Vec<Expr>) -> Expr {
    let function = Arc::clone(&FUNCTIONS[operation as usize]);
    Expr::ScalarFunction(ScalarFunction::new_udf(function, args))
}

/// Whether an expression came from [`call`].
pub(super) fn is_checked(expr: &Expr) -> bool {
    match expr {
        Expr::ScalarFunction(function) => {
            FUNCTIONS.iter().any(|known| Arc::ptr_eq(known, &function.func))
        }
        _ => false,
    }
}

/// An expression's type. What came from [`call`] has the type of its first operand, and so on: a sum
/// of thousands of terms, as generators write it, must not cost the square of their number.
pub(super) fn operand_type(expr: &Expr, schema: &DFSchema) -> Result<DataType> {
    let mut expr = expr;
    while let Expr::ScalarFunction(function) = expr
        && is_checked(expr)
        && let Some(first) = function.args.first()
    {
        expr = first;
    }
    expr.get_type(schema)
}

/// `sum(checked_add(x, 1))` as `sum(x + 1)`.
fn leave_linear_sum(mut function: AggregateFunction) -> Transformed<Expr> {
    let is_sum = function.func.name() == "sum" && function.params.args.len() == 1;
    let argument = function.params.args.first_mut();
    match argument {
        Some(argument) if is_sum => match linear(argument) {
            Some(operator) => {
                *argument = operator;
                Transformed::yes(Expr::AggregateFunction(function))
            }
            None => Transformed::no(Expr::AggregateFunction(function)),
        },
        _ => Transformed::no(Expr::AggregateFunction(function)),
    }
}

/// The addition of a literal and something that has a column, as an operator.
fn linear(expr: &Expr) -> Option<Expr> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else { return None };
    let [left, right] = args.as_slice() else { return None };
    let linear = func.name() == Operation::Add.name()
        && (left.as_literal().is_some() && right.any_column_refs()
            || right.as_literal().is_some() && left.any_column_refs());
    linear.then(|| {
        let (left, right) = (Box::new(left.clone()), Box::new(right.clone()));
        Expr::BinaryExpr(BinaryExpr::new(left, Operator::Plus, right))
    })
}
