//! Requests to run fragments, looked at before datafusion-distributed sees them.
//!
//! ```text
//! body ─▶ first message whole? ─▶ check ─▶ passed on, bytes unchanged ─▶ worker service
//!                                   └────▶ the request fails with a typed status
//! ```
//! Its worker service takes what it gets: it reserves room for as many partitions and work units
//! as a message says, and decodes plans before anybody can look at them. Both RPCs carry all that
//! matters in their first message, so looking at that one is enough.
//!
//! Invariant: no byte of a plan is decoded into nodes before `plan_gate` has passed it.

use std::pin::Pin;
use std::task::{Context, Poll};

use basalt_engine::plan_gate::{check_partitioning_bytes, check_partitions, check_plan_bytes};
use basalt_engine::protocol::MESSAGE_BYTES_MAX;
use bytes::{Bytes, BytesMut};
use http::Request;
use http_body::{Frame, SizeHint};
use prost::Message;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use self::messages::{CoordinatorToWorker, ExecuteTask, Part, ProducerHead};

mod messages;

/// A gRPC message begins with a flag for compression and its length.
const PREFIX_BYTES: usize = 5;
/// Tasks of one stage: workers of a cluster, with room to spare.
const TASKS_MAX: u64 = 65_536;

/// Checks the messages of datafusion-distributed's worker service.
#[derive(Debug, Clone)]
pub struct FragmentGate<S> {
    inner: S,
}

impl<S> FragmentGate<S> {
    /// Guards a worker service.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S: NamedService> NamedService for FragmentGate<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for FragmentGate<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let check: Check = match request.uri().path().rsplit('/').next() {
            Some("CoordinatorChannel") => check_coordinator_message,
            Some("ExecuteTask") => check_execute_task,
            _ => return self.inner.call(request),
        };
        self.inner.call(request.map(|body| Body::new(CheckedBody::new(body, check))))
    }
}

/// Looks at the bytes of a first message.
type Check = fn(&[u8]) -> Result<(), Status>;

/// A body whose first gRPC message has to pass a check.
struct CheckedBody {
    body: Body,
    check: Check,
    /// What came of the first message so far; `None` once it has passed.
    first: Option<BytesMut>,
}

impl CheckedBody {
    fn new(body: Body, check: Check) -> Self {
        Self { body, check, first: Some(BytesMut::new()) }
    }

    /// Takes more bytes of the first message; gives out all of them once it is whole and passes.
    fn take(&mut self, data: Bytes) -> Result<Option<Bytes>, Status> {
        let Some(first) = self.first.as_mut() else { return Ok(Some(data)) };
        first.extend_from_slice(&data);
        let Some((prefix, message)) = first.split_first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let [compressed, length @ ..] = *prefix;
        let length = u32::from_be_bytes(length) as usize;
        if compressed != 0 {
            return Err(Status::unimplemented("compressed requests are not accepted"));
        }
        if length > MESSAGE_BYTES_MAX {
            return Err(Status::out_of_range(format!(
                "a message of {length} bytes is longer than {MESSAGE_BYTES_MAX} bytes"
            )));
        }
        let Some(message) = message.get(..length) else { return Ok(None) };
        (self.check)(message)?;
        Ok(self.first.take().map(BytesMut::freeze))
    }
}

impl http_body::Body for CheckedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            let frame = match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => frame,
                // An end in the middle of the first message: there is nothing to pass on.
                other => return other,
            };
            match frame.into_data() {
                Ok(data) => match self.take(data) {
                    Ok(Some(passed)) => return Poll::Ready(Some(Ok(Frame::data(passed)))),
                    Ok(None) => {}
                    Err(refused) => return Poll::Ready(Some(Err(refused))),
                },
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

fn malformed(message: &'static str) -> Status {
    Status::invalid_argument(format!("{message} is malformed"))
}

/// The first message of a coordinator's stream: a plan for one task.
fn check_coordinator_message(bytes: &[u8]) -> Result<(), Status> {
    let message = CoordinatorToWorker::decode(bytes)
        .map_err(|_| malformed("the first message of a coordinator"))?;
    let Some(Part::SetPlan(plan)) = message.part else {
        return Err(Status::invalid_argument("the first message of a coordinator has no plan"));
    };
    if !plan.feeds.is_empty() {
        // Our scans have explicit chunk lists: no node of ours takes its work from a feed.
        return Err(Status::invalid_argument("a plan with work unit feeds is not accepted"));
    }
    let task = plan.task.unwrap_or_default().number;
    if plan.tasks > TASKS_MAX || task >= plan.tasks {
        let message = format!("a plan is for task {task} of {} tasks", plan.tasks);
        return Err(Status::invalid_argument(message));
    }
    Ok(check_plan_bytes(&plan.plan)?)
}

/// A request to run partitions of a task.
fn check_execute_task(bytes: &[u8]) -> Result<(), Status> {
    let request = ExecuteTask::decode(bytes).map_err(|_| malformed("a request to run a task"))?;
    let ExecuteTask { first, end, .. } = request;
    let count = end.checked_sub(first).ok_or_else(|| {
        Status::invalid_argument(format!("partitions {first} to {end} are no range"))
    })?;
    check_partitions(count)?;
    match &request.head {
        Some(ProducerHead::Broadcast(head)) => Ok(check_partitions(head.partitions)?),
        Some(ProducerHead::Repartition(head)) => Ok(check_partitioning_bytes(&head.partitioning)?),
        Some(ProducerHead::None(_)) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
