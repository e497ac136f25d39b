//! Tells a request that was cut off from one that ended.
//!
//! tonic reports a request stream that the client resets (RST_STREAM with CANCEL: a cancelled
//! Python cursor, Ctrl-C in `basalt load`) as its ordinary end. To an upload that is the
//! difference between "commit" and "forget it", so the reset is given another status on its way
//! into tonic, which then passes it on as an error.
//!
//! Invariant: behind [`IntactRequests`] a request stream ends without an error only when the
//! client ended it.

use std::task::{Context, Poll};

use http_body_util::BodyExt;
use tonic::body::Body;
use tonic::codegen::{Service, http::Request};
use tonic::server::NamedService;
use tonic::{Code, Status};

/// A gRPC service that never takes a cut-off request stream for a complete one.
#[derive(Debug, Clone)]
pub struct IntactRequests<S>(pub S);

impl<S: Service<Request<Body>>> Service<Request<Body>> for IntactRequests<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        self.0.call(request.map(|body| Body::new(body.map_err(keep_error))))
    }
}

impl<S: NamedService> NamedService for IntactRequests<S> {
    const NAME: &'static str = S::NAME;
}

/// tonic swallows exactly the code CANCELLED.
fn keep_error(status: Status) -> Status {
    match status.code() {
        Code::Cancelled => Status::aborted("the client reset its stream"),
        _ => status,
    }
}
