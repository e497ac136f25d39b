//! Which worker a request is for.
//!
//! An address outlives the worker that had it: another one, of another data directory, may listen
//! there a moment later, with the same secret. A copy that it took in place of the first would be
//! counted for a disk that does not have it, and a list of its files would make those of the first
//! seem lost. So requests name the worker, and any other one refuses them.
//!
//! Not fragments: datafusion-distributed knows addresses only. What one writes goes to the owners that
//! its plan names, and what it reads has digests.

use basalt_storage::ids::WorkerId;
use http::HeaderValue;
use tonic::{Request, Status};
use uuid::Uuid;

/// The metadata key that names the worker.
pub const WORKER_HEADER: &str = "x-basalt-worker";

/// The header's value for a worker.
pub(crate) fn to_header(worker: WorkerId) -> HeaderValue {
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let text = worker.0.hyphenated().encode_lower(&mut text);
    // Hexadecimal digits and hyphens are fine in a header.
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// Lets a request pass that is for `own`, or for whoever listens here.
///
/// # Errors
/// `UNAVAILABLE`: the worker that is meant is not here, and may be elsewhere.
pub fn admit(own: WorkerId, request: Request<()>) -> Result<Request<()>, Status> {
    let Some(named) = request.metadata().get(WORKER_HEADER) else { return Ok(request) };
    if Uuid::try_parse_ascii(named.as_bytes()).is_ok_and(|named| WorkerId(named) == own) {
        return Ok(request);
    }
    let named: String = String::from_utf8_lossy(named.as_bytes()).chars().take(36).collect();
    Err(Status::unavailable(format!("worker {own} listens here now, not worker {named}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_worker_that_is_named_takes_a_request() {
        let [own, other] = [WorkerId(Uuid::from_u128(1)), WorkerId(Uuid::from_u128(2))];
        let request = |value: Option<HeaderValue>| {
            let mut headers = http::HeaderMap::new();
            headers.extend(value.map(|v| (http::HeaderName::from_static(WORKER_HEADER), v)));
            Request::from_parts(
                tonic::metadata::MetadataMap::from_headers(headers),
                tonic::Extensions::default(),
                (),
            )
        };
        assert!(admit(own, request(None)).is_ok());
        assert!(admit(own, request(Some(to_header(own)))).is_ok());
        for wrong in [to_header(other), HeaderValue::from_static(""), {
            HeaderValue::from_bytes(&[0xff; 4_000]).unwrap()
        }] {
            let refused = admit(own, request(Some(wrong))).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::Unavailable);
            assert!(refused.message().len() < 300, "{}", refused.message());
        }
    }
}
