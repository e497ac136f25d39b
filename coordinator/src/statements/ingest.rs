//! Rows that a client uploads: one stream, one commit.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use basalt_engine::dialect::{CreateTable, DistributionSpec, ObjectRef};
use basalt_engine::error::{ErrorCode, Position, SqlError, from_datafusion};
use basalt_engine::files::{ColumnMapping, checked_cast_column, load_mapping};
use basalt_engine::row_checks::check_rows;
use basalt_engine::snapshot::{Relation, Snapshot};
use basalt_engine::write::{AppendTarget, PeerSink, SliceRouter, SliceSink};
use basalt_storage::segment_writer::RowSource;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::Statements;
use super::definition::{new_table, stored_columns};
use super::registry::RunNotes;
use super::target::TargetTable;
use crate::backend::{IngestMode, IngestRequest};
use crate::catalog::{Change, find_table};

/// Rows that are cast and routed at a time. A message of NULLs has any number of rows in no bytes
/// at all, and each of them becomes a value of its column.
const RUN_ROWS: usize = 65_536;

/// Rows of one message: more than 64 MiB hold of anything but booleans.
const MESSAGE_ROWS_MAX: usize = 1 << 26;

/// What an ingest writes to, and what is committed with the rows.
struct Destination {
    target: AppendTarget,
    changes: Vec<Change>,
}

impl Statements {
    /// Writes a client's stream into a table.
    pub(super) async fn run_ingest(
        &self,
        run: &RunNotes,
        request: IngestRequest,
        schema: SchemaRef,
        batches: &mut BoxStream<'static, Result<RecordBatch, SqlError>>,
    ) -> Result<u64, SqlError> {
        let snapshot = self.inner.catalog.snapshot();
        let Destination { target, changes } =
            self.destination(&snapshot, &request, &schema).await?;
        let mapping = load_mapping(&schema, &target.schema.to_arrow())?;
        let transaction = self.begin_rows(target).await?;
        let target = Arc::clone(transaction.target());
        let storage_schema = target.schema.to_arrow();
        let mut router = SliceRouter::new(&target, vec![], target.txn.0.as_u128() as u64)
            .map_err(from_datafusion)?;
        let sink = PeerSink::new(self.inner.channels.clone());
        let mut appender = sink.open(&target, RowSource::default()).map_err(from_datafusion)?;
        let mut rows = 0u64;
        while let Some(batch) = batches.next().await {
            for run in runs_of_rows(&batch?)? {
                let run = to_storage(&run, &mapping, &target, &storage_schema)?;
                rows += run.num_rows() as u64;
                for (slice, part) in router.route(run).map_err(from_datafusion)? {
                    appender.append(slice, part).await.map_err(from_datafusion)?;
                }
            }
        }
        let taken = appender.finish().await.map_err(from_datafusion)?;
        if taken != rows {
            let message = format!("workers took {taken} of {rows} rows");
            return Err(SqlError::new(ErrorCode::Unavailable, message));
        }
        self.commit_rows(run, transaction, changes, rows).await.map_err(|error| {
            match request.mode {
                // The rows are sent once, so it is for the client to send them to the table there is.
                IngestMode::CreateAppend | IngestMode::Replace
                    if error.code == ErrorCode::DuplicateObject =>
                {
                    let message = format!("relation \"{}\" was created meanwhile", request.table);
                    SqlError::new(ErrorCode::Conflict, message).with_hint("send the rows again")
                }
                _ => error,
            }
        })
    }

    async fn destination(
        &self,
        snapshot: &Snapshot,
        request: &IngestRequest,
        source: &Schema,
    ) -> Result<Destination, SqlError> {
        let schema = match (&request.schema_name, request.mode) {
            (Some(schema), _) => schema.clone(),
            // What is made anew goes where CREATE TABLE would put it.
            (None, IngestMode::Create | IngestMode::Replace) => {
                self.creation_schema(request.session)?
            }
            (None, _) => self.schema_of_name(request.session, &request.table)?,
        };
        let name = ObjectRef { schema: Some(schema.clone()), name: request.table.clone() };
        let existing =
            snapshot.schemas.get(&schema).and_then(|schema| schema.relations.get(&name.name));
        let consistency = self.inner.sessions.settings(request.session).write_consistency;
        let mut changes = Vec::new();
        match (request.mode, existing) {
            (IngestMode::Append, _) | (IngestMode::CreateAppend, Some(_)) => {
                let table = find_table(snapshot, &schema, &name.name)?;
                let target =
                    TargetTable::from(table.as_ref()).begin(&snapshot.cluster, consistency)?;
                return Ok(Destination { target, changes });
            }
            (IngestMode::Create, Some(_)) => {
                let message = format!("relation \"{}\" already exists", name.name);
                return Err(SqlError::new(ErrorCode::DuplicateObject, message)
                    .with_hint("ingest with mode append or replace, or another table name"));
            }
            (IngestMode::Replace, Some(Relation::Table(table))) => {
                changes.push(Change::DropTable { table: table.id, version: None });
            }
            (IngestMode::Replace, Some(Relation::View(_))) => {
                let message = format!("\"{}\" is a view", name.name);
                return Err(SqlError::new(ErrorCode::InvalidStatement, message)
                    .with_hint("drop the view first, or use another table name"));
            }
            (_, None) => {}
        }
        let columns = stored_columns(source.fields())?;
        let create = with_options(name, &request.options)?;
        let id = self.inner.catalog.allocate_table_id().await?;
        let table = new_table(id, &create, columns, &snapshot.cluster)?;
        let target = TargetTable::from(&table).begin(&snapshot.cluster, consistency)?;
        changes.push(Change::CreateTable(table));
        Ok(Destination { target, changes })
    }
}

/// The definition that an ingest's options ask for.
fn with_options(name: ObjectRef, options: &[(String, String)]) -> Result<CreateTable, SqlError> {
    let mut create = CreateTable {
        name,
        name_position: Position { line: 1, column: 1 },
        if_not_exists: false,
        or_replace: false,
        columns: vec![],
        distribution: None,
        sort_key: vec![],
        replicas: None,
        keys: vec![],
        query: None,
    };
    for (option, value) in options {
        match option.as_str() {
            "distkey" => create.distribution = Some(DistributionSpec::Key(value.clone())),
            "diststyle" => {
                create.distribution = Some(match value.to_ascii_lowercase().as_str() {
                    "auto" => DistributionSpec::Auto,
                    "even" => DistributionSpec::Even,
                    "all" => DistributionSpec::All,
                    // The key comes by itself, before or after.
                    "key" => match create.distribution.take() {
                        Some(key) => key,
                        None => continue,
                    },
                    _ => {
                        return Err(bad_option(
                            option,
                            value,
                            "auto, even, all, or key with distkey",
                        ));
                    }
                });
            }
            "sortkey" => {
                create.sort_key = value.split(',').map(|name| name.trim().to_owned()).collect();
            }
            _ => return Err(bad_option(option, value, "distkey, diststyle or sortkey")),
        }
    }
    Ok(create)
}

fn bad_option(option: &str, value: &str, allowed: &str) -> SqlError {
    let message = format!("ingest option {option} = '{value}' is not known");
    SqlError::new(ErrorCode::InvalidParameter, message).with_hint(format!("it takes {allowed}"))
}

/// A batch as runs of rows that share its buffers.
fn runs_of_rows(batch: &RecordBatch) -> Result<impl Iterator<Item = RecordBatch>, SqlError> {
    let rows = batch.num_rows();
    if rows > MESSAGE_ROWS_MAX {
        let message = format!("a batch has {rows} rows: at most {MESSAGE_ROWS_MAX} are allowed");
        return Err(
            SqlError::new(ErrorCode::ResourcesExhausted, message).with_hint("send smaller batches")
        );
    }
    let starts = (0..rows.max(1)).step_by(RUN_ROWS);
    Ok(starts.map(move |start| batch.slice(start, RUN_ROWS.min(rows - start))))
}

/// A client's batch in the table's columns and storage form; a value that would be lost is an
/// error.
fn to_storage(
    batch: &RecordBatch,
    mapping: &[ColumnMapping],
    target: &AppendTarget,
    storage_schema: &SchemaRef,
) -> Result<RecordBatch, SqlError> {
    // The mapping has every column of the table, in order.
    let columns = target
        .schema
        .columns
        .iter()
        .zip(mapping)
        .map(|(column, mapped)| {
            let array =
                checked_cast_column(&column.name, batch.column(mapped.source), &column.data_type)?;
            check_rows(column, &array, &target.table_name, batch)?;
            Ok::<_, SqlError>(array)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(storage_schema), columns, &options)
        .map_err(|error| from_datafusion(error.into()))
}

#[cfg(test)]
mod tests {
    use arrow::array::NullArray;

    use super::*;

    #[track_caller]
    fn check_runs(rows: usize, expected: &[usize]) {
        let batch =
            RecordBatch::try_from_iter([("n", Arc::new(NullArray::new(rows)) as _)]).unwrap();
        let runs: Vec<_> = runs_of_rows(&batch).unwrap().map(|run| run.num_rows()).collect();
        assert_eq!(runs, expected);
    }

    #[test]
    fn a_batch_is_cut_into_runs_that_have_all_its_rows() {
        check_runs(0, &[0]);
        check_runs(1, &[1]);
        check_runs(65_536, &[65_536]);
        check_runs(140_000, &[65_536, 65_536, 8_928]);
    }

    #[test]
    fn a_batch_of_two_thousand_million_nulls_is_refused() {
        let nulls = Arc::new(NullArray::new(1 << 31)) as _;
        let batch = RecordBatch::try_from_iter([("n", nulls)]).unwrap();
        let error = runs_of_rows(&batch).err().unwrap();
        assert_eq!(error.code, ErrorCode::ResourcesExhausted);
    }
}
