//! sqlparser's errors as [`SqlError`]: the one place that reads positions out of its messages.

use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Location, Span, TokenizerError};

use crate::error::{ErrorCode, Position, SqlError, lower_first, printable};

/// The position where a span begins; `None` for the empty span of made-up nodes.
pub(crate) fn position_of(span: Span) -> Option<Position> {
    position_at(span.start)
}

fn position_at(location: Location) -> Option<Position> {
    let Location { line, column } = location;
    (line > 0).then_some(Position { line, column })
}

/// A tokenizer's error.
pub(super) fn tokenizer_error(error: &TokenizerError) -> SqlError {
    let sql = syntax_error(&lower_first(error.message.trim_end_matches('.')));
    match position_at(error.location) {
        Some(position) => sql.at(position),
        None => sql,
    }
}

/// A parser's error; `end` is where the statement ends, for errors about the end of the text.
pub(crate) fn parser_error(error: &ParserError, end: Option<Position>) -> SqlError {
    let text = match error {
        ParserError::RecursionLimitExceeded => {
            return SqlError::new(
                ErrorCode::InvalidStatement,
                "the statement is nested too deeply",
            )
            .with_hint("split it with WITH clauses or views");
        }
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => text,
    };
    let (text, position) = split_position(text);
    let (message, at_end) = match expected_and_found(text) {
        Some((expected, "EOF")) => {
            (format!("the statement ends too early: expected {}", lower_first(expected)), true)
        }
        Some((expected, found)) => {
            (format!("unexpected \"{}\": expected {}", clip(found), lower_first(expected)), false)
        }
        None => (lower_first(text.trim_end_matches('.')), false),
    };
    let sql = syntax_error(&message);
    match position.or(if at_end { end } else { None }) {
        Some(position) => sql.at(position),
        None => sql,
    }
}

/// `... at Line: 1, Column: 8` split into text and position: sqlparser keeps no type for it.
fn split_position(text: &str) -> (&str, Option<Position>) {
    let parse = || {
        let (before, after) = text.rsplit_once(" at Line: ")?;
        let (line, column) = after.split_once(", Column: ")?;
        let column = column.trim_end_matches(|c: char| !c.is_ascii_digit());
        Some((before, Position { line: line.parse().ok()?, column: column.parse().ok()? }))
    };
    match parse() {
        Some((before, position)) => (before, Some(position)),
        None => (text, None),
    }
}

/// The two parts of `Expected: a, found: b`.
fn expected_and_found(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix("Expected: ")?.split_once(", found: ")
}

fn syntax_error(message: &str) -> SqlError {
    SqlError::new(ErrorCode::SyntaxError, format!("syntax error: {}", printable(message)))
}

/// The start of a token that may be as long as the statement.
fn clip(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let start: String = text.chars().take(CHARS_MAX).collect();
    if start.len() == text.len() { start } else { format!("{start}...") }
}
