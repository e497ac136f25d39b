//! `WITH CONSISTENCY all | quorum | one` at the end of a statement that changes rows, before its
//! `LABEL`: how many copies must be durable when it is acknowledged, whatever the session has set.
//!
//! No statement ends in these words otherwise, so that columns and tables of this name go on to
//! mean what they mean.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::statement::Statement;
use super::syntax::position_of;
use super::tokens::TokenList;
use crate::error::{ErrorCode, Position, SqlError};
use crate::settings::WriteConsistency;

/// The clause and where it is.
pub(super) type Clause = (WriteConsistency, Position);

/// Takes the clause off the end of a statement's tokens.
pub(super) fn take(list: &mut TokenList) -> Result<Option<Clause>, SqlError> {
    let [_, .., with, word, value] = list.tokens.as_slice() else { return Ok(None) };
    if !is_word(with, "WITH") || !is_word(word, "CONSISTENCY") {
        return Ok(None);
    }
    let name = match &value.token {
        Token::Word(word) => &word.value,
        Token::SingleQuotedString(text) => text,
        _ => return Ok(None),
    };
    let located = |error| SqlError { position: position_of(value.span), ..error };
    let consistency = WriteConsistency::parse(name).map_err(located)?;
    let position = position_of(with.span).unwrap_or(list.start);
    list.tokens.truncate(list.tokens.len() - 3);
    Ok(Some((consistency, position)))
}

/// Refuses the clause on a statement that writes no copies.
pub(super) fn check(statement: &Statement, clause: Option<Clause>) -> Result<(), SqlError> {
    match clause {
        Some((_, position)) if !statement.changes_rows() => {
            let message = format!("{} takes no WITH CONSISTENCY", statement.kind());
            let error = SqlError::new(ErrorCode::InvalidStatement, message).at(position);
            Err(error.with_hint("it is for INSERT, COPY, UPDATE, DELETE and CREATE TABLE AS"))
        }
        _ => Ok(()),
    }
}

fn is_word(token: &TokenWithSpan, word: &str) -> bool {
    matches!(&token.token, Token::Word(found)
        if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word))
}
