//! The segments of a scan and their spread over partitions: made when somebody looks at them.
//!
//! A scan begins with all segments of its table, of which a predicate may leave a few of thousands. Until it
//! is known they stay as the catalog has them, and are shared with it.

use std::collections::{BTreeSet, HashMap};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use basalt_storage::ids::{ColumnId, SegmentId};
use basalt_storage::manifest::SegmentRecord;

use super::{ScanSegment, ScanUnit, spread_units};
use crate::snapshot::ClusterView;

/// The segments of a scan, in the order of the snapshot.
#[derive(Debug, Default)]
pub(super) struct ScanSegments {
    recorded: Option<CatalogSegments>,
    made: OnceLock<Vec<ScanSegment>>,
}

/// Segments as the catalog has them, and what a scan's are made of besides.
#[derive(Debug, Clone)]
pub(crate) struct CatalogSegments {
    pub(crate) records: Arc<Vec<Arc<SegmentRecord>>>,
    /// Their places in the snapshot's list; `None` when they are all of it.
    pub(crate) ordinals: Option<Vec<u32>>,
    /// Whether a segment is known by its id instead, which is its own in all snapshots.
    pub(crate) lasting_ids: bool,
    /// The columns that are read.
    pub(crate) columns: Vec<ColumnId>,
    /// Says where copies are that were moved.
    pub(crate) cluster: Arc<ClusterView>,
}

impl CatalogSegments {
    fn made(&self) -> Vec<ScanSegment> {
        let segment = |(place, record): (u32, &Arc<SegmentRecord>)| {
            let place = match &self.ordinals {
                Some(ordinals) => ordinals.get(place as usize).copied().unwrap_or(place),
                None => place,
            };
            let ordinal = if self.lasting_ids { lasting_ordinal(record.segment) } else { place };
            let mut segment = ScanSegment::new(ordinal, record, &self.columns);
            if let Some(holders) = self.cluster.moved.get(&segment.segment) {
                segment.holders.clone_from(holders);
            }
            segment
        };
        (0..).zip(self.records.iter()).map(segment).collect()
    }

    fn only(&self, kept: &[bool]) -> Self {
        let all = 0..u32::try_from(self.records.len()).unwrap_or(u32::MAX);
        let places = self.ordinals.clone().unwrap_or_else(|| all.collect());
        Self {
            records: Arc::new(only(&self.records, kept)),
            ordinals: Some(only(&places, kept)),
            ..self.clone()
        }
    }
}

/// A number that is the segment's own in all snapshots: the random end of its id.
fn lasting_ordinal(segment: SegmentId) -> u32 {
    segment.0.as_bytes().last_chunk().copied().map_or(0, u32::from_le_bytes)
}

impl ScanSegments {
    /// How many.
    pub(super) fn len(&self) -> usize {
        match &self.recorded {
            Some(recorded) => recorded.records.len(),
            None => self.made.get().map_or(0, Vec::len),
        }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows in them, deleted ones included.
    pub(super) fn rows(&self) -> u64 {
        match &self.recorded {
            Some(recorded) => recorded.records.iter().map(|record| record.rows).sum(),
            None => self.iter().map(|segment| segment.rows).sum(),
        }
    }

    /// Those at some places.
    pub(super) fn at(&self, places: &[usize]) -> Vec<ScanSegment> {
        at(self, places)
    }

    /// Those that some units are of, and the units in terms of these.
    pub(super) fn read_by(
        &self,
        units: Vec<Vec<ScanUnit>>,
    ) -> (Vec<ScanSegment>, Vec<Vec<ScanUnit>>) {
        let read: BTreeSet<u32> = units.iter().flatten().map(|unit| unit.segment).collect();
        let places: HashMap<u32, u32> = read.iter().copied().zip(0..).collect();
        let renumbered = |unit: &ScanUnit| {
            let segment = *places.get(&unit.segment)?;
            Some(ScanUnit { segment, ..*unit })
        };
        let of = |units: &Vec<ScanUnit>| units.iter().filter_map(renumbered).collect();
        let units = units.iter().map(of).collect();
        let segments = read.iter().filter_map(|place| self.get(*place as usize).cloned());
        (segments.collect(), units)
    }

    /// Some of them.
    pub(super) fn only(&self, kept: &[bool]) -> Self {
        match (self.made.get(), &self.recorded) {
            (None, Some(recorded)) => Self::from(recorded.only(kept)),
            (made, _) => Self::from(only(made.map_or(&[], Vec::as_slice), kept)),
        }
    }
}

impl From<Vec<ScanSegment>> for ScanSegments {
    fn from(made: Vec<ScanSegment>) -> Self {
        Self { recorded: None, made: OnceLock::from(made) }
    }
}

impl From<CatalogSegments> for ScanSegments {
    fn from(recorded: CatalogSegments) -> Self {
        Self { recorded: Some(recorded), made: OnceLock::new() }
    }
}

impl Deref for ScanSegments {
    type Target = [ScanSegment];

    fn deref(&self) -> &[ScanSegment] {
        self.made.get_or_init(|| self.recorded.as_ref().map_or(vec![], CatalogSegments::made))
    }
}

/// The units of each partition of a scan.
#[derive(Debug, Clone)]
pub(super) struct Partitions {
    count: usize,
    /// What is spread when it is asked for.
    segments: Arc<ScanSegments>,
    units: Arc<OnceLock<Vec<Vec<ScanUnit>>>>,
}

impl Partitions {
    /// All row groups of some segments in no order, spread over `count` partitions.
    pub(super) fn of_all(segments: &Arc<ScanSegments>, count: usize) -> Self {
        Self { count: count.max(1), segments: Arc::clone(segments), units: Arc::default() }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Whether they have all row groups of their segments.
    pub(super) fn are_of_all(&self) -> bool {
        !self.segments.is_empty()
    }
}

impl From<Vec<Vec<ScanUnit>>> for Partitions {
    fn from(units: Vec<Vec<ScanUnit>>) -> Self {
        let (count, segments) = (units.len(), Arc::default());
        Self { count, segments, units: Arc::new(OnceLock::from(units)) }
    }
}

impl Deref for Partitions {
    type Target = [Vec<ScanUnit>];

    fn deref(&self) -> &[Vec<ScanUnit>] {
        self.units.get_or_init(|| {
            let indexed: Vec<_> = (0..).zip(self.segments.iter()).collect();
            spread_units(&indexed, self.count)
        })
    }
}

/// The items at some places; none where there is none.
pub(super) fn at<T: Clone>(items: &[T], places: &[usize]) -> Vec<T> {
    places.iter().filter_map(|place| items.get(*place).cloned()).collect()
}

/// The items that are kept.
pub(super) fn only<T: Clone>(items: &[T], kept: &[bool]) -> Vec<T> {
    items.iter().zip(kept).filter(|(_, kept)| **kept).map(|(item, _)| item.clone()).collect()
}
