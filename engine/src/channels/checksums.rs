//! Checksums over what internal RPCs carry.
//!
//! TCP sums up 16 bits, and a switch or a network card that damages memory sums up what it has
//! damaged: without TLS a flipped bit in a row would be stored, and one in a status would make half
//! of an answer a whole one (FAULTS F18). So bodies go in pieces, and headers that mean something
//! are summed up:
//!
//! ```text
//! piece    length (4 bytes, little-endian), CRC-32C of the length (4), CRC-32C of the data (4), data
//! end      the same with the highest bit of the length set; its data is the CRC-32C of the trailers
//! request  x-basalt-checksum: CRC-32C of the path and of all `x-` headers but the secret
//! error    an answer without a body: the same of its status and `x-` headers
//! ```
//! Invariant: no byte of a piece is given out before its checksum is right, and a body ends without
//! an error only where its sender ended it, with the trailers that the sender gave.
//!
//! Damage is `UNAVAILABLE`: the same again may well arrive. It may arrive on another connection only,
//! as HTTP/2 remembers headers: see [`ChecksummedChannel::new`].

mod decode;
mod encode;
mod headers;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::{Layer, Service};

use self::decode::Decoded;
use self::encode::Encoded;

/// The longest data of a piece, in bytes: what a receiver keeps until it knows that it is right.
const PIECE_BYTES_MAX: usize = 64 << 10;
/// Bytes of a piece before its data.
const PREFIX_BYTES: usize = 12;
/// Marks the last piece.
const END: u32 = 1 << 31;

fn damaged(what: &str) -> Status {
    Status::unavailable(format!("a message was damaged on its way: {what}"))
}

/// What is to be done when a connection turns out to be bad.
pub type OnDamage = Arc<dyn Fn() + Send + Sync>;

/// A client's side: requests go out in pieces, answers must come in pieces.
#[derive(Clone)]
pub struct ChecksummedChannel<S> {
    inner: S,
    on_damage: OnDamage,
}

impl<S> ChecksummedChannel<S> {
    /// Wraps a connection. `on_damage` is called for whatever may be the connection's fault: a bit
    /// that is flipped in a header spoils its later requests too, because HTTP/2 sends a header
    /// that it has sent before as a number.
    pub fn new(inner: S, on_damage: OnDamage) -> Self {
        Self { inner, on_damage }
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
        headers::sum_up_request(&mut request);
        let answer = self.inner.call(request.map(|body| Body::new(Encoded::new(body))));
        let on_damage = Arc::clone(&self.on_damage);
        Box::pin(async move {
            let answer = answer.await?;
            Ok(match headers::check_answer(answer.headers()) {
                Ok(None) => answer.map(|body| Body::new(Decoded::new(body, Some(on_damage)))),
                Ok(Some(code)) => {
                    if headers::may_be_of_the_connection(code) {
                        on_damage();
                    }
                    answer
                }
                Err(damaged) => {
                    on_damage();
                    damaged.into_http()
                }
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

impl<S, B> Service<Request<Body>> for Checksummed<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes, Error = Status> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if let Err(refused) = headers::check_request(&request) {
            let mut refused = refused.into_http();
            headers::sum_up_error(refused.headers_mut());
            return Box::pin(async move { Ok(refused) });
        }
        let answer = self.inner.call(request.map(|body| Body::new(Decoded::new(body, None))));
        Box::pin(async move {
            let mut answer = answer.await?.map(Body::new);
            Ok(match headers::status_of(answer.headers()) {
                None => answer.map(|body| Body::new(Encoded::new(body))),
                Some(_) => {
                    headers::sum_up_error(answer.headers_mut());
                    answer
                }
            })
        })
    }
}

#[cfg(test)]
mod tests;
