//! A fragment whose panics are errors, and whose errors are understood where they arrive.
//!
//! datafusion-distributed runs each partition of a fragment in a task of its own, and takes a task
//! that panicked for one that is done: the rows that it had not sent are missing, and nobody says so.
//! So the root of every fragment catches what panics below it, before that task sees it.
//!
//! Errors cross as text. Those of connections to other workers get their code here, or the
//! coordinator would not know that the statement may be planned again.
//!
//! What runs below the root has the memory of its query (`query_memory`).
//!
//! The node takes the place of the root, and shows the root's children and metrics as its own: those of
//! EXPLAIN ANALYZE go by position. A root that sends rows to several tasks stays the root, and its input is
//! guarded: datafusion-distributed replaces it when it hears how many tasks there are, and would put another one
//! above a root that it does not know, so that every row would be hashed and copied twice.
//!
//! Not here: fragments that run in this process without messages (`channels`).

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions,
};
use datafusion_distributed::BroadcastExec;
use futures::{FutureExt, StreamExt, stream};

use crate::error::{ErrorCode, SqlError, crossing};
use crate::session::running_context;

/// The fragment with a root that catches panics, gives errors of connections their code, and runs what is
/// below it in `runtime`.
pub(crate) fn guarded(
    root: Arc<dyn ExecutionPlan>,
    runtime: Arc<RuntimeEnv>,
) -> Result<Arc<dyn ExecutionPlan>> {
    match only_input_of_sender(&root) {
        Some(input) => {
            let input = node_guarded(Arc::clone(input), runtime);
            let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
            root.replace_children(vec![input], options)
        }
        None => Ok(node_guarded(root, runtime)),
    }
}

fn node_guarded(root: Arc<dyn ExecutionPlan>, runtime: Arc<RuntimeEnv>) -> Arc<dyn ExecutionPlan> {
    Arc::new(GuardedExec { root, runtime, context: OnceLock::new() })
}

/// The input of a root that sends rows to several tasks.
fn only_input_of_sender(root: &Arc<dyn ExecutionPlan>) -> Option<&Arc<dyn ExecutionPlan>> {
    is_sender(root).then(|| root.children().into_iter().next()).flatten()
}

/// Whether datafusion-distributed takes the root of a fragment for the one that sends its rows.
pub(crate) fn is_sender(root: &Arc<dyn ExecutionPlan>) -> bool {
    root.is::<RepartitionExec>() || root.is::<BroadcastExec>()
}

/// The context of a fragment, in another runtime.
fn in_runtime(context: &TaskContext, runtime: &Arc<RuntimeEnv>) -> Arc<TaskContext> {
    let config = context.session_config().clone();
    running_context(context.session_id(), config, Arc::clone(runtime))
}

/// The error of a panic.
pub(crate) fn panicked() -> DataFusionError {
    tracing::error!("a fragment panicked");
    SqlError::new(ErrorCode::Internal, "a worker panicked while it ran a part of the query").into()
}

#[derive(Debug)]
struct GuardedExec {
    root: Arc<dyn ExecutionPlan>,
    runtime: Arc<RuntimeEnv>,
    /// That of the fragment with our runtime; made for the first partition, the same for all.
    context: OnceLock<Arc<TaskContext>>,
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
        let root = Arc::clone(&self.root).replace_children(children, options)?;
        Ok(node_guarded(root, Arc::clone(&self.runtime)))
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
        let context = self.context.get_or_init(|| in_runtime(&context, &self.runtime));
        let rows = self.root.execute(partition, Arc::clone(context)).map_err(crossing)?;
        let schema = rows.schema();
        let caught = stream::unfold(Some(rows), |rows| async move {
            let mut rows = rows?;
            // Unwind safe: what panicked is dropped, and not polled again.
            match AssertUnwindSafe(rows.next()).catch_unwind().await {
                Ok(item) => Some((item?.map_err(crossing), Some(rows))),
                Err(_) => Some((Err(panicked()), None)),
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, caught)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.root.metrics()
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;
    use datafusion::physical_expr::Partitioning;
    use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};

    use super::*;
    use crate::error::from_datafusion;

    /// A partition that ends in an error of the network.
    #[derive(Debug)]
    struct CutOff;

    impl PartitionStream for CutOff {
        fn schema(&self) -> &Arc<Schema> {
            static SCHEMA: std::sync::LazyLock<Arc<Schema>> =
                std::sync::LazyLock::new(|| Arc::new(Schema::empty()));
            &SCHEMA
        }

        fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
            let cut = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
            let status = tonic::Status::from_error(Box::new(cut));
            let error = DataFusionError::External(Box::new(status));
            let rows = stream::iter([Err(error)]);
            Box::pin(RecordBatchStreamAdapter::new(Arc::clone(self.schema()), rows))
        }
    }

    /// Otherwise each row of a shuffle is hashed and copied twice.
    #[test]
    fn what_sends_rows_stays_the_root() {
        let scan = || {
            let schema = Arc::new(Schema::empty());
            let partitions = vec![Arc::new(CutOff) as Arc<dyn PartitionStream>];
            Arc::new(
                StreamingTableExec::try_new(schema, partitions, None, None, false, None).unwrap(),
            )
        };
        let hash = RepartitionExec::try_new(scan(), Partitioning::Hash(vec![], 2)).unwrap();
        let senders: [Arc<dyn ExecutionPlan>; 2] =
            [Arc::new(hash), Arc::new(BroadcastExec::new(scan(), 3))];
        for sender in senders {
            let name = sender.name().to_owned();
            let root = guarded(sender, TaskContext::default().runtime_env()).unwrap();
            assert!(is_sender(&root), "{name}");
            assert!(root.children()[0].is::<GuardedExec>(), "{name}");
        }
        let root = guarded(scan(), TaskContext::default().runtime_env()).unwrap();
        assert!(root.is::<GuardedExec>());
    }

    #[tokio::test]
    async fn an_error_of_a_connection_crosses_with_its_code() {
        let schema = Arc::new(Schema::empty());
        let partitions = vec![Arc::new(CutOff) as Arc<dyn PartitionStream>];
        let scan = StreamingTableExec::try_new(schema, partitions, None, None, false, None);
        let context = Arc::new(TaskContext::default());
        let mut rows = guarded(Arc::new(scan.unwrap()), context.runtime_env())
            .unwrap()
            .execute(0, context)
            .unwrap();
        let error = rows.next().await.unwrap().unwrap_err();
        // As the coordinator gets it.
        let crossed = DataFusionError::Internal(error.to_string());
        assert_eq!(from_datafusion(crossed).code, ErrorCode::Unavailable);
    }
}
