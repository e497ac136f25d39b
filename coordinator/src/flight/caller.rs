//! Who calls, and what the call is called: the session of its connection and its request key.
//!
//! Drivers set a header for all calls of a statement or a connection: of those that run no statement
//! (preparing, binding, fetching, metadata) it means nothing.

use basalt_engine::error::SqlError;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use super::{FlightSqlServer, status};
use crate::backend::SessionId;
use crate::catalog::RequestKey;

/// Names the one statement that a call runs, so that sending it again has no second effect.
pub(super) const REQUEST_HEADER: &str = "x-basalt-request";

/// Who calls, of a call that may run a statement.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// The session of the connection.
    pub(super) session: SessionId,
    /// What the client calls the statement.
    pub(super) request: Option<RequestKey>,
}

impl FlightSqlServer {
    /// Who calls; fails when what the call is called is no key.
    pub(super) fn caller_of<T>(request: &Request<T>) -> Result<Caller, Status> {
        let session = Self::session_of(request)?;
        Ok(Caller { session, request: request_key(request.metadata())? })
    }
}

fn request_key(headers: &MetadataMap) -> Result<Option<RequestKey>, Status> {
    let mut given = headers.get_all(REQUEST_HEADER).iter();
    let Some(value) = given.next() else { return Ok(None) };
    if given.any(|other| other != value) {
        return Err(status::invalid(format!("the header {REQUEST_HEADER} is given twice")));
    }
    let text = value.to_str().map_err(|_| {
        status::invalid(format!(
            "the header {REQUEST_HEADER} is not ASCII text\n\
             HINT: a LABEL in the statement may be any text"
        ))
    })?;
    RequestKey::new(text)
        .map(Some)
        .map_err(|error| status::from_error(&SqlError::from(error), "", None))
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataValue;

    use super::*;

    fn headers(values: &[&'static [u8]]) -> MetadataMap {
        let mut headers = MetadataMap::new();
        for value in values {
            headers.append(REQUEST_HEADER, MetadataValue::try_from(*value).unwrap());
        }
        headers
    }

    #[track_caller]
    fn check_key(values: &[&'static [u8]], expected: Option<&str>) {
        let key = request_key(&headers(values)).unwrap();
        assert_eq!(key.as_ref().map(RequestKey::as_str), expected);
    }

    #[test]
    fn a_key_is_read_from_its_header() {
        check_key(&[], None);
        check_key(&[b"load 2026-11-28"], Some("load 2026-11-28"));
        check_key(&[b"k", b"k"], Some("k"));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let long: &'static [u8] = &[b'k'; 256];
        for (values, expected) in [
            (vec![&b""[..]], "the request key is empty"),
            (vec![long], "the request key is longer than 255 bytes"),
            (vec![b"a", b"b"], "the header x-basalt-request is given twice"),
            (vec![b"\xc3\xa4"], "the header x-basalt-request is not ASCII text"),
        ] {
            let status = request_key(&headers(&values)).unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            assert!(status.message().starts_with(expected), "{}", status.message());
        }
    }
}
