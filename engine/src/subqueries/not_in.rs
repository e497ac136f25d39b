//! `x NOT IN (SELECT ...)` that DataFusion's anti join is not right for.
//!
//! DataFusion makes an anti join that knows NULL of `NOT IN` over a column. Where the left side is a
//! constant, or becomes one (`k + NULL`), there is no key to join on, the comparison goes into the
//! join's filter, and NULL is taken for false: rows come through that must not
//! (`sql-tests/upstream/not-in-of-constant.md`). Where the subquery takes columns from outside, a NULL
//! of any of its rows counts, of those too that belong to other rows outside
//! (`sql-tests/upstream/three-values-of-in.md`). So this is said in another way: no row of the subquery
//! is equal to `x`, or may be.
//!
//! Only where it filters rows; there NULL is as good as false.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchemaRef, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::InSubquery;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, is_not_false, not_exists};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;

use super::unnest::{has_subquery, is_plain};

/// Rewrites them.
#[derive(Debug, Default)]
pub(crate) struct NotInOtherWords;

impl AnalyzerRule for NotInOtherWords {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Filter(filter) if has_subquery(&filter.predicate) => rewritten(filter),
            other => Ok(Transformed::no(other)),
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "not_in_other_words"
    }
}

fn rewritten(filter: Filter) -> Result<Transformed<LogicalPlan>> {
    let mut is_changed = false;
    let predicates = split_conjunction_owned(filter.predicate.clone()).into_iter();
    let predicates =
        predicates.map(|predicate| match not_for_anti_join(&predicate, filter.input.schema())? {
            Some(in_subquery) => {
                is_changed = true;
                in_other_words(in_subquery, &filter.input)
            }
            None => Ok(predicate),
        });
    let predicates = predicates.collect::<Result<Vec<_>>>()?;
    match conjunction(predicates) {
        Some(predicate) if is_changed => {
            let filter = Filter::try_new(predicate, filter.input)?;
            Ok(Transformed::yes(LogicalPlan::Filter(filter)))
        }
        _ => Ok(Transformed::no(LogicalPlan::Filter(filter))),
    }
}

/// The `IN` of a predicate that is a `NOT IN` with a left side that is constant or may become so,
/// or with columns from outside.
fn not_for_anti_join<'a>(
    predicate: &'a Expr,
    schema: &DFSchemaRef,
) -> Result<Option<&'a InSubquery>> {
    let in_subquery = match predicate {
        Expr::InSubquery(in_subquery) if in_subquery.negated => in_subquery,
        Expr::Not(inner) => match inner.as_ref() {
            Expr::InSubquery(in_subquery) if !in_subquery.negated => in_subquery,
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    let left = &in_subquery.expr;
    let has_null =
        left.exists(|part| Ok(matches!(part, Expr::Literal(value, _) if value.is_null())))?;
    let subquery = &in_subquery.subquery;
    let is_correlated = !subquery.outer_ref_columns.is_empty() && is_plain(&subquery.subquery)?;
    let is_other = has_null || is_correlated || becomes_constant(left, schema)?;
    Ok(Some(in_subquery).filter(|_| is_other))
}

/// Whether nothing is left of the columns of an expression once it is simplified.
fn becomes_constant(expr: &Expr, schema: &DFSchemaRef) -> Result<bool> {
    if matches!(expr, Expr::Column(_)) {
        return Ok(false);
    }
    if !expr.any_column_refs() {
        return Ok(true);
    }
    let context = SimplifyContext::builder().with_schema(Arc::clone(schema)).build();
    // What fails when it is computed will say so then.
    let simple = ExprSimplifier::new(context).simplify(expr.clone());
    Ok(simple.is_ok_and(|simple| !simple.any_column_refs()))
}

fn in_other_words(in_subquery: &InSubquery, outer: &LogicalPlan) -> Result<Expr> {
    let left = in_subquery.expr.as_ref().clone().transform(|part| match part {
        Expr::Column(column) => {
            let (_, field) = outer.schema().qualified_field_from_column(&column)?;
            let reference = Expr::OuterReferenceColumn(Arc::clone(field), column);
            Ok(Transformed::yes(reference))
        }
        other => Ok(Transformed::no(other)),
    });
    let subquery = Arc::unwrap_or_clone(Arc::clone(&in_subquery.subquery.subquery));
    let Some(right) = subquery.schema().columns().into_iter().next() else {
        return plan_err!("the subquery of NOT IN has no column");
    };
    let right = Expr::Column(right);
    let may_be_equal = is_not_false(right.eq(left.data()?));
    let matching = Filter::try_new(may_be_equal, Arc::new(subquery))?;
    Ok(not_exists(Arc::new(LogicalPlan::Filter(matching))))
}
