//! Commands: everything that can happen to a catalog, as data.
//!
//! One [`Command`] is one transaction and becomes one record of the log. The serialised form is
//! on disk for ever: a variant or field is only ever added, under a new
//! [`FORMAT_VERSION`](super::record::FORMAT_VERSION), and unknown ones are refused, never skipped.
//! What a command means is in [`State::apply`](super::state::State::apply).

use std::collections::BTreeSet;
use std::fmt;

use basalt_engine::dialect::{LABEL_BYTES_MAX, label_problem};
use basalt_engine::snapshot::{ChosenKey, Distribution};
use basalt_engine::statistics::Analysis;
use basalt_storage::delete_vector::DeleteVector;
use basalt_storage::digest::Digest;
use basalt_storage::ids::{ClusterId, ColumnId, Epoch, SegmentId, TableId, TxnId, WorkerId};
use basalt_storage::manifest::SegmentRecord;
use basalt_storage::schema::TableSchema;
use serde::{Deserialize, Serialize};

use super::error::CatalogError;
use super::members::LogSet;
use super::state::ClusterState;
use crate::placement::Candidate;

/// One transaction: all of its changes become visible in one step, or none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The transaction; every segment it adds was written under this id.
    pub txn: TxnId,
    /// Wall-clock time in milliseconds since 1970. Information for people: nothing depends on it.
    pub time_ms: u64,
    /// What changes, in order: a later change sees the effect of an earlier one.
    pub changes: Vec<Change>,
    /// Rows inserted, loaded or deleted, where that means something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_affected: Option<u64>,
    /// Makes the command safe to send again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
}

impl Command {
    /// A command without a row count and without a request key.
    pub fn new(txn: TxnId, time_ms: u64, changes: Vec<Change>) -> Self {
        Self { txn, time_ms, changes, rows_affected: None, request: None }
    }

    /// Adds how many rows it inserts, loads or deletes.
    pub fn with_rows_affected(mut self, rows: u64) -> Self {
        self.rows_affected = Some(rows);
        self
    }

    /// Adds the key under which the outcome is remembered.
    pub fn with_request(mut self, key: RequestKey, payload: Digest) -> Self {
        self.request = Some(Request { key, payload });
        self
    }
}

/// What a client calls its write, and what it asked for under that name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The name.
    pub key: RequestKey,
    /// Digest of the statement and its parameters: the same key with another one is an error.
    pub payload: Digest,
}

/// A name that a client gives to one write, so that sending it again has no second effect.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestKey(String);

impl RequestKey {
    /// The longest key, in bytes: keys are kept in memory.
    pub const BYTES_MAX: usize = LABEL_BYTES_MAX;

    /// Checks a key that came from a client.
    ///
    /// Fails with [`CatalogError::InvalidRequestKey`] when it is empty, longer than
    /// [`Self::BYTES_MAX`] or has control characters.
    pub fn new(key: impl Into<String>) -> Result<Self, CatalogError> {
        let key = Self(key.into());
        key.check().map(|()| key)
    }

    /// The text of the key.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn check(&self) -> Result<(), CatalogError> {
        match label_problem(&self.0) {
            Some(problem) => Err(CatalogError::InvalidRequestKey { problem }),
            None => Ok(()),
        }
    }
}

impl fmt::Display for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One step of a command. The set is closed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// Founds the cluster: the first change of the first record, and never again.
    CreateCluster(NewCluster),
    /// Makes a worker a member for ever. A worker that is one already stays one.
    RegisterWorker {
        /// The worker.
        worker: WorkerId,
    },
    /// Says what a worker can take, and what it fails together with. (Since format 3.)
    DescribeWorker {
        /// The worker.
        worker: WorkerId,
        /// What is so from now on.
        candidate: Candidate,
    },
    /// Replaces the slice map.
    AssignSlices {
        /// The epoch of the new map: exactly one more than that of the map it replaces.
        epoch: Epoch,
        /// The owner of every slice, by slice number.
        owners: Vec<WorkerId>,
    },
    /// Replaces the slice map with one that also names partners. (Since format 3.)
    PlaceSlices {
        /// The epoch of the new map: exactly one more than that of the map it replaces.
        epoch: Epoch,
        /// The workers of every slice, by slice number: the owner, then its partners.
        workers: Vec<Vec<WorkerId>>,
    },
    /// Says that a worker is to lose its slices and copies, or that it is not any more. (Since
    /// format 3.)
    DrainWorker {
        /// The worker.
        worker: WorkerId,
        /// Whether it is drained from now on.
        drain: bool,
    },
    /// Makes a worker that owns no slice and holds no copy a member no longer. (Since format 3.)
    RemoveWorker {
        /// The worker.
        worker: WorkerId,
    },
    /// Notes where copies of segments are. Segments that are gone are passed over: nothing depends
    /// on where they were. (Since format 3.)
    MoveCopies {
        /// What changes, one entry per segment.
        moves: Vec<CopyMove>,
    },
    /// Sets table ids aside for tables whose chunks are written before their commit.
    ReserveTableIds {
        /// How many.
        count: u16,
    },
    /// Makes the cluster as it was before its catalog was lost: the first change of a log that
    /// `basalt catalog rebuild` writes. (Since format 5.)
    RebuildCluster {
        /// The cluster, with its workers and its slice map.
        cluster: ClusterState,
        /// The ids of the tables that are created again.
        tables: BTreeSet<TableId>,
        /// The first id that is free.
        next_table: u64,
    },
    /// Puts segments back that were committed before the catalog was lost, with what is deleted of
    /// them. Only in a log that `basalt catalog rebuild` writes. (Since format 5.)
    RebuildSegments {
        /// The table.
        table: TableId,
        /// The table that they were written for, whose id their files have: another one when they
        /// were salvaged.
        written_for: TableId,
        /// The segments.
        segments: Vec<SegmentRecord>,
    },
    /// Creates an empty schema.
    CreateSchema {
        /// Its name.
        name: String,
    },
    /// Drops an empty schema.
    DropSchema {
        /// Its name.
        name: String,
    },
    /// Creates an empty table.
    CreateTable(NewTable),
    /// Drops a table and all its rows.
    DropTable {
        /// The table.
        table: TableId,
        /// Its version when the statement read it: a table that changed since is a conflict.
        /// `None` drops whatever is in it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<u64>,
    },
    /// Creates a view.
    CreateView {
        /// The schema it is in.
        schema: String,
        /// Its name.
        name: String,
        /// The text of its query.
        query: String,
    },
    /// Drops a view.
    DropView {
        /// The schema it is in.
        schema: String,
        /// Its name.
        name: String,
    },
    /// Adds rows to a table. Never conflicts with another append.
    AddSegments {
        /// The table.
        table: TableId,
        /// The schema version that the segments were written for.
        schema_version: u32,
        /// The segments, durable on their holders.
        segments: Vec<SegmentRecord>,
    },
    /// Deletes rows by position. Conflicts with whoever deleted from or rewrote the same segment
    /// since the statement read it; never with an append. (Since format 2.)
    DeleteRows {
        /// The table.
        table: TableId,
        /// The rows, by segment; a segment that loses its last row is gone.
        segments: Vec<SegmentDeletes>,
    },
    /// Puts the same rows into other segments. Conflicts as `DeleteRows` does. (Since format 2.)
    ReplaceSegments {
        /// The table.
        table: TableId,
        /// The schema version that the new segments were written for.
        schema_version: u32,
        /// The segments that go, as they were when their rows were read.
        replaced: Vec<SegmentSeen>,
        /// The segments that come, durable on their holders, with as many rows as live in those.
        segments: Vec<SegmentRecord>,
    },
    /// Keeps what ANALYZE found out about a table. Conflicts with nothing, and changes no version:
    /// statistics are hints. (Since format 6.)
    RecordAnalysis {
        /// The table.
        table: TableId,
        /// What was found.
        analysis: Analysis,
    },
    /// Gives new rows of a table whose distribution is left to the engine to slices by a key; rows that are
    /// there move by `ReplaceSegments`. Conflicts with nothing, and changes no version. (Since format 7.)
    ChooseKey {
        /// The table, which has no such key yet.
        table: TableId,
        /// The key.
        key: ChosenKey,
    },
    /// Says who keeps copies of the log from now on: the only change of its command, made by the
    /// catalog itself. (Since format 4.)
    SetLogMembers {
        /// The set. Its epoch is newer than any before.
        set: LogSet,
        /// An operator's word that no other member of the sets before has anything that counts,
        /// nor ever will: they have no say any more.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        forced: bool,
    },
}

/// Copies of one segment that came into being, or that count no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyMove {
    /// The table.
    pub table: TableId,
    /// The segment.
    pub segment: SegmentId,
    /// Workers with a new copy, verified and durable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<WorkerId>,
    /// Workers whose copy counts no longer. A segment keeps at least one holder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<WorkerId>,
}

/// A segment as a statement read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentSeen {
    /// The segment.
    pub segment: SegmentId,
    /// How many of its rows were deleted. Deletes only ever add up, so the number identifies
    /// which of them the statement saw.
    pub rows_deleted: u64,
}

/// Rows that a statement deletes from one segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentDeletes {
    /// The segment as the statement read it.
    pub seen: SegmentSeen,
    /// The rows, none of which was deleted before.
    pub rows: DeleteVector,
}

/// What is decided once in the life of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCluster {
    /// The cluster.
    pub cluster: ClusterId,
    /// How many slices every table has: a power of two.
    pub slices: u16,
    /// The hash that assigns rows to slices.
    pub slice_hash: SliceHash,
    /// Workers that must have registered before slices are assigned; `None` assigns them to the
    /// first that comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers_expected: Option<u16>,
}

impl NewCluster {
    /// How many slices a cluster has unless told otherwise.
    pub const SLICES_DEFAULT: u16 = 16;
    /// The most slices a cluster can have: every table may have a segment per slice and load.
    pub const SLICES_MAX: u16 = 4096;

    /// A cluster with a new id and the usual number of slices.
    pub fn generate() -> Self {
        Self {
            cluster: ClusterId::generate(),
            slices: Self::SLICES_DEFAULT,
            slice_hash: SliceHash::Xxh3V1,
            workers_expected: None,
        }
    }

    /// The same with a fixed number of workers to wait for (embedded clusters).
    pub fn with_workers_expected(mut self, workers: u16) -> Self {
        self.workers_expected = Some(workers);
        self
    }
}

/// The function that assigns a row to a slice by its distribution key. On disk for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SliceHash {
    /// XXH3 (64 bits) over the canonical form of the value, first edition.
    #[serde(rename = "xxh3-v1")]
    Xxh3V1,
}

/// Copies of a table unless REPLICAS says otherwise: any one worker may be lost.
pub const REPLICAS_DEFAULT: u16 = 2;

/// A table to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTable {
    /// Its id, from [`Change::ReserveTableIds`], used for the first time.
    pub id: TableId,
    /// The schema it is in.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its columns.
    pub columns: TableSchema,
    /// How rows are assigned to slices.
    pub distribution: Distribution,
    /// Columns that segments are sorted by, the most significant first.
    pub sort_key: Vec<ColumnId>,
    /// Copies wanted of every chunk.
    pub replicas: u16,
}
