//! The leaf of a plan that has its rows with it.
//!
//! Invariant: each batch is in exactly one partition of one task, or in one of each task; the plan checker looks.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::StreamExt;

use crate::batch_bytes::batch_bytes;
use crate::ipc::{Compression, check_stream};
use crate::protocol::{MalformedMessage, SharedRows as SharedRowsMessage, SharedRowsPartition};

/// Bytes of rows that may as well be sent to every task.
const SMALL_BYTES: usize = 1 << 20;

/// Rows that were computed before.
#[derive(Debug)]
pub(crate) struct SharedRows {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    bytes: usize,
}

impl SharedRows {
    pub(super) fn new(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        let bytes = batches.iter().map(batch_bytes).sum();
        Self { schema, batches, bytes }
    }
}

/// Hands on rows that were computed before.
#[derive(Debug, Clone)]
pub(crate) struct SharedRowsExec {
    name: String,
    schema: SchemaRef,
    /// `None`: nobody has computed them yet, and the plan is only looked at.
    rows: Option<Arc<SharedRows>>,
    /// The places of the batches that each partition hands on.
    partitions: Vec<Vec<usize>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl SharedRowsExec {
    /// A leaf of all rows in some partitions.
    pub(super) fn new(name: &str, rows: Arc<SharedRows>, partitions: usize) -> Self {
        let dealt = dealt(0..rows.batches.len(), &rows, partitions);
        Self::with(name, Arc::clone(&rows.schema), Some(rows), dealt)
    }

    /// A leaf whose rows are not known yet.
    pub(super) fn unknown(name: &str, schema: SchemaRef) -> Self {
        Self::with(name, schema, None, vec![vec![]])
    }

    fn with(
        name: &str,
        schema: SchemaRef,
        rows: Option<Arc<SharedRows>>,
        partitions: Vec<Vec<usize>>,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(partitions.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        let metrics = ExecutionPlanMetricsSet::new();
        Self {
            name: name.to_owned(),
            schema,
            rows,
            partitions,
            properties: Arc::new(properties),
            metrics,
        }
    }

    fn over(&self, partitions: Vec<Vec<usize>>) -> Self {
        Self::with(&self.name, Arc::clone(&self.schema), self.rows.clone(), partitions)
    }

    /// One leaf for each task, of all rows together.
    pub(crate) fn divided(&self, tasks: usize, partitions: usize) -> Vec<Self> {
        let Some(rows) = &self.rows else { return vec![self.clone(); tasks] };
        let of_tasks = dealt(0..rows.batches.len(), rows, tasks);
        let variant = |batches: Vec<usize>| self.over(dealt(batches.into_iter(), rows, partitions));
        of_tasks.into_iter().map(variant).collect()
    }

    /// One leaf for each task, each of all rows.
    pub(crate) fn replicated(&self, tasks: usize) -> Vec<Self> {
        (0..tasks).map(|_| self.over(self.partitions.clone())).collect()
    }

    /// Whether there are so few rows that every task may have them all.
    pub(crate) fn is_small(&self) -> bool {
        self.rows.as_ref().is_none_or(|rows| rows.bytes <= SMALL_BYTES)
    }

    /// Bytes of its rows.
    pub(super) fn bytes(&self) -> usize {
        self.rows.as_ref().map_or(0, |rows| rows.bytes)
    }

    /// Whether some leaves hand on the rows of this one exactly once, together.
    pub(crate) fn is_divided_into(&self, variants: &[&Self]) -> bool {
        let Some(rows) = &self.rows else { return variants.iter().all(|of| of.rows.is_none()) };
        let same = |of: &&&Self| of.rows.as_ref().is_some_and(|other| Arc::ptr_eq(other, rows));
        let mut batches: Vec<usize> =
            variants.iter().flat_map(|of| of.partitions.iter().flatten().copied()).collect();
        batches.sort_unstable();
        variants.iter().filter(same).count() == variants.len()
            && batches.into_iter().eq(0..rows.batches.len())
    }

    fn rows_in(&self, partition: Option<usize>) -> Option<usize> {
        let rows = self.rows.as_ref()?;
        let count = |batches: &Vec<usize>| -> usize {
            batches.iter().map(|place| rows.batches[*place].num_rows()).sum()
        };
        match partition {
            Some(partition) => self.partitions.get(partition).map(count),
            None => Some(self.partitions.iter().map(count).sum()),
        }
    }

    /// Its rows as they travel with a plan.
    pub(crate) fn to_wire(&self) -> Result<SharedRowsMessage> {
        let Some(rows) = &self.rows else {
            return internal_err!("{} has not been computed", self.name);
        };
        let encode = |places: &Vec<usize>| -> Result<SharedRowsPartition> {
            let mut writer = StreamWriter::try_new(Vec::new(), &self.schema)?;
            for place in places {
                writer.write(&rows.batches[*place])?;
            }
            Ok(SharedRowsPartition { stream: writer.into_inner()? })
        };
        let partitions = self.partitions.iter().map(encode).collect::<Result<_>>()?;
        Ok(SharedRowsMessage { name: self.name.clone(), partitions })
    }

    /// The leaf of a message.
    ///
    /// # Errors
    /// Bytes that are no rows, or not all of one schema.
    pub(crate) fn from_wire(message: &SharedRowsMessage) -> Result<Self> {
        let malformed = || MalformedMessage::new("SharedRows", "stream");
        let (mut schema, mut batches, mut partitions) = (None, Vec::new(), Vec::new());
        for partition in &message.partitions {
            check_stream(&partition.stream, Compression::Refused).map_err(|_| malformed())?;
            let reader = StreamReader::try_new(partition.stream.as_slice(), None)?;
            let schema = schema.get_or_insert_with(|| reader.schema());
            if *schema != reader.schema() {
                return Err(malformed().into());
            }
            let first = batches.len();
            for batch in reader {
                batches.push(batch?);
            }
            partitions.push((first..batches.len()).collect());
        }
        let schema = schema.ok_or_else(malformed)?;
        let rows = Arc::new(SharedRows::new(Arc::clone(&schema), batches));
        Ok(Self::with(&message.name, schema, Some(rows), partitions))
    }
}

/// Batches dealt out, the largest first, each to who has fewest rows.
fn dealt(batches: impl Iterator<Item = usize>, rows: &SharedRows, hands: usize) -> Vec<Vec<usize>> {
    let rows_of = |place: usize| rows.batches.get(place).map_or(0, RecordBatch::num_rows);
    let mut batches: Vec<_> = batches.collect();
    batches.sort_by_key(|place| std::cmp::Reverse(rows_of(*place)));
    let mut dealt = vec![(0, Vec::new()); hands.max(1)];
    for place in batches {
        if let Some((rows, hand)) = dealt.iter_mut().min_by_key(|(rows, _)| *rows) {
            *rows += rows_of(place);
            hand.push(place);
        }
    }
    dealt.into_iter().map(|(_, hand)| hand).collect()
}

impl DisplayAs for SharedRowsExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows_in(None).map_or("unknown".to_owned(), |rows| rows.to_string());
        match format {
            DisplayFormatType::TreeRender => write!(f, "{}\nrows={rows}", self.name),
            _ => write!(f, "SharedRowsExec: {}, rows={rows}", self.name),
        }
    }
}

impl ExecutionPlan for SharedRowsExec {
    fn name(&self) -> &str {
        "SharedRowsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        self.replace_children(children, options)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let (Some(rows), Some(places)) = (&self.rows, self.partitions.get(partition)) else {
            return internal_err!("{} has no rows in partition {partition}", self.name);
        };
        let most = context.session_config().batch_size().max(1);
        // Batches of one message may be longer than those that operators are made for.
        let cut = |batch: &RecordBatch| {
            let (batch, rows) = (batch.clone(), batch.num_rows());
            (0..rows).step_by(most).map(move |at| batch.slice(at, most.min(rows - at)))
        };
        let batches = places.iter().flat_map(|place| cut(&rows.batches[*place])).collect();
        let stream = MemoryStream::try_new(batches, Arc::clone(&self.schema), None)?;
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let counted = stream.inspect(move |batch| {
            if let Ok(batch) = batch {
                metrics.record_output(batch.num_rows());
            }
        });
        let counted = RecordBatchStreamAdapter::new(Arc::clone(&self.schema), counted);
        Ok(Box::pin(cooperative(counted)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        _input_stats: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema);
        if let Some(rows) = self.rows_in(args.partition()) {
            statistics.num_rows = Precision::Exact(rows);
            statistics.total_byte_size = match &self.rows {
                Some(all) if args.partition().is_none() => Precision::Inexact(all.bytes),
                _ => Precision::Absent,
            };
        }
        Ok(Arc::new(statistics))
    }
}
