//! What a query may contain: only what reads.
//!
//! Invariant: a query that passes [`check`] changes nothing and names no file as a target. PostgreSQL
//! lets `WITH` and `SELECT INTO` write; DataFusion plans some of that and ignores the rest.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement as DFStatement;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
    ObjectName, ObjectNamePart, OrderBy, Query, Select, SetExpr, SetOperator, SetQuantifier,
    Spanned, Statement as SqlStatement, TableFactor, Value, ValueWithSpan, Visit, VisitMut,
    Visitor, VisitorMut, WindowType,
};

use super::size;
use super::statement::Statement;
use super::syntax::position_of;
use super::{
    branches, casts, lateral, named_subqueries, named_windows, numbers, rows, series, similar,
    spellings, using,
};
use crate::error::{ErrorCode, SqlError, printable};
use crate::types::split_length;

/// Wraps a checked query as DataFusion's planner takes it.
pub(super) fn statement(query: Box<Query>) -> Statement {
    Statement::Query(DFStatement::Statement(Box::new(SqlStatement::Query(query))))
}

/// Refuses everything in a query that does more than read, and one that is too large to plan.
pub(super) fn check(query: &Query) -> Result<(), SqlError> {
    match query.visit(&mut ReadsOnly) {
        ControlFlow::Continue(()) => size::check(query),
        ControlFlow::Break(error) => Err(*error),
    }
}

/// Refuses everything in a lone expression that does more than read.
pub(super) fn check_expression(expression: &Expr) -> Result<(), SqlError> {
    match expression.visit(&mut ReadsOnly) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

/// Whether a chain of set operations has INTERSECT ALL or EXCEPT ALL, which DataFusion plans as
/// semi and anti joins: they keep every duplicate or none, where SQL counts them.
fn counts_duplicates(body: &SetExpr) -> bool {
    let mut bodies = vec![body];
    while let Some(body) = bodies.pop() {
        let SetExpr::SetOperation { op, set_quantifier, left, right } = body else { continue };
        let counted = !matches!(op, SetOperator::Union)
            && matches!(set_quantifier, SetQuantifier::All | SetQuantifier::AllByName);
        if counted {
            return true;
        }
        bodies.extend([left.as_ref(), right.as_ref()]);
    }
    false
}

struct ReadsOnly;

impl Visitor for ReadsOnly {
    type Break = Box<SqlError>;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        let Query { locks, for_clause, settings, format_clause, .. } = query;
        if !locks.is_empty() {
            return refuse("SELECT ... FOR UPDATE", "leave it out: a query reads one snapshot");
        }
        if for_clause.is_some() || settings.is_some() || format_clause.is_some() {
            return refuse("FOR XML, FOR JSON, SETTINGS or FORMAT in a query", "leave it out");
        }
        if counts_duplicates(&query.body) {
            let error = SqlError::new(
                ErrorCode::FeatureNotSupported,
                "INTERSECT ALL and EXCEPT ALL are not supported",
            );
            return ControlFlow::Break(Box::new(error.with_hint(
                "leave ALL out, or number equal rows with row_number() and compare the numbers too",
            )));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Self::Break> {
        match &select.into {
            None => ControlFlow::Continue(()),
            Some(into) => {
                let position = position_of(into.span());
                let mut error = not_supported("SELECT ... INTO")
                    .with_hint("use CREATE TABLE ... AS SELECT or INSERT INTO ... SELECT");
                error.position = position;
                ControlFlow::Break(Box::new(error))
            }
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Self::Break> {
        match unread_clause(factor) {
            Some((what, hint)) => refuse(what, hint),
            None => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_statement(&mut self, statement: &SqlStatement) -> ControlFlow<Self::Break> {
        match statement {
            SqlStatement::Query(_) => ControlFlow::Continue(()),
            _ => refuse(
                "a statement that changes data inside a query",
                "run it as a statement of its own; INSERT INTO t WITH ... SELECT puts WITH last",
            ),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        match expr {
            Expr::Collate { .. } => {
                let mut error = not_supported("COLLATE")
                    .with_hint("leave it out: texts are compared by their characters' numbers");
                error.position = position_of(expr.span());
                ControlFlow::Break(Box::new(error))
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<Self::Break> {
        let Value::Placeholder(text) = &value.value else { return ControlFlow::Continue(()) };
        if text.strip_prefix('$').is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit())) {
            return ControlFlow::Continue(());
        }
        let mut error = SqlError::new(
            ErrorCode::InvalidStatement,
            format!("parameter \"{}\" has a name", printable(text)),
        )
        .with_hint("write parameters as ? or as $1, $2, ...");
        error.position = position_of(value.span);
        ControlFlow::Break(Box::new(error))
    }
}

/// What is said of a relation that DataFusion reads over, and what to do instead.
fn unread_clause(factor: &TableFactor) -> Option<(&'static str, &'static str)> {
    const SAMPLE: (&str, &str) = ("TABLESAMPLE", "filter by random(): WHERE random() < 0.1");
    const ORDINALITY: (&str, &str) = ("WITH ORDINALITY", "number the rows with row_number()");
    const OTHER: (&str, &str) = ("a hint, a version or a part of a table", "leave it out");
    match factor {
        TableFactor::Table {
            name: _,
            alias: _,
            args,
            with_hints,
            version,
            with_ordinality,
            partitions,
            json_path,
            sample,
            index_hints,
        } => {
            let has_settings = args.as_ref().is_some_and(|args| args.settings.is_some());
            let has_other = !with_hints.is_empty()
                || version.is_some()
                || !partitions.is_empty()
                || json_path.is_some()
                || !index_hints.is_empty()
                || has_settings;
            match (sample.is_some(), *with_ordinality, has_other) {
                (true, _, _) => Some(SAMPLE),
                (_, true, _) => Some(ORDINALITY),
                (_, _, true) => Some(OTHER),
                _ => None,
            }
        }
        TableFactor::Derived { lateral: _, subquery: _, alias: _, sample } => {
            sample.is_some().then_some(SAMPLE)
        }
        TableFactor::Function { lateral: _, name: _, args: _, with_ordinality, alias: _ } => {
            with_ordinality.then_some(ORDINALITY)
        }
        _ => None,
    }
}

fn write_out_using(
    select: &mut Select,
    order_by: Option<&mut OrderBy>,
) -> ControlFlow<Box<SqlError>> {
    let Err(what) = using::write_out(select, order_by) else { return ControlFlow::Continue(()) };
    let mut error = not_supported(what)
        .with_hint("write ON a.c = b.c, name the columns, and take coalesce(a.c, b.c) for both");
    error.position = select.from.first().and_then(|from| position_of(from.span()));
    ControlFlow::Break(Box::new(error))
}

fn refuse(what: &str, hint: &str) -> ControlFlow<Box<SqlError>> {
    ControlFlow::Break(Box::new(not_supported(what).with_hint(hint)))
}

fn not_supported(what: &str) -> SqlError {
    SqlError::new(ErrorCode::FeatureNotSupported, format!("{what} is not supported"))
}

/// Table functions of ours, whose options have names.
const FILE_FUNCTIONS: [&str; 2] = ["read_parquet", "read_csv"];

/// Writes a query so that DataFusion plans what it means.
///
/// - It looks table functions up by the letter and takes no named arguments, so
///   `READ_CSV('x', header => false)` becomes `read_csv('x', 'header=false')`, which the function
///   reads again.
/// - Functions are called with brackets there, so `current_schema` gets them.
/// - It ignores the length of a text type, so `CAST(x AS VARCHAR(3))` becomes
///   `left(CAST(x AS VARCHAR), 3)`: a cast cuts, as in PostgreSQL.
/// - It names casts like what they cast (`casts`) and subqueries like each other (`named_subqueries`), reads
///   long numbers as DOUBLE where they become decimals (`numbers`), knows too little of windows by name
///   (`named_windows`), and does not read some of standard SQL (`spellings`).
/// - It compares rows as values that are never NULL (`rows`), has no series up to a column (`series`), and
///   has LATERAL right beside the tables it looks into only (`lateral`).
/// - It gives columns of later branches of a UNION names that they cannot have (`branches`).
pub(super) fn prepare(query: &mut Query) -> Result<(), SqlError> {
    match VisitMut::visit(query, &mut Prepare::default()) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

#[derive(Default)]
struct Prepare {
    /// Parts of expressions that comparisons of rows say again.
    repeated: usize,
}

impl VisitorMut for Prepare {
    type Break = Box<SqlError>;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        named_windows::write_out(query);
        spellings::fetch_as_limit(query);
        match query.body.as_mut() {
            SetExpr::Select(select) => write_out_using(select, query.order_by.as_mut()),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        write_out_using(select, None)
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        lateral::join_to_tables_before(select);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        casts::tell_apart(query);
        named_subqueries::tell_apart(query);
        branches::name_columns(query);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        numbers::make_cast_exact(expr);
        if let Err(what) = similar::mean_sql(expr) {
            let mut error = not_supported(what)
                .with_hint("write the pattern out, or use ~ and a regular expression");
            error.position = position_of(expr.span());
            return ControlFlow::Break(Box::new(error));
        }
        if let Err(what) = spellings::reword(expr) {
            let mut error = not_supported(what).with_hint("write the pattern out");
            error.position = position_of(expr.span());
            return ControlFlow::Break(Box::new(error));
        }
        if let Err(error) = rows::write_out(expr, &mut self.repeated) {
            return ControlFlow::Break(Box::new(error));
        }
        if let Expr::Identifier(name) = expr
            && name.quote_style.is_none()
            && name.value.eq_ignore_ascii_case("current_schema")
        {
            *expr = call("current_schema", vec![]);
        }
        if let Expr::Function(function) = expr
            && let Some(WindowType::WindowSpec(window)) = &function.over
            && let Some(name) = &window.window_name
        {
            // DataFusion would leave it out.
            let message = format!("window \"{}\" is not defined", printable(&name.value));
            let mut error = SqlError::new(ErrorCode::InvalidStatement, message)
                .with_hint("define it behind WINDOW: WINDOW w AS (PARTITION BY a)");
            error.position = position_of(name.span);
            return ControlFlow::Break(Box::new(error));
        }
        let Expr::Cast { data_type, array: false, .. } = expr else {
            return ControlFlow::Continue(());
        };
        match split_length(data_type) {
            Ok((plain, chars)) => {
                *data_type = plain;
                if let Some(chars) = chars {
                    cut(expr, chars);
                }
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        series::unnest_lists(factor);
        if let TableFactor::Table { name, args: Some(arguments), .. } = factor
            && let [ObjectNamePart::Identifier(ident)] = name.0.as_mut_slice()
        {
            if ident.quote_style.is_none() {
                ident.value.make_ascii_lowercase();
            }
            if FILE_FUNCTIONS.contains(&ident.value.as_str()) {
                arguments.args.iter_mut().for_each(name_in_text);
            }
        }
        ControlFlow::Continue(())
    }
}

/// `left(expr, chars)` in the place of `expr`.
fn cut(expr: &mut Expr, chars: u32) {
    let null = Expr::Value(Value::Null.with_empty_span());
    let text = std::mem::replace(expr, null);
    let length = Expr::Value(Value::Number(chars.to_string(), false).with_empty_span());
    *expr = call("left", vec![text, length]);
}

pub(super) fn call(function: &str, arguments: Vec<Expr>) -> Expr {
    let unnamed = |expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr));
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(function)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: arguments.into_iter().map(unnamed).collect(),
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

/// `header => false` as `'header=false'`; anything but a literal is left for DataFusion to refuse.
fn name_in_text(argument: &mut FunctionArg) {
    let (FunctionArg::Named { arg: FunctionArgExpr::Expr(value), .. }
    | FunctionArg::ExprNamed { arg: FunctionArgExpr::Expr(value), .. }) = argument
    else {
        return;
    };
    let value = value.clone();
    let name = match argument {
        FunctionArg::Named { name, .. } => name.clone(),
        FunctionArg::ExprNamed { name: Expr::Identifier(name), .. } => name.clone(),
        _ => return,
    };
    if let Some(text) = option_text(&name, &value) {
        let literal = Value::SingleQuotedString(text).with_span(name.span);
        *argument = FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(literal)));
    }
}

fn option_text(name: &Ident, value: &Expr) -> Option<String> {
    let Expr::Value(value) = value else { return None };
    let value = match &value.value {
        Value::SingleQuotedString(text) => text.clone(),
        Value::Boolean(switch) => switch.to_string(),
        _ => return None,
    };
    Some(format!("{}={value}", name.value))
}
