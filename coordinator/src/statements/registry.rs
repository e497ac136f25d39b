//! Statements that run, and those that ran lately: what `sys.queries` and `sys.requests` show and
//! cancel finds.
//!
//! - `write`: runs that write, their requests and commits
//! - `history`: ended runs on disk

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use basalt_engine::distribute::{Alert, StageProfile};
use basalt_engine::error::{ErrorCode, SqlError};
use basalt_engine::settings::WriteConsistency;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::backend::{QueryId, SessionId};

mod history;
mod write;

use history::History;
pub(super) use write::RunRequest;
pub use write::{Commit, Write};

/// Ended statements that are remembered.
const ENDED_MAX: usize = 1_000;
/// Characters of a statement's text that are remembered.
const TEXT_CHARS_MAX: usize = 4_096;

/// How a statement is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    /// It is planned or running.
    Running,
    /// It ended well.
    Done,
    /// It failed with this code.
    Failed(ErrorCode),
    /// Its client or somebody else stopped it.
    Cancelled,
}

/// One run of one statement.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its id.
    pub query_id: QueryId,
    /// The connection it came from.
    pub session: SessionId,
    /// Its text, shortened.
    pub text: String,
    /// When it started.
    pub started: SystemTime,
    /// How long it took, once it is over.
    pub elapsed: Option<Duration>,
    /// How long a query was planned.
    pub planning: Option<Duration>,
    /// When its rows were asked for, from its start on.
    pub fetched: Option<Duration>,
    /// Rows it returned or changed.
    pub rows: u64,
    /// How it is doing.
    pub state: RunState,
    /// Why its plan was refused and made again as one task, if so.
    pub fallback: Option<String>,
    /// Whether its rows are those of the result cache.
    pub is_cached: bool,
    /// Whether one of its plans was found among those of before.
    pub is_plan_cached: bool,
    /// How often it was planned: more than once when it lost a worker.
    pub attempts: u32,
    /// What is known of it as a write, if it is one.
    pub write: Option<Write>,
    /// What its stages were, if it took long or somebody asked.
    pub profile: Option<Arc<QueryProfile>>,
}

/// The stages of a query, and what in them deserves a second look.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct QueryProfile {
    /// Its stages, by their number; those of parts first.
    pub stages: Vec<StageProfile>,
    /// What deserves a second look.
    pub alerts: Vec<Alert>,
}

impl QueryProfile {
    /// The same as that of a part of its statement.
    pub(super) fn of_part(mut self, part: &str) -> Self {
        self.stages.iter_mut().for_each(|stage| stage.part = Some(part.to_owned()));
        self.alerts.iter_mut().for_each(|alert| alert.event = format!("{part}: {}", alert.event));
        self
    }

    /// The stages and alerts of two plans of one statement.
    fn and(mut self, other: Self) -> Self {
        self.stages.extend(other.stages);
        self.alerts.extend(other.alerts);
        self
    }
}

impl Run {
    fn note_commit(&mut self, commit: Commit) {
        if let Some(write) = &mut self.write {
            write.commit = commit;
        }
    }

    /// Whether it has asked for its commit, so that it is too late to stop it.
    fn commits(&self) -> bool {
        self.write.as_ref().is_some_and(|write| write.commit != Commit::Nothing)
    }
}

/// All runs of one coordinator.
#[derive(Debug, Default)]
pub struct Registry {
    runs: Mutex<Runs>,
    history: Option<History>,
    /// Runs that the disk was too slow for.
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Runs {
    running: HashMap<QueryId, (Run, Instant, CancellationToken)>,
    ended: VecDeque<Run>,
}

impl Runs {
    /// A run, whether it is over or not.
    fn find(&mut self, query_id: QueryId) -> Option<&mut Run> {
        match self.running.get_mut(&query_id) {
            Some((run, ..)) => Some(run),
            None => self.ended.iter_mut().rev().find(|run| run.query_id == query_id),
        }
    }
}

impl Runs {
    /// Ends a run; returns it as it is remembered.
    fn end(&mut self, query_id: QueryId, state: RunState) -> Option<Run> {
        let (mut run, started, _) = self.running.remove(&query_id)?;
        run.elapsed = Some(started.elapsed());
        run.state = state;
        if self.ended.len() == ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(run.clone());
        Some(run)
    }
}

impl Registry {
    /// One that knows what ended before, and keeps what ends in a coordinator's folder. Where that cannot be had it
    /// knows and keeps nothing: no statement needs it.
    pub fn open(data_dir: &Path) -> Self {
        match History::open(data_dir, ENDED_MAX) {
            Ok((history, known)) => {
                let runs = Mutex::new(Runs { ended: known.into(), ..Runs::default() });
                Self { runs, history: Some(history), dropped: AtomicU64::new(0) }
            }
            Err(error) => {
                tracing::warn!(%error, folder = %data_dir.display(), "the history of queries is not kept");
                Self::default()
            }
        }
    }

    /// Waits until what ended is on its way to the disk, for a while. Blocks.
    pub fn flush(&self) {
        self.history.iter().for_each(History::flush);
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a statement that starts. It ends when the guard is told so, or dropped.
    pub fn start(self: &Arc<Self>, session: SessionId, text: &str) -> RunGuard {
        let query_id = Uuid::new_v4();
        let token = CancellationToken::new();
        let run = Run {
            query_id,
            session,
            text: text.chars().take(TEXT_CHARS_MAX).collect(),
            started: SystemTime::now(),
            elapsed: None,
            planning: None,
            fetched: None,
            rows: 0,
            state: RunState::Running,
            fallback: None,
            is_cached: false,
            is_plan_cached: false,
            attempts: 1,
            write: None,
            profile: None,
        };
        self.runs().running.insert(query_id, (run, Instant::now(), token.clone()));
        let notes = RunNotes {
            registry: Arc::clone(self),
            query_id,
            session,
            request: None,
            consistency: None,
        };
        RunGuard { notes, token, over: false }
    }

    /// Asks a running statement to stop; `false` when it is not running, or commits by now.
    pub fn cancel(&self, query_id: QueryId) -> bool {
        // Under the lock that `begin_commit` takes: one of the two sees the other.
        match self.runs().running.get(&query_id) {
            Some((run, _, token)) if !run.commits() => {
                token.cancel();
                true
            }
            _ => false,
        }
    }

    /// Runs under way, then ended ones, the newest first.
    pub fn list(&self) -> Vec<Run> {
        let runs = self.runs();
        let mut running: Vec<_> = runs.running.values().map(|(run, ..)| run.clone()).collect();
        running.sort_by_key(|run| std::cmp::Reverse(run.started));
        running.extend(runs.ended.iter().rev().cloned());
        running
    }

    fn update(&self, query_id: QueryId, change: impl FnOnce(&mut Run)) {
        if let Some((run, ..)) = self.runs().running.get_mut(&query_id) {
            change(run);
        }
    }

    fn time(&self, query_id: QueryId, note: impl FnOnce(&mut Run, Duration)) {
        if let Some((run, started, _)) = self.runs().running.get_mut(&query_id) {
            note(run, started.elapsed());
        }
    }

    fn end(&self, query_id: QueryId, state: RunState) {
        let ended = self.runs().end(query_id, state);
        // Not under the lock that every statement takes.
        let history = self.history.as_ref().zip(ended);
        if history.is_some_and(|(history, run)| !history.add(run)) {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if dropped.is_power_of_two() {
                tracing::warn!(dropped, "the history of queries lacks some: the disk is too slow");
            }
        }
    }
}

/// A run, for those that work for it and do not decide how it ends.
#[derive(Debug, Clone)]
pub struct RunNotes {
    registry: Arc<Registry>,
    query_id: QueryId,
    session: SessionId,
    request: Option<Arc<RunRequest>>,
    consistency: Option<WriteConsistency>,
}

impl RunNotes {
    /// The connection that the run came from.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Counts rows returned or changed.
    pub fn add_rows(&self, rows: u64) {
        self.registry.update(self.query_id, |run| run.rows += rows);
    }

    /// Notes that the run lost a worker and was planned again.
    pub fn note_attempt(&self) {
        self.registry.update(self.query_id, |run| run.attempts += 1);
    }

    /// Notes that the run's query is planned.
    pub fn note_planned(&self) {
        self.registry.time(self.query_id, |run, since| run.planning = Some(since));
    }

    /// Notes that the run's rows are asked for: until then a planned query waits for its client.
    pub fn note_fetched(&self) {
        self.registry.time(self.query_id, |run, since| run.fetched = Some(since));
    }

    /// Notes that the run's rows were in the result cache.
    pub fn note_cached(&self) {
        self.registry.update(self.query_id, |run| run.is_cached = true);
    }

    /// Notes that one of the run's plans was found among those of before.
    pub fn note_plan_cached(&self) {
        self.registry.update(self.query_id, |run| run.is_plan_cached = true);
    }

    /// Notes what the stages of one of the run's plans were: of a part, or of the statement's own.
    pub fn note_profile(&self, profile: QueryProfile) {
        self.registry.update(self.query_id, |run| {
            let before = run.profile.take().map(Arc::unwrap_or_clone).unwrap_or_default();
            run.profile = Some(Arc::new(before.and(profile)));
        });
    }

    /// Forgets what was noted of the run's parts: it was too quick to matter.
    pub fn forget_profile(&self) {
        self.registry.update(self.query_id, |run| run.profile = None);
    }

    /// Notes that a plan of the run was made again as one task. A statement may have several
    /// plans; the first reason stays.
    pub fn note_fallback(&self, reason: Option<String>) {
        self.registry.update(self.query_id, |run| {
            if run.fallback.is_none() {
                run.fallback = reason;
            }
        });
    }
}

/// One run under way. Dropped before it was told how the run ended, it counts as cancelled.
#[derive(Debug)]
pub struct RunGuard {
    notes: RunNotes,
    token: CancellationToken,
    over: bool,
}

impl RunGuard {
    /// The id of the run.
    pub fn query_id(&self) -> QueryId {
        self.notes.query_id
    }

    /// Where those that work for the run note what they did.
    pub fn notes(&self) -> &RunNotes {
        &self.notes
    }

    /// Fires when somebody cancels the run.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// As [`Self::finish`], for work that says how many rows it changed, if that is a number.
    pub async fn finish_change<T: Copy + Into<Option<u64>>>(
        self,
        work: impl Future<Output = Result<T, SqlError>>,
    ) -> Result<T, SqlError> {
        let notes = self.notes.clone();
        let counted = async {
            let rows = work.await?;
            notes.add_rows(rows.into().unwrap_or(0));
            Ok(rows)
        };
        self.finish(counted).await
    }

    /// Runs `work` unless the run is cancelled first, and notes how it ended.
    pub async fn finish<T>(
        mut self,
        work: impl Future<Output = Result<T, SqlError>>,
    ) -> Result<T, SqlError> {
        let result = self.part(work).await;
        if result.is_ok() {
            self.end(None);
        }
        result
    }

    /// Runs a part of the run's work unless the run is cancelled first. Where that fails, the run is over.
    pub async fn part<T>(
        &mut self,
        work: impl Future<Output = Result<T, SqlError>>,
    ) -> Result<T, SqlError> {
        let result = tokio::select! {
            result = work => result,
            () = self.token.cancelled() => Err(cancelled()),
        };
        if let Err(error) = &result {
            self.end(Some(error));
        }
        result
    }

    /// Notes how the run ended.
    pub fn end(&mut self, error: Option<&SqlError>) {
        self.over = true;
        let state = match error.map(|error| error.code) {
            None => RunState::Done,
            Some(ErrorCode::Cancelled) => RunState::Cancelled,
            Some(code) => RunState::Failed(code),
        };
        self.notes.registry.end(self.notes.query_id, state);
    }
}

impl Drop for RunGuard {
    fn drop(&mut self) {
        if !self.over {
            self.notes.registry.end(self.notes.query_id, RunState::Cancelled);
        }
    }
}

/// What the client of a cancelled statement reads.
pub fn cancelled() -> SqlError {
    SqlError::new(ErrorCode::Cancelled, "the statement was cancelled")
}

#[cfg(test)]
mod tests {
    use basalt_storage::ids::TxnId;

    use super::*;
    use crate::catalog::Committed;

    #[tokio::test]
    async fn a_cancelled_run_ends_and_is_remembered_as_cancelled() {
        let registry = Arc::new(Registry::default());
        let run = registry.start(SessionId(1), "SELECT 1");
        let id = run.query_id();
        assert!(registry.cancel(id));
        let result = run.finish(std::future::pending::<Result<(), SqlError>>()).await;
        assert_eq!(result.unwrap_err().code, ErrorCode::Cancelled);
        assert_eq!(registry.list()[0].state, RunState::Cancelled);
        assert!(!registry.cancel(id));
    }

    fn committed(txn: TxnId) -> Committed {
        Committed { version: 7, txn, rows_affected: Some(1), reserved: 0..0, replayed: false }
    }

    fn commit(registry: &Registry) -> Commit {
        registry.list()[0].write.as_ref().unwrap().commit.clone()
    }

    #[tokio::test]
    async fn a_run_that_asked_for_its_commit_is_not_cancelled() {
        let registry = Arc::new(Registry::default());
        let run = registry.start(SessionId(1), "INSERT");
        let (id, notes, txn) = (run.query_id(), run.notes().writing(None), TxnId::generate());
        let work = async {
            notes.begin_commit(txn)?;
            assert!(!registry.cancel(id), "it is too late");
            notes.end_commit(txn, &Ok(committed(txn)));
            Ok(Some(1))
        };
        assert_eq!(run.finish_change(work).await.unwrap(), Some(1));
        assert_eq!(commit(&registry), Commit::Done(committed(txn)));
    }

    #[test]
    fn a_run_that_was_cancelled_does_not_commit() {
        let registry = Arc::new(Registry::default());
        let run = registry.start(SessionId(1), "INSERT");
        let notes = run.notes().writing(None);
        assert!(registry.cancel(run.query_id()));
        assert_eq!(notes.begin_commit(TxnId::generate()).unwrap_err().code, ErrorCode::Cancelled);
        assert_eq!(commit(&registry), Commit::Nothing);
    }

    #[test]
    fn the_outcome_of_a_commit_is_noted_though_its_client_has_left() {
        let registry = Arc::new(Registry::default());
        let run = registry.start(SessionId(1), "INSERT");
        let (notes, txn) = (run.notes().writing(None), TxnId::generate());
        notes.begin_commit(txn).unwrap();
        drop(run);
        assert_eq!(commit(&registry), Commit::Asked(txn));
        notes.end_commit(txn, &Ok(committed(txn)));
        assert_eq!(commit(&registry), Commit::Done(committed(txn)));
    }

    #[test]
    fn the_first_of_several_reasons_for_one_task_is_shown() {
        let registry = Arc::new(Registry::default());
        let run = registry.start(SessionId(1), "DELETE FROM t");
        for reason in [None, Some("first".to_owned()), Some("second".to_owned()), None] {
            run.notes().note_fallback(reason);
        }
        assert_eq!(registry.list()[0].fallback.as_deref(), Some("first"));
    }

    #[test]
    fn a_dropped_run_counts_as_cancelled() {
        let registry = Arc::new(Registry::default());
        drop(registry.start(SessionId(1), "SELECT 1"));
        assert_eq!(registry.list()[0].state, RunState::Cancelled);
    }
}
