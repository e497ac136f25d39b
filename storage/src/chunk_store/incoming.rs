//! Segments and single files from elsewhere: from a peer, in pieces, into their place.
//!
//! ```text
//! receive        verify the metadata, then stage under tmp/<txn>/<own name>/
//! write ...      append to the staged file, hash on the way; a file that ends is checked
//! finish         sync, take the segment's turn, then
//!   wide, new      fsync the staged directory, rename it whole
//!   otherwise      verify what is here; bad or missing files give their names to the staged ones
//!                  (`durable_write/replace.rs`), the metadata last
//! ```
//! Invariant: nothing has its final name before every byte of it matched the digest that the
//! catalog vouches for and was synced, and a segment's metadata is given its name only where all
//! files of it are good and durable. A replaced file is in `quarantine/`; between the two renames,
//! and after a crash there, it is missing, which a reader answers with another copy.
//! Not here: where bytes come from, and which segments should be here.

mod place;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::ChunkStore;
use super::staging::StagingDir;
use crate::digest::Digest;
use crate::durable_write::{StagedFile, remove_tree};
use crate::error::{Result, StorageError};
use crate::ids::TxnId;
use crate::layout::SegmentKey;
use crate::manifest::{Layout, SegmentRecord};
use crate::segment_meta::{ChunkFile, SegmentMeta};

/// Files that wait to be synced together, open: enough that parallel syncs pay, and few enough
/// that a segment of 1,000 columns does not need 1,000 descriptors.
const UNSYNCED_FILES_MAX: usize = 64;

/// Names a segment and the digest of its metadata: all that is needed to copy and verify it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentCopy {
    /// The segment.
    pub key: SegmentKey,
    /// How its chunks lie on disk.
    pub layout: Layout,
    /// The transaction that wrote it.
    pub txn: TxnId,
    /// Digest of its metadata file, as the catalog committed it or the writer vouches for it.
    pub meta_digest: Digest,
}

impl From<&SegmentRecord> for SegmentCopy {
    fn from(record: &SegmentRecord) -> Self {
        Self {
            key: record.key(),
            layout: record.layout,
            txn: record.txn,
            meta_digest: record.meta_digest,
        }
    }
}

/// A segment, or some files of one, on the way in. Dropped before [`Self::finish`], nothing of it
/// is left.
pub struct IncomingSegment {
    store: Arc<ChunkStore>,
    copy: SegmentCopy,
    meta: Arc<SegmentMeta>,
    meta_bytes: Bytes,
    /// The files to come, ascending by position.
    wanted: Vec<WantedFile>,
    /// All files of the segment are to come, and it need not be here.
    whole: bool,
    /// How many of `wanted` were begun; the last of them is the current one.
    begun: usize,
    current: Option<CurrentFile>,
    /// Complete, checked and not synced.
    unsynced: Vec<StagedFile>,
    /// Something went wrong: what is staged is worth nothing.
    failed: bool,
    /// Where it is staged. Removed on drop, before the share in the directory above it.
    dir: PathBuf,
    _staging: StagingDir,
}

/// What a file must be.
#[derive(Debug)]
struct WantedFile {
    /// Its position in [`SegmentMeta::chunk_files`].
    file: usize,
    path: PathBuf,
    length: u64,
    digest: Digest,
}

/// The file whose bytes are coming.
struct CurrentFile {
    staged: StagedFile,
    hasher: blake3::Hasher,
    length: u64,
}

impl fmt::Debug for IncomingSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { copy, wanted, begun, failed, .. } = self;
        f.debug_struct("IncomingSegment")
            .field("copy", copy)
            .field("wanted", &wanted.len())
            .field("begun", begun)
            .field("failed", failed)
            .finish_non_exhaustive()
    }
}

impl ChunkStore {
    /// Begins to take in a segment from elsewhere. It may be here already, whole or in parts.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when `meta_bytes` are not the metadata that `copy` names,
    /// [`StorageError::InvalidRequest`] when they are of another cluster,
    /// [`StorageError::NewerFormat`], [`StorageError::ReadOnly`], [`StorageError::Io`].
    pub fn receive(
        self: &Arc<Self>,
        copy: SegmentCopy,
        meta_bytes: Bytes,
    ) -> Result<IncomingSegment> {
        let meta = self.verify_meta(&copy, &meta_bytes)?;
        self.stage(copy, meta, meta_bytes, None)
    }

    /// The same for some files only, by position in [`SegmentMeta::chunk_files`], to replace bad
    /// or missing ones of a segment that is here. The metadata file is replaced, too, if it is
    /// bad or missing; then the files that are not sent are verified as well.
    ///
    /// # Errors
    /// As of [`Self::receive`]; [`StorageError::InvalidRequest`] for a position that the segment
    /// does not have.
    pub fn receive_files(
        self: &Arc<Self>,
        copy: SegmentCopy,
        meta_bytes: Bytes,
        files: &[usize],
    ) -> Result<IncomingSegment> {
        let meta = self.verify_meta(&copy, &meta_bytes)?;
        let count = meta.chunk_files().len();
        if let Some(file) = files.iter().find(|file| **file >= count) {
            return Err(StorageError::invalid_request(format!(
                "file {file} of segment {}, which has {count}",
                copy.key
            )));
        }
        self.stage(copy, meta, meta_bytes, Some(files))
    }

    /// The metadata in `bytes`, if it is what `copy` names.
    pub(super) fn verify_meta(&self, copy: &SegmentCopy, bytes: &[u8]) -> Result<Arc<SegmentMeta>> {
        let meta = SegmentMeta::decode(bytes, copy.meta_digest)
            .map_err(|error| at_path(error, copy.key.meta_path(copy.layout)))?;
        if meta.cluster() != self.identity.cluster {
            return Err(StorageError::invalid_request("a segment of another cluster"));
        }
        if (meta.key(), meta.layout(), meta.txn()) != (copy.key, copy.layout, copy.txn) {
            return Err(StorageError::corrupt(
                copy.key.meta_path(copy.layout),
                "its metadata is that of another segment",
            ));
        }
        Ok(meta)
    }

    fn stage(
        self: &Arc<Self>,
        copy: SegmentCopy,
        meta: Arc<SegmentMeta>,
        meta_bytes: Bytes,
        some: Option<&[usize]>,
    ) -> Result<IncomingSegment> {
        self.writer.check_writable()?;
        let staging = self.staging.share(copy.txn)?;
        let dir = staging.place();
        if let Err(error) = self.vfs.mkdir(&dir) {
            return Err(self.localised(StorageError::io("mkdir", dir, error)));
        }
        let files = meta.chunk_files().into_iter().enumerate();
        let files = files.filter(|(file, _)| some.is_none_or(|some| some.contains(file)));
        let wanted = files.map(|(file, ChunkFile { path, meta, .. })| WantedFile {
            file,
            path,
            length: meta.length,
            digest: meta.digest,
        });
        Ok(IncomingSegment {
            store: Arc::clone(self),
            copy,
            wanted: wanted.collect(),
            meta,
            meta_bytes,
            whole: some.is_none(),
            begun: 0,
            current: None,
            unsynced: Vec::new(),
            failed: false,
            dir,
            _staging: staging,
        })
    }
}

impl IncomingSegment {
    /// The metadata, verified.
    pub fn meta(&self) -> &Arc<SegmentMeta> {
        &self.meta
    }

    /// Appends bytes to a file, by its position in [`SegmentMeta::chunk_files`]. Files come in
    /// ascending order, each from its start. Nothing is kept in memory.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] for more bytes than the metadata says, and when the file before
    /// is not what the metadata says, [`StorageError::Missing`] for a file that was left out,
    /// [`StorageError::InvalidRequest`] for a file that is not to come, or not now,
    /// [`StorageError::Io`], [`StorageError::ReadOnly`]. After an error there is nothing left but
    /// to drop it.
    pub fn write(&mut self, file: usize, bytes: &[u8]) -> Result<()> {
        self.check_usable()?;
        let written = self.try_write(file, bytes);
        self.failed = written.is_err();
        written
    }

    /// Checks length and digest of every file, syncs them, and gives them their names.
    ///
    /// On `Ok` the segment, or the files, survive a crash. A whole segment that is here already is
    /// read back from the disk, and what is bad of it is replaced. On an error nothing that was
    /// not here is here, and a file to be replaced is as it was, missing, or replaced.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] and [`StorageError::Missing`] naming the file that did not come
    /// right, or, where metadata was to be replaced, is not right here; [`StorageError::Io`],
    /// [`StorageError::ReadOnly`], [`StorageError::InvalidRequest`] after an error of
    /// [`Self::write`].
    pub fn finish(mut self) -> Result<()> {
        self.check_usable()?;
        while self.begun < self.wanted.len() {
            self.begin()?;
        }
        self.end_current()?;
        self.stage_meta()?;
        self.sync_staged()?;
        let _turn = self.store.turns.take([self.copy.key]);
        self.place().map_err(|error| self.store.localised(error))
    }

    fn check_usable(&self) -> Result<()> {
        if self.failed {
            return Err(StorageError::invalid_request("a segment whose writing failed before"));
        }
        Ok(())
    }

    fn try_write(&mut self, file: usize, bytes: &[u8]) -> Result<()> {
        let unexpected =
            || StorageError::invalid_request(format!("file {file} of a segment, out of turn"));
        while self.current_wanted().is_none_or(|current| current.file < file) {
            if self.wanted.get(self.begun).is_none_or(|next| next.file > file) {
                return Err(unexpected());
            }
            self.begin()?;
        }
        let Self { store, wanted, begun, current, .. } = self;
        let wanted = begun.checked_sub(1).and_then(|at| wanted.get(at));
        let (Some(current), Some(wanted)) = (current, wanted.filter(|w| w.file == file)) else {
            return Err(unexpected());
        };
        let length = current.length.saturating_add(bytes.len() as u64);
        if length > wanted.length {
            let detail = format!("more than its {} bytes came", wanted.length);
            return Err(StorageError::corrupt(&wanted.path, detail));
        }
        current.length = length;
        current.hasher.update(bytes);
        current.staged.write(bytes).map_err(|error| store.localised(error))
    }

    fn current_wanted(&self) -> Option<&WantedFile> {
        self.begun.checked_sub(1).and_then(|at| self.wanted.get(at))
    }

    /// Ends the current file, and creates the next one.
    fn begin(&mut self) -> Result<()> {
        self.end_current()?;
        let Some(WantedFile { path, .. }) = self.wanted.get(self.begun) else { return Ok(()) };
        let staged = self.create(path)?;
        self.begun += 1;
        self.current = Some(CurrentFile { staged, hasher: blake3::Hasher::new(), length: 0 });
        Ok(())
    }

    fn end_current(&mut self) -> Result<()> {
        let Some(CurrentFile { staged, hasher, length }) = self.current.take() else {
            return Ok(());
        };
        if let Some(wanted) = self.current_wanted() {
            wanted.check(length, Digest::from_bytes(*hasher.finalize().as_bytes()))?;
        }
        self.unsynced.push(staged);
        if self.unsynced.len() >= UNSYNCED_FILES_MAX {
            self.sync_staged()?;
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> Result<StagedFile> {
        let staged = self.dir.join(path.file_name().unwrap_or_default());
        let staged = self.store.writer.create(self.store.vfs.as_ref(), staged);
        staged.map_err(|error| self.store.localised(error))
    }

    fn stage_meta(&mut self) -> Result<()> {
        let mut staged = self.create(&self.meta_path())?;
        staged.write(&self.meta_bytes).map_err(|error| self.store.localised(error))?;
        self.unsynced.push(staged);
        Ok(())
    }

    fn sync_staged(&mut self) -> Result<()> {
        let files = std::mem::take(&mut self.unsynced);
        self.store.writer.sync_files(files).map_err(|error| self.store.localised(error))
    }

    fn meta_path(&self) -> PathBuf {
        self.copy.key.meta_path(self.copy.layout)
    }
}

impl WantedFile {
    fn check(&self, length: u64, digest: Digest) -> Result<()> {
        let Self { path, length: expected, .. } = self;
        if length == 0 && *expected > 0 {
            return Err(StorageError::Missing { path: path.clone() });
        }
        if length != *expected {
            let detail = format!("{length} bytes came, not {expected}");
            return Err(StorageError::corrupt(path, detail));
        }
        if digest != self.digest {
            let detail = format!("bytes with digest {digest} came, not {}", self.digest);
            return Err(StorageError::corrupt(path, detail));
        }
        Ok(())
    }
}

impl Drop for IncomingSegment {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(self.store.vfs.as_ref(), &self.dir, 1)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            // It is removed at the next open.
            tracing::debug!(path = %self.dir.display(), %error, "staged files left");
        }
    }
}

/// The error with the path of the file that it is about, which the decoder does not know.
pub(super) fn at_path(error: StorageError, path: PathBuf) -> StorageError {
    match error {
        StorageError::Corrupt { detail, .. } => StorageError::corrupt(path, detail),
        other => other,
    }
}
