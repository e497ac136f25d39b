//! Build sides of joins that begin when they are waited for.
//!
//! DataFusion's `CoalescePartitionsExec` starts its partitions in tasks of their own as soon as the plan is
//! executed. Below the build side of a join that means: before the joins above have read theirs, and found out
//! which keys matter here. What they tell then (a dynamic filter) comes too late for this side, which is read
//! whole. TPC-H's q21 reads all suppliers so, where one nation's are wanted.
//!
//! A hash join reads its build side before it asks its probe side for anything, and joins are nested in their
//! probe sides: so the side that is waited for is the only one that need run, on all processors. The node
//! executes what it takes the place of when it is polled first.
//!
//! A side that is never waited for, because a side above is empty, is never executed. So sides with rows of other
//! workers begin as before: workers wait for somebody to execute what they were sent, and EXPLAIN ANALYZE for
//! what they have to say of it.
//!
//! Not here: sides that are partitioned, whose repartitionings wait to be polled by themselves.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions,
};
use datafusion_distributed::NetworkBoundaryExt;
use futures::{TryStreamExt, stream};

/// The plan with build sides that begin when they are waited for.
pub(crate) fn late_builds(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        let Some(join) = node.downcast_ref::<HashJoinExec>() else {
            return Ok(Transformed::no(node));
        };
        let build = join.left();
        let is_early = build.is::<CoalescePartitionsExec>()
            && *join.partition_mode() == PartitionMode::CollectLeft
            && !build.exists(|node| Ok(node.is_network_boundary()))?;
        if !is_early {
            return Ok(Transformed::no(node));
        }
        let late = Arc::new(LateExec { build: Arc::clone(build) });
        let children = vec![late as _, Arc::clone(join.right())];
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep);
        Arc::clone(&node).replace_children(children, options).map(Transformed::yes)
    })
    .data()
}

/// Executes a node when it is polled first. It shows the node's children and metrics as its own: those of
/// EXPLAIN ANALYZE go by position.
#[derive(Debug)]
struct LateExec {
    build: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for LateExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.build.fmt_as(format, f)
    }
}

impl ExecutionPlan for LateExec {
    fn name(&self) -> &str {
        self.build.name()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.build.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        self.build.maintains_input_order()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.build.children()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.build.apply_expressions(f)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let build = Arc::clone(&self.build).replace_children(children, options)?;
        Ok(Arc::new(Self { build }))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(
            children,
            ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute),
        )
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let build = Arc::clone(&self.build);
        let rows = stream::once(async move { build.execute(partition, context) }).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.build.metrics()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
    use datafusion::common::{JoinType, NullEquality};
    use datafusion::physical_expr::expressions::col;
    use datafusion::physical_plan::collect;
    use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};

    use super::*;

    /// Rows of one partition, which counts how often it was begun.
    #[derive(Debug)]
    struct Counted {
        schema: SchemaRef,
        begun: Arc<AtomicUsize>,
    }

    impl PartitionStream for Counted {
        fn schema(&self) -> &SchemaRef {
            &self.schema
        }

        fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
            self.begun.fetch_add(1, Ordering::SeqCst);
            let keys = Arc::new(Int64Array::from(vec![1, 2, 3]));
            let rows = RecordBatch::try_new(Arc::clone(&self.schema), vec![keys]).unwrap();
            let rows = stream::iter([Ok(rows)]);
            Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
        }
    }

    fn scan(partitions: usize, begun: &Arc<AtomicUsize>) -> Arc<dyn ExecutionPlan> {
        let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, false)]));
        let partition = || {
            let counted = Counted { schema: Arc::clone(&schema), begun: Arc::clone(begun) };
            Arc::new(counted) as Arc<dyn PartitionStream>
        };
        let partitions = (0..partitions).map(|_| partition()).collect();
        let scan = StreamingTableExec::try_new(schema, partitions, None, None, false, None);
        Arc::new(scan.unwrap())
    }

    fn join(
        build: Arc<dyn ExecutionPlan>,
        probe: Arc<dyn ExecutionPlan>,
    ) -> Arc<dyn ExecutionPlan> {
        let build: Arc<dyn ExecutionPlan> = Arc::new(CoalescePartitionsExec::new(build));
        let on = (col("k", &build.schema()).unwrap(), col("k", &probe.schema()).unwrap());
        let join = HashJoinExec::try_new(
            build,
            probe,
            vec![on],
            None,
            &JoinType::Inner,
            None,
            PartitionMode::CollectLeft,
            NullEquality::NullEqualsNothing,
            false,
        );
        Arc::new(join.unwrap())
    }

    #[tokio::test]
    async fn a_build_side_begins_when_it_is_waited_for_and_gives_the_same_rows() {
        let begun = Arc::new(AtomicUsize::new(0));
        let plan = late_builds(join(scan(3, &begun), scan(1, &Arc::default()))).unwrap();
        let context = Arc::new(TaskContext::default());
        let rows = plan.execute(0, Arc::clone(&context)).unwrap();
        // Tasks that were spawned have had their turn.
        tokio::task::yield_now().await;
        assert_eq!(begun.load(Ordering::SeqCst), 0);
        let rows: Vec<RecordBatch> = rows.try_collect().await.unwrap();
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 9);
        assert_eq!(begun.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn plans_look_as_before() {
        let begun = Arc::default();
        let plan = join(scan(2, &begun), join(scan(2, &begun), scan(1, &begun)));
        let shown = |plan: &Arc<dyn ExecutionPlan>| {
            datafusion::physical_plan::displayable(plan.as_ref()).indent(true).to_string()
        };
        let late = late_builds(Arc::clone(&plan)).unwrap();
        assert_eq!(shown(&late), shown(&plan));
        assert!(late.children()[0].is::<LateExec>());
        let rows = collect(late, Arc::default()).await.unwrap();
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 12);
    }
}
