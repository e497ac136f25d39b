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
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use arrow::datatypes::DataType;
use basalt_storage::digest::Digest;
use basalt_storage::ids::{ColumnId, SegmentId};
pub use decoded::{DecodedColumn, Weigher};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use crate::protocol;

/// What an entry takes beside its values, about, in bytes.
const ENTRY_BYTES: u64 = 512;
/// A small column of a row group, in bytes. How many keys of what went are remembered follows from it:
/// too few, and what is read again would not be known again.
const COLUMN_BYTES_SMALL: u64 = 128 << 10;
/// Parts of a large cache, with a lock each.
const SHARDS_MAX: u64 = 4;
/// What a part has at least, in bytes, where there are several: of few large columns too many may lie
/// in the same one, and take each other's place while the others are empty.
const SHARD_BYTES_MIN: u64 = 256 << 20;
/// A column has at most this part of a shard, of 10.
const SHARD_TENTHS_MAX: u64 = 9;
/// The room is made less in steps of this part of the budget: each takes all locks.
const SHRINK_STEPS: u64 = 32;
/// And greater in steps of this part: all entries move.
const GROW_STEPS: u64 = 4;
/// While queries leave less than this part of the budget, nothing is collected to be kept.
const ROOM_PARTS_MIN: u64 = 8;
/// How often few rows of a column must have been wanted before it takes the place of others.
const ASKED_MIN_WHEN_FULL: u8 = 8;

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
    /// Few of its rows were wanted so often, and it was not decoded as a whole.
    Asked(u8),
    /// It does not fit.
    TooLarge,
    Decoded(Arc<DecodedColumn>),
}

/// Bytes of an entry.
#[derive(Debug, Clone)]
struct Weight;

impl Weighter<ColumnKey, Entry> for Weight {
    fn weight(&self, _: &ColumnKey, entry: &Entry) -> u64 {
        match entry {
            Entry::Asked(_) | Entry::TooLarge => ENTRY_BYTES,
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

type Entries = Cache<ColumnKey, Entry, Weight>;

/// Into how many parts a cache of so many bytes is divided: a power of two, as the library wants.
fn shards_of(budget_bytes: u64) -> u64 {
    1 << (budget_bytes / SHARD_BYTES_MIN).clamp(1, SHARDS_MAX).ilog2()
}

fn entries(room_bytes: u64, shards: u64) -> Entries {
    let items = usize::try_from(room_bytes / COLUMN_BYTES_SMALL).unwrap_or(usize::MAX);
    let items = items.clamp(1_024, 1 << 24);
    let mut options = OptionsBuilder::new();
    options.shards(shards as usize).weight_capacity(room_bytes).estimated_items_capacity(items);
    match options.build() {
        Ok(options) => Cache::with_options(
            options,
            Weight,
            DefaultHashBuilder::default(),
            DefaultLifecycle::default(),
        ),
        // Of options that lack something, which these do not.
        Err(_) => Cache::with_weighter(items, room_bytes, Weight),
    }
}

/// The cache of one worker.
pub struct ColumnCache {
    /// Written to only to put another one in its place.
    entries: RwLock<Entries>,
    budget_bytes: u64,
    room_bytes: AtomicU64,
    /// Held while the room changes.
    turn: Mutex<()>,
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
        Self {
            entries: RwLock::new(entries(budget_bytes, shards_of(budget_bytes))),
            budget_bytes,
            room_bytes: AtomicU64::new(budget_bytes),
            turn: Mutex::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// Whether anything is kept.
    pub fn is_enabled(&self) -> bool {
        self.budget_bytes > 0
    }

    /// Whether columns should be collected to be kept: queries may need the memory more.
    pub fn is_open(&self) -> bool {
        self.is_enabled() && self.room() >= self.budget_bytes / ROOM_PARTS_MIN
    }

    /// Whether a column of so many bytes can be kept now.
    pub fn takes(&self, bytes: u64) -> bool {
        self.fits(bytes, self.room())
    }

    /// A column's values as `data_type`, if they are here.
    pub fn get(&self, key: &ColumnKey, data_type: &DataType) -> Option<Arc<DecodedColumn>> {
        if !self.is_enabled() {
            return None;
        }
        let found = match self.entries().get(key) {
            Some(Entry::Decoded(column)) if column.data_type() == data_type => Some(column),
            _ => None,
        };
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Keeps a column that was decoded, if it fits.
    pub fn keep(&self, key: ColumnKey, column: Arc<DecodedColumn>) {
        if self.takes(column.bytes()) {
            self.entries().insert(key, Entry::Decoded(column));
        } else {
            self.note_too_large(key, column.bytes());
        }
    }

    /// Notes that a column has at least so many bytes: one that never fits is not decoded as a whole
    /// again for the sake of few rows.
    pub fn note_too_large(&self, key: ColumnKey, bytes: u64) {
        if self.is_enabled() && !self.fits(bytes, self.budget_bytes) {
            self.entries().insert(key, Entry::TooLarge);
        }
    }

    /// Notes that few rows of a column that is not here are wanted; whether that was so before, so that
    /// it pays to decode all of it. Where others would have to go for it, it must have been so often.
    pub fn ask(&self, key: &ColumnKey) -> bool {
        if !self.is_open() {
            return false;
        }
        let entries = self.entries();
        let asked = match entries.peek(key) {
            Some(Entry::TooLarge) => return false,
            Some(Entry::Decoded(_)) => return true,
            Some(Entry::Asked(asked)) => asked.saturating_add(1),
            None => 1,
        };
        let has_place = entries.weight() < self.room() / 10 * 9;
        if asked > 1 && (has_place || asked >= ASKED_MIN_WHEN_FULL) {
            return true;
        }
        entries.insert(key.clone(), Entry::Asked(asked));
        false
    }

    /// Keeps to what queries leave of the memory that both have: what `free_bytes` says, or the budget
    /// when that is less; but for a step of 1/32 of the budget.
    pub fn leave_room(&self, free_bytes: impl Fn() -> u64) {
        let wanted = || free_bytes().min(self.budget_bytes);
        if !self.is_due(wanted()) {
            return;
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever reserved or freed since: the last one to come here sees what is.
        let room = wanted();
        if !self.is_due(room) {
            return;
        }
        if room < self.room() {
            self.entries().set_capacity(room);
        } else {
            // One that was made smaller remembers less of what went, for ever.
            let mut smaller = self.entries.write().unwrap_or_else(PoisonError::into_inner);
            let larger = entries(room, shards_of(self.budget_bytes));
            smaller.drain().for_each(|(key, entry)| larger.insert(key, entry));
            *smaller = larger;
        }
        self.room_bytes.store(room, Ordering::Relaxed);
    }

    /// Whether the room must change.
    fn is_due(&self, wanted: u64) -> bool {
        let room = self.room();
        if wanted < room {
            return room - wanted > self.budget_bytes / SHRINK_STEPS || wanted == 0;
        }
        let is_all = wanted == self.budget_bytes && room < wanted;
        is_all || wanted - room > self.budget_bytes / GROW_STEPS
    }

    /// Whether a column of so many bytes fits into a shard when the cache has so many.
    fn fits(&self, bytes: u64, room_bytes: u64) -> bool {
        let shard_bytes = room_bytes / shards_of(self.budget_bytes);
        bytes + ENTRY_BYTES <= shard_bytes / 10 * SHARD_TENTHS_MAX
    }

    fn room(&self) -> u64 {
        self.room_bytes.load(Ordering::Relaxed)
    }

    fn entries(&self) -> RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it is used.
    pub fn usage(&self) -> ColumnCacheUse {
        let entries = self.entries();
        ColumnCacheUse {
            budget_bytes: self.budget_bytes,
            room_bytes: self.room(),
            bytes: entries.weight(),
            columns: entries.len() as u64,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    const COLUMN_BYTES: u64 = 8_000;

    fn key(row_group: usize) -> ColumnKey {
        let segment = SegmentId(uuid::Uuid::from_bytes([7; 16]));
        ColumnKey { segment, meta_digest: Digest::of(b"meta"), column: ColumnId(1), row_group }
    }

    fn column_of(bytes: u64) -> Arc<DecodedColumn> {
        let values: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        Arc::new(DecodedColumn::new(DataType::Int64, vec![values], bytes))
    }

    fn column() -> Arc<DecodedColumn> {
        column_of(COLUMN_BYTES)
    }

    /// Bytes for so many columns.
    fn room_for(columns: u64) -> u64 {
        columns * (COLUMN_BYTES + ENTRY_BYTES)
    }

    fn is_there(cache: &ColumnCache, row_group: usize) -> bool {
        cache.get(&key(row_group), &DataType::Int64).is_some()
    }

    /// Reads columns as scans do.
    fn read(cache: &ColumnCache, row_groups: std::ops::Range<usize>) {
        for row_group in row_groups {
            if !is_there(cache, row_group) {
                cache.keep(key(row_group), column());
            }
        }
    }

    #[test]
    fn what_was_kept_is_found_in_its_type_only() {
        let cache = ColumnCache::new(room_for(100));
        cache.keep(key(0), column());
        assert!(is_there(&cache, 0));
        assert!(cache.get(&key(0), &DataType::Int32).is_none(), "another type is another column");
        assert!(!is_there(&cache, 1));
        let usage = cache.usage();
        assert_eq!((usage.hits, usage.misses, usage.columns), (1, 2, 1));
    }

    #[test]
    fn it_keeps_to_its_budget() {
        let cache = ColumnCache::new(room_for(64));
        for row_group in 0..1_000 {
            cache.keep(key(row_group), column());
            assert!(cache.usage().bytes <= room_for(64));
        }
        assert!(cache.usage().columns > 16);
    }

    #[test]
    fn what_is_read_again_and_again_outlives_a_long_scan() {
        let cache = ColumnCache::new(room_for(400));
        (0..3).for_each(|_| read(&cache, 0..100));
        read(&cache, 1_000..11_000);
        let left = (0..100).filter(|hot| is_there(&cache, *hot)).count();
        assert!(left > 90, "{left} of 100 are left");
    }

    #[test]
    fn few_large_columns_that_fit_are_all_there_wherever_their_keys_lie() {
        for first in (0..1_000).step_by(10) {
            let cache = ColumnCache::new(64 << 20);
            let keys = || (first..first + 6).map(key);
            keys().for_each(|large| cache.keep(large, column_of(8 << 20)));
            assert!(keys().all(|large| cache.get(&large, &DataType::Int64).is_some()), "{first}");
        }
    }

    #[test]
    fn it_gives_memory_back_while_queries_need_it() {
        let cache = ColumnCache::new(room_for(64));
        read(&cache, 0..64);
        cache.leave_room(|| room_for(16));
        assert!(cache.usage().bytes <= room_for(16));
        assert!(cache.is_open());
        cache.leave_room(|| 0);
        assert_eq!(cache.usage().bytes, 0);
        assert!(!cache.is_open() && !cache.takes(1));
        cache.leave_room(|| u64::MAX);
        assert_eq!(cache.usage().room_bytes, cache.usage().budget_bytes);
        cache.keep(key(0), column());
        assert!(is_there(&cache, 0));
    }

    #[test]
    fn what_is_there_stays_when_there_is_room_again() {
        let cache = ColumnCache::new(room_for(400));
        read(&cache, 0..50);
        cache.leave_room(|| room_for(200));
        cache.leave_room(|| u64::MAX);
        assert_eq!((0..50).filter(|row_group| is_there(&cache, *row_group)).count(), 50);
    }

    #[test]
    fn what_is_read_now_takes_the_place_of_what_no_query_reads_any_more() {
        let cache = ColumnCache::new(room_for(400));
        (0..3).for_each(|_| read(&cache, 0..400));
        for _ in 0..20 {
            for free in (0..32).rev() {
                cache.leave_room(|| room_for(400) / 32 * free);
            }
            cache.leave_room(|| u64::MAX);
        }
        (0..3).for_each(|_| read(&cache, 0..400));
        // Compaction replaced all segments.
        (0..10).for_each(|_| read(&cache, 10_000..10_300));
        let found = (10_000..10_300).filter(|row_group| is_there(&cache, *row_group)).count();
        assert!(found > 200, "{found} of 300 are found");
    }

    #[test]
    fn a_column_of_which_few_rows_are_wanted_is_worth_it_the_second_time() {
        let cache = ColumnCache::new(room_for(100));
        assert!(!cache.ask(&key(0)));
        assert!(cache.ask(&key(0)));
        assert!(!cache.ask(&key(1)));
    }

    #[test]
    fn where_others_would_have_to_go_few_rows_must_be_wanted_often() {
        let cache = ColumnCache::new(room_for(100));
        (0..3).for_each(|_| read(&cache, 0..200));
        let asks = (0..20).take_while(|_| !cache.ask(&key(1_000))).count();
        assert!(asks >= 7, "{asks}");
    }

    #[test]
    fn what_never_fits_is_not_decoded_again_and_again() {
        let cache = ColumnCache::new(room_for(100));
        assert!(!cache.ask(&key(0)));
        assert!(cache.ask(&key(0)));
        cache.keep(key(0), column_of(room_for(100)));
        assert!(!cache.ask(&key(0)) && !cache.ask(&key(0)) && !is_there(&cache, 0));
    }

    #[test]
    fn without_a_budget_nothing_is_kept() {
        let cache = ColumnCache::new(0);
        cache.keep(key(0), column());
        assert!(!is_there(&cache, 0));
        assert!(!cache.ask(&key(0)) && !cache.ask(&key(0)));
        assert_eq!(cache.usage(), ColumnCacheUse::default());
    }
}
