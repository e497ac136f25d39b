//! Small chunks that were read lately, verified.
//!
//! A chunk of a small table is a few hundred bytes. To fetch it again takes four system calls and a
//! thread that may wait for them, many times what decoding it takes. Chunks never change (I1), so
//! what was verified once stays right.
//!
//! A chunk is found under the worker that it came from: a plan that says that this one has no copy
//! is taken at its word.
//!
//! Not here: large chunks, for which the page cache of the system is the cache.

use basalt_engine::chunks::ChunkRead;
use basalt_engine::scan::ScanSegment;
use basalt_storage::digest::Digest;
use basalt_storage::ids::{ColumnId, SegmentId, WorkerId};
use basalt_storage::segment_reader::VerifiedBytes;
use moka::sync::Cache;

/// The largest chunk that is kept, in bytes.
const CHUNK_BYTES_MAX: u64 = 16 << 10;
/// Bytes that are kept.
const CACHE_BYTES_MAX: u64 = 64 << 20;
/// What an entry takes beside its bytes, about.
const ENTRY_BYTES: u64 = 256;

/// Metadata by its digest says which bytes a column's row group is.
type Key = (WorkerId, SegmentId, Digest, ColumnId, usize);

/// The cache of one worker. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct SmallChunks(Cache<Key, VerifiedBytes>);

impl Default for SmallChunks {
    fn default() -> Self {
        let weight = |_: &Key, bytes: &VerifiedBytes| {
            u32::try_from(bytes.length() + ENTRY_BYTES).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().max_capacity(CACHE_BYTES_MAX).weigher(weight).build())
    }
}

impl SmallChunks {
    /// A chunk that came from one of the segment's holders.
    pub(crate) fn get(&self, segment: &ScanSegment, read: &ChunkRead) -> Option<VerifiedBytes> {
        segment.holders.iter().find_map(|holder| self.0.get(&key(*holder, segment, read)))
    }

    /// Keeps a chunk, if it is small.
    pub(crate) fn keep(
        &self,
        from: WorkerId,
        segment: &ScanSegment,
        read: &ChunkRead,
        bytes: &VerifiedBytes,
    ) {
        if bytes.length() <= CHUNK_BYTES_MAX {
            self.0.insert(key(from, segment, read), bytes.clone());
        }
    }
}

fn key(from: WorkerId, segment: &ScanSegment, read: &ChunkRead) -> Key {
    (from, segment.segment, segment.meta_digest, read.column, read.row_group)
}
