//! Append, seal, commit or abort: how rows become visible in one step.
//!
//! ```text
//! append   rows into staging on the slices' owners
//! seal     every owner makes its segments durable and names them
//! commit   one record in the catalog names all of them: the commit point
//! ```
//!
//! Before the commit nothing can be seen; a transaction that is dropped aborts on every worker, and
//! what a crashed coordinator leaves is an orphan that no snapshot names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use basalt_engine::channels::Channels;
use basalt_engine::error::{ErrorCode, SqlError, from_datafusion, from_status};
use basalt_engine::protocol::ingest_client::IngestClient;
use basalt_engine::protocol::{AbortRequest, MESSAGE_BYTES_MAX, SealRequest, WireId};
use basalt_engine::write::AppendTarget;
use basalt_storage::fail_point::{self, FailPoint};
use basalt_storage::ids::{ColumnId, TxnId, WorkerId};
use basalt_storage::manifest::SegmentRecord;
use datafusion_distributed::grpc::BoxCloneSyncChannel;
use futures::future::try_join_all;
use url::Url;

use super::Statements;
use super::registry::RunNotes;
use crate::catalog::{Change, Command, Committed, SegmentSeen, wall_clock_ms};
use crate::reconcile::OpenWrite;

/// A write under way. Dropped before [`Transaction::commit`], it aborts on every worker.
pub(super) struct Transaction {
    target: Arc<AppendTarget>,
    channels: Channels,
    armed: bool,
    _open: OpenWrite,
}

impl Transaction {
    pub(super) fn new(target: Arc<AppendTarget>, channels: Channels, open: OpenWrite) -> Self {
        Self { target, channels, armed: true, _open: open }
    }

    pub(super) fn target(&self) -> &Arc<AppendTarget> {
        &self.target
    }

    /// Makes every appended row durable on its owner and as many partners as are required.
    ///
    /// Segments say by which column their rows were given to their slices. On `Ok` they survive a crash of
    /// every worker, and the loss of all but one of those that hold them; they are visible only once a commit
    /// names them. Fails when an owner cannot be reached or has not exactly `rows` rows.
    pub(super) async fn seal(&self, rows: u64) -> Result<Vec<SegmentRecord>, SqlError> {
        let owners: BTreeSet<WorkerId> = self.target.slice_owners.iter().copied().collect();
        let reachable = owners.iter().filter_map(|owner| {
            self.target.endpoints.get(owner).map(|url| self.seal_on(*owner, url))
        });
        let sealed = try_join_all(reachable).await?;
        let mut records: Vec<_> = sealed.into_iter().flatten().collect();
        check_rows(&records, rows)?;
        let routed_by = self.target.routed_by();
        records.iter_mut().for_each(|record| record.routed_by = routed_by);
        Ok(records)
    }

    async fn seal_on(&self, owner: WorkerId, url: &Url) -> Result<Vec<SegmentRecord>, SqlError> {
        let request = SealRequest {
            epoch: self.target.epoch.0,
            txn: self.target.txn.to_wire(),
            table: self.target.table.0,
        };
        let mut client = client(&self.channels, owner, url)?;
        let mut answers =
            client.seal(request).await.map_err(|status| from_status(&status))?.into_inner();
        let mut records = Vec::new();
        while let Some(answer) = answers.message().await.map_err(|status| from_status(&status))? {
            let record: SegmentRecord =
                serde_json::from_slice(&answer.segment_record).map_err(|error| {
                    let message = format!("worker {owner} sent a malformed segment: {error}");
                    SqlError::new(ErrorCode::Internal, message)
                })?;
            if record.txn != self.target.txn || record.table != self.target.table {
                let message = format!("worker {owner} sealed a segment of another transaction");
                return Err(SqlError::new(ErrorCode::Internal, message));
            }
            check_copies(&self.target, owner, &record)?;
            records.push(record);
        }
        Ok(records)
    }

    /// Aborts after all when the commit is known not to have happened.
    fn rearm(&mut self, error: &SqlError) {
        self.armed = is_surely_undone(error);
    }

    /// Takes the decision out of this guard's hands: the commit is about to be asked for, and from
    /// then on its outcome may be unknown, so nothing may be removed any more.
    fn disarm(&mut self) {
        self.armed = false;
    }
}

/// Every row that was appended is in a sealed segment.
pub(crate) fn check_rows(records: &[SegmentRecord], rows: u64) -> Result<(), SqlError> {
    let sealed_rows: u64 = records.iter().map(|record| record.rows).sum();
    if sealed_rows == rows {
        return Ok(());
    }
    let message = format!("workers sealed {sealed_rows} of {rows} rows");
    Err(SqlError::new(ErrorCode::Unavailable, message)
        .with_hint("a worker was restarted in the middle: run the statement again"))
}

/// A sealed segment lies with the owner of its slice and with as many partners as the
/// transaction requires.
pub(crate) fn check_copies(
    target: &AppendTarget,
    owner: WorkerId,
    record: &SegmentRecord,
) -> Result<(), SqlError> {
    let owns = target.slice_owners.get(usize::from(record.slice.0)) == Some(&owner);
    if !owns || record.holders.first() != Some(&owner) {
        let message = format!("worker {owner} sealed a segment of a slice it does not own");
        return Err(SqlError::new(ErrorCode::Internal, message));
    }
    let holders: BTreeSet<_> = record.holders.iter().collect();
    let known = holders.iter().all(|holder| target.endpoints.contains_key(holder));
    if holders.len() != record.holders.len() || !known {
        let message = format!("worker {owner} named holders that cannot be");
        return Err(SqlError::new(ErrorCode::Internal, message));
    }
    let required = usize::from(target.copies.required);
    if holders.len() < required {
        let message = format!(
            "a segment of table \"{}\" has {} copies, and {required} are required",
            target.table_name,
            holders.len()
        );
        return Err(SqlError::new(ErrorCode::Unavailable, message)
            .with_hint("send the statement again; sys.workers shows who is missing"));
    }
    Ok(())
}

/// Whether an error of a commit means that it did not happen and never will, so that what was staged
/// for it may go.
pub(crate) fn is_surely_undone(error: &SqlError) -> bool {
    !matches!(error.code, ErrorCode::OutcomeUnknown | ErrorCode::Internal | ErrorCode::Unavailable)
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let (channels, txn) = (self.channels.clone(), self.target.txn);
        let endpoints: BTreeMap<_, _> = self.target.endpoints.clone();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            for (worker, url) in endpoints {
                let request = AbortRequest { txn: txn.to_wire() };
                let answer = match client(&channels, worker, &url) {
                    Ok(mut client) => client.abort(request).await.map_err(|s| from_status(&s)),
                    Err(error) => Err(error),
                };
                if let Err(error) = answer {
                    tracing::warn!(%txn, %worker, %error,
                        "an abort did not arrive; the worker drops the rows later by itself");
                }
            }
        });
    }
}

fn client(
    channels: &Channels,
    worker: WorkerId,
    url: &Url,
) -> Result<IngestClient<BoxCloneSyncChannel>, SqlError> {
    let channel = channels.worker(worker, url).map_err(from_datafusion)?;
    Ok(IngestClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX))
}

impl Statements {
    /// Makes changes durable and visible in one step.
    ///
    /// On `Ok` they survive a crash of any process. On a retryable error nothing changed. Under the
    /// run's request, so that what was done before is not done again: see [`Committed::replayed`].
    pub(super) async fn commit(
        &self,
        run: &RunNotes,
        txn: TxnId,
        changes: Vec<Change>,
        rows: Option<u64>,
    ) -> Result<Committed, SqlError> {
        let mut command = Command::new(txn, wall_clock_ms(), changes);
        if let Some(rows) = rows {
            command = command.with_rows_affected(rows);
        }
        fail_point::hit(FailPoint::CommitBegun);
        let committed = self.commit_of_run(run, command).await?.map_err(SqlError::from)?;
        fail_point::hit(FailPoint::CommitBeforeReply);
        Ok(committed)
    }

    /// Seals a transaction and commits `before`, its segments and nothing else.
    pub(super) async fn commit_rows(
        &self,
        run: &RunNotes,
        mut transaction: Transaction,
        before: Vec<Change>,
        rows: u64,
    ) -> Result<u64, SqlError> {
        let segments = transaction.seal(rows).await?;
        let target = Arc::clone(transaction.target());
        let mut changes = before;
        if !segments.is_empty() {
            changes.push(Change::AddSegments {
                table: target.table,
                schema_version: target.schema.version,
                segments,
            });
        }
        if changes.is_empty() {
            return Ok(rows);
        }
        transaction.disarm();
        let result = self.commit(run, target.txn, changes, Some(rows)).await;
        match &result {
            // Another send of the request was first: what this one staged must go.
            Ok(committed) if committed.replayed => transaction.armed = true,
            Ok(_) => {}
            Err(error) => transaction.rearm(error),
        }
        result?;
        self.compact_soon(target.table);
        self.analyze_soon(target.table);
        self.route_soon(target.table);
        Ok(rows)
    }

    /// Seals a transaction and commits its segments in the place of others with as many rows, all of which
    /// lie by `routed_by` if a column is given. Returns how many segments it has.
    pub(super) async fn commit_replaced(
        &self,
        mut transaction: Transaction,
        replaced: Vec<SegmentSeen>,
        routed_by: Option<ColumnId>,
        rows: u64,
    ) -> Result<usize, SqlError> {
        let mut segments = transaction.seal(rows).await?;
        let written = segments.len();
        let target = Arc::clone(transaction.target());
        if target.merged_slice.is_some() {
            // Its rows stay in their slice, whatever gave them to it.
            segments.iter_mut().for_each(|segment| segment.routed_by = routed_by);
        }
        let change = Change::ReplaceSegments {
            table: target.table,
            schema_version: target.schema.version,
            replaced,
            segments,
        };
        transaction.disarm();
        let command = Command::new(target.txn, wall_clock_ms(), vec![change]);
        let result = self.inner.catalog.commit(command).await.map_err(SqlError::from);
        if let Err(error) = &result {
            transaction.rearm(error);
        }
        result.map(|_| written)
    }
}
