//! Running one partition of a scan: prune, decode, filter, hand on.
//!
//! For each row group in turn: ask its zone maps whether it can hold a row that passes; get the
//! predicate's columns; get the other columns only where rows survive. A column comes from the
//! [column cache](crate::column_cache) or is decoded. Rows of all columns are counted on zip, and a
//! mismatch is an error (RULES 10). Everything happens on pull, but for one row group that is fetched ahead,
//! and a dropped stream stops both at once.

use std::sync::{Arc, PoisonError};

use arrow::buffer::BooleanBuffer;
use arrow::compute::BatchCoalescer;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use basalt_storage::layout::PAGE_ROWS;
use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricCategory, RecordOutput,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream;

use super::ahead::{Pruned, RowGroups};
use super::coalescing::push_rows;
use super::columns::{Chosen, Fetched, FetchedColumn, RowGroup, ScanColumns, too_many_rows};
use super::open_row_group::OpenRowGroup;
use super::order::ScanOrder;
use super::ordered_stream::{KeyCheck, open_sorted};
use super::pages::KeptPages;
use super::predicate::{Predicate, TestedBatch, live_batches};
use super::{ScanUnit, SegmentScanExec};
use crate::chunks::ReadCost;
use crate::session::FragmentOptions;

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
    match &scan.order {
        ScanOrder::Key(order) => open_sorted(scan, order, partition, metrics, context),
        _ => open_units(scan, &scan.partitions[partition], None, (partition, metrics), context),
    }
}

/// Opens some units, one after the other; their costs are counted where `counted` says. With a `check`,
/// rows in another order than that are an error.
pub(super) fn open_units(
    scan: &SegmentScanExec,
    units: &[ScanUnit],
    check: Option<KeyCheck>,
    counted: (usize, &ExecutionPlanMetricsSet),
    context: &TaskContext,
) -> Result<SendableRecordBatchStream> {
    let state = PartitionScan::new(scan, units, check, counted, context)?;
    let schema = Arc::clone(&state.output_schema);
    let batches = stream::try_unfold(state, |mut state| async move {
        let next = state.next_batch().await?;
        Ok(next.map(|batch| (batch, state)))
    });
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
}

struct ScanMetrics {
    baseline: BaselineMetrics,
    local_bytes: Count,
    peer_bytes: Count,
    cached_bytes: Count,
    rows_assigned: Count,
    rows_read: Count,
    rows_pruned: Count,
    row_groups_read: Count,
    row_groups_pruned: Count,
    pages_read: Count,
    pages_pruned: Count,
    pruned_bytes: Count,
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
            cached_bytes: bytes("cached_bytes"),
            rows_assigned: rows("rows_assigned"),
            rows_read: rows("rows_read"),
            rows_pruned: rows("rows_pruned"),
            row_groups_read: rows("row_groups_read"),
            row_groups_pruned: rows("row_groups_pruned"),
            pages_read: rows("pages_read"),
            pages_pruned: rows("pages_pruned"),
            pruned_bytes: bytes("pruned_bytes"),
        }
    }

    fn record(&self, cost: ReadCost) {
        let count = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
        self.local_bytes.add(count(cost.local_bytes));
        self.peer_bytes.add(count(cost.peer_bytes));
        self.cached_bytes.add(count(cost.cached_bytes));
        self.pruned_bytes.add(count(cost.pruned_bytes));
    }

    fn record_pruned(&self, pruned: Pruned) {
        self.rows_pruned.add(pruned.rows);
        self.row_groups_pruned.add(pruned.row_groups);
        self.pruned_bytes.add(usize::try_from(pruned.bytes).unwrap_or(usize::MAX));
    }

    /// A row group of `rows` rows that is read, or some pages of it.
    fn record_read(&self, rows: usize, pages: Option<&KeptPages>) {
        let all = rows.div_ceil(PAGE_ROWS as usize);
        let (kept_rows, kept) = pages.map_or((rows, all), |pages| (pages.rows, pages.count()));
        self.rows_read.add(kept_rows);
        self.rows_pruned.add(rows - kept_rows);
        self.row_groups_read.add(1);
        self.pages_read.add(kept);
        self.pages_pruned.add(all - kept);
    }
}

struct PartitionScan {
    columns: Arc<ScanColumns>,
    row_groups: RowGroups,
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
    check: Option<KeyCheck>,
    metrics: ScanMetrics,
}

impl PartitionScan {
    fn new(
        scan: &SegmentScanExec,
        units: &[ScanUnit],
        check: Option<KeyCheck>,
        (partition, metrics): (usize, &ExecutionPlanMetricsSet),
        context: &TaskContext,
    ) -> Result<Self> {
        let output_schema = datafusion::physical_plan::ExecutionPlan::schema(scan);
        let batch_rows = context.session_config().batch_size();
        let metrics = ScanMetrics::new(metrics, partition);
        let predicate = match &scan.predicate {
            Some(predicate) => {
                let options = FragmentOptions::of(context.session_config().options());
                Some(Predicate::new(predicate, &scan.table.schema, &options)?)
            }
            None => None,
        };
        let first_step = match &predicate {
            Some(predicate) => predicate.columns.clone(),
            None => distinct(&scan.projection),
        };
        let row_groups = units.iter().flat_map(|unit| {
            let segment = unit.segment as usize;
            (unit.first..unit.end).map(move |index| RowGroup { segment, index: index as usize })
        });
        let row_groups: Vec<_> = row_groups.collect();
        let filters =
            predicate.is_some() || scan.segments.iter().any(|segment| segment.deleted.is_some());
        let coalescer = filters.then(|| {
            BatchCoalescer::new(Arc::clone(&output_schema), batch_rows)
                .with_biggest_coalesce_batch_size(Some(batch_rows / 2))
        });
        let columns = Arc::new(ScanColumns::new(scan, context)?);
        for row_group in &row_groups {
            metrics.rows_assigned.add(columns.rows_of(*row_group)?);
        }
        let pruner = predicate.as_ref().and_then(|predicate| predicate.pruner.clone());
        let row_groups =
            RowGroups::new(Arc::clone(&columns), first_step.clone(), pruner, row_groups.into());
        Ok(Self {
            columns,
            row_groups,
            projection: scan.projection.clone(),
            predicate,
            first_step,
            output_schema,
            batch_rows,
            rows_left: scan.limit,
            current: None,
            coalescer,
            check,
            metrics,
        })
    }

    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if self.rows_left == Some(0) {
                self.row_groups.stop();
                self.metrics.baseline.done();
                return Ok(None);
            }
            if let Some(batch) =
                self.coalescer.as_mut().and_then(BatchCoalescer::next_completed_batch)
            {
                return self.emit(batch).map(Some);
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
                    push_rows(coalescer, batch, &mask)?;
                }
                (Some((batch, None)), Some(coalescer)) => coalescer.push_batch(batch)?,
                (Some((batch, _)), None) => return self.emit(batch).map(Some),
            }
        }
    }

    /// The rows still in the coalescer, then the end.
    fn finish(&mut self) -> Result<Option<RecordBatch>> {
        if let Some(coalescer) = self.coalescer.as_mut() {
            coalescer.finish_buffered_batch()?;
            if let Some(batch) = coalescer.next_completed_batch() {
                return self.emit(batch).map(Some);
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
                self.columns.table().name
            );
        }
        Ok(())
    }

    fn emit(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        let batch = match self.rows_left {
            Some(left) if batch.num_rows() > left => batch.slice(0, left),
            _ => batch,
        };
        if let Some(left) = self.rows_left.as_mut() {
            *left -= batch.num_rows();
        }
        if let Some(check) = self.check.as_mut() {
            check.batch(&batch)?;
        }
        Ok(batch.record_output(&self.metrics.baseline))
    }

    /// Opens the next row group that may hold rows; `false` when there is none left.
    async fn open_next(&mut self) -> Result<bool> {
        let Some(ahead) = self.row_groups.next().await? else { return Ok(false) };
        self.metrics.record(ahead.cost);
        self.metrics.record_pruned(ahead.pruned);
        let Some(fetched) = ahead.fetched else { return Ok(true) };
        if let Some(check) = &self.check {
            check.segment(&fetched.meta)?;
        }
        let rows = self.columns.rows_of(fetched.row_group)?;
        if !self.may_match_still(&fetched)? {
            self.metrics.record_pruned(Pruned { rows, row_groups: 1, bytes: 0 });
            return Ok(true);
        }
        self.metrics.record_read(rows, fetched.pages.as_deref());
        let live = self.live_rows(fetched.row_group, rows)?;
        // From here on there are no other rows than those of the pages.
        let (rows, live) = match fetched.pages.as_deref() {
            Some(pages) => (pages.rows, live.map(|live| pages.of(&live))),
            None => (rows, live),
        };
        let opened = match (&self.predicate, live) {
            (Some(_), live) => self.open_filtered(fetched, rows, live).await?,
            (None, Some(live)) => self.open_live(fetched, &live)?,
            (None, None) => {
                let columns = self.open_columns(&fetched, None)?;
                Some(OpenRowGroup::plain(columns, &self.projection, rows, self.batch_rows))
            }
        };
        self.current = opened;
        Ok(true)
    }

    /// Whether a row group may hold rows by what dynamic filters know now.
    fn may_match_still(&self, fetched: &Fetched) -> Result<bool> {
        let pruner = self.predicate.as_ref().and_then(|predicate| predicate.pruner.as_ref());
        let Some(pruner) = pruner else { return Ok(true) };
        let mut pruner = pruner.lock().unwrap_or_else(PoisonError::into_inner);
        if !pruner.is_dynamic() {
            return Ok(true);
        }
        pruner.may_match(self.columns.table(), &fetched.meta, fetched.row_group)
    }

    /// The rows of a row group that are not deleted; `None` when that is all of them.
    fn live_rows(&self, row_group: RowGroup, rows: usize) -> Result<Option<BooleanBuffer>> {
        let Some(deleted) = &self.columns.segment(row_group).deleted else { return Ok(None) };
        let first = self.columns.first_position(row_group)?;
        let range = first..first + u32::try_from(rows).map_err(|_| too_many_rows())?;
        let any = deleted.rows_within(range.clone()) > 0;
        Ok(any.then(|| deleted.live(range)))
    }

    /// Opens the columns of a row group for the rows that live.
    fn open_live(
        &self,
        mut fetched: Fetched,
        live: &BooleanBuffer,
    ) -> Result<Option<OpenRowGroup>> {
        let tested = live_batches(live, self.batch_rows);
        if live.count_set_bits() == 0 {
            return Ok(None);
        }
        let is_sparse = is_sparse(&tested, live.len())
            && self.needs_decoding(&mut fetched, &self.first_step)?;
        let chosen = is_sparse.then(|| Chosen::new(&tested));
        let opened = self.open_columns(&fetched, chosen.as_ref())?;
        Ok(Some(OpenRowGroup::filtered(tested, opened, &[], &self.projection, is_sparse)))
    }

    /// Gets the predicate's columns of a row group and opens the others for the rows that pass.
    async fn open_filtered(
        &mut self,
        fetched: Fetched,
        rows: usize,
        live: Option<BooleanBuffer>,
    ) -> Result<Option<OpenRowGroup>> {
        let Some(predicate) = &self.predicate else { return Ok(None) };
        let timer = self.metrics.baseline.elapsed_compute().timer();
        let columns = self.open_columns(&fetched, None)?;
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
        let Fetched { row_group, meta, pages, .. } = fetched;
        let (columns, cost) =
            self.columns.fetch(row_group, &meta, &others, pages.as_deref()).await?;
        self.metrics.record(cost);
        let mut fetched = Fetched { row_group, meta, columns, pages };
        let timer = self.metrics.baseline.elapsed_compute().timer();
        let is_sparse = is_sparse(&tested, rows) && self.needs_decoding(&mut fetched, &others)?;
        let chosen = is_sparse.then(|| Chosen::new(&tested));
        let opened = self.columns.open(&others, &fetched, chosen.as_ref())?;
        drop(chosen);
        timer.done();
        let columns = &predicate.columns;
        Ok(Some(OpenRowGroup::filtered(tested, opened, columns, &self.projection, is_sparse)))
    }

    /// Whether any of some columns is to be decoded still, once those that are asked for again and
    /// again were decoded as a whole.
    fn needs_decoding(&self, fetched: &mut Fetched, columns: &[usize]) -> Result<bool> {
        let Fetched { row_group, meta, columns: fetched, pages } = fetched;
        // Pages were asked about when they were fetched.
        if pages.is_none() {
            self.columns.decode_asked(*row_group, meta, columns, fetched)?;
        }
        Ok(fetched.iter().any(|column| matches!(column, FetchedColumn::Bytes(_))))
    }

    /// Opens the columns of the first step.
    fn open_columns(
        &self,
        fetched: &Fetched,
        chosen: Option<&Chosen<'_>>,
    ) -> Result<Vec<(usize, super::column_rows::ColumnRows)>> {
        self.columns.open(&self.first_step, fetched, chosen)
    }
}

/// Whether so few rows pass that the other columns are better decoded by row selection.
#[expect(clippy::cast_precision_loss, reason = "a share needs no more precision")]
fn is_sparse(tested: &[TestedBatch], rows: usize) -> bool {
    let passed: usize = tested.iter().map(|batch| batch.passed).sum();
    (passed as f64) < rows as f64 * SELECTION_SHARE_MAX
}

fn distinct(projection: &[usize]) -> Vec<usize> {
    let mut columns = projection.to_vec();
    columns.sort_unstable();
    columns.dedup();
    columns
}
