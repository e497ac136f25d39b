//! Aggregates that differ in casts only.
//!
//! DataFusion names `min(CAST(s AS INT))` like `min(s)`, and refuses a SELECT that has both. So where one
//! has two such calls, their casts pass a function that gives them back under a name that says what is
//! cast to what:
//!
//! ```text
//! SELECT min(s), min(CAST(s AS INT))    SELECT min(s), min(named_cast(CAST(s AS INT)))
//! ```

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, Ident, ObjectNamePart, OrderBy, Query, Select, SetExpr, Value, Visit, VisitMut,
    Visitor, VisitorMut,
};

use super::group_casts;
use super::own_level::change_own;
use super::query::call;
use crate::functions::NAMED_CAST;

/// Aggregates that take what can be cast.
const AGGREGATES: [&str; 35] = [
    "any_value",
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "array_agg",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
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
    "percentile_cont",
    "regr_count",
    "regr_slope",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "sum",
    "var",
    "var_pop",
    "var_population",
    "var_samp",
    "var_sample",
    "variance",
];

/// How deep aggregates nest: one in a window.
const NESTED_MAX: usize = 2;

/// Gives the casts of a query's own SELECTs names, in calls that differ in nothing else.
pub(super) fn tell_apart(query: &mut Query) {
    let Query { body, order_by, .. } = query;
    let mut bodies = vec![(body.as_mut(), order_by.as_mut())];
    while let Some((body, order)) = bodies.pop() {
        match body {
            SetExpr::Select(select) => {
                let mut order = order;
                group_casts::tell_apart(select, order.as_deref_mut());
                tell_calls_apart(select, order);
            }
            SetExpr::SetOperation { left, right, .. } => {
                bodies.extend([(left.as_mut(), None), (right.as_mut(), None)]);
            }
            _ => {}
        }
    }
}

fn tell_calls_apart(select: &mut Select, order: Option<&mut OrderBy>) {
    let mut calls = Calls::default();
    let _ = Visit::visit(&select.projection, &mut calls);
    let _ = Visit::visit(&select.having, &mut calls);
    let _ = Visit::visit(&select.qualify, &mut calls);
    if let Some(order) = &order {
        let _ = Visit::visit(*order, &mut calls);
    }
    // Deeper ones are for the planner to refuse: their texts would be longer than the statement.
    if !calls.has_casts || calls.deepest > NESTED_MAX {
        return;
    }
    let shared = calls.shared();
    if shared.is_empty() {
        return;
    }
    let mut name = |expr: &mut Expr| {
        if let Expr::Function(function) = expr
            && is_aggregate(function)
            && shared.contains(&text_of(function))
        {
            let _ = VisitMut::visit(expr, &mut NamedCasts);
        }
    };
    change_own(&mut select.projection, &mut name);
    change_own(&mut select.having, &mut name);
    change_own(&mut select.qualify, &mut name);
    if let Some(order) = order {
        change_own(order, &mut name);
    }
}

/// The calls of a SELECT, not those of its subqueries.
#[derive(Default)]
struct Calls {
    calls: Vec<Function>,
    has_casts: bool,
    /// How many subqueries it is in, and how many calls.
    depth: usize,
    open: usize,
    deepest: usize,
}

impl Calls {
    /// The texts of calls that are the same without casts, and otherwise not.
    fn shared(self) -> HashSet<String> {
        let mut by_plain: HashMap<String, HashSet<String>> = HashMap::new();
        for call in self.calls {
            let text = text_of(&call);
            let mut plain = Expr::Function(call);
            let _ = VisitMut::visit(&mut plain, &mut WithoutCasts);
            if let Expr::Function(plain) = plain {
                // DataFusion counts rows by counting a constant.
                let plain = text_of(&plain).replace("count(*)", "count(1)");
                by_plain.entry(plain).or_default().insert(text);
            }
        }
        by_plain.into_values().filter(|texts| texts.len() > 1).flatten().collect()
    }
}

impl Visitor for Calls {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if self.depth > 0 {
            return ControlFlow::Continue(());
        }
        match expr {
            Expr::Cast { .. } => self.has_casts = true,
            Expr::Function(function) if is_aggregate(function) => {
                self.open += 1;
                self.deepest = self.deepest.max(self.open);
                if self.open <= NESTED_MAX {
                    self.calls.push(function.clone());
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let is_call = matches!(expr, Expr::Function(function) if is_aggregate(function));
        if self.depth == 0 && is_call {
            self.open -= 1;
        }
        ControlFlow::Continue(())
    }
}

fn is_aggregate(function: &Function) -> bool {
    let name = function.name.to_string().to_ascii_lowercase();
    function.over.is_some() || AGGREGATES.contains(&name.as_str())
}

/// A call as its meaning shows: names in lower case and without what they are qualified by, no
/// brackets, and no window, which may be written in several ways.
fn text_of(function: &Function) -> String {
    let mut function = function.clone();
    function.over = None;
    let mut call = Expr::Function(function);
    let _ = VisitMut::visit(&mut call, &mut Normal);
    call.to_string()
}

/// Takes away in what ways one meaning may be written.
pub(super) struct Normal;

impl VisitorMut for Normal {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let lower = |ident: &mut Ident| {
            if ident.quote_style.take().is_none() {
                ident.value.make_ascii_lowercase();
            }
        };
        match expr {
            Expr::Nested(inner) => *expr = taken(inner),
            Expr::Identifier(ident) => lower(ident),
            Expr::CompoundIdentifier(parts) => {
                if let Some(mut last) = parts.pop() {
                    lower(&mut last);
                    *expr = Expr::Identifier(last);
                }
            }
            Expr::Function(function) => {
                for part in &mut function.name.0 {
                    if let ObjectNamePart::Identifier(ident) = part {
                        lower(ident);
                    }
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Takes away casts.
pub(super) struct WithoutCasts;

impl VisitorMut for WithoutCasts {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Cast { expr: inner, .. } = expr {
            *expr = taken(inner);
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

/// An expression, and NULL in its place.
pub(super) fn taken(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, Expr::Value(Value::Null.with_empty_span()))
}
