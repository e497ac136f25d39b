//! What ANALYZE found out about tables, and what the planner is told of it.
//!
//! Rows, NULLs and bounds are exact and come with every segment (`scan/properties.rs`). This is
//! what only reading values tells: how many different ones a column has, and how they are spread.
//!
//! Invariant: statistics are hints. No answer depends on them, they conflict with no statement, and a
//! table that was never analysed, or whose catalog was rebuilt, only lacks them. So the planner gets
//! a count of distinct values that is never exact and never more than there are rows.
//!
//! What was read is remembered by segment, so that the next ANALYZE reads what is new. That fits
//! sketches, which are of sets: what is read again changes nothing, and deleted rows stay in until
//! so many are gone that everything is read anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use basalt_storage::ids::{ColumnId, SegmentId};
use basalt_storage::manifest::SegmentRecord;
use basalt_storage::sketch::{DistinctSketch, RowSample};
use datafusion::common::Statistics;
use datafusion::common::stats::Precision;
use serde::{Deserialize, Serialize};

/// Of how many rows one may have been deleted since they were read before all is read anew, instead
/// of what is new alone.
const DELETED_SHARE: u64 = 10;
/// A column in which more than one row of so many has a value of its own gets more values with more
/// rows, as keys do; the others have a fixed set. (PostgreSQL's rule.)
const OWN_VALUE_SHARE: u64 = 10;

/// What values of one column were found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnSketch {
    /// How many different ones.
    pub distinct: DistinctSketch,
    /// Some rows, of columns whose spread matters: those of the sort key and the distribution key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<RowSample>,
}

impl ColumnSketch {
    fn add(&mut self, other: &Self) {
        self.distinct.union(&other.distinct);
        match (&mut self.sample, &other.sample) {
            (Some(sample), Some(other)) => sample.union(other),
            (sample, other) => *sample = sample.take().or_else(|| other.clone()),
        }
    }
}

/// What one ANALYZE read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnalysisKind {
    /// All rows of all columns: it takes the place of what was known.
    Whole,
    /// All columns of segments that were not read before: it is added.
    Added,
    /// All rows of some columns: it takes the place of what was known of those.
    Columns,
}

/// What came of one ANALYZE of one table. On disk, in the catalog's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Analysis {
    /// What was read.
    pub kind: AnalysisKind,
    /// The commit whose rows were read.
    pub version: u64,
    /// When, in milliseconds since 1970. Information for people.
    pub time_ms: u64,
    /// How many rows were read.
    pub rows: u64,
    /// The segments they are of; empty when only some columns were read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<SegmentId>,
    /// What was found.
    pub columns: BTreeMap<ColumnId, ColumnSketch>,
}

/// What is known of one column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnalysedColumn {
    /// What values were found.
    pub sketch: ColumnSketch,
    /// In how many rows.
    pub rows: u64,
    /// The commit at which it was analysed last.
    pub version: u64,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
}

impl AnalysedColumn {
    /// How many different values a column probably has when its table has `rows` rows.
    pub fn distinct_in(&self, rows: u64) -> u64 {
        let found = self.sketch.distinct.estimate().min(self.rows);
        let grows = found > self.rows / OWN_VALUE_SHARE;
        let scaled = match u128::from(found) * u128::from(rows) {
            product if grows && self.rows > 0 => product / u128::from(self.rows),
            _ => u128::from(found),
        };
        u64::try_from(scaled).unwrap_or(u64::MAX).min(rows)
    }
}

/// What is known of a table's columns, and which segments it was read from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableStatistics {
    columns: BTreeMap<ColumnId, AnalysedColumn>,
    /// Segments of which all columns were read.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    covered: BTreeSet<SegmentId>,
    /// Rows that they had then.
    #[serde(default)]
    covered_rows: u64,
}

/// How the rows of a table differ from those that were analysed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangedRows {
    /// Rows that were not read.
    pub added: u64,
    /// Rows that were read and are gone.
    pub deleted: u64,
}

impl TableStatistics {
    /// What is known of a column.
    pub fn column(&self, column: ColumnId) -> Option<&AnalysedColumn> {
        self.columns.get(&column)
    }

    /// Whether all columns of a segment were read.
    pub fn covers(&self, segment: SegmentId) -> bool {
        self.covered.contains(&segment)
    }

    /// What changed of a table since it was analysed.
    pub fn changed(&self, segments: &[Arc<SegmentRecord>]) -> ChangedRows {
        let (mut added, mut left) = (0, 0);
        for segment in segments {
            let rows = if self.covers(segment.segment) { &mut left } else { &mut added };
            *rows += segment.live_rows();
        }
        ChangedRows { added, deleted: self.covered_rows.saturating_sub(left) }
    }

    /// Whether what is new can be added to what is known, for a table with these columns.
    pub fn can_grow(&self, columns: &[ColumnId], segments: &[Arc<SegmentRecord>]) -> bool {
        let deleted = self.changed(segments).deleted;
        !self.covered.is_empty()
            && deleted <= self.covered_rows / DELETED_SHARE
            && columns.iter().all(|column| self.columns.contains_key(column))
    }

    /// Takes in what was found, for a table that has these segments now. What was read of others
    /// counts as well, but they are gone.
    pub fn record(&mut self, found: Analysis, live: &[Arc<SegmentRecord>]) {
        let Analysis { kind, version, time_ms, rows, segments, columns } = found;
        if kind == AnalysisKind::Whole {
            *self = Self::default();
        }
        let rows = match kind {
            AnalysisKind::Columns => rows,
            AnalysisKind::Whole => {
                self.cover(&segments, live);
                rows
            }
            AnalysisKind::Added => {
                self.cover(&segments, live);
                self.covered_rows
            }
        };
        for (id, sketch) in columns {
            let known = self.columns.get(&id).filter(|_| kind == AnalysisKind::Added);
            let column = match known.cloned() {
                Some(mut known) => {
                    known.sketch.add(&sketch);
                    let version = version.max(known.version);
                    AnalysedColumn { rows, version, time_ms, ..known }
                }
                None => AnalysedColumn { sketch, rows, version, time_ms },
            };
            self.columns.insert(id, column);
        }
    }

    /// Covers those of some segments that are live and were not covered.
    fn cover(&mut self, segments: &[SegmentId], live: &[Arc<SegmentRecord>]) {
        let live: HashMap<_, _> =
            live.iter().map(|segment| (segment.segment, segment.live_rows())).collect();
        let new = segments.iter().filter_map(|id| Some((*id, live.get(id)?)));
        let rows = new.filter(|(id, _)| self.covered.insert(*id)).map(|(_, rows)| rows);
        self.covered_rows += rows.sum::<u64>();
    }

    /// Other segments have the same rows now. They are covered if all of those before were; if only
    /// some were, those rows will be read again, which changes nothing but their share of samples.
    pub fn replaced<'a>(
        &mut self,
        before: &[Arc<SegmentRecord>],
        now: impl IntoIterator<Item = &'a SegmentRecord>,
    ) {
        if before.iter().all(|segment| self.covers(segment.segment)) {
            self.covered.extend(now.into_iter().map(|segment| segment.segment));
        } else {
            let read = before.iter().filter(|segment| self.covers(segment.segment));
            let rows: u64 = read.map(|segment| segment.live_rows()).sum();
            self.covered_rows = self.covered_rows.saturating_sub(rows);
        }
        for segment in before {
            self.covered.remove(&segment.segment);
        }
    }

    /// Forgets a segment that is gone with its last row. Its rows count as deleted.
    pub fn forget(&mut self, segment: SegmentId) {
        self.covered.remove(&segment);
    }
}

/// Whether the plans of a session go by estimates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Estimates(pub(crate) bool);

/// Tells the planner of distinct values, in statistics of these columns. An estimate is never exact,
/// so that DataFusion answers nothing from it, and never more than the rows that have a value.
pub(crate) fn add_distinct_counts(
    statistics: &mut Statistics,
    columns: &[ColumnId],
    analysed: &TableStatistics,
) {
    let Some(rows) = statistics.num_rows.get_value().copied() else { return };
    for (column, told) in columns.iter().zip(&mut statistics.column_statistics) {
        let Some(known) = analysed.column(*column) else { continue };
        let nulls = told.null_count.get_value().copied().unwrap_or(0);
        let distinct = usize::try_from(known.distinct_in(rows as u64)).unwrap_or(usize::MAX);
        told.distinct_count = Precision::Inexact(distinct.min(rows.saturating_sub(nulls)));
    }
}

#[cfg(test)]
mod tests;
