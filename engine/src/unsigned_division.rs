//! Quotients of a BIGINT UNSIGNED and a signed integer are integers.
//!
//! No integer type holds both, so DataFusion takes them for DECIMAL(20, 0), and divides decimals: `5 / 3`
//! is 1.6666, where it is 1 for every other pair of integers (`sql-tests/upstream/quotients-of-unsigned.md`).
//! So what is left over is taken away before.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, not_impl_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr_fn::cast;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::sql::sqlparser::ast::BinaryOperator;

/// What holds both.
const BOTH: DataType = DataType::Decimal128(20, 0);

/// Plans the quotients.
#[derive(Debug)]
pub(crate) struct UnsignedDivision;

impl ExprPlanner for UnsignedDivision {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        if expr.op != BinaryOperator::Divide {
            return Ok(PlannerResult::Original(expr));
        }
        let types = (expr.left.get_type(schema), expr.right.get_type(schema));
        let is_mixed = match types {
            (Ok(DataType::UInt64), Ok(other)) | (Ok(other), Ok(DataType::UInt64)) => {
                other.is_signed_integer()
            }
            _ => false,
        };
        if !is_mixed {
            return Ok(PlannerResult::Original(expr));
        }
        // Each operand is there twice.
        if !is_short(&expr.left) || !is_short(&expr.right) {
            return not_impl_err!(
                "the quotient of a BIGINT UNSIGNED and a signed integer is not supported of long \
                 operands: cast one of them to DECIMAL(20, 0) or BIGINT"
            );
        }
        let name = format!("{} / {}", expr.left.schema_name(), expr.right.schema_name());
        let [left, right] = [expr.left, expr.right].map(|operand| cast(operand, BOTH));
        let whole = left.clone() - left % right.clone();
        Ok(PlannerResult::Planned(quotient(whole, right).alias(name)))
    }
}

/// Whether an operand is a column, a constant, or a cast or two of them.
fn is_short(expr: &Expr) -> bool {
    const PARTS_MAX: usize = 8;
    let mut parts = 0;
    let walked = expr.apply(|_| {
        parts += 1;
        Ok(if parts > PARTS_MAX { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walked.is_ok() && parts <= PARTS_MAX && !expr.is_volatile()
}

fn quotient(whole: Expr, by: Expr) -> Expr {
    cast(whole / by, BOTH)
}
