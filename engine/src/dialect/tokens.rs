//! From text to one token list per statement.
//!
//! Invariant: a token list holds no white space and no comments, every parameter in it is `$n`,
//! and neither its brackets nor its chains of operators are deeper than a small stack can take.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use super::SQL_BYTES_MAX;
use super::grammar::Grammar;
use super::syntax::{position_of, tokenizer_error};
use crate::error::{ErrorCode, Position, SqlError, printable};

/// Words, signs and spaces of a script. The tokenizer makes a token of about 90 bytes of each of
/// them, so that 16 MiB of spaces would take more than a gigabyte.
const PIECES_MAX: usize = 2_000_000;

/// Tokens of a script without white space. By the time its plan is made, a literal of two bytes
/// has taken about a kilobyte: as token, in the tree and in the plan.
const TOKENS_MAX: usize = 500_000;

/// What to do about a statement that is too long.
const TOO_LONG_HINT: &str = "load data with COPY or `basalt load` instead of literals";

/// Brackets inside brackets. sqlparser's own limit counts something else and names no position.
const BRACKET_DEPTH_MAX: usize = 100;

/// How high the tree of an expression may be: `a = 1 OR a = 2 OR ...` makes one as high as it has
/// operators. Copying or dropping such a tree recurses once per level, with frames of more than a
/// kilobyte on a thread's stack of two megabytes.
const EXPRESSION_HEIGHT_MAX: usize = 500;

/// Joins and set operations in a row: they make trees as well, of smaller frames.
const CHAIN_MAX: usize = 4_000;

/// The highest parameter number, as in PostgreSQL's protocol (16 bits).
const PARAMETERS_MAX: usize = 65_535;

/// One statement's tokens and text.
pub(super) struct TokenList {
    /// The tokens, never empty, without white space.
    pub(super) tokens: Vec<TokenWithSpan>,
    /// The statement's own text.
    pub(super) text: String,
    /// Where `text` begins in the script.
    pub(super) start: Position,
    /// How many parameters the statement has.
    pub(super) parameters: usize,
    /// What to parse it with.
    pub(super) grammar: Grammar,
}

impl TokenList {
    /// The text between two locations of the statement.
    pub(super) fn slice(&self, from: Location, to: Location) -> &str {
        let mut cursor = Cursor::new(&self.text, self.start);
        let from = cursor.advance_to(from);
        let to = cursor.advance_to(to);
        self.text.get(from..to).unwrap_or_default()
    }
}

/// Tokenizes a script and splits it at each `;`.
pub(super) fn split(sql: &str) -> Result<Vec<TokenList>, SqlError> {
    if sql.len() > SQL_BYTES_MAX {
        return Err(too_long(sql.len(), "bytes", SQL_BYTES_MAX));
    }
    let pieces = pieces(sql);
    if pieces > PIECES_MAX {
        return Err(too_long(pieces, "words, signs and spaces", PIECES_MAX));
    }
    let tokens = Tokenizer::new(&Grammar::for_tokens(0), sql)
        .tokenize_with_location()
        .map_err(|error| tokenizer_error(&error))?;
    let count = tokens.iter().filter(|t| !matches!(t.token, Token::Whitespace(_))).count();
    if count > TOKENS_MAX {
        return Err(too_long(count, "words and signs", TOKENS_MAX));
    }
    let mut cursor = Cursor::new(sql, Position::START);
    let mut lists = Vec::new();
    let mut current = Vec::new();
    for token in tokens {
        match token.token {
            Token::Whitespace(_) | Token::EOF => {}
            Token::SemiColon => finish(&mut current, sql, &mut cursor, &mut lists)?,
            _ => current.push(token),
        }
    }
    finish(&mut current, sql, &mut cursor, &mut lists)?;
    Ok(lists)
}

fn too_long(found: usize, what: &str, most: usize) -> SqlError {
    SqlError::new(
        ErrorCode::ResourcesExhausted,
        format!("the SQL text has {found} {what}: at most {most} are allowed"),
    )
    .with_hint(TOO_LONG_HINT)
}

/// How many tokens a text has at most, counted without making them: runs of letters and digits,
/// and everything else by the byte, also inside literals and comments.
fn pieces(sql: &str) -> usize {
    let in_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii();
    let mut count = 0;
    let mut before = false;
    for byte in sql.bytes() {
        let word = in_word(byte);
        count += usize::from(!(word && before));
        before = word;
    }
    count
}

/// Makes a list of the tokens since the last `;`, if there are any.
fn finish(
    current: &mut Vec<TokenWithSpan>,
    sql: &str,
    cursor: &mut Cursor<'_>,
    lists: &mut Vec<TokenList>,
) -> Result<(), SqlError> {
    let mut tokens = std::mem::take(current);
    let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else { return Ok(()) };
    let start = position_of(first.span).unwrap_or(Position::START);
    let from = cursor.advance_to(first.span.start);
    let to = cursor.advance_to(last.span.end);
    let text = sql.get(from..to).unwrap_or_default().to_owned();
    check_nesting(&tokens)?;
    let parameters = number_parameters(&mut tokens)?;
    let grammar = Grammar::for_tokens(tokens.len());
    lists.push(TokenList { tokens, text, start, parameters, grammar });
    Ok(())
}

/// Walks a text once, turning locations (in order) into byte offsets.
struct Cursor<'a> {
    rest: std::str::Chars<'a>,
    bytes: usize,
    at: Location,
}

impl<'a> Cursor<'a> {
    fn new(text: &'a str, start: Position) -> Self {
        let at = Location { line: start.line, column: start.column };
        Self { rest: text.chars(), bytes: text.len(), at }
    }

    /// The byte offset of a location at or after the last one asked for. Counts lines and
    /// columns exactly as sqlparser's tokenizer does.
    fn advance_to(&mut self, to: Location) -> usize {
        while (self.at.line, self.at.column) < (to.line, to.column) {
            match self.rest.next() {
                Some('\n') => self.at = Location { line: self.at.line + 1, column: 1 },
                Some(_) => self.at.column += 1,
                None => break,
            }
        }
        self.bytes - self.rest.as_str().len()
    }
}

/// Turns each `?` into `$n` in order, checks each `$n`, and counts them.
///
/// DataFusion gives every `?` one and the same name, so that `? + ?` would be one parameter.
fn number_parameters(tokens: &mut [TokenWithSpan]) -> Result<usize, SqlError> {
    let mut question_marks = 0_usize;
    let mut highest = 0_usize;
    for TokenWithSpan { token, span } in tokens {
        let Token::Placeholder(text) = token else { continue };
        let invalid = |message: String| {
            let error = SqlError::new(ErrorCode::InvalidStatement, message)
                .with_hint("write all parameters as ? or all as $1, $2, ...");
            match position_of(*span) {
                Some(position) => error.at(position),
                None => error,
            }
        };
        if text == "?" {
            question_marks += 1;
            *text = format!("${question_marks}");
        } else {
            let number = text.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok());
            match number {
                Some(number @ 1..=PARAMETERS_MAX) => {
                    // One spelling per parameter: $01 is $1.
                    *text = format!("${number}");
                    highest = highest.max(number);
                }
                _ => {
                    let text = printable(text);
                    return Err(invalid(format!(
                        "parameter \"{text}\" is not $1 to ${PARAMETERS_MAX}"
                    )));
                }
            }
        }
        if question_marks > 0 && highest > 0 {
            return Err(invalid("parameters ? and $n are mixed in one statement".to_owned()));
        }
        if question_marks > PARAMETERS_MAX {
            return Err(invalid(format!(
                "the statement has more than {PARAMETERS_MAX} parameters"
            )));
        }
    }
    Ok(highest.max(question_marks))
}

/// The tree that the tokens of one level of brackets make, as far as they were read.
#[derive(Default)]
struct Level {
    /// Height of the operand that is being read: its operators and what is in its brackets.
    operand: usize,
    /// Height of what `AND` and `OR` have joined so far, those included.
    logical: usize,
    /// Height of the highest branch of a CASE so far; those of all CASEs of one expression count
    /// together, which is never too little.
    branches: usize,
    /// Height of the highest of the expressions that are complete.
    highest: usize,
    /// Joins and set operations.
    relational: usize,
}

impl Level {
    /// Height of the level so far.
    fn height(&self) -> usize {
        self.highest.max(self.logical.max(self.operand).max(self.branches) + 1)
    }

    /// Puts one more token on the tree.
    fn add(&mut self, role: Role) {
        match role {
            Role::Operand => {}
            Role::Operator => self.operand += 1,
            Role::Logical => {
                self.logical = self.logical.max(self.operand) + 1;
                self.operand = 0;
            }
            // Branches of a CASE stand beside each other; what comes after its END stands on them.
            Role::Branch => {
                self.branches = self.branches.max(self.logical).max(self.operand);
                self.logical = 0;
                self.operand = 0;
            }
            Role::End => {
                self.operand = self.operand.max(self.logical).max(self.branches) + 1;
                self.logical = 0;
            }
            Role::Boundary => self.end_expression(),
            Role::Relational => {
                self.end_expression();
                self.relational += 1;
            }
        }
    }

    fn end_expression(&mut self) {
        let highest = self.height();
        *self = Self { highest, relational: self.relational, ..Self::default() };
    }
}

/// Refuses what would overflow a stack later: deep brackets, high expressions and long chains.
fn check_nesting(tokens: &[TokenWithSpan]) -> Result<(), SqlError> {
    let mut levels = vec![Level::default()];
    // `ARRAY<STRUCT<a ...`: sqlparser's limit does not see these.
    let mut angles = 0_usize;
    let mut before: Option<&Token> = None;
    for TokenWithSpan { token, span } in tokens {
        let refuse = |message: String, hint: &str| {
            let error = SqlError::new(ErrorCode::InvalidStatement, message).with_hint(hint);
            Err(match position_of(*span) {
                Some(position) => error.at(position),
                None => error,
            })
        };
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => levels.push(Level::default()),
            Token::RParen | Token::RBracket | Token::RBrace if levels.len() > 1 => {
                let inner = levels.pop().map_or(0, |level| level.height());
                if let Some(outer) = levels.last_mut() {
                    // a[1][2][3] and f(x)(y) are chains too.
                    outer.operand = (outer.operand + 1).max(inner + 1);
                }
            }
            Token::Lt if before.is_some_and(takes_type_arguments) => angles += 1,
            Token::Gt => angles = angles.saturating_sub(1),
            Token::ShiftRight => angles = angles.saturating_sub(2),
            _ => {}
        }
        before = Some(token);
        if levels.len() + angles > BRACKET_DEPTH_MAX {
            return refuse(
                format!("the statement has more than {BRACKET_DEPTH_MAX} brackets inside brackets"),
                "split it with WITH clauses or views",
            );
        }
        let Some(level) = levels.last_mut() else { continue };
        level.add(role_of(token));
        if level.relational > CHAIN_MAX {
            return refuse(
                format!("more than {CHAIN_MAX} joins and set operations in a row"),
                "use a table instead of a long chain",
            );
        }
        if level.height() > EXPRESSION_HEIGHT_MAX {
            return refuse(
                format!(
                    "more than {EXPRESSION_HEIGHT_MAX} operators upon each other in one expression"
                ),
                "use IN (...), VALUES or a table instead of a long chain, or put brackets around parts of it",
            );
        }
    }
    Ok(())
}

fn takes_type_arguments(token: &Token) -> bool {
    matches!(token, Token::Word(word)
        if matches!(word.keyword, Keyword::ARRAY | Keyword::STRUCT | Keyword::MAP))
}

enum Role {
    /// Ends an expression.
    Boundary,
    /// Joins relations or queries, and ends an expression.
    Relational,
    /// Joins operands with all of their operators.
    Logical,
    /// Begins a part of a `CASE`.
    Branch,
    /// Ends a `CASE`.
    End,
    /// Makes its operand higher.
    Operator,
    Operand,
}

fn role_of(token: &Token) -> Role {
    match token {
        Token::Comma => Role::Boundary,
        Token::Word(word) if word.quote_style.is_some() => Role::Operand,
        Token::Word(word) => match word.keyword {
            Keyword::AND | Keyword::OR | Keyword::XOR => Role::Logical,
            Keyword::WHEN | Keyword::THEN | Keyword::ELSE => Role::Branch,
            Keyword::END => Role::End,
            Keyword::UNION
            | Keyword::EXCEPT
            | Keyword::INTERSECT
            | Keyword::MINUS
            | Keyword::JOIN => Role::Relational,
            Keyword::NOT
            | Keyword::IS
            | Keyword::LIKE
            | Keyword::ILIKE
            | Keyword::IN
            | Keyword::BETWEEN
            | Keyword::CASE
            | Keyword::COLLATE
            | Keyword::AT
            | Keyword::DIV => Role::Operator,
            _ => Role::Operand,
        },
        Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::NationalStringLiteral(_)
        | Token::HexStringLiteral(_)
        | Token::DollarQuotedString(_)
        | Token::Placeholder(_)
        | Token::LParen
        | Token::RParen
        | Token::LBracket
        | Token::RBracket
        | Token::LBrace
        | Token::RBrace => Role::Operand,
        _ => Role::Operator,
    }
}
