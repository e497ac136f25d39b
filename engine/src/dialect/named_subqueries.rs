//! Subqueries of one SELECT that DataFusion would give the same name.
//!
//! DataFusion calls every `x IN (SELECT ...)` `IN`, every EXISTS `EXISTS`, and a scalar subquery like its
//! column, and refuses a SELECT with two expressions of one name, also inside of aggregates and as keys of
//! GROUP BY. So where a SELECT has several, each passes a function that gives it back under its text:
//!
//! ```text
//! SELECT sum(CASE WHEN x IN (SELECT a FROM t) THEN 1 END), sum(CASE WHEN y IN (SELECT a FROM t) THEN 1 END)
//! SELECT sum(CASE WHEN named_subquery(x IN (SELECT a FROM t), 'x IN (SELECT a FROM t)') THEN 1 END), ...
//! ```
//! A condition of HAVING or QUALIFY stays as it is, for it has no name and can be a semi join.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, OrderBy, Query,
    Select, SelectItem, SetExpr, Value, VisitMut, VisitorMut,
};

use super::casts::{Normal, WithoutCasts, taken};
use super::query::call;
use super::repeated::is_small;
use crate::functions::NAMED_SUBQUERY;
use crate::subqueries::COMPARE_ROWS;

/// Characters of a name; what is longer is cut and numbered.
const NAME_CHARS_MAX: usize = 60;

/// Gives the subqueries of a query's own SELECTs names where two have the same.
pub(super) fn tell_apart(query: &mut Query) {
    let Query { body, order_by, .. } = query;
    let mut bodies = vec![(body.as_mut(), order_by.as_mut())];
    while let Some((body, order)) = bodies.pop() {
        match body {
            SetExpr::Select(select) => tell_select_apart(select, order),
            SetExpr::SetOperation { left, right, .. } => {
                bodies.extend([(left.as_mut(), None), (right.as_mut(), None)]);
            }
            _ => {}
        }
    }
}

fn tell_select_apart(select: &mut Select, mut order: Option<&mut OrderBy>) {
    let mut found = Walk::new(Found::default());
    for item in &select.projection {
        if let SelectItem::UnnamedExpr(expr @ (Expr::Identifier(_) | Expr::CompoundIdentifier(_))) =
            item
        {
            found.visitor.on_column(expr);
        }
    }
    walk(select, order.as_deref_mut(), &mut found);
    let names = found.visitor.names();
    if !names.is_empty() {
        walk(select, order, &mut Walk::new(Wrap { names }));
    }
}

/// Shows a visitor the subqueries of a SELECT that have names.
fn walk<V: OnSubquery>(select: &mut Select, order: Option<&mut OrderBy>, visitor: &mut Walk<V>) {
    let is_grouped = match &select.group_by {
        GroupByExpr::All(_) => true,
        GroupByExpr::Expressions(keys, _) => !keys.is_empty(),
    };
    for item in &mut select.projection {
        // It has a name, but a key of GROUP BY does not take it.
        let is_named = matches!(item, SelectItem::ExprWithAlias { expr, .. } if is_subquery(expr));
        if is_grouped || !is_named {
            let _ = VisitMut::visit(item, visitor);
        }
    }
    let _ = VisitMut::visit(&mut select.group_by, visitor);
    if let Some(order) = order {
        let _ = VisitMut::visit(order, visitor);
    }
    visitor.is_condition = true;
    let _ = VisitMut::visit(&mut select.having, visitor);
    let _ = VisitMut::visit(&mut select.qualify, visitor);
}

/// Whether an expression is a subquery's value and nothing else.
fn is_subquery(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_subquery(inner),
        Expr::InSubquery { .. } | Expr::Exists { .. } | Expr::Subquery(_) => true,
        Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } => is_subquery(right),
        other => compared_rows(other).is_some(),
    }
}

/// A row, how it is compared, and the subquery that it is compared to, as `rows` writes them.
fn compared_rows(expr: &Expr) -> Option<(String, &Query)> {
    let Expr::Function(function) = expr else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    if function.name.to_string() != COMPARE_ROWS {
        return None;
    }
    let mut arguments = list.args.iter().filter_map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    let Expr::Value(how) = arguments.next()? else { return None };
    let Expr::Exists { subquery, .. } = arguments.next_back()? else { return None };
    let values: Vec<_> = arguments.map(ToString::to_string).collect();
    let how = how.value.clone().into_string()?;
    Some((format!("({}) {how}", values.join(", ")), subquery))
}

/// What is done at a subquery that is not in another one.
trait OnSubquery {
    /// `is_condition`: it is one of HAVING's or QUALIFY's own.
    fn on_subquery(&mut self, expr: &mut Expr, is_condition: bool);
}

/// Finds the subqueries of one level.
struct Walk<V> {
    visitor: V,
    /// Whether the walk is in HAVING or QUALIFY.
    is_condition: bool,
    /// The subqueries and the calls that it is in.
    subqueries: usize,
    calls: usize,
}

impl<V> Walk<V> {
    fn new(visitor: V) -> Self {
        Self { visitor, is_condition: false, subqueries: 0, calls: 0 }
    }
}

fn is_call(expr: &Expr) -> bool {
    matches!(expr, Expr::Function(_)) && !is_subquery(expr)
}

impl<V: OnSubquery> VisitorMut for Walk<V> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        self.subqueries += usize::from(is_subquery(expr));
        self.calls += usize::from(is_call(expr));
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        self.calls -= usize::from(is_call(expr));
        if is_subquery(expr) {
            self.subqueries -= 1;
            if self.subqueries == 0 {
                self.visitor.on_subquery(expr, self.is_condition && self.calls == 0);
            }
        }
        ControlFlow::Continue(())
    }
}

/// The texts of subqueries by the name that DataFusion gives them.
#[derive(Default)]
struct Found {
    by_name: HashMap<String, HashSet<String>>,
    /// Every text, in order, with how it is written.
    written: Vec<(String, String)>,
}

impl OnSubquery for Found {
    fn on_subquery(&mut self, expr: &mut Expr, is_condition: bool) {
        if is_condition || !is_small(expr) {
            return;
        }
        let text = text_of(expr);
        let texts = self.by_name.entry(name_of(expr)).or_default();
        if texts.insert(text.clone()) {
            self.written.push((text, written(expr)));
        }
    }
}

impl Found {
    /// A column of the SELECT itself, which needs no other name.
    fn on_column(&mut self, column: &Expr) {
        let (name, text) = (column_name(column), text_of(column));
        self.by_name.entry(format!("{SCALAR}{name}")).or_default().insert(text);
    }

    /// The names of those that need one, by their texts.
    fn names(self) -> HashMap<String, String> {
        // One whose name is not known may be called like any other.
        let unnamed = self.by_name.contains_key(UNKNOWN);
        let scalars = self.by_name.keys().filter(|name| is_scalar(name)).count();
        let shared = |(name, texts): (&String, &HashSet<String>)| {
            texts.len() > 1 || (unnamed && scalars > 1 && is_scalar(name))
        };
        let by_name = self.by_name.iter().filter(|entry| shared(*entry));
        let shared: HashSet<&String> = by_name.flat_map(|(_, texts)| texts).collect();
        let mut names = HashMap::new();
        for (text, written) in self.written {
            if !shared.contains(&text) {
                continue;
            }
            let name = if written.chars().count() <= NAME_CHARS_MAX {
                written
            } else {
                let start: String = written.chars().take(NAME_CHARS_MAX).collect();
                format!("{start}... #{}", names.len() + 1)
            };
            names.insert(text, name);
        }
        names
    }
}

/// Puts the function around subqueries that need a name.
struct Wrap {
    names: HashMap<String, String>,
}

impl OnSubquery for Wrap {
    fn on_subquery(&mut self, expr: &mut Expr, _: bool) {
        if !is_small(expr) {
            return;
        }
        if let Some(name) = self.names.get(&text_of(expr)) {
            let name = Expr::value(Value::SingleQuotedString(name.clone()));
            *expr = call(NAMED_SUBQUERY, vec![taken(expr), name]);
        }
    }
}

/// Begins the names of scalar subqueries.
const SCALAR: &str = "(SELECT ";

/// A scalar subquery whose column's name is not to be seen.
const UNKNOWN: &str = "(SELECT *";

fn is_scalar(name: &str) -> bool {
    name.starts_with(SCALAR)
}

/// Equal for subqueries that DataFusion gives the same name.
pub(super) fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Nested(inner) => name_of(inner),
        Expr::InSubquery { negated, .. } => format!("IN {negated}"),
        Expr::Exists { negated, .. } => format!("EXISTS {negated}"),
        Expr::AnyOp { left, compare_op, .. } => format!("{} {compare_op} ANY", text_of(left)),
        Expr::AllOp { left, compare_op, .. } => format!("{} {compare_op} ALL", text_of(left)),
        Expr::Subquery(query) => match column_of(query) {
            Some(column) => format!("{SCALAR}{column}"),
            None => UNKNOWN.to_owned(),
        },
        other => match compared_rows(other) {
            Some((row, _)) => row,
            None => other.to_string(),
        },
    }
}

/// A subquery as it is written, without brackets around it.
fn written(expr: &Expr) -> String {
    let expr = without_brackets(expr);
    match compared_rows(expr) {
        Some((row, subquery)) => format!("{row} ({subquery})"),
        None => expr.to_string(),
    }
}

/// The name of a query's first column, as DataFusion would write it but for the tables.
fn column_of(query: &Query) -> Option<String> {
    let mut body = query.body.as_ref();
    loop {
        match body {
            SetExpr::SetOperation { left, .. } => body = left.as_ref(),
            SetExpr::Query(query) => body = query.body.as_ref(),
            SetExpr::Select(select) => {
                return match select.projection.first()? {
                    SelectItem::UnnamedExpr(expr) if is_small(expr) => Some(column_name(expr)),
                    SelectItem::ExprWithAlias { alias, .. } => {
                        Some(column_name(&Expr::Identifier(alias.clone())))
                    }
                    _ => None,
                };
            }
            _ => return None,
        }
    }
}

/// The name of an expression without the tables in it.
fn column_name(expr: &Expr) -> String {
    let mut expr = expr.clone();
    let _ = VisitMut::visit(&mut expr, &mut WithoutCasts);
    let _ = VisitMut::visit(&mut expr, &mut Normal);
    expr.to_string()
}

fn without_brackets(expr: &Expr) -> &Expr {
    match expr {
        Expr::Nested(inner) => without_brackets(inner),
        other => other,
    }
}

/// A subquery as its meaning shows: names in lower case, and no brackets around it.
fn text_of(expr: &Expr) -> String {
    struct Lower;
    impl VisitorMut for Lower {
        type Break = ();

        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            let make_lower = |ident: &mut Ident| {
                if ident.quote_style.is_none() {
                    ident.value.make_ascii_lowercase();
                }
            };
            match expr {
                Expr::Identifier(ident) => make_lower(ident),
                Expr::CompoundIdentifier(parts) => parts.iter_mut().for_each(make_lower),
                _ => {}
            }
            ControlFlow::Continue(())
        }
    }
    let mut expr = without_brackets(expr).clone();
    let _ = VisitMut::visit(&mut expr, &mut Lower);
    expr.to_string()
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    #[track_caller]
    fn check(sql: &str, expected: &str) {
        let parser = Parser::new(&PostgreSqlDialect {}).try_with_sql(sql);
        let mut query = parser.unwrap().parse_query().unwrap();
        tell_apart(&mut query);
        assert_eq!(query.to_string(), expected);
    }

    #[track_caller]
    fn check_unchanged(sql: &str) {
        check(sql, sql);
    }

    #[test]
    fn two_subqueries_of_one_kind_are_called_by_their_texts() {
        check(
            "SELECT a IN (SELECT x FROM t), sum(CASE WHEN (B IN (SELECT x FROM t)) THEN 1 END) FROM u",
            "SELECT named_subquery(a IN (SELECT x FROM t), 'a IN (SELECT x FROM t)'), \
             sum(CASE WHEN named_subquery((B IN (SELECT x FROM t)), 'B IN (SELECT x FROM t)') \
             THEN 1 END) FROM u",
        );
        check(
            "SELECT (SELECT max(x) FROM t), (SELECT max(x) FROM v) FROM u",
            "SELECT named_subquery((SELECT max(x) FROM t), '(SELECT max(x) FROM t)'), \
             named_subquery((SELECT max(x) FROM v), '(SELECT max(x) FROM v)') FROM u",
        );
        check(
            "SELECT a = ANY(SELECT x FROM t), a = ANY(SELECT y FROM t) FROM u",
            "SELECT named_subquery(a = ANY(SELECT x FROM t), 'a = ANY(SELECT x FROM t)'), \
             named_subquery(a = ANY(SELECT y FROM t), 'a = ANY(SELECT y FROM t)') FROM u",
        );
    }

    #[test]
    fn rows_are_called_by_how_they_are_compared() {
        let row = |of: &str| format!("compare_rows('= ANY', a, b, EXISTS (SELECT x, y FROM {of}))");
        let named = |of: &str| {
            let name = format!("(a, b) = ANY (SELECT x, y FROM {of})");
            format!("named_subquery({}, '{name}')", row(of))
        };
        check(
            &format!("SELECT {}, {} FROM u", row("t"), row("v")),
            &format!("SELECT {}, {} FROM u", named("t"), named("v")),
        );
        check_unchanged(&format!("SELECT a FROM u HAVING {} AND {}", row("t"), row("v")));
    }

    #[test]
    fn what_has_different_names_or_the_same_text_stays() {
        check_unchanged("SELECT a IN (SELECT x FROM t), EXISTS (SELECT x FROM t) FROM u");
        check_unchanged("SELECT a IN (SELECT x FROM t), A IN (SELECT X FROM t) FROM u");
        check_unchanged("SELECT (SELECT max(x) FROM t), (SELECT min(x) FROM t) FROM u");
        check_unchanged("SELECT a IN (SELECT x FROM t WHERE y IN (SELECT x FROM t)) FROM u");
        check_unchanged("SELECT a IN (SELECT x FROM t) AS p, b IN (SELECT x FROM t) AS q FROM u");
        check_unchanged("SELECT a FROM u WHERE a IN (SELECT x FROM t) AND b IN (SELECT x FROM t)");
    }

    #[test]
    fn a_subquery_is_not_called_like_a_column_beside_it() {
        check(
            "SELECT u.x, (SELECT x FROM t) FROM u",
            "SELECT u.x, named_subquery((SELECT x FROM t), '(SELECT x FROM t)') FROM u",
        );
        check_unchanged("SELECT u.y, (SELECT x FROM t) FROM u");
    }

    #[test]
    fn keys_are_named_also_where_their_columns_are() {
        check(
            "SELECT EXISTS (SELECT 1 FROM t) AS p, EXISTS (SELECT 1 FROM v) AS q FROM u GROUP BY 1, 2",
            "SELECT named_subquery(EXISTS (SELECT 1 FROM t), 'EXISTS (SELECT 1 FROM t)') AS p, \
             named_subquery(EXISTS (SELECT 1 FROM v), 'EXISTS (SELECT 1 FROM v)') AS q \
             FROM u GROUP BY 1, 2",
        );
    }

    #[test]
    fn conditions_have_no_name_but_what_they_compute_has() {
        check_unchanged(
            "SELECT a FROM u GROUP BY a HAVING a IN (SELECT x FROM t) AND a IN (SELECT y FROM t)",
        );
        check(
            "SELECT 1 FROM u HAVING max(EXISTS (SELECT 1 FROM t)) AND min(EXISTS (SELECT 1 FROM v))",
            "SELECT 1 FROM u HAVING max(named_subquery(EXISTS (SELECT 1 FROM t), \
             'EXISTS (SELECT 1 FROM t)')) AND min(named_subquery(EXISTS (SELECT 1 FROM v), \
             'EXISTS (SELECT 1 FROM v)'))",
        );
    }

    #[test]
    fn long_names_are_cut_and_numbered() {
        let long = "x".repeat(NAME_CHARS_MAX);
        let sql = format!("SELECT (SELECT {long} FROM t), (SELECT {long} FROM v)");
        let mut query = Parser::new(&PostgreSqlDialect {}).try_with_sql(&sql).unwrap();
        let mut query = query.parse_query().unwrap();
        tell_apart(&mut query);
        let text = query.to_string();
        assert!(text.contains("... #1'") && text.contains("... #2'"), "{text}");
    }
}
