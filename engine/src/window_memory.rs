//! Memory of window functions that need a whole partition.
//!
//! DataFusion's `WindowAggExec` keeps every row of its input and tells no memory pool: `sum(x)
//! OVER ()` over a table larger than memory ends the process. So its input is counted here, and
//! one that is too large ends the statement instead.
//!
//! Nodes are replaced one for one where a plan is about to run, after it was shipped: there is
//! nothing to encode, and metrics of EXPLAIN ANALYZE, which go by position, stay where they were.
//!
//! Not here: `BoundedWindowAggExec`, which keeps what its frames need.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::window::SlidingAggregateWindowExpr;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::windows::WindowAggExec;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::StreamExt;

use crate::arithmetic::state_bytes_of;

/// Copies of its input that a window holds at its largest: the batches, and all of them as one. What functions keep
/// beside is counted by rows.
const COPIES: usize = 2;

/// The plan with every window that keeps its input below the memory limit.
pub(crate) fn count_windows(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| match node.is::<WindowAggExec>() {
        true => {
            CountedWindowExec::over(&node).map(|counted| Transformed::yes(Arc::new(counted) as _))
        }
        false => Ok(Transformed::no(node)),
    })
    .data()
}

/// A window whose input is counted; its child is the window's own.
#[derive(Debug)]
struct CountedWindowExec {
    input: Arc<dyn ExecutionPlan>,
    /// The window, over the counting node, over `input`.
    window: Arc<dyn ExecutionPlan>,
}

impl CountedWindowExec {
    /// Takes the place of a window, whose only child is its input.
    fn over(window: &Arc<dyn ExecutionPlan>) -> Result<Self> {
        let input = window.children().first().map(|input| Arc::clone(input));
        let input = input.unwrap_or_else(|| Arc::clone(window));
        let row_bytes = state_bytes(window)?;
        let counted = Arc::new(CountedExec { input: Arc::clone(&input), row_bytes });
        Ok(Self { input, window: with_input(window, counted)? })
    }
}

/// Bytes that the functions of a window keep for each row of a frame that moves: aggregates of floats
/// keep states (`arithmetic::sliding`).
fn state_bytes(window: &Arc<dyn ExecutionPlan>) -> Result<usize> {
    let Some(window) = window.downcast_ref::<WindowAggExec>() else { return Ok(0) };
    let schema = window.input().schema();
    // Their sums are exact, and what leaves the frame is subtracted; of distinct ones each is kept.
    let is_integer =
        |of: &Arc<dyn PhysicalExpr>| of.data_type(&schema).is_ok_and(|of| of.is_integer());
    let mut bytes = 0;
    for function in window.window_expr() {
        if let Some(sliding) = function.as_any().downcast_ref::<SlidingAggregateWindowExpr>()
            && function.field()?.data_type().is_floating()
            && (sliding.get_aggregate_expr().is_distinct()
                || !function.expressions().iter().all(is_integer))
        {
            bytes += state_bytes_of(sliding.get_aggregate_expr().fun().name());
        }
    }
    Ok(bytes)
}

/// A window over another input.
fn with_input(
    window: &Arc<dyn ExecutionPlan>,
    input: Arc<dyn ExecutionPlan>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    Arc::clone(window).replace_children(vec![input], options)
}

impl DisplayAs for CountedWindowExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.window.fmt_as(format, f)
    }
}

impl ExecutionPlan for CountedWindowExec {
    fn name(&self) -> &str {
        self.window.name()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.window.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        self.window.maintains_input_order()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.window.apply_expressions(f)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.input));
        let window = with_input(&self.window, input)?;
        Ok(Arc::new(Self::over(&window)?))
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
        self.window.execute(partition, context)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.window.metrics()
    }
}

/// Hands batches on and counts them until its stream is dropped.
#[derive(Debug)]
struct CountedExec {
    input: Arc<dyn ExecutionPlan>,
    /// What the window's functions keep for a row, beside it.
    row_bytes: usize,
}

impl DisplayAs for CountedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CountedExec")
    }
}

impl ExecutionPlan for CountedExec {
    fn name(&self) -> &str {
        "CountedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.input));
        Ok(Arc::new(Self { input, row_bytes: self.row_bytes }))
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
        let reservation = MemoryConsumer::new(format!("WindowAggExec[{partition}]"))
            .register(context.memory_pool());
        let schema: SchemaRef = self.input.schema();
        let row_bytes = self.row_bytes;
        let counted = self.input.execute(partition, context)?.map(move |batch| {
            let batch = batch?;
            let states = batch.num_rows() * row_bytes;
            reservation.try_grow(batch.get_array_memory_size() * COPIES + states)?;
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, counted)))
    }
}
