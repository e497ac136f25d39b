//! Where a scan gets chunk bytes from: this process's disk, or a peer's.
//!
//! The engine does not know which: a [`ChunkSource`] is handed in through the session and decides
//! by the holders that the plan names. Bytes that come out are verified against the segment's
//! metadata, which is verified against the digest in the plan (RULES 2: a chunk that cannot be
//! had is an error, never fewer rows).

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use basalt_storage::ids::ColumnId;
use basalt_storage::segment_meta::SegmentMeta;
use basalt_storage::segment_reader::VerifiedBytes;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;

use crate::scan::{ScanSegment, ScanTable};

/// The bytes of one column of one row group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkRead {
    /// The column.
    pub column: ColumnId,
    /// The row group.
    pub row_group: usize,
    /// For each of its pages, whether it is wanted; `None` when all are. A source may read more.
    pub pages: Option<Arc<[bool]>>,
}

/// What a source did to answer, for the scan's metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadCost {
    /// Bytes from this process's disk, or that it had in memory.
    pub local_bytes: u64,
    /// Bytes fetched from a peer.
    pub peer_bytes: u64,
    /// Bytes of decoded columns that needed no reading.
    pub cached_bytes: u64,
    /// Bytes of what was asked for in part that were not read.
    pub pruned_bytes: u64,
}

/// Reads chunks that a plan names.
#[async_trait]
pub trait ChunkSource: Send + Sync + fmt::Debug {
    /// The metadata of a segment, checked against the digest in the plan.
    async fn segment_meta(
        &self,
        table: &Arc<ScanTable>,
        segment: &ScanSegment,
    ) -> Result<Arc<SegmentMeta>>;

    /// The bytes of some chunks of one segment, in the order asked for, each checked against the
    /// segment's block checksums.
    async fn read(
        &self,
        table: &Arc<ScanTable>,
        segment: &ScanSegment,
        meta: &Arc<SegmentMeta>,
        reads: &[ChunkRead],
    ) -> Result<(Vec<VerifiedBytes>, ReadCost)>;
}

/// The session extension that carries the process's chunk source.
#[derive(Debug)]
pub struct ChunkSourceExtension(pub Arc<dyn ChunkSource>);

impl ChunkSourceExtension {
    /// The chunk source of the process that runs a task.
    pub fn from_task(context: &TaskContext) -> Result<Arc<dyn ChunkSource>> {
        context
            .session_config()
            .get_extension::<Self>()
            .map(|extension| Arc::clone(&extension.0))
            .ok_or_else(|| {
                DataFusionError::Internal("a segment scan was started outside a worker".to_owned())
            })
    }
}
