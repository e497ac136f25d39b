//! Uploads with a request key: the rows are part of what was asked for.
//!
//! They are hashed as they pass, so what an upload asks for is known when its last row is here. One
//! whose key is committed already is read to its end and written nowhere: with the same rows it
//! hears the first outcome, with others it is refused.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use basalt_engine::error::{ErrorCode, SqlError};
use futures::stream::BoxStream;
use futures::{StreamExt, stream};

use super::payload::{Payload, RowsDigest};
use crate::backend::{IngestMode, IngestRequest};
use crate::statements::Statements;
use crate::statements::registry::RunNotes;

type Batches = BoxStream<'static, Result<RecordBatch, SqlError>>;

impl Statements {
    /// Writes a client's stream into a table, unless its request is done already.
    pub(in crate::statements) async fn ingest_once(
        &self,
        run: &RunNotes,
        request: IngestRequest,
        schema: SchemaRef,
        mut batches: Batches,
    ) -> Result<u64, SqlError> {
        if run.request_key().is_none() {
            return self.run_ingest(run, request, schema, &mut batches).await;
        }
        let (payload, rows) = (self.upload(&request), RowsDigest::new(&schema)?);
        let mut batches = hashed(run.clone(), payload, rows, batches);
        if let Some(rows) = self.first_upload(run, &mut batches).await? {
            return Ok(rows);
        }
        let work = async { self.run_ingest(run, request, schema, &mut batches).await.map(Some) };
        match self.first_effect(run, work).await {
            Ok(rows) => Ok(rows.unwrap_or(0)),
            // The rest of the rows tells whether another send of the same rows was first.
            Err(error) => match self.first_upload(run, &mut batches).await {
                Ok(Some(rows)) => Ok(rows),
                _ => Err(error),
            },
        }
    }

    /// What an upload asks for, but for its rows.
    fn upload(&self, request: &IngestRequest) -> Payload {
        let mut payload = Payload::new("upload");
        payload.text(mode_name(request.mode));
        payload.text(&request.table);
        match &request.schema_name {
            Some(schema) => payload.texts(std::iter::once(schema)),
            // The path says which table is meant.
            None => {
                payload.text("search path");
                payload.texts(self.inner.sessions.settings(request.session).search_path.iter());
            }
        }
        for (option, value) in &request.options {
            payload.text(option);
            payload.text(value);
        }
        payload
    }

    /// What came of an upload's request before; reads the rest of the rows to find out whether
    /// they are the same.
    async fn first_upload(
        &self,
        run: &RunNotes,
        batches: &mut Batches,
    ) -> Result<Option<u64>, SqlError> {
        let Some(key) = run.request_key() else { return Ok(None) };
        if self.inner.catalog.request(key.clone()).await?.is_none() {
            return Ok(None);
        }
        while let Some(batch) = batches.next().await {
            batch?;
        }
        match self.first_outcome(run).await? {
            Some(first) => Ok(Some(first.rows_affected.unwrap_or(0))),
            // Its rows are read, and cannot be read again.
            None => {
                let message = format!("request \"{key}\" was forgotten while its rows were read");
                Err(SqlError::new(ErrorCode::Conflict, message)
                    .with_hint("look at the table before sending them again"))
            }
        }
    }
}

/// On disk in digests: it stays as it is.
fn mode_name(mode: IngestMode) -> &'static str {
    match mode {
        IngestMode::Create => "create",
        IngestMode::Append => "append",
        IngestMode::Replace => "replace",
        IngestMode::CreateAppend => "create_append",
    }
}

/// The batches, hashed as they pass; at their end the run knows what was asked for.
fn hashed(run: RunNotes, payload: Payload, rows: RowsDigest, batches: Batches) -> Batches {
    let state = (batches, run, Some((payload, rows)));
    stream::unfold(state, |(mut batches, run, so_far)| async move {
        // After an error nothing is known of the rows that did not come.
        let (mut payload, mut rows) = so_far?;
        let batch = match batches.next().await {
            Some(batch) => batch.and_then(|batch| rows.add(&batch).map(|()| batch)),
            None => {
                payload.rows(rows);
                run.set_payload(payload.finish());
                return None;
            }
        };
        let so_far = batch.is_ok().then_some((payload, rows));
        Some((batch, (batches, run, so_far)))
    })
    .fuse()
    .boxed()
}
