//! What a query may contain: only what reads.
//!
//! Invariant: a query that passes [`check`] changes nothing and names no file as a target. PostgreSQL
//! lets `WITH` and `SELECT INTO` write; DataFusion plans some of that and ignores the rest.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement as DFStatement;
use datafusion::sql::sqlparser::ast::{
    Query, Select, Spanned, Statement as SqlStatement, Value, ValueWithSpan, Visit,
    Visitor,
};

use super::statement::Statement;
use super::syntax::position_of;
use crate::error::{ErrorCode, SqlError, printable};

/// Wraps a checked query as DataFusion's planner takes it.
pub(super) fn statement(query: Box<Query>) -> Statement {
    Statement::Query(DFStatement::Statement(Box::new(SqlStatement::Query(query))))
}

/// Refuses everything in a query that does more than read.
pub(super) fn check(query: &Query) -> Result<(), SqlError> {
    match query.visit(&mut ReadsOnly) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
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

    fn pre_visit_statement(&mut self, statement: &SqlStatement) -> ControlFlow<Self::Break> {
        match statement {
            SqlStatement::Query(_) => ControlFlow::Continue(()),
            _ => refuse(
                "a statement that changes data inside a query",
                "run it as a statement of its own; INSERT INTO t WITH ... SELECT puts WITH last",
            ),
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

fn refuse(what: &str, hint: &str) -> ControlFlow<Box<SqlError>> {
    ControlFlow::Break(Box::new(not_supported(what).with_hint(hint)))
}

fn not_supported(what: &str) -> SqlError {
    SqlError::new(ErrorCode::FeatureNotSupported, format!("{what} is not supported"))
}

