//! Rows into segments: the sink of every load, INSERT and CREATE TABLE AS.
//!
//! ```text
//!   any plan ─▶ SliceAppendExec ─▶ row counts
//!                   │ assigns each row to a slice
//!                   ▼
//!              SliceSink  ── local staging, or a stream to the slice's owner
//! ```
//!
//! One mechanism for all writes: whatever produces the rows, they meet in one writer per slice on
//! the slice's owner, so a load writes O(slices) segments. Nothing is visible, and nothing is
//! durable, before the coordinator has sealed the transaction on every worker and committed.

mod exec;
mod peers;
mod router;
mod table;
mod target;

use std::fmt;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use basalt_storage::ids::SliceId;
use basalt_storage::segment_writer::RowSource;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
pub use exec::SliceAppendExec;
pub use peers::{PeerAppender, PeerSink};
pub use router::SliceRouter;
pub use table::AppendTable;
pub use target::{AppendTarget, Copies};

/// Takes rows of one task's partition for one transaction.
#[async_trait]
pub trait SliceAppender: Send {
    /// Hands over rows of one slice, in storage form. Waits while the owner is busy.
    async fn append(&mut self, slice: SliceId, batch: RecordBatch) -> Result<()>;

    /// Waits until every owner has taken every row; returns how many rows that were.
    async fn finish(self: Box<Self>) -> Result<u64>;
}

/// Where a process's appends go.
pub trait SliceSink: Send + Sync + fmt::Debug {
    /// The slices that rows should prefer because this process owns them; may be empty.
    fn local_slices(&self, target: &AppendTarget) -> Vec<SliceId>;

    /// Opens the way to the slices of a target, for rows of one source.
    fn open(&self, target: &Arc<AppendTarget>, source: RowSource)
    -> Result<Box<dyn SliceAppender>>;
}

/// The session extension that carries the process's sink.
#[derive(Debug)]
pub struct SliceSinkExtension(pub Arc<dyn SliceSink>);

impl SliceSinkExtension {
    /// The sink of the process that runs a task.
    pub fn from_task(context: &TaskContext) -> Result<Arc<dyn SliceSink>> {
        context
            .session_config()
            .get_extension::<Self>()
            .map(|extension| Arc::clone(&extension.0))
            .ok_or_else(|| {
                DataFusionError::Internal("an append was started outside a worker".to_owned())
            })
    }
}
