//! What fragments get of a worker: handles that end with it.
//!
//! A fragment's session may outlive its fragment: datafusion-distributed keeps plans for whoever may
//! still ask for them, in a cache that frees what was removed when it comes to it. Through these
//! handles nothing of that holds the data directory once the worker has stopped.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use basalt_engine::chunks::{ChunkRead, ChunkSource, ReadCost};
use basalt_engine::error::{ErrorCode, SqlError};
use basalt_engine::scan::{ScanSegment, ScanTable};
use basalt_engine::write::{AppendTarget, SliceAppender, SliceSink};
use basalt_storage::ids::SliceId;
use basalt_storage::segment_meta::SegmentMeta;
use basalt_storage::segment_reader::VerifiedBytes;
use basalt_storage::segment_writer::RowSource;
use datafusion::error::Result;

use crate::append_sink::AppendSink;
use crate::chunk_source::WorkerChunks;

/// What a worker lends to fragments; nothing any more once this is dropped.
#[derive(Debug)]
pub(crate) struct Lender {
    chunks: Arc<WorkerChunks>,
    sink: Arc<AppendSink>,
}

impl Lender {
    pub(crate) fn new(chunks: WorkerChunks, sink: AppendSink) -> Self {
        Self { chunks: Arc::new(chunks), sink: Arc::new(sink) }
    }

    pub(crate) fn chunks(&self) -> Arc<dyn ChunkSource> {
        Arc::new(LentChunks(Arc::downgrade(&self.chunks)))
    }

    pub(crate) fn sink(&self) -> Arc<dyn SliceSink> {
        Arc::new(LentSink(Arc::downgrade(&self.sink)))
    }
}

fn lent<T>(of: &Weak<T>) -> Result<Arc<T>> {
    let stopped = || {
        SqlError::new(ErrorCode::Unavailable, "a worker cannot be reached: it stops")
            .with_hint("send the statement again")
    };
    of.upgrade().ok_or_else(|| stopped().into())
}

#[derive(Debug)]
struct LentChunks(Weak<WorkerChunks>);

#[async_trait]
impl ChunkSource for LentChunks {
    async fn segment_meta(
        &self,
        table: &Arc<ScanTable>,
        segment: &ScanSegment,
    ) -> Result<Arc<SegmentMeta>> {
        lent(&self.0)?.segment_meta(table, segment).await
    }

    async fn read(
        &self,
        table: &Arc<ScanTable>,
        segment: &ScanSegment,
        meta: &Arc<SegmentMeta>,
        reads: &[ChunkRead],
    ) -> Result<(Vec<VerifiedBytes>, ReadCost)> {
        lent(&self.0)?.read(table, segment, meta, reads).await
    }
}

#[derive(Debug)]
struct LentSink(Weak<AppendSink>);

impl SliceSink for LentSink {
    fn local_slices(&self, target: &AppendTarget) -> Vec<SliceId> {
        self.0.upgrade().map(|sink| sink.local_slices(target)).unwrap_or_default()
    }

    fn open(
        &self,
        target: &Arc<AppendTarget>,
        source: RowSource,
    ) -> Result<Box<dyn SliceAppender>> {
        lent(&self.0)?.open(target, source)
    }
}
