//! Sums of the headers and trailers that mean something to whoever gets them.

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tonic::{Code, Status};

use super::damaged;
use crate::secret::SECRET_HEADER;

/// The header with the sum of the others.
const HEADER: HeaderName = HeaderName::from_static("x-basalt-checksum");
/// The status of an RPC.
const STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Whether headers of a name are summed up.
fn means_something(name: &HeaderName) -> bool {
    let name = name.as_str();
    let is_ours = name.starts_with("x-") || name.starts_with("grpc-");
    // The secret is compared as a whole, and no part of it leaves in another form. `grpc-timeout`
    // is rewritten on the way out.
    is_ours && name != HEADER && name != SECRET_HEADER && name != "grpc-timeout"
}

/// The sum of headers, whatever their order, behind some other text.
fn sum(before: &str, headers: &HeaderMap) -> u32 {
    let mut summed: Vec<_> = headers
        .iter()
        .filter(|(name, _)| means_something(name))
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    summed.sort_unstable();
    summed.into_iter().fold(crc32c::crc32c(before.as_bytes()), |sum, (name, value)| {
        // Zero bytes are in no header.
        [&[0], name.as_bytes(), &[0], value]
            .into_iter()
            .fold(sum, |sum, part: &[u8]| crc32c::crc32c_append(sum, part))
    })
}

/// The sum of trailers.
pub(super) fn sum_of_trailers(trailers: Option<&HeaderMap>) -> [u8; 4] {
    trailers.map_or(0, |trailers| sum("trailers", trailers)).to_le_bytes()
}

fn put(headers: &mut HeaderMap, sum: u32) {
    // Hexadecimal digits are fine in a header.
    if let Ok(value) = HeaderValue::from_str(&format!("{sum:08x}")) {
        headers.insert(HEADER, value);
    }
}

fn has(headers: &HeaderMap, sum: u32) -> bool {
    headers.get(HEADER).is_some_and(|value| value.as_bytes() == format!("{sum:08x}").as_bytes())
}

/// Adds the sum to a request. Its headers are not for HTTP/2 to remember.
pub(super) fn sum_up_request<T>(request: &mut Request<T>) {
    let sum = sum(request.uri().path(), request.headers());
    put(request.headers_mut(), sum);
    keep_apart(request.headers_mut());
}

/// Has HTTP/2 send the headers as they are, each time.
pub(super) fn keep_apart(headers: &mut HeaderMap) {
    for value in headers.values_mut() {
        value.set_sensitive(true);
    }
}

/// Whether a request is the one that was sent.
pub(super) fn check_request<T>(request: &Request<T>) -> Result<(), Status> {
    if request.headers().get(HEADER).is_none() {
        return Err(Status::unavailable(
            "a request without a checksum: it was damaged, or its sender has another version",
        ));
    }
    match has(request.headers(), sum(request.uri().path(), request.headers())) {
        true => Ok(()),
        false => Err(damaged("the headers of a request")),
    }
}

/// The status in headers; `None`: it comes behind a body.
pub(super) fn status_of(headers: &HeaderMap) -> Option<Code> {
    headers.get(STATUS).map(|status| Code::from_bytes(status.as_bytes()))
}

/// Adds the sum to an answer without a body.
pub(super) fn sum_up_error(headers: &mut HeaderMap) {
    let sum = sum("error", headers);
    put(headers, sum);
    keep_apart(headers);
}

/// The status of an answer without a body, which is as it was sent; `None`: there is a body.
pub(super) fn check_answer(headers: &HeaderMap) -> Result<Option<Code>, Status> {
    match status_of(headers) {
        None => Ok(None),
        // Good answers have a body.
        Some(Code::Ok) => Err(damaged("an answer without a body")),
        // Whoever does not know the secret gets no further than this.
        Some(Code::Unauthenticated) => Ok(Some(Code::Unauthenticated)),
        Some(_) if !has(headers, sum("error", headers)) => Err(damaged("the status of an answer")),
        Some(code) => Ok(Some(code)),
    }
}

/// Whether an error can come of headers that were damaged once and are remembered.
pub(super) fn may_be_of_the_connection(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::Unimplemented | Code::Unauthenticated | Code::Unknown)
}
