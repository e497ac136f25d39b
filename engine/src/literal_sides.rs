//! Comparisons with a constant have it on the right.
//!
//! DataFusion merges conditions of one column, and takes `2 = b` and `b = 2` for two values of `b`: no row
//! is left (`sql-tests/upstream/sides-of-constants.md`). It turns the sides of some conditions, of integers
//! in filters, and not those of others, of text or of joins.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;

/// Puts constants there.
#[derive(Debug, Default)]
pub(crate) struct LiteralSides;

impl AnalyzerRule for LiteralSides {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| {
            match matches!(node, LogicalPlan::Join(_) | LogicalPlan::Filter(_)) {
                true => node.map_expressions(|expr| expr.transform_up(turned)),
                false => Ok(Transformed::no(node)),
            }
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "literal_sides"
    }
}

fn turned(expr: Expr) -> Result<Transformed<Expr>> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else {
        return Ok(Transformed::no(expr));
    };
    match op.swap() {
        Some(op) if is_literal(&left) && !is_literal(&right) => {
            Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left: right, op, right: left })))
        }
        _ => Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
    }
}

fn is_literal(expr: &Expr) -> bool {
    !expr.any_column_refs() && !expr.contains_outer()
}
