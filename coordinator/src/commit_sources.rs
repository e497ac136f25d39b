//! What workers have left for a rebuilt catalog: asked from a worker that runs, or read from the
//! data folder of one that does not.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use basalt_engine::channels::Channels;
use basalt_engine::commit_protocol::RecordsPosition;
use basalt_engine::error::to_status;
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
use basalt_storage::error::StorageError;
use basalt_storage::ids::{Epoch, LogEpoch, SegmentId, SliceId, TableId, WorkerId};
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

/// How often a worker is asked for metadata.
const ASKED_TIMES: u32 = 3;

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

/// What workers have left.
#[derive(Debug, Default)]
pub struct CommitSources {
    /// What each knows.
    pub records: Vec<WorkerRecords>,
    places: BTreeMap<WorkerId, Place>,
}

impl CommitSources {
    /// Adds the data folder of a worker that does not run. Blocks.
    ///
    /// # Errors
    /// A folder that is none of a worker, or that a worker has open, or cannot be read.
    pub fn open(&mut self, folder: &Path) -> Result<(), String> {
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
        let records = found.records(&bytes, file.damage().map(str::to_owned));
        self.add(records, Place::Folder(store));
        Ok(())
    }

    /// Adds the worker at `url`, which runs and has been let into its cluster.
    ///
    /// # Errors
    /// When it does not answer as it should.
    pub async fn ask(&mut self, channels: &Channels, url: &Url) -> Result<(), String> {
        match ask(channels, url).await {
            Ok(records) => {
                let place = Place::Running { channels: channels.clone(), url: url.clone() };
                self.add(records, place);
                Ok(())
            }
            Err(status) if status.code() == Code::Unimplemented => Err(format!(
                "the worker at {url} waits for its coordinator, and tells nothing of commits \
                 meanwhile: stop it, and name its data folder instead"
            )),
            Err(status) => Err(format!("worker at {url}: {}", told(&status))),
        }
    }

    fn add(&mut self, records: WorkerRecords, place: Place) {
        self.places.insert(records.worker, place);
        self.records.push(records);
    }

    /// Puts what lies on the workers' disks and is not in `rebuilt` into tables of its own. Blocks
    /// where that is a folder.
    ///
    /// # Errors
    /// When metadata cannot be read: the rows may be there. What is no metadata is only
    /// [left](super::catalog::rebuild::salvage::Recovered::left).
    pub async fn salvage(&self, rebuilt: &mut Rebuilt) -> Result<(), String> {
        let mut found = Vec::new();
        for orphan in orphans(&self.records, rebuilt) {
            let Some(place) = self.places.get(&orphan.worker) else { continue };
            let named = |problem: &dyn std::fmt::Display| {
                format!("segment {} of worker {}: {problem}", orphan.key, orphan.worker)
            };
            let bytes = place.segment_meta(&orphan).await.map_err(|problem| named(&problem))?;
            match bytes
                .map_or_else(|| Err("it has no metadata".to_owned()), |b| meta_of(&orphan, &b))
            {
                Ok(segment) => found.push(segment),
                Err(problem) => rebuilt.recovered.left.push(named(&problem)),
            }
        }
        salvage(rebuilt, found);
        Ok(())
    }
}

impl Place {
    /// The bytes of a segment's metadata, which no catalog vouches for; `None` when there are none.
    async fn segment_meta(&self, orphan: &Orphan) -> Result<Option<Bytes>, String> {
        match self {
            Self::Folder(store) => match store.read_segment_meta(orphan.key, orphan.layout) {
                Ok(bytes) => Ok(Some(bytes)),
                // Not there, or what is there cannot be metadata.
                Err(StorageError::Missing { .. } | StorageError::Corrupt { .. }) => Ok(None),
                Err(error) => Err(error.to_string()),
            },
            Self::Running { channels, url } => {
                let mut tries = 1;
                loop {
                    match ask_meta(channels, url, orphan).await {
                        Ok(bytes) => return Ok(Some(bytes)),
                        Err(status) if matches!(status.code(), Code::NotFound | Code::DataLoss) => {
                            return Ok(None);
                        }
                        Err(status) if tries == ASKED_TIMES => return Err(told(&status)),
                        Err(_) => tries += 1,
                    }
                }
            }
        }
    }
}

fn meta_of(orphan: &Orphan, bytes: &Bytes) -> Result<FoundSegment, String> {
    let meta = SegmentMeta::decode_unvouched(bytes).map_err(|error| error.to_string())?;
    if meta.key() != orphan.key || meta.layout() != orphan.layout {
        return Err(format!("its metadata is that of segment {}", meta.key()));
    }
    Ok(FoundSegment { worker: orphan.worker, meta, meta_digest: Digest::of(bytes) })
}

fn told(status: &Status) -> String {
    format!("{}: {}", status.code(), status.message())
}

async fn ask_meta(channels: &Channels, url: &Url, orphan: &Orphan) -> Result<Bytes, Status> {
    let channel = channels.worker(orphan.worker, url);
    let channel = channel.map_err(to_status)?;
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
    fn records(self, bytes: &Bytes, damage: Option<String>) -> WorkerRecords {
        let Self { identity, log, epoch, on_disk } = self;
        let (at, known, unreadable) = KnownCatalog::read(&Contents::of(bytes));
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
    let channel = channels.get(url).map_err(to_status)?;
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
    Ok(found.records(&bytes.freeze(), position.damage))
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
