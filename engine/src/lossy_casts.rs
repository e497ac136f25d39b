//! Casts that lose something, kept where they are compared.
//!
//! DataFusion takes `CAST(d AS INT) = 5` for `d = 5`, which is another question where 5.4 becomes 5, and
//! `TRY_CAST(x AS SMALLINT) <> 5` for `x <> 5`, where 100000 becomes NULL (`sql-tests/upstream/casts-in-
//! comparisons.md`). So a cast that does not keep every value apart passes a function that hides it. The
//! others are left alone: `CAST(i AS BIGINT) = 5` is `i = 5`, which zone maps can answer.

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Between, Case, Cast, InList, ScalarFunction, TryCast};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;

use crate::functions::named_cast;
use crate::node_expressions::{Sets, any_part, columns_below, map_parts};

/// Hides the casts. After types are coerced.
#[derive(Debug, Default)]
pub(crate) struct LossyCasts;

impl AnalyzerRule for LossyCasts {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(with_hidden_casts).data()
    }

    fn name(&self) -> &'static str {
        "lossy_casts"
    }
}

fn with_hidden_casts(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if !has_cast(&plan)? {
        return Ok(Transformed::no(plan));
    }
    let schema = columns_below(&plan)?;
    map_parts(plan, Sets::Stay, |expr| compared(expr, &schema))
}

/// Whether a node has anything to look at: most have not.
fn has_cast(plan: &LogicalPlan) -> Result<bool> {
    any_part(plan, |expr| matches!(expr, Expr::Cast(_) | Expr::TryCast(_)))
}

/// A comparison without lossy casts at its surface.
fn compared(mut expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let operands: [Option<&mut Box<Expr>>; 2] = match &mut expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if op.supports_propagation() => {
            [Some(left), Some(right)]
        }
        Expr::InList(InList { expr, .. }) | Expr::Between(Between { expr, .. }) => {
            [Some(expr), None]
        }
        Expr::Case(Case { expr, .. }) => [expr.as_mut(), None],
        _ => [None, None],
    };
    let mut is_changed = false;
    for operand in operands.into_iter().flatten() {
        if is_lossy_cast(operand, schema)? {
            let cast = std::mem::take(operand.as_mut());
            **operand = Expr::ScalarFunction(ScalarFunction::new_udf(named_cast(), vec![cast]));
            is_changed = true;
        }
    }
    Ok(Transformed::new_transformed(expr, is_changed))
}

/// Whether an expression is a cast that is lossy, or a cast of one: DataFusion takes one after the other
/// away. A literal is folded and has no such question.
fn is_lossy_cast(expr: &Expr, schema: &DFSchema) -> Result<bool> {
    let mut expr = expr;
    let mut lossy = false;
    while let Expr::Cast(Cast { expr: inner, field })
    | Expr::TryCast(TryCast { expr: inner, field }) = expr
    {
        lossy |= is_lossy(&inner.get_type(schema)?, field.data_type());
        expr = inner;
    }
    Ok(lossy && !matches!(expr, Expr::Literal(..)))
}

/// Whether a cast gives one value for several, or NULL or an error for some. Only of casts that
/// DataFusion takes away.
fn is_lossy(from: &DataType, to: &DataType) -> bool {
    if from.is_string() {
        return !to.is_string();
    }
    let (Some((from_whole, from_scale)), Some((to_whole, to_scale))) = (digits(from), digits(to))
    else {
        return false;
    };
    let fits = match (from.is_integer(), to.is_integer()) {
        (true, true) => integer_fits(from, to),
        // A decimal of 19 digits is more than a BIGINT.
        (false, true) => from_whole < to_whole && from_scale <= to_scale,
        _ => from_whole <= to_whole && from_scale <= to_scale,
    };
    !fits
}

/// Digits before and behind the point that values of a type may have; of integers and decimals.
pub(crate) fn digits(data_type: &DataType) -> Option<(i16, i16)> {
    use DataType as T;
    Some(match data_type {
        T::Int8 | T::UInt8 => (3, 0),
        T::Int16 | T::UInt16 => (5, 0),
        T::Int32 | T::UInt32 => (10, 0),
        T::Int64 => (19, 0),
        T::UInt64 => (20, 0),
        T::Decimal32(precision, scale)
        | T::Decimal64(precision, scale)
        | T::Decimal128(precision, scale)
        | T::Decimal256(precision, scale) => {
            (i16::from(*precision) - i16::from(*scale), i16::from(*scale))
        }
        _ => return None,
    })
}

fn integer_fits(from: &DataType, to: &DataType) -> bool {
    let bits = |data_type: &DataType| data_type.primitive_width().unwrap_or_default();
    match (from.is_signed_integer(), to.is_signed_integer()) {
        (true, true) | (false, false) => bits(from) <= bits(to),
        (false, true) => bits(from) < bits(to),
        (true, false) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cast_that_keeps_every_value_apart_is_not_lossy() {
        use DataType as T;
        for (from, to, expected) in [
            (T::Int32, T::Int64, false),
            (T::Int64, T::Int32, true),
            (T::UInt32, T::Int64, false),
            (T::UInt64, T::Int64, true),
            (T::Int8, T::UInt64, true),
            (T::Int32, T::Decimal128(12, 2), false),
            (T::Int32, T::Decimal128(11, 2), true),
            (T::Decimal128(9, 2), T::Decimal128(11, 4), false),
            (T::Decimal128(9, 2), T::Decimal128(9, 3), true),
            (T::Decimal128(9, 2), T::Decimal128(9, 1), true),
            (T::Decimal128(9, 2), T::Int64, true),
            (T::Decimal128(9, 0), T::Int64, false),
            (T::Decimal128(19, 0), T::Int64, true),
            (T::Utf8View, T::Int64, true),
            (T::Utf8View, T::Utf8, false),
            (T::Int64, T::Utf8View, false),
            (T::Date32, T::Int64, false),
        ] {
            assert_eq!(is_lossy(&from, &to), expected, "{from} to {to}");
        }
    }
}
