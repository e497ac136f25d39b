//! Compaction: small segments, and those with many deleted rows, written again as few.
//!
//! A segment per statement is what makes a statement durable, and what makes a table slow that
//! was filled row by row. So after a write that leaves too many small segments behind, one
//! background task at a time reads some of them and commits other segments with the same rows in
//! their place. Readers keep the snapshot they pinned, and who deletes waits (`turns`).
//!
//! Which segments: size-tiered, as in log-structured merge trees (O'Neil et al. 1996): a segment
//! is written again only together with others that are as large in sum, so that every row is
//! written O(log n) times.
//!
//! Where a table has a sort key, segments of a slice whose ranges of it overlap are merged in its
//! order, so that they lie side by side afterwards: by VACUUM all of them, in the background when a
//! range of the key would be found in many.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use basalt_engine::dialect::ObjectRef;
use basalt_engine::error::{ErrorCode, Position, SqlError};
use basalt_engine::snapshot::{Snapshot, TableSnapshot};
use basalt_engine::table::{ChosenRows, SegmentTable};
use basalt_engine::write::AppendTarget;
use basalt_storage::delete_vector::DeleteVector;
use basalt_storage::ids::{ColumnId, SliceId, TableId};
use basalt_storage::manifest::SegmentRecord;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::LogicalPlanBuilder;

use super::Statements;
use super::session::Pinned;
use crate::backend::SessionId;
use crate::catalog::SegmentSeen;
use crate::key_ranges::{KeyRange, overlapping};

/// Segments of fewer live rows than this are small: those that are stored packed.
const SMALL_ROWS_BELOW: u64 = 65_536;
/// How many segments fewer there must be afterwards before a write starts a compaction.
const MERGE_SEGMENTS_MIN: usize = 16;
/// A segment is worth rewriting by itself when one of so many rows is deleted.
const DELETED_ONE_OF: u64 = 4;
/// Rows that one compaction reads at most: what it holds is bounded by this.
const MERGE_ROWS_MAX: u64 = 8 << 20;

/// So many segments that overlap are merged in the background: that is in how many a range of the key
/// is looked for at most, and one of how many rows are written again by each merge.
const OVERLAPPING_MAX: usize = 16;

/// Merges that one write starts at most, one after the other: the next write goes on.
const MERGES_MAX: usize = 64;

/// The session of statements that nobody sent.
const NO_SESSION: SessionId = SessionId(u64::MAX);

/// Chooses the segments that a background compaction merges, by their place in the list.
fn worth_merging(segments: &[Arc<SegmentRecord>]) -> Vec<u32> {
    let mut small: Vec<(u64, u32)> = (0..)
        .zip(segments)
        .map(|(place, segment)| (segment.live_rows(), place))
        .filter(|(rows, _)| *rows < SMALL_ROWS_BELOW)
        .collect();
    small.sort_unstable();
    let (mut sum, mut count) = (0, 0);
    for (rows, _) in &small {
        // The next one would be copied for the sake of far fewer rows.
        if count >= 2 && *rows > 2 * sum {
            break;
        }
        if sum + rows > MERGE_ROWS_MAX {
            break;
        }
        sum += rows;
        count += 1;
    }
    small.truncate(count);
    // Rows of a keyed table stay in their slices: one segment of each slice is what is left.
    let slices: BTreeSet<_> =
        small.iter().filter_map(|(_, place)| Some(segments.get(*place as usize)?.slice)).collect();
    if small.len() < slices.len() + MERGE_SEGMENTS_MIN {
        return vec![];
    }
    small.into_iter().map(|(_, place)| place).collect()
}

/// Chooses the segments that VACUUM writes again: all small ones, and those with many deleted rows.
fn worth_rewriting(segments: &[Arc<SegmentRecord>]) -> Vec<u32> {
    let small = segments.iter().filter(|segment| is_small(segment)).count();
    (0..)
        .zip(segments)
        .filter(|(_, segment)| is_sparse(segment) || (small > 1 && is_small(segment)))
        .map(|(place, _)| place)
        .collect()
}

fn is_small(segment: &SegmentRecord) -> bool {
    segment.live_rows() < SMALL_ROWS_BELOW
}

fn is_sparse(segment: &SegmentRecord) -> bool {
    segment.rows_deleted() * DELETED_ONE_OF >= segment.rows
}

/// Segments that are written again together.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rewrite {
    /// Their places in the table's list.
    places: Vec<u32>,
    /// The slice that their rows stay in and are merged for, in the order of the sort key; otherwise
    /// rows go where new ones would.
    merged_slice: Option<SliceId>,
}

impl Rewrite {
    fn of(places: Vec<u32>) -> Option<Self> {
        (!places.is_empty()).then_some(Self { places, merged_slice: None })
    }

    /// The same segments in a later list, if all are there.
    fn in_later(&self, seen: &TableSnapshot, now: &TableSnapshot) -> Option<Self> {
        let place = |id| now.segments.iter().position(|segment| segment.segment == id);
        let later = self.places.iter().map(|old| {
            let place = place(seen.segments.get(*old as usize)?.segment)?;
            u32::try_from(place).ok()
        });
        Some(Self { places: later.collect::<Option<_>>()?, merged_slice: self.merged_slice })
    }
}

/// The segments of a table by slice, in the order of its sort key, those together that overlap.
fn groups_by_slice(
    segments: &[Arc<SegmentRecord>],
    key: ColumnId,
) -> impl Iterator<Item = (SliceId, Vec<Vec<KeyRange>>)> {
    let mut slices: BTreeMap<SliceId, Vec<KeyRange>> = BTreeMap::new();
    for (place, segment) in (0..).zip(segments) {
        slices.entry(segment.slice).or_default().push(KeyRange::of(place, segment, key));
    }
    slices.into_iter().map(|(slice, ranges)| (slice, overlapping(ranges)))
}

fn rows_of(group: &[KeyRange]) -> u64 {
    group.iter().map(|range| range.rows).sum()
}

/// What VACUUM writes again of a table with a sort key: segments that overlap, small neighbours, and
/// those with many deleted rows.
fn worth_sorting(segments: &[Arc<SegmentRecord>], key: ColumnId) -> Vec<Rewrite> {
    let mut rewrites = Vec::new();
    for (slice, groups) in groups_by_slice(segments, key) {
        let mut merged: Vec<Vec<KeyRange>> = Vec::new();
        for group in groups {
            match merged.last_mut() {
                Some(last) if rows_of(last) + rows_of(&group) < SMALL_ROWS_BELOW => {
                    last.extend(group);
                }
                _ => merged.push(group),
            }
        }
        let is_sparse =
            |range: &KeyRange| segments.get(range.place as usize).is_some_and(|s| is_sparse(s));
        let worth =
            merged.into_iter().filter(|group| group.len() > 1 || group.iter().any(is_sparse));
        rewrites.extend(worth.map(|group| Rewrite {
            places: group.iter().map(|range| range.place).collect(),
            merged_slice: Some(slice),
        }));
    }
    rewrites
}

/// The segments that overlap too much and that a background compaction merges next: the smallest of
/// a group, as many as it may read.
fn overlapping_too_much(segments: &[Arc<SegmentRecord>], key: ColumnId) -> Option<Rewrite> {
    let too_many = |group: &Vec<KeyRange>| group.len() >= OVERLAPPING_MAX;
    let groups = groups_by_slice(segments, key)
        .flat_map(|(slice, groups)| groups.into_iter().map(move |group| (slice, group)));
    groups.filter(|(_, group)| too_many(group)).find_map(|(slice, mut group)| {
        group.sort_by_key(|range| range.rows);
        let mut rows = 0;
        let fits = |range: &&KeyRange| {
            rows += range.rows;
            rows <= MERGE_ROWS_MAX
        };
        let places: Vec<_> = group.iter().take_while(fits).map(|range| range.place).collect();
        let merged_slice = Some(slice);
        (places.len() >= OVERLAPPING_MAX / 2).then_some(Rewrite { places, merged_slice })
    })
}

/// What a background compaction does next for a table: where it has a sort key, in one slice.
fn next_merge(table: &TableSnapshot) -> Option<Rewrite> {
    let small = worth_merging(&table.segments);
    match table.sort_key.first() {
        None => Rewrite::of(small),
        Some(key) => largest_of_a_slice(&table.segments, &small)
            .or_else(|| overlapping_too_much(&table.segments, *key)),
    }
}

/// Those of some segments that are in the slice with most of them, if it has several.
fn largest_of_a_slice(segments: &[Arc<SegmentRecord>], places: &[u32]) -> Option<Rewrite> {
    let mut slices: BTreeMap<SliceId, Vec<u32>> = BTreeMap::new();
    for place in places {
        slices.entry(segments.get(*place as usize)?.slice).or_default().push(*place);
    }
    let (slice, places) = slices.into_iter().max_by_key(|(_, places)| places.len())?;
    (places.len() > 1).then_some(Rewrite { places, merged_slice: Some(slice) })
}

/// What VACUUM does for a table.
fn vacuumed(table: &TableSnapshot) -> Vec<Rewrite> {
    match table.sort_key.first() {
        Some(key) => worth_sorting(&table.segments, *key),
        None => Rewrite::of(worth_rewriting(&table.segments)).into_iter().collect(),
    }
}

impl Statements {
    /// Starts a compaction of a table in the background when the last write left many small
    /// segments, unless one is running: the next write will ask again.
    pub(super) fn compact_soon(&self, table: TableId) {
        let snapshot = self.inner.catalog.snapshot();
        let due = table_by_id(&snapshot, table).is_some_and(|table| next_merge(table).is_some());
        let Ok(turn) = Arc::clone(&self.inner.compaction).try_acquire_owned() else { return };
        if !due {
            return;
        }
        let statements = self.clone();
        tokio::spawn(async move {
            let _turn = turn;
            for _ in 0..MERGES_MAX {
                match statements.compact(table, next_merge).await {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => {
                        // Nothing changed, and the next write tries again.
                        tracing::warn!(%table, %error, "a compaction was given up");
                        break;
                    }
                }
            }
        });
    }

    /// `VACUUM t`, or of every table.
    pub(super) async fn vacuum(
        &self,
        session: SessionId,
        table: Option<(&ObjectRef, Position)>,
    ) -> Result<u64, SqlError> {
        let pinned = self.pin(session)?;
        let tables = match table {
            Some((name, position)) => vec![pinned.table_to_write(name, position)?.id],
            None => pinned.spec.snapshot.tables().map(|table| table.id).collect(),
        };
        let mut rows = 0;
        for table in tables {
            // One after the other, so that each commits by itself and who changes rows comes in
            // between; segments that are gone by then were merged by somebody else.
            let snapshot = self.inner.catalog.snapshot();
            let Some(seen) = table_by_id(&snapshot, table) else { continue };
            for rewrite in vacuumed(seen) {
                let choose = |now: &TableSnapshot| rewrite.in_later(seen, now);
                rows += self.compact(table, choose).await?;
            }
        }
        Ok(rows)
    }

    /// Writes the segments that `choose` names again; returns how many rows they have.
    async fn compact(
        &self,
        table: TableId,
        choose: impl Fn(&TableSnapshot) -> Option<Rewrite>,
    ) -> Result<u64, SqlError> {
        let _turn = self.inner.turns.of(table).await;
        let pinned = self.pin(NO_SESSION)?;
        let Some(table) = table_by_id(&pinned.spec.snapshot, table).map(Arc::clone) else {
            return Ok(0);
        };
        let Some(Rewrite { places, merged_slice }) = choose(&table) else { return Ok(0) };
        let (replaced, rows) = seen_and_live(&table, &places)?;
        let target = AppendTarget { merged_slice, ..pinned.target(&table)? };
        self.rewrite(&pinned, &table, target, replaced, rows).await
    }

    async fn rewrite(
        &self,
        pinned: &Pinned,
        table: &Arc<TableSnapshot>,
        target: AppendTarget,
        replaced: Vec<SegmentSeen>,
        rows: ChosenRows,
    ) -> Result<u64, SqlError> {
        let expected = rows.rows();
        let cluster = Arc::clone(&pinned.spec.snapshot.cluster);
        let source = SegmentTable::new(Arc::clone(table), cluster).with_only(Arc::new(rows));
        let plan = LogicalPlanBuilder::scan("replaced", provider_as_source(Arc::new(source)), None)
            .and_then(LogicalPlanBuilder::build)
            .map_err(|error| pinned.error(error))?;
        let transaction = self.begin(target);
        let written = self.append(pinned, plan, transaction.target()).await?;
        if written != expected {
            let message = format!("a compaction read {expected} rows and wrote {written}");
            return Err(SqlError::new(ErrorCode::Internal, message));
        }
        self.commit_replaced(transaction, replaced, written).await
    }
}

/// What the commit must find unchanged, and the rows to write again.
fn seen_and_live(
    table: &TableSnapshot,
    places: &[u32],
) -> Result<(Vec<SegmentSeen>, ChosenRows), SqlError> {
    let (mut seen, mut live) = (Vec::with_capacity(places.len()), BTreeMap::new());
    for place in places {
        let segment = table.segments.get(*place as usize).ok_or_else(|| {
            SqlError::new(ErrorCode::Internal, "a compaction chose a segment that is not there")
        })?;
        let rows_deleted = segment.rows_deleted();
        seen.push(SegmentSeen { segment: segment.segment, rows_deleted });
        if let Some(rows) = DeleteVector::complement(segment.deleted.as_ref(), segment.rows) {
            live.insert(*place, rows);
        }
    }
    Ok((seen, ChosenRows::new(live)))
}

fn table_by_id(snapshot: &Snapshot, id: TableId) -> Option<&Arc<TableSnapshot>> {
    snapshot.tables().find(|table| table.id == id)
}

#[cfg(test)]
mod tests {
    use basalt_storage::digest::Digest;
    use basalt_storage::ids::{ColumnVersion, SegmentId, TxnId};
    use basalt_storage::manifest::{ColumnRecord, Layout};
    use basalt_storage::zone_map::{ZoneMap, ZoneValue};
    use proptest::prelude::*;

    use super::*;

    fn segment(rows: u64, deleted: u32) -> Arc<SegmentRecord> {
        Arc::new(SegmentRecord {
            table: TableId(1),
            slice: SliceId(0),
            segment: SegmentId::generate(),
            txn: TxnId::generate(),
            layout: Layout::Packed,
            rows,
            row_groups: vec![],
            bytes: 0,
            meta_digest: Digest::of(b""),
            columns: BTreeMap::new(),
            holders: vec![],
            deleted: DeleteVector::from_positions(0..deleted),
        })
    }

    fn segments(rows: &[u64]) -> Vec<Arc<SegmentRecord>> {
        rows.iter().map(|rows| segment(*rows, 0)).collect()
    }

    #[test]
    fn a_table_that_is_filled_row_by_row_is_merged_now_and_then() {
        assert!(worth_merging(&segments(&[1; 16])).is_empty());
        assert_eq!(worth_merging(&segments(&[1; 17])).len(), 17);
    }

    #[test]
    fn one_segment_in_each_slice_is_not_copied_again_and_again() {
        let in_slice = |(slice, segment): (u16, Arc<SegmentRecord>)| {
            Arc::new(SegmentRecord { slice: SliceId(slice), ..(*segment).clone() })
        };
        let mut list: Vec<_> = (0..).zip(segments(&[60_000; 16])).map(in_slice).collect();
        list.push(segment(1, 0));
        assert!(worth_merging(&list).is_empty());
    }

    #[test]
    fn a_large_segment_is_not_copied_for_the_sake_of_few_rows() {
        let mut rows = vec![1; 20];
        rows.insert(7, 1_000);
        let chosen = worth_merging(&segments(&rows));
        assert_eq!(chosen.len(), 20);
        assert!(!chosen.contains(&7));
    }

    #[test]
    fn full_segments_are_left_alone() {
        assert!(worth_merging(&segments(&[SMALL_ROWS_BELOW; 40])).is_empty());
        assert!(worth_rewriting(&segments(&[SMALL_ROWS_BELOW; 40])).is_empty());
    }

    const KEY: ColumnId = ColumnId(1);

    /// A segment of a slice with a range of the key.
    fn run(slice: u16, rows: u64, min: i64, max: i64) -> Arc<SegmentRecord> {
        let zone = ZoneMap {
            null_count: 0,
            min: Some(ZoneValue::Int(min)),
            max: Some(ZoneValue::Int(max)),
        };
        let column = ColumnRecord { version: ColumnVersion(1), zone, bytes: 0 };
        let columns = [(KEY, column)].into();
        Arc::new(SegmentRecord { slice: SliceId(slice), columns, ..(*segment(rows, 0)).clone() })
    }

    fn sorted(list: &[Arc<SegmentRecord>]) -> Vec<(u16, Vec<u32>)> {
        let rewrites = worth_sorting(list, KEY).into_iter();
        rewrites.map(|rewrite| (rewrite.merged_slice.unwrap().0, rewrite.places)).collect()
    }

    #[test]
    fn vacuum_merges_what_overlaps_in_a_slice_and_nothing_else() {
        let full = SMALL_ROWS_BELOW;
        let list =
            [run(0, full, 0, 9), run(1, full, 0, 9), run(1, full, 5, 7), run(0, full, 9, 20)];
        assert_eq!(sorted(&list), [(1, vec![1, 2])]);
    }

    #[test]
    fn vacuum_merges_small_neighbours_but_not_across_a_large_segment() {
        let list = [
            run(0, 10, 0, 9),
            run(0, 10, 10, 19),
            run(0, SMALL_ROWS_BELOW, 20, 29),
            run(0, 10, 30, 39),
        ];
        assert_eq!(sorted(&list), [(0, vec![0, 1])]);
    }

    #[test]
    fn small_segments_of_a_sorted_table_are_merged_slice_by_slice() {
        let list: Vec<_> = (0..20).map(|i| run(u16::from(i > 12), 10, 0, 9)).collect();
        let merge = largest_of_a_slice(&list, &worth_merging(&list)).unwrap();
        assert_eq!(merge, Rewrite { places: (0..13).collect(), merged_slice: Some(SliceId(0)) });
        assert_eq!(largest_of_a_slice(&list, &[3, 15]), None);
    }

    #[test]
    fn many_overlapping_segments_are_merged_in_the_background_the_smallest_first() {
        let mut list: Vec<_> = (0..15).map(|i| run(0, 400_000 + i, 0, 100)).collect();
        assert_eq!(overlapping_too_much(&list, KEY), None);
        list.push(run(0, 8_000_000, 0, 100));
        let merge = overlapping_too_much(&list, KEY).unwrap();
        assert_eq!(merge, Rewrite { places: (0..15).collect(), merged_slice: Some(SliceId(0)) });
    }

    #[test]
    fn vacuum_writes_segments_with_many_deleted_rows_again() {
        let list = [segment(100_000, 24_000), segment(100_000, 25_000), segment(10, 0)];
        assert_eq!(worth_rewriting(&list), [1]);
        let list = [segment(10, 0), segment(100_000, 0), segment(20, 0)];
        assert_eq!(worth_rewriting(&list), [0, 2]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        /// Rows are written O(log n) times: filling a table row by row copies few.
        #[test]
        fn filling_a_table_row_by_row_copies_every_row_a_few_times(inserts in 500usize..2_000) {
            let (mut rows, mut copied) = (Vec::new(), 0);
            for insert in std::iter::repeat_n(1, inserts) {
                rows.push(insert);
                let chosen = worth_merging(&segments(&rows));
                if !chosen.is_empty() {
                    let merged: u64 = chosen.iter().map(|place| rows[*place as usize]).sum();
                    let mut place = 0;
                    rows.retain(|_| { place += 1; !chosen.contains(&(place - 1)) });
                    rows.push(merged);
                    copied += merged;
                }
            }
            prop_assert_eq!(rows.iter().sum::<u64>(), inserts as u64);
            prop_assert!(rows.len() < 40, "{} segments are left", rows.len());
            prop_assert!(copied < 12 * inserts as u64, "{copied} rows were copied");
        }
    }
}
