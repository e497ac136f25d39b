//! Statements that lose a worker.
//!
//! ```text
//! plan ─▶ run ─▶ rows into the spool ─▶ first row leaves ─▶ rows pass through
//!   ▲        └── worker lost ──┘             └── worker lost ──▶ UNAVAILABLE, typed, never short
//!   └─ same snapshot, workers that answered
//! ```
//! A query whose rows have not begun to leave is planned again on the workers that answer, unseen by
//! the client; its snapshot stays, so its answer is the one it would have had. To make that the rule,
//! rows are spooled before the first leaves, up to a bound. A write is run again as a whole, in a
//! new transaction: the failed one was aborted and never asked for its commit.
//!
//! Invariant: a statement is tried at most [`ATTEMPTS_MAX`] times, and only after an error that may
//! be the workers' (RULES 22): what the statement itself gets wrong is reported at once.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::record_batch::RecordBatch;
use basalt_engine::batch_bytes::batch_bytes;
use basalt_engine::dialect::Statement;
use basalt_engine::distribute::{
    StageProfile, alerts, measured_stages, plan_distributed, stages, start,
};
use basalt_engine::error::{ErrorCode, SqlError, from_datafusion};
use basalt_engine::session::{Moment, SessionSpec, execution_context, replanning_state};
use basalt_engine::snapshot::{ClusterView, Snapshot, TableSnapshot};
use basalt_engine::table::SegmentTable;
use basalt_storage::ids::{SegmentId, TableId, WorkerId};
use basalt_storage::manifest::SegmentRecord;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use futures::StreamExt;
use tokio::sync::watch;

use super::Statements;
use super::registry::{QueryProfile, RunNotes};
use super::session::Pinned;
use crate::membership::{Incarnation, Member, MemberState, Members};

/// Runs of one statement. The second meets the survivors of the first; more are for workers that
/// are lost in between.
pub(crate) const ATTEMPTS_MAX: u32 = 5;
/// The wait before another attempt on the same workers: a restart in the middle of a connection.
const PAUSE: Duration = Duration::from_millis(100);
/// Queries that take longer leave behind what their stages were.
const SLOW: Duration = Duration::from_millis(200);
/// How long workers may take to say what their tasks did.
pub(super) const MEASURED_WITHIN: Duration = Duration::from_millis(500);
/// Bytes of one query's rows that wait for its end before the first leaves.
const SPOOL_BYTES_QUERY: usize = 32 << 20;
/// The same for all queries of a coordinator. Beyond it rows leave at once.
const SPOOL_BYTES_ALL: usize = 256 << 20;

/// Whether an error may be that of a worker that was lost, and not of the statement.
pub(crate) fn may_be_of_workers(error: &SqlError) -> bool {
    matches!(error.code, ErrorCode::Unavailable | ErrorCode::StalePlan)
}

/// Whether an error is one that the loss of a worker can look like on its way through others.
fn may_follow_a_loss(error: &SqlError) -> bool {
    may_be_of_workers(error)
        || matches!(
            error.code,
            ErrorCode::Internal | ErrorCode::Cancelled | ErrorCode::UnknownHandle
        )
}

/// The workers of one plan, to tell whether one was lost since.
struct Watched {
    workers: BTreeMap<WorkerId, Option<Incarnation>>,
    changes: watch::Receiver<Arc<[Member]>>,
}

impl Watched {
    fn new(members: &Members, cluster: &ClusterView) -> Self {
        let changes = members.changes();
        let known: BTreeMap<_, _> = members
            .members()
            .into_iter()
            .map(|member| (member.worker, member.incarnation))
            .collect();
        let workers = cluster.workers.keys().map(|id| (*id, known.get(id).copied())).collect();
        Self { workers, changes }
    }

    /// The first worker that is not what it was.
    fn lost(&self, members: &[Member], is_lost: impl Fn(MemberState) -> bool) -> Option<WorkerId> {
        let lost = |(worker, incarnation): (&WorkerId, &Option<Incarnation>)| {
            let now = members.iter().find(|member| member.worker == *worker);
            match now {
                Some(now) => Some(now.incarnation) != *incarnation || is_lost(now.state),
                None => true,
            }
        };
        self.workers.iter().find(|worker| lost(*worker)).map(|(worker, _)| *worker)
    }

    /// Waits until a worker is lost, in the sense of `is_lost`.
    async fn wait(&mut self, is_lost: impl Fn(MemberState) -> bool) -> WorkerId {
        loop {
            let members = Arc::clone(&self.changes.borrow_and_update());
            if let Some(worker) = self.lost(&members, &is_lost) {
                return worker;
            }
            if self.changes.changed().await.is_err() {
                // The members are gone with the coordinator: whoever waits is dropped soon.
                return pending().await;
            }
        }
    }
}

fn is_suspect_or_dead(state: MemberState) -> bool {
    matches!(state, MemberState::Suspect | MemberState::Dead)
}

/// A share of the memory that spools of all queries have, of one kind.
#[derive(Debug, Default)]
pub(super) struct SpoolBudget(AtomicUsize);

impl SpoolBudget {
    fn take(&self, bytes: usize) -> bool {
        let taken = self.0.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if taken > SPOOL_BYTES_ALL {
            self.0.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        true
    }
}

/// Rows that wait: for the first of them to leave, or for a query that reads them.
pub(super) struct Spool {
    budget: Arc<SpoolBudget>,
    batches: VecDeque<RecordBatch>,
    bytes: usize,
}

impl Spool {
    pub(super) fn new(budget: &Arc<SpoolBudget>) -> Self {
        Self { budget: Arc::clone(budget), batches: VecDeque::new(), bytes: 0 }
    }

    /// Keeps rows; `false` when the spool is full with them.
    pub(super) fn push(&mut self, batch: RecordBatch) -> bool {
        let bytes = batch_bytes(&batch);
        let granted = self.budget.take(bytes);
        if granted {
            self.bytes += bytes;
        }
        self.batches.push_back(batch);
        granted && self.bytes < SPOOL_BYTES_QUERY
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Hands over the rows; they are counted as long as the spool lives.
    pub(super) fn take(&mut self) -> Vec<RecordBatch> {
        std::mem::take(&mut self.batches).into()
    }

    fn clear(&mut self) {
        self.batches.clear();
        self.budget.0.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A query that was planned and survives the loss of workers until its rows leave.
pub(super) struct Resilient {
    statements: Statements,
    spec: Arc<SessionSpec>,
    /// The plan before it was cut for workers.
    logical: LogicalPlan,
    physical: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    watched: Watched,
    notes: RunNotes,
    attempts: u32,
    /// What now() is in all of its plans.
    moment: Moment,
    /// When the rows of its statement were asked for.
    started: Option<Instant>,
    /// The part of a statement that it computes; none: it is the statement.
    part: Option<String>,
}

impl Resilient {
    /// Plans a query over the workers that there are.
    pub(super) async fn plan(
        statements: &Statements,
        pinned: &Pinned,
        logical: &LogicalPlan,
        notes: &RunNotes,
    ) -> Result<(Self, arrow::datatypes::SchemaRef), SqlError> {
        let mut spec = Arc::clone(&pinned.spec);
        let mut state = pinned.state.clone();
        let moment = Moment::of(&state);
        let mut attempts = 1;
        loop {
            let watched = Watched::new(&statements.inner.members, &spec.snapshot.cluster);
            let error = match plan_distributed(&state, logical).await {
                Ok(distributed) => {
                    notes.note_fallback(distributed.fallback);
                    if distributed.is_known {
                        notes.note_plan_cached();
                    }
                    statements.inner.reconciler.note_reads(tables_of(logical).into_keys());
                    let planned = Self {
                        statements: statements.clone(),
                        spec,
                        logical: logical.clone(),
                        physical: distributed.plan,
                        context: execution_context(&state),
                        watched,
                        notes: notes.clone(),
                        attempts,
                        moment,
                        started: None,
                        part: None,
                    };
                    return Ok((planned, distributed.columns));
                }
                Err(error) => pinned.error(error),
            };
            if !may_be_of_workers(&error) || attempts >= ATTEMPTS_MAX {
                return Err(error);
            }
            let others = statements.other_workers(&spec.snapshot.cluster).await;
            let Some(now) = others else { return Err(error) };
            spec = on_workers_of(&spec, &now);
            state = replanning_state(&spec, &moment).map_err(from_datafusion)?;
            attempts += 1;
        }
    }

    /// The same query of a statement whose rows were asked for before: as one of its parts, or over these.
    pub(super) fn within(self, started: Instant, part: Option<&str>) -> Self {
        Self { started: Some(started), part: part.map(str::to_owned), ..self }
    }

    /// Its plan, cut for workers.
    pub(super) fn physical(&self) -> &Arc<dyn ExecutionPlan> {
        &self.physical
    }

    /// Starts the query.
    pub(super) fn rows(
        mut self,
    ) -> impl futures::Stream<Item = Result<RecordBatch, SqlError>> + Send {
        self.started.get_or_insert_with(Instant::now);
        self.note_moves();
        let spool = Spool::new(&self.statements.inner.spools);
        futures::stream::unfold(Phase::Spooling(Box::new(self), spool), |phase| async move {
            match phase {
                Phase::Spooling(query, spool) => query.spool(spool).await.next().await,
                phase => phase.next().await,
            }
        })
    }

    /// Counts what it moves, unless its session has it move everything.
    fn note_moves(&self) {
        if self.spec.settings.colocation {
            let members = self.spec.snapshot.cluster.members;
            self.statements.note_moves(&tables_of(&self.logical), members, &self.physical);
        }
    }

    /// Notes what its stages were, once its last row has come, if that took long or the session wants to know what
    /// they did.
    async fn note_profile(&self) {
        if !self.spec.settings.profile {
            return self.note_plan();
        }
        // Workers that were lost say nothing: what is known of the plan stays.
        match tokio::time::timeout(MEASURED_WITHIN, self.measured_stages()).await {
            Ok(Ok(stages)) => self.note_stages(stages),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a query was not measured");
                self.note_stages(stages(&self.physical));
            }
            Err(_) => self.note_stages(stages(&self.physical)),
        }
    }

    async fn measured_stages(&self) -> Result<Vec<StageProfile>, DataFusionError> {
        measured_stages(&self.physical, &self.context).await
    }

    /// Notes the stages of its plan, if its statement took long. Of a part, that is not known yet.
    fn note_plan(&self) {
        let is_slow = self.started.is_some_and(|started| started.elapsed() >= SLOW);
        match self.spec.settings.profile || is_slow || self.part.is_some() {
            true => self.note_stages(stages(&self.physical)),
            false => self.notes.forget_profile(),
        }
    }

    fn note_stages(&self, stages: Vec<StageProfile>) {
        let tables = tables_of(&self.logical);
        let alerts = alerts(&self.physical, &stages, tables.values().map(Arc::as_ref));
        let profile = QueryProfile { stages, alerts };
        self.notes.note_profile(match &self.part {
            Some(part) => profile.of_part(part),
            None => profile,
        });
    }

    /// Runs the query until its spool is full or it has ended, again and again when it loses a
    /// worker.
    async fn spool(mut self, mut spool: Spool) -> Phase {
        loop {
            let error = match self.fill(&mut spool).await {
                Ok(rows) => return Phase::Leaving(Box::new(self), rows, spool),
                Err(error) => error,
            };
            spool.clear();
            if !may_follow_a_loss(&error) || self.attempts >= ATTEMPTS_MAX {
                self.note_plan();
                return Phase::Failed(error);
            }
            let mut error = error;
            while let Err(again) = self.plan_again(error).await {
                if !may_be_of_workers(&again) || self.attempts >= ATTEMPTS_MAX {
                    return Phase::Failed(again);
                }
                // The survivors may not be enough until somebody is back.
                self.attempts += 1;
                tokio::time::sleep(PAUSE).await;
                error = again;
            }
        }
    }

    /// Runs the query until its spool is full or it has ended; returns what is to come.
    async fn fill(
        &mut self,
        spool: &mut Spool,
    ) -> Result<Option<SendableRecordBatchStream>, SqlError> {
        let channels = &self.statements.inner.channels;
        let plan = Arc::clone(&self.physical);
        let mut rows = start(plan, Arc::clone(&self.context), channels).map_err(from_datafusion)?;
        loop {
            let next = tokio::select! {
                biased;
                next = rows.next() => next,
                worker = self.watched.wait(is_suspect_or_dead) => {
                    // A busy worker is not a lost one: it is if it does not answer now.
                    self.statements.inner.probes.ask_all().await;
                    let members = self.statements.inner.members.members();
                    match self.watched.lost(&members, is_suspect_or_dead) {
                        Some(_) => return Err(lost(worker)),
                        None => continue,
                    }
                }
            };
            match next {
                None => return Ok(None),
                Some(Err(error)) => return Err(from_datafusion(error)),
                Some(Ok(batch)) => {
                    if !spool.push(batch) {
                        return Ok(Some(rows));
                    }
                }
            }
        }
    }

    /// Plans again on the workers that answer; the error stands when nothing has changed and it is
    /// not known to be theirs.
    async fn plan_again(&mut self, error: SqlError) -> Result<(), SqlError> {
        let before = &self.spec.snapshot.cluster;
        let now = match self.statements.other_workers(before).await {
            Some(now) => now,
            None if may_be_of_workers(&error) => {
                let members = self.statements.inner.members.members();
                // A worker that restarted answers as it did before, and has lost its fragments.
                if self.watched.lost(&members, is_suspect_or_dead).is_none() {
                    tokio::time::sleep(PAUSE).await;
                }
                self.statements.inner.catalog.snapshot()
            }
            None => return Err(error),
        };
        tracing::info!(%error, attempt = self.attempts, "a query lost a worker, planning again");
        let spec = on_workers_of(&self.spec, &now);
        let state = replanning_state(&spec, &self.moment).map_err(from_datafusion)?;
        self.watched = Watched::new(&self.statements.inner.members, &spec.snapshot.cluster);
        let planned = plan_distributed(&state, &self.logical).await.map_err(from_datafusion)?;
        self.notes.note_fallback(planned.fallback);
        self.notes.note_attempt();
        (self.physical, self.context, self.spec) = (planned.plan, execution_context(&state), spec);
        self.attempts += 1;
        Ok(())
    }
}

/// Where a query's rows are on their way to the client.
enum Phase {
    Spooling(Box<Resilient>, Spool),
    /// The first row has left, or is about to; `None`: all that comes is in the spool.
    Leaving(Box<Resilient>, Option<SendableRecordBatchStream>, Spool),
    Failed(SqlError),
    Over,
}

impl Phase {
    async fn next(self) -> Option<(Result<RecordBatch, SqlError>, Self)> {
        match self {
            Self::Leaving(query, rows, mut spool) if !spool.batches.is_empty() => {
                let batch = spool.batches.pop_front()?;
                Some((Ok(batch), Self::Leaving(query, rows, spool)))
            }
            Self::Leaving(mut query, Some(mut rows), mut spool) => {
                spool.clear();
                let next = tokio::select! {
                    biased;
                    next = rows.next() => next.map(|next| next.map_err(from_datafusion)),
                    worker = query.watched.wait(|state| state == MemberState::Dead) => {
                        Some(Err(lost(worker)))
                    }
                };
                let Some(next) = next else {
                    query.note_profile().await;
                    return None;
                };
                let phase = match next.is_err() {
                    true => {
                        query.note_plan();
                        Self::Over
                    }
                    false => Self::Leaving(query, Some(rows), spool),
                };
                Some((next, phase))
            }
            Self::Failed(error) => Some((Err(error), Self::Over)),
            Self::Leaving(query, None, _) => {
                query.note_profile().await;
                None
            }
            Self::Spooling(..) | Self::Over => None,
        }
    }
}

/// The tables that a plan reads, those of subqueries included, each once.
pub(super) fn tables_of(plan: &LogicalPlan) -> BTreeMap<TableId, Arc<TableSnapshot>> {
    let mut tables = BTreeMap::new();
    let noted = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Ok(provider) = source_as_provider(&scan.source)
            && let Some(table) = provider.downcast_ref::<SegmentTable>()
        {
            tables.insert(table.snapshot().id, Arc::clone(table.snapshot()));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(noted.is_ok(), "nothing here fails");
    tables
}

fn lost(worker: WorkerId) -> SqlError {
    let message = format!("worker {worker} was lost while the statement ran");
    SqlError::new(ErrorCode::Unavailable, message).with_hint("send the statement again")
}

/// The same snapshot on the workers of a newer one, with the copies that they have by then: those
/// of a lost worker may have been made again on one that had none.
fn on_workers_of(spec: &SessionSpec, now: &Snapshot) -> Arc<SessionSpec> {
    let moved = match now.version == spec.snapshot.version {
        true => HashMap::new(),
        false => moved_copies(spec.snapshot.segments(), now.segments()),
    };
    let cluster = ClusterView { moved, ..ClusterView::clone(&now.cluster) };
    let snapshot = Snapshot { cluster: Arc::new(cluster), ..Snapshot::clone(&spec.snapshot) };
    Arc::new(SessionSpec { snapshot: Arc::new(snapshot), ..spec.clone() })
}

/// The segments of a snapshot that have other holders in a newer one. What the newer one does not
/// name stays where it was as long as somebody sees the older one.
pub(crate) fn moved_copies<'a>(
    before: impl Iterator<Item = &'a Arc<SegmentRecord>>,
    now: impl Iterator<Item = &'a Arc<SegmentRecord>>,
) -> HashMap<SegmentId, Vec<WorkerId>> {
    let before: HashMap<_, _> = before.map(|s| (s.segment, &s.holders)).collect();
    let moved = now.filter(|segment| {
        before.get(&segment.segment).is_some_and(|holders| **holders != segment.holders)
    });
    moved.map(|segment| (segment.segment, segment.holders.clone())).collect()
}

impl Statements {
    /// Asks the workers who is there; the newest snapshot, if its cluster differs from `before`.
    async fn other_workers(&self, before: &ClusterView) -> Option<Arc<Snapshot>> {
        self.inner.probes.ask_all().await;
        let now = self.inner.catalog.snapshot();
        let same = now.cluster.epoch == before.epoch && now.cluster.workers == before.workers;
        (!same).then_some(now)
    }

    /// Runs a write, and runs it again as a whole when a worker was lost before its commit. When
    /// that does not help, the error is that of the first run, which says what happened.
    pub(super) async fn write_surviving(
        &self,
        run: &RunNotes,
        statement: &Statement,
        values: &[ScalarValue],
    ) -> Result<u64, SqlError> {
        let mut first = None;
        for attempt in 1.. {
            let before = Arc::clone(&self.inner.catalog.snapshot().cluster);
            let watched = Watched::new(&self.inner.members, &before);
            let error = match self.write_once(run, statement, values).await {
                Err(error) if may_be_of_workers(&error) => error,
                result => return result,
            };
            let moved = self.other_workers(&before).await.is_some();
            let members = self.inner.members.members();
            let changed = moved || watched.lost(&members, is_suspect_or_dead).is_some();
            let again = (changed || error.code == ErrorCode::StalePlan) && attempt < ATTEMPTS_MAX;
            tracing::info!(%error, attempt, again, "a write lost a worker");
            if !again {
                return Err(tried_again(first, error));
            }
            first.get_or_insert(error);
            run.note_attempt();
        }
        unreachable!("attempts end above")
    }
}

/// The first error of a write, and what came of trying again.
fn tried_again(first: Option<SqlError>, last: SqlError) -> SqlError {
    match first {
        None => last,
        Some(first) => {
            let hint = format!("it was tried again: {}", last.message);
            SqlError { hint: Some(hint), ..first }
        }
    }
}

#[cfg(test)]
mod tests {
    use basalt_storage::digest::Digest;
    use basalt_storage::ids::{SliceId, TableId, TxnId};
    use basalt_storage::manifest::Layout;

    use super::*;

    fn segment((id, holders): &(SegmentId, Vec<WorkerId>)) -> Arc<SegmentRecord> {
        Arc::new(SegmentRecord {
            table: TableId(1),
            slice: SliceId(0),
            segment: *id,
            txn: TxnId::generate(),
            layout: Layout::Packed,
            rows: 1,
            row_groups: vec![],
            bytes: 0,
            meta_digest: Digest::of(b""),
            columns: BTreeMap::new(),
            holders: holders.clone(),
            deleted: None,
            routed_by: None,
        })
    }

    #[test]
    fn a_plan_made_again_knows_who_has_copies_now() {
        let [lost, partner, third] = [(); 3].map(|()| WorkerId::generate());
        let [moved, kept, new, gone] = [(); 4].map(|()| SegmentId::generate());
        let of = |segments: &[(SegmentId, Vec<WorkerId>)]| -> Vec<_> {
            segments.iter().map(segment).collect()
        };
        let before =
            of(&[(moved, vec![lost, partner]), (kept, vec![partner, lost]), (gone, vec![lost])]);
        let now = of(&[(moved, vec![partner, third]), (kept, vec![partner, lost]), (new, vec![])]);
        let expected = HashMap::from([(moved, vec![partner, third])]);
        assert_eq!(moved_copies(before.iter(), now.iter()), expected);
    }
}
