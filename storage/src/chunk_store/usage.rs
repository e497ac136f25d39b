//! How much a directory holds.

use std::io;
use std::iter::Sum;
use std::path::Path;

use super::ChunkStore;
use crate::error::{Result, StorageError};
use crate::layout::{CHUNKS_DIR, relative};
use crate::vfs::Vfs;

/// How deep directories nest under `chunks/`: itself, table, slice, segment.
const DEPTH_MAX: usize = 4;

/// Files and the bytes in them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), |sum, one| Self {
            files: sum.files + one.files,
            bytes: sum.bytes.saturating_add(one.bytes),
        })
    }
}

impl ChunkStore {
    /// Bytes in the files below `chunks/`, live ones and garbage. Walks them all.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn used_bytes(&self) -> Result<u64> {
        let chunks = self.root.join(CHUNKS_DIR);
        let usage = usage_of(self.vfs.as_ref(), &chunks, true, DEPTH_MAX);
        let usage =
            usage.map_err(|e| StorageError::io("measure", relative(&chunks, &self.root), e))?;
        Ok(usage.bytes)
    }
}

/// What a file or a directory with everything in it holds. What goes meanwhile counts for
/// nothing, nor do the bytes of what is no regular file, or what lies deeper than the store
/// nests.
pub(super) fn usage_of(
    vfs: &dyn Vfs,
    path: &Path,
    is_dir: bool,
    depth_max: usize,
) -> io::Result<Usage> {
    if !is_dir {
        return Ok(Usage { files: 1, bytes: vfs.file_length(path).unwrap_or_default() });
    }
    let Some(depth_max) = depth_max.checked_sub(1) else { return Ok(Usage::default()) };
    let entries = match vfs.list(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Usage::default()),
        entries => entries?,
    };
    let entries = entries.into_iter();
    entries.map(|e| usage_of(vfs, &path.join(&e.name), e.is_dir, depth_max)).sum()
}
