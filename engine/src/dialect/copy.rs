//! `COPY t [(columns)] FROM 'path' options`.
//!
//! Options come bare, as in Redshift (`FORMAT AS CSV DELIMITER '|' IGNOREHEADER 1`), or in
//! brackets, as in PostgreSQL (`WITH (FORMAT csv, HEADER false, NULL '\N')`).
//!
//! Invariant: nothing here opens the path, and an option is known and given once or is an error.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::parser::{StatementParser, unsupported};
use super::statement::{CopyFrom, Statement};
use crate::error::{ErrorCode, Position, SqlError};
use crate::files::{CsvOptions, FileFormat};

/// Parses a `COPY`; only the direction into a table exists.
pub(super) fn copy(
    parser: &mut StatementParser<'_>,
    start: Position,
) -> Result<Statement, SqlError> {
    parser.expect_word("COPY")?;
    if *parser.peek_token(0) == Token::LParen {
        return Err(unsupported("COPY TO", start));
    }
    if parser.word("INTO") {
        return Err(unsupported("COPY INTO", start));
    }
    let (table, table_position) = parser.object_ref()?;
    let columns = if *parser.peek_token(0) == Token::LParen {
        Some(parser.name_list()?.into_iter().map(|(name, _)| name).collect())
    } else {
        None
    };
    if parser.peek_word(0).is_some_and(|word| word.eq_ignore_ascii_case("TO")) {
        return Err(unsupported("COPY TO", start));
    }
    parser.expect_word("FROM")?;
    for word in ["STDIN", "PROGRAM"] {
        if parser.peek_word(0).is_some_and(|w| w.eq_ignore_ascii_case(word)) {
            return Err(parser.refuse(
                &format!("COPY FROM {word}"),
                "upload files of the client with `basalt load`",
            ));
        }
    }
    let path = parser.string("a path in single quotes")?;
    let mut options = Options::default();
    options.parse_all(parser)?;
    let (format, options) = options.finish()?;
    Ok(Statement::CopyFrom(CopyFrom { table, table_position, columns, path, format, options }))
}

/// Options met so far.
#[derive(Default)]
struct Options {
    format: Option<FileFormat>,
    csv: CsvOptions,
    /// Names of the options given, and where the first one that only CSV has is.
    seen: Vec<&'static str>,
    csv_only: Option<(&'static str, Position)>,
}

impl Options {
    fn parse_all(&mut self, parser: &mut StatementParser<'_>) -> Result<(), SqlError> {
        let with = parser.word("WITH");
        if parser.token(&Token::LParen) {
            loop {
                self.parse_one(parser)?;
                if !parser.token(&Token::Comma) {
                    break;
                }
            }
            return parser.expect_token(&Token::RParen);
        }
        if with && *parser.peek_token(0) == Token::EOF {
            return parser.expected("an option");
        }
        while *parser.peek_token(0) != Token::EOF {
            self.parse_one(parser)?;
        }
        Ok(())
    }

    fn parse_one(&mut self, parser: &mut StatementParser<'_>) -> Result<(), SqlError> {
        let at = parser.position();
        let word = parser.peek_word(0).map(str::to_ascii_uppercase).unwrap_or_default();
        match word.as_str() {
            "FORMAT" => {
                parser.next_token();
                parser.word("AS");
                self.once("FORMAT", at)?;
                self.format = Some(format(parser)?);
            }
            "PARQUET" | "CSV" => {
                self.once("FORMAT", at)?;
                self.format = Some(format(parser)?);
            }
            "HEADER" => {
                self.csv_option(parser, "HEADER", at)?;
                self.csv.header = switch(parser);
            }
            "IGNOREHEADER" => {
                self.csv_option(parser, "HEADER", at)?;
                self.csv.header = ignore_header(parser)?;
            }
            "DELIMITER" => {
                self.csv_option(parser, "DELIMITER", at)?;
                self.csv.delimiter = character(parser, "DELIMITER")?;
            }
            "QUOTE" => {
                self.csv_option(parser, "QUOTE", at)?;
                self.csv.quote = character(parser, "QUOTE")?;
            }
            "ESCAPE" => {
                self.csv_option(parser, "ESCAPE", at)?;
                self.csv.escape = Some(character(parser, "ESCAPE")?);
            }
            "NULL" => {
                self.csv_option(parser, "NULL", at)?;
                self.csv.null = parser.string("the text that means NULL, in single quotes")?;
            }
            _ => {
                return parser.expected(
                    "FORMAT, HEADER, DELIMITER, NULL, QUOTE, ESCAPE or the end of the statement",
                );
            }
        }
        Ok(())
    }

    /// Reads the name of an option that only CSV has, and the `AS` after it.
    fn csv_option(
        &mut self,
        parser: &mut StatementParser<'_>,
        name: &'static str,
        at: Position,
    ) -> Result<(), SqlError> {
        parser.next_token();
        parser.word("AS");
        self.csv_only = self.csv_only.or(Some((name, at)));
        self.once(name, at)
    }

    fn once(&mut self, name: &'static str, at: Position) -> Result<(), SqlError> {
        if self.seen.contains(&name) {
            let message = format!("COPY option {name} is given twice");
            return Err(SqlError::new(ErrorCode::InvalidStatement, message).at(at));
        }
        self.seen.push(name);
        Ok(())
    }

    fn finish(self) -> Result<(Option<FileFormat>, CsvOptions), SqlError> {
        match (self.format, self.csv_only) {
            (Some(FileFormat::Parquet), Some((name, at))) => Err(SqlError::new(
                ErrorCode::InvalidStatement,
                format!("COPY option {name} is for CSV and the format is Parquet"),
            )
            .at(at)),
            // Options that only CSV has say what the format is.
            (None, Some(_)) => Ok((Some(FileFormat::Csv), self.csv)),
            (format, _) => Ok((format, self.csv)),
        }
    }
}

fn format(parser: &mut StatementParser<'_>) -> Result<FileFormat, SqlError> {
    let name = match parser.peek_token(0) {
        Token::Word(word) => word.value.clone(),
        Token::SingleQuotedString(text) => text.clone(),
        _ => return parser.expected("PARQUET or CSV"),
    };
    match FileFormat::from_name(&name) {
        Some(format) => {
            parser.next_token();
            Ok(format)
        }
        None => {
            Err(parser.refuse(&format!("format {}", name.to_uppercase()), "use PARQUET or CSV"))
        }
    }
}

/// `HEADER`, `HEADER true`, `HEADER false`.
fn switch(parser: &mut StatementParser<'_>) -> bool {
    if parser.word("FALSE") || parser.word("OFF") {
        return false;
    }
    let _explicit = parser.word("TRUE") || parser.word("ON");
    true
}

/// Redshift's `IGNOREHEADER n`: how many lines to skip; we read names from one line or from none.
fn ignore_header(parser: &mut StatementParser<'_>) -> Result<bool, SqlError> {
    let at = parser.position();
    match parser.next_token() {
        Token::Number(digits, _) if digits == "0" => Ok(false),
        Token::Number(digits, _) if digits == "1" => Ok(true),
        other => Err(SqlError::new(
            ErrorCode::InvalidParameter,
            format!("IGNOREHEADER {other} is not 0 or 1"),
        )
        .at(at)),
    }
}

/// A single ASCII character in quotes; `'\t'` is a tab.
fn character(parser: &mut StatementParser<'_>, option: &str) -> Result<u8, SqlError> {
    let at = parser.position();
    let text = parser.string("one character in single quotes")?;
    CsvOptions::character(&text).ok_or_else(|| {
        SqlError::new(ErrorCode::InvalidParameter, format!("{option} is not one ASCII character"))
            .at(at)
            .with_hint("a tab is '\\t'")
    })
}
