//! `generate_series` and `range` of columns of the tables before them.
//!
//! DataFusion's table functions take constants. The scalar functions of the same names make lists of any
//! columns, so
//!
//! ```text
//! FROM t, generate_series(1, t.n) g    becomes    FROM t, UNNEST(generate_series(1, t.n)) AS g(value)
//! ```
//! `value` is what the table function calls its column. Without columns it stays: it makes its rows one by
//! one, where a list is made as a whole. `LATERAL unnest(t.l)` is `UNNEST(t.l)`, which sees the tables
//! before it anyway.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, ObjectNamePart, TableAlias,
    TableAliasColumnDef, TableFactor, Visit, Visitor,
};

use super::query::call;

/// Table functions that are scalar functions, too.
const SERIES: [&str; 2] = ["generate_series", "range"];

/// The column of these functions.
const COLUMN: &str = "value";

/// Makes UNNEST of a table function that takes columns, and of `LATERAL unnest(...)`.
pub(super) fn unnest_lists(factor: &mut TableFactor) {
    let (name, arguments, alias) = match factor {
        TableFactor::Table { name, args: Some(arguments), alias, .. } => {
            (name, &arguments.args, alias)
        }
        TableFactor::Function { name, args, alias, .. } => (name, &*args, alias),
        _ => return,
    };
    let Some(arguments) = arguments.iter().map(expression).collect::<Option<Vec<_>>>() else {
        return;
    };
    if is_named(name, "unnest") {
        let alias = alias.take();
        *factor = unnest(alias, arguments);
        return;
    }
    let Some(function) = SERIES.into_iter().find(|function| is_named(name, function)) else {
        return;
    };
    if !arguments.iter().any(has_column) {
        return;
    }
    let mut alias = alias.take().unwrap_or_else(|| TableAlias {
        explicit: true,
        name: Ident::new(function),
        columns: vec![],
        at: None,
    });
    if alias.columns.is_empty() {
        alias.columns.push(TableAliasColumnDef::from_name(COLUMN));
    }
    *factor = unnest(Some(alias), vec![call(function, arguments)]);
}

fn unnest(alias: Option<TableAlias>, lists: Vec<Expr>) -> TableFactor {
    TableFactor::UNNEST {
        alias,
        array_exprs: lists,
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: false,
    }
}

fn is_named(name: &ObjectName, function: &str) -> bool {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(name)] => match name.quote_style {
            Some(_) => name.value == function,
            None => name.value.eq_ignore_ascii_case(function),
        },
        _ => false,
    }
}

fn expression(argument: &FunctionArg) -> Option<Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    }
}

fn has_column(expr: &Expr) -> bool {
    struct Columns;
    impl Visitor for Columns {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    expr.visit(&mut Columns).is_break()
}
