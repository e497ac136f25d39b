//! What may be computed of rows that a join would leave out: only what fails for none.

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{BinaryExpr, Case};
use datafusion::logical_expr::{Expr, ExprSchemable, Operator};

/// Whether an expression has a value for every row, and is an error for none.
pub(super) fn cannot_fail(expr: &Expr, schema: &DFSchema) -> Result<bool> {
    Ok(match expr {
        Expr::Column(_) | Expr::Literal(..) => true,
        Expr::Alias(alias) => cannot_fail(&alias.expr, schema)?,
        Expr::Not(inner) | Expr::IsNull(inner) | Expr::IsNotNull(inner) => {
            cannot_fail(inner, schema)?
        }
        Expr::Cast(cast) => {
            let from = cast.expr.get_type(schema)?;
            has_all_of(cast.field.data_type(), &from) && cannot_fail(&cast.expr, schema)?
        }
        Expr::BinaryExpr(binary) => {
            is_total(binary, expr, schema)?
                && cannot_fail(&binary.left, schema)?
                && cannot_fail(&binary.right, schema)?
        }
        Expr::Case(case) => case_cannot_fail(case, schema)?,
        _ => false,
    })
}

fn case_cannot_fail(case: &Case, schema: &DFSchema) -> Result<bool> {
    let branches = case.when_then_expr.iter().flat_map(|(when, then)| [when, then]);
    let others = case.expr.iter().chain(&case.else_expr);
    for part in branches.chain(others) {
        if !cannot_fail(part, schema)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether an operator has a result for all operands. Those of integers that have not are functions of ours here.
fn is_total(binary: &BinaryExpr, expr: &Expr, schema: &DFSchema) -> Result<bool> {
    use Operator as O;
    // With all digits taken, the result may need more.
    let has_room = || {
        let result = expr.get_type(schema)?;
        Ok(matches!(result, DataType::Decimal128(digits, _) if digits < DECIMAL128_MAX_PRECISION))
    };
    match binary.op {
        O::Eq | O::NotEq | O::Lt | O::LtEq | O::Gt | O::GtEq | O::And | O::Or => Ok(true),
        O::IsDistinctFrom | O::IsNotDistinctFrom => Ok(true),
        O::Plus | O::Minus | O::Multiply => has_room(),
        O::Divide if is_not_zero(&binary.right) => has_room(),
        _ => Ok(false),
    }
}

fn is_not_zero(expr: &Expr) -> bool {
    let Some(value) = expr.as_literal() else { return false };
    let zero = ScalarValue::new_zero(&value.data_type());
    !value.is_null() && zero.is_ok_and(|zero| zero != *value)
}

/// Whether a type has all values of another.
fn has_all_of(wide: &DataType, of: &DataType) -> bool {
    use DataType as T;
    let digits = match of {
        T::Int8 => Some(3),
        T::Int16 => Some(5),
        T::Int32 => Some(10),
        T::Int64 => Some(19),
        _ => None,
    };
    match (of, wide) {
        (of, wide) if of == wide => true,
        (T::Int8, T::Int16 | T::Int32 | T::Int64)
        | (T::Int16, T::Int32 | T::Int64)
        | (T::Int32, T::Int64)
        | (T::Utf8 | T::Utf8View | T::LargeUtf8, T::Utf8View | T::LargeUtf8) => true,
        (T::Decimal128(digits, scale), T::Decimal128(more, finer)) => {
            let whole = |digits: &u8, scale: &i8| i16::from(*digits) - i16::from(*scale);
            finer >= scale && whole(more, finer) >= whole(digits, scale)
        }
        (_, T::Decimal128(more, scale)) => {
            digits.is_some_and(|digits| i16::from(*more) - i16::from(*scale) >= digits)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};
    use datafusion::logical_expr::expr_fn::{cast, when};
    use datafusion::prelude::{col, lit};

    use super::*;

    #[track_caller]
    fn check(expr: Expr, expected: bool) {
        let fields = [
            Field::new("price", DataType::Decimal128(7, 2), true),
            Field::new("large", DataType::Decimal128(38, 2), true),
            Field::new("count", DataType::Int64, true),
            Field::new("name", DataType::Utf8View, true),
        ];
        let schema = DFSchema::try_from(Schema::new(fields.to_vec())).unwrap();
        assert_eq!(cannot_fail(&expr, &schema).unwrap(), expected, "{expr}");
    }

    #[test]
    fn decimals_that_have_room_for_every_result_cannot_fail() {
        let half = || lit(ScalarValue::Decimal128(Some(200), 5, 2));
        check(col("price") - col("price") * col("price"), true);
        check((col("price") + col("price")) / half(), true);
        check(col("price") / lit(ScalarValue::Decimal128(Some(0), 5, 2)), false);
        check(col("price") / col("price"), false);
        check(col("large") + col("price"), false);
        let positive = when(col("name").eq(lit("a")), col("price")).otherwise(half()).unwrap();
        check(positive, true);
    }

    #[test]
    fn what_may_overflow_or_not_be_cast_can_fail() {
        check(col("count") + lit(1_i64), false);
        check(cast(col("count"), DataType::Decimal128(21, 2)), true);
        check(cast(col("count"), DataType::Decimal128(20, 2)), false);
        check(cast(col("count"), DataType::Int32), false);
        check(cast(col("name"), DataType::Int64), false);
        check(when(col("count").gt(lit(0_i64)), lit(1_i64) / col("count")).end().unwrap(), false);
    }
}
