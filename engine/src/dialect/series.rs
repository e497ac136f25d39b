//! `generate_series` and `range` of columns of the tables before them.
//!
//! DataFusion's table functions take constants. The scalar functions of the same names make lists of any
//! columns, so
//!
//! ```text
//! FROM t, generate_series(1, t.n) g    becomes    FROM t, UNNEST(generate_series(1, t.n)) AS g(value)
//! ```
//! `value` is what the table function calls its column. Without columns it stays: it makes its rows one by
//! one, where a list is made as a whole.

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

/// Makes UNNEST of a table function that takes columns.
pub(super) fn unnest_lists(factor: &mut TableFactor) {
    let (name, arguments, alias) = match factor {
        TableFactor::Table { name, args: Some(arguments), alias, .. } => {
            (name, &arguments.args, alias)
        }
        TableFactor::Function { name, args, alias, .. } => (name, &*args, alias),
        _ => return,
    };
    let Some(function) = series(name) else { return };
    let Some(arguments) = arguments.iter().map(expression).collect::<Option<Vec<_>>>() else {
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
    *factor = TableFactor::UNNEST {
        alias: Some(alias),
        array_exprs: vec![call(function, arguments)],
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: false,
    };
}

fn series(name: &ObjectName) -> Option<&'static str> {
    let [ObjectNamePart::Identifier(name)] = name.0.as_slice() else { return None };
    SERIES.into_iter().find(|series| match name.quote_style {
        Some(_) => name.value == *series,
        None => name.value.eq_ignore_ascii_case(series),
    })
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
