//! Who owns which slice: a pure function of the workers and the map before.
//!
//! Invariants, each with a property test: loads differ by at most one slice, and no slice moves
//! that could have stayed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use basalt_storage::ids::{Epoch, WorkerId};

use crate::catalog::{Change, ClusterState};

/// The owner of each of `slices` slices; empty when there are no workers.
///
/// `previous` is the map before, by slice number; empty when there was none. A new cluster gets
/// its slices in turn: neighbours in worker order own neighbouring slices.
pub fn assign_slices(
    workers: &BTreeSet<WorkerId>,
    slices: u16,
    previous: &[WorkerId],
) -> Vec<WorkerId> {
    if workers.is_empty() {
        return Vec::new();
    }
    let slices = usize::from(slices);
    let quotas = quotas(workers, slices, previous);
    let mut loads: BTreeMap<WorkerId, usize> = workers.iter().map(|worker| (*worker, 0)).collect();
    let mut owners: Vec<Option<WorkerId>> = vec![None; slices];
    for (owner, before) in owners.iter_mut().zip(previous) {
        if let (Some(load), Some(quota)) = (loads.get_mut(before), quotas.get(before))
            && *load < *quota
        {
            *load += 1;
            *owner = Some(*before);
        }
    }
    // The quotas add up to the number of slices, so there is always somebody below theirs.
    for owner in owners.iter_mut().filter(|owner| owner.is_none()) {
        let below = loads
            .iter_mut()
            .filter(|(worker, load)| quotas.get(*worker).is_some_and(|quota| **load < *quota));
        if let Some((worker, load)) = below.min_by_key(|(worker, load)| (**load, **worker)) {
            *load += 1;
            *owner = Some(*worker);
        }
    }
    owners.into_iter().flatten().collect()
}

/// How many slices each worker gets: those who have most now get the odd ones.
fn quotas(
    workers: &BTreeSet<WorkerId>,
    slices: usize,
    previous: &[WorkerId],
) -> BTreeMap<WorkerId, usize> {
    let mut owned: BTreeMap<WorkerId, usize> = workers.iter().map(|worker| (*worker, 0)).collect();
    for owner in previous.iter().take(slices) {
        if let Some(count) = owned.get_mut(owner) {
            *count += 1;
        }
    }
    let mut by_load: Vec<(WorkerId, usize)> = owned.into_iter().collect();
    by_load.sort_by_key(|(worker, count)| (Reverse(*count), *worker));
    let (base, odd) = (slices / workers.len(), slices % workers.len());
    let quota = |(rank, (worker, _))| (worker, base + usize::from(rank < odd));
    by_load.into_iter().enumerate().map(quota).collect()
}

/// What the catalog must learn when `worker` registers; empty when it knows everything.
///
/// Slices are assigned when the first worker comes, or the last of those expected, and again for
/// each that comes while no table has rows (`has_rows`).
pub fn join_changes(cluster: &ClusterState, has_rows: bool, worker: WorkerId) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut workers = cluster.workers.clone();
    if workers.insert(worker) {
        changes.push(Change::RegisterWorker { worker });
    }
    let expected = cluster.workers_expected.map_or(1, usize::from);
    let is_first_map = cluster.slice_owners.is_empty();
    if workers.len() < expected || (has_rows && !is_first_map) {
        return changes;
    }
    let owners = assign_slices(&workers, cluster.slices, &cluster.slice_owners);
    if owners != cluster.slice_owners {
        changes.push(Change::AssignSlices { epoch: Epoch(cluster.epoch.0 + 1), owners });
    }
    changes
}
