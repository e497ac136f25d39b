//! The rules by which bytes become durable. Nothing outside this module renames or syncs.
//!
//! ```text
//! 1  write every file under tmp/, fsync it            in parallel
//! 2  fsync staged directories                         their entries
//! 3  create missing target directories, fsync each one's parent
//! 4  rename files and staged directories into place   no fsync needed before all are renamed
//! 5  fsync each target directory once
//! ```
//! Content that comes in pieces is step 1 of its own (`durable_write/staged_file.rs`), and so is
//! giving the name of a bad file to a good one (`durable_write/replace.rs`).
//!
//! Invariant: what has its final name after a crash is complete, because its content was synced
//! before the rename; and everything handed to [`DurableWriter::publish`] has its final name
//! once that returned `Ok`. Nothing is ever written in place.
//!
//! A failed fsync is never retried: the pages are marked clean whether they reached the disk or
//! not. The write fails, and the volume takes no more writes until a restart, except when the
//! volume was merely full.

mod replace;
mod staged_file;

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use crate::error::{Result, StorageError};
use crate::fail_point::{self, FailPoint};
use crate::parallel::for_each;
use crate::vfs::Vfs;

pub(crate) use replace::Replacement;
pub(crate) use staged_file::StagedFile;

/// Threads that write and sync files at the same time. Measured: with 8, 64 files take 1.5 times
/// as long as one file of the same total size; serially 3 to 10 times.
const SYNC_THREADS: usize = 8;

/// Makes a directory and those above it that are missing.
///
/// On `Ok` the directory survives a crash: each was synced in the one above it, and the last one
/// also when it was there, because whoever made it may not have.
///
/// # Errors
/// What the file system says.
pub fn create_dir_durable(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    if path.is_dir() {
        return sync_dir(parent);
    }
    create_dir_durable(parent)?;
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => Err(error),
        _ => sync_dir(parent),
    }
}

/// Writes a small file beside its final name, syncs it and renames it into place.
///
/// On `Ok` it survives a crash; after an error it is there whole, as it was before, or not at all.
///
/// # Errors
/// What the file system says.
#[expect(clippy::disallowed_methods, reason = "this is the module that also syncs the folder")]
pub fn write_file_durable(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let staged = path.with_extension("new");
    std::fs::write(&staged, bytes)?;
    std::fs::File::open(&staged)?.sync_all()?;
    std::fs::rename(&staged, path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => sync_dir(Path::new(".")),
    }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    std::fs::File::open(path)?.sync_all()
}

/// A file to write.
#[derive(Debug, Clone)]
pub(crate) struct NewFile {
    /// Where it is written first: under `tmp/`, on the same file system.
    pub(crate) staged: PathBuf,
    /// Its content.
    pub(crate) bytes: Bytes,
}

/// A staged file or directory and its final name.
#[derive(Debug, Clone)]
pub(crate) struct Placement {
    /// What is renamed.
    pub(crate) staged: PathBuf,
    /// The final name, which must not exist.
    pub(crate) target: PathBuf,
    /// Whether it is a directory, made by `publish` and holding staged files.
    pub(crate) is_dir: bool,
}

/// Writes files durably below one root directory.
#[derive(Debug)]
pub(crate) struct DurableWriter {
    root: PathBuf,
    /// Set by the first failed fsync.
    poisoned: AtomicBool,
    /// Directories whose own entry this process has synced in its parent. Empty after a start:
    /// a directory that exists may still be unsynced if the last process died.
    durable_dirs: Mutex<HashSet<PathBuf>>,
}

impl DurableWriter {
    /// A writer for everything below `root`, which must exist.
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
            poisoned: AtomicBool::new(false),
            durable_dirs: Mutex::new(HashSet::new()),
        }
    }

    /// Whether no fsync has failed yet: afterwards nothing is written until a restart.
    pub(crate) fn is_writable(&self) -> bool {
        !self.poisoned.load(Ordering::Acquire)
    }

    /// Writes `files` and gives `placements` their final names.
    ///
    /// On `Ok` all of it survives a crash. On an error nothing may be assumed: what was staged
    /// or placed is removed as far as possible, and whatever is left is complete or under `tmp/`.
    pub(crate) fn publish(
        &self,
        vfs: &dyn Vfs,
        files: &[NewFile],
        placements: &[Placement],
    ) -> Result<()> {
        self.check_writable()?;
        let mut placed = 0;
        let result = self.try_publish(vfs, files, placements, &mut placed);
        if result.is_err() {
            undo(vfs, files, placements, placed);
        }
        result
    }

    fn try_publish(
        &self,
        vfs: &dyn Vfs,
        files: &[NewFile],
        placements: &[Placement],
        placed: &mut usize,
    ) -> Result<()> {
        let staged_dirs: Vec<&Path> =
            placements.iter().filter(|p| p.is_dir).map(|p| p.staged.as_path()).collect();
        for dir in &staged_dirs {
            vfs.mkdir(dir).map_err(|e| StorageError::io("mkdir", *dir, e))?;
        }
        for_each(SYNC_THREADS, files, |file| self.write_synced(vfs, file))?;
        for_each(SYNC_THREADS, &staged_dirs, |dir| self.fsync_dir(vfs, dir))?;

        let parents: BTreeSet<&Path> =
            placements.iter().filter_map(|p| p.target.parent()).collect();
        for parent in &parents {
            self.ensure_dir(vfs, parent)?;
        }
        for Placement { staged, target, .. } in placements {
            fail_point::hit(FailPoint::PublishBeforeRename);
            vfs.rename_new(staged, target).map_err(|e| StorageError::io("rename", target, e))?;
            *placed += 1;
        }
        let parents: Vec<&Path> = parents.into_iter().collect();
        for_each(SYNC_THREADS, &parents, |dir| {
            fail_point::hit(FailPoint::PublishBeforeDirFsync);
            self.fsync_dir(vfs, dir)
        })?;
        fail_point::hit(FailPoint::PublishDurable);
        Ok(())
    }

    /// Makes a directory and its missing parents below the root. On `Ok` the directory survives
    /// a crash.
    pub(crate) fn ensure_dir(&self, vfs: &dyn Vfs, dir: &Path) -> Result<()> {
        self.check_writable()?;
        if dir == self.root || self.known_durable(dir) {
            return Ok(());
        }
        self.make_dir(vfs, dir)?;
        self.durable_dirs.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.to_path_buf());
        Ok(())
    }

    /// As [`Self::ensure_dir`], for a directory that may be renamed or removed later: nothing is
    /// remembered of it.
    pub(crate) fn make_dir(&self, vfs: &dyn Vfs, dir: &Path) -> Result<()> {
        let Some(parent) = dir.parent() else {
            return Err(StorageError::invalid_request("a directory outside the data directory"));
        };
        self.ensure_dir(vfs, parent)?;
        match vfs.mkdir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(StorageError::io("mkdir", dir, error));
            }
            _ => {}
        }
        self.fsync_dir(vfs, parent)
    }

    /// On `Ok` the entries of `dir`, as they are now, survive a crash.
    pub(crate) fn fsync_dir(&self, vfs: &dyn Vfs, dir: &Path) -> Result<()> {
        vfs.fsync_dir(dir).map_err(|error| self.sync_failed(dir, error))
    }

    fn write_synced(&self, vfs: &dyn Vfs, NewFile { staged, bytes }: &NewFile) -> Result<()> {
        fail_point::hit(FailPoint::PublishBeforeWrite);
        let mut file = vfs.create_new(staged).map_err(|e| StorageError::io("create", staged, e))?;
        file.write_all(bytes).map_err(|e| StorageError::io("write", staged, e))?;
        fail_point::hit(FailPoint::PublishBeforeFsync);
        file.sync().map_err(|error| self.sync_failed(staged, error))
    }

    fn sync_failed(&self, path: &Path, error: io::Error) -> StorageError {
        let full = matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::NotFound
        );
        if !full {
            self.poisoned.store(true, Ordering::Release);
            tracing::error!(
                path = %path.display(),
                %error,
                "fsync failed: the volume takes no more writes until a restart"
            );
        }
        StorageError::io("fsync", path, error)
    }

    /// # Errors
    /// [`StorageError::ReadOnly`] after a failed fsync.
    pub(crate) fn check_writable(&self) -> Result<()> {
        if !self.is_writable() {
            return Err(StorageError::ReadOnly { path: self.root.clone() });
        }
        Ok(())
    }

    fn known_durable(&self, dir: &Path) -> bool {
        self.durable_dirs.lock().unwrap_or_else(PoisonError::into_inner).contains(dir)
    }
}

/// Removes what a failed publication left. Best effort: `tmp/` is emptied at the next start, and
/// a segment that no commit names is garbage. The first `placed` placements had their final
/// names, which did not exist before, so removing them takes nothing from anybody.
fn undo(vfs: &dyn Vfs, files: &[NewFile], placements: &[Placement], placed: usize) {
    for file in files {
        left_behind(&file.staged, vfs.remove_file(&file.staged));
    }
    for (index, Placement { staged, target, is_dir }) in placements.iter().enumerate() {
        let path = if index < placed { target } else { staged };
        if *is_dir {
            left_behind(path, remove_tree(vfs, path, 1));
        } else {
            left_behind(path, vfs.remove_file(path));
        }
    }
}

/// Logs what could not be removed, if it is there at all.
fn left_behind(path: &Path, removed: io::Result<()>) {
    if let Err(error) = removed
        && !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
    {
        tracing::warn!(path = %path.display(), %error, "left behind by a failed write");
    }
}

/// Removes a directory with everything in it, links not followed.
pub(crate) fn remove_tree(vfs: &dyn Vfs, dir: &Path, depth_max: usize) -> io::Result<()> {
    let Some(depth_max) = depth_max.checked_sub(1) else {
        return Err(io::Error::other("directories nest deeper than any the store makes"));
    };
    for entry in vfs.list(dir)? {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            remove_tree(vfs, &path, depth_max)?;
        } else {
            vfs.remove_file(&path)?;
        }
    }
    vfs.remove_dir(dir)
}
