//! Bad files and stray segments, out of the way and kept to be looked at.
//!
//! ```text
//! quarantine/<when: UUID v7>-<path below chunks/, with dots for slashes>
//! quarantine/0192f3a1…-7.3.0192f39e….c1.v1.parquet       a column file that was replaced
//! quarantine/0192f3a2…-7.3.0192f39e…                     a wide segment, with all its files
//! ```
//! Invariant: nothing in it is overwritten, nothing comes back from it by itself, and it keeps
//! about as much as [`QUARANTINE_BYTES_MAX`] and [`QUARANTINE_FILES_MAX`] say, newest first.
//! Names sort by age; other entries are not ours and are neither counted nor removed.

use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::ChunkStore;
use super::usage::{Usage, usage_of};
use crate::durable_write::remove_tree;
use crate::error::Result;
use crate::layout::{CHUNKS_DIR, QUARANTINE_DIR, SegmentKey, relative};
use crate::manifest::Layout;

/// Bytes that are kept, beside the newest entry, which always is. A few bad column files: enough
/// to see what a disk did to them, and nothing that a disk would miss.
pub const QUARANTINE_BYTES_MAX: u64 = 1 << 30;

/// Files that are kept, beside the newest entry: what one look through a directory takes.
pub const QUARANTINE_FILES_MAX: u64 = 1_000;

/// How deep directories nest in an entry: a segment, and whatever somebody put there.
const DEPTH_MAX: usize = 8;

/// Characters of the UUID in front of a name.
const WHEN_CHARS: usize = 32;

impl ChunkStore {
    /// Takes a whole segment out of the way, into `quarantine/`: for files that must not be here.
    /// What is not there is no error.
    ///
    /// On `Ok` the segment is gone from `chunks/`, also after a crash. On an error it is there,
    /// or gone, or there without its metadata, which counts as not there.
    ///
    /// # Errors
    /// [`Io`](crate::StorageError::Io), [`ReadOnly`](crate::StorageError::ReadOnly).
    pub fn quarantine_segment(&self, key: SegmentKey, layout: Layout) -> Result<()> {
        let _turn = self.turns.take([key]);
        // The metadata goes first, and does not come back without the rest.
        let paths = match layout {
            Layout::Wide => vec![key.wide_dir()],
            Layout::Packed => vec![key.meta_path(layout), key.pack_path()],
        };
        let mut moved = false;
        for path in paths {
            if !self.move_to_quarantine(&self.root.join(path))? {
                continue;
            }
            moved = true;
            for dir in [Path::new(QUARANTINE_DIR), &key.slice_dir()] {
                let synced = self.writer.fsync_dir(self.vfs.as_ref(), &self.root.join(dir));
                synced.map_err(|error| self.localised(error))?;
            }
        }
        if moved {
            self.prune_quarantine();
        }
        Ok(())
    }

    /// Frees a name under `chunks/`. Says whether it was taken. Not durable by itself.
    pub(super) fn move_to_quarantine(&self, path: &Path) -> Result<bool> {
        let moved = self.writer.move_aside(self.vfs.as_ref(), path, &self.aside(path));
        moved.map_err(|error| self.localised(error))
    }

    /// A name in `quarantine/` that does not exist, telling what was at `path` under `chunks/`.
    pub(super) fn aside(&self, path: &Path) -> PathBuf {
        let path = relative(path, &self.root.join(CHUNKS_DIR));
        let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
        let when = Uuid::now_v7();
        self.root.join(QUARANTINE_DIR).join(format!("{}-{}", when.as_simple(), parts.join(".")))
    }

    /// Removes the oldest entries beyond the bounds. Best effort: the next one to quarantine
    /// something tries again.
    pub(super) fn prune_quarantine(&self) {
        if let Err(error) = self.try_prune() {
            let path = self.root.join(QUARANTINE_DIR);
            tracing::warn!(path = %path.display(), %error, "quarantine could not be pruned");
        }
    }

    fn try_prune(&self) -> io::Result<()> {
        let vfs = self.vfs.as_ref();
        let dir = self.root.join(QUARANTINE_DIR);
        let mut entries = vfs.list(&dir)?;
        entries.retain(|entry| entry.name.to_str().is_some_and(is_ours));
        entries.sort_by(|a, b| b.name.cmp(&a.name));
        let mut kept = Usage::default();
        for (index, entry) in entries.iter().enumerate() {
            let path = dir.join(&entry.name);
            kept = [kept, usage_of(vfs, &path, entry.is_dir, DEPTH_MAX)?].into_iter().sum();
            let fits = kept.bytes <= QUARANTINE_BYTES_MAX && kept.files <= QUARANTINE_FILES_MAX;
            if index == 0 || fits {
                continue;
            }
            let removed = if entry.is_dir {
                remove_tree(vfs, &path, DEPTH_MAX)
            } else {
                vfs.remove_file(&path)
            };
            match removed {
                // Somebody else pruned, too.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
            tracing::info!(path = %path.display(), "removed from a full quarantine");
        }
        Ok(())
    }
}

fn is_ours(name: &str) -> bool {
    let Some((when, _)) = name.split_at_checked(WHEN_CHARS) else { return false };
    let Ok(id) = Uuid::try_parse(when) else { return false };
    id.as_simple().to_string() == when && name[WHEN_CHARS..].starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_the_store_gives_are_its_own() {
        let ours = format!("{}-7.3.c1.v1.parquet", Uuid::now_v7().as_simple());
        assert!(is_ours(&ours));
        for other in ["", "notes.txt", &ours[1..], &ours.to_uppercase(), &ours[..WHEN_CHARS]] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
