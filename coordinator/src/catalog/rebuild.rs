//! A catalog made again from what workers keep of its commits, when the coordinator's disk and the
//! copies of its log are gone.
//!
//! ```text
//! records of all workers ─▶ the newest commit that any of them knows: M
//!       what was live at M: tables, views, segments, how many rows of each are deleted
//!             └─▶ the record of each such segment, of a worker that holds it ─▶ catalog.redb
//! ```
//! Invariant: what comes out is the database at commit `M`, all tables of one moment, or it says
//! what differs: a [`Doubt`] for each segment whose record is missing or of another moment. Nothing
//! becomes live that a commit record does not name, whatever lies on the disks.
//!
//! What was committed after `M` is not in it, deletes included: records follow commits by a moment,
//! or by longer where a worker could not write them, and vouch for nothing. Nor are request keys: a write that is sent again under its key is a new one. Where
//! copies of the command log are left, [`restore`](super::restore) gives more.
//!
//! - [`rebuild`] and its types, and [`salvage`] of what lies on disks beside it: pure
//! - [`found`]: writes the catalog

mod doubt;
mod found;
pub mod salvage;

use std::collections::{BTreeMap, BTreeSet};

use basalt_storage::command_log::Chain;
use basalt_storage::ids::{ClusterId, Epoch, LogEpoch, SegmentId, WorkerId};
use basalt_storage::layout::SegmentKey;
use basalt_storage::manifest::{Layout, SegmentRecord};

use super::command::NewTable;
use super::commit_record::{KnownCatalog, LiveSegment, ViewName, deletes_of};
use super::error::CatalogError;
use super::state::ClusterState;
pub use doubt::Doubt;
pub use found::found;
use salvage::Recovered;

/// Table ids that are passed over behind the highest known one: those of tables that came after
/// the newest record, and of the blocks that were set aside.
const TABLE_IDS_SKIPPED: u64 = 1_024;

/// The segments on a disk.
pub type OnDisk = BTreeMap<SegmentId, (SegmentKey, Layout)>;

/// What one worker has.
#[derive(Debug, Clone)]
pub struct WorkerRecords {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The worker.
    pub worker: WorkerId,
    /// The last commit that its records know; `None` when it has none.
    pub at: Option<Chain>,
    /// What they say.
    pub known: KnownCatalog,
    /// What is damaged of them.
    pub damage: Option<String>,
    /// The segments on its disk.
    pub on_disk: OnDisk,
    /// The newest epoch of the slices that it has heard of.
    pub epoch: Epoch,
    /// The newest epoch of the log that it has heard of, or promised.
    pub log_epoch: LogEpoch,
    /// The last record of its copy of the command log, if it has one.
    pub log: Option<Chain>,
}

/// A table and its live segments.
#[derive(Debug, Clone, PartialEq)]
pub struct RebuiltTable {
    /// What it is.
    pub definition: NewTable,
    /// Its rows.
    pub segments: Vec<SegmentRecord>,
}

/// A catalog to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Rebuilt {
    /// The commit it is of.
    pub at: Chain,
    /// The cluster, at an epoch of its own: plans of before are refused.
    pub cluster: ClusterState,
    /// The epoch of the log that begins: copies of the old one are replaced.
    pub log_epoch: LogEpoch,
    /// The schemas.
    pub schemas: BTreeSet<String>,
    /// The tables, by id.
    pub tables: Vec<RebuiltTable>,
    /// What was salvaged; nothing yet.
    pub recovered: Recovered,
    /// The views.
    pub views: BTreeMap<ViewName, String>,
    /// The first table id that is free.
    pub next_table: u64,
    /// When a worker was told of that commit last, in milliseconds since 1970.
    pub told_ms: u64,
    /// Up to where every worker knew.
    pub workers: BTreeMap<WorkerId, Option<Chain>>,
    /// Why something may be missing, or other than it was at the newest commit.
    pub doubts: Vec<Doubt>,
}

fn cannot(problem: impl Into<String>) -> CatalogError {
    CatalogError::CannotRebuild { problem: problem.into() }
}

/// How commits compare: a log that was made again has fewer records and a newer epoch.
fn order(at: &Chain) -> (LogEpoch, u64) {
    (at.log_epoch, at.seq)
}

/// Makes the catalog at the newest commit that any worker knows.
///
/// # Errors
/// [`CatalogError::CannotRebuild`] when no worker has records, or workers are of two clusters, two
/// of them the same one, or their records of two logs.
pub fn rebuild(workers: &[WorkerRecords]) -> Result<Rebuilt, CatalogError> {
    check_one_cluster(workers)?;
    let newest = workers.iter().filter_map(|worker| Some((worker.at?, worker)));
    let Some((at, newest)) = newest.max_by_key(|(at, _)| order(at)) else {
        return Err(cannot("no worker has commit records"));
    };
    let Some(cluster) = newest.known.cluster.clone() else {
        return Err(cannot(format!("the records of worker {} name no cluster", newest.worker)));
    };
    let mut doubts = doubt::of_workers(workers, &cluster, at)?;
    let mut tables: BTreeMap<_, _> = newest
        .known
        .tables
        .iter()
        .map(|(id, table)| (*id, RebuiltTable { definition: table.clone(), segments: Vec::new() }))
        .collect();
    for live in newest.known.live.values() {
        let Some(table) = tables.get_mut(&live.table) else {
            return Err(cannot(format!("segment {} is of no table", live.segment)));
        };
        match segment(live, workers, &cluster) {
            Ok((record, doubt)) => {
                doubts.extend(doubt);
                table.segments.push(record);
            }
            Err(doubt) => doubts.push(doubt),
        }
    }
    Ok(Rebuilt {
        at,
        cluster: ClusterState { epoch: newest_epoch(workers), ..cluster },
        log_epoch: newest_log_epoch(workers),
        schemas: newest.known.schemas.clone(),
        tables: tables.into_values().collect(),
        recovered: Recovered::default(),
        views: newest.known.views.clone(),
        next_table: next_table(workers),
        told_ms: newest.known.told_ms,
        workers: workers.iter().map(|worker| (worker.worker, worker.at)).collect(),
        doubts,
    })
}

fn check_one_cluster(workers: &[WorkerRecords]) -> Result<(), CatalogError> {
    let mut seen = BTreeSet::new();
    for worker in workers {
        if !seen.insert(worker.worker) {
            return Err(cannot(format!("worker {} is named twice", worker.worker)));
        }
        let first = workers.first().map_or(worker.cluster, |first| first.cluster);
        if worker.cluster != first {
            return Err(cannot(format!(
                "worker {} is of cluster {}, and others are of {first}",
                worker.worker, worker.cluster
            )));
        }
    }
    Ok(())
}

/// One more than any worker has heard of: whatever was planned before is refused.
fn newest_epoch(workers: &[WorkerRecords]) -> Epoch {
    let seen = |worker: &WorkerRecords| {
        let marks = worker.at.iter().chain(&worker.log).map(|at| at.epoch);
        marks.chain([worker.epoch]).max()
    };
    Epoch(workers.iter().filter_map(seen).max().map_or(0, |epoch| epoch.0) + 1)
}

/// One more than any worker has heard of or promised: a coordinator of before writes no more.
fn newest_log_epoch(workers: &[WorkerRecords]) -> LogEpoch {
    let seen = |worker: &WorkerRecords| {
        let marks = worker.at.iter().chain(&worker.log).map(|at| at.log_epoch);
        marks.chain([worker.log_epoch]).max()
    };
    LogEpoch(workers.iter().filter_map(seen).max().map_or(0, |epoch| epoch.0) + 1)
}

fn next_table(workers: &[WorkerRecords]) -> u64 {
    let known = workers.iter().flat_map(|worker| {
        let known = worker.known.tables.keys().chain(&worker.known.tables_gone);
        known.chain(worker.on_disk.values().map(|(key, _)| &key.table))
    });
    known.map(|id| id.0).max().unwrap_or(0).saturating_add(TABLE_IDS_SKIPPED)
}

/// The record of a live segment and what is doubtful about it, or why there is none.
fn segment(
    live: &LiveSegment,
    workers: &[WorkerRecords],
    cluster: &ClusterState,
) -> Result<(SegmentRecord, Option<Doubt>), Doubt> {
    let LiveSegment { segment, table, rows_deleted, deletes } = *live;
    // First those of the right moment, and of them the newest, which knows holders best.
    let best = workers
        .iter()
        .filter_map(|worker| {
            let record = worker.known.held.get(&segment)?;
            let at = worker.at.as_ref().map(order);
            let is_right = record.rows_deleted() == rows_deleted && deletes_of(record) == deletes;
            Some(((is_right, at), record))
        })
        .max_by_key(|(rank, _)| *rank);
    let Some(((is_right, _), record)) = best else {
        return Err(Doubt::NoRecord { segment, table });
    };
    let holders = holders(record, workers, cluster);
    if holders.is_empty() {
        return Err(Doubt::NoCopy { segment: record.key(), rows: record.live_rows() });
    }
    let is_here = |holder: &WorkerId| {
        workers.iter().any(|w| w.worker == *holder && w.on_disk.contains_key(&segment))
    };
    let doubt = if !is_right {
        let known = record.rows_deleted();
        Some(Doubt::OtherDeletes { segment: record.key(), known, deleted: rows_deleted })
    } else if !holders.iter().any(is_here) {
        Some(Doubt::CopyElsewhere { segment: record.key(), holders: holders.clone() })
    } else {
        None
    };
    Ok((SegmentRecord { holders, ..record.clone() }, doubt))
}

/// Who has a copy: those of whom a record says so, if their disks are not here or have it.
fn holders(
    record: &SegmentRecord,
    workers: &[WorkerRecords],
    cluster: &ClusterState,
) -> Vec<WorkerId> {
    let segment = record.segment;
    let lacks = |holder: &WorkerId| {
        workers.iter().any(|w| w.worker == *holder && !w.on_disk.contains_key(&segment))
    };
    let mut holders: Vec<_> = (record.holders.iter().copied())
        .filter(|holder| cluster.workers.contains(holder) && !lacks(holder))
        .collect();
    for worker in workers {
        let says_so = worker.known.held.contains_key(&segment);
        let id = worker.worker;
        let is_new = !holders.contains(&id) && cluster.workers.contains(&id);
        if is_new && says_so && worker.on_disk.contains_key(&segment) {
            holders.push(id);
        }
    }
    holders
}
