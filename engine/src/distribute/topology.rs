//! The workers that a statement may use, in one fixed order, and which task each one's data is in.

use basalt_storage::ids::{SliceId, WorkerId};
use datafusion::error::Result;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_distributed::WorkerResolver;
use url::Url;

use crate::error::{ErrorCode, SqlError};
use crate::scan::{ScanSegment, SegmentScanExec};
use crate::snapshot::ClusterView;

/// The workers of one statement. Pinned with the snapshot, so that every stage of a plan maps
/// tasks to workers alike.
#[derive(Debug, Clone)]
pub struct Topology {
    workers: Vec<(WorkerId, Url)>,
    slice_owners: Vec<WorkerId>,
    one_task_rows: u64,
}

/// Column chunks with other workers that the task of a small scan fetches; each is a message.
const FETCHED_CHUNKS_MAX: usize = 256;
/// A scan that fetches nothing may be so many times as large: reading a million rows takes a worker about as long as
/// tasks with all others, and exchanges of what they find, would.
const HELD_TIMES: u64 = 128;

impl Topology {
    /// The workers of a view of the cluster, in the order of their ids, for a session in which
    /// scans of at most `one_task_rows` rows are one task.
    pub fn new(cluster: &ClusterView, one_task_rows: usize) -> Self {
        Self {
            one_task_rows: one_task_rows as u64,
            workers: cluster.workers.iter().map(|(id, url)| (*id, url.clone())).collect(),
            slice_owners: cluster.slice_owners.clone(),
        }
    }

    /// How many workers there are.
    pub fn worker_count(&self) -> usize {
        self.workers.len()
    }

    /// Rows of a scan that is one task, however many workers there are.
    pub fn one_task_rows(&self) -> u64 {
        self.one_task_rows
    }

    /// The task, of `tasks`, that runs on the worker which should read a segment: the owner of its
    /// slice when that one holds a copy, else the first holder that can be reached.
    pub fn task_of(&self, slice: SliceId, holders: &[WorkerId], tasks: usize) -> Result<usize> {
        self.reader_of(slice, holders).map(|worker| worker % tasks.max(1))
    }

    /// The place of a worker among those that can be reached: they are in the order of their ids.
    fn position(&self, worker: &WorkerId) -> Option<usize> {
        self.workers.binary_search_by(|(known, _)| known.cmp(worker)).ok()
    }

    /// The position of the worker that should read a segment.
    pub fn reader_of(&self, slice: SliceId, holders: &[WorkerId]) -> Result<usize> {
        let owner = self.slice_owners.get(usize::from(slice.0));
        let position = |id: &WorkerId| self.position(id);
        owner
            .filter(|owner| holders.contains(owner))
            .and_then(position)
            .or_else(|| holders.iter().find_map(position))
            .ok_or_else(|| {
                let message = format!("slice {slice} is held by no worker that can be reached");
                SqlError::new(ErrorCode::Unavailable, message)
                    .with_hint("start the missing worker again; sys.workers shows which one it is")
                    .into()
            })
    }

    /// The task of each slice, of as many tasks as there are workers: its owner's, if that one has all of
    /// some segments of the slice, else that of who has most of their rows, so that all tables of a plan
    /// find a slice with the same worker. What that worker has no copy of it fetches.
    pub fn tasks_of_slices<'a>(
        &self,
        segments: impl Iterator<Item = &'a ScanSegment>,
    ) -> Vec<usize> {
        let mut rows = vec![(0_u64, vec![0_u64; self.worker_count()]); self.slice_owners.len()];
        for segment in segments {
            let Some((all, held)) = rows.get_mut(usize::from(segment.slice.0)) else { continue };
            let weight = segment.rows.max(1);
            *all += weight;
            for holder in &segment.holders {
                if let Some(held) = self.position(holder).and_then(|at| held.get_mut(at)) {
                    *held += weight;
                }
            }
        }
        let owners = self.slice_owners.iter();
        let task = |(owner, (all, held)): (&WorkerId, (u64, Vec<u64>))| {
            let owner = self.position(owner);
            owner.filter(|owner| held[*owner] == all).unwrap_or_else(|| busiest(&held))
        };
        owners.zip(rows).map(task).collect()
    }

    /// How many tasks should read `columns` columns of some segments, each given by its reader and its
    /// rows: one where all have one reader, or where to fetch the few rows that others have takes
    /// less than tasks of their own would; else one for each worker.
    pub fn tasks_for(&self, segments: &[(usize, u64)], columns: usize) -> usize {
        let mut rows_of = vec![0u64; self.worker_count()];
        for (reader, rows) in segments {
            rows_of[*reader] = rows_of[*reader].saturating_add(*rows);
        }
        let home = busiest(&rows_of);
        let elsewhere = segments.iter().filter(|(reader, _)| *reader != home).count();
        let rows = rows_of.iter().fold(0u64, |sum, rows| sum.saturating_add(*rows));
        let chunks = elsewhere.saturating_mul(columns.max(1));
        if elsewhere == 0 || self.are_few(rows, chunks) { 1 } else { self.worker_count() }
    }

    /// Whether any worker may as well read all that a scan reads, wherever that is.
    pub(super) fn is_small(&self, scan: &SegmentScanExec) -> bool {
        let columns = scan.schema().fields().len().max(1);
        self.are_few(scan.assigned_rows(), scan.segments().len().saturating_mul(columns))
    }

    /// How many tasks should read the rows of some row groups that every worker has: one, or one for each worker.
    pub(super) fn tasks_for_held(&self, rows: u64, row_groups: usize) -> usize {
        let most = self.one_task_rows.saturating_mul(HELD_TIMES);
        if rows <= most || row_groups <= 1 { 1 } else { self.worker_count().max(1) }
    }

    fn are_few(&self, rows: u64, chunks: usize) -> bool {
        rows <= self.one_task_rows && chunks <= FETCHED_CHUNKS_MAX
    }

    /// The address of the worker that runs task `task` of a stage: the first of its group.
    pub fn url_of_task(&self, task: usize) -> Option<&Url> {
        self.workers.get(task).map(|(_, url)| url)
    }

    /// The worker at a place.
    pub(super) fn worker_at(&self, place: usize) -> Option<WorkerId> {
        self.workers.get(place).map(|(worker, _)| *worker)
    }
}

/// The position of the worker with most rows: the first of several.
pub(super) fn busiest(rows_of: &[u64]) -> usize {
    let workers = rows_of.iter().enumerate();
    let busiest = workers.max_by_key(|(position, rows)| (**rows, usize::MAX - position));
    busiest.map_or(0, |(position, _)| position)
}

impl WorkerResolver for Topology {
    fn get_urls(&self) -> Result<Vec<Url>> {
        if self.workers.is_empty() {
            let message = "no worker has joined the cluster";
            return Err(SqlError::new(ErrorCode::Unavailable, message)
                .with_hint("start one: basalt worker --coordinator URL --secret-file FILE")
                .into());
        }
        Ok(self.workers.iter().map(|(_, url)| url.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(one_task_rows: u64) -> Topology {
        let workers = (0..3)
            .map(|port| (WorkerId::generate(), format!("http://127.0.0.1:{port}").parse().unwrap()))
            .collect();
        Topology { workers, slice_owners: vec![], one_task_rows }
    }

    fn tasks(one_task_rows: u64, segments: &[(usize, u64)]) -> usize {
        topology(one_task_rows).tasks_for(segments, 2)
    }

    #[test]
    fn what_every_worker_has_is_one_task_up_to_many_times_as_many_rows() {
        assert_eq!(topology(10).tasks_for_held(10 * HELD_TIMES, 2), 1);
        assert_eq!(topology(10).tasks_for_held(10 * HELD_TIMES + 1, 2), 3);
        assert_eq!(topology(0).tasks_for_held(2, 2), 3);
        assert_eq!(topology(0).tasks_for_held(u64::MAX, 1), 1, "it cannot be cut");
    }

    #[test]
    fn what_one_worker_has_is_one_task() {
        assert_eq!(tasks(0, &[]), 1);
        assert_eq!(tasks(0, &[(1, u64::MAX), (1, u64::MAX)]), 1);
    }

    #[test]
    fn few_rows_of_several_workers_are_one_task() {
        assert_eq!(tasks(10, &[(0, 5), (2, 5)]), 1);
        assert_eq!(tasks(10, &[(0, 5), (2, 6)]), 3);
        assert_eq!(tasks(0, &[(0, 1), (2, 1)]), 3);
    }

    #[test]
    fn few_rows_in_many_chunks_elsewhere_are_not() {
        // The worker with most rows is the one that reads, however many segments another has.
        let mut segments = vec![(0, 1); FETCHED_CHUNKS_MAX / 2];
        segments.push((1, 5_000));
        assert_eq!(tasks(10_000, &segments), 1);
        segments.push((2, 1));
        assert_eq!(tasks(10_000, &segments), 3);
    }
}
