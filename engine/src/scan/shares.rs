//! A scan divided among the tasks of a stage.
//!
//! Invariant: what is divided is in exactly one share, or all of it in each. The plan checker looks at every leaf
//! (`crate::distribute`).

use std::sync::Arc;

use datafusion::common::Statistics;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;

use super::order::ScanOrder;
use super::segments::{Partitions, at, only};
use super::{ScanSegment, SegmentScanExec, spread_groups};

impl SegmentScanExec {
    /// This scan restricted to the segments that `keep` chooses, spread again over as many
    /// partitions as `partitions` says: one task's variant.
    pub fn restricted(&self, partitions: usize, keep: impl Fn(&ScanSegment) -> bool) -> Self {
        self.only_segments(self.segments.iter().map(keep)).of_a_task(partitions)
    }

    /// This scan divided among `tasks` tasks by the task that each segment is read in, which no task is where
    /// that is none of them.
    pub fn divided(
        &self,
        tasks: usize,
        partitions: usize,
        task_of: impl Fn(&ScanSegment) -> Option<usize>,
    ) -> Vec<Self> {
        let mut places = vec![Vec::new(); tasks];
        for (place, segment) in self.segments.iter().enumerate() {
            if let Some(places) = task_of(segment).and_then(|task| places.get_mut(task)) {
                places.push(place);
            }
        }
        let variant = |places: Vec<usize>| {
            let mut variant = self.clone();
            variant.segments = Arc::new(self.segments.at(&places).into());
            variant.records = Arc::new(at(&self.records, &places));
            variant.of_a_task(partitions)
        };
        places.into_iter().map(variant).collect()
    }

    /// Whether tasks may have parts of its segments: not where it is in an order that goes through whole ones.
    pub fn can_be_shared_out(&self) -> bool {
        self.order == ScanOrder::None
    }

    /// This scan divided evenly among `tasks` tasks, whose workers have all of it: each row group of a snapshot is always
    /// the same one's, whatever a predicate leaves, so that its columns are in the memory of one worker.
    pub fn shared_out(&self, tasks: usize, partitions: usize) -> Vec<Self> {
        let tasks = tasks.max(1);
        let mut shares = vec![Vec::new(); tasks];
        for (place, segment) in (0..).zip(self.segments.iter()) {
            let first = segment.ordinal as usize;
            for (rows, group) in segment.row_groups.iter().zip(0..) {
                shares[(first + group as usize) % tasks].push((*rows, place, group));
            }
        }
        let share = |groups| {
            let (segments, units) = self.segments.read_by(spread_groups(groups, partitions));
            let mut share = self.clone();
            share.segments = Arc::new(segments.into());
            share.partitions = Partitions::from(units);
            // Nothing may spread it again: it has parts of segments.
            share.records = Arc::default();
            share.statistics = Arc::new(Statistics::new_unknown(&self.table.schema));
            share.metrics = ExecutionPlanMetricsSet::new();
            share.with_properties()
        };
        shares.into_iter().map(share).collect()
    }

    /// This scan for tasks each of which reads all of it.
    pub fn replicated(&self, tasks: usize, partitions: usize) -> Vec<Self> {
        let whole = self.clone().of_a_task(partitions);
        let of_task = |_| {
            let mut own = whole.clone();
            own.metrics = ExecutionPlanMetricsSet::new();
            own
        };
        (0..tasks).map(of_task).collect()
    }

    fn of_a_task(mut self, partitions: usize) -> Self {
        self.statistics = Arc::new(Statistics::new_unknown(&self.table.schema));
        self.metrics = ExecutionPlanMetricsSet::new();
        self.spread(partitions)
    }

    /// This scan without some of its segments; its rows are still to be spread over partitions.
    pub(super) fn only_segments(&self, kept: impl Iterator<Item = bool>) -> Self {
        let kept: Vec<_> = kept.collect();
        let mut scan = self.clone();
        scan.segments = Arc::new(self.segments.only(&kept));
        scan.records = Arc::new(only(&self.records, &kept));
        scan
    }
}
