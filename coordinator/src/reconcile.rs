//! Keeping the cluster as it should be: who has which slice, and who has copies of what.
//!
//! ```text
//! members, clock ─▶ standing of each worker ─▶ placement ─▶ PlaceSlices
//!                              └──────────────▶ repair plan ─▶ Fetch on workers ─▶ MoveCopies
//!                                             └▶ nothing left with a lost worker ─▶ RemoveWorker
//! ```
//! Level-triggered (RULES 16): each round looks at what is, compares it with what should be, and
//! takes some steps; nothing is remembered that a restart would have to find again. What should be
//! is decided by pure functions ([`crate::placement`], [`crate::repair`]).
//!
//! - `standing`: how workers count
//! - `slices`: the slice map
//! - `copies`: what is known of copies, and the next steps of repair, those of tables that are read
//!   most (`heat`) first
//! - `steps`: these steps taken
//! - `scrub`: every copy read again
//! - `commit_records`: what workers are told of commits
//! - [`garbage`]: what no snapshot names any more, and no write under way (`open_writes`)

mod commit_records;
pub(crate) mod copies;
pub mod garbage;
mod heat;
mod open_writes;
pub(crate) mod scrub;
pub(crate) mod slices;
pub(crate) mod standing;
mod steps;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use basalt_engine::channels::Channels;
use basalt_storage::ids::{TableId, TxnId, WorkerId};
use basalt_storage::layout::SegmentKey;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::catalog::{Catalog, CatalogError};
use crate::membership::Members;
use commit_records::Deliveries;
pub use commit_records::RecordsState;
use copies::Copies;
pub use copies::{RepairRun, RepairState};
use heat::Heat;
pub use open_writes::{OpenWrite, OpenWrites};
pub use scrub::ScrubState;
use scrub::Scrubs;
use standing::Standing;
use steps::Tasks;

/// How often the disk of every worker is compared with the catalog, at least.
const INVENTORY_EVERY_MAX: Duration = Duration::from_secs(60);

/// How long copies that end are gathered before the next ones begin, at least.
const GATHER_MIN: Duration = Duration::from_millis(50);
/// How many times as long as planning takes.
const GATHER_TIMES: u32 = 9;

/// How a cluster is kept as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReconcileOptions {
    /// How often it is looked at.
    pub every: Duration,
    /// Silence after which a worker's copies are made again elsewhere. A restart takes less, and a
    /// worker that flaps within it costs no copy (RULES 17).
    pub lost_after: Duration,
    /// Segments that are copied at a time in the whole cluster.
    pub copies_at_once: usize,
    /// Bytes that are copied in a second, so that queries have the rest of disks and network.
    pub bytes_per_second: u64,
    /// How long a file that no snapshot names stays.
    pub garbage_after: Duration,
    /// Within which time every copy is read again and checked.
    pub scrub_every: Duration,
}

impl ReconcileOptions {
    /// How often the disk of a worker is listed that did not restart.
    pub(crate) fn inventory_every(&self) -> Duration {
        (self.garbage_after / 4).min(INVENTORY_EVERY_MAX)
    }
}

impl Default for ReconcileOptions {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(1),
            lost_after: Duration::from_secs(60),
            copies_at_once: 4,
            bytes_per_second: 256 << 20,
            garbage_after: Duration::from_secs(60 * 60),
            scrub_every: Duration::from_secs(7 * 24 * 60 * 60),
        }
    }
}

/// Keeps one cluster as it should be. Clones are handles to the same.
#[derive(Clone)]
pub struct Reconciler {
    inner: Arc<Inner>,
}

struct Inner {
    catalog: Catalog,
    members: Arc<Members>,
    channels: Channels,
    options: ReconcileOptions,
    started: Instant,
    copies: Mutex<Copies>,
    heat: Mutex<Heat>,
    tasks: Mutex<Tasks>,
    /// A copy was made.
    copy_ended: Arc<Notify>,
    scrubs: Mutex<Scrubs>,
    deliveries: Mutex<Deliveries>,
    writes: OpenWrites,
}

impl Reconciler {
    /// A reconciler that does nothing yet.
    pub fn new(
        catalog: Catalog,
        members: Arc<Members>,
        channels: Channels,
        options: ReconcileOptions,
    ) -> Self {
        let inner = Inner {
            catalog,
            members,
            channels,
            options,
            started: Instant::now(),
            copies: Mutex::default(),
            tasks: Mutex::default(),
            copy_ended: Arc::default(),
            heat: Mutex::default(),
            scrubs: Mutex::default(),
            deliveries: Mutex::default(),
            writes: OpenWrites::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Notes a write that begins; until what is returned is dropped, nothing that was found
    /// meanwhile is taken for garbage.
    pub fn begin_write(&self, txn: TxnId) -> OpenWrite {
        self.inner.writes.begin(txn, Instant::now())
    }

    /// Notes tables that a query reads.
    pub fn note_reads(&self, tables: impl IntoIterator<Item = TableId>) {
        let now = Instant::now();
        let mut heat = self.heat();
        tables.into_iter().for_each(|table| heat.note(table, now));
    }

    /// Repairs that run, and those that ran lately, the newest first.
    pub fn repairs(&self) -> Vec<RepairRun> {
        self.copies().list()
    }

    /// What every member of the cluster is there for now, in a word.
    pub fn worker_states(&self) -> Vec<(WorkerId, &'static str)> {
        let placed: BTreeSet<_> =
            self.inner.catalog.cluster().slice_workers().into_iter().flatten().collect();
        let snapshot = self.inner.catalog.snapshot();
        let word = |(worker, standing): (WorkerId, Standing)| {
            let word = match standing {
                Standing::Good => "serving",
                Standing::Away => "away",
                Standing::Lost => "lost",
                Standing::Draining
                    if placed.contains(&worker) || garbage::holds_any(&snapshot, worker) =>
                {
                    "draining"
                }
                Standing::Draining => "drained",
            };
            (worker, word)
        };
        self.standings().into_iter().map(word).collect()
    }

    /// Works until `stop` is cancelled.
    pub async fn run(&self, stop: CancellationToken) {
        tokio::join!(self.keep_commit_records(stop.clone()), self.run_rounds(stop));
    }

    async fn run_rounds(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.inner.options.every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Planning looks at all segments, and must not cost a core.
        let mut planning = Duration::ZERO;
        let mut gathered_at: Option<Instant> = None;
        loop {
            let gathering = gathered_at.unwrap_or_else(Instant::now);
            let is_round = tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => true,
                // What is small would wait for the next round much longer than it takes. Copies that end
                // together are one commit.
                () = self.inner.copy_ended.notified(), if gathered_at.is_none() => {
                    let gather = planning.saturating_mul(GATHER_TIMES).max(GATHER_MIN);
                    gathered_at = Some(Instant::now() + gather.min(self.inner.options.every));
                    continue;
                }
                () = tokio::time::sleep_until(gathering.into()), if gathered_at.is_some() => false,
            };
            gathered_at = None;
            let work = async {
                match is_round {
                    true => self.round().await,
                    false => {
                        // As in a round: another coordinator may have taken over since.
                        self.inner.catalog.readable().await?;
                        planning = self.repair().await?;
                        Ok(())
                    }
                }
            };
            if let Some(Err(error)) = stop.run_until_cancelled(work).await {
                // The next round sees what is then.
                tracing::warn!(%error, "a round of repair ended early");
            }
        }
    }

    /// Looks once at everything, and takes the steps that are due.
    async fn round(&self) -> Result<(), CatalogError> {
        // What is not known to be the newest names less than there is.
        self.inner.catalog.readable().await?;
        self.place_slices().await?;
        if let Err(error) = self.collect_garbage().await {
            tracing::warn!(%error, "a worker's disk could not be listed");
        }
        self.scrub();
        self.repair().await?;
        self.remove_lost_workers().await
    }

    /// How far repair is.
    pub fn progress(&self) -> crate::repair::Progress {
        self.copies().progress()
    }

    /// Copies that a holder lacks, or has bad ones of, as far as is known.
    pub fn bad_copies(&self) -> BTreeSet<(WorkerId, SegmentKey)> {
        self.copies().bad.clone()
    }

    /// How far the check of each worker's copies is.
    pub fn scrub_states(&self) -> Vec<ScrubState> {
        self.scrubs().list()
    }

    fn scrubs(&self) -> std::sync::MutexGuard<'_, Scrubs> {
        self.inner.scrubs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deliveries(&self) -> std::sync::MutexGuard<'_, Deliveries> {
        self.inner.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heat(&self) -> std::sync::MutexGuard<'_, Heat> {
        self.inner.heat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, Tasks> {
        self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn copies(&self) -> std::sync::MutexGuard<'_, Copies> {
        self.inner.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
