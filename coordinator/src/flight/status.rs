//! The one table from [`ErrorCode`] to gRPC, and the place where panics become errors.
//!
//! Invariant: whatever a status carries fits into a client's metadata limit (8 KiB in gRPC C++),
//! since a status that does not fit reaches the client as another error.
//!
//! Codes are chosen by what the ADBC and JDBC drivers make of them (FLIGHT_SQL.md 3.5).

use std::any::Any;
use std::panic::AssertUnwindSafe;

use basalt_engine::error::{ErrorCode, SqlError};
use bytes::Bytes;
use futures::FutureExt;
use prost::Message;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::backend::QueryId;

/// Names the query in headers, trailers and logs.
pub(super) const QUERY_ID_HEADER: &str = "x-query-id";
const ERROR_CODE_HEADER: &str = "x-error-code";
const SQLSTATE_HEADER: &str = "x-sqlstate";

/// Bytes that a message may take in the trailers, where it is twice: percent-encoded as
/// `grpc-message`, and in base64 in `grpc-status-details-bin`, from which gRPC Go takes it. With
/// the other trailers it stays below 8 KiB, the soft limit of gRPC C++ and so of pyarrow.
const MESSAGE_BYTES_MAX: usize = 6_500;

/// The gRPC code of each error.
pub(super) fn grpc_code(code: ErrorCode) -> Code {
    match code {
        ErrorCode::SyntaxError
        | ErrorCode::UndefinedTable
        | ErrorCode::UndefinedColumn
        | ErrorCode::UndefinedFunction
        | ErrorCode::DatatypeMismatch
        | ErrorCode::InvalidStatement
        | ErrorCode::DataException
        | ErrorCode::NumericOutOfRange
        | ErrorCode::NotNullViolation
        | ErrorCode::InvalidParameter
        | ErrorCode::SourceFile => Code::InvalidArgument,
        ErrorCode::DuplicateObject => Code::AlreadyExists,
        ErrorCode::FeatureNotSupported => Code::Unimplemented,
        ErrorCode::PermissionDenied => Code::PermissionDenied,
        ErrorCode::Conflict | ErrorCode::StalePlan => Code::Aborted,
        ErrorCode::Cancelled => Code::Cancelled,
        ErrorCode::ResourcesExhausted => Code::ResourceExhausted,
        ErrorCode::Unavailable => Code::Unavailable,
        ErrorCode::DataCorrupted => Code::DataLoss,
        ErrorCode::UnknownHandle => Code::NotFound,
        ErrorCode::OutcomeUnknown => Code::Unknown,
        ErrorCode::Internal => Code::Internal,
    }
}

/// The status of an error in `sql` (may be empty), with the query it happened in when known.
pub(super) fn from_error(error: &SqlError, sql: &str, query: Option<QueryId>) -> Status {
    let code = grpc_code(error.code);
    let mut metadata = MetadataMap::new();
    let mut insert = |name: &'static str, value: &str| {
        if let Ok(value) = MetadataValue::try_from(value) {
            metadata.insert(name, value);
        }
    };
    insert(ERROR_CODE_HEADER, error.code.name());
    insert(SQLSTATE_HEADER, error.code.sqlstate());
    if let Some(query) = query {
        insert(QUERY_ID_HEADER, &query.to_string());
    }
    let text = text(error, sql);
    let details = Details::new(code, text.clone(), error, query).encode_to_vec();
    Status::with_details_and_metadata(code, text, Bytes::from(details), metadata)
}

/// What the user reads: rendered with its line and caret, without them when that is too long.
fn text(error: &SqlError, sql: &str) -> String {
    let rendered = error.render(sql);
    if trailer_bytes(&rendered) <= MESSAGE_BYTES_MAX {
        return rendered;
    }
    truncate(&error.render(""), MESSAGE_BYTES_MAX)
}

/// A status for an error that belongs to no statement's text.
pub(super) fn error(code: ErrorCode, message: impl Into<String>) -> Status {
    from_error(&SqlError::new(code, message), "", None)
}

/// INVALID_ARGUMENT: the request itself makes no sense.
pub(super) fn invalid(message: impl Into<String>) -> Status {
    error(ErrorCode::InvalidParameter, message)
}

/// UNIMPLEMENTED: drivers fall back to something else when they see it.
pub(super) fn unsupported(message: impl Into<String>) -> Status {
    error(ErrorCode::FeatureNotSupported, message)
}

/// Runs a call of the backend: its error becomes a status, and so does a panic.
pub(super) async fn guard<T>(
    sql: &str,
    call: impl Future<Output = Result<T, SqlError>>,
) -> Result<T, Status> {
    match AssertUnwindSafe(call).catch_unwind().await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(from_error(&e, sql, None)),
        Err(panic) => Err(from_error(&panicked(panic.as_ref()), sql, None)),
    }
}

/// The error of a panic below us; the panic's own text goes to the log, not to the client.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> SqlError {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a text");
    tracing::error!(panic = text, "a request panicked");
    SqlError::new(ErrorCode::Internal, "the server failed on this request, which is a bug of ours")
        .with_hint("the server's log has the details; other requests are not affected")
}

/// Bytes of `text` in the trailers: percent-encoded and in base64. Most of non-ASCII and control
/// text triples in the former.
fn trailer_bytes(text: &str) -> usize {
    text.bytes().map(percent_encoded_byte).sum::<usize>() + text.len().div_ceil(3) * 4
}

fn percent_encoded_byte(byte: u8) -> usize {
    if (b' '..=b'~').contains(&byte) && !b" \"#<>`?{}%".contains(&byte) { 1 } else { 3 }
}

/// The longest prefix of whole characters that fits into the trailers.
fn truncate(text: &str, bytes_max: usize) -> String {
    const MARK: &str = "... (shortened)";
    if trailer_bytes(text) <= bytes_max {
        return text.to_owned();
    }
    let room = bytes_max.saturating_sub(trailer_bytes(MARK));
    let mut encoded = 0;
    let end = text.char_indices().find(|(start, character)| {
        let end = start + character.len_utf8();
        encoded += text[*start..end].bytes().map(percent_encoded_byte).sum::<usize>();
        encoded + end.div_ceil(3) * 4 > room
    });
    let end = end.map_or(text.len(), |(start, _)| start);
    format!("{}{MARK}", &text[..end])
}

/// `google.rpc.Status`, as `grpc-status-details-bin` holds it.
#[derive(Clone, PartialEq, prost::Message)]
struct Details {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<arrow_flight::sql::Any>,
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(map = "string, string", tag = "3")]
    metadata: std::collections::HashMap<String, String>,
}

impl Details {
    fn new(code: Code, message: String, error: &SqlError, query: Option<QueryId>) -> Self {
        let mut metadata = std::collections::HashMap::from([
            ("sqlstate".to_owned(), error.code.sqlstate().to_owned()),
            ("retryable".to_owned(), error.code.is_retryable().to_string()),
        ]);
        if let Some(query) = query {
            metadata.insert("query_id".to_owned(), query.to_string());
        }
        if let Some(position) = error.position {
            metadata.insert("line".to_owned(), position.line.to_string());
            metadata.insert("column".to_owned(), position.column.to_string());
        }
        let info = ErrorInfo {
            reason: error.code.name().to_owned(),
            domain: "basalt".to_owned(),
            metadata,
        };
        let any = arrow_flight::sql::Any {
            type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(),
            value: info.encode_to_vec().into(),
        };
        Self { code: code as i32, message, details: vec![any] }
    }
}

#[cfg(test)]
mod tests {
    use basalt_engine::error::Position;

    use super::*;

    #[test]
    fn a_status_carries_the_code_the_sqlstate_and_the_query() {
        let query = QueryId::from_u128(7);
        let error = SqlError::new(ErrorCode::Conflict, "table \"t\" was changed meanwhile");
        let status = from_error(&error, "", Some(query));
        assert_eq!(status.code(), Code::Aborted);
        assert_eq!(status.metadata().get(ERROR_CODE_HEADER).unwrap(), "CONFLICT");
        assert_eq!(status.metadata().get(SQLSTATE_HEADER).unwrap(), "40001");
        assert_eq!(
            status.metadata().get(QUERY_ID_HEADER).unwrap().to_str().unwrap(),
            query.to_string()
        );
        let details = Details::decode(status.details()).unwrap();
        let info = ErrorInfo::decode(details.details[0].value.as_ref()).unwrap();
        assert_eq!(info.reason, "CONFLICT");
        assert_eq!(info.metadata["retryable"], "true");
    }

    #[test]
    fn a_long_statement_is_shortened_and_the_hint_stays() {
        let sql = format!("select amuont, '{}'", "ü".repeat(100_000));
        let error = SqlError::new(ErrorCode::UndefinedColumn, "column \"amuont\" does not exist")
            .at(Position { line: 1, column: 8 })
            .with_hint("did you mean \"amount\"?");
        let status = from_error(&error, &sql, None);
        assert!(status.message().starts_with("column \"amuont\" does not exist\nLINE 1: "));
        assert!(status.message().ends_with("\nHINT: did you mean \"amount\"?"));
        assert!(status.message().len() < 1_000, "{}", status.message().len());
    }

    #[test]
    fn a_long_message_is_shortened_at_a_character() {
        let status = error(ErrorCode::InvalidStatement, "ü".repeat(100_000));
        assert!(status.message().ends_with("(shortened)"));
        assert!(trailer_bytes(status.message()) <= MESSAGE_BYTES_MAX);
        assert!(status.message().len() > 700);
    }

    #[tokio::test]
    async fn a_panic_becomes_internal_and_keeps_its_text_to_itself() {
        let status =
            guard::<()>("", async { panic!("the secret is 42") }).await.expect_err("an error");
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("42"));
    }
}
