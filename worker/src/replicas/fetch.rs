//! Copying a committed segment from peers, and mending a copy that is bad or incomplete.
//!
//! What is here already and verifies is kept: a worker that was away for a while fetches only what
//! it lacks, and a bad file is replaced alone.

use std::sync::Arc;
use std::time::Duration;

use basalt_engine::channels::Channels;
use basalt_engine::protocol::chunks_client::ChunksClient;
use basalt_engine::protocol::{
    BytesPart, ExtentRequest, MESSAGE_BYTES_MAX, SegmentMetaRequest, WireId,
};
use basalt_storage::chunk_store::{ChunkStore, IncomingSegment, ReadFrom, SegmentCopy};
use basalt_storage::error::StorageError;
use basalt_storage::ids::{ChunkId, Epoch, WorkerId};
use basalt_storage::manifest::Layout;
use basalt_storage::segment_meta::{SEGMENT_META_BYTES_MAX, SegmentMeta};
use bytes::{Bytes, BytesMut};
use datafusion_distributed::grpc::BoxCloneSyncChannel;
use tonic::{Status, Streaming};
use url::Url;

/// How long a source may take for each part before the next one is asked.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Bytes of a file that are asked for at a time.
const RANGE_BYTES: u64 = 64 << 20;

/// A worker that has a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The worker.
    pub worker: WorkerId,
    /// Where it listens.
    pub url: Url,
}

/// Copies segments from peers to this worker's disk.
#[derive(Debug, Clone)]
pub struct Fetcher {
    store: Arc<ChunkStore>,
    channels: Channels,
}

/// Why a segment could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// This worker's disk did not take it.
    #[error(transparent)]
    Local(#[from] StorageError),
    /// No source gave a good copy.
    #[error("segment {segment} cannot be copied: {tried}")]
    NoSource {
        /// The segment.
        segment: String,
        /// What each source said.
        tried: String,
    },
}

/// What went wrong with one source.
enum Failure {
    /// The source, or the way to it.
    Source(String),
    /// This worker's disk: another source would not help.
    Local(StorageError),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Source(status.message().to_owned())
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        match error {
            // What came is not what it should be.
            StorageError::Corrupt { .. } | StorageError::InvalidRequest { .. } => {
                Self::Source(error.to_string())
            }
            error => Self::Local(error),
        }
    }
}

impl Fetcher {
    /// A fetcher into a store.
    pub fn new(store: Arc<ChunkStore>, channels: Channels) -> Self {
        Self { store, channels }
    }

    /// Makes this worker a holder of a segment: what is missing or bad here comes from the first
    /// source that has it. Returns the bytes that were copied, none when all is good here.
    ///
    /// On `Ok` the copy here is complete, verified from the disk or on arrival, and fsynced.
    ///
    /// # Errors
    /// [`FetchError`]; what was good here before is here still.
    pub async fn fetch(
        &self,
        epoch: Epoch,
        copy: &SegmentCopy,
        sources: &[Source],
    ) -> Result<u64, FetchError> {
        let (store, of) = (Arc::clone(&self.store), copy.clone());
        let check = tokio::task::spawn_blocking(move || store.confirm_segment(&of));
        let check =
            check.await.map_err(|error| StorageError::invalid_request(error.to_string()))??;
        if check.is_good() {
            return Ok(0);
        }
        let mut tried = Vec::new();
        for part in check.bad.iter().filter(|_| !check.missing) {
            tracing::warn!(segment = %copy.key, error = %part.error(), "a copy here is bad");
            tried.push(format!("this worker: {}", part.error()));
        }
        for source in sources {
            match self.fetch_from(epoch, copy, source).await {
                Ok(bytes) => return Ok(bytes),
                Err(Failure::Local(error)) => return Err(error.into()),
                Err(Failure::Source(error)) => {
                    tried.push(format!("worker {}: {error}", source.worker));
                }
            }
        }
        if tried.is_empty() {
            tried.push("no worker has a copy".to_owned());
        }
        Err(FetchError::NoSource { segment: copy.key.to_string(), tried: tried.join("; ") })
    }

    async fn fetch_from(
        &self,
        epoch: Epoch,
        copy: &SegmentCopy,
        source: &Source,
    ) -> Result<u64, Failure> {
        let channel = self.channels.worker(source.worker, &source.url);
        let channel = channel.map_err(|error| Failure::Source(error.to_string()))?;
        let mut peer = Peer {
            client: ChunksClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX),
            epoch,
        };
        let meta_bytes = peer.metadata(copy).await?;
        let meta = SegmentMeta::decode(&meta_bytes, copy.meta_digest).map_err(Failure::from)?;
        let files = self.what_lacks(&meta).await?;
        let (store, of, wanted) = (Arc::clone(&self.store), copy.clone(), files.clone());
        let mut incoming = blocking(move || match wanted {
            Wanted::All => store.receive(of, meta_bytes),
            Wanted::Files(files) => store.receive_files(of, meta_bytes, &files),
        })
        .await?;
        let mut copied = 0;
        for (number, file) in meta.chunk_files().into_iter().enumerate() {
            if files.has(number) {
                let file = (number, file.chunk, file.meta.length);
                incoming = peer.file(copy.layout, file, incoming).await?;
                copied += file.2;
            }
        }
        blocking(move || incoming.finish()).await?;
        Ok(copied)
    }

    /// Which files are not here, or not as they should be.
    async fn what_lacks(&self, meta: &Arc<SegmentMeta>) -> Result<Wanted, Failure> {
        let (store, meta) = (Arc::clone(&self.store), Arc::clone(meta));
        let check = blocking(move || store.check_files(&meta, ReadFrom::Media)).await?;
        Ok(match check.missing {
            true => Wanted::All,
            false => Wanted::Files(check.bad_files()),
        })
    }
}

/// Files of a segment.
#[derive(Debug, Clone)]
enum Wanted {
    All,
    /// By position among [`SegmentMeta::chunk_files`].
    Files(Vec<usize>),
}

impl Wanted {
    fn has(&self, file: usize) -> bool {
        match self {
            Self::All => true,
            Self::Files(files) => files.contains(&file),
        }
    }
}

/// A connection to one source.
struct Peer {
    client: ChunksClient<BoxCloneSyncChannel>,
    epoch: Epoch,
}

impl Peer {
    async fn metadata(&mut self, copy: &SegmentCopy) -> Result<Bytes, Failure> {
        let request = SegmentMetaRequest {
            epoch: self.epoch.0,
            table: copy.key.table.0,
            slice: u32::from(copy.key.slice.0),
            segment: copy.key.segment.to_wire(),
            packed: copy.layout == Layout::Packed,
        };
        let call = self.client.read_segment_meta(request);
        let mut parts = in_time(call).await?.into_inner();
        let mut bytes = BytesMut::new();
        while let Some(part) = next(&mut parts).await? {
            if (bytes.len() + part.data.len()) as u64 > SEGMENT_META_BYTES_MAX {
                return Err(Failure::Source("it sent metadata longer than any".to_owned()));
            }
            bytes.extend_from_slice(&part.data);
        }
        Ok(bytes.freeze())
    }

    /// One file into the segment that is coming in.
    async fn file(
        &mut self,
        layout: Layout,
        (number, chunk, length): (usize, ChunkId, u64),
        mut incoming: IncomingSegment,
    ) -> Result<IncomingSegment, Failure> {
        let mut offset = 0;
        while offset < length {
            let range = (offset, RANGE_BYTES.min(length - offset));
            let mut parts = self.extent(layout, chunk, range).await?;
            while let Some(part) = next(&mut parts).await? {
                offset += part.data.len() as u64;
                incoming = blocking(move || {
                    incoming.write(number, &part.data)?;
                    Ok(incoming)
                })
                .await?;
            }
        }
        Ok(incoming)
    }

    async fn extent(
        &mut self,
        layout: Layout,
        chunk: ChunkId,
        (offset, length): (u64, u64),
    ) -> Result<Streaming<BytesPart>, Failure> {
        let request = ExtentRequest {
            epoch: self.epoch.0,
            table: chunk.table.0,
            slice: u32::from(chunk.slice.0),
            segment: chunk.segment.to_wire(),
            packed: layout == Layout::Packed,
            column: chunk.column.0,
            column_version: chunk.version.0,
            offset,
            length,
        };
        Ok(in_time(self.client.read_extent(request)).await?.into_inner())
    }
}

/// The next part of an answer.
async fn next(parts: &mut Streaming<BytesPart>) -> Result<Option<BytesPart>, Status> {
    in_time(parts.message()).await
}

/// What a source says, if it comes in time.
async fn in_time<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(ANSWER_WITHIN, answer)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("it does not go on")))
}

/// Works with the disk on a thread that may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Failure::from),
        Err(error) => Err(Failure::Source(format!("a copy ended: {error}"))),
    }
}
