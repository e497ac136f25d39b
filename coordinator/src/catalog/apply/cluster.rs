//! What changes of the cluster mean: its founding, its workers, who has which slice, and where
//! copies are.
//!
//! Invariant: a slice map and a segment name members only, none of them twice, and a segment has a
//! holder. A worker leaves only when nothing names it any more.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use basalt_engine::snapshot::{Relation, TableSnapshot};
use basalt_storage::ids::{Epoch, WorkerId};
use basalt_storage::manifest::SegmentRecord;

use super::super::command::{CopyMove, NewCluster};
use super::super::error::CatalogError;
use super::super::state::ClusterState;
use super::Draft;
use crate::placement::Candidate;

/// The most workers a cluster can have: the slice map and every snapshot list them.
const WORKERS_MAX: usize = 1_024;

impl Draft<'_> {
    pub(super) fn create_cluster(&mut self, new: &NewCluster) -> Result<(), CatalogError> {
        if self.next.cluster.is_some() {
            return Err(CatalogError::invalid("the cluster exists"));
        }
        if !new.slices.is_power_of_two() || new.slices > NewCluster::SLICES_MAX {
            return Err(CatalogError::invalid(format!(
                "the number of slices is {}, not a power of two up to {}",
                new.slices,
                NewCluster::SLICES_MAX
            )));
        }
        if new.workers_expected.is_some_and(|n| n == 0 || usize::from(n) > WORKERS_MAX) {
            return Err(CatalogError::invalid("the number of expected workers is out of range"));
        }
        self.next.cluster = Some(Arc::new(ClusterState::new(new, self.txn)));
        Ok(())
    }

    fn cluster(&mut self) -> Result<&mut ClusterState, CatalogError> {
        let cluster = self.next.cluster.as_mut();
        cluster.map(Arc::make_mut).ok_or_else(|| CatalogError::invalid("there is no cluster yet"))
    }

    pub(super) fn register_worker(&mut self, worker: WorkerId) -> Result<(), CatalogError> {
        let workers = &mut self.cluster()?.workers;
        if !workers.contains(&worker) && workers.len() >= WORKERS_MAX {
            return Err(CatalogError::LimitReached { what: "workers", limit: WORKERS_MAX });
        }
        workers.insert(worker);
        Ok(())
    }

    pub(super) fn describe_worker(
        &mut self,
        worker: WorkerId,
        candidate: Candidate,
    ) -> Result<(), CatalogError> {
        let cluster = self.cluster()?;
        if !cluster.workers.contains(&worker) {
            return Err(CatalogError::UnknownWorker { worker });
        }
        // What is said of nobody in particular is kept for nobody.
        match candidate == Candidate::default() {
            true => cluster.described.remove(&worker),
            false => cluster.described.insert(worker, candidate),
        };
        Ok(())
    }

    pub(super) fn assign_slices(
        &mut self,
        epoch: Epoch,
        owners: Vec<WorkerId>,
    ) -> Result<(), CatalogError> {
        self.place_slices(epoch, owners.into_iter().map(|owner| vec![owner]).collect())
    }

    pub(super) fn place_slices(
        &mut self,
        epoch: Epoch,
        workers: Vec<Vec<WorkerId>>,
    ) -> Result<(), CatalogError> {
        let txn = self.txn;
        let cluster = self.cluster()?;
        if Some(epoch.0) != cluster.epoch.0.checked_add(1) {
            return Err(CatalogError::Conflict {
                object: "the slice map".to_owned(),
                what: "changed",
                winner: cluster.assigned_by,
            });
        }
        if workers.len() != usize::from(cluster.slices) {
            return Err(CatalogError::invalid("the slice map has not one owner per slice"));
        }
        let (mut owners, mut partners) = (Vec::new(), Vec::new());
        for slice in workers {
            if let Some(stranger) = slice.iter().find(|id| !cluster.workers.contains(id)) {
                return Err(CatalogError::invalid(format!("slice owner {stranger} is no worker")));
            }
            if slice.iter().collect::<BTreeSet<_>>().len() != slice.len() {
                return Err(CatalogError::invalid("the slice map names a worker of a slice twice"));
            }
            let Some((owner, others)) = slice.split_first() else {
                return Err(CatalogError::invalid("the slice map has a slice without an owner"));
            };
            owners.push(*owner);
            partners.push(others.to_vec());
        }
        if partners.iter().all(Vec::is_empty) {
            partners.clear();
        }
        cluster.epoch = epoch;
        cluster.slice_owners = owners;
        cluster.slice_partners = partners;
        cluster.assigned_by = txn;
        Ok(())
    }

    pub(super) fn drain_worker(
        &mut self,
        worker: WorkerId,
        drain: bool,
    ) -> Result<(), CatalogError> {
        let cluster = self.cluster()?;
        if !cluster.workers.contains(&worker) {
            return Err(CatalogError::UnknownWorker { worker });
        }
        match drain {
            true => cluster.draining.insert(worker),
            false => cluster.draining.remove(&worker),
        };
        Ok(())
    }

    /// The caller has seen to it that the worker holds no copy; what a transaction under way has
    /// put there is refused at its commit, as its holder is no worker then.
    pub(super) fn remove_worker(&mut self, worker: WorkerId) -> Result<(), CatalogError> {
        let held = self.next.schemas.values().flat_map(|schema| schema.relations.values());
        let holds = held.into_iter().any(|relation| match relation {
            Relation::Table(table) => {
                table.segments.iter().any(|segment| segment.holders.contains(&worker))
            }
            Relation::View(_) => false,
        });
        let cluster = self.cluster()?;
        if !cluster.workers.contains(&worker) {
            return Err(CatalogError::UnknownWorker { worker });
        }
        let placed = cluster.slice_workers().iter().any(|slice| slice.contains(&worker));
        if holds || placed {
            let problem = format!("worker {worker} has slices or copies still");
            return Err(CatalogError::invalid(problem));
        }
        // Older sets have no say any more once this is committed.
        if self.next.log_sets.current.workers.contains(&worker) {
            let problem = format!("worker {worker} keeps a copy of the command log still");
            return Err(CatalogError::invalid(problem));
        }
        let cluster = self.cluster()?;
        cluster.workers.remove(&worker);
        cluster.draining.remove(&worker);
        cluster.described.remove(&worker);
        Ok(())
    }

    pub(super) fn move_copies(&mut self, moves: Vec<CopyMove>) -> Result<(), CatalogError> {
        let mut by_table: BTreeMap<_, HashMap<_, _>> = BTreeMap::new();
        for step in moves {
            if let Some(stranger) = step.add.iter().find(|id| !self.is_worker(id)) {
                let problem = format!("new holder {stranger} is no worker");
                return Err(CatalogError::invalid(problem));
            }
            let moves = by_table.entry(step.table).or_default();
            match moves.entry(step.segment) {
                Entry::Vacant(vacant) => {
                    vacant.insert(step);
                }
                Entry::Occupied(mut merged) => {
                    merged.get_mut().add.extend(step.add);
                    merged.get_mut().remove.extend(step.remove);
                }
            }
        }
        for (id, mut moves) in by_table {
            let Some(entry) = self.next.tables.get(&id) else { continue };
            let (schema, name) = (entry.schema.clone(), entry.name.clone());
            let (_, table) = self.table(id)?;
            let mut table = TableSnapshot::clone(table);
            for segment in table.segments.iter_mut() {
                if let Some(step) = moves.remove(&segment.segment) {
                    let moved = with_copies(segment, &step)?;
                    *segment = Arc::new(moved);
                }
            }
            self.put_relation(&schema, &name, Some(Relation::Table(Arc::new(table))))?;
        }
        Ok(())
    }

    fn is_worker(&self, worker: &WorkerId) -> bool {
        self.next.cluster.as_ref().is_some_and(|cluster| cluster.workers.contains(worker))
    }
}

/// A segment with other holders. Its rows and its table's version stay: no reader can tell.
fn with_copies(segment: &SegmentRecord, step: &CopyMove) -> Result<SegmentRecord, CatalogError> {
    let mut holders: Vec<_> =
        segment.holders.iter().copied().filter(|holder| !step.remove.contains(holder)).collect();
    for holder in &step.add {
        if !holders.contains(holder) {
            holders.push(*holder);
        }
    }
    if holders.is_empty() {
        let problem = format!("segment {} would have no holder", segment.segment);
        return Err(CatalogError::invalid(problem));
    }
    Ok(SegmentRecord { holders, ..segment.clone() })
}
