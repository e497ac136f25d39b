//! Keys of `CREATE TABLE`: `PRIMARY KEY`, `UNIQUE` and `FOREIGN KEY`.
//!
//! ```text
//! column:  [CONSTRAINT name] PRIMARY KEY | UNIQUE | REFERENCES t [(column)]   [NOT ENFORCED]
//! table:   [CONSTRAINT name] PRIMARY KEY (columns) | UNIQUE (columns)
//!          | FOREIGN KEY (columns) REFERENCES t [(columns)]                   [NOT ENFORCED]
//! ```
//! Invariant: a key says nothing that this engine would have to do and does not: what asks for an
//! action or for enforcement is refused, and so is `CHECK`.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::parser::StatementParser;
use super::statement::{ColumnSpec, KeySpec, KeySpecKind};
use crate::error::{ErrorCode, Position, SqlError, did_you_mean, printable};

/// Keys of one table: each takes a line of the catalog.
const KEYS_MAX: usize = 1_000;

/// What to do instead of a CHECK constraint.
const CHECK_HINT: &str =
    "leave it out, and load what passes: INSERT INTO t SELECT ... WHERE condition";

/// What to do about a key that asks for more than to be remembered.
const KEY_HINT: &str = "leave it out: keys are kept and shown, and not enforced";

/// A key in a column's declaration: `None` when none follows.
pub(super) fn of_column(
    parser: &mut StatementParser<'_>,
    column: &(String, Position),
) -> Result<Option<KeySpec>, SqlError> {
    let position = parser.position();
    let name = constraint_name(parser)?;
    let kind = if parser.words(&["PRIMARY", "KEY"]) {
        KeySpecKind::Primary
    } else if parser.word("UNIQUE") {
        KeySpecKind::Unique
    } else if parser.word("REFERENCES") {
        references(parser)?
    } else {
        return refused(parser, name.is_some());
    };
    enforcement(parser)?;
    Ok(Some(KeySpec { name, kind, columns: vec![column.clone()], position }))
}

/// A key among the columns of a table: `None` when a column follows.
pub(super) fn of_table(parser: &mut StatementParser<'_>) -> Result<Option<KeySpec>, SqlError> {
    if !begins_constraint(parser) {
        return Ok(None);
    }
    let position = parser.position();
    let name = constraint_name(parser)?;
    let (kind, columns) = if parser.words(&["PRIMARY", "KEY"]) {
        (KeySpecKind::Primary, parser.name_list()?)
    } else if parser.word("UNIQUE") {
        (KeySpecKind::Unique, parser.name_list()?)
    } else if parser.words(&["FOREIGN", "KEY"]) {
        let columns = parser.name_list()?;
        parser.expect_word("REFERENCES")?;
        (references(parser)?, columns)
    } else {
        return refused(parser, true);
    };
    enforcement(parser)?;
    Ok(Some(KeySpec { name, kind, columns, position }))
}

/// Whether what follows is a constraint and not a column that is called like one.
fn begins_constraint(parser: &StatementParser<'_>) -> bool {
    let word = |n| parser.peek_word(n).map(str::to_ascii_uppercase).unwrap_or_default();
    let bracket = *parser.peek_token(1) == Token::LParen;
    match word(0).as_str() {
        "PRIMARY" | "FOREIGN" => word(1) == "KEY",
        "UNIQUE" | "CHECK" | "EXCLUDE" => bracket || word(1) == "USING",
        "CONSTRAINT" => {
            matches!(word(2).as_str(), "PRIMARY" | "UNIQUE" | "FOREIGN" | "CHECK" | "EXCLUDE")
        }
        _ => false,
    }
}

fn constraint_name(parser: &mut StatementParser<'_>) -> Result<Option<String>, SqlError> {
    Ok(if parser.word("CONSTRAINT") { Some(parser.name()?.0) } else { None })
}

/// `t [(columns)]`, after `REFERENCES`.
fn references(parser: &mut StatementParser<'_>) -> Result<KeySpecKind, SqlError> {
    let (table, _) = parser.object_ref()?;
    let columns = match parser.peek_token(0) {
        Token::LParen => parser.name_list()?.into_iter().map(|(name, _)| name).collect(),
        _ => Vec::new(),
    };
    Ok(KeySpecKind::Foreign { table, columns })
}

/// A constraint that is none of the keys.
fn refused(parser: &mut StatementParser<'_>, named: bool) -> Result<Option<KeySpec>, SqlError> {
    let word = parser.peek_word(0).map(str::to_ascii_uppercase).unwrap_or_default();
    match word.as_str() {
        "CHECK" => Err(parser.refuse("CHECK", CHECK_HINT)),
        "EXCLUDE" => Err(parser.refuse("EXCLUDE", "leave it out")),
        _ if named => parser.expected("PRIMARY KEY, UNIQUE, FOREIGN KEY or REFERENCES"),
        _ => Ok(None),
    }
}

/// `NOT ENFORCED` says what is so anyway; everything else that can follow a key does not.
fn enforcement(parser: &mut StatementParser<'_>) -> Result<(), SqlError> {
    if parser.words(&["NOT", "ENFORCED"]) {
        return Ok(());
    }
    let second = parser.peek_word(1).map(str::to_ascii_uppercase).unwrap_or_default();
    let Some(word) = parser.peek_word(0).map(str::to_ascii_uppercase) else { return Ok(()) };
    match word.as_str() {
        "ON" | "MATCH" => Err(parser.refuse(&format!("{word} {second}"), KEY_HINT)),
        "ENFORCED" | "DEFERRABLE" | "INITIALLY" | "AUTOINCREMENT" | "ASC" | "DESC" => {
            Err(parser.refuse(&word, KEY_HINT))
        }
        "NOT" if second == "DEFERRABLE" => Err(parser.refuse("NOT DEFERRABLE", KEY_HINT)),
        _ => Ok(()),
    }
}

/// Checks the keys against the columns, and makes those of the primary key NOT NULL.
pub(super) fn apply(keys: &[KeySpec], columns: &mut [ColumnSpec]) -> Result<(), SqlError> {
    let primary = |key: &&KeySpec| key.kind == KeySpecKind::Primary;
    if let Some(second) = keys.iter().filter(primary).nth(1) {
        let message = "a table can have one PRIMARY KEY";
        return Err(SqlError::new(ErrorCode::InvalidStatement, message)
            .at(second.position)
            .with_hint("make the other one UNIQUE"));
    }
    if let Some(key) = keys.get(KEYS_MAX) {
        let message = format!("a table can have at most {KEYS_MAX} keys");
        return Err(SqlError::new(ErrorCode::InvalidStatement, message).at(key.position));
    }
    for key in keys {
        for (name, position) in &key.columns {
            let Some(column) = columns.iter_mut().find(|column| column.name == *name) else {
                let message =
                    format!("column \"{}\" does not exist in the new table", printable(name));
                let error = SqlError::new(ErrorCode::UndefinedColumn, message).at(*position);
                let names = columns.iter().map(|column| column.name.as_str());
                return Err(did_you_mean(error, name, names));
            };
            if key.kind == KeySpecKind::Primary {
                column.not_null = true;
            }
        }
        check_width(key)?;
    }
    Ok(())
}

/// A foreign key has as many columns as it refers to.
fn check_width(key: &KeySpec) -> Result<(), SqlError> {
    let KeySpecKind::Foreign { columns, .. } = &key.kind else { return Ok(()) };
    if columns.is_empty() || columns.len() == key.columns.len() {
        return Ok(());
    }
    let message = format!(
        "the foreign key has {} columns and refers to {}",
        key.columns.len(),
        columns.len()
    );
    Err(SqlError::new(ErrorCode::InvalidStatement, message).at(key.position))
}
