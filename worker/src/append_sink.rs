//! Where appends of this worker's fragments go: its own staging, or a stream to the slice's owner.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use basalt_engine::channels::Channels;
use basalt_engine::write::{AppendTarget, PeerAppender, SliceAppender, SliceSink};
use basalt_storage::ids::{SliceId, WorkerId};
use basalt_storage::segment_writer::RowSource;
use datafusion::error::Result;

use crate::staging::Staging;

/// The sink of one worker.
#[derive(Debug)]
pub struct AppendSink {
    worker: WorkerId,
    staging: Arc<Staging>,
    channels: Channels,
}

impl AppendSink {
    /// A sink for the fragments of `worker`.
    pub fn new(worker: WorkerId, staging: Arc<Staging>, channels: Channels) -> Self {
        Self { worker, staging, channels }
    }
}

impl SliceSink for AppendSink {
    fn local_slices(&self, target: &AppendTarget) -> Vec<SliceId> {
        target.slices_of(self.worker)
    }

    fn open(
        &self,
        target: &Arc<AppendTarget>,
        source: RowSource,
    ) -> Result<Box<dyn SliceAppender>> {
        Ok(Box::new(Appender {
            worker: self.worker,
            target: Arc::clone(target),
            source,
            staging: Arc::clone(&self.staging),
            local_rows: 0,
            peers: Box::new(PeerAppender::new(Arc::clone(target), source, self.channels.clone())),
        }))
    }
}

struct Appender {
    worker: WorkerId,
    target: Arc<AppendTarget>,
    staging: Arc<Staging>,
    source: RowSource,
    local_rows: u64,
    peers: Box<PeerAppender>,
}

#[async_trait]
impl SliceAppender for Appender {
    async fn append(&mut self, slice: SliceId, batch: RecordBatch) -> Result<()> {
        if self.target.owner(slice)? != self.worker {
            return self.peers.append(slice, batch).await;
        }
        self.local_rows += batch.num_rows() as u64;
        self.staging.append(&self.target, self.source, slice, batch).await
    }

    async fn finish(self: Box<Self>) -> Result<u64> {
        Ok(self.local_rows + self.peers.finish().await?)
    }
}
