//! Columns of row groups that scans decoded lately: a third of a query's time is decoding.
//!
//! ```text
//! scan ── get(segment, column, row group) ──▶ found: no disk, no checksum, no decoder
//!      └─ decodes ── keep ──▶ budget ──▶ the least useful go (S3-FIFO)
//! memory pool ── leave_room ──▶ budget shrinks while queries need the memory
//! ```
//! Invariant: what is found is what decoding the chunk again would give. Chunks never change (I1),
//! and the digest of their segment's metadata is part of the key: there is nothing to invalidate.
//!
//! A scan of much more than fits does not wash out what is read again and again: a column stays only
//! when it is asked for a second time ([`quick_cache`], S3-FIFO, Yang et al., SOSP 2023).

mod decoded;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::DataType;
use basalt_storage::digest::Digest;
use basalt_storage::ids::{ColumnId, SegmentId};
pub use decoded::DecodedColumn;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use crate::protocol;

/// What an entry takes beside its values, about, in bytes.
const ENTRY_BYTES: u64 = 512;
/// What a column of a row group takes, about, in bytes: only how much is remembered of what went
/// follows from it.
const COLUMN_BYTES_TYPICAL: u64 = 1 << 20;
/// Parts of the cache with a lock each. A column must fit into one part's budget.
const SHARDS: usize = 4;
/// The budget follows what queries leave only when that changed by this part of it: to change it takes
/// all locks.
const ROOM_STEPS: u64 = 32;

/// One column of one row group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ColumnKey {
    /// The segment.
    pub segment: SegmentId,
    /// Digest of its metadata, which says which bytes the column's are.
    pub meta_digest: Digest,
    /// The column.
    pub column: ColumnId,
    /// The row group.
    pub row_group: usize,
}

/// What is known of a column.
#[derive(Debug, Clone)]
enum Entry {
    /// Few of its rows were wanted once, and it was not decoded as a whole.
    Asked,
    Decoded(Arc<DecodedColumn>),
}

/// Bytes of an entry.
#[derive(Debug, Clone)]
struct Weight;

impl Weighter<ColumnKey, Entry> for Weight {
    fn weight(&self, _: &ColumnKey, entry: &Entry) -> u64 {
        match entry {
            Entry::Asked => ENTRY_BYTES,
            Entry::Decoded(column) => column.bytes() + ENTRY_BYTES,
        }
    }
}

/// How a cache is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ColumnCacheUse {
    /// Bytes that it may have when queries need little memory.
    pub budget_bytes: u64,
    /// Bytes that it may have now.
    pub room_bytes: u64,
    /// Bytes that it has.
    pub bytes: u64,
    /// Columns of row groups that it has.
    pub columns: u64,
    /// How often a column was found, since the process started.
    pub hits: u64,
    /// How often it was not.
    pub misses: u64,
}

impl ColumnCacheUse {
    /// As a message.
    pub fn to_wire(self) -> protocol::ColumnCacheUse {
        let Self { budget_bytes, room_bytes, bytes, columns, hits, misses } = self;
        protocol::ColumnCacheUse { budget_bytes, room_bytes, bytes, columns, hits, misses }
    }

    /// From a message.
    pub fn from_wire(wire: protocol::ColumnCacheUse) -> Self {
        let protocol::ColumnCacheUse { budget_bytes, room_bytes, bytes, columns, hits, misses } =
            wire;
        Self { budget_bytes, room_bytes, bytes, columns, hits, misses }
    }
}

/// The cache of one worker.
pub struct ColumnCache {
    entries: Cache<ColumnKey, Entry, Weight>,
    budget_bytes: u64,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl fmt::Debug for ColumnCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ColumnCache").field(&self.usage()).finish()
    }
}

impl ColumnCache {
    /// A cache of so many bytes; of 0, one that keeps nothing.
    pub fn new(budget_bytes: u64) -> Self {
        let items = usize::try_from(budget_bytes / COLUMN_BYTES_TYPICAL).unwrap_or(usize::MAX);
        let items = items.clamp(1_024, 1 << 24);
        let mut options = OptionsBuilder::new();
        options.shards(SHARDS).weight_capacity(budget_bytes).estimated_items_capacity(items);
        let entries = match options.build() {
            Ok(options) => Cache::with_options(
                options,
                Weight,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
            // Of options that lack something, which these do not.
            Err(_) => Cache::with_weighter(items, budget_bytes, Weight),
        };
        let (hits, misses) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { entries, budget_bytes, hits, misses }
    }

    /// Whether anything is kept.
    pub fn is_enabled(&self) -> bool {
        self.budget_bytes > 0
    }

    /// A column's values as `data_type`, if they are here.
    pub fn get(&self, key: &ColumnKey, data_type: &DataType) -> Option<Arc<DecodedColumn>> {
        if !self.is_enabled() {
            return None;
        }
        let found = match self.entries.get(key) {
            Some(Entry::Decoded(column)) if column.data_type() == data_type => Some(column),
            _ => None,
        };
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Keeps a column that was decoded.
    pub fn keep(&self, key: ColumnKey, column: Arc<DecodedColumn>) {
        if self.is_enabled() {
            self.entries.insert(key, Entry::Decoded(column));
        }
    }

    /// Notes that few rows of a column that is not here are wanted; whether it was so before, so that
    /// it pays to decode all of it.
    pub fn ask(&self, key: &ColumnKey) -> bool {
        if !self.is_enabled() {
            return false;
        }
        let was_asked = self.entries.peek(key).is_some();
        if !was_asked {
            self.entries.insert(key.clone(), Entry::Asked);
        }
        was_asked
    }

    /// Keeps to what queries leave of the memory that both have: `free_bytes`, or the budget when
    /// that is less.
    pub fn leave_room(&self, free_bytes: u64) {
        let (room, now) = (free_bytes.min(self.budget_bytes), self.entries.capacity());
        let is_much = room.abs_diff(now) > self.budget_bytes / ROOM_STEPS;
        let is_end = room == self.budget_bytes && now < room;
        if is_much || is_end {
            self.entries.set_capacity(room);
        }
    }

    /// How it is used.
    pub fn usage(&self) -> ColumnCacheUse {
        ColumnCacheUse {
            budget_bytes: self.budget_bytes,
            room_bytes: self.entries.capacity(),
            bytes: self.entries.weight(),
            columns: self.entries.len() as u64,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    const ROWS: i64 = 1_000;

    fn key(row_group: usize) -> ColumnKey {
        let segment = SegmentId(uuid::Uuid::from_bytes([7; 16]));
        ColumnKey { segment, meta_digest: Digest::of(b"meta"), column: ColumnId(1), row_group }
    }

    fn column(first: i64) -> Arc<DecodedColumn> {
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(first..first + ROWS));
        Arc::new(DecodedColumn::new(DataType::Int64, vec![values]))
    }

    /// Bytes for `columns` columns as [`column`] makes them.
    fn room_for(columns: u64) -> u64 {
        columns * (column(0).bytes() + ENTRY_BYTES)
    }

    #[test]
    fn what_was_kept_is_found_in_its_type_only() {
        let cache = ColumnCache::new(room_for(100));
        cache.keep(key(0), column(0));
        assert!(cache.get(&key(0), &DataType::Int64).is_some());
        assert!(cache.get(&key(0), &DataType::Int32).is_none(), "another type is another column");
        assert!(cache.get(&key(1), &DataType::Int64).is_none());
        let usage = cache.usage();
        assert_eq!((usage.hits, usage.misses, usage.columns), (1, 2, 1));
    }

    #[test]
    fn it_keeps_to_its_budget() {
        let cache = ColumnCache::new(room_for(16));
        for row_group in 0..1_000 {
            cache.keep(key(row_group), column(0));
            assert!(cache.usage().bytes <= room_for(16));
        }
        assert!(cache.usage().columns > 4);
    }

    #[test]
    fn what_is_read_again_and_again_outlives_a_long_scan() {
        let cache = ColumnCache::new(room_for(400));
        for _ in 0..3 {
            for hot in 0..100 {
                if cache.get(&key(hot), &DataType::Int64).is_none() {
                    cache.keep(key(hot), column(0));
                }
            }
        }
        for scanned in 1_000..11_000 {
            cache.keep(key(scanned), column(0));
        }
        let left = (0..100).filter(|hot| cache.get(&key(*hot), &DataType::Int64).is_some()).count();
        assert!(left > 90, "{left} of 100 are left");
    }

    #[test]
    fn it_gives_memory_back_while_queries_need_it() {
        let cache = ColumnCache::new(room_for(64));
        (0..64).for_each(|row_group| cache.keep(key(row_group), column(0)));
        cache.leave_room(room_for(16));
        assert!(cache.usage().bytes <= room_for(16));
        cache.leave_room(0);
        assert_eq!(cache.usage().bytes, 0);
        cache.leave_room(u64::MAX);
        assert_eq!(cache.usage().room_bytes, cache.usage().budget_bytes / 4 * 4);
        cache.keep(key(0), column(0));
        assert!(cache.get(&key(0), &DataType::Int64).is_some());
    }

    #[test]
    fn a_column_of_which_few_rows_are_wanted_is_worth_it_the_second_time() {
        let cache = ColumnCache::new(room_for(100));
        assert!(!cache.ask(&key(0)));
        assert!(cache.ask(&key(0)));
        assert!(!cache.ask(&key(1)));
    }

    #[test]
    fn without_a_budget_nothing_is_kept() {
        let cache = ColumnCache::new(0);
        cache.keep(key(0), column(0));
        assert!(cache.get(&key(0), &DataType::Int64).is_none());
        assert!(!cache.ask(&key(0)) && !cache.ask(&key(0)));
        assert_eq!(cache.usage(), ColumnCacheUse::default());
    }
}
