//! The one error that SQL users see: a stable code, a sentence, a position and a remedy.
//!
//! Everything that can go wrong on behalf of a statement becomes a [`SqlError`] here, at the one
//! place where [`DataFusionError`] is crossed; the Flight SQL service maps [`ErrorCode`] to a
//! gRPC status with one table. The set of codes is closed.

//!
//! - [`suggest`](did_you_mean): names that the user may have meant
//! - [`from_datafusion`]: the one place where [`DataFusionError`] is crossed
//! - `wording`: its sentences about types in the words of SQL

mod from_datafusion;
mod suggest;
mod transport;
mod wording;

use std::fmt;

use datafusion::error::DataFusionError;

pub(crate) use from_datafusion::{carried_text, crossing, lower_first};
pub use from_datafusion::{from_datafusion, from_datafusion_with_relations};
pub use suggest::{closest, did_you_mean, did_you_mean_among};
pub use transport::{from_status, storage_error, to_status};

/// What kind of thing went wrong, by what the caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The text is not SQL that this engine understands. SQLSTATE 42601.
    SyntaxError,
    /// A table, view or schema does not exist. SQLSTATE 42P01.
    UndefinedTable,
    /// A column does not exist. SQLSTATE 42703.
    UndefinedColumn,
    /// A function does not exist. SQLSTATE 42883.
    UndefinedFunction,
    /// The object exists already. SQLSTATE 42P07.
    DuplicateObject,
    /// Types do not fit an operator, function or column. SQLSTATE 42804.
    DatatypeMismatch,
    /// The statement is well formed and means nothing valid. SQLSTATE 42P10.
    InvalidStatement,
    /// A value cannot be computed: division by zero, a bad cast. SQLSTATE 22000.
    DataException,
    /// A number does not fit its type: a sum, a product, a cast. SQLSTATE 22003.
    NumericOutOfRange,
    /// A NULL for a NOT NULL column. SQLSTATE 23502.
    NotNullViolation,
    /// Something valid that this engine does not do (yet). SQLSTATE 0A000.
    FeatureNotSupported,
    /// A setting, parameter or option is unknown or out of range. SQLSTATE 22023.
    InvalidParameter,
    /// The path or object is outside what the server may touch. SQLSTATE 42501.
    PermissionDenied,
    /// A file cannot be read or is not what it should be. SQLSTATE 58030.
    SourceFile,
    /// Somebody else changed the same thing; try again. SQLSTATE 40001.
    Conflict,
    /// The statement was planned before slices moved; plan it again. SQLSTATE 72000.
    StalePlan,
    /// The statement was cancelled. SQLSTATE 57014.
    Cancelled,
    /// Memory, spill space or another budget is used up. SQLSTATE 53200.
    ResourcesExhausted,
    /// A worker or chunk cannot be reached now. SQLSTATE 08006.
    Unavailable,
    /// Stored bytes fail their checksum and no good copy was found. SQLSTATE XX001.
    DataCorrupted,
    /// A handle, ticket or query id is unknown or has expired. SQLSTATE 26000.
    UnknownHandle,
    /// A commit was asked for, and nobody knows yet whether it is durable. Sending the statement
    /// again is safe under the same request key only. SQLSTATE 08007.
    OutcomeUnknown,
    /// A bug of ours. SQLSTATE XX000.
    Internal,
}

impl ErrorCode {
    /// Every code, in the order of documentation.
    pub const ALL: [Self; 23] = [
        Self::SyntaxError,
        Self::UndefinedTable,
        Self::UndefinedColumn,
        Self::UndefinedFunction,
        Self::DuplicateObject,
        Self::DatatypeMismatch,
        Self::InvalidStatement,
        Self::DataException,
        Self::NumericOutOfRange,
        Self::NotNullViolation,
        Self::FeatureNotSupported,
        Self::InvalidParameter,
        Self::PermissionDenied,
        Self::SourceFile,
        Self::Conflict,
        Self::StalePlan,
        Self::Cancelled,
        Self::ResourcesExhausted,
        Self::Unavailable,
        Self::DataCorrupted,
        Self::UnknownHandle,
        Self::OutcomeUnknown,
        Self::Internal,
    ];

    /// The code with this [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }

    /// The stable name, as in documentation, headers and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::SyntaxError => "SYNTAX_ERROR",
            Self::UndefinedTable => "UNDEFINED_TABLE",
            Self::UndefinedColumn => "UNDEFINED_COLUMN",
            Self::UndefinedFunction => "UNDEFINED_FUNCTION",
            Self::DuplicateObject => "DUPLICATE_OBJECT",
            Self::DatatypeMismatch => "DATATYPE_MISMATCH",
            Self::InvalidStatement => "INVALID_STATEMENT",
            Self::DataException => "DATA_EXCEPTION",
            Self::NumericOutOfRange => "NUMERIC_OUT_OF_RANGE",
            Self::NotNullViolation => "NOT_NULL_VIOLATION",
            Self::FeatureNotSupported => "FEATURE_NOT_SUPPORTED",
            Self::InvalidParameter => "INVALID_PARAMETER",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::SourceFile => "SOURCE_FILE",
            Self::Conflict => "CONFLICT",
            Self::StalePlan => "STALE_PLAN",
            Self::Cancelled => "CANCELLED",
            Self::ResourcesExhausted => "RESOURCES_EXHAUSTED",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataCorrupted => "DATA_CORRUPTED",
            Self::UnknownHandle => "UNKNOWN_HANDLE",
            Self::OutcomeUnknown => "OUTCOME_UNKNOWN",
            Self::Internal => "INTERNAL",
        }
    }

    /// The SQLSTATE (ISO/IEC 9075 and PostgreSQL's appendix A where the standard is silent).
    pub fn sqlstate(self) -> &'static str {
        match self {
            Self::SyntaxError => "42601",
            Self::UndefinedTable => "42P01",
            Self::UndefinedColumn => "42703",
            Self::UndefinedFunction => "42883",
            Self::DuplicateObject => "42P07",
            Self::DatatypeMismatch => "42804",
            Self::InvalidStatement => "42P10",
            Self::DataException => "22000",
            Self::NumericOutOfRange => "22003",
            Self::NotNullViolation => "23502",
            Self::FeatureNotSupported => "0A000",
            Self::InvalidParameter => "22023",
            Self::PermissionDenied => "42501",
            Self::SourceFile => "58030",
            Self::Conflict => "40001",
            Self::StalePlan => "72000",
            Self::Cancelled => "57014",
            Self::ResourcesExhausted => "53200",
            Self::Unavailable => "08006",
            Self::DataCorrupted => "XX001",
            Self::UnknownHandle => "26000",
            Self::OutcomeUnknown => "08007",
            Self::Internal => "XX000",
        }
    }

    /// Whether the same statement may succeed when it is simply sent again.
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::Conflict | Self::StalePlan | Self::Unavailable | Self::ResourcesExhausted
        )
    }
}

/// Where in the statement's text the problem is; both count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: u64,
    /// The column in the line.
    pub column: u64,
}

impl Position {
    /// The first character of a text.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// An error as the user reads it.
#[derive(Debug, Clone)]
pub struct SqlError {
    /// What kind of error.
    pub code: ErrorCode,
    /// One sentence: the object first and named, lower case, no full stop.
    pub message: String,
    /// Where in the statement.
    pub position: Option<Position>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl SqlError {
    /// An error with a code and a sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), position: None, hint: None }
    }

    /// Adds what the user can do about it.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds where in the statement the problem is.
    pub fn at(mut self, position: Position) -> Self {
        self.position = Some(position);
        self
    }

    /// The error as a terminal shows it: the sentence, the line with a caret, the hint.
    ///
    /// ```text
    /// column "amuont" does not exist
    /// LINE 1: select amuont from sales
    ///                ^
    /// HINT: did you mean "amount"?
    /// ```
    pub fn render(&self, sql: &str) -> String {
        let mut text = self.message.clone();
        if let Some(Position { line, column }) = self.position
            && let Some(source) =
                usize::try_from(line).ok().and_then(|n| sql.lines().nth(n.saturating_sub(1)))
        {
            let prefix = format!("LINE {line}: ");
            let offset = usize::try_from(column).unwrap_or(1).saturating_sub(1);
            let (source, offset) = window(source, offset);
            let indent = prefix.chars().count() + offset;
            text.push_str(&format!("\n{prefix}{source}\n{}^", " ".repeat(indent)));
        }
        if let Some(hint) = self.hint.as_ref().filter(|hint| !hint.trim().is_empty()) {
            text.push_str(&format!("\nHINT: {hint}"));
        }
        text
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SqlError {}

impl From<SqlError> for DataFusionError {
    fn from(error: SqlError) -> Self {
        DataFusionError::External(Box::new(from_datafusion::Carried(error)))
    }
}

/// The part of a long line around a character, and where in it the character is.
fn window(line: &str, offset: usize) -> (String, usize) {
    /// Half of what a terminal shows well.
    const CHARS_AROUND: usize = 60;
    let chars = line.chars().count();
    let offset = offset.min(chars);
    let from = if chars <= 2 * CHARS_AROUND { 0 } else { offset.saturating_sub(CHARS_AROUND) };
    let shown: String = line.chars().skip(from).take(2 * CHARS_AROUND).collect();
    // A tab would move the caret; a control character would do worse.
    let shown = shown.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    (shown, offset - from)
}

/// Text from outside made fit for a message: control characters become escapes, so that neither
/// a terminal nor a log line can be forged.
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        // Direction overrides and zero-width characters hide what a name really is.
        let hidden = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}' | '\u{feff}');
        if c.is_control() || hidden {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}
