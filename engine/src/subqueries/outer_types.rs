//! The types of columns that a subquery takes from the query around it.
//!
//! A derived column may change its type when types are coerced: the first branch of a UNION is
//! SMALLINT and another INTEGER, or a CASE has branches of two types. DataFusion has noted the type
//! before, in the subquery, and coerces its comparisons to that: `=` then joins keys of two types,
//! and fails, or finds nothing (`sql-tests/upstream/types-of-outer-columns.md`). So before types are
//! coerced, a column from outside gets the type that it will have there.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison};
use datafusion::logical_expr::{Expr, LogicalPlan, Subquery};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;

use super::unnest::subquery_of;

/// Gives these columns their types.
#[derive(Debug, Default)]
pub(crate) struct OuterTypes;

impl AnalyzerRule for OuterTypes {
    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        if !has_outer_columns(&plan)? {
            return Ok(plan);
        }
        plan.transform_up_with_subqueries(|node| retyped(node, config)).data()
    }

    fn name(&self) -> &'static str {
        "outer_types"
    }
}

fn has_outer_columns(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            found |= expr.contains_outer();
            Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })
    })?;
    Ok(found)
}

/// A node whose subqueries know the types of its input's columns.
fn retyped(node: LogicalPlan, config: &ConfigOptions) -> Result<Transformed<LogicalPlan>> {
    if let LogicalPlan::Join(join) = &node
        && is_lateral(&join.right)?
    {
        // What cannot be coerced is said by the rule that does it.
        let coerced = TypeCoercion::new().analyze(join.left.as_ref().clone(), config);
        let Ok(left) = coerced else { return Ok(Transformed::no(node)) };
        return retyped_lateral(node, left.schema());
    }
    let mut has_subqueries = false;
    node.apply_expressions(|expr| {
        has_subqueries |= expr.exists(|expr| Ok(subquery_of(expr).is_some()))?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    if !has_subqueries {
        return Ok(Transformed::no(node));
    }
    let mut columns = DFSchema::empty();
    for input in node.inputs() {
        // What cannot be coerced is said by the rule that does it.
        let Ok(coerced) = TypeCoercion::new().analyze(input.clone(), config) else {
            return Ok(Transformed::no(node));
        };
        columns.merge(coerced.schema());
    }
    node.map_expressions(|expr| {
        expr.transform_up(|expr| {
            let Some(subquery) = subquery_of(&expr) else { return Ok(Transformed::no(expr)) };
            match retyped_subquery(subquery, &columns)? {
                Some(subquery) => Ok(Transformed::yes(with_subquery(expr, subquery))),
                None => Ok(Transformed::no(expr)),
            }
        })
    })
}

/// Whether the right side of a join is LATERAL, or has a side that is.
fn is_lateral(right: &LogicalPlan) -> Result<bool> {
    right.exists(|node| Ok(matches!(node, LogicalPlan::Subquery(_))))
}

/// A join whose right side knows the types of the left side's columns.
fn retyped_lateral(node: LogicalPlan, left: &DFSchema) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Join(mut join) = node else { return Ok(Transformed::no(node)) };
    let right = Arc::unwrap_or_clone(join.right).transform_up(|node| match node {
        LogicalPlan::Subquery(lateral) => match retyped_subquery(&lateral, left)? {
            Some(lateral) => Ok(Transformed::yes(LogicalPlan::Subquery(lateral))),
            None => Ok(Transformed::no(LogicalPlan::Subquery(lateral))),
        },
        other => Ok(Transformed::no(other)),
    })?;
    let right = match right.transformed {
        true => right.data.transform_up(|node| Ok(Transformed::yes(node.recompute_schema()?)))?,
        false => right,
    };
    join.right = Arc::new(right.data);
    let node = LogicalPlan::Join(join);
    match right.transformed {
        true => Ok(Transformed::yes(node.recompute_schema()?)),
        false => Ok(Transformed::no(node)),
    }
}

fn with_subquery(expr: Expr, subquery: Subquery) -> Expr {
    match expr {
        Expr::Exists(exists) => Expr::Exists(Exists { subquery, ..exists }),
        Expr::InSubquery(in_subquery) => Expr::InSubquery(InSubquery { subquery, ..in_subquery }),
        Expr::SetComparison(comparison) => {
            Expr::SetComparison(SetComparison { subquery, ..comparison })
        }
        _ => Expr::ScalarSubquery(subquery),
    }
}

/// The subquery with the types of these columns; `None` if it has them.
fn retyped_subquery(subquery: &Subquery, columns: &DFSchema) -> Result<Option<Subquery>> {
    let plan = subquery.subquery.as_ref().clone().transform_up(|node| {
        let node =
            node.map_expressions(|expr| expr.transform_up(|expr| retyped_column(expr, columns)))?;
        match node.transformed {
            true => node.map_data(LogicalPlan::recompute_schema),
            false => Ok(node),
        }
    })?;
    if !plan.transformed {
        return Ok(None);
    }
    let outer = subquery.outer_ref_columns.iter().cloned();
    let outer_ref_columns = outer
        .map(|expr| expr.transform_up(|expr| retyped_column(expr, columns)).data())
        .collect::<Result<_>>()?;
    // Above a node with another type, schemas are made again, too.
    let plan =
        plan.data.transform_up(|node| Ok(Transformed::yes(node.recompute_schema()?))).data()?;
    Ok(Some(Subquery { subquery: Arc::new(plan), outer_ref_columns, ..subquery.clone() }))
}

fn retyped_column(expr: Expr, columns: &DFSchema) -> Result<Transformed<Expr>> {
    let Expr::OuterReferenceColumn(noted, column) = &expr else {
        return Ok(Transformed::no(expr));
    };
    match columns.qualified_field_from_column(column) {
        Ok((_, field)) if field.data_type() != noted.data_type() => {
            Ok(Transformed::yes(Expr::OuterReferenceColumn(Arc::clone(field), column.clone())))
        }
        _ => Ok(Transformed::no(expr)),
    }
}
