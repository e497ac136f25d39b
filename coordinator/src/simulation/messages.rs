//! Who says what to whom.
//!
//! A message goes to an address; whoever listens there when it arrives gets it, so a request names
//! the worker that it is for. Every call has a number: an answer to one that nobody waits for any
//! more is dropped, as it would be with its connection.

use std::collections::BTreeSet;
use std::sync::Arc;

use basalt_engine::error::{ErrorCode, SqlError};
use basalt_engine::write::AppendTarget;
use basalt_storage::ids::{ClusterId, Epoch, SegmentId, SliceId, TxnId, WorkerId};
use basalt_storage::manifest::SegmentRecord;

use super::clients::Statement;
use super::disk::Row;
use crate::membership::{Incarnation, Join};

/// A process, or what will be one again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Node {
    Coordinator,
    /// A machine of a worker, by number.
    Machine(usize),
    Client(usize),
}

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Address {
    Coordinator,
    /// Whoever listens at a port, if it is this worker.
    Worker(WorkerId, u16),
    Client(usize),
}

/// One call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CallId(pub(super) u64);

/// Whom to answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    pub(super) node: Node,
    /// Which run of the caller's process.
    pub(super) run: u64,
    pub(super) call: CallId,
}

#[derive(Debug, Clone)]
pub(super) enum Message {
    Ask(Caller, Ask),
    Answer(CallId, Result<Reply, SqlError>),
}

/// What can be asked.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    // of the coordinator
    Register(Box<Join>),
    Heartbeat { worker: WorkerId, incarnation: Incarnation, epoch: Epoch },
    Run(Statement),
    Query,
    // of a worker, by the coordinator
    Ping,
    Append { target: Arc<AppendTarget>, slice: SliceId, rows: Vec<Row> },
    Seal { epoch: Epoch, txn: TxnId },
    Abort { txn: TxnId },
    Fetch { epoch: Epoch, record: Arc<SegmentRecord>, sources: Vec<(WorkerId, u16)> },
    Inventory,
    Remove { epoch: Epoch, segments: Vec<SegmentId> },
    // of a worker, by the coordinator or a worker
    Put { epoch: Epoch, cluster: ClusterId, record: Arc<SegmentRecord> },
    Read { epoch: Epoch, segment: SegmentId },
}

/// What can be answered.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    Done,
    Epoch { epoch: Epoch, register_again: bool },
    Pong(Incarnation),
    Sealed(Vec<SegmentRecord>),
    Fetched(u64),
    Listed(BTreeSet<SegmentId>),
    Rows(Vec<Row>),
    Wrote { version: u64, replayed: bool },
}

/// What is said when a process cannot be reached, or does not answer.
pub(super) fn unavailable(message: &str) -> SqlError {
    SqlError::new(ErrorCode::Unavailable, message)
}
