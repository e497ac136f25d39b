//! Requests: writes that their clients have named, so that sending them again has no second effect.
//!
//! ```text
//! LABEL 'k' | x-basalt-request: k
//!     │
//!     ├ k is committed      the first outcome, at once
//!     └ else run ─▶ commit {changes, request k, digest of what was asked for}
//!                     ├ first of its key    done
//!                     └ k came in between   its outcome; what this run staged is discarded
//! ```
//!
//! Invariants: of all sends of one key at most one has an effect, and all that succeed hear of that
//! one (RULES 11); a key of another statement is refused; what changes nothing is remembered, too.
//! The catalog decides, under its writer: what is looked up here before only saves work.
//!
//! - `payload`: the digest of what was asked for
//! - `uploads`: rows that stream in, whose digest is known at their end

mod payload;
mod uploads;

use arrow::record_batch::RecordBatch;
use basalt_engine::dialect::{ObjectRef, ParsedStatement, Statement};
use basalt_engine::error::{ErrorCode, SqlError, printable};
use basalt_storage::ids::TxnId;

use super::Statements;
use super::registry::{RunNotes, RunRequest};
use crate::backend::SessionId;
use crate::catalog::{CatalogError, Command, Committed, Request, RequestKey};
use payload::{Payload, RowsDigest};

impl Statements {
    /// The request of a statement: named by its LABEL, or by the header of its call.
    pub(super) fn request_of(
        &self,
        session: SessionId,
        parsed: &ParsedStatement,
        header: Option<&RequestKey>,
        parameters: &[RecordBatch],
    ) -> Result<Option<RunRequest>, SqlError> {
        let Some(key) = key_of(parsed, header)? else { return Ok(None) };
        let mut payload = Payload::new("statement");
        payload.text(parsed.text_without_label());
        // The path says which table is meant; a qualified name is the same on all paths.
        if named_without_schema(&parsed.statement) {
            let path = self.inner.sessions.settings(session).search_path;
            payload.texts(path.iter());
        }
        if let Some(first) = parameters.first().filter(|first| first.num_columns() > 0) {
            let mut rows = RowsDigest::new(first.schema_ref())?;
            parameters.iter().try_for_each(|batch| rows.add(batch))?;
            payload.rows(rows);
        }
        Ok(Some(RunRequest::new(key, payload.finish())))
    }

    /// Does the work of a run, unless its request is done already; returns the rows affected.
    pub(super) async fn once(
        &self,
        run: &RunNotes,
        work: impl Future<Output = Result<Option<u64>, SqlError>>,
    ) -> Result<Option<u64>, SqlError> {
        if run.request_key().is_none() {
            return work.await;
        }
        match self.first_outcome(run).await? {
            Some(first) => Ok(first.rows_affected),
            None => self.first_effect(run, work).await,
        }
    }

    /// Does the work of a run with a request that was not done a moment ago.
    async fn first_effect(
        &self,
        run: &RunNotes,
        work: impl Future<Output = Result<Option<u64>, SqlError>>,
    ) -> Result<Option<u64>, SqlError> {
        match work.await {
            Ok(rows) => match run.committed() {
                Some(committed) => Ok(committed.rows_affected),
                // What changes nothing is remembered, too.
                None => {
                    let committed = self.commit(run, TxnId::generate(), vec![], rows).await?;
                    Ok(committed.rows_affected)
                }
            },
            // Another send of the request may have been first, and be what this one stumbled over.
            Err(error) => match self.first_outcome(run).await {
                Ok(Some(first)) => Ok(first.rows_affected),
                _ => Err(error),
            },
        }
    }

    /// What came of the run's request before, when it is committed and remembered.
    ///
    /// Fails when its key stands for something else.
    async fn first_outcome(&self, run: &RunNotes) -> Result<Option<Committed>, SqlError> {
        let Some(Request { key, payload }) = run.request()? else { return Ok(None) };
        match self.inner.catalog.request(key.clone()).await? {
            Some(first) if first.payload != payload => {
                Err(CatalogError::RequestKeyReused { key, first: first.txn }.into())
            }
            Some(first) => {
                let first = Committed::replayed(first);
                run.note_replay(first.clone());
                Ok(Some(first))
            }
            None => Ok(None),
        }
    }

    /// Commits for a run, under its request when it has one; what came of it is noted with the run
    /// also when the client has left meanwhile.
    ///
    /// The outer error is of a run that was cancelled before: nothing was asked of the catalog.
    pub(super) async fn commit_of_run(
        &self,
        run: &RunNotes,
        command: Command,
    ) -> Result<Result<Committed, CatalogError>, SqlError> {
        let command = match run.request()? {
            Some(Request { key, payload }) => command.with_request(key, payload),
            None => command,
        };
        let txn = command.txn;
        run.begin_commit(txn)?;
        let (catalog, notes) = (self.inner.catalog.clone(), run.clone());
        let asked = tokio::spawn(async move {
            let result = catalog.commit(command).await;
            notes.end_commit(txn, &result);
            result
        });
        Ok(asked.await.unwrap_or_else(|error| {
            let result = Err(CatalogError::OutcomeUnknown { txn, cause: error.to_string() });
            run.end_commit(txn, &result);
            result
        }))
    }
}

/// What the client calls a statement, if anything.
fn key_of(
    parsed: &ParsedStatement,
    header: Option<&RequestKey>,
) -> Result<Option<RequestKey>, SqlError> {
    match (&parsed.label, header) {
        (Some(label), Some(header)) if label.key != header.as_str() => {
            let message = format!(
                "the statement has the label \"{}\" and its call the request key \"{}\"",
                printable(&label.key),
                printable(header.as_str())
            );
            Err(SqlError::new(ErrorCode::InvalidParameter, message)
                .at(label.position)
                .with_hint("give one of them, or both alike"))
        }
        (Some(label), _) => Ok(Some(RequestKey::new(label.key.clone())?)),
        (None, Some(_)) if !parsed.statement.is_write() => {
            let message = format!("{} cannot have a request key", parsed.statement.kind());
            Err(SqlError::new(ErrorCode::InvalidParameter, message).at(parsed.start).with_hint(
                "send the header x-basalt-request with INSERT, COPY, UPDATE, DELETE, CREATE and \
                 DROP only",
            ))
        }
        (None, header) => Ok(header.cloned()),
    }
}

/// Whether the search path decides what a statement writes.
fn named_without_schema(statement: &Statement) -> bool {
    let bare = |name: &ObjectRef| name.schema.is_none();
    match statement {
        Statement::CreateTable(create) => bare(&create.name),
        Statement::CreateView(create) => bare(&create.name),
        Statement::DropTable(drop) => drop.names.iter().any(bare),
        Statement::DropView(drop) => drop.names.iter().any(bare),
        Statement::Insert(insert) => bare(&insert.table),
        Statement::Delete(delete) => bare(&delete.rows.table),
        Statement::Update(update) => bare(&update.rows.table),
        Statement::CopyFrom(copy) => bare(&copy.table),
        _ => false,
    }
}
