//! A SELECT list that has the same column twice: SQL allows it, DataFusion's plans do not.
//!
//! ```text
//! SELECT a, count(*), a    SELECT a, count(*), a AS <mark>0<mark>2     shown as: a, count(*), a
//! SELECT *, a              SELECT *, a AS <mark>=a<mark>1              shown as: a, b, a
//! ```
//! Nor do they allow `SELECT t.a, b AS a`, where a column with a table and one without have one name.
//! Only the outermost list is changed, which nothing can refer into: a column of a subquery that
//! has two meanings stays an error.
//!
//! Invariant: [`shown_names`] gives every column the name that it would have had.

use std::collections::HashMap;
use std::ops::ControlFlow;

use arrow::datatypes::{Field, Schema};
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, OrderBy, Query, SelectItem, SetExpr, TableFactor, Visit, VisitMut, Visitor,
    VisitorMut,
};

use super::branches::is_by_name;
use super::casts::WithoutCasts;
use super::named_subqueries;
use super::names::normalized;
use super::query::call;

/// Begins the name of a column that repeats another; the position of that one follows, or its name, and
/// its own position behind another mark.
const MARK: char = '\u{2}';

/// Begins a name in the place of a position.
const NAMED: char = '=';

/// Gives repeated columns of the outermost SELECT lists names of their own.
pub(super) fn tell_apart(query: &mut Query) {
    let order_by = query.order_by.as_ref();
    let mut bodies = vec![query.body.as_mut()];
    while let Some(body) = bodies.pop() {
        match body {
            SetExpr::Select(select) => tell_items_apart(&mut select.projection, order_by),
            // Another name would be another column there.
            SetExpr::SetOperation { set_quantifier, .. } if is_by_name(*set_quantifier) => {}
            SetExpr::SetOperation { left, right, .. } => {
                bodies.extend([left.as_mut(), right.as_mut()]);
            }
            SetExpr::Query(query) => bodies.push(query.body.as_mut()),
            _ => {}
        }
    }
}

fn tell_items_apart(items: &mut [SelectItem], order_by: Option<&OrderBy>) {
    let plain = |item: &SelectItem| {
        matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. })
    };
    if !items.iter().all(plain) {
        tell_from_wildcards(items, order_by);
        return;
    }
    let mut first: HashMap<String, usize> = HashMap::new();
    // Columns of tables, and columns of none, by their last names.
    let mut of_tables: HashMap<String, usize> = HashMap::new();
    let mut named: HashMap<String, usize> = HashMap::new();
    for (position, item) in items.iter_mut().enumerate() {
        let (name, same) = match &*item {
            SelectItem::UnnamedExpr(expr @ Expr::CompoundIdentifier(parts)) => {
                let Some(last) = parts.last().map(normalized) else { continue };
                let same = named.get(&last).copied();
                of_tables.entry(last).or_insert(position);
                (name_of(expr), same)
            }
            // Of a table, too, or ORDER BY means the same.
            SelectItem::UnnamedExpr(expr @ Expr::Identifier(name)) => {
                let last = normalized(name);
                let same = of_tables.get(&last).copied();
                named.entry(last).or_insert(position);
                (name_of(expr), same)
            }
            SelectItem::UnnamedExpr(expr) if is_subquery(expr) || is_small(expr) => {
                (name_of(expr), None)
            }
            // ORDER BY could mean either of two columns of one name: that stays an error.
            SelectItem::ExprWithAlias { alias, .. }
                if !is_mentioned(alias, order_by, Mention::Alone) =>
            {
                let last = normalized(alias);
                let same = of_tables.get(&last).copied();
                named.entry(last).or_insert(position);
                (alias.to_string(), same)
            }
            _ => continue,
        };
        match first.get(&name).copied().or(same) {
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

/// Gives columns beside a wildcard names of their own: what it stands for is not known here. One that ORDER BY
/// names stays, unless the wildcard has it for sure.
fn tell_from_wildcards(items: &mut [SelectItem], order_by: Option<&OrderBy>) {
    let has_all = items.iter().any(
        |item| matches!(item, SelectItem::Wildcard(options) if options.to_string().is_empty()),
    );
    for (position, item) in items.iter_mut().enumerate() {
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        let (name, is_there) = match &*expr {
            Expr::Identifier(name) => (name, has_all),
            Expr::CompoundIdentifier(parts) => match parts.last() {
                Some(last) => (last, false),
                None => continue,
            },
            _ => continue,
        };
        if is_there || !is_mentioned(name, order_by, Mention::OfAnyTable) {
            let name = shown_as(name, position);
            rename(item, name);
        }
    }
}

/// A name of its own for a column that is shown under another.
pub(super) fn shown_as(name: &Ident, position: usize) -> Ident {
    Ident::with_quote('"', format!("{MARK}{NAMED}{}{MARK}{position}", normalized(name)))
}

/// How a column is named.
#[derive(Clone, Copy, PartialEq)]
enum Mention {
    /// `a`
    Alone,
    /// `a` or `t.a`
    OfAnyTable,
}

/// Whether ORDER BY may name a column.
fn is_mentioned(name: &Ident, order_by: Option<&OrderBy>, mention: Mention) -> bool {
    struct Named(String, Mention);
    impl Visitor for Named {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let name = match expr {
                Expr::Identifier(name) => Some(name),
                Expr::CompoundIdentifier(parts) if self.1 == Mention::OfAnyTable => parts.last(),
                _ => None,
            };
            match name.is_some_and(|name| normalized(name) == self.0) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        }
    }
    order_by
        .is_some_and(|order_by| order_by.visit(&mut Named(normalized(name), mention)).is_break())
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

/// Whether an expression, with the subqueries in it, has few parts. Writing out a tall one takes more than
/// a small stack.
pub(super) fn is_small(expr: &Expr) -> bool {
    const PARTS_MAX: usize = 100;
    struct Parts(usize);
    impl Parts {
        fn count(&mut self) -> ControlFlow<()> {
            self.0 += 1;
            if self.0 > PARTS_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    impl Visitor for Parts {
        type Break = ();

        fn pre_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
            self.count()
        }

        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.count()
        }

        fn pre_visit_table_factor(&mut self, _: &TableFactor) -> ControlFlow<()> {
            self.count()
        }
    }
    expr.visit(&mut Parts(0)).is_continue()
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
        let marked = field.name().strip_prefix(MARK).and_then(|rest| rest.rsplit_once(MARK));
        let name = marked.and_then(|(first, _)| match first.strip_prefix(NAMED) {
            Some(name) => Some(name),
            None => Some(fields.get(first.parse::<usize>().ok()?)?.name().as_str()),
        });
        match name {
            Some(name) => Field::clone(field).with_name(name),
            None => Field::clone(field),
        }
    });
    Schema::new_with_metadata(shown.collect::<Vec<_>>(), schema.metadata().clone())
}
