//! Segment metadata: everything needed to read, verify and prune a segment's chunks without
//! opening them, and the root of trust for their bytes.
//!
//! ```text
//! "BSLTSEGM"  8 bytes magic
//! version     u32 LE   newer versions are refused
//! length      u32 LE   of the payload
//! payload              protobuf message `SegmentMeta` (`segment_meta/proto.rs`, `FORMAT.md`)
//! crc         u32 LE   CRC-32C of all bytes before it
//! ```
//! Invariant: a [`SegmentMeta`] is consistent in itself (row counts add up, extents lie inside
//! their files, there is a checksum for every block), and it came from bytes with the digest that
//! the catalog committed. Not here: reading chunks ([`crate::segment_reader`]).

mod codec;
mod pages;
mod proto;
mod types;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use arrow::datatypes::DataType;
use bytes::Bytes;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::page_index::offset_index::PageLocation;

use crate::digest::Digest;
use crate::encoding::ChunkEncoding;
use crate::error::{Result, StorageError};
use crate::ids::{ChunkId, ClusterId, ColumnId, ColumnVersion, TxnId, WorkerId};
use crate::layout::{BLOCK_BYTES, SegmentKey};
use crate::manifest::{ColumnRecord, Layout, SegmentRecord};
use crate::zone_map::ZoneMap;

pub(crate) use codec::encode;
pub(crate) use pages::{Pages, page_count};

/// The largest metadata file that is read: bounds what a damaged length can allocate. The
/// metadata of 64 row groups of 3,000 columns, half full ones of many sources, is about 50 MiB.
pub const SEGMENT_META_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// A run of bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ByteRange {
    /// The first byte.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

impl ByteRange {
    /// The offset after the last byte.
    pub fn end(self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    /// Whether every byte of `other` is in this range.
    pub fn contains(self, other: Self) -> bool {
        self.offset <= other.offset && other.end() <= self.end()
    }
}

/// A file of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMeta {
    /// Bytes in the file.
    pub length: u64,
    /// BLAKE3 digest of the whole file.
    pub digest: Digest,
    /// CRC-32C of each [`BLOCK_BYTES`] block, the last one perhaps shorter.
    pub block_crcs: Vec<u32>,
}

impl FileMeta {
    /// Of `bytes`, which begin with a block and end with one or with the file, the number of the
    /// first block that fails its checksum, or that the file does not have.
    pub(crate) fn first_bad_block(&self, offset: u64, bytes: &[u8]) -> Option<usize> {
        // Fits: a file has fewer blocks than the checksums that are in memory.
        let first = (offset / BLOCK_BYTES) as usize;
        let blocks = bytes.chunks(BLOCK_BYTES as usize).zip(first..);
        let is_bad = |(block, number): &(&[u8], usize)| {
            self.block_crcs.get(*number) != Some(&crc32c::crc32c(block))
        };
        blocks.into_iter().find(is_bad).map(|(_, number)| number)
    }
}

/// A file of a segment and what is in it.
#[derive(Debug, Clone)]
pub struct ChunkFile<'a> {
    /// A chunk in it, to name it by: the only one of a wide segment, one of many of a packed one.
    pub chunk: ChunkId,
    /// Its path, relative to the data directory.
    pub path: PathBuf,
    /// How long it is, and its checksums.
    pub meta: &'a FileMeta,
}

/// A segment as its metadata file describes it.
#[derive(Debug)]
pub struct SegmentMeta {
    pub(crate) cluster: ClusterId,
    pub(crate) key: SegmentKey,
    pub(crate) txn: TxnId,
    pub(crate) layout: Layout,
    pub(crate) rows: u64,
    pub(crate) row_groups: Arc<[u32]>,
    pub(crate) sort_key: Vec<ColumnId>,
    pub(crate) columns: BTreeMap<ColumnId, ColumnMeta>,
}

/// One column of a segment.
#[derive(Debug)]
pub struct ColumnMeta {
    pub(crate) chunk: ChunkId,
    pub(crate) name: String,
    pub(crate) data_type: DataType,
    pub(crate) nullable: bool,
    pub(crate) encoding: String,
    pub(crate) digest: Digest,
    pub(crate) layout: Layout,
    pub(crate) file: Arc<FileMeta>,
    pub(crate) row_groups: Arc<[u32]>,
    pub(crate) extents: Vec<ByteRange>,
    pub(crate) zones: Vec<ZoneMap>,
    /// Per row group.
    pub(crate) pages: Vec<Pages>,
    pub(crate) zone: ZoneMap,
    pub(crate) footer: Bytes,
    pub(crate) parsed: OnceLock<Arc<ParquetMetaData>>,
}

impl SegmentMeta {
    /// Reads a metadata file whose digest must be `expected`, the one the catalog committed.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when the digest differs or, for bytes that were wrong when they
    /// were committed, when they make no sense; [`StorageError::NewerFormat`].
    pub fn decode(bytes: &[u8], expected: Digest) -> Result<Arc<Self>> {
        let found = Digest::of(bytes);
        if found != expected {
            return Err(StorageError::corrupt(
                "segment metadata",
                format!("its digest is {found}, the catalog has {expected}"),
            ));
        }
        codec::decode(bytes).map(Arc::new)
    }

    /// Reads a metadata file that no catalog vouches for: for offline inspection, and for rebuilding
    /// a lost catalog. Its own checksum is verified.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`], [`StorageError::NewerFormat`].
    pub fn decode_unvouched(bytes: &[u8]) -> Result<Arc<Self>> {
        codec::decode(bytes).map(Arc::new)
    }

    /// The cluster that wrote it.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Which segment this is.
    pub fn key(&self) -> SegmentKey {
        self.key
    }

    /// The transaction that wrote it.
    pub fn txn(&self) -> TxnId {
        self.txn
    }

    /// How the chunks lie on disk.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Rows in the segment, deleted ones included.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows of each row group.
    pub fn row_groups(&self) -> &[u32] {
        &self.row_groups
    }

    /// The columns that the rows are sorted by, NULLs last; empty when they are not sorted.
    pub fn sort_key(&self) -> &[ColumnId] {
        &self.sort_key
    }

    /// A column; `None` when the segment was written before the column was added.
    pub fn column(&self, id: ColumnId) -> Option<&ColumnMeta> {
        self.columns.get(&id)
    }

    /// All columns, by id.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = &ColumnMeta> {
        self.columns.values()
    }

    /// About what it takes in memory, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.columns.values().map(ColumnMeta::memory_bytes).sum()
    }

    /// What a commit says of the segment, when its metadata file has the digest `meta_digest`, and
    /// `holders` have it.
    pub fn record(&self, meta_digest: Digest, holders: Vec<WorkerId>) -> SegmentRecord {
        SegmentRecord {
            table: self.key.table,
            slice: self.key.slice,
            segment: self.key.segment,
            txn: self.txn,
            layout: self.layout,
            rows: self.rows,
            row_groups: self.row_groups.to_vec(),
            bytes: self.chunk_files().iter().map(|file| file.meta.length).sum(),
            meta_digest,
            columns: self.columns.iter().map(|(id, column)| (*id, column.record())).collect(),
            holders,
            deleted: None,
            routed_by: None,
        }
    }

    /// The files of the segment beside its metadata: one per column by ascending id, or the one of
    /// a packed segment. The order is the same wherever the metadata is.
    pub fn chunk_files(&self) -> Vec<ChunkFile<'_>> {
        let files = match self.layout {
            Layout::Wide => self.columns.len(),
            Layout::Packed => 1,
        };
        let columns = self.columns.values().take(files);
        columns.map(|c| ChunkFile { chunk: c.chunk, path: c.path(), meta: &c.file }).collect()
    }
}

impl ColumnMeta {
    /// The column's id.
    pub fn id(&self) -> ColumnId {
        self.chunk.column
    }

    /// The version of the column.
    pub fn version(&self) -> ColumnVersion {
        self.chunk.version
    }

    /// The chunk.
    pub fn chunk(&self) -> ChunkId {
        self.chunk
    }

    /// The column's name when the segment was written: a rename since then is in the catalog only.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type, in storage form.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// Whether NULL was allowed when the segment was written.
    pub fn nullable(&self) -> bool {
        self.nullable
    }

    /// How the values are encoded, for people: `plain`, `dictionary`, `plain+lz4`, ...
    pub fn encoding(&self) -> &str {
        &self.encoding
    }

    /// BLAKE3 digest of the chunk: of the file when it is a column file, of its extents one after
    /// the other when it lies in a packed file.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The file that the chunk lies in.
    pub fn file(&self) -> &FileMeta {
        &self.file
    }

    /// The path of that file, relative to the data directory.
    pub fn path(&self) -> PathBuf {
        SegmentKey::from(self.chunk).file_path(self.layout, self.chunk.column, self.chunk.version)
    }

    /// The name of that file in its directory.
    pub fn file_name(&self) -> String {
        let path = self.path();
        path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// About what it takes in memory: the footer once more, as it is parsed.
    fn memory_bytes(&self) -> usize {
        let zones = self.zones.len() + self.pages.iter().map(|p| p.zones.len()).sum::<usize>();
        let offsets = self.pages.iter().map(|p| p.offsets.len()).sum::<usize>();
        let blocks = self.file.block_crcs.len();
        size_of::<Self>()
            + zones * size_of::<ZoneMap>()
            + offsets * (size_of::<u64>() + size_of::<PageLocation>())
            + blocks * size_of::<u32>()
            + 3 * self.footer.len()
    }

    /// Bytes of the chunk on disk.
    pub fn bytes(&self) -> u64 {
        match self.layout {
            Layout::Wide => self.file.length,
            Layout::Packed => self.extents.iter().map(|extent| extent.length).sum(),
        }
    }

    /// What is known of the values of a row group; `None` when there is no such row group.
    pub fn zone(&self, row_group: usize) -> Option<&ZoneMap> {
        self.zones.get(row_group)
    }

    /// What is known of all values.
    pub fn segment_zone(&self) -> &ZoneMap {
        &self.zone
    }

    /// Where the values of a row group lie in the file; `None` when there is no such row group.
    pub fn extent(&self, row_group: usize) -> Option<ByteRange> {
        self.extents.get(row_group).copied()
    }

    /// The smallest run of whole blocks that covers `extent`: what to read so that the bytes can
    /// be verified. Ends with the file.
    pub fn blocks_for(&self, extent: ByteRange) -> ByteRange {
        let offset = extent.offset / BLOCK_BYTES * BLOCK_BYTES;
        let end = extent.end().div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES);
        let end = end.min(self.file.length);
        ByteRange { offset: offset.min(end), length: end.saturating_sub(offset) }
    }

    /// What the catalog keeps of the column.
    pub fn record(&self) -> ColumnRecord {
        ColumnRecord {
            version: self.version(),
            bytes: self.bytes(),
            encoding: ChunkEncoding::from_description(&self.encoding),
            zone: self.zone.clone(),
        }
    }

    /// The Parquet footer of the chunk, with only this column in it, parsed once.
    pub(crate) fn parquet_metadata(&self) -> Result<&Arc<ParquetMetaData>> {
        if let Some(parsed) = self.parsed.get() {
            return Ok(parsed);
        }
        let parsed = self.parse_footer()?;
        Ok(self.parsed.get_or_init(|| Arc::new(parsed)))
    }

    fn parse_footer(&self) -> Result<ParquetMetaData> {
        let path = self.path();
        let broken =
            |why: &str| StorageError::corrupt(&path, format!("its footer cannot be parsed: {why}"));
        let parsed =
            catch_unwind(AssertUnwindSafe(|| ParquetMetaDataReader::decode_metadata(&self.footer)))
                .map_err(|_| broken("the parser panicked"))?
                .map_err(|e| broken(&e.to_string()))?;
        self.check_footer(&path, &parsed)?;
        self.with_page_locations(parsed)
    }

    /// The footer must say of rows and extents what the metadata says, or values would be read
    /// from the wrong place or for the wrong rows.
    fn check_footer(&self, path: &Path, footer: &ParquetMetaData) -> Result<()> {
        let rows: Vec<i64> = footer.row_groups().iter().map(|group| group.num_rows()).collect();
        if !rows.iter().copied().eq(self.row_groups.iter().map(|rows| i64::from(*rows))) {
            return Err(StorageError::misaligned(
                path,
                format!("its row groups have {rows:?} rows, the segment's {:?}", self.row_groups),
            ));
        }
        for (group, extent) in footer.row_groups().iter().zip(&self.extents) {
            for column in group.columns() {
                let range = crate::parquet_footer::chunk_range(column)
                    .ok_or_else(|| StorageError::corrupt(path, "its footer has bad offsets"))?;
                if !extent.contains(range) {
                    return Err(StorageError::corrupt(path, "its footer points elsewhere"));
                }
            }
        }
        Ok(())
    }
}
