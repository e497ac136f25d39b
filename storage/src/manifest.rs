//! What the catalog knows about a segment: enough to plan, prune and route without a disk.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::delete_vector::DeleteVector;
use crate::digest::Digest;
use crate::encoding::ChunkEncoding;
use crate::ids::{ColumnId, ColumnVersion, SegmentId, SliceId, TableId, TxnId, WorkerId};
use crate::zone_map::ZoneMap;

/// How the chunks of a segment lie on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// One file per column chunk.
    Wide,
    /// All chunks in one multi-column Parquet file: small or very wide segments.
    Packed,
}

/// A segment as a commit names it. Immutable: a new column version or delete vector is a new record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SegmentRecord {
    /// The table the segment belongs to.
    pub table: TableId,
    /// The slice of the table.
    pub slice: SliceId,
    /// The segment.
    pub segment: SegmentId,
    /// The transaction that wrote it.
    pub txn: TxnId,
    /// How its chunks lie on disk.
    pub layout: Layout,
    /// Rows in the segment, deleted ones included.
    pub rows: u64,
    /// Rows of each row group, in order; the same for every column.
    pub row_groups: Vec<u32>,
    /// Bytes of all chunks on disk, one copy.
    pub bytes: u64,
    /// Digest of the segment's metadata file, which holds the digests of the chunks.
    pub meta_digest: Digest,
    /// The columns and what is known of their values over the whole segment.
    pub columns: BTreeMap<ColumnId, ColumnRecord>,
    /// Workers with a verified copy of every chunk, the slice's owner first.
    pub holders: Vec<WorkerId>,
    /// The rows that this snapshot does not see; absent when it sees all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<DeleteVector>,
    /// The column whose slice hash gave each of its rows to the slice; absent where rows lie in it for
    /// another reason, and in records of before format 7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routed_by: Option<ColumnId>,
}

impl SegmentRecord {
    /// Rows that are deleted.
    pub fn rows_deleted(&self) -> u64 {
        self.deleted.as_ref().map_or(0, DeleteVector::rows)
    }

    /// Rows that a snapshot sees.
    pub fn live_rows(&self) -> u64 {
        self.rows.saturating_sub(self.rows_deleted())
    }
}

/// One column of a segment as a commit names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnRecord {
    /// The version of the column that this snapshot reads.
    pub version: ColumnVersion,
    /// Bytes of the chunk on disk.
    pub bytes: u64,
    /// How its values are written, in the last row group where not all are alike; absent in
    /// records of before format 6. For people: nothing is read by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<ChunkEncoding>,
    /// Bounds and NULL count over all rows of the segment.
    pub zone: ZoneMap,
}
