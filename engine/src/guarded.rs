//! A fragment whose panics are errors.
//!
//! datafusion-distributed runs each partition of a fragment in a task of its own, and takes a task
//! that panicked for one that is done: the rows that it had not sent are missing, and nobody says so.
//! So the root of every fragment catches what panics below it, before that task sees it.
//!
//! The node takes the place of the root, and shows the root's children and metrics as its own: those of
//! EXPLAIN ANALYZE go by position.
//!
//! Not here: fragments that run in this process without messages (`channels`).

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::{FutureExt, StreamExt, stream};

use crate::error::{ErrorCode, SqlError};

/// The fragment with a root that catches panics.
pub(crate) fn guarded(root: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    Arc::new(GuardedExec { root })
}

/// The error of a panic.
pub(crate) fn panicked() -> DataFusionError {
    tracing::error!("a fragment panicked");
    SqlError::new(ErrorCode::Internal, "a worker panicked while it ran a part of the query").into()
}

#[derive(Debug)]
struct GuardedExec {
    root: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for GuardedExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root.fmt_as(format, f)
    }
}

impl ExecutionPlan for GuardedExec {
    fn name(&self) -> &str {
        self.root.name()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.root.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        self.root.maintains_input_order()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.root.children()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.root.apply_expressions(f)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(guarded(Arc::clone(&self.root).replace_children(children, options)?))
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
        let rows = self.root.execute(partition, context)?;
        let schema = rows.schema();
        let caught = stream::unfold(Some(rows), |rows| async move {
            let mut rows = rows?;
            // Unwind safe: what panicked is dropped, and not polled again.
            match AssertUnwindSafe(rows.next()).catch_unwind().await {
                Ok(item) => Some((item?, Some(rows))),
                Err(_) => Some((Err(panicked()), None)),
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, caught)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.root.metrics()
    }
}
