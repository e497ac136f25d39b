//! What can go wrong for a client, decoded from gRPC statuses.
//!
//! A Basalt server sends its code in the header `x-error-code`, the query in `x-query-id`, and a
//! sentence with position and hint as the status message (FLIGHT_SQL.md 3.5).

use std::error::Error;
use std::fmt;

use arrow_flight::error::FlightError;
use basalt_engine::error::ErrorCode;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

/// Why a call did not do what it should, by what the user can do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// The address is not one.
    #[error("{url:?} is not the address of a server: {reason}")]
    InvalidUrl {
        /// The text given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody answers at the address.
    #[error("no server answers at {url}: {reason}")]
    Unreachable {
        /// The address.
        url: String,
        /// What the operating system says.
        reason: String,
    },
    /// The server refused or failed.
    #[error(transparent)]
    Server(#[from] Box<ServerError>),
    /// Something on this side that the stream to the server reported: a file, a conversion.
    #[error("{0}")]
    Local(String),
    /// The server answered something that the protocol does not allow.
    #[error("unexpected answer from the server: {0}")]
    Protocol(String),
}

/// An error as the server put it.
#[derive(Debug, Clone)]
pub struct ServerError {
    /// The stable name of the kind of error (`SYNTAX_ERROR`), or the gRPC code's name when the
    /// server is not ours or the transport failed.
    pub code: String,
    /// The sentence, and below it the line of the statement with a caret where there is one.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The SQLSTATE that goes with the code.
    pub sqlstate: Option<String>,
    /// The run of the statement, for `sys.queries` and the server's log.
    pub query_id: Option<String>,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nHINT: {hint}"),
            None => Ok(()),
        }
    }
}

impl Error for ServerError {}

impl ClientError {
    /// The server's error, when it is one.
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            Self::Server(error) => Some(error),
            _ => None,
        }
    }

    /// The stable name of the kind of error, when the server gave one.
    pub fn code(&self) -> Option<&str> {
        self.server().map(|error| error.code.as_str())
    }

    /// The SQLSTATE, when the server gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        self.server()?.sqlstate.as_deref()
    }

    /// Whether a write may have been committed or not, for all that this error says.
    pub fn leaves_outcome_open(&self) -> bool {
        self.is_disconnect() || self.code() == Some(ErrorCode::OutcomeUnknown.name())
    }

    /// Whether the connection is gone or was never there, so that further calls make no sense.
    pub fn is_disconnect(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            // Statements of ours that end in UNAVAILABLE carry a query id or our own code.
            Self::Server(error) => error.code == "CONNECTION_LOST",
            _ => false,
        }
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        Self::Server(Box::new(ServerError::from_status(&status)))
    }
}

impl From<FlightError> for ClientError {
    fn from(error: FlightError) -> Self {
        match error {
            FlightError::Tonic(status) => (*status).into(),
            FlightError::ExternalError(source) => Self::Local(innermost(source.as_ref())),
            other => Self::Protocol(other.to_string()),
        }
    }
}

impl ServerError {
    /// Decodes a gRPC status and its headers.
    pub fn from_status(status: &Status) -> Self {
        let header = |name| header(status.metadata(), name);
        let code = header("x-error-code").unwrap_or_else(|| transport_code(status));
        let (message, hint) = split_hint(status.message());
        let message = match (message.is_empty(), status.source()) {
            (true, Some(source)) => innermost(source),
            (true, None) => status.code().description().to_owned(),
            (false, _) => message,
        };
        Self {
            sqlstate: header("x-sqlstate").or_else(|| sqlstate_of(&code)),
            hint: header("x-error-hint").or(hint),
            query_id: header("x-query-id"),
            message,
            code,
        }
    }
}

fn header(metadata: &MetadataMap, name: &str) -> Option<String> {
    metadata.get(name)?.to_str().ok().map(str::to_owned)
}

/// A name for a status that carries no code of ours.
fn transport_code(status: &Status) -> String {
    // A status that the transport made up has its error as the source; one from a server has not.
    if status.source().is_some() && matches!(status.code(), Code::Unavailable | Code::Unknown) {
        return "CONNECTION_LOST".to_owned();
    }
    // `Code` prints as `InvalidArgument`; ours are spelled `INVALID_ARGUMENT`.
    let mut name = String::new();
    for letter in format!("{:?}", status.code()).chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// The sentence and, after its last `HINT:` line, the remedy.
fn split_hint(message: &str) -> (String, Option<String>) {
    match message.rsplit_once("\nHINT: ") {
        Some((sentence, hint)) => (sentence.to_owned(), Some(hint.trim_end().to_owned())),
        None => (message.to_owned(), None),
    }
}

fn sqlstate_of(code: &str) -> Option<String> {
    ErrorCode::from_name(code).map(|known| known.sqlstate().to_owned())
}

/// The last error of a chain: the one that says what happened ("connection refused").
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: Code, message: &str, headers: &[(&'static str, &str)]) -> Status {
        let mut metadata = MetadataMap::new();
        for (name, value) in headers {
            metadata.insert(*name, value.parse().unwrap());
        }
        Status::with_metadata(code, message, metadata)
    }

    #[test]
    fn code_sentence_hint_and_sqlstate_are_told_apart() {
        let text = "column \"amuont\" does not exist\nLINE 1: select amuont\n               ^\nHINT: did you mean \"amount\"?";
        let status = status(
            Code::InvalidArgument,
            text,
            &[("x-error-code", "UNDEFINED_COLUMN"), ("x-query-id", "q7")],
        );
        let error = ServerError::from_status(&status);
        assert_eq!(error.code, "UNDEFINED_COLUMN");
        assert_eq!(error.sqlstate.as_deref(), Some("42703"));
        assert_eq!(error.hint.as_deref(), Some("did you mean \"amount\"?"));
        assert_eq!(error.query_id.as_deref(), Some("q7"));
        assert!(error.message.ends_with('^'), "{}", error.message);
        assert_eq!(error.to_string(), text, "nothing is lost when it is shown");
    }

    #[test]
    fn a_status_without_our_headers_is_named_after_its_grpc_code() {
        let error = ServerError::from_status(&status(Code::NotFound, "no such handle", &[]));
        assert_eq!((error.code.as_str(), error.sqlstate), ("NOT_FOUND", None));
    }
}
