//! Scans in the order of the table's sort key.
//!
//! Segments are sorted, each by itself. Those whose ranges of the key do not overlap are read one after
//! the other, as a *chain*; a partition with several chains merges them row by row. So a partition is in
//! the order of the key however the segments lie, and after VACUUM, when the segments of a slice lie side
//! by side, there are no more chains than slices. Fewest chains: each segment, by where it begins, goes to
//! the chain that ends last before it (interval partitioning, as in Kleinberg and Tardos 2005, 4.1).
//!
//! Invariant: what the bounds leave open is not one chain. They may be wider than the values, never
//! narrower; and whoever reads a chain compares the rows where one batch ends and the next begins.
//! (Compaction asks the other question of the same bounds: which segments surely overlap.)

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::Schema;
use basalt_storage::ids::ColumnId;
use basalt_storage::manifest::SegmentRecord;
use basalt_storage::zone_map::ZoneValue;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};

use super::{ScanSegment, ScanUnit, join_neighbours};

/// Chains that one partition merges at most: each has a row group of its own in memory.
pub(super) const CHAINS_MAX: usize = 32;

/// The order in which a scan hands out its rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum ScanOrder {
    /// Any.
    #[default]
    None,
    /// Any, but row groups with the first values of the key come first: a sort above wants the first
    /// rows only, and its bound rules out the more of what follows the sooner it is near.
    FirstRows { descending: bool },
    /// Each partition by these columns.
    Key(KeyOrder),
}

/// The order of partitions by the first columns of the sort key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyOrder {
    /// Most significant first.
    pub(super) columns: Vec<KeyColumn>,
    /// For each partition, how many of its units each of its chains has, one after the other.
    pub(super) chains: Vec<Vec<usize>>,
    /// Whether a partition may merge several chains. Without, there are as many partitions as chains.
    pub(super) merges: bool,
}

/// A column of an order: ascending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyColumn {
    /// Its place among the columns that are read.
    pub(super) index: usize,
    /// What is asked for. Segments have NULLs last, so it is only true where there are none.
    pub(super) nulls_first: bool,
}

impl KeyColumn {
    pub(super) fn options(self) -> SortOptions {
        SortOptions { descending: false, nulls_first: self.nulls_first }
    }
}

impl ScanOrder {
    /// The order as it is seen in the output columns: as far as its columns are among them.
    pub(super) fn of_output(&self, schema: &Schema, projection: &[usize]) -> Option<LexOrdering> {
        let Self::Key(order) = self else { return None };
        LexOrdering::new(order.columns.iter().map_while(|key| {
            let place = projection.iter().position(|read| *read == key.index)?;
            let column = Column::new(schema.field(place).name(), place);
            Some(PhysicalSortExpr::new(Arc::new(column), key.options()))
        }))
    }
}

/// Where a segment lies in the order of a key's first column.
#[derive(Debug, Clone, PartialEq)]
struct KeyRange<'a> {
    segment: u32,
    /// The least value and the greatest; `None` when they are not known.
    bounds: Option<(&'a ZoneValue, &'a ZoneValue)>,
    /// Whether NULLs come after its values, or may.
    has_nulls: bool,
}

impl<'a> KeyRange<'a> {
    fn of(segment: u32, record: &'a SegmentRecord, key: ColumnId) -> Self {
        let zone = record.columns.get(&key).map(|column| &column.zone);
        Self {
            segment,
            bounds: zone.and_then(|zone| zone.min.as_ref().zip(zone.max.as_ref())),
            has_nulls: zone.is_none_or(|zone| zone.null_count > 0),
        }
    }
}

/// Whether a column has no NULL in any segment.
pub(super) fn has_no_nulls(records: &[Arc<SegmentRecord>], column: ColumnId) -> bool {
    records
        .iter()
        .all(|record| record.columns.get(&column).is_some_and(|column| column.zone.null_count == 0))
}

/// Segments in chains, each in the order of the key; `None` when there are more than `most` chains. With
/// `is_strict`, a segment that begins with the value at which another ends does not follow it: only the
/// first column's bounds are known, and rows that are equal there may be in any order by the next.
pub(super) fn chains(
    records: &[Arc<SegmentRecord>],
    key: ColumnId,
    is_strict: bool,
    most: usize,
) -> Option<Vec<Vec<u32>>> {
    let ranges = (0..).zip(records).filter(|(_, record)| record.rows > 0);
    chained(ranges.map(|(at, record)| KeyRange::of(at, record, key)).collect(), is_strict, most)
}

fn chained(mut ranges: Vec<KeyRange<'_>>, is_strict: bool, most: usize) -> Option<Vec<Vec<u32>>> {
    ranges.sort_by(|a, b| match (a.bounds, b.bounds) {
        (Some((a, _)), Some((b, _))) => a.compare(b).unwrap_or(Ordering::Equal),
        (a, b) => a.is_none().cmp(&b.is_none()),
    });
    let mut chains: Vec<(Option<&ZoneValue>, Vec<u32>)> = Vec::new();
    for range in ranges {
        let follows = |end: &ZoneValue| {
            let (min, _) = range.bounds?;
            match end.compare(min)? {
                Ordering::Less => Some(()),
                Ordering::Equal if !is_strict => Some(()),
                _ => None,
            }
        };
        let ended = chains.iter_mut().filter(|(end, _)| end.and_then(follows).is_some());
        let last = ended.max_by(|(a, _), (b, _)| {
            a.zip(*b).and_then(|(a, b)| a.compare(b)).unwrap_or(Ordering::Equal)
        });
        // Nothing follows NULLs, nor what has no bounds.
        let end = range.bounds.map(|(_, max)| max).filter(|_| !range.has_nulls);
        match last {
            Some((last, chain)) => {
                *last = end;
                chain.push(range.segment);
            }
            None => chains.push((end, vec![range.segment])),
        }
        if chains.len() > most {
            return None;
        }
    }
    Some(chains.into_iter().map(|(_, chain)| chain).collect())
}

/// Spreads chains over partitions so that their row counts are about equal: chains longer than a
/// partition's share are cut between row groups, if partitions may merge them or there are enough; then the
/// largest go first, each to the emptiest partition.
/// Returns the units of each partition, and how many of them each of its chains has.
pub(super) fn spread_chains(
    segments: &[ScanSegment],
    chains: &[Vec<u32>],
    merges: bool,
    partitions: usize,
) -> (Vec<Vec<ScanUnit>>, Vec<Vec<usize>>) {
    let partitions = partitions.max(1);
    let rows: u64 = segments.iter().map(|segment| segment.rows).sum();
    let pieces_of = |share: u64| -> Vec<_> {
        chains.iter().flat_map(|chain| cut(segments, chain, share)).collect()
    };
    let mut pieces = pieces_of(rows.div_ceil(partitions as u64).max(1));
    if !merges && pieces.len() > partitions {
        pieces = pieces_of(u64::MAX);
    }
    pieces.sort_by_key(|(rows, _)| std::cmp::Reverse(*rows));
    let mut spread = vec![(0u64, Vec::new(), Vec::new()); partitions];
    for (rows, piece) in pieces {
        if let Some((load, units, chains)) = spread.iter_mut().min_by_key(|(load, ..)| *load) {
            *load += rows;
            chains.push(piece.len());
            units.extend(piece);
        }
    }
    spread.into_iter().map(|(_, units, chains)| (units, chains)).unzip()
}

/// A chain in pieces of about `share` rows.
fn cut(segments: &[ScanSegment], chain: &[u32], share: u64) -> Vec<(u64, Vec<ScanUnit>)> {
    let mut pieces: Vec<(u64, Vec<ScanUnit>)> = Vec::new();
    for segment in chain {
        for (rows, group) in segments[*segment as usize].row_groups.iter().zip(0..) {
            let rows = u64::from(*rows);
            let unit = ScanUnit { segment: *segment, first: group, end: group + 1 };
            match pieces.last_mut().filter(|(filled, _)| filled + rows <= share) {
                Some((filled, units)) => {
                    *filled += rows;
                    units.push(unit);
                }
                None => pieces.push((rows, vec![unit])),
            }
        }
    }
    pieces.into_iter().map(|(rows, units)| (rows, join_neighbours(units))).collect()
}

/// Spreads row groups over partitions so that each begins with those that have the first values of the key,
/// or with `descending` the last.
pub(super) fn spread_first_rows(
    segments: &[ScanSegment],
    records: &[Arc<SegmentRecord>],
    key: ColumnId,
    descending: bool,
    partitions: usize,
) -> Vec<Vec<ScanUnit>> {
    let begins = |segment: u32| {
        let zone = records.get(segment as usize).and_then(|record| record.columns.get(&key));
        let zone = zone.map(|column| &column.zone);
        zone.and_then(|zone| if descending { zone.max.as_ref() } else { zone.min.as_ref() })
    };
    // Of each segment the outermost row group, then the next of each, and so on.
    let mut by_rank: BTreeMap<u32, Vec<ScanUnit>> = BTreeMap::new();
    for (segment, at) in segments.iter().zip(0..) {
        for (_, group) in segment.row_groups.iter().zip(0..) {
            let last = segment.row_groups.len() as u32 - 1;
            let rank = if descending { last - group } else { group };
            let unit = ScanUnit { segment: at, first: group, end: group + 1 };
            by_rank.entry(rank).or_default().push(unit);
        }
    }
    let mut spread = vec![Vec::new(); partitions.max(1)];
    let mut next = (0..spread.len()).cycle();
    for mut units in by_rank.into_values() {
        units.sort_by(|a, b| {
            let order = match (begins(a.segment), begins(b.segment)) {
                (Some(a), Some(b)) => a.compare(b).unwrap_or(Ordering::Equal),
                (a, b) => return a.is_none().cmp(&b.is_none()),
            };
            if descending { order.reverse() } else { order }
        });
        for unit in units {
            if let Some(partition) = next.next() {
                spread[partition].push(unit);
            }
        }
    }
    spread
}

#[cfg(test)]
mod tests;
