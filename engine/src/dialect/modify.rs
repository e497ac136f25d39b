//! `DELETE` and `UPDATE`: one stored table, a condition, new values.
//!
//! Both are read as queries over the table they change, so that a condition or a value may be
//! anything that a query may contain, with the same checks and positions:
//!
//! ```text
//! DELETE FROM t WHERE p           rows    SELECT * FROM t WHERE p
//! UPDATE t SET c = e WHERE p      rows    SELECT * FROM t WHERE p
//!                                 values  SELECT e FROM t WHERE p
//! ```

use datafusion::sql::sqlparser::ast::{
    Expr, Query, SelectItem, SetExpr, TableFactor, TableWithJoins,
};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::names::{self, ObjectRef};
use super::parser::StatementParser;
use super::query;
use super::statement::Statement;
use crate::error::{ErrorCode, Position, SqlError};

/// Which rows of which table a statement changes.
#[derive(Debug, Clone)]
pub struct Rows {
    /// The table.
    pub table: ObjectRef,
    /// Where its name is.
    pub table_position: Position,
    /// The table as a FROM clause names it, with its alias.
    from: TableWithJoins,
    /// The condition; every row without one.
    pub condition: Option<Expr>,
}

/// `DELETE FROM t [WHERE condition]`.
#[derive(Debug, Clone)]
pub struct Delete {
    /// The rows that go.
    pub rows: Rows,
}

/// `UPDATE t SET column = value, ... [WHERE condition]`.
#[derive(Debug, Clone)]
pub struct Update {
    /// The rows that change.
    pub rows: Rows,
    /// What changes in them; of a column that is set more than once, the last counts.
    pub assignments: Vec<Assignment>,
}

/// `column = value`, or `column = DEFAULT`.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The column.
    pub column: String,
    /// Where its name is.
    pub position: Position,
    /// The new value, over the row as it was; `None` is the column's DEFAULT.
    pub value: Option<Expr>,
}

impl Rows {
    /// The rows as a query.
    pub fn query(&self) -> Result<Box<Query>, SqlError> {
        let all = SelectItem::Wildcard(Default::default());
        self.select(vec![all], self.condition.clone())
    }

    /// Some expressions over the rows that meet the condition.
    pub fn values_query(&self, values: Vec<SelectItem>) -> Result<Box<Query>, SqlError> {
        self.select(values, self.condition.clone())
    }

    /// Some expressions over all rows of the table, whatever the condition.
    pub fn values_of_all_query(&self, values: Vec<SelectItem>) -> Result<Box<Query>, SqlError> {
        self.select(values, None)
    }

    fn select(
        &self,
        projection: Vec<SelectItem>,
        condition: Option<Expr>,
    ) -> Result<Box<Query>, SqlError> {
        let internal = || SqlError::new(ErrorCode::Internal, "a query cannot be put together");
        // A query has many parts; the parser knows what each is when it is absent.
        let mut query = Parser::new(&datafusion::sql::sqlparser::dialect::GenericDialect {})
            .try_with_sql("SELECT 1")
            .and_then(|mut parser| parser.parse_query())
            .map_err(|_| internal())?;
        let SetExpr::Select(select) = query.body.as_mut() else { return Err(internal()) };
        select.projection = projection;
        select.from = vec![self.from.clone()];
        select.selection = condition;
        query::prepare(&mut query)?;
        Ok(query)
    }
}

/// `DELETE [FROM] t [[AS] alias] [WHERE condition]`.
pub(super) fn delete(parser: &mut StatementParser<'_>) -> Result<Statement, SqlError> {
    parser.expect_word("DELETE")?;
    parser.word("FROM");
    let (table, table_position, from) = target(parser)?;
    refuse_clauses(
        parser,
        "DELETE",
        &[("USING", "write the other tables into a subquery of WHERE")],
    )?;
    let condition = condition(parser)?;
    refuse_tail(parser, "DELETE")?;
    let rows = Rows { table, table_position, from, condition };
    check(&rows, vec![])?;
    Ok(Statement::Delete(Box::new(Delete { rows })))
}

/// `UPDATE t [[AS] alias] SET column = value | DEFAULT, ... [WHERE condition]`.
pub(super) fn update(parser: &mut StatementParser<'_>) -> Result<Statement, SqlError> {
    parser.expect_word("UPDATE")?;
    let (table, table_position, from) = target(parser)?;
    parser.expect_word("SET")?;
    let mut assignments = Vec::new();
    loop {
        assignments.push(assignment(parser)?);
        if !parser.token(&Token::Comma) {
            break;
        }
    }
    refuse_clauses(parser, "UPDATE", &[("FROM", "write SET column = (SELECT ...)")])?;
    let condition = condition(parser)?;
    refuse_tail(parser, "UPDATE")?;
    let rows = Rows { table, table_position, from, condition };
    let values = assignments.iter().filter_map(|new: &Assignment| new.value.clone());
    check(&rows, values.map(SelectItem::UnnamedExpr).collect())?;
    Ok(Statement::Update(Box::new(Update { rows, assignments })))
}

fn assignment(parser: &mut StatementParser<'_>) -> Result<Assignment, SqlError> {
    if *parser.peek_token(0) == Token::LParen {
        return Err(parser.refuse("UPDATE with a list of columns", "write column = value, ..."));
    }
    let (column, position) = parser.name()?;
    if *parser.peek_token(0) == Token::Period {
        return Err(parser.refuse("a qualified name in SET", "write the name of the column alone"));
    }
    parser.expect_token(&Token::Eq)?;
    let value = match parser.word("DEFAULT") {
        true => None,
        false => Some(parser.run(Parser::parse_expr)?),
    };
    Ok(Assignment { column, position, value })
}

/// The table, with its alias: nothing else may stand there.
fn target(
    parser: &mut StatementParser<'_>,
) -> Result<(ObjectRef, Position, TableWithJoins), SqlError> {
    let position = parser.position();
    let from = parser.run(Parser::parse_table_and_joins)?;
    let TableFactor::Table { name, args: None, sample: None, .. } = &from.relation else {
        return Err(
            SqlError::new(ErrorCode::SyntaxError, "the name of a table was expected").at(position)
        );
    };
    if !from.joins.is_empty() {
        let message = "one table at a time can be changed";
        return Err(SqlError::new(ErrorCode::FeatureNotSupported, message)
            .at(position)
            .with_hint("write the other tables into subqueries"));
    }
    let (table, position) = names::object_ref(name)?;
    Ok((table, position, from))
}

fn condition(parser: &mut StatementParser<'_>) -> Result<Option<Expr>, SqlError> {
    if !parser.word("WHERE") {
        return Ok(None);
    }
    parser.run(Parser::parse_expr).map(Some)
}

fn refuse_clauses(
    parser: &StatementParser<'_>,
    statement: &str,
    clauses: &[(&str, &str)],
) -> Result<(), SqlError> {
    let Some(next) = parser.peek_word(0) else { return Ok(()) };
    match clauses.iter().find(|(word, _)| next.eq_ignore_ascii_case(word)) {
        Some((word, hint)) => Err(parser.refuse(&format!("{statement} with {word}"), hint)),
        None => Ok(()),
    }
}

fn refuse_tail(parser: &StatementParser<'_>, statement: &str) -> Result<(), SqlError> {
    let hint = "leave it out";
    refuse_clauses(
        parser,
        statement,
        &[("RETURNING", hint), ("ORDER", hint), ("LIMIT", hint), ("RETURN", hint)],
    )
}

/// The same checks as of a query: its subqueries only read, and it is not too large to plan.
fn check(rows: &Rows, mut values: Vec<SelectItem>) -> Result<(), SqlError> {
    values.push(SelectItem::Wildcard(Default::default()));
    let query = rows.values_query(values)?;
    query::check(&query).map_err(|error| match error.position {
        None => error.at(rows.table_position),
        Some(_) => error,
    })
}
