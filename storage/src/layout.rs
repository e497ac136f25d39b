//! Where things lie in a data directory, and the sizes of things. Paths are built from ids only.
//!
//! ```text
//! IDENTITY.json  LOCK
//! chunks/<table>/<slice>/<segment>/c<column>.v<version>.parquet   wide
//! chunks/<table>/<slice>/<segment>/segment.meta
//! chunks/<table>/<slice>/<segment>.pack.parquet                   packed
//! chunks/<table>/<slice>/<segment>.pack.meta
//! tmp/<txn>/...      staging, emptied at open
//! quarantine/...     bad files and stray segments, kept to be looked at
//! ```
//! Numbers are decimal, UUIDs 32 lower-case hexadecimal digits.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::ids::{ChunkId, ColumnId, ColumnVersion, SegmentId, SliceId, TableId};
use crate::manifest::{Layout, SegmentRecord};

/// Version of everything described in `FORMAT.md`; the reader refuses newer ones.
pub const FORMAT_VERSION: u32 = 1;

/// Rows of a full row group. 2^17: a column of eight bytes is 1 MiB, Redshift's block, which
/// decodes inside a level-2 cache; 32 of them make a full segment of one source. Fewer would prune better and
/// cost a decoder and a dictionary each.
pub const ROW_GROUP_ROWS: u32 = 131_072;

/// Rows of a page: what a scan can pass over within a row group without reading or decoding it. Eight make a
/// full row group. Part of the format: pages of all columns begin at the same rows.
pub const PAGE_ROWS: u32 = 16_384;

/// Rows of the largest segment: 32 full row groups. More would make the rewrite of one column, and
/// the re-copy of one bad chunk, long.
pub const SEGMENT_ROWS_MAX: u64 = 4 * 1024 * 1024;

/// Segments of fewer rows are packed: a file per column would cost more in names and syncs than
/// its bytes are worth.
pub const PACKED_ROWS_BELOW: u64 = 65_536;

/// Segments of more columns are packed: 1,000 files per segment is where directories, open files
/// and fsyncs start to dominate.
pub const WIDE_COLUMNS_MAX: usize = 1_000;

/// Bytes that one CRC-32C covers. 64 KiB: 4 bytes in 65,536 is nothing, and a page-sized read
/// stays a small read.
pub const BLOCK_BYTES: u64 = 65_536;

pub(crate) const IDENTITY_FILE: &str = "IDENTITY.json";
pub(crate) const WORKER_ID_FILE: &str = "WORKER_ID";
pub(crate) const LOCK_FILE: &str = "LOCK";
pub(crate) const CHUNKS_DIR: &str = "chunks";
pub(crate) const TMP_DIR: &str = "tmp";
pub(crate) const QUARANTINE_DIR: &str = "quarantine";
const META_FILE: &str = "segment.meta";
const PACK_SUFFIX: &str = ".pack.parquet";
const PACK_META_SUFFIX: &str = ".pack.meta";

/// Names a segment: its table, its slice and its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentKey {
    /// The table.
    pub table: TableId,
    /// The slice of the table.
    pub slice: SliceId,
    /// The segment.
    pub segment: SegmentId,
}

impl fmt::Display for SegmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.table, self.slice, self.segment)
    }
}

impl SegmentRecord {
    /// Which segment the record is of.
    pub fn key(&self) -> SegmentKey {
        SegmentKey { table: self.table, slice: self.slice, segment: self.segment }
    }

    /// The chunk of a column; `None` when the segment was written before the column was added.
    pub fn chunk(&self, column: ColumnId) -> Option<ChunkId> {
        self.columns.get(&column).map(|record| self.key().chunk(column, record.version))
    }
}

impl From<ChunkId> for SegmentKey {
    fn from(ChunkId { table, slice, segment, .. }: ChunkId) -> Self {
        Self { table, slice, segment }
    }
}

impl SegmentKey {
    /// The chunk of one of the segment's columns.
    pub fn chunk(self, column: ColumnId, version: ColumnVersion) -> ChunkId {
        let Self { table, slice, segment } = self;
        ChunkId { table, slice, segment, column, version }
    }

    /// The directory of the slice, relative to the data directory.
    pub(crate) fn slice_dir(self) -> PathBuf {
        [CHUNKS_DIR, &self.table.to_string(), &self.slice.to_string()].iter().collect()
    }

    /// The directory of a wide segment.
    pub(crate) fn wide_dir(self) -> PathBuf {
        self.slice_dir().join(self.segment.to_string())
    }

    /// The metadata file.
    pub fn meta_path(self, layout: Layout) -> PathBuf {
        match layout {
            Layout::Wide => self.wide_dir().join(META_FILE),
            Layout::Packed => self.slice_dir().join(format!("{}{PACK_META_SUFFIX}", self.segment)),
        }
    }

    /// The file that holds the chunk of a column.
    pub fn file_path(self, layout: Layout, column: ColumnId, version: ColumnVersion) -> PathBuf {
        match layout {
            Layout::Wide => self.wide_dir().join(column_file_name(column, version)),
            Layout::Packed => self.pack_path(),
        }
    }

    pub(crate) fn pack_path(self) -> PathBuf {
        self.slice_dir().join(format!("{}{PACK_SUFFIX}", self.segment))
    }
}

/// The name of a wide chunk's file in its segment's directory.
pub(crate) fn column_file_name(column: ColumnId, version: ColumnVersion) -> String {
    format!("c{column}.v{version}.parquet")
}

/// What an entry of a slice's directory is: a wide segment, or one of the two files of a packed one.
pub(crate) fn parse_slice_entry(name: &OsStr, is_dir: bool) -> Option<(SegmentId, Layout)> {
    let name = name.to_str()?;
    let (id, layout) = if is_dir {
        (name, Layout::Wide)
    } else {
        let id = name.strip_suffix(PACK_META_SUFFIX).or_else(|| name.strip_suffix(PACK_SUFFIX));
        (id?, Layout::Packed)
    };
    let segment: SegmentId = id.parse().ok()?;
    // One spelling per id: other spellings of the same UUID are not ours.
    (segment.to_string() == id).then_some((segment, layout))
}

/// The number that a directory is named for, if it is one of ours.
pub(crate) fn parse_number<T: std::str::FromStr + ToString>(name: &OsStr) -> Option<T> {
    let name = name.to_str()?;
    name.parse().ok().filter(|number: &T| number.to_string() == name)
}

/// A path inside the data directory, for messages.
pub(crate) fn relative(path: &Path, root: &Path) -> PathBuf {
    path.strip_prefix(root).unwrap_or(path).to_path_buf()
}
