//! The chunks on one worker's disk.
//!
//! Invariant: paths are built from ids only ([`crate::layout`]); a segment is either wholly there
//! or not there, before and after a crash; what is read here is unverified until
//! [`crate::segment_meta`] and [`crate::segment_reader`] have checked it.
//! Not here: which segments are live (the catalog), who else has a copy (the coordinator).

mod identity;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use uuid::Uuid;

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

pub use identity::Identity;

/// How deep directories nest under `tmp/`: transaction, segment, and one to spare.
const TMP_DEPTH_MAX: usize = 4;

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
    /// Publications under way per transaction: the last one removes the staging directory.
    staging: Mutex<HashMap<TxnId, usize>>,
    _lock: Box<dyn VfsLock>,
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
        let store = Self {
            root: dir.to_path_buf(),
            identity,
            vfs,
            writer,
            staging: Mutex::new(HashMap::new()),
            _lock: lock,
        };
        store.empty_tmp()?;
        Ok(store)
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
        let mut staging: HashMap<TxnId, StagingDir<'_>> = HashMap::new();
        let mut files = Vec::new();
        let mut placements = Vec::new();
        for segment in &segments {
            let txn = segment.record.txn;
            if let Entry::Vacant(vacant) = staging.entry(txn) {
                vacant.insert(self.stage(txn)?);
            }
            // Its own name per publication: a segment may be sent again while a first try ends.
            let place = self.tmp(txn).join(Uuid::new_v4().as_simple().to_string());
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
        SegmentMeta::decode(&bytes, record.meta_digest).map_err(|error| match error {
            StorageError::Corrupt { detail, .. } => {
                StorageError::corrupt(record.key().meta_path(record.layout), detail)
            }
            other => other,
        })
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
        let remove = |path: PathBuf| {
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
        };
        match layout {
            Layout::Wide => {
                // Without its metadata a segment counts as not there, from the first step on.
                let meta = self.root.join(key.meta_path(layout));
                match self.vfs.remove_file(&meta) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(StorageError::io("remove", key.meta_path(layout), error));
                    }
                    _ => {}
                }
                remove(key.wide_dir())
            }
            Layout::Packed => {
                remove(key.meta_path(layout))?;
                remove(key.pack_path())
            }
        }
    }

    /// The segments on this disk, in the order of their ids: live ones, and garbage. Entries that
    /// are not named like ours are passed over.
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
        found.sort_by_key(|(key, _)| *key);
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

    fn empty_tmp(&self) -> Result<()> {
        let tmp = self.root.join(TMP_DIR);
        for entry in self.list(&tmp)? {
            let path = tmp.join(&entry.name);
            let removed = if entry.is_dir {
                remove_tree(self.vfs.as_ref(), &path, TMP_DEPTH_MAX)
            } else {
                self.vfs.remove_file(&path)
            };
            removed.map_err(|e| StorageError::io("remove", relative(&path, &self.root), e))?;
        }
        Ok(())
    }

    fn tmp(&self, txn: TxnId) -> PathBuf {
        self.root.join(TMP_DIR).join(txn.to_string())
    }

    /// Makes a transaction's staging directory, shared by its publications.
    fn stage(&self, txn: TxnId) -> Result<StagingDir<'_>> {
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = self.tmp(txn);
        match self.vfs.mkdir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(StorageError::io("mkdir", relative(&dir, &self.root), error));
            }
            _ => {}
        }
        *staging.entry(txn).or_default() += 1;
        Ok(StagingDir { store: self, txn })
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

/// A share in a transaction's staging directory.
struct StagingDir<'a> {
    store: &'a ChunkStore,
    txn: TxnId,
}

impl Drop for StagingDir<'_> {
    fn drop(&mut self) {
        let mut staging = self.store.staging.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(shares) = staging.get_mut(&self.txn) else { return };
        *shares -= 1;
        if *shares > 0 {
            return;
        }
        staging.remove(&self.txn);
        let dir = self.store.tmp(self.txn);
        if let Err(error) = self.store.vfs.remove_dir(&dir) {
            // It is removed at the next open.
            tracing::debug!(path = %dir.display(), %error, "staging directory left");
        }
    }
}
