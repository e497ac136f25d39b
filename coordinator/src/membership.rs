//! Membership: which workers there are, whether they live, and where they listen.
//!
//! ```text
//!  register ──▶ roster (memory: incarnation, URL, last heartbeat)
//!                 └─▶ catalog (for ever: RegisterWorker, AssignSlices)
//!  heartbeat ─▶ roster ──▶ catalog.set_worker_urls ──▶ ClusterView of every new snapshot
//! ```
//! [`Members`] is the thin shell: a clock, a lock, and the catalog. What it decides is pure and in
//! [`roster`] (who may join, who lives) and [`slices`] (who owns what).
//!
//! **Slices.** The first worker to register, or the last of the number the cluster was made for,
//! makes the first slice map. A worker that joins later gets slices at once while no table has
//! rows, and after that by [`reconcile`](crate::reconcile), as do the slices of dead workers.
//!
//! Not here: fencing of old epochs on the workers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use basalt_engine::column_cache::ColumnCacheUse;
use basalt_engine::snapshot::{Relation, Snapshot};
use basalt_storage::ids::{ClusterId, Epoch, TxnId, WorkerId};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub mod probe;
pub mod roster;
pub mod slices;

pub use roster::{
    Beat, Incarnation, Join, Liveness, Member, MemberState, Refusal, Roster, Versions,
};
pub use slices::COPIES_PLACED;

use crate::catalog::{Catalog, CatalogError, ClusterState, Command, Readable, wall_clock_ms};
use crate::placement::Candidate;

/// How often a registration plans its slice map again when another one was faster.
const JOIN_ATTEMPTS_MAX: usize = 16;

/// Stands for an epoch that is not known yet: no worker has heard of a later one.
const EPOCH_UNKNOWN: Epoch = Epoch(u64::MAX);

/// Why a worker could not register.
#[derive(Debug, Error)]
pub enum RegisterError {
    /// The worker must not join.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The catalog could not record the worker.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl RegisterError {
    /// Whether the same registration may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_retryable(),
            Self::Catalog(error) => error.is_retryable(),
        }
    }
}

/// What a worker learns when it has registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The cluster it belongs to from now on.
    pub cluster: ClusterId,
    /// The epoch of the slice map.
    pub epoch: Epoch,
    /// How often to send a heartbeat.
    pub heartbeat_every: Duration,
}

/// The workers of one cluster, as its coordinator sees them.
pub struct Members {
    catalog: Catalog,
    roster: Mutex<Roster>,
    /// Workers that were let in before the catalog could record anything.
    unrecorded: Mutex<BTreeSet<WorkerId>>,
    /// How workers said that they use their column caches.
    column_caches: Mutex<BTreeMap<WorkerId, ColumnCacheUse>>,
    started: Instant,
    /// All members, whenever one changed its state.
    changes: watch::Sender<Arc<[Member]>>,
}

impl Members {
    /// No worker is known yet: each registers again after a restart of the coordinator.
    pub fn new(catalog: Catalog, liveness: Liveness, versions: Versions) -> Arc<Self> {
        let roster = Roster::new(catalog.cluster().cluster, liveness, versions);
        Arc::new(Self {
            catalog,
            roster: Mutex::new(roster),
            unrecorded: Mutex::default(),
            column_caches: Mutex::default(),
            started: Instant::now(),
            changes: watch::Sender::new(Arc::from([])),
        })
    }

    /// Lets a worker join, or come back.
    ///
    /// On `Ok` the worker is in the catalog, durably, with its slices when it gets any, and new
    /// snapshots know its URL. Only where the catalog cannot be read yet, one that was a member
    /// before is let in unrecorded; a heartbeat has it register again once it can. Sending the same
    /// registration again is safe.
    pub async fn register(&self, join: Join) -> Result<Registration, RegisterError> {
        let (worker, candidate) = (join.worker, join.candidate.clone());
        let was_member = join.cluster.is_some();
        self.roster().register(join, self.newest_epoch(), self.now())?;
        // Where it listens is known before it is recorded: the catalog may need its copy of the log
        // to record anything.
        self.refresh();
        if was_member && self.newest_epoch() == EPOCH_UNKNOWN {
            // Nothing can be recorded until others have said what was committed, and one of them may
            // be started only when this one is ready.
            self.unrecorded().insert(worker);
        } else {
            self.record(worker, &candidate).await?;
        }
        self.refresh();
        let cluster = self.catalog.cluster();
        tracing::info!(%worker, epoch = %cluster.epoch, "a worker registered");
        // Before the first slice map nothing can be written, and those that are expected are on their way.
        let is_forming = cluster.slice_owners.is_empty();
        if cluster.workers.len() == 1 && !is_forming {
            tracing::warn!(
                "the cluster has one worker, so each chunk has one copy: add a worker, and the second is made"
            );
        }
        Ok(Registration {
            cluster: cluster.cluster,
            epoch: cluster.epoch,
            heartbeat_every: self.roster().liveness().heartbeat_every,
        })
    }

    /// Commits what the catalog must know of a worker, planning again when somebody was faster.
    async fn record(&self, worker: WorkerId, candidate: &Candidate) -> Result<(), CatalogError> {
        let mut last = None;
        for _ in 0..JOIN_ATTEMPTS_MAX {
            let has_rows = has_rows(&self.catalog.snapshot());
            let joins = (worker, candidate);
            let changes = slices::join_changes(&self.catalog.cluster(), has_rows, joins);
            if changes.is_empty() {
                return Ok(());
            }
            let command = Command::new(TxnId::generate(), wall_clock_ms(), changes);
            match self.catalog.commit(command).await {
                // Others may have registered at once, each without a map because it did not see the
                // rest: who looks last sees all, and makes it.
                Ok(_) => last = None,
                Err(error @ CatalogError::Conflict { .. }) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        last.map_or(Ok(()), Err)
    }

    /// The newest epoch there can be. After a crash or a restore workers may know of later ones than
    /// snapshots show: what their copies of the log have is taken over only once they are here.
    fn newest_epoch(&self) -> Epoch {
        match self.catalog.log_status().readable {
            Readable::NotYet(_) => EPOCH_UNKNOWN,
            Readable::Yes | Readable::No(_) => self.catalog.cluster().epoch,
        }
    }

    /// Workers that serve, and that the catalog may not know as they are.
    fn unrecorded(&self) -> MutexGuard<'_, BTreeSet<WorkerId>> {
        self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a sign of life.
    pub fn heartbeat(&self, worker: WorkerId, incarnation: Incarnation, epoch: Epoch) -> Beat {
        let cluster = self.catalog.cluster();
        // Until members have said what was committed, the cluster that is known may be an older one.
        let known = (self.newest_epoch() != EPOCH_UNKNOWN).then_some(cluster.as_ref());
        if known.is_some() && self.unrecorded().remove(&worker) {
            return Beat::Register;
        }
        let beat = note_beat(&mut self.roster(), known, (worker, incarnation, epoch), self.now());
        if beat == (Beat::Alive { changed: true }) {
            self.refresh();
        }
        beat
    }

    /// Notes how a worker that was heard of uses its column cache.
    pub(crate) fn note_column_cache(&self, worker: WorkerId, usage: ColumnCacheUse) {
        let mut caches = self.column_caches.lock().unwrap_or_else(PoisonError::into_inner);
        caches.insert(worker, usage);
    }

    /// How live workers use their column caches, as their last heartbeats said.
    pub(crate) fn column_caches(&self) -> BTreeMap<WorkerId, ColumnCacheUse> {
        let members = self.members();
        let is_live = |worker| {
            let live = |member: &Member| member.state == MemberState::Live;
            members.iter().any(|member| member.worker == worker && live(member))
        };
        let mut caches = self.column_caches.lock().unwrap_or_else(PoisonError::into_inner);
        caches.retain(|worker, _| is_live(*worker));
        caches.clone()
    }

    /// A worker stops in good order: it counts as dead at once.
    pub fn leave(&self, worker: WorkerId, incarnation: Incarnation) {
        self.roster().leave(worker, incarnation);
        self.refresh();
    }

    /// Notes which workers answered when they were asked, and tells readers.
    pub(crate) fn note_answers(&self, answers: &[(WorkerId, Incarnation, bool)]) {
        {
            let (mut roster, now) = (self.roster(), self.now());
            for (worker, incarnation, answered) in answers {
                match answered {
                    true => roster.answered(*worker, *incarnation, now),
                    false => roster.accuse(*worker, *incarnation, now),
                }
            }
        }
        self.refresh();
    }

    /// All members, whenever one changes its state.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<[Member]>> {
        self.changes.subscribe()
    }

    /// All workers that registered since this coordinator started.
    pub fn members(&self) -> Vec<Member> {
        self.roster().members(self.now())
    }

    /// Waits until the members satisfy `wanted`, as seen at each change of a state.
    pub async fn wait_for(&self, mut wanted: impl FnMut(&[Member]) -> bool) -> Arc<[Member]> {
        let mut changes = self.changes.subscribe();
        match changes.wait_for(|members| wanted(members)).await {
            Ok(members) => Arc::clone(&members),
            // The sender lives in `self`, so this cannot be.
            Err(_) => Arc::from(self.members()),
        }
    }

    /// Waits until `count` workers are live.
    pub async fn wait_live(&self, count: usize) {
        self.wait_for(|members| {
            members.iter().filter(|member| member.state == MemberState::Live).count() >= count
        })
        .await;
    }

    /// Looks at the clock: tells readers and waiters when a worker changed its state.
    pub fn refresh(&self) {
        // Under the lock until readers are told, so that an older view never overtakes a newer.
        let roster = self.roster();
        let now = self.now();
        self.catalog.set_worker_urls(roster.urls(now));
        let members = roster.members(now);
        self.changes.send_if_modified(|shown| {
            let is_same = |(a, b): (&Member, &Member)| a.is_same_as(b);
            if shown.len() == members.len() && shown.iter().zip(&members).all(is_same) {
                return false;
            }
            log_changes(shown, &members);
            *shown = Arc::from(members);
            true
        });
    }

    /// Refreshes at every heartbeat interval until `stop` is cancelled.
    pub async fn run(&self, stop: CancellationToken) {
        let every = self.roster().liveness().heartbeat_every;
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.refresh();
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        // Each call leaves the roster whole, so a panic elsewhere does not spoil it.
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_changes(before: &[Member], after: &[Member]) {
    for member in after {
        let old = before.iter().find(|old| old.worker == member.worker).map(|old| old.state);
        if old != Some(member.state) {
            let Member { worker, state, url, .. } = member;
            tracing::info!(%worker, ?state, %url, "a worker changed its state");
        }
    }
}

/// Notes a sign of life of a worker's run, which has heard of an epoch. Where the newest cluster is
/// not `known`, any epoch and any member is believed.
pub(crate) fn note_beat(
    roster: &mut Roster,
    known: Option<&ClusterState>,
    (worker, incarnation, epoch): (WorkerId, Incarnation, Epoch),
    now: Duration,
) -> Beat {
    if known.is_some_and(|cluster| !cluster.workers.contains(&worker)) {
        // It was removed when it was lost, and is back: it becomes a member again.
        return Beat::Register;
    }
    let current = known.map_or(EPOCH_UNKNOWN, |cluster| cluster.epoch);
    roster.heartbeat(worker, incarnation, epoch, current, now)
}

pub(crate) fn has_rows(snapshot: &Snapshot) -> bool {
    let mut relations = snapshot.schemas.values().flat_map(|schema| schema.relations.values());
    relations.any(|relation| match relation {
        Relation::Table(table) => !table.segments.is_empty(),
        Relation::View(_) => false,
    })
}
