//! Statements that write, as a coordinator runs them: append, seal, commit, and again when a worker
//! was lost before the commit was asked for (`statements/transaction.rs`, `statements/failover.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use basalt_engine::error::{ErrorCode, SqlError};
use basalt_engine::snapshot::{Snapshot, TableSnapshot};
use basalt_engine::write::AppendTarget;
use basalt_storage::delete_vector::DeleteVector;
use basalt_storage::ids::{SliceId, TxnId, WorkerId};
use basalt_storage::manifest::SegmentRecord;

use super::clients::{Kind, Statement};
use super::coordinator::{Alarm, Waiting};
use super::disk::Row;
use super::log::Then;
use super::messages::{Address, Ask, Caller, Node, Reply};
use super::oracle::{Intent, live_rows};
use super::world::{Event, Ms, World};
use crate::catalog::{
    CatalogError, Change, Command, Committed, SegmentDeletes, SegmentSeen, find_table,
};
use crate::membership::MemberState;
use crate::reconcile::OpenWrite;
use crate::statements::failover::{ATTEMPTS_MAX, may_be_of_workers};
use crate::statements::target::TargetTable;
use crate::statements::transaction::{check_copies, check_rows, is_surely_undone};

/// How long an owner may take to take rows, and to seal them with its partners.
const APPEND_WITHIN: Ms = 4_000;
const SEAL_WITHIN: Ms = 14_000;
/// How long those are waited for that are asked whether they are there.
const LOOKED_AFTER: Ms = 1_100;

/// One run of a statement.
pub(super) struct WriteRun {
    caller: Caller,
    statement: Statement,
    attempt: u32,
    work: Option<Work>,
}

/// One attempt: a transaction.
struct Work {
    pinned: Arc<Snapshot>,
    target: Arc<AppendTarget>,
    /// What is garbage waits for its end.
    _open: OpenWrite,
    /// What the commit does beside adding segments.
    changes: Vec<Change>,
    replaced: Option<Vec<SegmentSeen>>,
    removed: Vec<Row>,
    rows: BTreeMap<SliceId, Vec<Row>>,
    appends_left: usize,
    seals_left: usize,
    records: Vec<SegmentRecord>,
    /// Dropped as it is now, it aborts.
    is_armed: bool,
}

impl WriteRun {
    pub(super) fn pinned(&self) -> Option<&Arc<Snapshot>> {
        self.work.as_ref().map(|work| &work.pinned)
    }

    /// The transaction, and how many copies it needs.
    pub(super) fn txn(&self) -> Option<(TxnId, u16)> {
        self.work.as_ref().map(|work| (work.target.txn, work.target.copies.required))
    }
}

/// What an attempt is to do.
#[derive(Default)]
struct Planned {
    changes: Vec<Change>,
    replaced: Option<Vec<SegmentSeen>>,
    removed: Vec<Row>,
    rows: BTreeMap<SliceId, Vec<Row>>,
}

impl World {
    pub(super) fn write_begins(&mut self, caller: Caller, statement: Statement) {
        if let Some(first) = self.first_outcome(&statement) {
            let answer = first.map(|version| Reply::Wrote { version, replayed: true });
            self.answer(Node::Coordinator, caller, answer);
            return;
        }
        self.next_statement += 1;
        let id = self.next_statement;
        let run = WriteRun { caller, statement, attempt: 0, work: None };
        self.brain().writes.insert(id, run);
        self.write_attempt(id);
    }

    /// What came of a request before, if the log says so now.
    fn first_outcome(&mut self, statement: &Statement) -> Option<Result<u64, SqlError>> {
        let request = statement.request()?;
        let brain = self.brain();
        if !brain.takes_commits() {
            // Its state is ahead of the disk.
            let stopped = CatalogError::Stopped { reason: "a write failed".to_owned() };
            return Some(Err(stopped.into()));
        }
        if !brain.writer.is_idle() {
            return None;
        }
        match brain.state.replay_of(&request) {
            Ok(None) => None,
            Ok(Some(first)) => {
                self.seen.note("coordinator: a request is replayed");
                Some(Ok(first.version))
            }
            Err(error) => Some(Err(error.into())),
        }
    }

    /// Another attempt, under another number, so that answers to the one before are nobody's.
    pub(super) fn write_attempt(&mut self, id: u64) {
        let Some(mut run) = self.brain().writes.remove(&id) else { return };
        run.attempt += 1;
        self.next_statement += 1;
        let id = self.next_statement;
        let statement = run.statement.clone();
        self.brain().writes.insert(id, run);
        let pinned = self.snapshot();
        let table = Arc::clone(find_table(&pinned, "public", "t").unwrap());
        let planned = self.plan_write(&statement, &table);
        let consistency = self.rules.consistency;
        let begun = TargetTable::from(table.as_ref()).begin(&pinned.cluster, consistency);
        let mut target = match begun {
            Ok(target) => target,
            Err(error) => return self.write_fails(id, error),
        };
        target.txn = TxnId(self.random.uuid());
        let now = self.instant();
        let target = Arc::new(target);
        let brain = self.brain();
        let Planned { changes, replaced, removed, rows } = planned;
        let work = Work {
            pinned,
            target: Arc::clone(&target),
            _open: brain.open_writes.begin(target.txn, now),
            changes,
            replaced,
            removed,
            appends_left: rows.len(),
            rows: rows.clone(),
            seals_left: 0,
            records: vec![],
            is_armed: true,
        };
        if let Some(run) = brain.writes.get_mut(&id) {
            run.work = Some(work);
        }
        if rows.is_empty() {
            return self.commit_write(id);
        }
        for (slice, rows) in rows {
            let Ok(owner) = target.owner(slice) else { continue };
            let port = target.endpoints.get(&owner).and_then(url::Url::port).unwrap_or(0);
            let ask = Ask::Append { target: Arc::clone(&target), slice, rows };
            let to = Address::Worker(owner, port);
            let call = self.ask(Node::Coordinator, to, ask, APPEND_WITHIN);
            self.brain().calls.insert(call, Waiting::Append(id));
        }
    }

    fn plan_write(&mut self, statement: &Statement, table: &TableSnapshot) -> Planned {
        let mut planned = Planned::default();
        match &statement.kind {
            Kind::Append { slices, rows } => {
                for (place, slice) in slices.iter().enumerate() {
                    let first = statement.first_row() + place as u64 * 8;
                    planned.rows.insert(*slice, (first..first + rows).collect());
                }
            }
            Kind::Delete => self.plan_delete(table, &mut planned),
            Kind::Update => {
                self.plan_delete(table, &mut planned);
                let first = statement.first_row();
                let rows: Vec<_> = (first..first + planned.removed.len() as u64).collect();
                if !rows.is_empty() {
                    planned.rows.insert(SliceId(0), rows);
                }
            }
            Kind::Compact => self.plan_compaction(table, &mut planned),
        }
        planned
    }

    /// Some rows of one or two segments.
    fn plan_delete(&mut self, table: &TableSnapshot, planned: &mut Planned) {
        let mut segments = Vec::new();
        let mut chosen: Vec<_> = table.segments.iter().collect();
        for _ in 0..self.random.between(1, 2).min(chosen.len() as u64) {
            let place = self.random.below(chosen.len() as u64) as usize;
            let record = chosen.swap_remove(place);
            let live = live_rows(&self.oracle.contents[&record.segment], record);
            let all = self.random.chance(40);
            let wanted = live.into_iter().filter(|_| all || self.random.chance(50));
            let (positions, rows): (Vec<u32>, Vec<Row>) = wanted.unzip();
            if let Some(rows_deleted) = DeleteVector::from_positions(positions) {
                let seen =
                    SegmentSeen { segment: record.segment, rows_deleted: record.rows_deleted() };
                segments.push(SegmentDeletes { seen, rows: rows_deleted });
                planned.removed.extend(rows);
            }
        }
        if !segments.is_empty() {
            planned.changes.push(Change::DeleteRows { table: table.id, segments });
        }
    }

    /// Two or three segments of one slice into one.
    fn plan_compaction(&mut self, table: &TableSnapshot, planned: &mut Planned) {
        let slice = SliceId(self.random.below(u64::from(self.rules.slices)) as u16);
        let of_slice = table.segments.iter().filter(|record| record.slice == slice);
        let chosen: Vec<_> = of_slice.take(self.random.between(2, 3) as usize).collect();
        if chosen.len() < 2 {
            return;
        }
        let live =
            |record: &Arc<SegmentRecord>| live_rows(&self.oracle.contents[&record.segment], record);
        let rows: Vec<Row> = chosen.iter().flat_map(|r| live(r)).map(|(_, row)| row).collect();
        let seen = |record: &&Arc<SegmentRecord>| SegmentSeen {
            segment: record.segment,
            rows_deleted: record.rows_deleted(),
        };
        planned.replaced = Some(chosen.iter().map(seen).collect());
        planned.rows.insert(slice, rows);
    }

    fn work(&mut self, id: u64) -> Option<&mut Work> {
        self.brain().writes.get_mut(&id)?.work.as_mut()
    }

    pub(super) fn appended(&mut self, id: u64, answer: Result<Reply, SqlError>) {
        let Some(work) = self.work(id) else { return };
        if let Err(error) = answer {
            return self.write_fails(id, error);
        }
        work.appends_left -= 1;
        if work.appends_left > 0 {
            return;
        }
        let target = Arc::clone(&work.target);
        let owners: BTreeSet<WorkerId> = target.slice_owners.iter().copied().collect();
        let endpoint = |owner: WorkerId| Some((owner, target.endpoints.get(&owner)?.port()?));
        let owners: Vec<_> = owners.into_iter().filter_map(endpoint).collect();
        work.seals_left = owners.len();
        for (owner, port) in owners {
            let ask = Ask::Seal { epoch: target.epoch, txn: target.txn };
            let to = Address::Worker(owner, port);
            let call = self.ask(Node::Coordinator, to, ask, SEAL_WITHIN);
            self.brain().calls.insert(call, Waiting::Seal(id, owner));
        }
    }

    pub(super) fn sealed(&mut self, id: u64, owner: WorkerId, answer: Result<Reply, SqlError>) {
        let Some(work) = self.work(id) else { return };
        let records = match answer {
            Ok(Reply::Sealed(records)) => records,
            Ok(_) => return,
            Err(error) => return self.write_fails(id, error),
        };
        let target = Arc::clone(&work.target);
        if let Some(error) =
            records.iter().find_map(|record| check_copies(&target, owner, record).err())
        {
            return self.write_fails(id, error);
        }
        work.records.extend(records);
        work.seals_left -= 1;
        if work.seals_left > 0 {
            return;
        }
        let rows: usize = work.rows.values().map(Vec::len).sum();
        match check_rows(&work.records, rows as u64) {
            Ok(()) => self.commit_write(id),
            Err(error) => self.write_fails(id, error),
        }
    }

    fn commit_write(&mut self, id: u64) {
        let Some(run) = self.brain().writes.get_mut(&id) else { return };
        let statement = run.statement.clone();
        let Some(work) = &mut run.work else { return };
        let (txn, table) = (work.target.txn, work.target.table);
        let mut changes = std::mem::take(&mut work.changes);
        let segments = std::mem::take(&mut work.records);
        let schema_version = work.target.schema.version;
        let is_compaction = work.replaced.is_some();
        match work.replaced.take() {
            Some(replaced) => {
                changes.push(Change::ReplaceSegments { table, schema_version, replaced, segments });
            }
            None if segments.is_empty() => {}
            None => changes.push(Change::AddSegments { table, schema_version, segments }),
        }
        let added = match is_compaction {
            true => vec![],
            false => work.rows.values().flatten().copied().collect(),
        };
        let members = work.pinned.cluster.members;
        let removed = std::mem::take(&mut work.removed);
        // From here on its outcome may be unknown: nothing may be removed any more.
        work.is_armed = false;
        if changes.is_empty() && statement.key.is_none() {
            let nothing = Reply::Wrote { version: 0, replayed: false };
            return self.write_ends(id, Ok(nothing));
        }
        let intent = Intent { statement: statement.id, added, removed };
        self.oracle.intents.insert(txn, intent);
        self.oracle.members.insert(txn, members);
        let mut command = Command::new(txn, self.now, changes).with_rows_affected(1);
        command.request = statement.request();
        self.commit(command, Then::Write(id));
    }

    pub(super) fn write_committed(&mut self, id: u64, outcome: Result<Committed, CatalogError>) {
        let Some(run) = self.brain().writes.get_mut(&id) else { return };
        match outcome {
            Ok(committed) => {
                if let (true, Some(work)) = (committed.replayed, &mut run.work) {
                    // Another send of the request was first: what this one staged must go.
                    work.is_armed = true;
                    self.seen.note("coordinator: a request is replayed");
                }
                let Committed { version, replayed, .. } = committed;
                self.write_ends(id, Ok(Reply::Wrote { version, replayed }));
            }
            Err(error) => {
                if matches!(error, CatalogError::Conflict { .. }) {
                    self.seen.note("coordinator: a write conflicts");
                }
                let is_bug = matches!(error, CatalogError::InvalidCommand { .. });
                self.require(!is_bug, || format!("a write asks for what cannot be: {error}"));
                let error = SqlError::from(error);
                if let Some(work) = self.work(id) {
                    work.is_armed = is_surely_undone(&error);
                }
                self.write_fails(id, error);
            }
        }
    }

    fn write_fails(&mut self, id: u64, error: SqlError) {
        self.aborts(id);
        let Some(run) = self.brain().writes.get_mut(&id) else { return };
        run.work = None;
        if may_be_of_workers(&error) && run.attempt < ATTEMPTS_MAX {
            self.seen.note("coordinator: a write is planned again");
            self.ping(|state| state != MemberState::Dead);
            let run = self.coordinator_run;
            self.after(LOOKED_AFTER, Event::Coordinator(run, Alarm::WriteAgain(id)));
            return;
        }
        let statement = run.statement.clone();
        let answer = match self.first_outcome(&statement) {
            Some(Ok(version)) => Ok(Reply::Wrote { version, replayed: true }),
            _ => Err(error),
        };
        self.write_ends(id, answer);
    }

    fn write_ends(&mut self, id: u64, answer: Result<Reply, SqlError>) {
        self.aborts(id);
        let Some(run) = self.brain().writes.remove(&id) else { return };
        if let Err(error) = &answer
            && error.code != ErrorCode::OutcomeUnknown
            && run.statement.key.is_none()
        {
            self.oracle.refused.insert(run.statement.id);
        }
        self.answer(Node::Coordinator, run.caller, answer);
    }

    /// What was staged goes, unless it may be committed.
    fn aborts(&mut self, id: u64) {
        let Some(work) = self.work(id) else { return };
        if !std::mem::take(&mut work.is_armed) {
            return;
        }
        let target = Arc::clone(&work.target);
        for (worker, url) in &target.endpoints {
            let to = Address::Worker(*worker, url.port().unwrap_or(0));
            let call = self.ask(Node::Coordinator, to, Ask::Abort { txn: target.txn }, 0);
            self.brain().calls.insert(call, Waiting::Abort);
        }
    }
}
