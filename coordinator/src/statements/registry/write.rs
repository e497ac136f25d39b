//! Runs that write: what their clients call them, and how far their commit is.
//!
//! Invariant: what is noted here of a commit is what the catalog said, also when the client has
//! gone or a cancel came too late: a run that is shown as aborted changed nothing.

use std::sync::{Arc, OnceLock};

use basalt_engine::error::{ErrorCode, SqlError};
use basalt_engine::settings::WriteConsistency;
use basalt_storage::digest::Digest;
use basalt_storage::ids::TxnId;

use super::{RunNotes, cancelled};
use crate::catalog::{CatalogError, Committed, Request, RequestKey};

/// What is known of a run that writes.
#[derive(Debug, Clone)]
pub struct Write {
    /// What its client calls it, if anything.
    pub request: Option<RequestKey>,
    /// How far its commit is.
    pub commit: Commit,
}

impl Write {
    /// Whether the run only heard what an earlier one of its request had done.
    pub fn is_replay(&self) -> bool {
        matches!(&self.commit, Commit::Done(committed) if committed.replayed)
    }
}

/// How far the commit of a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commit {
    /// Not asked for yet, or refused: nothing changed.
    Nothing,
    /// Asked for, and not answered.
    Asked(TxnId),
    /// Durable and visible, by this run or by an earlier one of the same request.
    Done(Committed),
    /// Asked for, and nobody knows before the coordinator was restarted.
    Unknown(TxnId),
}

/// The request that a run serves.
#[derive(Debug)]
pub(in crate::statements) struct RunRequest {
    key: RequestKey,
    /// Digest of what was asked for; of an upload it is known when its last row is here.
    payload: OnceLock<Digest>,
}

impl RunRequest {
    /// A request whose payload is known.
    pub(in crate::statements) fn new(key: RequestKey, payload: Digest) -> Self {
        Self { key, payload: OnceLock::from(payload) }
    }

    /// A request whose payload is still on its way.
    pub(in crate::statements) fn unread(key: RequestKey) -> Self {
        Self { key, payload: OnceLock::new() }
    }
}

impl RunNotes {
    /// The same run as one that writes.
    pub(in crate::statements) fn writing(&self, request: Option<RunRequest>) -> Self {
        let request = request.map(Arc::new);
        let key = request.as_ref().map(|request| request.key.clone());
        self.registry.update(self.query_id, |run| {
            run.write = Some(Write { request: key, commit: Commit::Nothing });
        });
        Self { request, ..self.clone() }
    }

    /// The same run under its statement's own `WITH CONSISTENCY`.
    pub(in crate::statements) fn with_consistency(
        self,
        consistency: Option<WriteConsistency>,
    ) -> Self {
        Self { consistency, ..self }
    }

    /// The `WITH CONSISTENCY` of its statement.
    pub(in crate::statements) fn consistency(&self) -> Option<WriteConsistency> {
        self.consistency
    }

    /// What the run's client calls it.
    pub(in crate::statements) fn request_key(&self) -> Option<&RequestKey> {
        self.request.as_ref().map(|request| &request.key)
    }

    /// The run's request, with what was asked for; `None` when it has none.
    pub(in crate::statements) fn request(&self) -> Result<Option<Request>, SqlError> {
        let Some(request) = &self.request else { return Ok(None) };
        let payload = request.payload.get().copied().ok_or_else(|| {
            let message = format!("not all of request \"{}\" was read", request.key);
            SqlError::new(ErrorCode::Internal, message)
        })?;
        Ok(Some(Request { key: request.key.clone(), payload }))
    }

    /// Says what was asked for, once all of it is here.
    pub(in crate::statements) fn set_payload(&self, payload: Digest) {
        if let Some(request) = &self.request
            && request.payload.set(payload).is_err()
        {
            tracing::error!(key = %request.key, "a request was read twice");
        }
    }

    /// Notes that the run asks for its commit: from here on it cannot be cancelled.
    ///
    /// Fails when somebody has cancelled it.
    pub(in crate::statements) fn begin_commit(&self, txn: TxnId) -> Result<(), SqlError> {
        let mut runs = self.registry.runs();
        match runs.running.get_mut(&self.query_id) {
            Some((_, _, token)) if token.is_cancelled() => Err(cancelled()),
            Some((run, ..)) => {
                run.note_commit(Commit::Asked(txn));
                Ok(())
            }
            None => Err(cancelled()),
        }
    }

    /// Notes what the catalog said, also of a run that is over by now.
    pub(in crate::statements) fn end_commit(
        &self,
        txn: TxnId,
        result: &Result<Committed, CatalogError>,
    ) {
        let commit = match result {
            Ok(committed) => Commit::Done(committed.clone()),
            Err(CatalogError::OutcomeUnknown { .. }) => Commit::Unknown(txn),
            Err(_) => Commit::Nothing,
        };
        if let Some(run) = self.registry.runs().find(self.query_id) {
            run.note_commit(commit);
        }
    }

    /// Notes that the run has nothing to do: its request is committed.
    pub(in crate::statements) fn note_replay(&self, first: Committed) {
        if let Some(run) = self.registry.runs().find(self.query_id) {
            run.note_commit(Commit::Done(first));
        }
    }

    /// What the run has committed.
    pub(in crate::statements) fn committed(&self) -> Option<Committed> {
        match self.registry.runs().find(self.query_id)?.write.as_ref()?.commit {
            Commit::Done(ref committed) => Some(committed.clone()),
            _ => None,
        }
    }
}
