//! The leaf of a plan that reads files from outside.
//!
//! Invariant: it reads exactly its units, and only files inside the roots of the process that
//! runs it, taken from the session of the task and never from the plan.

use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result as DataFusionResult, Statistics};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions,
};

use super::{AllowedRoots, FileFormat, FileScan, Unit, csv, parquet};
use crate::arithmetic::normalize_float_rows;
use crate::error::{ErrorCode, SqlError};

/// Decoded batches that wait for the operator above: one in each hand.
const BATCHES_QUEUED: usize = 2;

/// Reads units of a set of files.
#[derive(Debug, Clone)]
pub struct FileScanExec {
    scan: Arc<FileScan>,
    /// Columns of the set's schema to read; `None` is all.
    projection: Option<Vec<usize>>,
    /// Rows that each partition needs at most.
    limit: Option<usize>,
    partitions: Vec<Vec<Unit>>,
    projected: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl FileScanExec {
    /// A leaf that reads `partitions` of `scan`, made by [`FileScan::split`].
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Internal`] when a unit or the projection does not fit the set.
    pub fn new(
        scan: Arc<FileScan>,
        projection: Option<Vec<usize>>,
        limit: Option<usize>,
        partitions: Vec<Vec<Unit>>,
    ) -> Result<Self, SqlError> {
        let invalid = |what: &str| {
            SqlError::new(ErrorCode::Internal, format!("internal error: a file scan has {what}"))
        };
        let projected = match &projection {
            None => Arc::clone(&scan.schema),
            Some(columns) => Arc::new(
                scan.schema
                    .project(columns)
                    .map_err(|_| invalid("a projection outside its schema"))?,
            ),
        };
        let fits = |unit: &Unit| {
            let file = scan.files.get(unit.file)?;
            match (file.rows, unit.rows) {
                (None, None) => (unit.first_row == 0).then_some(()),
                (Some(all), Some(rows)) => (unit.first_row.checked_add(rows)? <= all).then_some(()),
                _ => None,
            }
        };
        if partitions.iter().flatten().any(|unit| fits(unit).is_none()) {
            return Err(invalid("a unit outside its files"));
        }
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&projected)),
            Partitioning::UnknownPartitioning(partitions.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Ok(Self {
            scan,
            projection,
            limit,
            partitions,
            projected,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    /// The set of files.
    pub fn scan(&self) -> &Arc<FileScan> {
        &self.scan
    }

    /// Columns of the set's schema that are read; `None` is all.
    pub fn projection(&self) -> Option<&[usize]> {
        self.projection.as_deref()
    }

    /// Rows that each partition needs at most.
    pub fn limit(&self) -> Option<usize> {
        self.limit
    }

    /// What each partition reads.
    pub fn partitions(&self) -> &[Vec<Unit>] {
        &self.partitions
    }

    /// The same leaf with other units: those of one task of several.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn with_units(&self, partitions: Vec<Vec<Unit>>) -> Result<Self, SqlError> {
        Self::new(Arc::clone(&self.scan), self.projection.clone(), self.limit, partitions)
    }

    /// Rows of one partition or all, when they are known.
    fn unit_rows(&self, partition: Option<usize>) -> Option<u64> {
        match partition {
            Some(partition) => self.partitions.get(partition)?.iter().map(|unit| unit.rows).sum(),
            None => self.partitions.iter().flatten().map(|unit| unit.rows).sum(),
        }
    }
}

impl DisplayAs for FileScanExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.scan.format.name();
        let files = self.scan.files.len();
        let columns = self.projected.fields().len();
        if matches!(format, DisplayFormatType::TreeRender) {
            return write!(f, "format={name}\nfiles={files}\ncolumns={columns}");
        }
        let partitions = self.partitions.len();
        write!(
            f,
            "FileScanExec: format={name}, files={files}, partitions={partitions}, columns={columns}"
        )?;
        if let Some(limit) = self.limit {
            write!(f, ", limit={limit}")?;
        }
        Ok(())
    }
}

impl ExecutionPlan for FileScanExec {
    fn name(&self) -> &str {
        "FileScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        self.replace_children(
            children,
            ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute),
        )
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DataFusionResult<SendableRecordBatchStream> {
        let Some(units) = self.partitions.get(partition).cloned() else {
            let message = format!("internal error: a file scan has no partition {partition}");
            return Err(SqlError::new(ErrorCode::Internal, message).into());
        };
        let roots = context
            .session_config()
            .get_extension::<AllowedRoots>()
            .unwrap_or_else(|| Arc::new(AllowedRoots::none()));
        let reader = UnitReader {
            scan: Arc::clone(&self.scan),
            schema: Arc::clone(&self.projected),
            limit: self.limit,
            batch_rows: context.session_config().batch_size(),
            roots,
        };
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let mut builder =
            RecordBatchReceiverStreamBuilder::new(Arc::clone(&self.projected), BATCHES_QUEUED);
        let sender = builder.tx();
        builder.spawn_blocking(move || {
            let mut sink = |batch: RecordBatch| {
                metrics.record_output(batch.num_rows());
                // Nobody listens any more: the query was cancelled or has enough rows.
                sender.blocking_send(normalize_float_rows(batch)).is_ok()
            };
            let result = reader.read(&units, &mut sink);
            metrics.done();
            result.map_err(Into::into)
        });
        Ok(builder.build())
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        _input_stats: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> DataFusionResult<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.projected);
        if let Some(rows) = self.unit_rows(args.partition()) {
            let rows = usize::try_from(rows).unwrap_or(usize::MAX);
            // A limit may cut each partition, so the count is known only without one.
            statistics.num_rows = match self.limit {
                None => Precision::Exact(rows),
                Some(_) => Precision::Inexact(rows),
            };
        }
        Ok(Arc::new(statistics))
    }
}

/// What a blocking thread needs to read some units.
struct UnitReader {
    scan: Arc<FileScan>,
    schema: SchemaRef,
    limit: Option<usize>,
    batch_rows: usize,
    roots: Arc<AllowedRoots>,
}

impl UnitReader {
    /// Reads units in order, up to the limit, until `sink` returns `false`.
    fn read(
        &self,
        units: &[Unit],
        sink: &mut dyn FnMut(RecordBatch) -> bool,
    ) -> Result<(), SqlError> {
        let mut left = self.limit.unwrap_or(usize::MAX);
        let mut wanted = left > 0;
        for unit in units {
            if !wanted {
                break;
            }
            let mut limited = |batch: RecordBatch| {
                let batch = if batch.num_rows() > left { batch.slice(0, left) } else { batch };
                left -= batch.num_rows();
                wanted = (batch.num_rows() == 0 || sink(batch)) && left > 0;
                wanted
            };
            self.read_unit(unit, &mut limited)?;
        }
        Ok(())
    }

    fn read_unit(
        &self,
        unit: &Unit,
        sink: &mut dyn FnMut(RecordBatch) -> bool,
    ) -> Result<(), SqlError> {
        let Some(file) = self.scan.files.get(unit.file) else { return Ok(()) };
        match (self.scan.format, file.rows, unit.rows) {
            (FileFormat::Parquet, Some(file_rows), Some(rows)) => {
                let request = parquet::ReadRows {
                    file: &file.source,
                    file_rows,
                    rows: unit.first_row..unit.first_row + rows,
                    schema: &self.schema,
                    batch_rows: self.batch_rows,
                };
                if self.schema.fields().is_empty() {
                    // Only the number of rows is asked for, and the footer has said it.
                    file.source.open(&self.roots)?;
                    return count_only(rows, self.batch_rows, &self.schema, sink);
                }
                parquet::read(&request, &self.roots, sink)
            }
            _ => csv::read(
                &file.source,
                &self.scan.csv,
                &self.schema,
                self.batch_rows,
                &self.roots,
                sink,
            ),
        }
    }
}

/// Batches without columns that have `rows` rows together.
fn count_only(
    mut rows: u64,
    batch_rows: usize,
    schema: &SchemaRef,
    sink: &mut dyn FnMut(RecordBatch) -> bool,
) -> Result<(), SqlError> {
    while rows > 0 {
        let count = usize::try_from(rows).unwrap_or(usize::MAX).min(batch_rows.max(1));
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let batch = RecordBatch::try_new_with_options(Arc::clone(schema), Vec::new(), &options)
            .map_err(|error| SqlError::new(ErrorCode::Internal, error.to_string()))?;
        rows -= count as u64;
        if !sink(batch) {
            break;
        }
    }
    Ok(())
}
