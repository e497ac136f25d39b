//! The gate on single bytes, cut anywhere, and on counts that would allocate.

use futures::{StreamExt, stream};
use tonic::Code;

use super::messages::{BroadcastHead, Empty, RepartitionHead, SetPlan, TaskKey};
use super::*;

/// A plan of one node without rows: `PhysicalPlanNode { empty: EmptyExecNode {} }`.
const EMPTY_PLAN: &[u8] = &[0x1a, 0x00];
/// `PhysicalPlanNode { csv_scan: CsvScanExecNode {} }`.
const CSV_PLAN: &[u8] = &[0x12, 0x00];

fn set_plan(edit: impl FnOnce(&mut SetPlan)) -> Vec<u8> {
    let mut plan = SetPlan {
        task: Some(TaskKey { number: 0 }),
        tasks: 1,
        plan: EMPTY_PLAN.to_vec(),
        feeds: vec![],
    };
    edit(&mut plan);
    CoordinatorToWorker { part: Some(Part::SetPlan(plan)) }.encode_to_vec()
}

fn execute(first: u64, end: u64, head: ProducerHead) -> Vec<u8> {
    ExecuteTask { first, end, head: Some(head) }.encode_to_vec()
}

#[test]
fn plans_with_forbidden_nodes_feeds_or_impossible_tasks_are_refused() {
    let check = |bytes: Vec<u8>, expected: Option<Code>| {
        let answer = check_coordinator_message(&bytes);
        assert_eq!(answer.as_ref().err().map(Status::code), expected, "{answer:?}");
    };
    check(set_plan(|_| {}), None);
    check(set_plan(|plan| plan.plan = CSV_PLAN.to_vec()), Some(Code::PermissionDenied));
    check(set_plan(|plan| plan.plan = vec![0xff; 100]), Some(Code::InvalidArgument));
    check(set_plan(|plan| plan.feeds = vec![Empty {}]), Some(Code::InvalidArgument));
    check(set_plan(|plan| plan.tasks = 0), Some(Code::InvalidArgument));
    check(set_plan(|plan| plan.tasks = u64::MAX), Some(Code::InvalidArgument));
    check(set_plan(|plan| plan.task = Some(TaskKey { number: 1 })), Some(Code::InvalidArgument));
    check(vec![], Some(Code::InvalidArgument));
    check(vec![0xff; 100], Some(Code::InvalidArgument));
    // A good plan before a bad one in the same message does not hide it.
    let mut two = set_plan(|_| {});
    two.extend(set_plan(|plan| plan.plan = CSV_PLAN.to_vec()));
    check(two, Some(Code::PermissionDenied));
}

#[test]
fn ranges_of_partitions_that_would_allocate_are_refused() {
    let check = |bytes: Vec<u8>, is_allowed: bool| {
        assert_eq!(check_execute_task(&bytes).is_ok(), is_allowed, "{bytes:?}");
    };
    let none = || ProducerHead::None(Empty {});
    check(execute(0, 4, none()), true);
    check(execute(4, 0, none()), false);
    check(execute(0, 1 << 40, none()), false);
    check(execute(0, u64::MAX, none()), false);
    let broadcast = |partitions| ProducerHead::Broadcast(BroadcastHead { partitions });
    check(execute(0, 1, broadcast(12)), true);
    check(execute(0, 1, broadcast(u64::MAX)), false);
    let repartition = |partitioning: &[u8]| {
        ProducerHead::Repartition(RepartitionHead { partitioning: partitioning.to_vec() })
    };
    // Partitioning { unknown: 4 }, { round_robin: 0 }, and garbage.
    check(execute(0, 1, repartition(&[0x18, 4])), true);
    check(execute(0, 1, repartition(&[0x08, 0])), false);
    check(execute(0, 1, repartition(&[0xff; 20])), false);
}

/// Sends a gRPC frame in pieces of some length through the gate.
async fn through_gate(frame: &[u8], piece_bytes: usize) -> Result<Vec<u8>, Status> {
    let pieces: Vec<_> = frame.chunks(piece_bytes).map(Bytes::copy_from_slice).collect();
    let pieces = stream::iter(pieces).map(|piece| Ok::<_, Status>(Frame::data(piece)));
    let body = Body::new(Pieces(Box::pin(pieces)));
    let mut checked = Box::pin(CheckedBody::new(body, check_coordinator_message));
    let mut passed = Vec::new();
    loop {
        let frame =
            std::future::poll_fn(|context| http_body::Body::poll_frame(checked.as_mut(), context));
        match frame.await {
            Some(frame) => passed.extend(frame?.into_data().unwrap()),
            None => return Ok(passed),
        }
    }
}

struct Pieces(Pin<Box<dyn futures::Stream<Item = Result<Frame<Bytes>, Status>> + Send>>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.0.poll_next_unpin(context)
    }
}

fn frame(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend(message);
    frame
}

#[tokio::test]
async fn a_body_passes_unchanged_however_it_is_cut_and_a_bad_one_never() {
    let mut good = frame(&set_plan(|_| {}));
    good.extend(b"what follows is not the gate's business");
    let bad = frame(&set_plan(|plan| plan.plan = CSV_PLAN.to_vec()));
    for piece_bytes in [1, 2, 5, 7, 1_000] {
        assert_eq!(through_gate(&good, piece_bytes).await.unwrap(), good);
        let refused = through_gate(&bad, piece_bytes).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
    assert_eq!(through_gate(&good[..9], 2).await.unwrap(), b"", "half a message is not passed on");
}

#[tokio::test]
async fn a_message_that_claims_too_much_or_compression_is_refused_by_its_prefix() {
    let check = async |prefix: [u8; 5], code| {
        assert_eq!(through_gate(&prefix, 5).await.unwrap_err().code(), code);
    };
    check([0, 0xff, 0xff, 0xff, 0xff], Code::OutOfRange).await;
    check([1, 0, 0, 0, 1], Code::Unimplemented).await;
}
