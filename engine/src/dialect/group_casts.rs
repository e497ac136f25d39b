//! GROUP BY keys that differ in casts only.
//!
//! DataFusion names `CAST(a AS VARCHAR)` and `CAST(a AS BIGINT)` like `a`, and refuses a plan that groups by both.
//! So their casts pass a function that gives them back under a name that says what is cast to what:
//!
//! ```text
//! SELECT CAST(a AS BIGINT) FROM t GROUP BY CAST(a AS BIGINT), CAST(a AS VARCHAR)
//! SELECT named_cast(CAST(a AS BIGINT)) FROM t GROUP BY named_cast(CAST(a AS BIGINT)), named_cast(...)
//! ```
//! A key that differs from a column only is told apart later, in plans (`group_keys`).

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, OrderBy, Query, Select, SelectItem, Value, VisitMut, VisitorMut,
};

use super::casts::{Normal, WithoutCasts, taken};
use super::query::call;
use super::repeated::is_small;
use crate::functions::NAMED_CAST;

/// Gives the casts in the keys of a SELECT names, wherever they stand in it.
pub(super) fn tell_apart(select: &mut Select, order: Option<&mut OrderBy>) {
    let shared = shared_casts(select);
    if shared.is_empty() {
        return;
    }
    let mut names = NamedKeys { shared: &shared, depth: 0 };
    let _ = VisitMut::visit(&mut select.projection, &mut names);
    let _ = VisitMut::visit(&mut select.group_by, &mut names);
    let _ = VisitMut::visit(&mut select.having, &mut names);
    let _ = VisitMut::visit(&mut select.qualify, &mut names);
    if let Some(order) = order {
        let _ = VisitMut::visit(order, &mut names);
    }
}

/// The texts of casts in keys that are the same without casts, and otherwise not.
fn shared_casts(select: &Select) -> HashSet<String> {
    let GroupByExpr::Expressions(keys, _) = &select.group_by else { return HashSet::new() };
    let keys = keys.iter().flat_map(of_sets);
    let keys = keys.filter_map(|key| meant(key, select)).filter(|key| is_small(key));
    let mut by_plain: HashMap<String, HashMap<String, Vec<String>>> = HashMap::new();
    for key in keys {
        let mut casts = Casts::default();
        let _ = VisitMut::visit(&mut key.clone(), &mut casts);
        if casts.texts.is_empty() {
            continue;
        }
        let mut plain = key.clone();
        let _ = VisitMut::visit(&mut plain, &mut WithoutCasts);
        by_plain.entry(text_of(&plain)).or_default().insert(text_of(key), casts.texts);
    }
    let shared = by_plain.into_values().filter(|keys| keys.len() > 1);
    shared.flat_map(HashMap::into_values).flatten().collect()
}

/// The keys of GROUPING SETS, or a key that is none.
fn of_sets(key: &Expr) -> Vec<&Expr> {
    match key {
        Expr::Rollup(sets) | Expr::Cube(sets) | Expr::GroupingSets(sets) => {
            sets.iter().flatten().collect()
        }
        key => vec![key],
    }
}

/// What a key stands for: a number is a position in the list.
fn meant<'a>(key: &'a Expr, select: &'a Select) -> Option<&'a Expr> {
    let Expr::Value(value) = key else { return Some(key) };
    let Value::Number(position, _) = &value.value else { return Some(key) };
    let position = position.parse::<usize>().ok()?.checked_sub(1)?;
    match select.projection.get(position)? {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    }
}

/// An expression as its meaning shows.
fn text_of(expr: &Expr) -> String {
    let mut expr = expr.clone();
    let _ = VisitMut::visit(&mut expr, &mut Normal);
    expr.to_string()
}

/// The texts of the casts in an expression.
#[derive(Default)]
struct Casts {
    texts: Vec<String>,
}

impl VisitorMut for Casts {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Cast { .. } = expr {
            self.texts.push(text_of(expr));
        }
        ControlFlow::Continue(())
    }
}

/// Puts the function around casts, but not in subqueries.
struct NamedKeys<'a> {
    shared: &'a HashSet<String>,
    depth: usize,
}

impl VisitorMut for NamedKeys<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    /// After its parts, so that none is named twice.
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let is_shared = |expr: &Expr| {
            matches!(expr, Expr::Cast { .. })
                && is_small(expr)
                && self.shared.contains(&text_of(expr))
        };
        if self.depth == 0 && is_shared(expr) {
            *expr = call(NAMED_CAST, vec![taken(expr)]);
        }
        ControlFlow::Continue(())
    }
}
