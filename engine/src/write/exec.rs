//! The plan node that appends its input to a table's slices.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use basalt_storage::segment_writer::RowSource;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Statistics, internal_err};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    Distribution, EquivalenceProperties, LexOrdering, OrderingRequirements, Partitioning,
    PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties,
    InputDistributionRequirements, PlanProperties, StatisticsArgs,
};
use datafusion_distributed::DistributedTaskContext;
use futures::{StreamExt, stream};

use super::{AppendTarget, SliceRouter, SliceSinkExtension};
use crate::files::checked_cast_column;
use crate::protocol::SliceAppend;
use crate::row_checks::check_rows;

/// Appends every row of its input, whose columns are the table's in order; each partition yields
/// one row: how many rows it appended.
#[derive(Debug)]
pub struct SliceAppendExec {
    input: Arc<dyn ExecutionPlan>,
    target: Arc<AppendTarget>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl SliceAppendExec {
    /// An append of `input` to `target`.
    pub fn new(input: Arc<dyn ExecutionPlan>, target: Arc<AppendTarget>) -> Self {
        let schema: SchemaRef =
            Arc::new(Schema::new(vec![Field::new("count", DataType::UInt64, false)]));
        let partitions = input.output_partitioning().partition_count();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self {
            input,
            target,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// Where the rows go.
    pub fn target(&self) -> &Arc<AppendTarget> {
        &self.target
    }

    /// The order that segments are sorted in.
    fn key_order(&self) -> Option<LexOrdering> {
        let options = SortOptions { descending: false, nulls_first: false };
        let columns = self.target.sort_key.iter().filter_map(|key| {
            let columns = &self.target.schema.columns;
            let index = columns.iter().position(|column| column.id == *key)?;
            let column = Column::new(self.input.schema().field(index).name(), index);
            Some(PhysicalSortExpr::new(Arc::new(column), options))
        });
        LexOrdering::new(columns)
    }

    /// Whose rows a partition's are: its own, or those of its task where the rows of one stream are dealt to several
    /// partitions, which together have them in order.
    fn source(&self, task: usize, partition: usize) -> RowSource {
        let partition = if are_dealt(&self.input) { 0 } else { partition };
        RowSource((task as u64) << 32 | partition as u64)
    }

    pub(crate) fn to_wire(&self) -> Result<SliceAppend> {
        Ok(SliceAppend { target: Some(self.target.to_wire()?) })
    }

    pub(crate) fn from_wire(message: SliceAppend, input: Arc<dyn ExecutionPlan>) -> Result<Self> {
        let target = message.target.unwrap_or_default();
        Ok(Self::new(input, Arc::new(AppendTarget::from_wire(&target)?)))
    }
}

impl DisplayAs for SliceAppendExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AppendTarget { table_name, distribution, .. } = self.target.as_ref();
        write!(f, "SliceAppendExec: table={table_name}, distribution={distribution:?}")
    }
}

impl ExecutionPlan for SliceAppendExec {
    fn name(&self) -> &'static str {
        "SliceAppendExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![match self.target.merged_slice {
            Some(_) => Distribution::SinglePartition,
            None => Distribution::UnspecifiedDistribution,
        }])
    }

    /// Segments that are merged are cut where the memory for their rows ends: in order, each has its
    /// part of the key's range.
    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![self.target.merged_slice.and_then(|_| self.key_order()).map(Into::into)]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(Self::new(input, Arc::clone(&self.target)))),
            _ => internal_err!("an append has exactly one input"),
        }
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let sink = SliceSinkExtension::from_task(&context)?;
        let task = DistributedTaskContext::from_ctx(&context).task_index;
        let target = Arc::clone(&self.target);
        let preferred = match target.local_slices {
            true => sink.local_slices(&target),
            false => vec![],
        };
        let seed = seed(&target, task, partition);
        let mut router = SliceRouter::new(&target, preferred, seed)?;
        let source = self.source(task, partition);
        let mut input = self.input.execute(partition, context)?;
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let schema = self.schema();
        let count_schema = Arc::clone(&schema);
        let count = async move {
            let storage_schema = target.schema.to_arrow();
            let mut appender = sink.open(&target, source)?;
            let mut rows = 0u64;
            while let Some(batch) = input.next().await {
                let timer = metrics.elapsed_compute().timer();
                let batch = to_storage(batch?, &target, &storage_schema)?;
                let parts = router.route(batch)?;
                timer.done();
                for (slice, part) in parts {
                    rows += part.num_rows() as u64;
                    appender.append(slice, part).await?;
                }
            }
            let taken = appender.finish().await?;
            if taken != rows {
                return internal_err!("slice owners took {taken} of {rows} rows");
            }
            let count: ArrayRef = Arc::new(UInt64Array::from(vec![rows]));
            Ok(RecordBatch::try_new(count_schema, vec![count])?)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream::once(count))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        _: &[Arc<Statistics>],
        _: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        Ok(Arc::new(Statistics::new_unknown(&self.schema())))
    }
}

/// Where a writer's round-robin starts: different for each writer of a transaction, and for each
/// transaction.
fn seed(target: &AppendTarget, task: usize, partition: usize) -> u64 {
    let txn = target.txn.0.as_u128() as u64;
    txn.wrapping_add((task as u64).wrapping_mul(31)).wrapping_add(partition as u64)
}

/// Whether partitions of a plan have been given batches by turns. Rows of a join come in the order of its last input.
fn are_dealt(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let repartition = plan.downcast_ref::<RepartitionExec>();
    repartition.is_some_and(|node| matches!(node.partitioning(), Partitioning::RoundRobinBatch(_)))
        || plan.children().into_iter().next_back().is_some_and(are_dealt)
}

/// A batch in the table's storage form; a value that would be lost is an error.
fn to_storage(
    batch: RecordBatch,
    target: &AppendTarget,
    storage_schema: &SchemaRef,
) -> Result<RecordBatch> {
    if batch.num_columns() != target.schema.columns.len() {
        return internal_err!("an append has {} columns", batch.num_columns());
    }
    let columns = batch
        .columns()
        .iter()
        .zip(&target.schema.columns)
        .map(|(array, column)| {
            let array = checked_cast_column(&column.name, array, &column.data_type)?;
            check_rows(column, &array, &target.table_name, &batch)?;
            Ok(array)
        })
        .collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(storage_schema), columns, &options)?)
}

#[cfg(test)]
mod tests {
    use datafusion::physical_expr::expressions::lit;
    use datafusion::physical_plan::empty::EmptyExec;
    use datafusion::physical_plan::filter::FilterExec;
    use datafusion::physical_plan::joins::CrossJoinExec;

    use super::*;

    fn parts() -> Arc<dyn ExecutionPlan> {
        Arc::new(EmptyExec::new(Arc::new(Schema::empty())).with_partitions(4))
    }

    fn by_turns() -> Arc<dyn ExecutionPlan> {
        let by_turns = Partitioning::RoundRobinBatch(4);
        Arc::new(RepartitionExec::try_new(parts(), by_turns).unwrap())
    }

    fn filtered(input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        Arc::new(FilterExec::try_new(lit(true), input).unwrap())
    }

    #[test]
    fn rows_that_were_dealt_by_turns_are_told_from_those_of_parts() {
        assert!(are_dealt(&by_turns()) && are_dealt(&filtered(by_turns())));
        assert!(!are_dealt(&parts()) && !are_dealt(&filtered(parts())));
    }

    #[test]
    fn what_a_join_builds_does_not_deal_its_rows() {
        let join =
            |build, probe| -> Arc<dyn ExecutionPlan> { Arc::new(CrossJoinExec::new(build, probe)) };
        assert!(!are_dealt(&join(by_turns(), parts())));
        assert!(are_dealt(&join(parts(), by_turns())));
    }
}
