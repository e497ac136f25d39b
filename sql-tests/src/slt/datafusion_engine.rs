//! Plain in-process DataFusion as an [`Engine`]: the oracle that a cluster is compared with.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::UInt64Type;
use async_trait::async_trait;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::collect;
use datafusion::prelude::SessionContext;
use futures::FutureExt;

use super::engine::{Engine, EngineError, Output};

/// A DataFusion session, labelled `datafusion`.
///
/// It knows nothing of our dialect: `DISTKEY`, `COPY` and the like belong behind
/// `onlyif basalt`.
pub struct DataFusionEngine {
    session: SessionContext,
}

impl DataFusionEngine {
    /// An engine over a session, with whatever tables it has.
    pub fn new(session: SessionContext) -> Self {
        Self { session }
    }
}

#[async_trait]
impl Engine for DataFusionEngine {
    fn name(&self) -> &str {
        "datafusion"
    }

    async fn run(&mut self, sql: &str) -> Result<Output, EngineError> {
        // In its own process a panic would end the session; here it must not end the run.
        AssertUnwindSafe(self.answer(sql)).catch_unwind().await.unwrap_or_else(|panic| {
            Err(EngineError::new(format!("panicked: {}", message(&*panic))))
        })
    }
}

impl DataFusionEngine {
    async fn answer(&self, sql: &str) -> Result<Output, EngineError> {
        let frame = self.session.sql(sql).await?;
        let is_dml = matches!(frame.logical_plan(), LogicalPlan::Dml(_) | LogicalPlan::Copy(_));
        // The physical plan has the types of the rows; the logical one those of a UNION's first
        // branch.
        let task = Arc::new(frame.task_ctx());
        let plan = frame.create_physical_plan().await?;
        let schema = plan.schema();
        let batches = collect(plan, task).await?;
        // DDL answers with no columns; an INSERT with one column `count`.
        if schema.fields().is_empty() && batches.iter().all(|batch| batch.num_rows() == 0) {
            return Ok(Output::Done { rows_affected: 0 });
        }
        if is_dml {
            let counts = batches.iter().filter_map(|batch| {
                batch.columns().first()?.as_primitive_opt::<UInt64Type>().cloned()
            });
            let rows_affected = counts.flat_map(|column| column.values().to_vec()).sum();
            return Ok(Output::Done { rows_affected });
        }
        Ok(Output::Rows { schema, batches })
    }
}

/// What a panic says.
fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}

impl From<DataFusionError> for EngineError {
    fn from(error: DataFusionError) -> Self {
        Self { message: error.strip_backtrace(), sqlstate: None, is_disconnect: false }
    }
}
