//! A SELECT list that has the same column twice: SQL allows it, DataFusion's plans do not.
//!
//! ```text
//! SELECT a, count(*), a    SELECT a, count(*), a AS <mark>0<mark>2     shown as: a, count(*), a
//! ```
//! Only the outermost list is changed, which nothing can refer into: a column of a subquery that
//! has two meanings stays an error.
//!
//! Invariant: [`shown_names`] gives every column the name that it would have had.

use std::collections::HashMap;
use std::ops::ControlFlow;

use arrow::datatypes::{Field, Schema};
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Query, SelectItem, SetExpr, Visit, VisitMut, Visitor, VisitorMut,
};

use super::casts::WithoutCasts;
use super::named_subqueries;
use super::query::call;

/// Begins the name of a column that repeats another; the position of that one follows, and its own
/// behind another mark.
const MARK: char = '\u{2}';

/// Gives repeated columns of the outermost SELECT lists names of their own.
pub(super) fn tell_apart(query: &mut Query) {
    let is_ordered = query.order_by.is_some();
    let mut bodies = vec![query.body.as_mut()];
    while let Some(body) = bodies.pop() {
        match body {
            SetExpr::Select(select) => tell_items_apart(&mut select.projection, is_ordered),
            SetExpr::SetOperation { left, right, .. } => {
                bodies.extend([left.as_mut(), right.as_mut()]);
            }
            SetExpr::Query(query) => bodies.push(query.body.as_mut()),
            _ => {}
        }
    }
}

fn tell_items_apart(items: &mut [SelectItem], is_ordered: bool) {
    let plain = |item: &SelectItem| {
        matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. })
    };
    if !items.iter().all(plain) {
        // What a wildcard stands for is not known here.
        return;
    }
    let mut first: HashMap<String, usize> = HashMap::new();
    for (position, item) in items.iter_mut().enumerate() {
        let name = match item {
            SelectItem::UnnamedExpr(expr) if is_small(expr) => name_of(expr),
            // ORDER BY could mean either of two columns of one name: that stays an error.
            SelectItem::ExprWithAlias { alias, .. } if !is_ordered => alias.to_string(),
            _ => continue,
        };
        match first.get(&name) {
            None => {
                first.insert(name, position);
            }
            Some(first) => {
                let name = format!("{MARK}{first}{MARK}{position}");
                rename(item, Ident::with_quote('"', name));
            }
        }
    }
}

fn rename(item: &mut SelectItem, new: Ident) {
    match item {
        SelectItem::UnnamedExpr(expr) => {
            let expr = std::mem::replace(expr, Expr::Identifier(new.clone()));
            *item = SelectItem::ExprWithAlias { expr, alias: new };
        }
        SelectItem::ExprWithAlias { alias, .. } => *alias = new,
        _ => {}
    }
}

/// Whether an expression has few parts. Writing out a tall one takes more than a small stack.
pub(super) fn is_small(expr: &Expr) -> bool {
    const PARTS_MAX: usize = 50;
    struct Parts(usize);
    impl Visitor for Parts {
        type Break = ();

        fn pre_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
            self.0 += 1;
            if self.0 > PARTS_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    is_subquery(expr) || expr.visit(&mut Parts(0)).is_continue()
}

/// Whether an expression is a scalar subquery and nothing else.
fn is_subquery(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_subquery(inner),
        other => matches!(other, Expr::Subquery(_)),
    }
}

/// Equal for expressions that DataFusion gives the same name: it leaves casts and what subqueries are out
/// of them, and `position` is called `strpos`.
fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Cast { expr, .. } | Expr::Nested(expr) => name_of(expr),
        subquery if is_subquery(subquery) => named_subqueries::name_of(subquery),
        other => {
            let mut other = other.clone();
            let _ = VisitMut::visit(&mut other, &mut WithoutCasts);
            let _ = VisitMut::visit(&mut other, &mut Named);
            let text = other.to_string();
            if text.contains(['\'', '"']) { text } else { text.to_ascii_lowercase() }
        }
    }
}

/// Gives parts of an expression the names that DataFusion gives them.
struct Named;

impl Named {
    const SUBQUERY: &str = "(<subquery>)";
}

impl VisitorMut for Named {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let any = || Expr::Identifier(Ident::new(Self::SUBQUERY));
        match expr {
            Expr::Subquery(_) => *expr = any(),
            Expr::Exists { negated, .. } => {
                *expr = Expr::Identifier(Ident::new(format!("EXISTS {negated}")));
            }
            Expr::InSubquery { expr: operand, negated, .. } => {
                let operand = Box::new(std::mem::replace(operand.as_mut(), any()));
                let negated = *negated;
                *expr = Expr::InUnnest { expr: operand, array_expr: Box::new(any()), negated };
            }
            _ => {}
        }
        if let Expr::Position { expr: part, r#in: text } = expr {
            let null = || Expr::Identifier(Ident::new(""));
            let part = std::mem::replace(part.as_mut(), null());
            let text = std::mem::replace(text.as_mut(), null());
            *expr = call("strpos", vec![text, part]);
        }
        ControlFlow::Continue(())
    }
}

/// The columns of a query's rows as they are shown: a repeated one is called like the first.
pub fn shown_names(schema: &Schema) -> Schema {
    let fields = schema.fields();
    let shown = fields.iter().map(|field| {
        let marked = field.name().strip_prefix(MARK).and_then(|rest| rest.split_once(MARK));
        let first = marked.and_then(|(first, _)| first.parse::<usize>().ok());
        match first.and_then(|first| fields.get(first)) {
            Some(first) => Field::clone(field).with_name(first.name()),
            None => Field::clone(field),
        }
    });
    Schema::new_with_metadata(shown.collect::<Vec<_>>(), schema.metadata().clone())
}
