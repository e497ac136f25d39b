//! Chunks for this worker's scans: from its own disk when it holds a copy, else from a peer.
//!
//! Every byte is verified before it is handed on, wherever it came from. A local copy that cannot
//! be read or fails its checksum is not the end: the next holder is asked (RULES 2). Only when no
//! holder has a good copy is it an error, which names table, column, slice and segment.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use basalt_engine::channels::Channels;
use basalt_engine::chunks::{ChunkRead, ChunkSource, ReadCost};
use basalt_engine::error::{ErrorCode, SqlError};
use basalt_engine::protocol::chunks_client::ChunksClient;
use basalt_engine::protocol::{
    BytesPart, ExtentRequest, MESSAGE_BYTES_MAX, SegmentMetaRequest, WireId,
};
use basalt_engine::scan::{ScanSegment, ScanTable};
use basalt_storage::chunk_store::{ChunkStore, SegmentCopy};
use basalt_storage::digest::Digest;
use basalt_storage::error::StorageError;
use basalt_storage::ids::{ColumnVersion, SegmentId, WorkerId};
use basalt_storage::layout::SegmentKey;
use basalt_storage::manifest::Layout;
use basalt_storage::segment_meta::{ByteRange, ColumnMeta, SegmentMeta};
use basalt_storage::segment_reader::VerifiedBytes;
use bytes::{Bytes, BytesMut};
use datafusion::error::{DataFusionError, Result};
use futures::{StreamExt, TryStreamExt, stream};
use moka::sync::Cache;
use tonic::{Status, Streaming};

use crate::replicas::fetch::Source;
use crate::replicas::healer::Healer;
use crate::small_chunks::SmallChunks;

/// Segment metadata that is kept parsed, in bytes of memory: that of a full segment takes some 20 KiB for each
/// of its columns.
const META_BYTES_MAX: u64 = 256 << 20;

/// How long a peer may take to send what it is asked for, at most a row group of one column.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Chunks of one segment that peers are asked for at a time.
const READS_AT_ONCE: usize = 8;

/// Reads chunks on behalf of this worker's scans.
#[derive(Debug)]
pub struct WorkerChunks {
    store: Arc<ChunkStore>,
    channels: Channels,
    healer: Healer,
    metas: Cache<(SegmentId, Digest), Arc<SegmentMeta>>,
    small: SmallChunks,
}

impl WorkerChunks {
    /// A source over this worker's store and its peers. What it finds bad here is for `healer`.
    pub fn new(store: Arc<ChunkStore>, channels: Channels, healer: Healer) -> Self {
        let metas = Cache::builder()
            .max_capacity(META_BYTES_MAX)
            .weigher(|_, meta: &Arc<SegmentMeta>| {
                u32::try_from(meta.memory_bytes()).unwrap_or(u32::MAX)
            })
            .build();
        Self { store, channels, healer, metas, small: SmallChunks::default() }
    }

    fn key(segment: &ScanSegment) -> SegmentKey {
        SegmentKey { table: segment.table, slice: segment.slice, segment: segment.segment }
    }

    fn is_local(&self, segment: &ScanSegment) -> bool {
        segment.holders.contains(&self.store.identity().worker)
    }

    fn peers<'a>(&'a self, segment: &'a ScanSegment) -> impl Iterator<Item = WorkerId> + 'a {
        let me = self.store.identity().worker;
        segment.holders.iter().copied().filter(move |holder| *holder != me)
    }

    /// Has this worker's copy of a segment mended, by the metadata that was verified.
    fn mend(&self, table: &ScanTable, segment: &ScanSegment, meta: &SegmentMeta) {
        let copy = SegmentCopy {
            key: meta.key(),
            layout: segment.layout,
            txn: meta.txn(),
            meta_digest: segment.meta_digest,
        };
        let source = |worker| {
            let url = table.endpoints.get(&worker)?.clone();
            Some(Source { worker, url })
        };
        self.healer.mend(table.epoch, copy, self.peers(segment).filter_map(source).collect());
    }

    fn client(
        &self,
        table: &ScanTable,
        peer: WorkerId,
    ) -> Result<ChunksClient<PeerChannel>, Status> {
        let url = table
            .endpoints
            .get(&peer)
            .ok_or_else(|| Status::unavailable(format!("worker {peer} is not in the cluster")))?;
        let channel = self.channels.worker(peer, url);
        let channel = channel.map_err(|error| Status::internal(error.to_string()))?;
        Ok(ChunksClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX))
    }

    async fn local_meta(&self, segment: &ScanSegment) -> Result<Bytes, String> {
        let (store, key, layout) = (Arc::clone(&self.store), Self::key(segment), segment.layout);
        let read = tokio::task::spawn_blocking(move || store.read_segment_meta(key, layout));
        read.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    async fn peer_meta(
        &self,
        table: &ScanTable,
        segment: &ScanSegment,
        peer: WorkerId,
    ) -> Result<Bytes, Status> {
        let request = SegmentMetaRequest {
            epoch: table.epoch.0,
            table: segment.table.0,
            slice: u32::from(segment.slice.0),
            segment: segment.segment.to_wire(),
            packed: segment.layout == Layout::Packed,
        };
        let mut client = self.client(table, peer)?;
        answered(async {
            let parts = client.read_segment_meta(request).await?.into_inner();
            collect(parts, basalt_storage::segment_meta::SEGMENT_META_BYTES_MAX).await
        })
        .await
    }

    async fn peer_extent(
        &self,
        table: &ScanTable,
        segment: &ScanSegment,
        column: &ColumnMeta,
        range: ByteRange,
        peer: WorkerId,
    ) -> Result<Bytes, Status> {
        let request = ExtentRequest {
            epoch: table.epoch.0,
            table: segment.table.0,
            slice: u32::from(segment.slice.0),
            segment: segment.segment.to_wire(),
            packed: segment.layout == Layout::Packed,
            column: column.id().0,
            column_version: column.version().0,
            offset: range.offset,
            length: range.length,
        };
        let mut client = self.client(table, peer)?;
        answered(async {
            let parts = client.read_extent(request).await?.into_inner();
            collect(parts, range.length).await
        })
        .await
    }

    /// Parts of a chunk from one peer, verified, or why it has no good ones.
    async fn peer_parts(
        &self,
        table: &ScanTable,
        segment: &ScanSegment,
        column: &ColumnMeta,
        ranges: &[ByteRange],
        peer: WorkerId,
    ) -> Result<VerifiedBytes, String> {
        let mut parts = Vec::with_capacity(ranges.len());
        for range in ranges {
            let fetched = self.peer_extent(table, segment, column, *range, peer).await;
            let bytes = fetched.map_err(|status| status.message().to_owned())?;
            parts.push(column.verify(*range, bytes).map_err(|error| error.to_string())?);
        }
        joined(&parts).map_err(|error| error.to_string())
    }

    /// One chunk's row group from the first peer that has a good copy.
    async fn read_from_peers(
        &self,
        table: &ScanTable,
        segment: &ScanSegment,
        column: &ColumnMeta,
        read: &ChunkRead,
        tried: &mut Vec<String>,
    ) -> Result<(WorkerId, VerifiedBytes)> {
        let ranges = wanted(column, read).map_err(engine_error)?;
        for peer in self.peers(segment) {
            match self.peer_parts(table, segment, column, &ranges, peer).await {
                Ok(verified) => return Ok((peer, verified)),
                Err(error) => tried.push(format!("worker {peer}: {error}")),
            }
        }
        let what = format!("column \"{}\" ", column.name());
        Err(unavailable(table, segment, &what, tried))
    }
}

/// The channel to a peer, as [`Channels`] hands it out.
type PeerChannel = datafusion_distributed::grpc::BoxCloneSyncChannel;

#[async_trait]
impl ChunkSource for WorkerChunks {
    async fn segment_meta(
        &self,
        table: &Arc<ScanTable>,
        segment: &ScanSegment,
    ) -> Result<Arc<SegmentMeta>> {
        let key = (segment.segment, segment.meta_digest);
        if let Some(meta) = self.metas.get(&key) {
            // The digest is the same; another plan may still say other things about it.
            check_described(&meta, segment).map_err(engine_error)?;
            return Ok(meta);
        }
        let mut tried = Vec::new();
        let mut found = None;
        let mut is_bad_here = false;
        if self.is_local(segment) {
            match self.local_meta(segment).await.map(|bytes| check_meta(&bytes, segment)) {
                Ok(Ok(meta)) => found = Some(meta),
                Ok(Err(error)) => tried.push(format!("this worker: {error}")),
                Err(error) => tried.push(format!("this worker: {error}")),
            }
            is_bad_here = found.is_none();
        }
        if found.is_none() {
            for peer in self.peers(segment) {
                let fetched = self.peer_meta(table, segment, peer).await;
                match fetched.map(|bytes| check_meta(&bytes, segment)) {
                    Ok(Ok(meta)) => {
                        found = Some(meta);
                        break;
                    }
                    Ok(Err(error)) => tried.push(format!("worker {peer}: {error}")),
                    Err(status) => tried.push(format!("worker {peer}: {}", status.message())),
                }
            }
        }
        let meta = found.ok_or_else(|| unavailable(table, segment, "", &tried))?;
        if is_bad_here {
            tracing::warn!(segment = %segment.segment, tried = tried.join("; "),
                "a segment's metadata cannot be read here, a peer's was");
            self.mend(table, segment, &meta);
        }
        self.metas.insert(key, Arc::clone(&meta));
        Ok(meta)
    }

    async fn read(
        &self,
        table: &Arc<ScanTable>,
        segment: &ScanSegment,
        meta: &Arc<SegmentMeta>,
        reads: &[ChunkRead],
    ) -> Result<(Vec<VerifiedBytes>, ReadCost)> {
        if reads.is_empty() {
            return Ok((vec![], ReadCost::default()));
        }
        check_versions(table, segment, meta, reads)?;
        let mut found: Vec<_> = reads.iter().map(|read| self.small.get(segment, read)).collect();
        let missing = reads.iter().zip(&found).filter(|(_, found)| found.is_none());
        let missing: Vec<ChunkRead> = missing.map(|(read, _)| read.clone()).collect();
        let local_bytes = found.iter().flatten().map(|bytes| bytes.length()).sum();
        let mut cost = ReadCost { local_bytes, ..ReadCost::default() };
        let mut fetched = self.fetch(table, segment, meta, missing, &mut cost).await?.into_iter();
        for found in found.iter_mut().filter(|found| found.is_none()) {
            *found = fetched.next();
        }
        Ok((found.into_iter().flatten().collect(), cost))
    }
}

impl WorkerChunks {
    /// Chunks from this worker's disk, or from peers.
    async fn fetch(
        &self,
        table: &ScanTable,
        segment: &ScanSegment,
        meta: &Arc<SegmentMeta>,
        reads: Vec<ChunkRead>,
        cost: &mut ReadCost,
    ) -> Result<Vec<VerifiedBytes>> {
        if reads.is_empty() {
            return Ok(vec![]);
        }
        let local = match self.is_local(segment) {
            true => {
                let (store, meta) = (Arc::clone(&self.store), Arc::clone(meta));
                let (layout, reads) = (segment.layout, reads.clone());
                let read =
                    tokio::task::spawn_blocking(move || read_local(&store, &meta, layout, &reads));
                read.await.map_err(|error| DataFusionError::External(Box::new(error)))?
            }
            false => reads.iter().map(|_| Err(None)).collect(),
        };
        let me = self.store.identity().worker;
        let one = async |(read, local): (
            ChunkRead,
            Result<VerifiedBytes, Option<StorageError>>,
        )| {
            let (from, bytes) = match local {
                Ok(bytes) => (me, bytes),
                Err(error) => {
                    let mut tried: Vec<_> =
                        error.iter().map(|error| format!("this worker: {error}")).collect();
                    if let Some(error) = &error {
                        tracing::warn!(segment = %segment.segment, column = %read.column, %error,
                            "a local chunk cannot be read, asking peers");
                        self.mend(table, segment, meta);
                    }
                    let column = column_meta(meta, &read)?;
                    self.read_from_peers(table, segment, column, &read, &mut tried).await?
                }
            };
            let whole = wanted_whole(column_meta(meta, &read)?, read.row_group);
            let left_out = whole.length.saturating_sub(bytes.length());
            if left_out == 0 {
                self.small.keep(from, segment, &read, &bytes);
            }
            Ok::<_, DataFusionError>((from == me, bytes, left_out))
        };
        let reads = stream::iter(reads.into_iter().zip(local)).map(one);
        let verified: Vec<_> = reads.buffered(READS_AT_ONCE).try_collect().await?;
        for (is_local, bytes, left_out) in &verified {
            cost.pruned_bytes += left_out;
            match is_local {
                true => cost.local_bytes += bytes.length(),
                false => cost.peer_bytes += bytes.length(),
            }
        }
        Ok(verified.into_iter().map(|(_, bytes, _)| bytes).collect())
    }
}

/// Reads chunks from this worker's disk. `Err(None)`: not tried.
fn read_local(
    store: &ChunkStore,
    meta: &SegmentMeta,
    layout: Layout,
    reads: &[ChunkRead],
) -> Vec<Result<VerifiedBytes, Option<StorageError>>> {
    let one = |read: &ChunkRead| {
        let column = meta
            .column(read.column)
            .ok_or_else(|| StorageError::invalid_request("no such column in the segment"))?;
        let verified = |range: ByteRange| {
            column.verify(range, store.read_extent(&column.chunk(), layout, range)?)
        };
        let parts =
            wanted(column, read)?.into_iter().map(verified).collect::<Result<Vec<_>, _>>()?;
        joined(&parts)
    };
    reads.iter().map(|read| one(read).map_err(Some)).collect()
}

/// What to read of a column's file: the row group, or its wanted pages where it is known where they lie.
fn wanted(column: &ColumnMeta, read: &ChunkRead) -> Result<Vec<ByteRange>, StorageError> {
    let pages = read.pages.as_ref().and_then(|pages| column.page_ranges(read.row_group, pages));
    match (pages, column.extent(read.row_group)) {
        (Some(ranges), _) => Ok(ranges),
        (None, Some(extent)) => Ok(vec![column.blocks_for(extent)]),
        (None, None) => {
            Err(StorageError::invalid_request(format!("no row group {}", read.row_group)))
        }
    }
}

/// All of a row group; nothing when there is none.
fn wanted_whole(column: &ColumnMeta, row_group: usize) -> ByteRange {
    let extent = column.extent(row_group);
    extent.map_or(ByteRange { offset: 0, length: 0 }, |extent| column.blocks_for(extent))
}

fn joined(parts: &[VerifiedBytes]) -> Result<VerifiedBytes, StorageError> {
    let joined = VerifiedBytes::joined(parts);
    joined.ok_or_else(|| StorageError::invalid_request("a read of nothing"))
}

fn column_meta<'a>(meta: &'a SegmentMeta, read: &ChunkRead) -> Result<&'a ColumnMeta> {
    meta.column(read.column).ok_or_else(|| {
        DataFusionError::Internal(format!("a segment has no column {}", read.column))
    })
}

/// Metadata must be what the plan names: the digest says so, and the ids and rows are compared too.
fn check_meta(bytes: &[u8], segment: &ScanSegment) -> Result<Arc<SegmentMeta>, StorageError> {
    let meta = SegmentMeta::decode(bytes, segment.meta_digest)?;
    check_described(&meta, segment)?;
    Ok(meta)
}

/// Metadata describes the very segment that a plan names.
fn check_described(meta: &SegmentMeta, segment: &ScanSegment) -> Result<(), StorageError> {
    let key = SegmentKey { table: segment.table, slice: segment.slice, segment: segment.segment };
    if meta.key() != key || meta.rows() != segment.rows || meta.row_groups() != segment.row_groups {
        let path = key.meta_path(segment.layout);
        return Err(StorageError::corrupt(path, "it describes another segment than the catalog"));
    }
    Ok(())
}

/// The column versions that the snapshot reads are those that the metadata describes.
fn check_versions(
    table: &ScanTable,
    segment: &ScanSegment,
    meta: &SegmentMeta,
    reads: &[ChunkRead],
) -> Result<()> {
    for read in reads {
        let planned: Option<ColumnVersion> = table
            .columns
            .iter()
            .position(|column| *column == read.column)
            .and_then(|index| segment.column_versions.get(index).copied().flatten());
        if Some(column_meta(meta, read)?.version()) != planned {
            return Err(DataFusionError::Internal(format!(
                "column {} of segment {} is not at the version of the snapshot",
                read.column, segment.segment
            )));
        }
    }
    Ok(())
}

/// An answer of a peer, if it comes in time: another one may have the chunk too.
async fn answered<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(ANSWER_WITHIN, answer)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("it does not answer")))
}

/// All parts of an answer, at most `length_max` bytes.
async fn collect(mut parts: Streaming<BytesPart>, length_max: u64) -> Result<Bytes, Status> {
    let mut bytes = BytesMut::new();
    while let Some(part) = parts.message().await? {
        if (bytes.len() + part.data.len()) as u64 > length_max {
            return Err(Status::data_loss("a peer sent more bytes than were asked for"));
        }
        bytes.extend_from_slice(&part.data);
    }
    Ok(bytes.freeze())
}

fn engine_error(error: StorageError) -> DataFusionError {
    basalt_engine::error::storage_error(error)
}

fn unavailable(
    table: &ScanTable,
    segment: &ScanSegment,
    what: &str,
    tried: &[String],
) -> DataFusionError {
    let tried = match tried.is_empty() {
        true => "no worker holds it".to_owned(),
        false => tried.join("; "),
    };
    let message = format!(
        "{what}of table {}, slice {}, segment {} cannot be read: {tried}",
        table.name, segment.slice, segment.segment
    );
    SqlError::new(ErrorCode::Unavailable, message)
        .with_hint("start the worker that holds it again; queries that do not need it still work")
        .into()
}
