//! Requests above the message limit end in an error like any other.
//!
//! tonic refuses them before a handler sees them, with a status that carries neither our code nor
//! what to do instead. Nothing of such a request is held: its length comes first.

use std::pin::Pin;
use std::task::{Context, Poll};

use basalt_engine::error::{ErrorCode, SqlError};
use http::{Request, Response};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::Service;

use super::status;

/// A gRPC service whose refusals of large messages are typed.
#[derive(Debug, Clone)]
pub struct Oversized<S> {
    inner: S,
}

impl<S> Oversized<S> {
    /// Wraps a service.
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S: NamedService> NamedService for Oversized<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Oversized<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Error: 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let response = self.inner.call(request);
        Box::pin(async move { response.await.map(typed) })
    }
}

/// The same response, unless it says that the request was too large.
fn typed(response: Response<Body>) -> Response<Body> {
    // No code of ours becomes OUT_OF_RANGE: it is tonic's for messages above the limit.
    match Status::from_header_map(response.headers()) {
        Some(refusal) if refusal.code() == Code::OutOfRange => {
            let what = refusal.message().trim_start_matches("Error, ");
            let message = format!("the request is too large: {what}");
            let error = SqlError::new(ErrorCode::ResourcesExhausted, message)
                .with_hint("load data with COPY or `basalt load` instead of literals");
            status::from_error(&error, "", None).into_http()
        }
        _ => response,
    }
}
