//! The chunks on one worker's disk.
//!
//! Invariant: paths are built from ids only ([`crate::layout`]); a segment is either wholly there
//! or not there, before and after a crash; what is read here is unverified until
//! [`crate::segment_meta`] and [`crate::segment_reader`] have checked it.
//! Not here: which segments are live (the catalog), who else has a copy (the coordinator).
//!
//! Segments come in whole from this process ([`ChunkStore::publish`]), in pieces from elsewhere
//! (`chunk_store/incoming.rs`), are read back and judged (`check.rs`), and leave by
//! [`ChunkStore::remove_segment`] or into `quarantine/` (`quarantine.rs`).

mod check;
mod identity;
mod incoming;
mod quarantine;
mod segment_turns;
mod staging;
mod usage;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use bytes::Bytes;

use crate::durable_write::{DurableWriter, NewFile, Placement, remove_tree};
use crate::error::{Result, StorageError};
use crate::ids::{ChunkId, SliceId, TableId, TxnId, WorkerId};
use crate::layout::{
    CHUNKS_DIR, LOCK_FILE, QUARANTINE_DIR, SegmentKey, TMP_DIR, parse_number, parse_slice_entry,
    relative,
};
use crate::manifest::{Layout, SegmentRecord};
use crate::segment_meta::{ByteRange, SEGMENT_META_BYTES_MAX, SegmentMeta};
use crate::segment_writer::EncodedSegment;
use crate::vfs::{Vfs, VfsLock};

pub(crate) use check::lacks_resources;
pub use check::{BadPart, ReadFrom, SegmentCheck};
pub use identity::Identity;
pub use incoming::{IncomingSegment, SegmentCopy};
pub use quarantine::{QUARANTINE_BYTES_MAX, QUARANTINE_FILES_MAX};
use segment_turns::SegmentTurns;
use staging::{Staging, StagingDir};

/// The largest run of bytes read at once: bounds what a bad length can allocate. A row group of
/// one column of text has at most about 1 GiB.
pub const EXTENT_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

/// A data directory, locked for this process.
#[derive(Debug)]
pub struct ChunkStore {
    root: PathBuf,
    identity: Identity,
    vfs: Arc<dyn Vfs>,
    writer: DurableWriter,
    staging: Arc<Staging>,
    turns: SegmentTurns,
    _lock: Box<dyn VfsLock>,
    /// Dropped behind the lock.
    alive: Arc<()>,
}

impl ChunkStore {
    /// Opens a data directory for a worker, and makes it one when it is empty. `dir` must exist.
    /// What a crash left under `tmp/` is removed.
    ///
    /// On `Ok` the directory's identity survives a crash, and no other process has it open.
    ///
    /// # Errors
    /// [`StorageError::Locked`], [`StorageError::WrongIdentity`], [`StorageError::NewerFormat`],
    /// [`StorageError::Corrupt`] when chunks are there and the identity is not.
    pub fn open(dir: &Path, identity: Identity, vfs: Arc<dyn Vfs>) -> Result<Self> {
        let lock_path = dir.join(LOCK_FILE);
        let lock = vfs.lock(&lock_path).map_err(|e| StorageError::io("lock", &lock_path, e))?;
        let lock = lock.ok_or_else(|| StorageError::Locked { path: dir.to_path_buf() })?;
        let writer = DurableWriter::new(dir);
        identity::establish(dir, identity, vfs.as_ref(), &writer)?;
        for name in [CHUNKS_DIR, TMP_DIR, QUARANTINE_DIR] {
            writer.ensure_dir(vfs.as_ref(), &dir.join(name))?;
        }
        let staging = Staging::new(dir, Arc::clone(&vfs));
        staging.empty()?;
        Ok(Self {
            root: dir.to_path_buf(),
            identity,
            vfs,
            writer,
            staging: Arc::new(staging),
            turns: SegmentTurns::default(),
            _lock: lock,
            alive: Arc::new(()),
        })
    }

    /// Whose data directory this is; `None` when it is nobody's yet.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`], [`StorageError::NewerFormat`].
    pub fn read_identity(dir: &Path, vfs: &dyn Vfs) -> Result<Option<Identity>> {
        identity::read(dir, vfs)
    }

    /// The id of the worker that a data directory is for, chosen now when it has none.
    ///
    /// On `Ok` the id survives a crash: what registers with it comes back as the same worker.
    ///
    /// # Errors
    /// [`StorageError::Io`], [`StorageError::Corrupt`].
    pub fn reserve_worker(dir: &Path, vfs: &dyn Vfs) -> Result<WorkerId> {
        identity::reserve(dir, vfs)
    }

    /// Whose data directory this is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The data directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What cannot be upgraded any more once the directory is free for another process.
    pub fn alive(&self) -> Weak<()> {
        Arc::downgrade(&self.alive)
    }

    /// Whether segments can be written: `false` from the first failed fsync until a restart.
    pub fn is_writable(&self) -> bool {
        self.writer.is_writable()
    }

    /// Writes segments to the disk, and their names.
    ///
    /// On `Ok` every byte of every segment, and its name, survives a crash. On an error none of
    /// them may be named by a commit; what was written is removed as far as possible, now or by
    /// garbage collection. Files are synced in parallel and each directory once, so one call for
    /// all segments of a transaction costs far less than one call each.
    ///
    /// # Errors
    /// [`StorageError::Io`], [`StorageError::ReadOnly`] after an earlier failed fsync,
    /// [`StorageError::InvalidRequest`] when a segment is of another cluster.
    pub fn publish(&self, segments: Vec<EncodedSegment>) -> Result<Vec<SegmentRecord>> {
        if segments.iter().any(|segment| segment.meta.cluster() != self.identity.cluster) {
            return Err(StorageError::invalid_request("a segment of another cluster"));
        }
        let _turn = self.turns.take(segments.iter().map(|segment| segment.record.key()));
        let mut staging: HashMap<TxnId, StagingDir> = HashMap::new();
        let mut files = Vec::new();
        let mut placements = Vec::new();
        for segment in &segments {
            let txn = segment.record.txn;
            let share = match staging.entry(txn) {
                Entry::Occupied(shared) => shared.into_mut(),
                Entry::Vacant(vacant) => vacant.insert(self.staging.share(txn)?),
            };
            let place = share.place();
            self.plan(segment, &place, &mut files, &mut placements);
        }
        let result = self.writer.publish(self.vfs.as_ref(), &files, &placements);
        drop(staging);
        result.map_err(|error| self.localised(error))?;
        Ok(segments.into_iter().map(|segment| segment.record).collect())
    }

    fn plan(
        &self,
        segment: &EncodedSegment,
        place: &Path,
        files: &mut Vec<NewFile>,
        placements: &mut Vec<Placement>,
    ) {
        let key = segment.record.key();
        let meta_path = key.meta_path(segment.record.layout);
        let content = segment.files.iter().map(|file| (&file.path, &file.bytes));
        let content = content.chain([(&meta_path, &segment.meta_bytes)]);
        match segment.record.layout {
            Layout::Wide => {
                for (path, bytes) in content {
                    let name = path.file_name().unwrap_or_default();
                    files.push(NewFile { staged: place.join(name), bytes: bytes.clone() });
                }
                let target = self.root.join(key.wide_dir());
                placements.push(Placement { staged: place.to_path_buf(), target, is_dir: true });
            }
            Layout::Packed => {
                // The metadata comes last: where it is, the pack is.
                for (path, bytes) in content {
                    let extension = path.extension().unwrap_or_default();
                    let staged = place.with_extension(extension);
                    files.push(NewFile { staged: staged.clone(), bytes: bytes.clone() });
                    let target = self.root.join(path);
                    placements.push(Placement { staged, target, is_dir: false });
                }
            }
        }
    }

    /// The bytes of a segment's metadata file, unverified: see [`SegmentMeta::decode`].
    ///
    /// # Errors
    /// [`StorageError::Missing`], [`StorageError::Io`], [`StorageError::Corrupt`] when the file
    /// is larger than any metadata.
    pub fn read_segment_meta(&self, key: SegmentKey, layout: Layout) -> Result<Bytes> {
        let path = key.meta_path(layout);
        let full = self.root.join(&path);
        let length = self.vfs.file_length(&full).map_err(|e| StorageError::io("read", &path, e))?;
        if length > SEGMENT_META_BYTES_MAX {
            return Err(StorageError::corrupt(path, format!("it has {length} bytes")));
        }
        self.read(path, ByteRange { offset: 0, length })
    }

    /// A segment's metadata, verified against the digest that the catalog committed.
    ///
    /// # Errors
    /// As of [`Self::read_segment_meta`] and [`SegmentMeta::decode`], with the path of the file.
    pub fn segment_meta(&self, record: &SegmentRecord) -> Result<Arc<SegmentMeta>> {
        let bytes = self.read_segment_meta(record.key(), record.layout)?;
        SegmentMeta::decode(&bytes, record.meta_digest)
            .map_err(|error| incoming::at_path(error, record.key().meta_path(record.layout)))
    }

    /// Bytes of the file that a chunk lies in, unverified: see
    /// [`ColumnMeta::verify`](crate::segment_meta::ColumnMeta::verify).
    ///
    /// # Errors
    /// [`StorageError::Missing`], [`StorageError::Corrupt`] when the file is too short,
    /// [`StorageError::Io`], [`StorageError::InvalidRequest`] beyond [`EXTENT_BYTES_MAX`].
    pub fn read_extent(&self, chunk: &ChunkId, layout: Layout, range: ByteRange) -> Result<Bytes> {
        let key = SegmentKey::from(*chunk);
        self.read(key.file_path(layout, chunk.column, chunk.version), range)
    }

    fn read(&self, path: PathBuf, range: ByteRange) -> Result<Bytes> {
        if range.length > EXTENT_BYTES_MAX {
            return Err(StorageError::invalid_request(format!("{} bytes at once", range.length)));
        }
        let full = self.root.join(&path);
        // Fits: bounded above.
        match self.vfs.read_at(&full, range.offset, range.length as usize) {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(StorageError::corrupt(path, "it is too short"))
            }
            Err(error) => Err(StorageError::io("read", path, error)),
        }
    }

    /// Removes a segment. Removing what is not there is no error.
    ///
    /// On `Ok` the space is free; the removal itself may be undone by a crash, which leaves a
    /// segment that no commit names, whole or without its metadata.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn remove_segment(&self, key: SegmentKey, layout: Layout) -> Result<()> {
        let _turn = self.turns.take([key]);
        // Without its metadata a segment counts as not there, from the first step on.
        let meta = self.root.join(key.meta_path(layout));
        let removed = self.writer.remove_durable(self.vfs.as_ref(), &meta);
        removed.map_err(|error| self.localised(error))?;
        let path = match layout {
            Layout::Wide => key.wide_dir(),
            Layout::Packed => key.pack_path(),
        };
        let full = self.root.join(&path);
        let removed = match layout {
            Layout::Wide => remove_tree(self.vfs.as_ref(), &full, 1),
            Layout::Packed => self.vfs.remove_file(&full),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StorageError::io("remove", path, error))
            }
            _ => Ok(()),
        }
    }

    /// The segments on this disk, in the order of their ids: live ones, and garbage, also what is
    /// left of one without its metadata. Entries that are not named like ours are passed over.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn list_segments(&self) -> Result<Vec<(SegmentKey, Layout)>> {
        let mut found = Vec::new();
        let chunks = self.root.join(CHUNKS_DIR);
        for (table, dir) in self.numbered_dirs::<u64>(&chunks)? {
            for (slice, dir) in self.numbered_dirs::<u16>(&dir)? {
                for entry in self.list(&dir)? {
                    let Some((segment, layout)) = parse_slice_entry(&entry.name, entry.is_dir)
                    else {
                        continue;
                    };
                    let (table, slice) = (TableId(table), SliceId(slice));
                    found.push((SegmentKey { table, slice, segment }, layout));
                }
            }
        }
        found.sort_by_key(|(key, layout)| (*key, *layout == Layout::Packed));
        // A packed segment has two files here.
        found.dedup();
        Ok(found)
    }

    /// Bytes that may still be written to the volume.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn free_space(&self) -> Result<u64> {
        self.vfs.free_space(&self.root).map_err(|e| StorageError::io("statvfs", &self.root, e))
    }

    fn numbered_dirs<T: std::str::FromStr + ToString>(
        &self,
        dir: &Path,
    ) -> Result<Vec<(T, PathBuf)>> {
        let entries = self.list(dir)?.into_iter().filter(|entry| entry.is_dir);
        Ok(entries.filter_map(|e| Some((parse_number(&e.name)?, dir.join(&e.name)))).collect())
    }

    fn list(&self, dir: &Path) -> Result<Vec<crate::vfs::VfsEntry>> {
        self.vfs.list(dir).map_err(|e| StorageError::io("list", relative(dir, &self.root), e))
    }

    /// The directory of a segment's files, made if it is missing; it survives a crash, its entries
    /// may not.
    fn durable_dir(&self, copy: &SegmentCopy) -> Result<PathBuf> {
        let vfs = self.vfs.as_ref();
        match copy.layout {
            Layout::Wide => {
                let dir = self.root.join(copy.key.wide_dir());
                self.writer.make_dir(vfs, &dir)?;
                Ok(dir)
            }
            Layout::Packed => {
                let dir = self.root.join(copy.key.slice_dir());
                self.writer.ensure_dir(vfs, &dir)?;
                Ok(dir)
            }
        }
    }

    /// Errors of the writer have full paths; users of the store know relative ones.
    fn localised(&self, error: StorageError) -> StorageError {
        match error {
            StorageError::Io { op, path, source } => {
                StorageError::Io { op, path: relative(&path, &self.root), source }
            }
            StorageError::Missing { path } => {
                StorageError::Missing { path: relative(&path, &self.root) }
            }
            other => other,
        }
    }
}
