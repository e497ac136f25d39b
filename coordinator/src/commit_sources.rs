//! What workers have left for a rebuilt catalog: asked from a worker that runs, or read from the
//! data folder of one that does not.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use basalt_engine::channels::Channels;
use basalt_engine::commit_protocol::RecordsPosition;
use basalt_engine::log_protocol::MemberPosition;
use basalt_engine::protocol::commit_records_client::CommitRecordsClient;
use basalt_engine::protocol::replicas_client::ReplicasClient;
use basalt_engine::protocol::{
    BYTES_PART_MAX, CommitPositionRequest, CommitReadRequest, InventoryRequest, LogPositionRequest,
    SegmentRef, WireId,
};
use basalt_storage::chunk_store::{ChunkStore, Identity};
use basalt_storage::command_log::{DirDisk, LOG_DIR, LogCopy, Position};
use basalt_storage::commit_records::{COMMITS_DIR, CommitRecords, Contents};
use basalt_storage::ids::{Epoch, LogEpoch, SegmentId, TableId};
use basalt_storage::vfs::{RealVfs, Vfs};
use bytes::{Bytes, BytesMut};
use tonic::Status;
use url::Url;

use crate::catalog::commit_record::KnownCatalog;
use crate::catalog::rebuild::WorkerRecords;
use crate::log_links::{in_time, log_client};

/// Bytes of records that are read from a folder at once.
const READ_BYTES_MAX: usize = 16 << 20;

/// The data folder of a worker that does not run. No worker can start there meanwhile.
#[derive(Debug)]
pub struct WorkerFolder {
    /// What is in it.
    pub records: WorkerRecords,
    /// Holds the folder's lock.
    _store: ChunkStore,
}

impl WorkerFolder {
    /// Reads a worker's data folder.
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
        let log = DirDisk::new(&folder.join(LOG_DIR)).map_err(|error| failed(&error))?;
        let log = LogCopy::open(Arc::new(log)).map_err(|error| failed(&error))?;
        let disk = DirDisk::new(&folder.join(COMMITS_DIR)).map_err(|error| failed(&error))?;
        let file = CommitRecords::open(Arc::new(disk)).map_err(|error| failed(&error))?;
        let on_disk = store.list_segments().map_err(|error| failed(&error))?;
        let on_disk = on_disk.into_iter().map(|(key, _)| (key.segment, key.table)).collect();
        let bytes = read_all(&file).map_err(|error| failed(&error))?;
        let found = Found { identity, log: log.position(), epoch: Epoch(0), on_disk };
        let records = found.records(bytes, file.damage().map(str::to_owned));
        Ok(Self { records, _store: store })
    }
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
    on_disk: BTreeMap<SegmentId, TableId>,
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

/// What the worker at `url` has, which runs and has been let into its cluster.
///
/// # Errors
/// When it does not answer as it should.
pub async fn ask_worker(channels: &Channels, url: &Url) -> Result<WorkerRecords, String> {
    let asked = ask(channels, url).await;
    asked.map_err(|status| format!("worker at {url}: {}: {}", status.code(), status.message()))
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
    let mut log = log_client(channels, url)?;
    let log = in_time(0, log.position(LogPositionRequest {})).await?;
    let log = MemberPosition::from_wire(log.get_ref())?.position;
    let on_disk = inventory(ReplicasClient::new(channel)).await?;
    let identity = Identity { cluster: position.cluster, worker: position.worker };
    let found = Found { identity, log, epoch: position.epoch, on_disk };
    Ok(found.records(bytes.freeze(), position.damage))
}

async fn inventory(
    mut client: ReplicasClient<datafusion_distributed::grpc::BoxCloneSyncChannel>,
) -> Result<BTreeMap<SegmentId, TableId>, Status> {
    let mut parts = in_time(0, client.inventory(InventoryRequest {})).await?.into_inner();
    let mut found = BTreeMap::new();
    while let Some(part) = in_time(0, parts.message()).await? {
        for SegmentRef { table, segment, .. } in part.segments {
            let segment = SegmentId::from_wire(&segment, "InventoryPart", "segment")?;
            found.insert(segment, TableId(table));
        }
    }
    Ok(found)
}
