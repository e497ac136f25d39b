//! Chunk bytes for peers, by id, in bounded parts.
//!
//! The bytes go out as they are on the disk: the reader verifies them against its own metadata, so
//! a bad disk here cannot become a wrong answer there. Paths are built from ids only.

use std::sync::Arc;

use basalt_engine::protocol::chunks_server::Chunks;
use basalt_engine::protocol::{
    BYTES_PART_MAX, BytesPart, ExtentRequest, MalformedMessage, SegmentMetaRequest, WireId,
};
use basalt_storage::chunk_store::ChunkStore;
use basalt_storage::error::StorageError;
use basalt_storage::ids::{ChunkId, ColumnId, ColumnVersion, SegmentId, SliceId, TableId};
use basalt_storage::layout::SegmentKey;
use basalt_storage::manifest::Layout;
use basalt_storage::segment_meta::ByteRange;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use tonic::{Request, Response, Status};

/// Serves this worker's chunks.
#[derive(Debug, Clone)]
pub struct ChunkService {
    store: Arc<ChunkStore>,
}

impl ChunkService {
    /// A service over a store.
    pub fn new(store: Arc<ChunkStore>) -> Self {
        Self { store }
    }

    async fn read(
        &self,
        read: impl FnOnce(&ChunkStore) -> Result<Bytes, StorageError> + Send + 'static,
    ) -> Result<Response<BoxStream<'static, Result<BytesPart, Status>>>, Status> {
        let store = Arc::clone(&self.store);
        let bytes = tokio::task::spawn_blocking(move || read(&store))
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| status(&error))?;
        let parts = (0..bytes.len()).step_by(BYTES_PART_MAX).map(move |start| {
            let end = bytes.len().min(start + BYTES_PART_MAX);
            Ok(BytesPart { data: bytes.slice(start..end).to_vec() })
        });
        Ok(Response::new(stream::iter(parts).boxed()))
    }
}

fn status(error: &StorageError) -> Status {
    match error {
        StorageError::Missing { .. } => Status::not_found(error.to_string()),
        StorageError::Corrupt { .. } => Status::data_loss(error.to_string()),
        StorageError::InvalidRequest { .. } => Status::invalid_argument(error.to_string()),
        _ => Status::unavailable(error.to_string()),
    }
}

fn layout(packed: bool) -> Layout {
    if packed { Layout::Packed } else { Layout::Wide }
}

fn slice(number: u32, message: &'static str) -> Result<SliceId, MalformedMessage> {
    u16::try_from(number).map(SliceId).map_err(|_| MalformedMessage::new(message, "slice"))
}

#[tonic::async_trait]
impl Chunks for ChunkService {
    type ReadSegmentMetaStream = BoxStream<'static, Result<BytesPart, Status>>;
    type ReadExtentStream = BoxStream<'static, Result<BytesPart, Status>>;

    async fn read_segment_meta(
        &self,
        request: Request<SegmentMetaRequest>,
    ) -> Result<Response<Self::ReadSegmentMetaStream>, Status> {
        let request = request.into_inner();
        let key = SegmentKey {
            table: TableId(request.table),
            slice: slice(request.slice, "SegmentMetaRequest")?,
            segment: SegmentId::from_wire(&request.segment, "SegmentMetaRequest", "segment")?,
        };
        self.read(move |store| store.read_segment_meta(key, layout(request.packed))).await
    }

    async fn read_extent(
        &self,
        request: Request<ExtentRequest>,
    ) -> Result<Response<Self::ReadExtentStream>, Status> {
        let request = request.into_inner();
        let chunk = ChunkId {
            table: TableId(request.table),
            slice: slice(request.slice, "ExtentRequest")?,
            segment: SegmentId::from_wire(&request.segment, "ExtentRequest", "segment")?,
            column: ColumnId(request.column),
            version: ColumnVersion(request.column_version),
        };
        let range = ByteRange { offset: request.offset, length: request.length };
        self.read(move |store| store.read_extent(&chunk, layout(request.packed), range)).await
    }
}
