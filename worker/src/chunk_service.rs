//! Chunk bytes for peers, by id, in bounded parts.
//!
//! The bytes go out as they are on the disk: the reader verifies them against its own metadata, so
//! a bad disk here cannot become a wrong answer there. Paths are built from ids only. An extent is
//! read while it is sent, so a peer that asks for gigabytes and reads nothing holds one part.
//!
//! Any epoch may read: bytes never change, and a statement that runs while slices move goes on. What
//! writes, removes or begins is refused by its epoch elsewhere.

use std::sync::Arc;

use basalt_engine::protocol::chunks_server::Chunks;
use basalt_engine::protocol::{
    BYTES_PART_MAX, BytesPart, ExtentRequest, MalformedMessage, SegmentMetaRequest, WireId,
};
use basalt_storage::chunk_store::{ChunkStore, EXTENT_BYTES_MAX};
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

type Parts = BoxStream<'static, Result<BytesPart, Status>>;

/// What one extent still has to send.
struct Extent {
    store: Arc<ChunkStore>,
    chunk: ChunkId,
    layout: Layout,
    rest: ByteRange,
}

impl ChunkService {
    /// A service over a store.
    pub fn new(store: Arc<ChunkStore>) -> Self {
        Self { store }
    }
}

impl Extent {
    /// Reads the next part; `None` behind the last.
    async fn next(mut self) -> Result<Option<(BytesPart, Self)>, Status> {
        if self.rest.length == 0 {
            return Ok(None);
        }
        let part = ByteRange {
            offset: self.rest.offset,
            length: self.rest.length.min(BYTES_PART_MAX as u64),
        };
        let (chunk, layout) = (self.chunk, self.layout);
        let bytes = blocking(&self.store, move |store| store.read_extent(&chunk, layout, part));
        let data = bytes.await?.to_vec();
        // No overflow: the part was read, so it ends where the file has bytes.
        self.rest.offset += part.length;
        self.rest.length -= part.length;
        Ok(Some((BytesPart { data }, self)))
    }
}

/// Reads from the disk on a thread that may wait.
async fn blocking(
    store: &Arc<ChunkStore>,
    read: impl FnOnce(&ChunkStore) -> Result<Bytes, StorageError> + Send + 'static,
) -> Result<Bytes, Status> {
    let store = Arc::clone(store);
    tokio::task::spawn_blocking(move || read(&store))
        .await
        .map_err(|error| Status::internal(error.to_string()))?
        .map_err(|error| status(&error))
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
    type ReadSegmentMetaStream = Parts;
    type ReadExtentStream = Parts;

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
        let read = move |store: &ChunkStore| store.read_segment_meta(key, layout(request.packed));
        let bytes = blocking(&self.store, read).await?;
        let parts = (0..bytes.len()).step_by(BYTES_PART_MAX).map(move |start| {
            let end = bytes.len().min(start + BYTES_PART_MAX);
            Ok(BytesPart { data: bytes.slice(start..end).to_vec() })
        });
        Ok(Response::new(stream::iter(parts).boxed()))
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
        let rest = ByteRange { offset: request.offset, length: request.length };
        if rest.length > EXTENT_BYTES_MAX {
            let message = format!("an extent of {} bytes is too long", rest.length);
            return Err(Status::invalid_argument(message));
        }
        let layout = layout(request.packed);
        let extent = Extent { store: Arc::clone(&self.store), chunk, layout, rest };
        // The first part before the answer: what is missing is a status, and not a broken stream.
        let Some((first, extent)) = extent.next().await? else {
            return Ok(Response::new(stream::empty().boxed()));
        };
        let rest = stream::try_unfold(extent, Extent::next);
        Ok(Response::new(stream::iter([Ok(first)]).chain(rest).boxed()))
    }
}
