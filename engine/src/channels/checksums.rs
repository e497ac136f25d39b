//! Checksums over what internal RPCs carry.
//!
//! TCP sums up 16 bits, and a switch or a network card that damages memory sums up what it has
//! damaged: without TLS a flipped bit in a row would be stored, and one in a status would make half
//! of an answer a whole one (FAULTS F18). So bodies go in pieces:
//!
//! ```text
//! piece   length (4 bytes, little-endian), CRC-32C of length and data (4 bytes), data
//! end     the same with the highest bit of the length set; its data is the status of a response
//! ```
//! Invariant: no byte of a piece is given out before its checksum is right, and a body ends without
//! an error only where its sender ended it, with the status that the sender gave.
//!
//! Headers are not covered: what they say is the path, the secret and whom a request is for, and a
//! wrong one is refused. Damage is `UNAVAILABLE`: the same again may well arrive.

mod decode;
mod encode;

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::{Layer, Service};

use self::decode::Decoded;
use self::encode::Encoded;

/// The header of a body in pieces.
const HEADER: HeaderName = HeaderName::from_static("x-basalt-checksum");
const KIND: HeaderValue = HeaderValue::from_static("crc32c");
/// The status of an RPC.
const STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The longest data of a piece, in bytes: what a receiver keeps until it knows that it is right.
const PIECE_BYTES_MAX: usize = 64 << 10;
/// Bytes of a piece before its data.
const PREFIX_BYTES: usize = 8;
/// Marks the last piece.
const END: u32 = 1 << 31;

/// The checksum of a piece.
fn checksum(length: u32, data: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length.to_le_bytes()), data)
}

fn damaged(what: &str) -> Status {
    Status::unavailable(format!("a message was damaged on its way: {what}"))
}

/// The status that headers or trailers state.
fn status_of(headers: &HeaderMap) -> &[u8] {
    headers.get(STATUS).map_or(&[], HeaderValue::as_bytes)
}

/// A client's side: requests go out in pieces, answers must come in pieces.
#[derive(Debug, Clone)]
pub struct ChecksummedChannel<S> {
    inner: S,
}

impl<S> ChecksummedChannel<S> {
    /// Wraps a connection.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S> Service<Request<Body>> for ChecksummedChannel<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.headers_mut().insert(HEADER, KIND);
        let answer = self.inner.call(request.map(|body| Body::new(Encoded::new(body))));
        Box::pin(async move {
            let answer = answer.await?;
            Ok(match status_of(answer.headers()) {
                [] => answer.map(|body| Body::new(Decoded::new(body))),
                // A status without a body cannot be checked, and good ones always have one.
                b"0" => damaged("an answer without a body").into_http(),
                _ => answer,
            })
        })
    }
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

/// A server's side: requests must come in pieces, and answers go out so.
#[derive(Debug, Clone, Copy, Default)]
pub struct Checksums;

impl<S> Layer<S> for Checksums {
    type Service = Checksummed<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Checksummed { inner }
    }
}

/// A service that only hears what is as it was sent.
#[derive(Debug, Clone)]
pub struct Checksummed<S> {
    inner: S,
}

impl<S: NamedService> NamedService for Checksummed<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Checksummed<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.headers().get(HEADER) != Some(&KIND) {
            let refused = Status::failed_precondition("internal RPCs carry checksums");
            return Box::pin(async move { Ok(refused.into_http()) });
        }
        let answer = self.inner.call(request.map(|body| Body::new(Decoded::new(body))));
        Box::pin(async move {
            let answer = answer.await?;
            Ok(match status_of(answer.headers()) {
                [] => answer.map(|body| Body::new(Encoded::new(body))),
                // An error at once has no body.
                _ => answer,
            })
        })
    }
}

#[cfg(test)]
mod tests;
