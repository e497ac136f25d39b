//! The columns that a plan takes from the queries around it.

use arrow::datatypes::FieldRef;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison};
use datafusion::logical_expr::{Expr, LogicalPlan, Subquery};

/// A column from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OuterColumn {
    /// What it is called there.
    pub(super) column: Column,
    /// Its type.
    pub(super) field: FieldRef,
}

/// Whether a schema has a column.
pub(super) fn resolves(schema: &DFSchema, column: &Column) -> bool {
    schema.index_of_column(column).is_ok()
}

/// The plan of a subquery that is an expression.
pub(crate) fn subquery_of(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::ScalarSubquery(subquery)
        | Expr::Exists(Exists { subquery, .. })
        | Expr::InSubquery(InSubquery { subquery, .. })
        | Expr::SetComparison(SetComparison { subquery, .. }) => Some(subquery),
        _ => None,
    }
}

/// What a plan, with the subqueries in it, takes from outside, each column once.
pub(crate) fn outer_columns(plan: &LogicalPlan) -> Result<Vec<OuterColumn>> {
    let mut found = Vec::new();
    collect(plan, &mut found)?;
    Ok(found)
}

fn collect(plan: &LogicalPlan, found: &mut Vec<OuterColumn>) -> Result<()> {
    plan.apply_expressions(|expr| {
        collect_of_expression(expr, plan, found)?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    let inputs = plan.inputs();
    let LogicalPlan::Join(join) = plan else {
        return inputs.into_iter().try_for_each(|input| collect(input, found));
    };
    collect(&join.left, found)?;
    // LATERAL: what the left side has is not from outside.
    let mut of_right = Vec::new();
    collect(&join.right, &mut of_right)?;
    let is_lateral = join.right.exists(|node| Ok(matches!(node, LogicalPlan::Subquery(_))))?;
    for outer in of_right {
        if !(is_lateral && resolves(join.left.schema(), &outer.column)) {
            add(outer, found);
        }
    }
    Ok(())
}

/// The columns from outside of one expression of a node.
fn collect_of_expression(
    expr: &Expr,
    node: &LogicalPlan,
    found: &mut Vec<OuterColumn>,
) -> Result<()> {
    expr.apply(|part| {
        if let Expr::OuterReferenceColumn(field, column) = part {
            add(OuterColumn { column: column.clone(), field: FieldRef::clone(field) }, found);
        }
        if let Some(subquery) = subquery_of(part) {
            for outer in outer_columns(&subquery.subquery)? {
                if !node.inputs().iter().any(|input| resolves(input.schema(), &outer.column)) {
                    add(outer, found);
                }
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

fn add(outer: OuterColumn, found: &mut Vec<OuterColumn>) {
    if !found.iter().any(|known| known.column == outer.column) {
        found.push(outer);
    }
}

/// Whether a node itself, not its inputs, takes columns from outside that `is_meant`.
pub(super) fn takes(node: &LogicalPlan, is_meant: &dyn Fn(&Column) -> bool) -> Result<bool> {
    let mut found = Vec::new();
    node.apply_expressions(|expr| {
        collect_of_expression(expr, node, &mut found)?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found.iter().any(|outer| is_meant(&outer.column)))
}

/// An expression with other expressions in the place of columns from outside.
pub(super) fn with_columns(
    expr: Expr,
    replacement: &dyn Fn(&Column) -> Option<Column>,
) -> Result<Expr> {
    expr.transform(|part| match &part {
        Expr::OuterReferenceColumn(_, column) => match replacement(column) {
            Some(column) => Ok(Transformed::yes(Expr::Column(column))),
            None => Ok(Transformed::no(part)),
        },
        _ => Ok(Transformed::no(part)),
    })
    .data()
}
