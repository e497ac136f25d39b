//! Decimals that meet floats are floats.
//!
//! DataFusion compares a DECIMAL and a DOUBLE as DECIMAL(30, 15): 1e-20 is 0 then, and 1e30, infinities
//! and NaN are errors (`sql-tests/upstream/decimals-beside-floats.md`). In SQL the DOUBLE is what both
//! become. So where operands must have one type, and are of both kinds, the decimals are cast, before
//! DataFusion finds a type for them:
//!
//! ```text
//! d < f         CAST(d AS DOUBLE) < f
//! d < 0.05      d < 0.05 as DECIMAL       a number that is written out is meant exactly (`literals`)
//! ```
//!
//! Operands are those of comparisons, IN, BETWEEN, CASE and some functions here, and in `plans`
//! columns of UNIONs, keys of joins and subqueries. Arithmetic is left to DataFusion, which computes
//! with floats. Not covered: rows of VALUES, and what is inside of lists and structs.

mod literals;
mod plans;

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::expr::{
    Between, Case, Cast, InList, InSubquery, ScalarFunction, SetComparison,
};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;

use crate::node_expressions::{Sets, any_part, columns_below, map_parts};

/// Casts decimals beside floats. Before types are coerced.
#[derive(Debug, Default)]
pub(crate) struct DecimalsBesideFloats;

impl AnalyzerRule for DecimalsBesideFloats {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let mut is_changed = false;
        let rewritten = plan.transform_up_with_subqueries(|plan| {
            // A column may have another type than when the plan above it was made.
            let plan = if is_changed { plan.recompute_schema()? } else { plan };
            let rewritten = with_one_kind(plan)?;
            if !rewritten.transformed {
                return Ok(rewritten);
            }
            is_changed = true;
            rewritten.map_data(LogicalPlan::recompute_schema)
        })?;
        Ok(rewritten.data)
    }

    fn name(&self) -> &'static str {
        "decimals_beside_floats"
    }
}

fn with_one_kind(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let plan = match plan {
        LogicalPlan::Union(union) => return plans::union_of_one_kind(union),
        LogicalPlan::Join(join) => plans::join_on_one_kind(join)?,
        other => Transformed::no(other),
    };
    plan.transform_data(|plan| {
        if !has_operands(&plan)? {
            return Ok(Transformed::no(plan));
        }
        let schema = columns_below(&plan)?;
        map_parts(plan, Sets::Stay, |expr| of_one_kind(expr, &schema))
    })
}

/// Whether a node has anything to look at: many have not.
fn has_operands(plan: &LogicalPlan) -> Result<bool> {
    any_part(plan, |expr| match expr {
        Expr::BinaryExpr(binary) => is_comparison(binary.op),
        Expr::ScalarFunction(call) => is_of_one_type(call),
        Expr::Between(_) | Expr::InList(_) | Expr::Case(_) => true,
        Expr::InSubquery(_) | Expr::SetComparison(_) => true,
        _ => false,
    })
}

fn is_comparison(operator: Operator) -> bool {
    use Operator as O;
    matches!(
        operator,
        O::Eq
            | O::NotEq
            | O::Lt
            | O::LtEq
            | O::Gt
            | O::GtEq
            | O::IsDistinctFrom
            | O::IsNotDistinctFrom
    )
}

/// Whether the arguments of a function, or the last two of them, become one type.
fn is_of_one_type(call: &ScalarFunction) -> bool {
    const FUNCTIONS: [&str; 8] =
        ["coalesce", "greatest", "ifnull", "least", "make_array", "nullif", "nvl", "nvl2"];
    FUNCTIONS.contains(&call.name())
}

/// An expression whose operands are of one kind, if they were of both.
fn of_one_kind(mut expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let is_changed = match &mut expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(*op) => {
            reconcile(&mut [left, right], schema)?
        }
        Expr::Between(Between { expr, low, high, .. }) => {
            reconcile(&mut [expr, low, high], schema)?
        }
        Expr::InList(InList { expr, list, .. }) => {
            let mut operands: Vec<&mut Expr> = list.iter_mut().collect();
            operands.push(expr);
            reconcile(&mut operands, schema)?
        }
        Expr::Case(Case { expr, when_then_expr, else_expr }) => {
            let (mut compared, mut given) = (Vec::new(), Vec::new());
            for (when, then) in when_then_expr {
                compared.push(when.as_mut());
                given.push(then.as_mut());
            }
            given.extend(else_expr.as_deref_mut());
            let given = reconcile(&mut given, schema)?;
            // Without an operand they are conditions.
            match expr {
                Some(operand) => {
                    compared.push(operand);
                    reconcile(&mut compared, schema)? || given
                }
                None => given,
            }
        }
        Expr::ScalarFunction(call) if is_of_one_type(call) => {
            let skipped = usize::from(call.name() == "nvl2");
            let mut operands: Vec<&mut Expr> = call.args.iter_mut().skip(skipped).collect();
            reconcile(&mut operands, schema)?
        }
        Expr::InSubquery(InSubquery { expr, subquery, .. })
        | Expr::SetComparison(SetComparison { expr, subquery, .. }) => {
            plans::operand_and_subquery(expr, subquery, schema)?
        }
        _ => false,
    };
    Ok(Transformed::new_transformed(expr, is_changed))
}

/// Makes operands of both kinds operands of one. What has no type is for type coercion to refuse.
fn reconcile(operands: &mut [&mut Expr], schema: &DFSchema) -> Result<bool> {
    let types: Result<Vec<_>> = operands.iter().map(|operand| operand.get_type(schema)).collect();
    types.map_or(Ok(false), |types| reconcile_typed(operands, &types))
}

/// As [`reconcile`], of operands of these types.
fn reconcile_typed(operands: &mut [&mut Expr], types: &[DataType]) -> Result<bool> {
    if !types.iter().any(DataType::is_decimal) || !types.iter().any(DataType::is_floating) {
        return Ok(false);
    }
    if !literals::make_exact(operands, types)? {
        for (operand, data_type) in operands.iter_mut().zip(types) {
            if data_type.is_decimal() {
                let decimal = Box::new(std::mem::take(*operand));
                **operand = Expr::Cast(Cast::new(decimal, DataType::Float64));
            }
        }
    }
    Ok(true)
}
