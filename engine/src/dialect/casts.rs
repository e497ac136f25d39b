//! Aggregates that differ in casts only.
//!
//! DataFusion names `min(CAST(s AS INT))` like `min(s)`, and refuses a SELECT that has both. So where
//! a statement has two such calls, their casts pass a function that gives them back under a name that
//! says what is cast to what:
//!
//! ```text
//! SELECT min(s), min(CAST(s AS INT))    SELECT min(s), min(named_cast(CAST(s AS INT)))
//! ```

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, Query, Value, Visit, VisitMut, Visitor, VisitorMut,
};

use super::query::call;
use crate::functions::NAMED_CAST;

/// Aggregates that take what can be cast.
const AGGREGATES: [&str; 22] = [
    "any_value",
    "approx_distinct",
    "approx_median",
    "array_agg",
    "avg",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "first_value",
    "last_value",
    "max",
    "mean",
    "median",
    "min",
    "stddev",
    "string_agg",
    "sum",
    "var",
    "var_pop",
];

/// Gives the casts names in calls that differ in nothing else.
pub(super) fn tell_casts_apart(query: &mut Query) {
    let mut calls = Calls::default();
    let _ = Visit::visit(query, &mut calls);
    let shared: HashSet<String> =
        calls.by_plain.into_values().filter(|texts| texts.len() > 1).flatten().collect();
    if !shared.is_empty() {
        let _ = VisitMut::visit(query, &mut NameCasts { calls: shared });
    }
}

/// The texts of calls, by their texts without casts.
#[derive(Default)]
struct Calls {
    by_plain: HashMap<String, HashSet<String>>,
}

impl Visitor for Calls {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && is_aggregate(function)
        {
            let text = text_of(function);
            let mut plain = expr.clone();
            let _ = VisitMut::visit(&mut plain, &mut WithoutCasts);
            if let Expr::Function(plain) = plain {
                // DataFusion counts rows by counting a constant.
                let plain = text_of(&plain).replace("count(*)", "count(1)");
                self.by_plain.entry(plain).or_default().insert(text);
            }
        }
        ControlFlow::Continue(())
    }
}

/// Aggregates do not nest, but for one in a window: so all their texts together are no longer than
/// twice the statement.
fn is_aggregate(function: &Function) -> bool {
    let name = function.name.to_string().to_ascii_lowercase();
    function.over.is_some() || AGGREGATES.contains(&name.as_str())
}

/// A call without its window, which may be written in several ways.
fn text_of(function: &Function) -> String {
    let mut function = function.clone();
    function.over = None;
    function.to_string()
}

struct WithoutCasts;

impl VisitorMut for WithoutCasts {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Cast { expr: inner, .. } = expr {
            *expr = taken(inner);
        }
        ControlFlow::Continue(())
    }
}

struct NameCasts {
    calls: HashSet<String>,
}

impl VisitorMut for NameCasts {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && is_aggregate(function)
            && self.calls.contains(&text_of(function))
        {
            return VisitMut::visit(expr, &mut NamedCasts);
        }
        ControlFlow::Continue(())
    }
}

struct NamedCasts;

impl VisitorMut for NamedCasts {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Cast { .. } = expr {
            *expr = call(NAMED_CAST, vec![taken(expr)]);
        }
        ControlFlow::Continue(())
    }
}

fn taken(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, Expr::Value(Value::Null.with_empty_span()))
}
