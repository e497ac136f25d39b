//! Request bodies that break off are errors, and not ends.
//!
//! tonic (0.14) hands a client's RST_STREAM(CANCEL) to a handler as the clean end of its request
//! stream. A load that its client cancels half way would look complete, and be committed. Here
//! the error is turned into one that tonic passes on.
//!
//! Invariant: behind [`StrictBodies`] a request stream ends without an error only if the client
//! ended it.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::Request;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

/// A gRPC service whose request streams end only when the client ends them.
#[derive(Debug, Clone)]
pub struct StrictBodies<S> {
    inner: S,
}

impl<S> StrictBodies<S> {
    /// Wraps a service; any whose methods take a stream and act on its end needs it.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S: NamedService> NamedService for StrictBodies<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for StrictBodies<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.inner.call(request.map(|body| Body::new(StrictBody(body))))
    }
}

/// A body whose errors are no cancellations.
struct StrictBody(Body);

impl http_body::Body for StrictBody {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        // Aborted: any code but Cancelled is passed on.
        let broken = |error: Status| Status::aborted(error.message().to_owned());
        Pin::new(&mut self.0).poll_frame(cx).map_err(broken)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
