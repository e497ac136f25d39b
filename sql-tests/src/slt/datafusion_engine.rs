//! Plain in-process DataFusion as an [`Engine`]: the oracle that a cluster is compared with.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;

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
        let frame = self.session.sql(sql).await?;
        let schema = Arc::new(frame.schema().as_arrow().clone());
        let batches = frame.collect().await?;
        // DDL answers with no columns; an INSERT with one column `count`.
        if schema.fields().is_empty() && batches.iter().all(|batch| batch.num_rows() == 0) {
            return Ok(Output::Done { rows_affected: 0 });
        }
        Ok(Output::Rows { schema, batches })
    }
}

impl From<DataFusionError> for EngineError {
    fn from(error: DataFusionError) -> Self {
        Self { message: error.strip_backtrace(), sqlstate: None, is_disconnect: false }
    }
}
