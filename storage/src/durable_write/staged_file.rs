//! A file under `tmp/` that is written in pieces, as they come from elsewhere.
//!
//! Invariant: it is created under a name that did not exist, and its handle is consumed by the
//! sync; what it holds is worth nothing until [`DurableWriter::sync_files`] returned `Ok`.

use std::path::PathBuf;

use super::{DurableWriter, SYNC_THREADS};
use crate::error::{Result, StorageError};
use crate::fail_point::{self, FailPoint};
use crate::parallel::for_each_mut;
use crate::vfs::{Vfs, VfsFile};

/// A file being written, and not synced.
pub(crate) struct StagedFile {
    path: PathBuf,
    file: Box<dyn VfsFile>,
}

impl StagedFile {
    /// Appends all of `bytes`. After an error the content is unknown.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| StorageError::io("write", &self.path, e))
    }
}

impl DurableWriter {
    /// Creates a file that must not exist.
    pub(crate) fn create(&self, vfs: &dyn Vfs, path: PathBuf) -> Result<StagedFile> {
        self.check_writable()?;
        match vfs.create_new(&path) {
            Ok(file) => Ok(StagedFile { path, file }),
            Err(error) => Err(StorageError::io("create", path, error)),
        }
    }

    /// On `Ok` the content of every file survives a crash, and the names do once their directory
    /// is synced. Files are synced in parallel.
    pub(crate) fn sync_files(&self, files: Vec<StagedFile>) -> Result<()> {
        let mut files: Vec<Option<StagedFile>> = files.into_iter().map(Some).collect();
        for_each_mut(SYNC_THREADS, &mut files, |slot| match slot.take() {
            Some(StagedFile { path, file }) => {
                fail_point::hit(FailPoint::CopyBeforeFsync);
                file.sync().map_err(|error| self.sync_failed(&path, error))
            }
            None => Ok(()),
        })
    }
}
