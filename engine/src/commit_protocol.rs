//! Messages of the service `CommitRecords` and the types of `basalt_storage::commit_records`.

use basalt_storage::command_log::{Chain, Verdict};
use basalt_storage::commit_records::Known;
use basalt_storage::ids::{ClusterId, Epoch, LogEpoch, WorkerId};

use crate::protocol::{
    CommitMark, CommitPosition, CommitPutAnswer, LogVerdict, MalformedMessage, WireId,
    digest_from_wire,
};

/// What a worker says of its commit records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordsPosition {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The worker.
    pub worker: WorkerId,
    /// The newest epoch of the slices that it has heard of.
    pub epoch: Epoch,
    /// How far its records are.
    pub known: Known,
    /// What is damaged of them.
    pub damage: Option<String>,
}

impl RecordsPosition {
    /// The message.
    pub fn to_wire(&self) -> CommitPosition {
        let Self { cluster, worker, epoch, known, damage } = self;
        CommitPosition {
            cluster: cluster.to_wire(),
            worker: worker.to_wire(),
            epoch: epoch.0,
            known: known.at.map(mark_to_wire),
            appendable: known.appendable,
            bytes: known.bytes,
            full_bytes: known.full_bytes,
            damage: damage.clone(),
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// With the field that makes no sense.
    pub fn from_wire(wire: &CommitPosition) -> Result<Self, MalformedMessage> {
        const MESSAGE: &str = "CommitPosition";
        let known = Known {
            at: wire.known.as_ref().map(mark_from_wire).transpose()?,
            appendable: wire.appendable,
            bytes: wire.bytes,
            full_bytes: wire.full_bytes,
        };
        Ok(Self {
            cluster: ClusterId::from_wire(&wire.cluster, MESSAGE, "cluster")?,
            worker: WorkerId::from_wire(&wire.worker, MESSAGE, "worker")?,
            epoch: Epoch(wire.epoch),
            known,
            damage: wire.damage.clone(),
        })
    }
}

/// The message of a commit.
pub fn mark_to_wire(mark: Chain) -> CommitMark {
    CommitMark {
        seq: mark.seq,
        epoch: mark.epoch.0,
        log_epoch: mark.log_epoch.0,
        hash: mark.hash.as_bytes().to_vec(),
    }
}

/// Reads a commit.
///
/// # Errors
/// When its hash is none.
pub fn mark_from_wire(wire: &CommitMark) -> Result<Chain, MalformedMessage> {
    Ok(Chain {
        seq: wire.seq,
        epoch: Epoch(wire.epoch),
        log_epoch: LogEpoch(wire.log_epoch),
        hash: digest_from_wire(&wire.hash, "CommitMark")?,
    })
}

/// The message of an answer to a put.
pub fn put_answer_to_wire(verdict: Verdict, position: &RecordsPosition) -> CommitPutAnswer {
    let verdict = match verdict {
        Verdict::Done => LogVerdict::LogDone,
        Verdict::Refused => LogVerdict::LogRefused,
        Verdict::Mismatch => LogVerdict::LogMismatch,
    };
    CommitPutAnswer { verdict: verdict.into(), position: Some(position.to_wire()) }
}

/// Reads an answer to a put.
///
/// # Errors
/// With the field that makes no sense.
pub fn put_answer_from_wire(
    wire: &CommitPutAnswer,
) -> Result<(Verdict, RecordsPosition), MalformedMessage> {
    let malformed = |field| MalformedMessage::new("CommitPutAnswer", field);
    let verdict = match wire.verdict() {
        LogVerdict::LogDone => Verdict::Done,
        LogVerdict::LogRefused => Verdict::Refused,
        LogVerdict::LogMismatch => Verdict::Mismatch,
        LogVerdict::LogUnknown => return Err(malformed("verdict")),
    };
    let position = wire.position.as_ref().ok_or_else(|| malformed("position"))?;
    Ok((verdict, RecordsPosition::from_wire(position)?))
}
