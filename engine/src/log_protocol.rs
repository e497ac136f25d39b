//! Messages of the service `CommandLog` and the types of `basalt_storage::command_log`.

use basalt_storage::command_log::copy::Promise;
use basalt_storage::command_log::{Chain, Position, Verdict};
use basalt_storage::ids::{ClusterId, Epoch, LogEpoch, LogWriter, WorkerId};
use uuid::Uuid;

use crate::protocol::{
    LogAnswer, LogPosition, LogVerdict, MalformedMessage, WireId, digest_from_wire,
};

/// What a member says of itself.
#[derive(Debug, Clone, Copy)]
pub struct MemberPosition {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The worker.
    pub worker: WorkerId,
    /// What its copy has and has promised. Of the promise only the epoch travels.
    pub position: Position,
}

impl MemberPosition {
    /// The message.
    pub fn to_wire(self) -> LogPosition {
        let Position { promised, tail, complete } = self.position;
        LogPosition {
            cluster: self.cluster.to_wire(),
            worker: self.worker.to_wire(),
            promised: promised.map(|promise| promise.epoch.0),
            seq: tail.seq,
            hash: tail.hash.as_bytes().to_vec(),
            epoch: tail.epoch.0,
            log_epoch: tail.log_epoch.0,
            complete,
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// With the field that makes no sense.
    pub fn from_wire(wire: &LogPosition) -> Result<Self, MalformedMessage> {
        const MESSAGE: &str = "LogPosition";
        let promised = wire.promised.map(|epoch| Promise {
            epoch: LogEpoch(epoch),
            // Whose it is matters to the member only.
            writer: LogWriter(Uuid::nil()),
        });
        let tail = Chain {
            seq: wire.seq,
            epoch: Epoch(wire.epoch),
            log_epoch: LogEpoch(wire.log_epoch),
            hash: digest_from_wire(&wire.hash, MESSAGE)?,
        };
        Ok(Self {
            cluster: ClusterId::from_wire(&wire.cluster, MESSAGE, "cluster")?,
            worker: WorkerId::from_wire(&wire.worker, MESSAGE, "worker")?,
            position: Position { promised, tail, complete: wire.complete },
        })
    }
}

/// The message of an answer.
pub fn answer_to_wire(verdict: Verdict, position: MemberPosition) -> LogAnswer {
    let verdict = match verdict {
        Verdict::Done => LogVerdict::LogDone,
        Verdict::Refused => LogVerdict::LogRefused,
        Verdict::Mismatch => LogVerdict::LogMismatch,
    };
    LogAnswer { position: Some(position.to_wire()), verdict: verdict.into() }
}

/// Reads an answer.
///
/// # Errors
/// With the field that makes no sense.
pub fn answer_from_wire(wire: &LogAnswer) -> Result<(Verdict, MemberPosition), MalformedMessage> {
    let malformed = |field| MalformedMessage::new("LogAnswer", field);
    let verdict = match wire.verdict() {
        LogVerdict::LogDone => Verdict::Done,
        LogVerdict::LogRefused => Verdict::Refused,
        LogVerdict::LogMismatch => Verdict::Mismatch,
        LogVerdict::LogUnknown => return Err(malformed("verdict")),
    };
    let position = wire.position.as_ref().ok_or_else(|| malformed("position"))?;
    Ok((verdict, MemberPosition::from_wire(position)?))
}
