//! Statements about the session: `SET`, `SHOW`, `EXPLAIN`, `DESCRIBE` and transactions.
//!
//! Invariant: `EXPLAIN` never writes, so `EXPLAIN ANALYZE` takes queries only.

use std::str::FromStr;

use datafusion::common::format::ExplainFormat;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::names::check_name;
use super::parser::StatementParser;
use super::statement::{Explain, Statement};
use crate::error::{ErrorCode, SqlError, printable};
use crate::settings::{SEARCH_PATH, is_setting};
use crate::types::identifier;

/// `EXPLAIN [ANALYZE] [VERBOSE] [FORMAT f] s` or `EXPLAIN (ANALYZE, VERBOSE, FORMAT f) s`.
pub(super) fn explain(parser: &mut StatementParser<'_>) -> Result<Statement, SqlError> {
    parser.expect_word("EXPLAIN")?;
    let mut options = ExplainOptions::default();
    if *parser.peek_token(0) == Token::LParen && options.begins_option(parser.peek_word(1)) {
        parser.expect_token(&Token::LParen)?;
        loop {
            if !options.parse_one(parser)? {
                return parser.expected("ANALYZE, VERBOSE or FORMAT");
            }
            if !parser.token(&Token::Comma) {
                break;
            }
        }
        parser.expect_token(&Token::RParen)?;
    } else {
        while options.parse_one(parser)? {}
    }
    let at = parser.position();
    let statement = parser.statement()?;
    let is_query = matches!(statement, Statement::Query(_));
    let has_plan = match &statement {
        Statement::Query(_) | Statement::Insert(_) | Statement::CopyFrom(_) => true,
        Statement::CreateTable(table) => table.query.is_some(),
        _ => false,
    };
    if !has_plan || (options.analyze && !is_query) {
        let analyze = if options.analyze { " ANALYZE" } else { "" };
        let kind = statement.kind();
        return Err(SqlError::new(
            ErrorCode::FeatureNotSupported,
            format!("EXPLAIN{analyze} of {kind} is not supported"),
        )
        .at(at)
        .with_hint(if has_plan {
            "use EXPLAIN without ANALYZE: explaining a statement must not change data"
        } else {
            "only statements with a query have a plan"
        }));
    }
    let ExplainOptions { analyze, verbose, format } = options;
    Ok(Statement::Explain(Explain { analyze, verbose, format, statement: Box::new(statement) }))
}

#[derive(Default)]
struct ExplainOptions {
    analyze: bool,
    verbose: bool,
    format: Option<ExplainFormat>,
}

impl ExplainOptions {
    fn begins_option(&self, word: Option<&str>) -> bool {
        word.is_some_and(|word| {
            ["ANALYZE", "VERBOSE", "FORMAT"].iter().any(|w| word.eq_ignore_ascii_case(w))
        })
    }

    /// Reads one option; `false` when there is none.
    fn parse_one(&mut self, parser: &mut StatementParser<'_>) -> Result<bool, SqlError> {
        if parser.word("ANALYZE") {
            self.analyze = on_or_off(parser);
        } else if parser.word("VERBOSE") {
            self.verbose = on_or_off(parser);
        } else if parser.word("FORMAT") {
            let at = parser.position();
            let name = match parser.next_token() {
                Token::Word(word) => word.value,
                Token::SingleQuotedString(text) => text,
                other => other.to_string(),
            };
            let format = ExplainFormat::from_str(&name).map_err(|_| {
                SqlError::new(
                    ErrorCode::InvalidParameter,
                    format!("EXPLAIN format \"{}\" does not exist", printable(&name)),
                )
                .at(at)
                .with_hint("formats are indent, tree, pgjson and graphviz")
            })?;
            self.format = Some(format);
        } else {
            return Ok(false);
        }
        Ok(true)
    }
}

/// PostgreSQL lets options be switched: `EXPLAIN (ANALYZE false)`.
fn on_or_off(parser: &mut StatementParser<'_>) -> bool {
    if parser.word("FALSE") || parser.word("OFF") {
        return false;
    }
    let _explicit = parser.word("TRUE") || parser.word("ON");
    true
}

/// `DESCRIBE [TABLE] t`.
pub(super) fn describe(parser: &mut StatementParser<'_>) -> Result<Statement, SqlError> {
    parser.next_token();
    if matches!(parser.peek_token(1), Token::Word(_)) {
        parser.word("TABLE");
    }
    Ok(Statement::Describe(parser.object_ref()?.0))
}

/// `SET [SESSION] name = | TO value`, `SET TIME ZONE [=] value`.
pub(super) fn set(parser: &mut StatementParser<'_>) -> Result<Statement, SqlError> {
    parser.expect_word("SET")?;
    if parser.peek_word(0).is_some_and(|w| w.eq_ignore_ascii_case("LOCAL"))
        && matches!(parser.peek_token(1), Token::Word(_))
    {
        return Err(parser.refuse("SET LOCAL", "use SET: it lasts as long as the connection"));
    }
    if matches!(parser.peek_token(1), Token::Word(_)) {
        parser.word("SESSION");
    }
    for word in ["TRANSACTION", "ROLE", "SESSION", "NAMES"] {
        let named = parser.peek_word(0).is_some_and(|w| w.eq_ignore_ascii_case(word));
        if named && matches!(parser.peek_token(1), Token::Word(_)) {
            return Err(parser.refuse(&format!("SET {word}"), "leave it out"));
        }
    }
    let name = if parser.words(&["TIME", "ZONE"]) {
        let _optional = parser.token(&Token::Eq);
        "timezone".to_owned()
    } else if parser.word("SCHEMA") {
        let _optional = parser.token(&Token::Eq) || parser.word("TO");
        SEARCH_PATH.to_owned()
    } else {
        let name = setting_name(parser)?;
        if !parser.token(&Token::Eq) && !parser.word("TO") {
            return parser.expected("= or TO");
        }
        name
    };
    if parser.word("DEFAULT") {
        return Ok(Statement::Reset { name: Some(name) });
    }
    if name == SEARCH_PATH {
        return Ok(Statement::Set { name, value: search_path(parser)? });
    }
    let mut value = setting_value(parser)?;
    while parser.token(&Token::Comma) {
        value.push_str(", ");
        value.push_str(&setting_value(parser)?);
    }
    Ok(Statement::Set { name, value })
}

/// Names of schemas, each as SQL writes it: a text in quotes is one name as it is.
fn search_path(parser: &mut StatementParser<'_>) -> Result<String, SqlError> {
    let mut path = Vec::new();
    loop {
        let at = parser.position();
        let name = match parser.peek_token(0) {
            Token::SingleQuotedString(_) => {
                let name = parser.string("a schema")?;
                check_name(&name).map_err(|error| error.at(at))?;
                name
            }
            _ => parser.name()?.0,
        };
        path.push(identifier(&name));
        if !parser.token(&Token::Comma) {
            return Ok(path.join(", "));
        }
    }
}

/// `RESET name | ALL`.
pub(super) fn reset(parser: &mut StatementParser<'_>) -> Result<Statement, SqlError> {
    parser.expect_word("RESET")?;
    if parser.word("SCHEMA") {
        return Ok(Statement::Reset { name: Some(SEARCH_PATH.to_owned()) });
    }
    let name = if parser.word("ALL") { None } else { Some(setting_name(parser)?) };
    Ok(Statement::Reset { name })
}

/// `SHOW ALL | TABLES | SCHEMAS | COLUMNS FROM t | CREATE TABLE t | CREATE VIEW v | name`.
pub(super) fn show(parser: &mut StatementParser<'_>) -> Result<Statement, SqlError> {
    parser.expect_word("SHOW")?;
    if parser.word("ALL") {
        return Ok(Statement::Show { name: None });
    }
    if parser.word("TABLES") {
        return Ok(Statement::ShowTables);
    }
    if parser.word("SCHEMAS") {
        return Ok(Statement::ShowSchemas);
    }
    if parser.word("COLUMNS") {
        if !parser.word("FROM") && !parser.word("IN") {
            return parser.expected("FROM and a table");
        }
        return Ok(Statement::ShowColumns(parser.object_ref()?.0));
    }
    if parser.words(&["TIME", "ZONE"]) {
        return Ok(Statement::Show { name: Some("timezone".to_owned()) });
    }
    if parser.words(&["CREATE", "TABLE"]) || parser.words(&["CREATE", "VIEW"]) {
        return Ok(Statement::ShowCreate(parser.object_ref()?.0));
    }
    for word in ["CREATE", "DATABASES", "FUNCTIONS", "INDEXES", "VIEWS"] {
        if parser.peek_word(0).is_some_and(|w| w.eq_ignore_ascii_case(word)) {
            return Err(parser.refuse(
                &format!("SHOW {word}"),
                "use SHOW TABLES, SHOW SCHEMAS, SHOW COLUMNS FROM t, SHOW CREATE TABLE t or information_schema",
            ));
        }
    }
    Ok(Statement::Show { name: Some(setting_name(parser)?) })
}

/// `BEGIN`, `COMMIT`, `ROLLBACK` and their other spellings.
pub(super) fn transaction(parser: &mut StatementParser<'_>) -> Result<Statement, SqlError> {
    let first = parser.peek_word(0).map(str::to_ascii_uppercase).unwrap_or_default();
    parser.next_token();
    let noise = parser.word("TRANSACTION") || parser.word("WORK");
    if first == "START" && !noise {
        return parser.expected("TRANSACTION");
    }
    Ok(match first.as_str() {
        "BEGIN" | "START" => {
            // ISOLATION LEVEL, READ ONLY and so on: transactions are refused as a whole later.
            while *parser.peek_token(0) != Token::EOF {
                if parser.peek_word(0).is_none() && *parser.peek_token(0) != Token::Comma {
                    return parser.expected("a transaction mode");
                }
                parser.next_token();
            }
            Statement::Begin
        }
        "COMMIT" | "END" => Statement::Commit,
        _ if parser.peek_word(0).is_some_and(|w| w.eq_ignore_ascii_case("TO")) => {
            return Err(parser.refuse("ROLLBACK TO", "leave it out"));
        }
        _ => Statement::Rollback,
    })
}

/// A setting's name: words joined by dots, lower case.
fn setting_name(parser: &mut StatementParser<'_>) -> Result<String, SqlError> {
    let (mut name, at) = parser.name()?;
    while parser.token(&Token::Period) {
        name.push('.');
        name.push_str(&parser.name()?.0);
    }
    let name = name.to_ascii_lowercase();
    // Some are other spellings of ours.
    if name.starts_with("datafusion.") && !is_setting(&name) {
        // Among them are memory limits and directories of the server.
        return Err(SqlError::new(
            ErrorCode::InvalidParameter,
            format!("setting \"{}\" cannot be read or changed", printable(&name)),
        )
        .at(at)
        .with_hint("SHOW ALL lists the settings there are"));
    }
    Ok(name)
}

/// A setting's value: a literal or one word, as text.
fn setting_value(parser: &mut StatementParser<'_>) -> Result<String, SqlError> {
    let sign = if parser.token(&Token::Minus) {
        "-"
    } else {
        let _plus_says_nothing = parser.token(&Token::Plus);
        ""
    };
    let text = match parser.peek_token(0) {
        Token::Number(digits, _) => format!("{sign}{digits}"),
        Token::SingleQuotedString(text) if sign.is_empty() => text.clone(),
        Token::Word(word) if sign.is_empty() => word.value.clone(),
        _ => return parser.expected("a value"),
    };
    parser.next_token();
    Ok(text)
}
