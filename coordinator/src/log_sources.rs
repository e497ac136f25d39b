//! Copies of the command log as a restore reads them: a worker that runs, or the data folder of one
//! that does not.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use basalt_engine::channels::Channels;
use basalt_engine::log_protocol::MemberPosition;
use basalt_engine::protocol::{LogPositionRequest, WireId};
use basalt_storage::chunk_store::{ChunkStore, Identity};
use basalt_storage::command_log::{LogCopy, home};
use basalt_storage::ids::ClusterId;
use basalt_storage::vfs::{RealVfs, Vfs};
use bytes::Bytes;
use std::sync::Arc;
use tokio::runtime::Handle;
use tonic::Status;
use url::Url;

use crate::catalog::restore::LogSource;
use crate::log_links::{in_time, log_client, read};

/// Bytes of records that are read from a folder at once.
const READ_BYTES_MAX: usize = 16 << 20;

/// A worker that runs.
pub struct WorkerSource {
    url: Url,
    channels: Channels,
    runtime: Handle,
}

impl WorkerSource {
    /// The worker at `url`, asked over `channels` on `runtime`, from another thread than its own.
    pub fn new(url: Url, channels: Channels, runtime: Handle) -> Self {
        Self { url, channels, runtime }
    }
}

fn text(status: Status) -> String {
    format!("{}: {}", status.code(), status.message())
}

impl LogSource for WorkerSource {
    fn name(&self) -> String {
        format!("worker at {}", self.url)
    }

    fn position(&self) -> Result<MemberPosition, String> {
        self.runtime.block_on(async {
            let mut client = log_client(&self.channels, None, &self.url).map_err(text)?;
            let answer = in_time(0, client.position(LogPositionRequest {})).await.map_err(text)?;
            MemberPosition::from_wire(answer.get_ref()).map_err(|error| error.to_string())
        })
    }

    fn read(&self, cluster: ClusterId, after: u64) -> Result<Vec<Bytes>, String> {
        self.runtime.block_on(async {
            let mut client = log_client(&self.channels, None, &self.url).map_err(text)?;
            read(&mut client, cluster.to_wire(), after).await.map_err(text)
        })
    }
}

/// The data folder of a worker that does not run. No worker can start there meanwhile.
pub struct FolderSource {
    name: String,
    identity: Identity,
    copy: Mutex<LogCopy>,
    /// Holds the folder's lock.
    _store: ChunkStore,
}

impl FolderSource {
    /// Opens the copy in a worker's data folder.
    ///
    /// # Errors
    /// A folder that is none of a worker, or that a worker has open.
    pub fn open(folder: &Path) -> Result<Self, String> {
        let name = format!("data folder {}", folder.display());
        let failed = |problem: &dyn std::fmt::Display| format!("{name}: {problem}");
        let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
        let identity = ChunkStore::read_identity(folder, vfs.as_ref());
        let identity = identity.map_err(|error| failed(&error))?;
        let identity = identity.ok_or_else(|| failed(&"it is no worker's"))?;
        let store = ChunkStore::open(folder, identity, vfs).map_err(|error| failed(&error))?;
        let copy = home::look(folder, identity).map_err(|error| failed(&error))?;
        Ok(Self { name, identity, copy: Mutex::new(copy), _store: store })
    }

    /// What is damaged of the copy, if anything is.
    pub fn damage(&self) -> Option<String> {
        self.copy.lock().unwrap_or_else(PoisonError::into_inner).damage().map(str::to_owned)
    }
}

impl LogSource for FolderSource {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn position(&self) -> Result<MemberPosition, String> {
        let Identity { cluster, worker } = self.identity;
        let position = self.copy.lock().unwrap_or_else(PoisonError::into_inner).position();
        Ok(MemberPosition { cluster, worker, position })
    }

    fn read(&self, _: ClusterId, after: u64) -> Result<Vec<Bytes>, String> {
        let copy = self.copy.lock().unwrap_or_else(PoisonError::into_inner);
        copy.read(after, READ_BYTES_MAX).map_err(|error| error.to_string())
    }
}
