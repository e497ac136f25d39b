//! One statement's parser: sqlparser's, with errors and names as this engine has them.
//!
//! Invariant: every method leaves either a position behind in its error or the parser after what
//! it read. What follows a complete statement is an error, never ignored.

use datafusion::sql::sqlparser::ast::{Expr, Ident, Query};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::names::{self, ObjectRef};
use super::statement::{Insert, ParsedStatement, Statement};
use super::syntax::{parser_error, position_of};
use super::tokens::TokenList;
use super::{
    analyze, analyze_compression, consistency, copy, create_table, label, modify, query, relation,
    repeated, session, system, vacuum,
};
use crate::error::{ErrorCode, Position, SqlError, printable};

/// Parses one statement of a script.
pub(super) fn parse_statement(mut list: TokenList) -> Result<ParsedStatement, SqlError> {
    let label = label::take(&mut list)?;
    let consistency = consistency::take(&mut list)?;
    let mut parser = StatementParser::new(&list);
    let parsed = parser.statement().and_then(|statement| {
        parser.expect_end()?;
        Ok(statement)
    });
    let statement = parsed.map_err(|error| label::explain(error, &list))?;
    label::check(&statement, label.as_ref())?;
    consistency::check(&statement, consistency)?;
    let consistency = consistency.map(|(consistency, _)| consistency);
    let TokenList { text, start, parameters, .. } = list;
    check_parameters(&statement, parameters, start)?;
    Ok(ParsedStatement { statement, text, label, consistency, start, parameters })
}

/// Parses all of the tokens as one expression.
pub(super) fn parse_expression(list: &TokenList) -> Result<Expr, SqlError> {
    let mut parser = StatementParser::new(list);
    let expression = parser.run(Parser::parse_expr)?;
    parser.expect_end()?;
    Ok(expression)
}

/// Only queries and what runs a query once can have parameters.
fn check_parameters(
    statement: &Statement,
    parameters: usize,
    start: Position,
) -> Result<(), SqlError> {
    let explained = match statement {
        Statement::Explain(explain) => &explain.statement,
        other => other,
    };
    if parameters == 0 || explained.takes_parameters() {
        return Ok(());
    }
    Err(SqlError::new(
        ErrorCode::FeatureNotSupported,
        format!("{} cannot have parameters", explained.kind()),
    )
    .at(start)
    .with_hint("write the values into the statement"))
}

/// A parser over some tokens of one statement.
pub(super) struct StatementParser<'a> {
    parser: Parser<'a>,
    list: &'a TokenList,
    /// Where the tokens end.
    end: Location,
    /// Index in `list` of the first token and of the one after the last.
    range: std::ops::Range<usize>,
}

impl<'a> StatementParser<'a> {
    fn new(list: &'a TokenList) -> Self {
        Self::over(list, 0..list.tokens.len())
    }

    /// A parser over a part of the statement's tokens.
    fn over(list: &'a TokenList, range: std::ops::Range<usize>) -> Self {
        let tokens = list.tokens.get(range.clone()).unwrap_or_default().to_vec();
        let end = tokens.last().map_or(Location::empty(), |token| token.span.end);
        let parser = Parser::new(&list.grammar).with_tokens_with_locations(tokens);
        Self { parser, list, end, range }
    }

    /// The tokens not read yet, as the rest of this parser sees them.
    pub(super) fn rest(&self) -> &'a [TokenWithSpan] {
        self.list.tokens.get(self.next_index()..self.range.end).unwrap_or_default()
    }

    /// Cuts the last `count` unread tokens off and gives them a parser of their own.
    pub(super) fn split_off(&mut self, count: usize) -> Self {
        let cut = self.range.end.saturating_sub(count).max(self.next_index());
        let tail = Self::over(self.list, cut..self.range.end);
        *self = Self::over(self.list, self.next_index()..cut);
        tail
    }

    /// Index in the statement's tokens of the next token.
    fn next_index(&self) -> usize {
        self.range.start + self.parser.index()
    }

    /// Runs one of sqlparser's own productions.
    pub(super) fn run<T>(
        &mut self,
        production: impl FnOnce(&mut Parser<'a>) -> Result<T, ParserError>,
    ) -> Result<T, SqlError> {
        let end = Some(Position { line: self.end.line, column: self.end.column });
        production(&mut self.parser).map_err(|error| {
            let position = self.position();
            let mut sql = parser_error(&error, end);
            sql.position = sql.position.or(Some(position));
            sql
        })
    }

    /// Where the next token is; the end of the statement when there is none.
    pub(super) fn position(&self) -> Position {
        position_of(self.parser.peek_token_ref().span)
            .unwrap_or(Position { line: self.end.line, column: self.end.column })
    }

    /// An error at the next token: what was expected there.
    pub(super) fn expected<T>(&mut self, expected: &str) -> Result<T, SqlError> {
        self.run(|parser| parser.expected_ref(expected, parser.peek_token_ref()))
    }

    /// The next token is this word, in any case and unquoted: read it.
    ///
    /// By text and not by [`Keyword`], because sqlparser has no keyword for some of ours.
    pub(super) fn word(&mut self, expected: &str) -> bool {
        let found = self.peek_word(0).is_some_and(|word| word.eq_ignore_ascii_case(expected));
        if found {
            self.parser.advance_token();
        }
        found
    }

    /// All of these words follow: read them; otherwise read nothing.
    pub(super) fn words(&mut self, expected: &[&str]) -> bool {
        let found = expected.iter().enumerate().all(|(n, expected)| {
            self.peek_word(n).is_some_and(|word| word.eq_ignore_ascii_case(expected))
        });
        if found {
            expected.iter().for_each(|_| self.parser.advance_token());
        }
        found
    }

    /// As [`Self::word`], or an error.
    pub(super) fn expect_word(&mut self, expected: &str) -> Result<(), SqlError> {
        if self.word(expected) { Ok(()) } else { self.expected(expected) }
    }

    /// The unquoted word `n` tokens ahead, as written.
    pub(super) fn peek_word(&self, n: usize) -> Option<&str> {
        match &self.parser.peek_nth_token_ref(n).token {
            Token::Word(word) if word.quote_style.is_none() => Some(&word.value),
            _ => None,
        }
    }

    /// The next token is this one: read it.
    pub(super) fn token(&mut self, expected: &Token) -> bool {
        self.parser.consume_token(expected)
    }

    /// Reads and gives the next token, whatever it is.
    pub(super) fn next_token(&mut self) -> Token {
        self.parser.next_token().token
    }

    /// The token `n` ahead.
    pub(super) fn peek_token(&self, n: usize) -> &Token {
        &self.parser.peek_nth_token_ref(n).token
    }

    /// As [`Self::token`], or an error.
    pub(super) fn expect_token(&mut self, expected: &Token) -> Result<(), SqlError> {
        self.run(|parser| parser.expect_token(expected).map(|_| ()))
    }

    /// Nothing may follow.
    pub(super) fn expect_end(&mut self) -> Result<(), SqlError> {
        if *self.peek_token(0) == Token::EOF {
            return Ok(());
        }
        self.expected("the end of the statement")
    }

    /// An identifier, normalised, and where it is.
    pub(super) fn name(&mut self) -> Result<(String, Position), SqlError> {
        let position = self.position();
        let ident: Ident = self.run(Parser::parse_identifier)?;
        Ok((names::normalize(&ident)?, position))
    }

    /// A relation's name and where it is.
    pub(super) fn object_ref(&mut self) -> Result<(ObjectRef, Position), SqlError> {
        let name = self.run(|parser| parser.parse_object_name(false))?;
        names::object_ref(&name)
    }

    /// `(a, b, ...)`: names, each at most once.
    pub(super) fn name_list(&mut self) -> Result<Vec<(String, Position)>, SqlError> {
        self.expect_token(&Token::LParen)?;
        let mut names: Vec<(String, Position)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        loop {
            let (name, position) = self.name()?;
            if !seen.insert(name.clone()) {
                return Err(SqlError::new(
                    ErrorCode::InvalidStatement,
                    format!("column \"{}\" is listed more than once", printable(&name)),
                )
                .at(position));
            }
            names.push((name, position));
            if !self.token(&Token::Comma) {
                break;
            }
        }
        self.expect_token(&Token::RParen)?;
        Ok(names)
    }

    /// A string literal.
    pub(super) fn string(&mut self, what: &str) -> Result<String, SqlError> {
        match self.peek_token(0) {
            Token::SingleQuotedString(text) => {
                let text = text.clone();
                self.parser.advance_token();
                Ok(text)
            }
            _ => self.expected(what),
        }
    }

    /// A query, checked for what a query may not contain.
    pub(super) fn query(&mut self) -> Result<Box<Query>, SqlError> {
        let position = self.position();
        if self.peek_word(0).is_some_and(|word| word.eq_ignore_ascii_case("TABLE")) {
            return self.table_command();
        }
        let mut query = self.run(Parser::parse_query)?;
        query::check(&query).map_err(|error| match error.position {
            None => error.at(position),
            Some(_) => error,
        })?;
        query::prepare(&mut query)
            .map_err(|error| SqlError { position: error.position.or(Some(position)), ..error })?;
        repeated::tell_apart(&mut query);
        Ok(query)
    }

    /// `TABLE t` is short for `SELECT * FROM t`, which DataFusion plans and `TABLE t` it does not.
    fn table_command(&mut self) -> Result<Box<Query>, SqlError> {
        let span = self.parser.next_token().span;
        let word = |text| TokenWithSpan { token: Token::make_keyword(text), span };
        let mut tokens =
            vec![word("SELECT"), TokenWithSpan { token: Token::Mul, span }, word("FROM")];
        tokens.extend_from_slice(self.rest());
        let all = tokens.len();
        let mut parser = Parser::new(&self.list.grammar).with_tokens_with_locations(tokens);
        let end = Some(Position { line: self.end.line, column: self.end.column });
        let query = parser.parse_query().map_err(|error| parser_error(&error, end))?;
        query::check(&query)?;
        // Three tokens are ours and one is read already.
        for _ in 0..parser.index().min(all).saturating_sub(3) {
            self.parser.advance_token();
        }
        Ok(query)
    }

    /// Where the text of the token `n` ahead begins, for [`Self::text_since`].
    pub(super) fn text_mark(&self, n: usize) -> Location {
        self.parser.peek_nth_token_ref(n).span.start
    }

    /// The text from a mark to the end of the last token that was read.
    pub(super) fn text_since(&self, mark: Location) -> String {
        let last = self.next_index().saturating_sub(1);
        let to = self.list.tokens.get(last).map_or(self.end, |token| token.span.end);
        self.list.slice(mark, to).to_owned()
    }

    /// How many bytes of text lie between two locations.
    pub(super) fn bytes_between(&self, from: Location, to: Location) -> usize {
        self.list.slice(from, to).len()
    }

    /// Where the token `n` ahead is; the end of the statement when there is none.
    pub(super) fn position_of_token(&self, n: usize) -> Position {
        position_of(self.parser.peek_nth_token_ref(n).span)
            .unwrap_or(Position { line: self.end.line, column: self.end.column })
    }

    /// Any statement, by its first words.
    pub(super) fn statement(&mut self) -> Result<Statement, SqlError> {
        let start = self.position();
        if *self.peek_token(0) == Token::LParen {
            return self.query().map(query::statement);
        }
        let Some(first) = self.peek_word(0).map(str::to_ascii_uppercase) else {
            return self.expected("a statement");
        };
        match first.as_str() {
            "SELECT" | "VALUES" | "WITH" | "TABLE" | "FROM" => self.query().map(query::statement),
            "EXPLAIN" => session::explain(self),
            "DESCRIBE" | "DESC" => session::describe(self),
            "SET" => session::set(self),
            "RESET" => session::reset(self),
            "SHOW" => session::show(self),
            "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" => {
                session::transaction(self)
            }
            "CREATE" => self.create(start),
            "DROP" => relation::drop(self, start),
            "INSERT" => self.insert(),
            "DELETE" => modify::delete(self),
            "UPDATE" => modify::update(self),
            "VACUUM" => vacuum::vacuum(self),
            "ANALYZE" if analyze_compression::is_next(self) => {
                analyze_compression::analyze_compression(self)
            }
            "ANALYZE" => analyze::analyze(self),
            "ALTER" => system::alter(self),
            "COPY" => copy::copy(self, start),
            _ => Err(unsupported(&first, start)),
        }
    }

    fn create(&mut self, start: Position) -> Result<Statement, SqlError> {
        self.expect_word("CREATE")?;
        let or_replace = self.words(&["OR", "REPLACE"]);
        let Some(kind) = self.peek_word(0).map(str::to_ascii_uppercase) else {
            return self.expected("TABLE, VIEW or SCHEMA");
        };
        match kind.as_str() {
            "TABLE" => create_table::create_table(self, or_replace),
            "VIEW" => relation::create_view(self, or_replace),
            "SCHEMA" if !or_replace => relation::create_schema(self),
            "UNIQUE" => Err(unsupported("CREATE UNIQUE INDEX", start)),
            _ => Err(unsupported(&format!("CREATE {kind}"), start)),
        }
    }

    /// `INSERT INTO [TABLE] t [(columns)] query`.
    fn insert(&mut self) -> Result<Statement, SqlError> {
        self.expect_word("INSERT")?;
        self.expect_word("INTO")?;
        self.word("TABLE");
        let (table, table_position) = self.object_ref()?;
        let columns = if *self.peek_token(0) == Token::LParen && !self.query_in_brackets() {
            self.name_list()?.into_iter().map(|(name, _)| name).collect()
        } else {
            Vec::new()
        };
        if let Some(word) = self.peek_word(0).map(str::to_ascii_uppercase)
            && matches!(word.as_str(), "SET" | "OVERRIDING" | "PARTITION")
        {
            return Err(self.refuse(&format!("INSERT with {word}"), "write VALUES or a query"));
        }
        let defaults = columns.is_empty() && self.words(&["DEFAULT", "VALUES"]);
        let source = if defaults { None } else { Some(self.query()?) };
        if let Some(word) = self.peek_word(0).map(str::to_ascii_uppercase)
            && matches!(word.as_str(), "ON" | "RETURNING")
        {
            return Err(self.refuse(&format!("INSERT with {word}"), "leave it out"));
        }
        Ok(Statement::Insert(Insert { table, table_position, columns, source }))
    }

    /// Whether the bracket that follows opens a query and not a list of columns.
    fn query_in_brackets(&self) -> bool {
        match self.peek_token(1) {
            Token::LParen => true,
            Token::Word(word) => {
                word.quote_style.is_none()
                    && matches!(word.keyword, Keyword::SELECT | Keyword::WITH | Keyword::VALUES)
                    && !matches!(self.peek_token(2), Token::Comma | Token::RParen)
            }
            _ => false,
        }
    }

    /// A `FeatureNotSupported` at the next token.
    pub(super) fn refuse(&self, what: &str, hint: &str) -> SqlError {
        SqlError::new(ErrorCode::FeatureNotSupported, format!("{what} is not supported"))
            .at(self.position())
            .with_hint(hint)
    }
}

/// The error for a statement that this engine does not have, with what to do instead.
pub(super) fn unsupported(kind: &str, position: Position) -> SqlError {
    let hint = match kind {
        "MERGE" | "REPLACE" | "UPSERT" => "use UPDATE and INSERT",
        "TRUNCATE" => "use DELETE FROM without WHERE: it looks at no row",
        "ALTER" => "create a new table with CREATE TABLE ... AS SELECT, then drop the old one",
        "PREPARE" | "EXECUTE" | "EXEC" | "DEALLOCATE" => {
            "prepare statements through the driver: parameters are ? or $1, $2, ..."
        }
        "COPY TO" | "COPY INTO" | "UNLOAD" | "EXPORT" => {
            "the server writes no files: fetch the rows through the driver or with `basalt sql --format csv`"
        }
        "CREATE EXTERNAL" | "CREATE FOREIGN" | "LOAD" | "ATTACH" | "INSTALL" => {
            "query files with read_parquet('...') or read_csv('...'), or load them with COPY"
        }
        "CREATE TEMP" | "CREATE TEMPORARY" | "CREATE LOCAL" | "CREATE GLOBAL"
        | "CREATE UNLOGGED" => "create an ordinary table and drop it afterwards",
        "CREATE MATERIALIZED" => "create a view, or a table with CREATE TABLE ... AS SELECT",
        "CREATE INDEX" | "CREATE UNIQUE INDEX" => {
            "choose a SORTKEY: zone maps then skip what a query does not need"
        }
        "CREATE OR" => "use CREATE OR REPLACE TABLE or CREATE OR REPLACE VIEW",
        "DROP INDEX" | "REINDEX" => "leave it out: there are no indexes, zone maps do their work",
        "CREATE TRIGGER" | "DROP TRIGGER" => {
            "there are no triggers: do it in the statement that writes the rows"
        }
        "CREATE SEQUENCE" | "DROP SEQUENCE" => {
            "number rows with row_number() in the statement that writes them"
        }
        "USE" => "a cluster is one database: use SET search_path TO schema",
        "CREATE DATABASE" | "DROP DATABASE" => {
            "a cluster is one database: use CREATE SCHEMA and SET search_path"
        }
        "OPTIMIZE" => "leave it out, or use VACUUM and ANALYZE",
        "SAVEPOINT" | "RELEASE" | "LOCK" => "every statement commits on its own: leave it out",
        "GRANT" | "REVOKE" | "DENY" => "access is not controlled in SQL: leave it out",
        _ => {
            "supported are SELECT, EXPLAIN, CREATE and DROP of TABLE, VIEW and SCHEMA, INSERT, UPDATE, DELETE, COPY ... FROM, VACUUM, ANALYZE, SET, SHOW, DESCRIBE and ALTER SYSTEM"
        }
    };
    let known = !hint.starts_with("supported are") || STATEMENT_WORDS.contains(&kind);
    if known || kind.contains(' ') {
        let kind = printable(kind);
        SqlError::new(ErrorCode::FeatureNotSupported, format!("{kind} is not supported"))
    } else {
        let kind: String = kind.chars().take(60).collect::<String>().to_lowercase();
        SqlError::new(
            ErrorCode::SyntaxError,
            format!("syntax error: \"{}\" does not begin a statement", printable(&kind)),
        )
    }
    .at(position)
    .with_hint(hint)
}

/// First words of statements in other dialects: refused by name rather than as typing errors.
const STATEMENT_WORDS: &[&str] = &[
    "CALL",
    "DO",
    "DECLARE",
    "FETCH",
    "CLOSE",
    "OPEN",
    "COMMENT",
    "CACHE",
    "UNCACHE",
    "REFRESH",
    "DISCARD",
    "KILL",
    "LISTEN",
    "NOTIFY",
    "UNLISTEN",
    "PRAGMA",
    "RENAME",
    "DETACH",
    "FLUSH",
    "ASSERT",
    "CLUSTER",
    "REINDEX",
    "CHECKPOINT",
    "IF",
    "CASE",
    "WHILE",
    "RETURN",
    "PRINT",
    "SUMMARIZE",
    "PIVOT",
    "UNPIVOT",
    "IMPORT",
    "CANCEL",
];
