//! Slices for workers that register: a pure function of the cluster and the worker.
//!
//! Later changes of the slice map are made by [`crate::reconcile`].

use basalt_storage::ids::{Epoch, WorkerId};

use crate::catalog::{Change, ClusterState};
use crate::placement::{Candidate, Problem, solve};

/// Workers that each slice is placed on, unless a table wants more: an owner, and a partner that
/// has the second copy.
pub const COPIES_PLACED: usize = 2;

/// What the catalog must learn when `worker` registers; empty when it knows everything.
///
/// Slices are assigned when the first worker comes, or the last of those expected, and again for
/// each that comes while no table has rows (`has_rows`).
pub fn join_changes(
    cluster: &ClusterState,
    has_rows: bool,
    (worker, candidate): (WorkerId, &Candidate),
) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut workers = cluster.workers.clone();
    if workers.insert(worker) {
        changes.push(Change::RegisterWorker { worker });
    }
    if cluster.candidate(worker).1 != *candidate {
        changes.push(Change::DescribeWorker { worker, candidate: candidate.clone() });
    }
    let expected = cluster.workers_expected.map_or(1, usize::from);
    let is_first_map = cluster.slice_owners.is_empty();
    if workers.len() < expected || (has_rows && !is_first_map) {
        return changes;
    }
    let candidates = workers.into_iter().map(|other| match other == worker {
        true => (worker, candidate.clone()),
        false => cluster.candidate(other),
    });
    let problem =
        Problem { slices: cluster.slices, copies: COPIES_PLACED, workers: candidates.collect() };
    let before = cluster.slice_workers();
    let placed = solve(&problem, &before);
    if placed != before {
        let epoch = Epoch(cluster.epoch.0 + 1);
        changes.push(Change::PlaceSlices { epoch, workers: placed });
    }
    changes
}
