//! `ANALYZE COMPRESSION`: what the columns of a table take, and would take in other encodings.
//!
//! A sample of the table's rows is read as a query reads them, one column after the other, put
//! into the order in which they are stored, and written in every encoding that fits the column, by
//! the encoder that writes segments. What is suggested is a pure function of the sizes
//! ([`Measured::suggest`]).
//!
//! Invariant: nothing changes; at most [`SAMPLE_BYTES_MAX`] of one column are held at a time.
//!
//! - `sample`: which rows

mod sample;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Decimal128Array, RecordBatch, StringArray, UInt64Array};
use arrow::compute::{concat, sort_to_indices, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use basalt_engine::dialect::AnalyzeCompression;
use basalt_engine::error::storage_error;
use basalt_engine::error::{ErrorCode, SqlError, did_you_mean, from_datafusion, printable};
use basalt_engine::snapshot::TableSnapshot;
use basalt_engine::table::{ChosenRows, SegmentTable};
use basalt_storage::StorageError;
use basalt_storage::encoding::{ChunkEncoding, Measured};
use basalt_storage::ids::ColumnId;
use basalt_storage::schema::Column;
use basalt_storage::segment_writer::measure;
use basalt_storage::types::to_storage;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::LogicalPlanBuilder;
use futures::TryStreamExt;

use super::Statements;
use super::failover::Resilient;
use super::query::ready_rows;
use super::registry::{RunGuard, RunNotes};
use super::session::Pinned;
use crate::backend::{PlannedQuery, SessionId};

/// Rows that are measured: Redshift's number, and fewer than fill a row group.
const SAMPLE_ROWS_MAX: u64 = 100_000;
/// Bytes of a column's values that are measured; wide values are fewer then.
const SAMPLE_BYTES_MAX: usize = 32 << 20;
/// What a column declares that leaves the encoding to a measurement.
const AUTO: &str = "auto";

/// The columns of the answer: Redshift's, then what is there now.
pub(super) fn schema() -> SchemaRef {
    let reduction = DataType::Decimal128(5, 2);
    let fields = [
        ("table", DataType::Utf8),
        ("column", DataType::Utf8),
        ("encoding", DataType::Utf8),
        ("est_reduction_pct", reduction),
        ("declared", DataType::Utf8),
        ("stored", DataType::Utf8),
        ("stored_bytes", DataType::UInt64),
    ];
    let fields = fields.map(|(name, data_type)| Field::new(name, data_type, true));
    Arc::new(Schema::new(fields.to_vec()))
}

/// What a table has of a column: bytes on one copy, by encoding where that is known.
#[derive(Debug, Default)]
pub(crate) struct StoredColumn {
    by_encoding: BTreeMap<&'static str, (ChunkEncoding, u64)>,
    /// Bytes of all of its chunks.
    pub(crate) bytes: u64,
}

impl StoredColumn {
    /// Adds up the chunks of a column.
    pub(crate) fn of(table: &TableSnapshot, column: ColumnId) -> Self {
        let mut stored = Self::default();
        for record in table.segments.iter().filter_map(|segment| segment.columns.get(&column)) {
            stored.bytes += record.bytes;
            if let Some(encoding) = record.encoding {
                let (_, bytes) = stored.by_encoding.entry(encoding.name()).or_insert((encoding, 0));
                *bytes += record.bytes;
            }
        }
        stored
    }

    /// Its encodings, that of most bytes first.
    fn encodings(&self) -> Vec<ChunkEncoding> {
        let mut all: Vec<_> = self.by_encoding.values().copied().collect();
        all.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        all.into_iter().map(|(encoding, _)| encoding).collect()
    }

    /// The names of its encodings, that of most bytes first; `None` when none is known.
    pub(crate) fn names(&self) -> Option<String> {
        let names: Vec<_> = self.encodings().into_iter().map(ChunkEncoding::name).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }
}

/// What a column declares of its encoding.
pub(crate) fn declared_name(column: &Column) -> &'static str {
    column.declared.encode.map_or(AUTO, ChunkEncoding::name)
}

/// One row of the answer.
struct Advice<'a> {
    column: &'a Column,
    encoding: &'static str,
    /// Hundredths of a per cent; `None` of a column without rows.
    reduction: Option<u64>,
    stored: StoredColumn,
}

impl Statements {
    /// Runs `ANALYZE COMPRESSION`.
    pub(super) async fn analyze_compression(
        &self,
        session: SessionId,
        analyze: &AnalyzeCompression,
        mut run: RunGuard,
    ) -> Result<PlannedQuery, SqlError> {
        let notes = run.notes().clone();
        let rows = run.part(self.compression_rows(session, analyze, &notes)).await?;
        ready_rows(run, rows)
    }

    async fn compression_rows(
        &self,
        session: SessionId,
        analyze: &AnalyzeCompression,
        notes: &RunNotes,
    ) -> Result<RecordBatch, SqlError> {
        let pinned = self.pin(session)?;
        let table = pinned.table_to_write(&analyze.table, analyze.table_position)?;
        let columns = chosen_columns(&table, analyze)?;
        let rows = Arc::new(sample::rows(&table, SAMPLE_ROWS_MAX));
        let mut advice = Vec::with_capacity(columns.len());
        for place in columns {
            let Some(column) = table.schema.columns.get(place) else { continue };
            let measured = match rows.rows() {
                0 => None,
                _ => Some(self.measured(&pinned, &table, place, &rows, notes).await?),
            };
            advice.push(advice_on(&table, column, measured.as_ref()));
        }
        batch(&table, &advice)
    }

    /// What the chosen rows of a column take in each encoding.
    async fn measured(
        &self,
        pinned: &Pinned,
        table: &Arc<TableSnapshot>,
        place: usize,
        rows: &Arc<ChosenRows>,
        notes: &RunNotes,
    ) -> Result<Measured, SqlError> {
        let cluster = Arc::clone(&pinned.spec.snapshot.cluster);
        let source = SegmentTable::new(Arc::clone(table), cluster).with_only(Arc::clone(rows));
        let source = provider_as_source(Arc::new(source.with_row_ids()));
        let row_ids = table.schema.columns.len();
        let plan = LogicalPlanBuilder::scan("sample", source, Some(vec![place, row_ids]))
            .and_then(LogicalPlanBuilder::build)
            .map_err(|error| pinned.error(error))?;
        let (query, _) = Resilient::plan(self, pinned, &plan, notes).await?;
        let mut stream = std::pin::pin!(query.rows());
        let (mut batches, mut bytes) = (Vec::new(), 0_usize);
        while bytes < SAMPLE_BYTES_MAX {
            let Some(batch) = stream.try_next().await? else { break };
            bytes += batch.column(0).to_data().get_slice_memory_size().unwrap_or(0);
            batches.push(batch);
        }
        let Some(column) = table.schema.columns.get(place).cloned() else {
            return Err(SqlError::new(ErrorCode::Internal, "a column that is not there"));
        };
        // Milliseconds per column: not on a thread that serves RPCs.
        let work = tokio::task::spawn_blocking(move || {
            let values = as_stored(&batches)?;
            measure(&column, &[to_storage(&values, &column.data_type)?])
        });
        let measured = work.await.map_err(|error| {
            SqlError::new(ErrorCode::Internal, format!("measuring a column failed: {error}"))
        })?;
        measured.map_err(|error| from_datafusion(storage_error(error)))
    }
}

/// The values of a column in the order in which they lie in segments, from whatever order tasks
/// gave them in: what stands beside what decides how much smaller they can be written.
fn as_stored(batches: &[RecordBatch]) -> Result<ArrayRef, StorageError> {
    let values: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(0).as_ref()).collect();
    let row_ids: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(1).as_ref()).collect();
    let order = sort_to_indices(&concat(&row_ids)?, None, None)?;
    Ok(take(&concat(&values)?, &order, None)?)
}

/// The places of the columns to look at, in the order in which they were named.
fn chosen_columns(
    table: &TableSnapshot,
    analyze: &AnalyzeCompression,
) -> Result<Vec<usize>, SqlError> {
    let columns = &table.schema.columns;
    if analyze.columns.is_empty() {
        return Ok((0..columns.len()).collect());
    }
    let places = analyze.columns.iter().map(|(name, position)| {
        columns.iter().position(|column| column.name == *name).ok_or_else(|| {
            let message = format!(
                "column \"{}\" of table \"{}\" does not exist",
                printable(name),
                analyze.table
            );
            let error = SqlError::new(ErrorCode::UndefinedColumn, message).at(*position);
            did_you_mean(error, name, columns.iter().map(|column| column.name.as_str()))
        })
    });
    places.collect()
}

fn advice_on<'a>(
    table: &TableSnapshot,
    column: &'a Column,
    measured: Option<&Measured>,
) -> Advice<'a> {
    let stored = StoredColumn::of(table, column.id);
    let Some(measured) = measured else {
        return Advice { column, encoding: declared_name(column), reduction: None, stored };
    };
    // Segments of before encodings were recorded: as if they were written as they are.
    let now = stored.encodings().first().copied().unwrap_or(ChunkEncoding::Raw);
    let suggestion = measured.suggest(now);
    let reduction = Some(suggestion.reduction_basis_points());
    Advice { column, encoding: suggestion.encoding.name(), reduction, stored }
}

fn batch(table: &TableSnapshot, advice: &[Advice<'_>]) -> Result<RecordBatch, SqlError> {
    let text = |values: Vec<Option<&str>>| Arc::new(StringArray::from(values)) as ArrayRef;
    let each = |of: &dyn Fn(&Advice<'_>) -> &'static str| {
        text(advice.iter().map(|row| Some(of(row))).collect())
    };
    let reduction: Decimal128Array =
        advice.iter().map(|row| row.reduction.map(i128::from)).collect();
    let reduction = reduction.with_precision_and_scale(5, 2);
    let names: StringArray = advice.iter().map(|row| row.stored.names()).collect();
    let columns: Vec<ArrayRef> = vec![
        text(vec![Some(table.name.as_str()); advice.len()]),
        text(advice.iter().map(|row| Some(row.column.name.as_str())).collect()),
        each(&|row| row.encoding),
        Arc::new(reduction.map_err(|error| from_datafusion(error.into()))?),
        each(&|row| declared_name(row.column)),
        Arc::new(names),
        Arc::new(UInt64Array::from_iter_values(advice.iter().map(|row| row.stored.bytes))),
    ];
    RecordBatch::try_new(schema(), columns).map_err(|error| from_datafusion(error.into()))
}
