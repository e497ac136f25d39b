//! `LABEL 'key'` at the end of a statement that writes: what its client calls it, so that sending
//! it again has no second effect.
//!
//! One rule for all statements: the last two words are a bare `LABEL` and a text in single quotes.
//! No statement ends like that otherwise, so that columns, tables and aliases of this name go on
//! to mean what they mean.
//!
//! Not here: what a key stands for (the coordinator's `statements/requests.rs`).

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::statement::{Label, Statement};
use super::syntax::position_of;
use super::tokens::TokenList;
use crate::error::{ErrorCode, Position, SqlError};

/// The longest label, in bytes: keys are kept in memory.
pub const LABEL_BYTES_MAX: usize = 255;

/// What is wrong with a text as the key of a request, if anything.
pub fn label_problem(key: &str) -> Option<&'static str> {
    if key.is_empty() {
        Some("is empty")
    } else if key.len() > LABEL_BYTES_MAX {
        Some("is longer than 255 bytes")
    } else if key.chars().any(char::is_control) {
        Some("has control characters")
    } else {
        None
    }
}

/// Takes the label off the end of a statement's tokens.
pub(super) fn take(list: &mut TokenList) -> Result<Option<Label>, SqlError> {
    let [first, .., word, text] = list.tokens.as_slice() else { return Ok(None) };
    let Token::SingleQuotedString(key) = &text.token else { return Ok(None) };
    if !is_label(word) {
        return Ok(None);
    }
    if let Some(problem) = label_problem(key) {
        let message = format!("the label {problem}");
        let error = SqlError::new(ErrorCode::InvalidParameter, message)
            .with_hint("a label has 1 to 255 bytes of UTF-8, none of which controls a terminal");
        return Err(located(error, text));
    }
    let label = Label {
        key: key.clone(),
        position: position_of(word.span).unwrap_or(list.start),
        text_bytes: list.slice(first.span.start, word.span.start).trim_end().len(),
    };
    list.tokens.truncate(list.tokens.len() - 2);
    Ok(Some(label))
}

/// Refuses a label on a statement that could not be remembered by it.
pub(super) fn check(statement: &Statement, label: Option<&Label>) -> Result<(), SqlError> {
    match label {
        Some(label) if !statement.is_write() => {
            let message = format!("{} takes no LABEL", statement.kind());
            Err(SqlError::new(ErrorCode::InvalidStatement, message).at(label.position).with_hint(
                "labels are for INSERT, COPY, UPDATE, DELETE, and CREATE and DROP of TABLE, VIEW \
                 and SCHEMA",
            ))
        }
        _ => Ok(()),
    }
}

/// Says where a label goes, in an error about one that is elsewhere or no text.
pub(super) fn explain(error: SqlError, list: &TokenList) -> SqlError {
    let at = |token: &TokenWithSpan| position_of(token.span) == error.position;
    let misplaced = list.tokens.iter().enumerate().any(|(index, token)| {
        // Behind a name that is `label`, only what looks like a key is about a label.
        let key = list.tokens.get(index + 1).filter(|next| is_key_like(next));
        is_label(token) && (at(token) || key.is_some_and(at))
    });
    if misplaced && error.position.is_some() && error.hint.is_none() {
        return error.with_hint("a label comes last, as a text in single quotes: LABEL 'key'");
    }
    error
}

fn is_label(token: &TokenWithSpan) -> bool {
    matches!(&token.token, Token::Word(word)
        if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("LABEL"))
}

/// What somebody may write for a key.
fn is_key_like(token: &TokenWithSpan) -> bool {
    match &token.token {
        Token::Word(word) => word.quote_style.is_some(),
        other => matches!(
            other,
            Token::SingleQuotedString(_)
                | Token::EscapedStringLiteral(_)
                | Token::NationalStringLiteral(_)
                | Token::DollarQuotedString(_)
                | Token::Placeholder(_)
                | Token::Number(..)
        ),
    }
}

fn located(error: SqlError, token: &TokenWithSpan) -> SqlError {
    let position: Option<Position> = position_of(token.span);
    SqlError { position, ..error }
}
