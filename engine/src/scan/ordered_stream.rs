//! Running one partition of a scan in the order of the sort key: its chains, merged.
//!
//! A segment that was not sorted by the key, or a chain whose rows step back where one batch ends and the
//! next begins, is an error: what a sort was left out for is never handed on in another order.

use std::cmp::Ordering;

use arrow::array::{ArrayRef, make_comparator};
use arrow::record_batch::RecordBatch;
use basalt_storage::ids::ColumnId;
use basalt_storage::segment_meta::SegmentMeta;
use datafusion::common::{internal_datafusion_err, internal_err};
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet};
use datafusion::physical_plan::sorts::streaming_merge::StreamingMergeBuilder;

use super::SegmentScanExec;
use super::order::{KeyColumn, KeyOrder};
use super::stream::open_units;

/// Opens one partition of a scan that hands out rows in an order.
pub(super) fn open_sorted(
    scan: &SegmentScanExec,
    order: &KeyOrder,
    partition: usize,
    metrics: &ExecutionPlanMetricsSet,
    context: &TaskContext,
) -> Result<SendableRecordBatchStream> {
    let (mut units, mut streams) = (scan.partitions[partition].as_slice(), Vec::new());
    let chains = order.chains.get(partition).map(Vec::as_slice).unwrap_or_default();
    for length in chains {
        let Some((chain, rest)) = units.split_at_checked(*length) else {
            return internal_err!("a chain of a sorted scan has more units than its partition");
        };
        units = rest;
        let check = KeyCheck::new(scan, order)?;
        streams.push(open_units(scan, chain, Some(check), (partition, metrics), context)?);
    }
    if !units.is_empty() {
        return internal_err!("units of a sorted scan are in no chain");
    }
    match streams.len() {
        0 => open_units(scan, &[], None, (partition, metrics), context),
        1 => Ok(streams.remove(0)),
        _ => merged(scan, streams, partition, context),
    }
}

fn merged(
    scan: &SegmentScanExec,
    streams: Vec<SendableRecordBatchStream>,
    partition: usize,
    context: &TaskContext,
) -> Result<SendableRecordBatchStream> {
    let schema = scan.schema();
    let expressions = scan.order.of_output(&schema, &scan.projection);
    let expressions = expressions
        .ok_or_else(|| internal_datafusion_err!("a sorted scan does not put out its key"))?;
    let reservation =
        MemoryConsumer::new("merge of sorted segments").register(context.memory_pool());
    // The chains have counted their rows already.
    let uncounted = BaselineMetrics::new(&ExecutionPlanMetricsSet::new(), partition);
    StreamingMergeBuilder::new()
        .with_streams(streams)
        .with_schema(schema)
        .with_expressions(&expressions)
        .with_metrics(uncounted)
        .with_batch_size(context.session_config().batch_size())
        .with_fetch(scan.limit)
        .with_reservation(reservation)
        .with_round_robin_tie_breaker(false)
        .build()
}

/// Refuses rows of a chain that are not in its order.
pub(super) struct KeyCheck {
    key: Vec<KeyColumn>,
    ids: Vec<ColumnId>,
    /// Where the columns are in the output.
    places: Vec<usize>,
    /// The key of the last row that was handed on.
    last: Option<Vec<ArrayRef>>,
    table: String,
}

impl KeyCheck {
    fn new(scan: &SegmentScanExec, order: &KeyOrder) -> Result<Self> {
        let place = |key: &KeyColumn| {
            let place = scan.projection.iter().position(|read| *read == key.index);
            place.ok_or_else(|| internal_datafusion_err!("a sorted scan does not put out its key"))
        };
        let ids = order.columns.iter().map(|key| scan.table.columns[key.index]);
        Ok(Self {
            places: order.columns.iter().map(place).collect::<Result<_>>()?,
            ids: ids.collect(),
            key: order.columns.clone(),
            last: None,
            table: scan.table.name.clone(),
        })
    }

    /// Refuses a segment that is not sorted by the columns.
    pub(super) fn segment(&self, meta: &SegmentMeta) -> Result<()> {
        if meta.sort_key().starts_with(&self.ids) {
            return Ok(());
        }
        internal_err!("a segment of {} is not sorted by the key of its table", self.table)
    }

    /// Refuses a batch that begins before the last one ended.
    pub(super) fn batch(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let row = |row: usize| -> Vec<ArrayRef> {
            self.places.iter().map(|place| batch.column(*place).slice(row, 1)).collect()
        };
        let (first, last) = (row(0), row(rows - 1));
        if let Some(before) = &self.last {
            for ((before, first), key) in before.iter().zip(&first).zip(&self.key) {
                match make_comparator(before, first, key.options())?(0, 0) {
                    Ordering::Less => break,
                    Ordering::Equal => {}
                    Ordering::Greater => {
                        return internal_err!(
                            "rows of {} are not in the order of its key",
                            self.table
                        );
                    }
                }
            }
        }
        self.last = Some(last);
        Ok(())
    }
}
