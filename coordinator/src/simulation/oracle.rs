//! What must be so at every step, known by somebody who sees all disks and the log at once.
//!
//! - The rows that the log's commits make visible are those of the statements behind them: each
//!   wholly or not at all, and once, also under a request key.
//! - Who is on record as a holder has a good and durable copy, unless a fault of its disk took it.
//! - As long as faults hit fewer copies of a segment than there should be, one of those on record is
//!   good.
//! - Nothing goes from a disk that a commit, a pinned snapshot or a write under way needs.
//! - No copy is made for a worker that is away for less than the grace time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::DataType;
use basalt_engine::settings::WriteConsistency;
use basalt_engine::snapshot::{Distribution, Snapshot};
use basalt_engine::write::AppendTarget;
use basalt_storage::digest::Digest;
use basalt_storage::ids::{ColumnId, ColumnVersion, SegmentId, SliceId, TableId, TxnId, WorkerId};
use basalt_storage::manifest::{ColumnRecord, Layout, SegmentRecord};
use basalt_storage::schema::{Column, TableSchema};
use basalt_storage::zone_map::ZoneMap;

use super::clients::StatementId;
use super::disk::Row;
use super::log::nowhere;
use super::rounds::Round;
use super::world::World;
use crate::catalog::{Change, Command, NewTable, RequestKey, State};
use crate::repair::CopyReason;

/// What a transaction means, noted when its commit is asked for.
#[derive(Debug, Clone)]
pub(super) struct Intent {
    pub(super) statement: StatementId,
    pub(super) added: Vec<Row>,
    pub(super) removed: Vec<Row>,
}

#[derive(Default)]
pub(super) struct Oracle {
    /// The log's commands, applied.
    pub(super) truth: State,
    /// The rows of every segment that was ever made.
    pub(super) contents: BTreeMap<SegmentId, Vec<Row>>,
    /// Who wrote them.
    pub(super) writers: BTreeMap<SegmentId, TxnId>,
    pub(super) intents: BTreeMap<TxnId, Intent>,
    /// How many members there were when a transaction was planned.
    pub(super) members: BTreeMap<TxnId, usize>,
    committed: BTreeMap<StatementId, u64>,
    keys: BTreeMap<RequestKey, StatementId>,
    /// Statements without a key whose clients were told that nothing was done.
    pub(super) refused: BTreeSet<StatementId>,
    /// The rows that are visible.
    rows: BTreeSet<Row>,
    /// The rows that every commit makes visible, by its version.
    pub(super) history: Vec<Arc<BTreeSet<Row>>>,
    /// Copies that faults took or spoiled.
    pub(super) damaged: BTreeSet<(WorkerId, SegmentId)>,
    /// How many copies of a segment faults took since it was whole.
    pub(super) hits: BTreeMap<SegmentId, usize>,
}

impl Oracle {
    pub(super) fn snapshot(&self) -> Option<Snapshot> {
        self.truth.snapshot(&nowhere())
    }
}

impl World {
    /// The newest record of the log became durable.
    pub(super) fn observe_commit(&mut self) {
        let Some(record) = self.log.last() else { return };
        let command: Command = serde_json::from_slice(record).unwrap();
        let applied = self.oracle.truth.apply(command.clone());
        self.require(applied.is_ok(), || format!("the log has what is refused: {applied:?}"));
        self.tell(|| {
            let version = self.oracle.truth.version();
            format!("commit {version} {}: {}", command.txn, in_short(&command.changes))
        });
        self.check_effect(&command);
        let rows = Arc::new(self.oracle.rows.clone());
        self.oracle.history.resize(self.oracle.truth.version() as usize, Arc::default());
        self.oracle.history.push(rows);
        let Some(snapshot) = self.oracle.snapshot() else { return };
        self.check_rows(&snapshot);
        self.check_holders(&snapshot);
        self.check_new_segments(&command);
    }

    /// Notes what a command does for its statement, which does it once.
    fn check_effect(&mut self, command: &Command) {
        let Some(intent) = self.oracle.intents.remove(&command.txn) else {
            let is_of_statement = command.changes.iter().any(|change| {
                matches!(change, Change::AddSegments { .. } | Change::DeleteRows { .. })
            });
            return self.require(!is_of_statement, || format!("nobody asked for {command:?}"));
        };
        let statement = intent.statement;
        let version = self.oracle.truth.version();
        let first = self.oracle.committed.insert(statement, version);
        self.require(first.is_none(), || format!("{statement:?} is committed twice"));
        let refused = self.oracle.refused.contains(&statement);
        self.require(!refused, || format!("{statement:?} is committed, and was said to be not"));
        if let Some(request) = &command.request {
            let first = self.oracle.keys.insert(request.key.clone(), statement);
            self.require(first.is_none(), || format!("{} has two effects", request.key));
        }
        for row in intent.removed {
            let was = self.oracle.rows.remove(&row);
            self.require(was, || format!("row {row:x} is deleted, and is not there"));
        }
        for row in intent.added {
            let is_new = self.oracle.rows.insert(row);
            self.require(is_new, || format!("row {row:x} is there twice"));
        }
    }

    /// Readers see what statements did.
    fn check_rows(&self, snapshot: &Snapshot) {
        let mut rows = Vec::new();
        for record in snapshot.segments() {
            let contents = &self.oracle.contents[&record.segment];
            rows.extend(live_rows(contents, record).into_iter().map(|(_, row)| row));
        }
        rows.sort_unstable();
        self.require(rows.iter().eq(self.oracle.rows.iter()), || {
            format!("commit {} shows {rows:x?}, not {:x?}", snapshot.version, self.oracle.rows)
        });
    }

    /// Whether a worker on record has what it should.
    pub(super) fn has_good(&self, worker: WorkerId, segment: SegmentId) -> bool {
        let machine = self.machine_of(worker).map(|machine| &self.machines[machine]);
        machine.is_some_and(|m| !m.is_gone && m.disk.is_good_and_durable(segment))
    }

    fn check_holders(&self, snapshot: &Snapshot) {
        for record in snapshot.segments() {
            let segment = record.segment;
            for holder in &record.holders {
                let is_so = self.has_good(*holder, segment)
                    || self.oracle.damaged.contains(&(*holder, segment));
                self.require(is_so, || {
                    format!("{holder} is on record with {segment}, and never had it for good")
                });
            }
            let good = record.holders.iter().filter(|holder| self.has_good(**holder, segment));
            self.require(good.count() > 0, || {
                format!("commit {}: no good copy of {segment} is left", snapshot.version)
            });
        }
    }

    /// A commit names as many copies as its consistency promises.
    fn check_new_segments(&self, command: &Command) {
        for change in &command.changes {
            let (Change::AddSegments { segments, .. } | Change::ReplaceSegments { segments, .. }) =
                change
            else {
                continue;
            };
            // Members when the write was planned: others may have joined since.
            let members = self.oracle.members.get(&command.txn).copied().unwrap_or(1);
            let wanted = usize::from(self.rules.replicas).min(members).max(1);
            let promised = match self.rules.consistency {
                WriteConsistency::All => wanted,
                WriteConsistency::Quorum => wanted / 2 + 1,
                WriteConsistency::One => 1,
            };
            for record in segments {
                self.require(record.holders.len() >= promised, || {
                    let (segment, holders) = (record.segment, record.holders.len());
                    format!("{segment} is committed with {holders} copies, not {promised}")
                });
            }
        }
    }

    /// A client was told that its statement is done.
    pub(super) fn check_ack(&mut self, statement: StatementId, version: u64, replayed: bool) {
        if version == 0 {
            return;
        }
        self.seen.note("ack of a write");
        let committed = self.oracle.committed.get(&statement).copied();
        self.require(committed == Some(version), || {
            format!(
                "{statement:?} is acknowledged at commit {version} (again: {replayed}), and is \
                 durable at {committed:?}"
            )
        });
    }

    /// A worker removed a segment because the coordinator said so.
    pub(super) fn check_removal(&self, machine: usize, segment: SegmentId) {
        let worker = self.machines[machine].worker;
        let names = |snapshot: &Snapshot| {
            let mut records = snapshot.segments();
            records.any(|r| r.segment == segment && r.holders.contains(&worker))
        };
        if let Some(truth) = self.oracle.snapshot() {
            self.require(!names(&truth), || {
                format!("{worker} loses {segment}, which the newest commit says it has")
            });
        }
        let Some(brain) = &self.brain else { return };
        let pinned = brain.reads.values().map(|read| &read.pinned);
        let mut pinned = pinned.chain(brain.writes.values().filter_map(|write| write.pinned()));
        self.require(!pinned.any(|snapshot| names(snapshot)), || {
            format!("{worker} loses {segment}, which a statement sees there")
        });
        let txn = self.oracle.writers.get(&segment);
        let mut open = brain.writes.values().filter_map(|write| write.txn());
        self.require(!open.any(|(open, _)| Some(&open) == txn), || {
            format!("{worker} loses {segment}, whose write is under way")
        });
    }

    /// A worker removed a segment because its transaction was aborted.
    pub(super) fn check_abort(&self, machine: usize, segment: SegmentId) {
        let Some(truth) = self.oracle.snapshot() else { return };
        let named = truth.segments().any(|record| record.segment == segment);
        self.require(!named, || format!("machine {machine} aborts {segment}, which is committed"));
    }

    /// Members that have been silent for the grace time.
    pub(super) fn silent(&self) -> BTreeSet<WorkerId> {
        let Some(brain) = &self.brain else { return BTreeSet::new() };
        let lost_after = self.rules.options.lost_after.as_millis() as u64;
        let is_silent = |worker: &&WorkerId| {
            let (heard, accused) = brain.heard.get(worker).copied().unwrap_or_default();
            let silent = self.now - heard.max(brain.started);
            let unanswered = accused.map_or(0, |since| self.now - since);
            silent.max(unanswered) >= lost_after
        };
        brain.published.cluster.workers.iter().filter(is_silent).copied().collect()
    }

    /// A copy because there are too few is made only if there are.
    pub(super) fn check_copy(&self, record: &SegmentRecord, to: WorkerId, reason: CopyReason) {
        let Some(brain) = &self.brain else { return };
        if reason != CopyReason::TooFew {
            return;
        }
        let cluster = &brain.published.cluster;
        let silent = brain.round.as_ref().map(Round::silent);
        let counts = |holder: &&WorkerId| {
            silent.is_some_and(|silent| !silent.contains(holder))
                && cluster.workers.contains(holder)
                && !cluster.draining.contains(holder)
                && !brain.copies.bad.contains(&(**holder, record.key()))
        };
        let expected = record.holders.iter().filter(counts).count();
        let wanted = usize::from(self.rules.replicas).min(cluster.workers.len());
        self.require(expected < wanted, || {
            format!("{} is copied to {to}, and {expected} have it", record.segment)
        });
    }
}

/// Changes as people read them.
fn in_short(changes: &[Change]) -> String {
    let short = |change: &Change| match change {
        Change::AddSegments { segments, .. } | Change::ReplaceSegments { segments, .. } => {
            let segments = segments.iter().map(|r| format!("{} with {:?}", r.segment, r.holders));
            format!("adds {}", segments.collect::<Vec<_>>().join(", "))
        }
        change => format!("{change:?}"),
    };
    changes.iter().map(short).collect::<Vec<_>>().join("; ")
}

/// The rows of a segment that a record shows, and their positions.
pub(super) fn live_rows(contents: &[Row], record: &SegmentRecord) -> Vec<(u32, Row)> {
    let all = (0..).zip(contents.iter().copied());
    match &record.deleted {
        None => all.collect(),
        Some(deleted) => {
            all.filter(|(position, _)| deleted.rows_within(*position..position + 1) == 0).collect()
        }
    }
}

/// `public.t(id BIGINT)`.
pub(super) fn new_table(replicas: u16) -> NewTable {
    let column = Column {
        id: ColumnId(1),
        name: "id".to_owned(),
        data_type: DataType::Int64,
        nullable: true,
        declared: Default::default(),
    };
    NewTable {
        id: TableId(1),
        schema: "public".to_owned(),
        name: "t".to_owned(),
        columns: TableSchema { version: 1, columns: vec![column], keys: vec![] },
        distribution: Distribution::Even,
        sort_key: vec![],
        replicas,
    }
}

/// The record of a segment that its owner has.
pub(super) fn new_record(
    segment: SegmentId,
    target: &AppendTarget,
    slice: SliceId,
    owner: WorkerId,
    rows: &[Row],
) -> SegmentRecord {
    let (version, zone) = (ColumnVersion::FIRST, ZoneMap::default());
    SegmentRecord {
        table: target.table,
        slice,
        segment,
        txn: target.txn,
        layout: Layout::Packed,
        rows: rows.len() as u64,
        row_groups: vec![rows.len() as u32],
        bytes: rows.len() as u64,
        meta_digest: Digest::of(segment.0.as_bytes()),
        columns: BTreeMap::from([(
            ColumnId(1),
            ColumnRecord { version, bytes: 8, encoding: None, zone },
        )]),
        holders: vec![owner],
        deleted: None,
        routed_by: None,
    }
}
