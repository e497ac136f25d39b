//! What the gate has to know of datafusion-distributed's messages (its `worker.proto`, whose types
//! are private to it). Fields that are not listed here are skipped.

use prost::{Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub(super) struct CoordinatorToWorker {
    #[prost(oneof = "Part", tags = "1, 2, 3")]
    pub(super) part: Option<Part>,
}

/// As a `oneof`, so that of several parts in one message the same one counts here and there.
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Part {
    #[prost(message, tag = "1")]
    SetPlan(SetPlan),
    #[prost(message, tag = "2")]
    WorkUnits(Empty),
    #[prost(bool, tag = "3")]
    EndOfWorkUnits(bool),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SetPlan {
    #[prost(message, optional, tag = "1")]
    pub(super) task: Option<TaskKey>,
    #[prost(uint64, tag = "2")]
    pub(super) tasks: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) plan: Vec<u8>,
    #[prost(message, repeated, tag = "4")]
    pub(super) feeds: Vec<Empty>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TaskKey {
    #[prost(uint64, tag = "3")]
    pub(super) number: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExecuteTask {
    #[prost(uint64, tag = "2")]
    pub(super) first: u64,
    #[prost(uint64, tag = "3")]
    pub(super) end: u64,
    #[prost(oneof = "ProducerHead", tags = "6, 7, 8")]
    pub(super) head: Option<ProducerHead>,
}

/// What the task's plan is topped with.
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum ProducerHead {
    #[prost(message, tag = "6")]
    None(Empty),
    #[prost(message, tag = "7")]
    Broadcast(BroadcastHead),
    #[prost(message, tag = "8")]
    Repartition(RepartitionHead),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BroadcastHead {
    #[prost(uint64, tag = "1")]
    pub(super) partitions: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RepartitionHead {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) partitioning: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Empty {}
