//! The one thread that changes the catalog: applies commands in order, makes them durable in
//! groups, then shows them to readers.
//!
//! Invariant: readers see a commit, and callers learn its outcome, only after the record is
//! fsynced. All commands that wait when a write begins share that write (group commit); each is
//! applied in order and has its own result. After a failed write the thread takes no more
//! commits: its state is ahead of the disk, and what the disk kept is unknown until a restart.

use std::sync::Arc;

use basalt_storage::fail_point::{self, FailPoint};
use basalt_storage::ids::TxnId;
use tokio::sync::{mpsc, oneshot, watch};

use super::command::{Command, RequestKey};
use super::directory::Directory;
use super::error::CatalogError;
use super::log::Log;
use super::record::Chain;
use super::state::{RequestOutcome, State};
use super::{Committed, Published};

/// Commands that may wait for the writer; those who come later wait for a place.
pub(super) const QUEUE_MAX: usize = 256;
/// Commands in one write. More would only make the first one wait longer.
const GROUP_MAX: usize = 64;
/// Bytes in one write, so that a group of large commits does not multiply memory.
const GROUP_BYTES_MAX: usize = 64 << 20;

/// Work for the writer.
pub(super) enum Message {
    /// A command and its serialised form.
    Commit { command: Command, payload: Vec<u8>, reply: Reply<Committed> },
    /// What came of a request.
    Request { key: RequestKey, reply: Reply<Option<RequestOutcome>> },
    /// What came of all requests that are remembered.
    Requests { reply: Reply<Vec<(RequestKey, RequestOutcome)>> },
}

type Reply<T> = oneshot::Sender<Result<T, CatalogError>>;

/// A command that was applied or refused, and who waits to hear of it.
struct Pending {
    txn: TxnId,
    result: Result<Committed, CatalogError>,
    reply: Reply<Committed>,
}

pub(super) struct Writer {
    pub(super) log: Log,
    pub(super) state: State,
    pub(super) published: Arc<watch::Sender<Published>>,
    /// Why no more commits are taken.
    pub(super) failed: Option<String>,
    /// Released last, after the log is closed.
    pub(super) directory: Directory,
}

impl Writer {
    /// Runs until every sender is gone and the queue is empty.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        while let Some(first) = queue.blocking_recv() {
            self.serve(first, &mut queue);
        }
        if self.failed.is_none()
            && let Err(error) = self.log.checkpoint(&self.state)
        {
            // The log has everything: the next start replays what the checkpoint would have saved.
            let path = self.directory.path().display();
            tracing::warn!(%error, %path, "the catalog was closed without a checkpoint");
        }
    }

    /// Takes `first` and what waits behind it, up to the limits of a group.
    fn serve(&mut self, first: Message, queue: &mut mpsc::Receiver<Message>) {
        let mut group = Vec::new();
        let mut records = Vec::new();
        let mut bytes = 0;
        let mut chain = self.log.chain();
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Request { key, reply } => {
                    // Earlier commands of the group are not durable yet: finish them first.
                    self.finish(chain, &mut records, &mut group);
                    let _caller_gone = reply.send(self.request(&key));
                }
                Message::Requests { reply } => {
                    self.finish(chain, &mut records, &mut group);
                    let _caller_gone = reply.send(Ok(self.durable_requests()));
                }
                Message::Commit { command, payload, reply } => {
                    let txn = command.txn;
                    bytes += payload.len();
                    let result = self.apply(command).and_then(|(committed, is_new)| {
                        if is_new {
                            records.push(chain.append(self.state.epoch(), &payload)?);
                        }
                        Ok(committed)
                    });
                    group.push(Pending { txn, result, reply });
                }
            }
            let full = group.len() >= GROUP_MAX || bytes >= GROUP_BYTES_MAX;
            next = if full { None } else { queue.try_recv().ok() };
        }
        self.finish(chain, &mut records, &mut group);
    }

    /// Applies a command to the working state, or finds the outcome it had before.
    fn apply(&mut self, command: Command) -> Result<(Committed, bool), CatalogError> {
        self.check_running()?;
        self.state.apply_once(command)
    }

    fn request(&self, key: &RequestKey) -> Result<Option<RequestOutcome>, CatalogError> {
        self.check_running()?;
        Ok(self.state.request(key).cloned())
    }

    /// The state is ahead of the disk after a write that failed.
    fn durable_requests(&self) -> Vec<(RequestKey, RequestOutcome)> {
        let durable = self.published.borrow().snapshot.version;
        let all = self.state.requests.iter().filter(|(_, outcome)| outcome.version <= durable);
        all.map(|(key, outcome)| (key.clone(), outcome.clone())).collect()
    }

    fn check_running(&self) -> Result<(), CatalogError> {
        match &self.failed {
            Some(reason) => Err(CatalogError::Stopped { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Makes the group durable, shows it to readers, and answers everybody in it.
    fn finish(&mut self, chain: Chain, records: &mut Vec<Vec<u8>>, group: &mut Vec<Pending>) {
        let failure = if records.is_empty() {
            None
        } else {
            fail_point::hit(FailPoint::CatalogBeforeAppend);
            self.log.append(chain, records, &self.state).err().map(|error| error.to_string())
        };
        if let Some(cause) = &failure {
            tracing::error!(%cause, "a catalog write failed: no more commits until a restart");
            self.failed = Some(format!("a write failed: {cause}"));
            self.published.send_modify(Published::note_failed_write);
        } else if !records.is_empty() {
            fail_point::hit(FailPoint::CatalogBeforePublish);
            self.published.send_modify(|published| published.show(&self.state));
            fail_point::hit(FailPoint::CatalogBeforeReply);
        }
        records.clear();
        for Pending { txn, result, reply } in group.drain(..) {
            let result = match (&failure, result) {
                (Some(cause), Ok(_)) => {
                    Err(CatalogError::OutcomeUnknown { txn, cause: cause.clone() })
                }
                (_, result) => result,
            };
            // A caller that went away does not undo its commit.
            let _caller_gone = reply.send(result);
        }
    }
}
