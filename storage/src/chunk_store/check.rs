//! Reading segments back from the disk to see whether they are still what was committed: what a
//! scrubber and repair ask.
//!
//! Invariant: a file that is found good had, while it was read, exactly the length, the block
//! checksums and the digest that its metadata states. Nothing is changed here, and what hinders
//! the reader and not the disk (no free descriptors) never makes a file bad.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use super::{ChunkStore, SegmentCopy};
use crate::digest::Digest;
use crate::error::{Result, StorageError};
use crate::layout::BLOCK_BYTES;
use crate::manifest::Layout;
use crate::segment_meta::{ByteRange, ChunkFile, SegmentMeta};

/// Bytes read at once: whole blocks, enough for a disk to work at its speed, and nothing that a
/// worker's memory would notice.
const PIECE_BYTES: u64 = 16 * BLOCK_BYTES;

/// Where a check reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// Whatever is at hand, the page cache included.
    Cache,
    /// The disk: what is cached of a file is forgotten first, since the cache may be right where
    /// the disk is not. What is read stays cached, so that files in use get cold only once.
    Media,
}

/// What a check found.
#[derive(Debug)]
pub struct SegmentCheck {
    /// Bytes that were read.
    pub bytes: u64,
    /// Nothing of what was looked for is here.
    pub missing: bool,
    /// What is not as it was committed, missing parts included; empty when all is good.
    pub bad: Vec<BadPart>,
}

/// A part of a segment that must be replaced.
#[derive(Debug)]
pub enum BadPart {
    /// The metadata file: without it the others were not looked at.
    Meta(StorageError),
    /// A file of chunks.
    File {
        /// Its position in [`SegmentMeta::chunk_files`].
        file: usize,
        /// What is wrong with it.
        error: StorageError,
    },
}

impl BadPart {
    /// What is wrong.
    pub fn error(&self) -> &StorageError {
        match self {
            Self::Meta(error) | Self::File { error, .. } => error,
        }
    }
}

impl SegmentCheck {
    /// Whether all that was looked at is as it was committed.
    pub fn is_good(&self) -> bool {
        self.bad.is_empty()
    }

    /// Whether the metadata file is bad or missing.
    pub fn is_meta_bad(&self) -> bool {
        self.bad.iter().any(|part| matches!(part, BadPart::Meta(_)))
    }

    /// Positions of the bad and missing files, ascending, as
    /// [`ChunkStore::receive_files`] takes them.
    pub fn bad_files(&self) -> Vec<usize> {
        let files = self.bad.iter().filter_map(|part| match part {
            BadPart::Meta(_) => None,
            BadPart::File { file, .. } => Some(*file),
        });
        files.collect()
    }
}

impl ChunkStore {
    /// Reads all of a segment and verifies it against `copy`: the digest of the metadata, then
    /// length, every block's checksum and the digest of every file. Where the metadata is bad
    /// nothing else can be judged: see [`Self::check_files`]. Reads 1 MiB at a time, on this
    /// thread.
    ///
    /// # Errors
    /// Only what says nothing about the segment: [`StorageError::Io`] when the process is out of
    /// descriptors or memory.
    pub fn check_segment(&self, copy: &SegmentCopy, read: ReadFrom) -> Result<SegmentCheck> {
        let meta_path = copy.key.meta_path(copy.layout);
        self.prepare(&meta_path, read);
        let mut bytes = 0;
        let meta = self.read_segment_meta(copy.key, copy.layout).and_then(|meta| {
            bytes = meta.len() as u64;
            self.verify_meta(copy, &meta)
        });
        match judged(meta)? {
            Ok(meta) => {
                let mut check = self.check_files(&meta, read)?;
                check.bytes += bytes;
                check.missing = false;
                Ok(check)
            }
            Err(error) => {
                let missing =
                    matches!(error, StorageError::Missing { .. }) && !self.has_files(copy);
                Ok(SegmentCheck { bytes, missing, bad: vec![BadPart::Meta(error)] })
            }
        }
    }

    /// The same for the files alone, against metadata that was verified already: a peer's, where
    /// the file here is bad.
    ///
    /// # Errors
    /// As of [`Self::check_segment`].
    pub fn check_files(&self, meta: &SegmentMeta, read: ReadFrom) -> Result<SegmentCheck> {
        let mut check = SegmentCheck { bytes: 0, missing: true, bad: Vec::new() };
        for (file, chunk_file) in meta.chunk_files().iter().enumerate() {
            match judged(self.check_file(chunk_file, read, &mut check.bytes))? {
                Ok(()) => check.missing = false,
                Err(error) => {
                    check.missing &= matches!(error, StorageError::Missing { .. });
                    check.bad.push(BadPart::File { file, error });
                }
            }
        }
        Ok(check)
    }

    /// As [`Self::check_segment`], of the disk, and makes sure that a segment that is good stays:
    /// a process that died before it synced a directory leaves names that a power failure takes.
    ///
    /// On `Ok` a segment that was found good survives a crash.
    ///
    /// # Errors
    /// As of [`Self::check_segment`]; [`StorageError::ReadOnly`], [`StorageError::Io`] when the
    /// names cannot be made durable.
    pub fn confirm_segment(&self, copy: &SegmentCopy) -> Result<SegmentCheck> {
        let _turn = self.turns.take([copy.key]);
        let check = self.check_segment(copy, ReadFrom::Media)?;
        if check.is_good() {
            self.sync_names(copy).map_err(|error| self.localised(error))?;
        }
        Ok(check)
    }

    fn sync_names(&self, copy: &SegmentCopy) -> Result<()> {
        let dir = self.durable_dir(copy)?;
        self.writer.fsync_dir(self.vfs.as_ref(), &dir)
    }

    /// Verifies one file, up to the first thing that is wrong. Adds what it read to `bytes`.
    pub(super) fn check_file(
        &self,
        ChunkFile { path, meta, .. }: &ChunkFile<'_>,
        read: ReadFrom,
        bytes: &mut u64,
    ) -> Result<()> {
        self.prepare(path, read);
        let length = self.vfs.file_length(&self.root.join(path));
        let length = length.map_err(|e| StorageError::io("read", path, e))?;
        if length != meta.length {
            let detail = format!("it has {length} bytes, not {}", meta.length);
            return Err(StorageError::corrupt(path, detail));
        }
        let mut hasher = blake3::Hasher::new();
        for offset in (0..length).step_by(PIECE_BYTES as usize) {
            let range = ByteRange { offset, length: PIECE_BYTES.min(length - offset) };
            let piece = self.read(path.clone(), range)?;
            *bytes += range.length;
            if let Some(block) = meta.first_bad_block(offset, &piece) {
                return Err(StorageError::corrupt(
                    path,
                    format!("block {block} fails its checksum"),
                ));
            }
            hasher.update(&piece);
        }
        let found = Digest::from_bytes(*hasher.finalize().as_bytes());
        if found != meta.digest {
            let detail = format!("its digest is {found}, not {}", meta.digest);
            return Err(StorageError::corrupt(path, detail));
        }
        Ok(())
    }

    /// Makes the next read of a file one of what `read` says. Best effort: where a file cannot be
    /// opened, reading it tells, and where the system takes no advice, its cache is what there is.
    pub(super) fn prepare(&self, path: &Path, read: ReadFrom) {
        if read == ReadFrom::Media
            && let Err(error) = self.vfs.drop_cached(&self.root.join(path))
        {
            tracing::debug!(path = %path.display(), %error, "read through the page cache");
        }
    }

    /// Whether anything but the metadata is here.
    fn has_files(&self, copy: &SegmentCopy) -> bool {
        let is_there = |found: io::Result<bool>| match found {
            Ok(found) => found,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        };
        is_there(match copy.layout {
            Layout::Wide => {
                let listed = self.vfs.list(&self.root.join(copy.key.wide_dir()));
                listed.map(|entries| !entries.is_empty())
            }
            Layout::Packed => {
                self.vfs.file_length(&self.root.join(copy.key.pack_path())).map(|_| true)
            }
        })
    }
}

/// What was found out of a file, apart from what only says that the process could not read it.
pub(super) fn judged<T>(found: Result<T>) -> Result<Result<T>> {
    match found {
        Err(StorageError::Io { source, op, path }) if lacks_resources(&source) => {
            Err(StorageError::Io { op, path, source })
        }
        found => Ok(found),
    }
}

/// Whether an error says that the process lacks descriptors or memory, and nothing of the file.
pub(crate) fn lacks_resources(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|e| matches!(e, Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}
