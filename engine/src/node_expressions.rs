//! The expressions of one node of a logical plan, for rules that look at them or change their parts.
//!
//! Invariant: columns are called as they were before ([`map_parts`]).

use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan};

/// Whether any part of a node's own expressions `is_meant`. Most nodes have columns only, and are left as
/// they are without a copy.
pub(crate) fn any_part(plan: &LogicalPlan, is_meant: impl Fn(&Expr) -> bool) -> Result<bool> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        found |= expr.exists(|part| Ok(is_meant(part)))?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// The columns that a node's expressions can name. Types are looked up in it, so their order does not
/// matter; a scan filters by columns of its source.
pub(crate) fn columns_below(plan: &LogicalPlan) -> Result<DFSchema> {
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = plan {
        let source = scan.source.schema();
        schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &source)?);
    }
    Ok(schema)
}

/// Which expressions [`map_parts`] leaves as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sets {
    /// GROUPING SETS: their keys are found by their names.
    Stay,
    /// None.
    Change,
}

/// Changes the parts of a node's expressions from the bottom up.
pub(crate) fn map_parts(
    plan: LogicalPlan,
    sets: Sets,
    mut change: impl FnMut(Expr) -> Result<Transformed<Expr>>,
) -> Result<Transformed<LogicalPlan>> {
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        if sets == Sets::Stay && matches!(expr, Expr::GroupingSet(_)) {
            return Ok(Transformed::no(expr));
        }
        let name = names.save(&expr);
        let changed = expr.transform_up(&mut change)?;
        Ok(changed.update_data(|expr| name.restore(expr)))
    })
}
