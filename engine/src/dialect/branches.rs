//! Columns of the later branches of UNION, INTERSECT and EXCEPT, which nobody can refer to: the first branch
//! names them.
//!
//! DataFusion gives a later branch's expressions the first one's names, and refuses a branch in which another
//! column has that name already (`sql-tests/upstream/names-of-later-branches.md`):
//! ```text
//! SELECT a, x FROM u UNION ALL SELECT 2, a FROM t
//! ```
//! So they get names of their own first.

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Query, Select, SelectItem, SetExpr, SetQuantifier,
};

/// Names the expressions of a query's later branches.
pub(super) fn name_columns(query: &mut Query) {
    // With whether a branch gives the whole its names, and whether it is sorted by itself.
    let mut bodies = vec![(query.body.as_mut(), true, false)];
    while let Some((body, is_naming, is_ordered)) = bodies.pop() {
        match body {
            SetExpr::SetOperation { left, right, set_quantifier, .. } => {
                let by_name = is_by_name(*set_quantifier);
                bodies.push((left, is_naming || by_name, false));
                bodies.push((right, by_name, false));
            }
            SetExpr::Query(inner) if !is_naming => {
                let is_ordered = inner.order_by.is_some();
                // ORDER BY of several branches goes by the first one's names.
                let is_naming =
                    is_ordered && matches!(inner.body.as_ref(), SetExpr::SetOperation { .. });
                bodies.push((inner.body.as_mut(), is_naming, is_ordered));
            }
            // DataFusion sorts DISTINCT rows by what is called so.
            SetExpr::Select(select) if !is_naming && (!is_ordered || select.distinct.is_none()) => {
                name_items(select);
            }
            _ => {}
        }
    }
}

/// Whether the columns of branches are matched by their names.
pub(super) fn is_by_name(quantifier: SetQuantifier) -> bool {
    matches!(
        quantifier,
        SetQuantifier::ByName | SetQuantifier::AllByName | SetQuantifier::DistinctByName
    )
}

fn name_items(select: &mut Select) {
    for (position, item) in select.projection.iter_mut().enumerate() {
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        if matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) {
            continue;
        }
        // What PostgreSQL calls a column without a name.
        let alias = Ident::with_quote('"', format!("?column?{}", position + 1));
        let expr = std::mem::replace(expr, Expr::Identifier(alias.clone()));
        *item = SelectItem::ExprWithAlias { expr, alias };
    }
}
