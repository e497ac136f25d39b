//! Where what is being written lies until it has its final name: `tmp/<txn>/`.
//!
//! Invariant: a transaction's directory is there while anybody writes in it, and the last one to
//! leave removes it. What a crash leaves is removed when the data directory is opened.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use crate::durable_write::remove_tree;
use crate::error::{Result, StorageError};
use crate::ids::TxnId;
use crate::layout::TMP_DIR;
use crate::vfs::Vfs;

/// How deep directories nest under `tmp/`: transaction, segment, and one to spare.
const TMP_DEPTH_MAX: usize = 4;

/// The staging directories of a data directory.
#[derive(Debug)]
pub(super) struct Staging {
    tmp: PathBuf,
    vfs: Arc<dyn Vfs>,
    /// Writers per transaction.
    shares: Mutex<HashMap<TxnId, usize>>,
}

/// A share in a transaction's staging directory.
#[derive(Debug)]
pub(super) struct StagingDir {
    staging: Arc<Staging>,
    txn: TxnId,
}

impl Staging {
    pub(super) fn new(root: &Path, vfs: Arc<dyn Vfs>) -> Self {
        Self { tmp: root.join(TMP_DIR), vfs, shares: Mutex::new(HashMap::new()) }
    }

    /// Makes a transaction's directory, shared by all who write in it.
    pub(super) fn share(self: &Arc<Self>, txn: TxnId) -> Result<StagingDir> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        match self.vfs.mkdir(&self.dir(txn)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(StorageError::io("mkdir", relative(txn.to_string()), error));
            }
            _ => {}
        }
        *shares.entry(txn).or_default() += 1;
        Ok(StagingDir { staging: Arc::clone(self), txn })
    }

    /// Removes what a crash left.
    pub(super) fn empty(&self) -> Result<()> {
        let listed = self.vfs.list(&self.tmp);
        for entry in listed.map_err(|e| StorageError::io("list", TMP_DIR, e))? {
            let path = self.tmp.join(&entry.name);
            let removed = if entry.is_dir {
                remove_tree(self.vfs.as_ref(), &path, TMP_DEPTH_MAX)
            } else {
                self.vfs.remove_file(&path)
            };
            removed.map_err(|e| StorageError::io("remove", relative(&entry.name), e))?;
        }
        Ok(())
    }

    fn dir(&self, txn: TxnId) -> PathBuf {
        self.tmp.join(txn.to_string())
    }
}

impl StagingDir {
    /// A path in the directory that nobody else has: a segment may be sent again while a first
    /// try ends.
    pub(super) fn place(&self) -> PathBuf {
        self.staging.dir(self.txn).join(Uuid::new_v4().as_simple().to_string())
    }
}

impl Drop for StagingDir {
    fn drop(&mut self) {
        let mut shares = self.staging.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = shares.get_mut(&self.txn) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        shares.remove(&self.txn);
        let dir = self.staging.dir(self.txn);
        if let Err(error) = self.staging.vfs.remove_dir(&dir) {
            // It is removed at the next open.
            tracing::debug!(path = %dir.display(), %error, "staging directory left");
        }
    }
}

fn relative(name: impl AsRef<Path>) -> PathBuf {
    Path::new(TMP_DIR).join(name)
}
