//! What workers have left for a rebuilt catalog: asked from a worker that runs, or read from the
//! data folder of one that does not.

use std::path::Path;
use std::sync::Arc;

use basalt_engine::channels::Channels;
use basalt_engine::commit_protocol::RecordsPosition;
use basalt_engine::log_protocol::MemberPosition;
use basalt_engine::protocol::chunks_client::ChunksClient;
use basalt_engine::protocol::commit_records_client::CommitRecordsClient;
use basalt_engine::protocol::replicas_client::ReplicasClient;
use basalt_engine::protocol::{
    BYTES_PART_MAX, CommitPositionRequest, CommitReadRequest, InventoryRequest, LogPositionRequest,
    MalformedMessage, SegmentMetaRequest, SegmentRef, WireId,
};
use basalt_storage::chunk_store::{ChunkStore, Identity};
use basalt_storage::command_log::{DirDisk, LOG_DIR, LogCopy, Position};
use basalt_storage::commit_records::{COMMITS_DIR, CommitRecords, Contents};
use basalt_storage::digest::Digest;
use basalt_storage::ids::{Epoch, LogEpoch, SegmentId, SliceId, TableId};
use basalt_storage::layout::SegmentKey;
use basalt_storage::manifest::Layout;
use basalt_storage::segment_meta::{SEGMENT_META_BYTES_MAX, SegmentMeta};
use basalt_storage::vfs::{RealVfs, Vfs};
use bytes::{Bytes, BytesMut};
use tonic::{Code, Status};
use url::Url;

use crate::catalog::commit_record::KnownCatalog;
use crate::catalog::rebuild::salvage::{FoundSegment, Orphan, orphans, salvage};
use crate::catalog::rebuild::{OnDisk, Rebuilt, WorkerRecords};
use crate::log_links::{in_time, log_client};

/// Bytes of records that are read from a folder at once.
const READ_BYTES_MAX: usize = 16 << 20;

/// Where what a worker has left is read from.
#[derive(Debug)]
enum Place {
    /// Its data folder. The store holds the folder's lock: no worker can start there meanwhile.
    Folder(ChunkStore),
    /// The worker itself.
    Running { channels: Channels, url: Url },
}

/// A worker's leftovers.
#[derive(Debug)]
pub struct CommitSource {
    /// What it knows.
    pub records: WorkerRecords,
    place: Place,
}

impl CommitSource {
    /// The data folder of a worker that does not run. Blocks.
    ///
    /// # Errors
    /// A folder that is none of a worker, or that a worker has open, or cannot be read.
    pub fn open(folder: &Path) -> Result<Self, String> {
        let failed = |problem: &dyn std::fmt::Display| {
            format!("data folder {}: {problem}", folder.display())
        };
        let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
        let identity = ChunkStore::read_identity(folder, vfs.as_ref());
        let identity = identity.map_err(|error| failed(&error))?;
        let identity = identity.ok_or_else(|| failed(&"it is no worker's"))?;
        let store = ChunkStore::open(folder, identity, vfs).map_err(|error| failed(&error))?;
        // Not as a restore opens it: a copy whose files are gone is no reason to give up here.
        let log = DirDisk::new(&folder.join(LOG_DIR)).map_err(|error| failed(&error))?;
        let log = LogCopy::open(Arc::new(log)).map_err(|error| failed(&error))?;
        let disk = DirDisk::new(&folder.join(COMMITS_DIR)).map_err(|error| failed(&error))?;
        let file = CommitRecords::open(Arc::new(disk)).map_err(|error| failed(&error))?;
        let on_disk = store.list_segments().map_err(|error| failed(&error))?;
        let on_disk = on_disk.into_iter().map(|copy| (copy.0.segment, copy)).collect();
        let bytes = read_all(&file).map_err(|error| failed(&error))?;
        let found = Found { identity, log: log.position(), epoch: Epoch(0), on_disk };
        let records = found.records(bytes, file.damage().map(str::to_owned));
        Ok(Self { records, place: Place::Folder(store) })
    }

    /// The worker at `url`, which runs and has been let into its cluster.
    ///
    /// # Errors
    /// When it does not answer as it should.
    pub async fn ask(channels: &Channels, url: &Url) -> Result<Self, String> {
        match ask(channels, url).await {
            Ok(records) => {
                let place = Place::Running { channels: channels.clone(), url: url.clone() };
                Ok(Self { records, place })
            }
            Err(status) if status.code() == Code::Unimplemented => Err(format!(
                "the worker at {url} waits for its coordinator, and tells nothing of commits \
                 meanwhile: stop it, and name its data folder instead"
            )),
            Err(status) => Err(format!("worker at {url}: {}", told(&status))),
        }
    }

    /// The metadata of a segment on this worker's disk, which no catalog vouches for. Blocks where
    /// it is a folder.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged, or is that of another segment.
    pub async fn segment_meta(&self, orphan: &Orphan) -> Result<FoundSegment, String> {
        let bytes = match &self.place {
            Place::Folder(store) => store
                .read_segment_meta(orphan.key, orphan.layout)
                .map_err(|error| error.to_string())?,
            Place::Running { channels, url } => {
                ask_meta(channels, url, orphan).await.map_err(|status| told(&status))?
            }
        };
        let meta = SegmentMeta::decode_unvouched(&bytes).map_err(|error| error.to_string())?;
        if meta.key() != orphan.key || meta.layout() != orphan.layout {
            return Err(format!("its metadata is that of segment {}", meta.key()));
        }
        Ok(FoundSegment { worker: orphan.worker, meta, meta_digest: Digest::of(&bytes) })
    }
}

/// Puts what lies on the workers' disks and is not in `rebuilt` into tables of its own.
pub async fn salvage_from(sources: &[CommitSource], rebuilt: &mut Rebuilt) {
    let workers: Vec<_> = sources.iter().map(|source| source.records.clone()).collect();
    let mut found = Vec::new();
    for orphan in orphans(&workers, rebuilt) {
        let source = sources.iter().find(|source| source.records.worker == orphan.worker);
        let Some(source) = source else { continue };
        match source.segment_meta(&orphan).await {
            Ok(segment) => found.push(segment),
            Err(problem) => {
                let (key, worker) = (orphan.key, orphan.worker);
                let left = format!("segment {key} of worker {worker}: {problem}");
                rebuilt.recovered.left.push(left);
            }
        }
    }
    salvage(rebuilt, found);
}

fn told(status: &Status) -> String {
    format!("{}: {}", status.code(), status.message())
}

async fn ask_meta(channels: &Channels, url: &Url, orphan: &Orphan) -> Result<Bytes, Status> {
    let channel = channels.worker(orphan.worker, url);
    let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut client = ChunksClient::new(channel).max_decoding_message_size(BYTES_PART_MAX + 4096);
    let request = SegmentMetaRequest {
        // Reading takes any: bytes never change.
        epoch: 0,
        table: orphan.key.table.0,
        slice: u32::from(orphan.key.slice.0),
        segment: orphan.key.segment.to_wire(),
        packed: orphan.layout == Layout::Packed,
    };
    let mut parts = in_time(0, client.read_segment_meta(request)).await?.into_inner();
    let mut bytes = BytesMut::new();
    while let Some(part) = in_time(0, parts.message()).await? {
        if bytes.len() as u64 + part.data.len() as u64 > SEGMENT_META_BYTES_MAX {
            return Err(Status::data_loss("its metadata is larger than any can be"));
        }
        bytes.extend_from_slice(&part.data);
    }
    Ok(bytes.freeze())
}

fn read_all(
    file: &CommitRecords,
) -> Result<Bytes, basalt_storage::commit_records::CommitRecordsError> {
    let mut all = BytesMut::new();
    loop {
        let part = file.read(all.len() as u64, READ_BYTES_MAX)?;
        if part.is_empty() {
            return Ok(all.freeze());
        }
        all.extend_from_slice(&part);
    }
}

/// What is known of a worker beside its commit records.
struct Found {
    identity: Identity,
    log: Position,
    epoch: Epoch,
    on_disk: OnDisk,
}

impl Found {
    fn records(self, bytes: Bytes, damage: Option<String>) -> WorkerRecords {
        let Self { identity, log, epoch, on_disk } = self;
        let (at, known, unreadable) = KnownCatalog::read(&Contents::of(&bytes));
        let promised = log.promised.map_or(LogEpoch(0), |promise| promise.epoch);
        WorkerRecords {
            cluster: identity.cluster,
            worker: identity.worker,
            at,
            known,
            damage: damage.or(unreadable),
            on_disk,
            epoch,
            log_epoch: promised,
            log: (log.tail.seq > 0).then_some(log.tail),
        }
    }
}

async fn ask(channels: &Channels, url: &Url) -> Result<WorkerRecords, Status> {
    let channel = channels.get(url).map_err(|error| Status::unavailable(error.to_string()))?;
    let mut client =
        CommitRecordsClient::new(channel.clone()).max_decoding_message_size(BYTES_PART_MAX + 4096);
    let position = in_time(0, client.position(CommitPositionRequest {})).await?;
    let position = RecordsPosition::from_wire(position.get_ref())?;
    let cluster = position.cluster.to_wire();
    let read = in_time(position.known.bytes, client.read(CommitReadRequest { cluster })).await?;
    let mut parts = read.into_inner();
    let mut bytes = BytesMut::new();
    while let Some(part) = in_time(0, parts.message()).await? {
        bytes.extend_from_slice(&part.data);
    }
    let mut log = log_client(channels, None, url)?;
    let log = in_time(0, log.position(LogPositionRequest {})).await?;
    let log = MemberPosition::from_wire(log.get_ref())?.position;
    let on_disk = inventory(ReplicasClient::new(channel)).await?;
    let identity = Identity { cluster: position.cluster, worker: position.worker };
    let found = Found { identity, log, epoch: position.epoch, on_disk };
    Ok(found.records(bytes.freeze(), position.damage))
}

async fn inventory(
    mut client: ReplicasClient<datafusion_distributed::grpc::BoxCloneSyncChannel>,
) -> Result<OnDisk, Status> {
    let mut parts = in_time(0, client.inventory(InventoryRequest {})).await?.into_inner();
    let mut found = OnDisk::new();
    while let Some(part) = in_time(0, parts.message()).await? {
        for SegmentRef { table, slice, segment, packed, .. } in part.segments {
            let segment = SegmentId::from_wire(&segment, "InventoryPart", "segment")?;
            let malformed = |_| MalformedMessage::new("InventoryPart", "slice");
            let slice = SliceId(u16::try_from(slice).map_err(malformed)?);
            let key = SegmentKey { table: TableId(table), slice, segment };
            found.insert(segment, (key, if packed { Layout::Packed } else { Layout::Wide }));
        }
    }
    Ok(found)
}
