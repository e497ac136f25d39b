//! Names for staged files where something may lie already: the bad file goes aside, the good one
//! gets its name.
//!
//! ```text
//! 1  everything staged is synced            the caller's part
//! 2  rename bad metadata aside              without it a segment counts as not there
//! 3  for each file: rename the old one aside, rename the new one to its name
//! 4  fsync the directory
//! 5  rename the metadata to its name, fsync the directory
//! ```
//! Invariant: at every moment, and after a crash at any moment, a name holds what it held before,
//! or nothing, or the new content complete: a reader finds it bad as before, finds it missing, or
//! is right. Once `Ok` was returned, only the last is left. New metadata has its name only where
//! every file is durable under its own.

use std::io;
use std::path::{Path, PathBuf};

use super::{DurableWriter, left_behind, remove_tree};
use crate::error::{Result, StorageError};
use crate::vfs::Vfs;

/// A staged file for a name that may be taken.
#[derive(Debug, Clone)]
pub(crate) struct Replacement {
    /// What is renamed: synced.
    pub(crate) staged: PathBuf,
    /// The name it gets.
    pub(crate) target: PathBuf,
    /// Where what has that name goes: a name that does not exist, on the same file system.
    pub(crate) aside: PathBuf,
}

impl DurableWriter {
    /// Gives a staged directory, the files of which are synced, its final name, which must not
    /// exist: that is an error of kind [`io::ErrorKind::AlreadyExists`].
    ///
    /// On `Ok` all of it survives a crash. On an error the name does not exist as far as possible;
    /// a crash may bring it back, whole or without the file `meta` in it.
    pub(crate) fn place_dir(
        &self,
        vfs: &dyn Vfs,
        staged: &Path,
        target: &Path,
        meta: &Path,
    ) -> Result<()> {
        self.fsync_dir(vfs, staged)?;
        let Some(parent) = target.parent() else {
            return Err(StorageError::invalid_request("a directory without a parent"));
        };
        self.ensure_dir(vfs, parent)?;
        vfs.rename_new(staged, target).map_err(|e| StorageError::io("rename", target, e))?;
        let synced = self.fsync_dir(vfs, parent);
        if synced.is_err() && self.remove_durable(vfs, meta).is_ok() {
            left_behind(target, remove_tree(vfs, target, 1));
        }
        synced
    }

    /// Removes a file. On `Ok` it does not come back, also when it was not there: whoever removed
    /// it may have died.
    pub(crate) fn remove_durable(&self, vfs: &dyn Vfs, path: &Path) -> Result<()> {
        match vfs.remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StorageError::io("remove", path, error));
            }
            _ => {}
        }
        match self.fsync_dir(vfs, path.parent().unwrap_or(path)) {
            Err(StorageError::Missing { .. }) => Ok(()),
            synced => synced,
        }
    }

    /// Gives staged files the names of bad or missing ones, all in the directory `dir`, and `meta`
    /// the last of them, when the others are durable.
    ///
    /// On `Ok` all of it, and whatever else is in the directory, survives a crash. After an error
    /// what was missing is missing as far as possible, and what was bad is as it was, missing, or
    /// replaced; new metadata is not there.
    pub(crate) fn replace(
        &self,
        vfs: &dyn Vfs,
        dir: &Path,
        files: &[Replacement],
        meta: Option<&Replacement>,
    ) -> Result<()> {
        self.check_writable()?;
        let mut added = Vec::new();
        let placed = self.replace_files(vfs, dir, files, meta, &mut added);
        let placed = placed.and_then(|()| meta.map_or(Ok(()), |meta| take_name(vfs, meta)));
        if placed.is_err() {
            added.iter().for_each(|path| left_behind(path, vfs.remove_file(path)));
        }
        placed?;
        let Some(Replacement { target, .. }) = meta else { return Ok(()) };
        // The files stay: a crash may bring the metadata back, and never alone.
        self.fsync_dir(vfs, dir).inspect_err(|_| left_behind(target, vfs.remove_file(target)))
    }

    /// Steps 2 to 4. Collects the names that nothing had before.
    fn replace_files<'a>(
        &self,
        vfs: &dyn Vfs,
        dir: &Path,
        files: &'a [Replacement],
        meta: Option<&Replacement>,
        added: &mut Vec<&'a Path>,
    ) -> Result<()> {
        if let Some(Replacement { target, aside, .. }) = meta {
            self.move_aside(vfs, target, aside)?;
        }
        for file in files {
            let was_there = self.move_aside(vfs, &file.target, &file.aside)?;
            take_name(vfs, file)?;
            if !was_there {
                added.push(&file.target);
            }
        }
        self.fsync_dir(vfs, dir)
    }

    /// Frees a name, of a file or a directory. Says whether it was taken. Not durable by itself.
    pub(crate) fn move_aside(&self, vfs: &dyn Vfs, path: &Path, aside: &Path) -> Result<bool> {
        self.check_writable()?;
        match vfs.rename_new(path, aside) {
            Ok(()) => {
                tracing::warn!(path = %path.display(), aside = %aside.display(), "quarantined");
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StorageError::io("rename", path, error)),
        }
    }
}

fn take_name(vfs: &dyn Vfs, Replacement { staged, target, .. }: &Replacement) -> Result<()> {
    vfs.rename_new(staged, target).map_err(|e| StorageError::io("rename", target, e))
}
