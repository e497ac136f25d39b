//! Why a rebuilt catalog may not be what was there.

use std::fmt;

use basalt_storage::command_log::Chain;
use basalt_storage::ids::{SegmentId, TableId, WorkerId};
use basalt_storage::layout::SegmentKey;

use super::{ClusterState, WorkerRecords, cannot, order};
use crate::catalog::error::CatalogError;

/// Something that may be missing from a rebuilt catalog, or other than it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// A member of the cluster is not here: it may have known newer commits.
    WorkerMissing {
        /// The worker.
        worker: WorkerId,
    },
    /// A worker has no records.
    NoRecords {
        /// The worker.
        worker: WorkerId,
    },
    /// A worker's records are damaged, where newer commits may have been.
    Damaged {
        /// The worker.
        worker: WorkerId,
        /// What is wrong.
        problem: String,
    },
    /// A worker's records end earlier than those of others. By itself that takes nothing away: what
    /// it does takes is said for each segment.
    Behind {
        /// The worker.
        worker: WorkerId,
        /// The last commit it knows.
        known: u64,
        /// The newest commit that any knows.
        newest: u64,
    },
    /// A worker has a copy of the command log with newer commits.
    NewerLog {
        /// The worker.
        worker: WorkerId,
        /// The last record of the copy.
        seq: u64,
    },
    /// A live segment whose record nobody here has: its rows are not in the catalog.
    NoRecord {
        /// The segment.
        segment: SegmentId,
        /// Its table.
        table: TableId,
    },
    /// A live segment that is on no disk: its rows are not in the catalog.
    NoCopy {
        /// The segment.
        segment: SegmentKey,
        /// Its rows.
        rows: u64,
    },
    /// A live segment whose only copies are on workers that are not here: it is in the catalog, and
    /// queries fail until one of them is back.
    CopyElsewhere {
        /// The segment.
        segment: SegmentKey,
        /// Who has it.
        holders: Vec<WorkerId>,
    },
    /// A live segment whose newest record here knows other deleted rows: some of its rows may be
    /// back.
    OtherDeletes {
        /// The segment.
        segment: SegmentKey,
        /// How many deleted rows the record knows.
        known: u64,
        /// How many were deleted.
        deleted: u64,
    },
}

impl Doubt {
    /// Whether nothing is lost by it as far as is known.
    pub fn is_harmless(&self) -> bool {
        matches!(self, Self::Behind { .. })
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WorkerMissing { worker } => {
                write!(f, "worker {worker} is missing, and may know of newer commits")
            }
            Self::NoRecords { worker } => write!(f, "worker {worker} has no commit records"),
            Self::Damaged { worker, problem } => {
                write!(f, "the commit records of worker {worker} are damaged: {problem}")
            }
            Self::Behind { worker, known, newest } => write!(
                f,
                "the commit records of worker {worker} end at commit {known}, others at {newest}"
            ),
            Self::NewerLog { worker, seq } => write!(
                f,
                "worker {worker} has a copy of the command log up to record {seq}: `basalt catalog \
                 restore` may give more"
            ),
            Self::NoRecord { segment, table } => write!(
                f,
                "segment {segment} of table {table} was live, and no worker here has its record: \
                 its rows are lost"
            ),
            Self::NoCopy { segment, rows } => {
                write!(f, "segment {segment} is on no disk: its {rows} rows are lost")
            }
            Self::CopyElsewhere { segment, holders } => {
                let holders: Vec<_> = holders.iter().map(ToString::to_string).collect();
                let holders = holders.join(", ");
                write!(f, "segment {segment} is only on workers that are missing: {holders}")
            }
            Self::OtherDeletes { segment, known, deleted } => write!(
                f,
                "segment {segment} had {deleted} deleted rows, and its newest record knows of \
                 {known}: rows that were deleted may be back"
            ),
        }
    }
}

/// What the workers themselves make doubtful.
pub(super) fn of_workers(
    workers: &[WorkerRecords],
    cluster: &ClusterState,
    newest: Chain,
) -> Result<Vec<Doubt>, CatalogError> {
    let is_here = |id: &&WorkerId| workers.iter().any(|here| here.worker == **id);
    let missing = cluster.workers.iter().filter(|id| !is_here(id));
    let mut doubts: Vec<_> =
        missing.map(|worker| Doubt::WorkerMissing { worker: *worker }).collect();
    for WorkerRecords { worker, at, damage, log, .. } in workers {
        let worker = *worker;
        if let Some(problem) = damage {
            doubts.push(Doubt::Damaged { worker, problem: problem.clone() });
        }
        match at {
            None if damage.is_none() => doubts.push(Doubt::NoRecords { worker }),
            Some(at) if order(at) == order(&newest) && at.hash != newest.hash => {
                return Err(cannot(format!(
                    "commit {} of worker {worker} is another one than that of others",
                    at.seq
                )));
            }
            Some(at) if order(at) < order(&newest) => {
                doubts.push(Doubt::Behind { worker, known: at.seq, newest: newest.seq });
            }
            _ => {}
        }
        if let Some(log) = log.filter(|log| order(log) > order(&newest)) {
            doubts.push(Doubt::NewerLog { worker, seq: log.seq });
        }
    }
    Ok(doubts)
}
