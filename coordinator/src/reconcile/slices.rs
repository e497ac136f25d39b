//! The slice map: a new one when workers come, go or are drained.

use std::collections::BTreeMap;

use basalt_engine::snapshot::Snapshot;
use basalt_storage::ids::{Epoch, TxnId, WorkerId};

use super::Reconciler;
use super::standing::{Standing, standings};
use crate::catalog::{CatalogError, Change, ClusterState, Command, wall_clock_ms};
use crate::membership::COPIES_PLACED;
use crate::placement::{Problem, solve};

impl Reconciler {
    /// How every worker counts now.
    pub(super) fn standings(&self) -> BTreeMap<WorkerId, Standing> {
        let inner = &self.inner;
        let cluster = inner.catalog.cluster();
        let (members, uptime) = (inner.members.members(), inner.started.elapsed());
        standings(&cluster, &members, uptime, inner.options.lost_after)
    }

    /// Commits another slice map when the one there is not the one there should be.
    pub(super) async fn place_slices(&self) -> Result<(), CatalogError> {
        let (cluster, snapshot) = (self.inner.catalog.cluster(), self.inner.catalog.snapshot());
        match placement_due(&cluster, &snapshot, &self.standings()) {
            Some(place) => self.commit(vec![place]).await,
            None => Ok(()),
        }
    }

    /// Commits changes; somebody else's that came first are looked at in the next round.
    pub(super) async fn commit(&self, changes: Vec<Change>) -> Result<(), CatalogError> {
        let command = Command::new(TxnId::generate(), wall_clock_ms(), changes);
        match self.inner.catalog.commit(command).await {
            Ok(_) | Err(CatalogError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The slice map that there should be, when it is another one than there is.
pub(crate) fn placement_due(
    cluster: &ClusterState,
    snapshot: &Snapshot,
    standings: &BTreeMap<WorkerId, Standing>,
) -> Option<Change> {
    if cluster.slice_owners.is_empty() {
        // The first map is made when workers register.
        return None;
    }
    let eligible = standings
        .iter()
        .filter(|(_, standing)| matches!(standing, Standing::Good | Standing::Away));
    let candidate = |(worker, _): (&WorkerId, _)| cluster.candidate(*worker);
    let before = cluster.slice_workers();
    // Never fewer than now: a dropped table must not move what others have.
    let now = before.iter().map(Vec::len).max().unwrap_or(0);
    let copies = copies_placed(snapshot).max(now);
    let problem =
        Problem { slices: cluster.slices, copies, workers: eligible.map(candidate).collect() };
    if problem.workers.is_empty() {
        return None;
    }
    let workers = solve(&problem, &before);
    if workers == before {
        return None;
    }
    let epoch = Epoch(cluster.epoch.0 + 1);
    tracing::info!(%epoch, workers = problem.workers.len(), "slices are placed anew");
    Some(Change::PlaceSlices { epoch, workers })
}

/// Workers per slice that the tables of a snapshot need.
pub(super) fn copies_placed(snapshot: &Snapshot) -> usize {
    let wanted = snapshot.tables().map(|table| usize::from(table.replicas));
    wanted.max().unwrap_or(0).max(COPIES_PLACED)
}
