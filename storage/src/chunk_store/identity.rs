//! Whose data directory this is: `IDENTITY.json`, written once.
//!
//! Invariant: a worker never serves or writes chunks of another cluster or worker, however the
//! directory came to where it is (RULES 19).

use std::fmt;
use std::io;
use std::path::Path;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::durable_write::{DurableWriter, NewFile, Placement};
use crate::error::{Result, StorageError};
use crate::ids::{ClusterId, WorkerId};
use crate::layout::{CHUNKS_DIR, FORMAT_VERSION, IDENTITY_FILE, TMP_DIR, WORKER_ID_FILE};
use crate::vfs::Vfs;

/// The file is about 150 bytes; more than this is not it.
const IDENTITY_BYTES_MAX: u64 = 4096;

/// A worker of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The worker.
    pub worker: WorkerId,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {} of cluster {}", self.worker, self.cluster)
    }
}

#[derive(Serialize, Deserialize)]
struct IdentityFile {
    format_version: u32,
    cluster: ClusterId,
    worker: WorkerId,
}

/// Only what every version of the file has, to tell a newer one from a damaged one.
#[derive(Deserialize)]
struct AnyVersion {
    format_version: u32,
}

/// Reads the identity of a data directory; `None` when it has none.
pub(super) fn read(dir: &Path, vfs: &dyn Vfs) -> Result<Option<Identity>> {
    let path = dir.join(IDENTITY_FILE);
    let length = match vfs.file_length(&path) {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StorageError::io("read", path, error)),
    };
    if length > IDENTITY_BYTES_MAX {
        return Err(StorageError::corrupt(path, format!("it has {length} bytes")));
    }
    let bytes =
        vfs.read_at(&path, 0, length as usize).map_err(|e| StorageError::io("read", &path, e))?;
    let corrupt = |error: serde_json::Error| StorageError::corrupt(&path, error.to_string());
    let AnyVersion { format_version } = serde_json::from_slice(&bytes).map_err(corrupt)?;
    if format_version > FORMAT_VERSION {
        return Err(StorageError::NewerFormat {
            path,
            found: format_version,
            supported: FORMAT_VERSION,
        });
    }
    let IdentityFile { cluster, worker, .. } = serde_json::from_slice(&bytes).map_err(corrupt)?;
    Ok(Some(Identity { cluster, worker }))
}

/// The id of the worker that a data directory is for, chosen once: `WORKER_ID`.
///
/// On `Ok` the id survives a crash. It is there before the worker registers anywhere, so that one
/// that dies between registering and writing its identity comes back as itself, and not as another
/// member of the cluster.
pub(super) fn reserve(dir: &Path, vfs: &dyn Vfs) -> Result<WorkerId> {
    if let Some(identity) = read(dir, vfs)? {
        return Ok(identity.worker);
    }
    if let Some(reserved) = read_reserved(dir, vfs)? {
        return Ok(reserved);
    }
    let worker = WorkerId::generate();
    let writer = DurableWriter::new(dir);
    let tmp = dir.join(TMP_DIR);
    writer.ensure_dir(vfs, &tmp)?;
    // A name of its own: another process may be doing the same, and the first to publish wins.
    let staged = tmp.join(format!("{WORKER_ID_FILE}.{worker}"));
    let bytes = Bytes::from(format!("{worker}\n"));
    let file = NewFile { staged: staged.clone(), bytes };
    let placement = Placement { staged, target: dir.join(WORKER_ID_FILE), is_dir: false };
    match writer.publish(vfs, &[file], &[placement]) {
        Ok(()) => Ok(worker),
        Err(error) => read_reserved(dir, vfs)?.ok_or(error),
    }
}

fn read_reserved(dir: &Path, vfs: &dyn Vfs) -> Result<Option<WorkerId>> {
    let path = dir.join(WORKER_ID_FILE);
    let length = match vfs.file_length(&path) {
        Ok(length) => length.min(IDENTITY_BYTES_MAX),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StorageError::io("read", path, error)),
    };
    let bytes =
        vfs.read_at(&path, 0, length as usize).map_err(|e| StorageError::io("read", &path, e))?;
    let id = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok());
    id.map(Some).ok_or_else(|| StorageError::corrupt(&path, "it is no worker id"))
}

/// Checks the identity of a data directory, or gives it one when it has neither one nor chunks.
pub(super) fn establish(
    dir: &Path,
    wanted: Identity,
    vfs: &dyn Vfs,
    writer: &DurableWriter,
) -> Result<()> {
    match read(dir, vfs)? {
        Some(found) if found == wanted => Ok(()),
        Some(found) => Err(StorageError::WrongIdentity {
            path: dir.to_path_buf(),
            expected: wanted.to_string(),
            found: found.to_string(),
        }),
        None if has_chunks(dir, vfs)? => Err(StorageError::corrupt(
            dir.join(IDENTITY_FILE),
            "it is missing although the data directory has chunks",
        )),
        None => write(dir, wanted, vfs, writer),
    }
}

fn has_chunks(dir: &Path, vfs: &dyn Vfs) -> Result<bool> {
    let chunks = dir.join(CHUNKS_DIR);
    match vfs.list(&chunks) {
        Ok(entries) => Ok(!entries.is_empty()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StorageError::io("list", chunks, error)),
    }
}

fn write(dir: &Path, identity: Identity, vfs: &dyn Vfs, writer: &DurableWriter) -> Result<()> {
    let Identity { cluster, worker } = identity;
    let file = IdentityFile { format_version: FORMAT_VERSION, cluster, worker };
    let mut json = serde_json::to_vec_pretty(&file)
        .map_err(|error| StorageError::invalid_data(error.to_string()))?;
    json.push(b'\n');
    let tmp = dir.join(TMP_DIR);
    writer.ensure_dir(vfs, &tmp)?;
    let staged = tmp.join(IDENTITY_FILE);
    // A crash may have left one; only this process has the directory open.
    match vfs.remove_file(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(StorageError::io("remove", staged, error));
        }
        _ => {}
    }
    let file = NewFile { staged: staged.clone(), bytes: Bytes::from(json) };
    let placement = Placement { staged, target: dir.join(IDENTITY_FILE), is_dir: false };
    writer.publish(vfs, &[file], &[placement])
}
