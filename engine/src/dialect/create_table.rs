//! `CREATE TABLE` with Redshift's attributes, in any order.
//!
//! ```text
//! CREATE [OR REPLACE] TABLE [IF NOT EXISTS] name
//!   [ ( column type [NOT NULL | NULL] [DEFAULT e] [ENCODE e] [key] [DISTKEY] [SORTKEY] | key, ... ) ]
//!   attribute* [ AS query attribute* ]
//! attribute: DISTSTYLE AUTO|EVEN|ALL|KEY   DISTKEY (column)
//!            [COMPOUND] SORTKEY (column, ...) | SORTKEY AUTO   REPLICAS n   ENCODE AUTO
//! ```
//!
//! Invariant: each attribute is given at most once, and what is given does not contradict itself;
//! attributes that would be ignored are refused.

use datafusion::sql::sqlparser::ast::ColumnOption;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::parser::StatementParser;
use super::statement::{
    ColumnSpec, CreateTable, DistributionSpec, KeySpec, KeySpecKind, Statement,
};
use super::{encode, keys, query};
use crate::error::{ErrorCode, Position, SqlError, did_you_mean, printable};

/// The most copies a table can ask for; clusters are smaller than this.
const REPLICAS_MAX: u32 = 16;

/// The most columns a table can have: what the Flight and Parquet metadata of it stay handy with.
const COLUMNS_MAX: usize = 20_000;

/// Parses what follows `CREATE [OR REPLACE]`.
pub(super) fn create_table(
    parser: &mut StatementParser<'_>,
    or_replace: bool,
) -> Result<Statement, SqlError> {
    let start = parser.position();
    parser.expect_word("TABLE")?;
    let if_not_exists = parser.words(&["IF", "NOT", "EXISTS"]);
    if if_not_exists && or_replace {
        return Err(contradiction("OR REPLACE and IF NOT EXISTS exclude each other", start));
    }
    let (name, name_position) = parser.object_ref()?;
    let mut attributes = Attributes::default();
    let mut keys = Vec::new();
    let columns = if *parser.peek_token(0) == Token::LParen {
        column_list(parser, &mut attributes, &mut keys)?
    } else {
        Vec::new()
    };
    attributes.parse_all(parser)?;
    let query = if parser.word("AS") {
        let mut tail = parser.split_off(trailing_attributes(parser.rest()));
        let query = parser.query()?;
        parser.expect_end()?;
        attributes.parse_all(&mut tail)?;
        std::mem::swap(parser, &mut tail);
        Some(query)
    } else {
        None
    };
    if columns.is_empty() && query.is_none() {
        return parser.expected("a list of columns or AS and a query");
    }
    attributes.check_columns(&columns)?;
    let distribution = attributes.distribution()?;
    Ok(Statement::CreateTable(Box::new(CreateTable {
        name,
        name_position,
        if_not_exists,
        or_replace,
        columns,
        distribution,
        sort_key: attributes.sort_key.unwrap_or_default().into_iter().map(|(n, _)| n).collect(),
        replicas: attributes.replicas,
        keys,
        query,
    })))
}

/// `( column type options, ... )`.
fn column_list(
    parser: &mut StatementParser<'_>,
    attributes: &mut Attributes,
    keys: &mut Vec<KeySpec>,
) -> Result<Vec<ColumnSpec>, SqlError> {
    parser.expect_token(&Token::LParen)?;
    let mut columns: Vec<ColumnSpec> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let mut inline_sort_key = Vec::new();
    loop {
        refuse_like(parser)?;
        if let Some(key) = keys::of_table(parser)? {
            keys.push(key);
            if parser.token(&Token::Comma) {
                continue;
            }
            break;
        }
        let (column, in_sort_key) = column(parser, attributes, keys)?;
        if !seen.insert(column.name.clone()) {
            return Err(contradiction(
                &format!("column \"{}\" is declared more than once", printable(&column.name)),
                column.position,
            ));
        }
        if in_sort_key {
            inline_sort_key.push((column.name.clone(), column.position));
        }
        columns.push(column);
        if columns.len() > COLUMNS_MAX {
            let message = format!("a table can have at most {COLUMNS_MAX} columns");
            return Err(SqlError::new(ErrorCode::InvalidStatement, message).at(parser.position()));
        }
        if !parser.token(&Token::Comma) {
            break;
        }
    }
    parser.expect_token(&Token::RParen)?;
    keys::apply(keys, &mut columns)?;
    if !inline_sort_key.is_empty() {
        attributes.sort_key = Some(inline_sort_key);
    }
    Ok(columns)
}

/// One column; tells whether it is marked `SORTKEY`.
fn column(
    parser: &mut StatementParser<'_>,
    attributes: &mut Attributes,
    keys: &mut Vec<KeySpec>,
) -> Result<(ColumnSpec, bool), SqlError> {
    let (name, position) = parser.name()?;
    if matches!(parser.peek_token(0), Token::Comma | Token::RParen) {
        return Err(SqlError::new(
            ErrorCode::SyntaxError,
            format!("syntax error: column \"{}\" has no type", printable(&name)),
        )
        .at(parser.position())
        .with_hint("name the columns of a query with AS in the query itself"));
    }
    let data_type = parser.run(Parser::parse_data_type)?;
    let mut not_null = None;
    let mut default = None;
    let mut encoding = None;
    let mut sort_key = false;
    loop {
        let at = parser.position();
        let twice = |what: &str| {
            contradiction(&format!("{what} is given twice for column \"{}\"", printable(&name)), at)
        };
        if parser.words(&["NOT", "NULL"]) {
            if not_null.replace(true).is_some() {
                return Err(twice("NULL or NOT NULL"));
            }
        } else if parser.word("NULL") {
            if not_null.replace(false).is_some() {
                return Err(twice("NULL or NOT NULL"));
            }
        } else if parser.peek_word(0).is_some_and(|word| word.eq_ignore_ascii_case("DEFAULT")) {
            if default.replace(default_value(parser)?).is_some() {
                return Err(twice("DEFAULT"));
            }
        } else if let Some(encode) = encode::encode(parser)? {
            if encoding.replace(encode).is_some() {
                return Err(twice("ENCODE"));
            }
        } else if parser.word("DISTKEY") {
            attributes.set_dist_key((name.clone(), at))?;
        } else if parser.word("SORTKEY") {
            sort_key = true;
        } else if let Some(key) = keys::of_column(parser, &(name.clone(), position))? {
            if key.kind == KeySpecKind::Primary && not_null == Some(false) {
                let what = printable(&name);
                return Err(contradiction(
                    &format!("column \"{what}\" is NULL and PRIMARY KEY"),
                    key.position,
                ));
            }
            keys.push(key);
        } else {
            break;
        }
    }
    refuse_column_option(parser)?;
    let not_null = not_null.unwrap_or(false);
    let encode = encoding.and_then(|(encoding, at)| Some((encoding?, at)));
    Ok((ColumnSpec { name, data_type, not_null, default, encode, position }, sort_key))
}

/// The text of what follows `DEFAULT`, and where it is.
fn default_value(parser: &mut StatementParser<'_>) -> Result<(String, Position), SqlError> {
    let mark = parser.text_mark(1);
    let position = parser.position_of_token(1);
    // sqlparser's production, because it does not take `1 NOT NULL` for an expression.
    match parser.run(Parser::parse_optional_column_option)? {
        Some(ColumnOption::Default(value)) => {
            query::check_expression(&value).map_err(|error| SqlError {
                position: error.position.or(Some(position)),
                ..error
            })?;
            Ok((parser.text_since(mark), position))
        }
        _ => parser.expected("an expression"),
    }
}

fn refuse_like(parser: &StatementParser<'_>) -> Result<(), SqlError> {
    match parser.peek_word(0) {
        Some(word) if word.eq_ignore_ascii_case("LIKE") => {
            Err(parser.refuse("CREATE TABLE with LIKE", "list the columns, or use AS"))
        }
        _ => Ok(()),
    }
}

fn refuse_column_option(parser: &StatementParser<'_>) -> Result<(), SqlError> {
    let Some(word) = parser.peek_word(0).map(str::to_ascii_uppercase) else { return Ok(()) };
    match word.as_str() {
        "IDENTITY" | "GENERATED" | "AUTO_INCREMENT" | "AS" | "COLLATE" | "COMMENT" => {
            Err(parser.refuse(&word, "leave it out"))
        }
        _ => Ok(()),
    }
}

/// How many of the last tokens are attributes after `AS query`.
///
/// Looked for before the query is parsed, because in `SELECT * FROM t DISTSTYLE ALL` a query
/// parser takes `DISTSTYLE` for an alias of `t`.
fn trailing_attributes(tokens: &[TokenWithSpan]) -> usize {
    let mut depth = 0_usize;
    for (index, TokenWithSpan { token, .. }) in tokens.iter().enumerate() {
        match token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            Token::Word(word)
                if depth == 0
                    && word.quote_style.is_none()
                    && ATTRIBUTE_WORDS.iter().any(|w| word.value.eq_ignore_ascii_case(w)) =>
            {
                let tail = tokens.get(index..).unwrap_or_default();
                if index > 0 && looks_like_attributes(tail) {
                    return tail.len();
                }
            }
            _ => {}
        }
    }
    0
}

const ATTRIBUTE_WORDS: &[&str] =
    &["DISTSTYLE", "DISTKEY", "COMPOUND", "INTERLEAVED", "SORTKEY", "REPLICAS", "ENCODE"];

/// Whether tokens have the shape of attributes to their end; what is in brackets is not looked at.
fn looks_like_attributes(mut tokens: &[TokenWithSpan]) -> bool {
    fn word(tokens: &[TokenWithSpan], n: usize) -> Option<&str> {
        match &tokens.get(n)?.token {
            Token::Word(word) if word.quote_style.is_none() => Some(&word.value),
            _ => None,
        }
    }
    fn brackets(tokens: &[TokenWithSpan], from: usize) -> Option<usize> {
        (tokens.get(from)?.token == Token::LParen).then_some(())?;
        let length = tokens.get(from..)?.iter().position(|t| t.token == Token::RParen)?;
        Some(from + length + 1)
    }
    while !tokens.is_empty() {
        let Some(first) = word(tokens, 0).map(str::to_ascii_uppercase) else { return false };
        let taken = match first.as_str() {
            "DISTSTYLE" => word(tokens, 1).map(|_| 2),
            "DISTKEY" => brackets(tokens, 1),
            "ENCODE" if word(tokens, 1).is_some_and(|w| w.eq_ignore_ascii_case("AUTO")) => Some(2),
            "SORTKEY" if word(tokens, 1).is_some_and(|w| w.eq_ignore_ascii_case("AUTO")) => Some(2),
            "SORTKEY" => brackets(tokens, 1),
            "COMPOUND" | "INTERLEAVED"
                if word(tokens, 1).is_some_and(|w| w.eq_ignore_ascii_case("SORTKEY")) =>
            {
                brackets(tokens, 2)
            }
            "REPLICAS" => tokens.get(1).filter(|t| matches!(t.token, Token::Number(..))).map(|_| 2),
            _ => None,
        };
        match taken.and_then(|taken| tokens.get(taken..)) {
            Some(rest) => tokens = rest,
            None => return false,
        }
    }
    true
}

/// What attributes said so far.
#[derive(Default)]
struct Attributes {
    style: Option<(String, Position)>,
    dist_key: Option<(String, Position)>,
    sort_key: Option<Vec<(String, Position)>>,
    replicas: Option<u32>,
}

impl Attributes {
    /// Reads attributes as long as there are any.
    fn parse_all(&mut self, parser: &mut StatementParser<'_>) -> Result<(), SqlError> {
        loop {
            let at = parser.position();
            if parser.word("DISTSTYLE") {
                self.parse_style(parser, at)?;
            } else if parser.word("DISTKEY") {
                let key = match <[_; 1]>::try_from(parser.name_list()?) {
                    Ok([key]) => key,
                    Err(_) => return Err(contradiction("DISTKEY takes exactly one column", at)),
                };
                self.set_dist_key(key)?;
            } else if parser.word("REPLICAS") {
                let replicas = replicas(parser)?;
                if self.replicas.replace(replicas).is_some() {
                    return Err(contradiction("REPLICAS is given twice", at));
                }
            } else if let Some((encoding, at)) = encode::encode(parser)? {
                // AUTO is what columns have that declare nothing, so it needs no memory.
                if encoding.is_some() {
                    let message = "a table has no encoding but AUTO: each column has its own";
                    return Err(SqlError::new(ErrorCode::InvalidStatement, message)
                        .at(at)
                        .with_hint("write ENCODE after the column's type"));
                }
            } else if parser.word("INTERLEAVED") {
                let hint = "use SORTKEY with the most selective column first";
                return Err(SqlError::new(
                    ErrorCode::FeatureNotSupported,
                    "INTERLEAVED SORTKEY is not supported",
                )
                .at(at)
                .with_hint(hint));
            } else if parser.words(&["COMPOUND", "SORTKEY"]) || parser.word("SORTKEY") {
                let key = if parser.word("AUTO") { Vec::new() } else { parser.name_list()? };
                if self.sort_key.replace(key).is_some() {
                    return Err(contradiction("SORTKEY is given twice", at));
                }
            } else {
                return Ok(());
            }
        }
    }

    fn parse_style(
        &mut self,
        parser: &mut StatementParser<'_>,
        at: Position,
    ) -> Result<(), SqlError> {
        let style = parser.peek_word(0).map(str::to_ascii_uppercase).unwrap_or_default();
        if !matches!(style.as_str(), "AUTO" | "EVEN" | "ALL" | "KEY") {
            return parser.expected("AUTO, EVEN, ALL or KEY");
        }
        parser.next_token();
        if self.style.replace((style, at)).is_some() {
            return Err(contradiction("DISTSTYLE is given twice", at));
        }
        Ok(())
    }

    fn set_dist_key(&mut self, key: (String, Position)) -> Result<(), SqlError> {
        let at = key.1;
        if self.dist_key.replace(key).is_some() {
            return Err(contradiction("DISTKEY is given twice", at));
        }
        Ok(())
    }

    /// Keys must name declared columns; without declared columns the planner checks them.
    fn check_columns(&self, columns: &[ColumnSpec]) -> Result<(), SqlError> {
        if columns.is_empty() {
            return Ok(());
        }
        let names = || columns.iter().map(|column| column.name.as_str());
        for (key, position) in self.dist_key.iter().chain(self.sort_key.iter().flatten()) {
            if !names().any(|name| name == key) {
                let error = SqlError::new(
                    ErrorCode::UndefinedColumn,
                    format!("column \"{}\" does not exist in the new table", printable(key)),
                );
                return Err(did_you_mean(error.at(*position), key, names()));
            }
        }
        Ok(())
    }

    /// Style and key as one thing.
    fn distribution(&self) -> Result<Option<DistributionSpec>, SqlError> {
        match (&self.style, &self.dist_key) {
            (None, None) => Ok(None),
            (None, Some((key, _))) => Ok(Some(DistributionSpec::Key(key.clone()))),
            (Some((style, at)), key) => match (style.as_str(), key) {
                ("KEY", Some((key, _))) => Ok(Some(DistributionSpec::Key(key.clone()))),
                ("KEY", None) => Err(contradiction("DISTSTYLE KEY needs a DISTKEY", *at)
                    .with_hint("add DISTKEY (column)")),
                ("AUTO", None) => Ok(Some(DistributionSpec::Auto)),
                ("EVEN", None) => Ok(Some(DistributionSpec::Even)),
                ("ALL", None) => Ok(Some(DistributionSpec::All)),
                (style, _) => {
                    Err(contradiction(&format!("DISTSTYLE {style} cannot have a DISTKEY"), *at)
                        .with_hint("leave one of them out"))
                }
            },
        }
    }
}

fn replicas(parser: &mut StatementParser<'_>) -> Result<u32, SqlError> {
    let at = parser.position();
    let number = parser.run(Parser::parse_literal_uint)?;
    match u32::try_from(number) {
        Ok(replicas @ 1..=REPLICAS_MAX) => Ok(replicas),
        _ => Err(SqlError::new(
            ErrorCode::InvalidParameter,
            format!("REPLICAS {number} is not between 1 and {REPLICAS_MAX}"),
        )
        .at(at)),
    }
}

fn contradiction(message: &str, position: Position) -> SqlError {
    SqlError::new(ErrorCode::InvalidStatement, message).at(position)
}
