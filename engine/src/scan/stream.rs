//! Running one partition of a scan: prune, decode, filter, hand on.
//!
//! For each row group in turn: ask its zone maps whether it can hold a row that passes; decode the
//! predicate's columns; decode the other columns only where rows survive. Rows of all columns are
//! counted on zip, and a mismatch is an error (RULES 10). Everything happens on pull, so a dropped
//! stream stops at once.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::buffer::BooleanBuffer;
use arrow::compute::BatchCoalescer;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use basalt_storage::row_group::{RowSelection, open_row_group};
use basalt_storage::segment_meta::SegmentMeta;
use basalt_storage::segment_reader::VerifiedBytes;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{DataFusionError, internal_datafusion_err, internal_err};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricCategory, RecordOutput,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream;

use super::column_rows::ColumnRows;
use super::open_row_group::OpenRowGroup;
use super::predicate::{Predicate, TestedBatch, live_batches, row_selection};
use super::row_ids::{ROW_ID_COLUMN, row_id};
use super::{ScanSegment, ScanTable, SegmentScanExec};
use crate::chunks::{ChunkRead, ChunkSource, ChunkSourceExtension, ReadCost};
use crate::error::storage_error;

/// Below this share of surviving rows, the other columns are decoded by row selection; above it,
/// decoding everything and filtering is cheaper.
const SELECTION_SHARE_MAX: f64 = 1.0 / 32.0;

/// Opens one partition of a scan.
pub(super) fn open_partition(
    scan: &SegmentScanExec,
    partition: usize,
    metrics: &ExecutionPlanMetricsSet,
    context: &TaskContext,
) -> Result<SendableRecordBatchStream> {
    let state = PartitionScan::new(scan, partition, metrics, context)?;
    let schema = Arc::clone(&state.output_schema);
    let batches = stream::try_unfold(state, |mut state| async move {
        let next = state.next_batch().await?;
        Ok(next.map(|batch| (batch, state)))
    });
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
}

/// One row group waiting to be read.
#[derive(Debug, Clone, Copy)]
struct RowGroup {
    segment: usize,
    index: usize,
}

/// The bytes that the first step of a row group needs, read ahead while the one before decodes.
struct Fetched {
    row_group: RowGroup,
    meta: Arc<SegmentMeta>,
    /// Chunks of the first-step columns, in their order.
    bytes: Vec<VerifiedBytes>,
}

struct ScanMetrics {
    baseline: BaselineMetrics,
    local_bytes: Count,
    peer_bytes: Count,
    rows_assigned: Count,
    rows_read: Count,
    rows_pruned: Count,
    row_groups_pruned: Count,
}

impl ScanMetrics {
    fn new(metrics: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        let bytes = |name| {
            MetricBuilder::new(metrics)
                .with_category(MetricCategory::Bytes)
                .counter(name, partition)
        };
        let rows = |name| {
            MetricBuilder::new(metrics).with_category(MetricCategory::Rows).counter(name, partition)
        };
        Self {
            baseline: BaselineMetrics::new(metrics, partition),
            local_bytes: bytes("local_bytes"),
            peer_bytes: bytes("peer_bytes"),
            rows_assigned: rows("rows_assigned"),
            rows_read: rows("rows_read"),
            rows_pruned: rows("rows_pruned"),
            row_groups_pruned: rows("row_groups_pruned"),
        }
    }

    fn record(&self, cost: ReadCost) {
        self.local_bytes.add(usize::try_from(cost.local_bytes).unwrap_or(usize::MAX));
        self.peer_bytes.add(usize::try_from(cost.peer_bytes).unwrap_or(usize::MAX));
    }
}

struct PartitionScan {
    table: Arc<ScanTable>,
    segments: Arc<Vec<ScanSegment>>,
    source: Arc<dyn ChunkSource>,
    queue: VecDeque<RowGroup>,
    ahead: Option<SpawnedTask<Result<(Fetched, ReadCost)>>>,
    /// Indexes of the output columns in the read columns.
    projection: Vec<usize>,
    predicate: Option<Predicate>,
    /// Columns fetched before anything is decoded: the predicate's, or all of them.
    first_step: Vec<usize>,
    output_schema: SchemaRef,
    batch_rows: usize,
    rows_left: Option<usize>,
    current: Option<OpenRowGroup>,
    coalescer: Option<BatchCoalescer>,
    metrics: ScanMetrics,
}

impl PartitionScan {
    fn new(
        scan: &SegmentScanExec,
        partition: usize,
        metrics: &ExecutionPlanMetricsSet,
        context: &TaskContext,
    ) -> Result<Self> {
        let output_schema = datafusion::physical_plan::ExecutionPlan::schema(scan);
        let batch_rows = context.session_config().batch_size();
        let metrics = ScanMetrics::new(metrics, partition);
        let predicate = match &scan.predicate {
            Some(predicate) => Some(Predicate::new(predicate, &scan.table.schema)?),
            None => None,
        };
        let first_step = match &predicate {
            Some(predicate) => predicate.columns.clone(),
            None => distinct(&scan.projection),
        };
        let queue: VecDeque<_> = scan.partitions[partition]
            .iter()
            .flat_map(|unit| {
                (unit.first..unit.end)
                    .map(|index| RowGroup { segment: unit.segment as usize, index: index as usize })
            })
            .collect();
        let filters =
            predicate.is_some() || scan.segments.iter().any(|segment| segment.deleted.is_some());
        let coalescer = filters.then(|| {
            BatchCoalescer::new(Arc::clone(&output_schema), batch_rows)
                .with_biggest_coalesce_batch_size(Some(batch_rows / 2))
        });
        let mut state = Self {
            table: Arc::clone(&scan.table),
            segments: Arc::clone(&scan.segments),
            source: ChunkSourceExtension::from_task(context)?,
            queue,
            ahead: None,
            projection: scan.projection.clone(),
            predicate,
            first_step,
            output_schema,
            batch_rows,
            rows_left: scan.limit,
            current: None,
            coalescer,
            metrics,
        };
        for row_group in &state.queue {
            state.metrics.rows_assigned.add(state.rows_of(*row_group)?);
        }
        state.read_ahead();
        Ok(state)
    }

    fn rows_of(&self, row_group: RowGroup) -> Result<usize> {
        self.segments
            .get(row_group.segment)
            .and_then(|segment| segment.row_groups.get(row_group.index))
            .map(|rows| *rows as usize)
            .ok_or_else(|| {
                internal_datafusion_err!("a scan unit names no row group of its segment")
            })
    }

    /// Starts fetching the next row group's first-step chunks.
    fn read_ahead(&mut self) {
        let Some(row_group) = self.queue.pop_front() else { return };
        let (table, segments) = (Arc::clone(&self.table), Arc::clone(&self.segments));
        let source = Arc::clone(&self.source);
        let columns = self.first_step.clone();
        self.ahead = Some(SpawnedTask::spawn(async move {
            let segment = &segments[row_group.segment];
            let meta = source.segment_meta(&table, segment).await?;
            let reads = chunk_reads(&table, segment, &columns, row_group.index);
            let (bytes, cost) = source.read(&table, segment, &meta, &reads).await?;
            Ok((Fetched { row_group, meta, bytes }, cost))
        }));
    }

    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if self.rows_left == Some(0) {
                self.ahead = None;
                self.metrics.baseline.done();
                return Ok(None);
            }
            if let Some(batch) =
                self.coalescer.as_mut().and_then(BatchCoalescer::next_completed_batch)
            {
                return Ok(Some(self.emit(batch)));
            }
            let Some(open) = self.current.as_mut() else {
                if self.open_next().await? {
                    continue;
                }
                return self.finish();
            };
            let timer = self.metrics.baseline.elapsed_compute().timer();
            let next = open.next(&self.output_schema)?;
            timer.done();
            match (next, self.coalescer.as_mut()) {
                (None, _) => self.current = None,
                (Some((batch, Some(mask))), Some(coalescer)) => {
                    coalescer.push_batch_with_filter(batch, &mask)?;
                }
                (Some((batch, None)), Some(coalescer)) => coalescer.push_batch(batch)?,
                (Some((batch, _)), None) => return Ok(Some(self.emit(batch))),
            }
        }
    }

    /// The rows still in the coalescer, then the end.
    fn finish(&mut self) -> Result<Option<RecordBatch>> {
        if let Some(coalescer) = self.coalescer.as_mut() {
            coalescer.finish_buffered_batch()?;
            if let Some(batch) = coalescer.next_completed_batch() {
                return Ok(Some(self.emit(batch)));
            }
        }
        self.metrics.baseline.done();
        self.check_balance()?;
        Ok(None)
    }

    /// Every row that this partition was given was read or pruned (RULES 1).
    fn check_balance(&self) -> Result<()> {
        let assigned = self.metrics.rows_assigned.value();
        let seen = self.metrics.rows_read.value() + self.metrics.rows_pruned.value();
        if self.rows_left.is_none() && assigned != seen {
            return internal_err!(
                "a scan of {} was given {assigned} rows and saw {seen}",
                self.table.name
            );
        }
        Ok(())
    }

    fn emit(&mut self, batch: RecordBatch) -> RecordBatch {
        let batch = match self.rows_left {
            Some(left) if batch.num_rows() > left => batch.slice(0, left),
            _ => batch,
        };
        if let Some(left) = self.rows_left.as_mut() {
            *left -= batch.num_rows();
        }
        batch.record_output(&self.metrics.baseline)
    }

    /// Opens the next row group that may hold rows; `false` when there is none left.
    async fn open_next(&mut self) -> Result<bool> {
        let Some(ahead) = self.ahead.take() else { return Ok(false) };
        let joined =
            ahead.join().await.map_err(|error| DataFusionError::External(Box::new(error)))?;
        let (fetched, cost) = joined?;
        self.metrics.record(cost);
        self.read_ahead();
        let rows = self.rows_of(fetched.row_group)?;
        let group = fetched.row_group.index;
        let may_match = match self.predicate.as_mut() {
            Some(predicate) => predicate.pruner.may_match(&self.table, &fetched.meta, group)?,
            None => true,
        };
        if !may_match {
            self.metrics.rows_pruned.add(rows);
            self.metrics.row_groups_pruned.add(1);
            return Ok(true);
        }
        let live = self.live_rows(fetched.row_group, rows)?;
        let opened = match (&self.predicate, live) {
            (Some(_), live) => self.open_filtered(fetched, rows, live).await?,
            (None, Some(live)) => self.open_live(&fetched, &live)?,
            (None, None) => {
                let columns =
                    self.open_columns(&fetched, &self.first_step, &fetched.bytes, None)?;
                Some(OpenRowGroup::plain(columns, &self.projection, rows, self.batch_rows))
            }
        };
        self.metrics.rows_read.add(rows);
        self.current = opened;
        Ok(true)
    }

    /// The rows of a row group that are not deleted; `None` when that is all of them.
    fn live_rows(&self, row_group: RowGroup, rows: usize) -> Result<Option<BooleanBuffer>> {
        let Some(deleted) = &self.segments[row_group.segment].deleted else { return Ok(None) };
        let first = self.first_position(row_group)?;
        let range = first..first + u32::try_from(rows).map_err(|_| too_many_rows())?;
        let any = deleted.rows_within(range.clone()) > 0;
        Ok(any.then(|| deleted.live(range)))
    }

    /// The position in its segment of a row group's first row.
    fn first_position(&self, row_group: RowGroup) -> Result<u32> {
        let before = &self.segments[row_group.segment].row_groups[..row_group.index];
        u32::try_from(before.iter().map(|rows| u64::from(*rows)).sum::<u64>())
            .map_err(|_| too_many_rows())
    }

    /// Opens the columns of a row group for the rows that live.
    fn open_live(&self, fetched: &Fetched, live: &BooleanBuffer) -> Result<Option<OpenRowGroup>> {
        let tested = live_batches(live, self.batch_rows);
        if live.count_set_bits() == 0 {
            return Ok(None);
        }
        let selection = is_sparse(&tested, live.len()).then(|| row_selection(&tested));
        let opened =
            self.open_columns(fetched, &self.first_step, &fetched.bytes, selection.as_ref())?;
        let sparse = selection.is_some();
        Ok(Some(OpenRowGroup::filtered(tested, opened, &[], &self.projection, sparse)))
    }

    /// Decodes the predicate's columns of a row group and opens the others for the rows that pass.
    async fn open_filtered(
        &mut self,
        fetched: Fetched,
        rows: usize,
        live: Option<BooleanBuffer>,
    ) -> Result<Option<OpenRowGroup>> {
        let Some(predicate) = &self.predicate else { return Ok(None) };
        let timer = self.metrics.baseline.elapsed_compute().timer();
        let columns = self.open_columns(&fetched, &predicate.columns, &fetched.bytes, None)?;
        let tested = predicate.test(columns, rows, self.batch_rows, live.as_ref())?;
        timer.done();
        let passed: usize = tested.iter().map(|batch| batch.passed).sum();
        if passed == 0 {
            return Ok(None);
        }
        let others: Vec<_> = distinct(&self.projection)
            .into_iter()
            .filter(|column| !predicate.columns.contains(column))
            .collect();
        let segment = &self.segments[fetched.row_group.segment];
        let reads = chunk_reads(&self.table, segment, &others, fetched.row_group.index);
        let (bytes, cost) = self.source.read(&self.table, segment, &fetched.meta, &reads).await?;
        self.metrics.record(cost);
        let sparse = is_sparse(&tested, rows);
        let selection = sparse.then(|| row_selection(&tested));
        let opened = self.open_columns(&fetched, &others, &bytes, selection.as_ref())?;
        let columns = &predicate.columns;
        Ok(Some(OpenRowGroup::filtered(tested, opened, columns, &self.projection, sparse)))
    }

    fn open_columns(
        &self,
        fetched: &Fetched,
        columns: &[usize],
        bytes: &[VerifiedBytes],
        selection: Option<&RowSelection>,
    ) -> Result<Vec<(usize, ColumnRows)>> {
        let segment = &self.segments[fetched.row_group.segment];
        let mut stored = bytes.iter();
        columns
            .iter()
            .map(|column| {
                let data_type = self.table.schema.field(*column).data_type();
                if self.table.columns[*column] == ROW_ID_COLUMN {
                    let first = self.first_position(fetched.row_group)?;
                    let next = row_id(segment.ordinal, first);
                    return Ok((*column, ColumnRows::ids(next, selection)));
                }
                let reader = match segment.column_versions.get(*column) {
                    Some(Some(_)) => {
                        let bytes = stored.next().ok_or_else(|| {
                            internal_datafusion_err!("a chunk source returned too few chunks")
                        })?;
                        let reader = open_row_group(
                            &fetched.meta,
                            self.table.columns[*column],
                            fetched.row_group.index,
                            bytes,
                            data_type,
                            self.batch_rows,
                            selection.cloned(),
                        )
                        .map_err(storage_error)?;
                        ColumnRows::Stored(Box::new(reader))
                    }
                    // The segment is older than the column: every value is NULL.
                    _ => ColumnRows::Absent(data_type.clone()),
                };
                Ok((*column, reader))
            })
            .collect()
    }
}

/// The chunks to read for some columns of one row group; columns that a segment lacks have none.
fn chunk_reads(
    table: &ScanTable,
    segment: &ScanSegment,
    columns: &[usize],
    row_group: usize,
) -> Vec<ChunkRead> {
    let stored = |column: &&usize| matches!(segment.column_versions.get(**column), Some(Some(_)));
    let read = |column: &usize| ChunkRead { column: table.columns[*column], row_group };
    columns.iter().filter(stored).map(read).collect()
}

/// Whether so few rows pass that the other columns are better decoded by row selection.
#[expect(clippy::cast_precision_loss, reason = "a share needs no more precision")]
fn is_sparse(tested: &[TestedBatch], rows: usize) -> bool {
    let passed: usize = tested.iter().map(|batch| batch.passed).sum();
    (passed as f64) < rows as f64 * SELECTION_SHARE_MAX
}

fn too_many_rows() -> DataFusionError {
    internal_datafusion_err!("a segment has more rows than positions")
}

fn distinct(projection: &[usize]) -> Vec<usize> {
    let mut columns = projection.to_vec();
    columns.sort_unstable();
    columns.dedup();
    columns
}
