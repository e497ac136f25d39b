//! The segment scan: our own leaf over explicit column chunks of one table.
//!
//! ```text
//! SegmentScanExec
//!   table        ids and schema of the read columns, peers' addresses
//!   segments     what the snapshot says of each segment: versions, digest, holders
//!   partitions   [[unit, unit], [unit], ...]   a unit is a range of row groups of one segment
//! ```
//!
//! Invariant: every (segment, row group) of the snapshot is in exactly one unit of exactly one
//! task's scan (RULES 1), or of every task's where all of them read the table (`distribute::check`). A scan never asks which segments exist and never claims hash
//! partitioning (DESIGN.md, traps).

mod ahead;
mod assign;
mod coalescing;
mod column_rows;
mod columns;
mod exec;
mod open_row_group;
mod order;
mod ordered_stream;
mod pages;
mod predicate;
mod properties;
mod pruning;
pub mod row_ids;
mod segments;
mod shares;
mod stream;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use basalt_storage::delete_vector::DeleteVector;
use basalt_storage::digest::Digest;
use basalt_storage::ids::{ColumnId, ColumnVersion, Epoch, SegmentId, SliceId, TableId, WorkerId};
use basalt_storage::manifest::{Layout, SegmentRecord};
pub use exec::{DistributionKey, SegmentScanExec};
pub(crate) use properties::{listed_statistics, table_statistics};
use row_ids::{ROW_ID_COLUMN, row_id_field};
pub(crate) use segments::CatalogSegments;
use url::Url;

use crate::snapshot::{ClusterView, TableSnapshot};
use crate::types::scan_type;

/// What all segments of a scan have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanTable {
    /// The epoch of the slice map that the plan was made at.
    pub epoch: Epoch,
    /// The table.
    pub table: TableId,
    /// The table's name, for errors and EXPLAIN.
    pub name: String,
    /// The columns that are read, in the order of `schema`.
    pub columns: Vec<ColumnId>,
    /// The Arrow schema of the read columns, in scan form.
    pub schema: SchemaRef,
    /// Where the holders of segments listen.
    pub endpoints: BTreeMap<WorkerId, Url>,
}

/// One segment as the snapshot names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanSegment {
    /// The table that it was written for, whose id its files have: another one than that which is
    /// scanned when it was salvaged.
    pub table: TableId,
    /// The slice.
    pub slice: SliceId,
    /// The segment.
    pub segment: SegmentId,
    /// How its chunks lie on disk.
    pub layout: Layout,
    /// Rows in the segment.
    pub rows: u64,
    /// Rows of each row group.
    pub row_groups: Vec<u32>,
    /// Digest of its metadata.
    pub meta_digest: Digest,
    /// The version of each read column; `None` when the segment is older than the column.
    pub column_versions: Vec<Option<ColumnVersion>>,
    /// Workers with a copy, the slice's owner first.
    pub holders: Vec<WorkerId>,
    /// The rows that the snapshot does not see.
    pub deleted: Option<DeleteVector>,
    /// Its place in the snapshot's list of the table's segments, for [`row_ids`].
    pub ordinal: u32,
}

/// A range of row groups of one segment: the unit of assignment to tasks and partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScanUnit {
    /// Index into the scan's segments.
    pub segment: u32,
    /// The first row group.
    pub first: u32,
    /// The row group after the last.
    pub end: u32,
}

impl ScanTable {
    /// A scan of some columns (by index into the table's schema) of a table. The index after the
    /// last column stands for row ids ([`row_ids`]).
    pub fn new(table: &TableSnapshot, cluster: &ClusterView, columns: &[usize]) -> Self {
        let (ids, fields): (Vec<_>, Vec<_>) = columns
            .iter()
            .map(|index| match table.schema.columns.get(*index) {
                None => (ROW_ID_COLUMN, row_id_field()),
                Some(column) => {
                    let data_type = scan_type(&column.data_type);
                    (column.id, Field::new(&column.name, data_type, column.nullable))
                }
            })
            .unzip();
        Self {
            epoch: cluster.epoch,
            table: table.id,
            name: format!("{}.{}", table.schema_name, table.name),
            schema: Arc::new(Schema::new(fields)),
            columns: ids,
            endpoints: cluster.workers.clone(),
        }
    }
}

impl ScanSegment {
    /// What a scan of `columns` must know of a segment.
    pub fn new(ordinal: u32, record: &SegmentRecord, columns: &[ColumnId]) -> Self {
        Self {
            table: record.table,
            slice: record.slice,
            segment: record.segment,
            layout: record.layout,
            rows: record.rows,
            row_groups: record.row_groups.clone(),
            meta_digest: record.meta_digest,
            column_versions: columns
                .iter()
                .map(|column| record.columns.get(column).map(|column| column.version))
                .collect(),
            holders: record.holders.clone(),
            deleted: record.deleted.clone(),
            ordinal,
        }
    }
}

/// Spreads row groups over `partitions` so that their row counts are as equal as whole row groups
/// allow: the largest first, each to the emptiest partition (Graham's LPT rule), then neighbours
/// joined into ranges.
pub fn spread_units(segments: &[(u32, &ScanSegment)], partitions: usize) -> Vec<Vec<ScanUnit>> {
    let groups = segments.iter().flat_map(|(index, segment)| {
        segment.row_groups.iter().zip(0..).map(|(rows, group)| (*rows, *index, group))
    });
    spread_groups(groups.collect(), partitions)
}

/// The same of row groups: the rows of each, its segment and its number there.
fn spread_groups(mut groups: Vec<(u32, u32, u32)>, partitions: usize) -> Vec<Vec<ScanUnit>> {
    groups.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
    let mut loads = vec![(0u64, Vec::new()); partitions.max(1)];
    for (rows, segment, group) in groups {
        if let Some((load, units)) = loads.iter_mut().min_by_key(|(load, _)| *load) {
            *load += u64::from(rows);
            units.push(ScanUnit { segment, first: group, end: group + 1 });
        }
    }
    let in_place = |mut units: Vec<ScanUnit>| {
        units.sort();
        join_neighbours(units)
    };
    loads.into_iter().map(|(_, units)| in_place(units)).collect()
}

/// Joins units that touch, in the order that they are in.
fn join_neighbours(units: Vec<ScanUnit>) -> Vec<ScanUnit> {
    units.into_iter().fold(Vec::new(), |mut joined: Vec<ScanUnit>, unit| {
        match joined.last_mut() {
            Some(last) if last.segment == unit.segment && last.end == unit.first => {
                last.end = unit.end;
            }
            _ => joined.push(unit),
        }
        joined
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A segment with row groups of so many rows.
    pub(super) fn segment(row_groups: Vec<u32>) -> ScanSegment {
        ScanSegment {
            table: TableId(1),
            slice: SliceId(0),
            segment: SegmentId::generate(),
            layout: Layout::Wide,
            rows: row_groups.iter().map(|rows| u64::from(*rows)).sum(),
            row_groups,
            meta_digest: Digest::of(b""),
            column_versions: vec![],
            holders: vec![],
            deleted: None,
            ordinal: 0,
        }
    }

    proptest! {
        #[test]
        fn every_row_group_is_in_exactly_one_unit(
            groups in prop::collection::vec(prop::collection::vec(1u32..1000, 0..6), 0..12),
            partitions in 1usize..6,
        ) {
            let segments: Vec<_> = groups.into_iter().map(segment).collect();
            let indexed: Vec<_> = (0..).zip(&segments).collect();
            let spread = spread_units(&indexed, partitions);
            prop_assert_eq!(spread.len(), partitions);
            let mut seen = Vec::new();
            for unit in spread.iter().flatten() {
                seen.extend((unit.first..unit.end).map(|group| (unit.segment, group)));
            }
            seen.sort_unstable();
            let mut expected = Vec::new();
            for (index, segment) in &indexed {
                expected.extend((0..).zip(&segment.row_groups).map(|(group, _)| (*index, group)));
            }
            prop_assert_eq!(seen, expected);
        }
    }

    #[test]
    fn equal_row_groups_are_spread_evenly() {
        let segments: Vec<_> = (0..6).map(|_| segment(vec![100, 100])).collect();
        let indexed: Vec<_> = (0..).zip(&segments).collect();
        let spread = spread_units(&indexed, 3);
        let rows = |units: &Vec<ScanUnit>| units.iter().map(|u| u.end - u.first).sum::<u32>();
        assert_eq!(spread.iter().map(rows).collect::<Vec<_>>(), [4, 4, 4]);
    }
}
