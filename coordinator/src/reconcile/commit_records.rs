//! Telling workers of commits, so that a catalog can be made again from them
//! ([`crate::catalog::rebuild`]).
//!
//! Level-triggered, as all of reconciliation: each worker says how far its records are, and is sent
//! what is other at the newest durable commit, or the whole state when it knows none of this log's
//! commits that is remembered here, when its records are damaged, or when what was added to them has
//! outgrown what they began with.
//!
//! A commit does not wait for it: the copies of the command log carry the promise that nothing
//! acknowledged is lost, and records are for the day when all of those are gone. So they may lag,
//! and are sent once for all commits of a second.
//!
//! Only durable commits are sent, so records never name what a later log does not have.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use basalt_engine::commit_protocol::{RecordsPosition, mark_to_wire, put_answer_from_wire};
use basalt_engine::error::{ErrorCode, SqlError, from_datafusion, from_status};
use basalt_engine::protocol::commit_records_client::CommitRecordsClient;
use basalt_engine::protocol::{
    CommitPositionRequest, CommitPutHeader, CommitPutPart, MESSAGE_BYTES_MAX, WireId,
};
use basalt_storage::command_log::{Chain, RawRecord, Verdict};
use basalt_storage::commit_records::Known;
use basalt_storage::ids::WorkerId;
use datafusion_distributed::grpc::BoxCloneSyncChannel;
use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::Reconciler;
use crate::catalog::commit_record::{CommitView, PART_BYTES, Part, difference};
use crate::catalog::{CatalogError, Readable, wall_clock_ms};
use crate::log_links::in_time;
use crate::membership::{Incarnation, Member, MemberState};

/// Records are written anew when what was added to them has so many bytes, or as many as they began
/// with if that is more: so at most twice as much is written as is needed.
const DELTA_BYTES_MIN: u64 = 4 << 20;

/// How often a worker is asked whether it still has what it was sent.
const CHECK_EVERY: Duration = Duration::from_secs(60);

/// Workers that are told at a time: one that hangs does not keep all others waiting, and a whole state
/// takes memory.
const WORKERS_AT_ONCE: usize = 2;

/// The first wait after a worker was not told, and the longest: it doubles each time.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(60);

/// How far the records of a worker are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordsState {
    /// The worker.
    pub worker: WorkerId,
    /// The last commit it knows, as far as it was heard of since this coordinator started.
    pub known: Option<u64>,
    /// Why it knows no later one.
    pub problem: Option<String>,
}

/// What was sent to workers.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    sent: BTreeMap<WorkerId, Delivery>,
    problems: BTreeMap<WorkerId, Problem>,
}

/// Why a worker was not told.
#[derive(Debug, Clone)]
struct Problem {
    message: String,
    tries: u32,
    again_at: Instant,
}

/// What one run of a worker has.
#[derive(Debug, Clone)]
struct Delivery {
    to: Incarnation,
    at: Chain,
    /// The catalog at that commit.
    view: CommitView,
    known: Known,
    /// When the worker said so; `None`: it was sent something since, and did not answer.
    checked: Option<Instant>,
}

type Client = CommitRecordsClient<BoxCloneSyncChannel>;

impl Reconciler {
    /// Tells workers of commits until `stop` is cancelled.
    pub(super) async fn keep_commit_records(&self, stop: CancellationToken) {
        let mut ticks =
            tokio::time::interval(self.inner.options.every.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let _stopped = stop.run_until_cancelled(self.send_commit_records()).await;
        }
    }

    /// How far the records of every member are.
    pub fn commit_records(&self) -> Vec<RecordsState> {
        let members = self.inner.catalog.cluster().workers.clone();
        let deliveries = self.deliveries();
        let state = |worker: WorkerId| RecordsState {
            worker,
            known: deliveries.sent.get(&worker).map(|sent| sent.at.seq),
            problem: deliveries.problems.get(&worker).map(|problem| problem.message.clone()),
        };
        members.into_iter().map(state).collect()
    }

    async fn send_commit_records(&self) {
        // After a crash what is shown may be older than what workers were told.
        if self.inner.catalog.log_status().readable != Readable::Yes {
            return;
        }
        let view = self.inner.catalog.commit_view();
        let is_served = |member: &Member| {
            matches!(member.state, MemberState::Joining | MemberState::Live)
                && view.cluster.workers.contains(&member.worker)
        };
        let members: Vec<_> = self.inner.members.members().into_iter().filter(is_served).collect();
        let is_member = |worker: &WorkerId| view.cluster.workers.contains(worker);
        self.deliveries().sent.retain(|worker, _| is_member(worker));
        self.deliveries().problems.retain(|worker, _| is_member(worker));
        let is_done = |member: &Member| {
            self.delivery(member).is_some_and(|sent| sent.at.seq == view.version && sent.is_fresh())
        };
        if members.iter().all(is_done) {
            return;
        }
        let at = match self.mark(view.version).await {
            Ok(at) => at,
            Err(error) => {
                tracing::warn!(%error, "workers cannot be told of commits");
                return;
            }
        };
        let due =
            members.into_iter().filter(|member| !is_done(member) && self.is_due(member.worker));
        let due: Vec<_> = due.collect();
        let tell = |member: Member| {
            let view = &view;
            async move {
                let told = self.bring_up(&member, view, at).await;
                self.note_told(member.worker, told);
            }
        };
        stream::iter(due).for_each_concurrent(WORKERS_AT_ONCE, tell).await;
    }

    fn note_told(&self, worker: WorkerId, told: Result<(), SqlError>) {
        let mut deliveries = self.deliveries();
        match told {
            Ok(()) => {
                deliveries.problems.remove(&worker);
            }
            Err(error) => {
                tracing::debug!(%worker, %error, "a worker was not told of commits");
                if let Some(sent) = deliveries.sent.get_mut(&worker) {
                    sent.checked = None;
                }
                let tries = deliveries.problems.get(&worker).map_or(0, |problem| problem.tries);
                let wait = AGAIN_AFTER.saturating_mul(1 << tries.min(16)).min(AGAIN_AFTER_MAX);
                let (message, again_at) = (error.message, Instant::now() + wait);
                let problem = Problem { message, tries: tries + 1, again_at };
                deliveries.problems.insert(worker, problem);
            }
        }
    }

    /// Whether a worker that was not told may be tried again.
    fn is_due(&self, worker: WorkerId) -> bool {
        let deliveries = self.deliveries();
        deliveries.problems.get(&worker).is_none_or(|problem| problem.again_at <= Instant::now())
    }

    /// The end of the log with commit `version`.
    async fn mark(&self, version: u64) -> Result<Chain, CatalogError> {
        let log = self.inner.catalog.log();
        let read = move || {
            let run = log.run(version.saturating_sub(1), 1)?;
            let missing = || CatalogError::corrupt_record(version, "is missing");
            let record = run.records.first().ok_or_else(missing)?;
            Ok(RawRecord::decode(version, record)?.chain())
        };
        match tokio::task::spawn_blocking(read).await {
            Ok(result) => result,
            Err(error) => Err(CatalogError::Stopped { reason: error.to_string() }),
        }
    }

    /// Makes one worker know commit `at`, which `view` is of.
    async fn bring_up(
        &self,
        member: &Member,
        view: &CommitView,
        at: Chain,
    ) -> Result<(), SqlError> {
        let mut client = self.records_client(member)?;
        let before = match self.delivery(member) {
            Some(sent) if sent.is_fresh() => Some(sent),
            // What it has may be damaged, or other than what was sent last.
            sent => {
                let known = self.position(&mut client, member).await?;
                if known.at == Some(at) && known.appendable {
                    self.note(member, at, view, known);
                    return Ok(());
                }
                let is_where_it_was =
                    |sent: &Delivery| known.at == Some(sent.at) && known.appendable;
                sent.filter(is_where_it_was)
            }
        };
        let before = before.filter(|sent| is_worth_adding_to(&sent.known));
        let after = before.as_ref().map(|sent| sent.at);
        let (worker, newer) = (member.worker, view.clone());
        let compare = move || difference(before.map(|sent| sent.view).as_ref(), &newer, worker);
        let parts = tokio::task::spawn_blocking(compare).await;
        let parts = parts.map_err(|error| internal(error.to_string()))?;
        let header = CommitPutHeader {
            epoch: view.cluster.epoch.0,
            cluster: view.cluster.cluster.to_wire(),
            worker: worker.to_wire(),
            at: Some(mark_to_wire(at)),
            after: after.map(mark_to_wire),
        };
        let known = put(&mut client, header, parts).await?;
        self.note(member, at, view, known);
        Ok(())
    }

    async fn position(&self, client: &mut Client, member: &Member) -> Result<Known, SqlError> {
        let answer = in_time(0, client.position(CommitPositionRequest {})).await;
        let answer = answer.map_err(|status| from_status(&status))?;
        let position = RecordsPosition::from_wire(answer.get_ref())
            .map_err(|error| from_status(&error.into()))?;
        if position.worker != member.worker {
            let message = format!("worker {} answers instead of another one", position.worker);
            return Err(SqlError::new(ErrorCode::Unavailable, message));
        }
        Ok(position.known)
    }

    fn records_client(&self, member: &Member) -> Result<Client, SqlError> {
        let channel = self.inner.channels.worker(member.worker, &member.url);
        let channel = channel.map_err(from_datafusion)?;
        Ok(CommitRecordsClient::new(channel).max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    fn note(&self, member: &Member, at: Chain, view: &CommitView, known: Known) {
        let (view, checked) = (view.clone(), Some(Instant::now()));
        let delivery = Delivery { to: member.incarnation, at, view, known, checked };
        self.deliveries().sent.insert(member.worker, delivery);
    }

    /// What this run of a worker was sent last.
    fn delivery(&self, member: &Member) -> Option<Delivery> {
        let deliveries = self.deliveries();
        deliveries.sent.get(&member.worker).filter(|sent| sent.to == member.incarnation).cloned()
    }
}

impl Delivery {
    /// Whether the worker has said lately that this is what it has.
    fn is_fresh(&self) -> bool {
        self.checked.is_some_and(|checked| checked.elapsed() < CHECK_EVERY)
    }
}

fn internal(problem: String) -> SqlError {
    SqlError::new(ErrorCode::Internal, problem)
}

fn is_worth_adding_to(known: &Known) -> bool {
    let added = known.bytes.saturating_sub(known.full_bytes);
    known.appendable && added < known.full_bytes.max(DELTA_BYTES_MIN)
}

/// Sends a put, and says how far the records are after it.
async fn put(
    client: &mut Client,
    header: CommitPutHeader,
    parts: Vec<Part>,
) -> Result<Known, SqlError> {
    let (last, bytes) = (parts.len().saturating_sub(1), parts.len() * PART_BYTES);
    let told_at = wall_clock_ms();
    let mut header = Some(header);
    // One after the other: all of them as text would take many times the memory of a part.
    let unwritten = Arc::new(Mutex::new(None));
    let note = Arc::clone(&unwritten);
    let messages = parts.into_iter().enumerate().map_while(move |(number, mut part)| {
        part.told_at(told_at);
        match part.encode() {
            Ok(body) => {
                Some(CommitPutPart { header: header.take(), body, is_last: number == last })
            }
            Err(problem) => {
                *note.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
                None
            }
        }
    });
    let answer = in_time(bytes as u64, client.put(stream::iter(messages))).await;
    if let Some(problem) = unwritten.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(internal(problem));
    }
    let answer = answer.map_err(|status| from_status(&status))?;
    let (verdict, position) =
        put_answer_from_wire(answer.get_ref()).map_err(|error| from_status(&error.into()))?;
    let refused = |message: &str| Err(SqlError::new(ErrorCode::Unavailable, message));
    match verdict {
        Verdict::Done => Ok(position.known),
        Verdict::Refused => refused("it knows commits of a newer log"),
        // The next round sends the whole state.
        Verdict::Mismatch => refused("it knows other commits than it did"),
    }
}
