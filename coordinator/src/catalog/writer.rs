//! The one thread that changes the catalog: applies commands in order, makes them durable in
//! groups, then shows them to readers. What it decides is the [`Ledger`]'s; here are its thread,
//! its clock, its disk and its network.
//!
//! ```text
//!  commands ──▶ Ledger ──Ask──▶ members (other threads) ──▶ answers ──▶ Ledger
//!                  └────Write──▶ own disk, meanwhile
//! ```
//! Invariant: readers see a commit, and callers learn its outcome, only after the record is
//! fsynced on enough log members, and readers see no state that is ahead of that: the ledger does
//! not change while one waits to be published. All commands that wait when a write begins share that write
//! (group commit); each is applied in order and has its own result. After a failed write the
//! thread takes no more commits: its state is ahead of the disk, and what the disk kept is unknown
//! until a restart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use basalt_storage::fail_point::{self, FailPoint};
use basalt_storage::ids::{LogEpoch, WorkerId};
use tokio::sync::{mpsc, oneshot, watch};
use url::Url;

use super::command::{Command, RequestKey};
use super::directory::Directory;
use super::error::CatalogError;
use super::ledger::{Answer, AskFor, Ledger, MemberStatus, Readiness, Step};
use super::links::{MemberLinks, Question};
use super::log::Log;
use super::state::RequestOutcome;
use super::{Committed, Published};

/// Commands that may wait for the writer; those who come later wait for a place.
pub(super) const QUEUE_MAX: usize = 256;
/// Commands in one write. More would only make the first one wait longer.
const GROUP_MAX: usize = 64;
/// Bytes in one write, so that a group of large commits does not multiply memory.
const GROUP_BYTES_MAX: usize = 64 << 20;
/// How often the ledger looks at the clock when it has members.
const TICK: Duration = Duration::from_millis(50);
/// The same when it has none: something else wakes it first.
const IDLE: Duration = Duration::from_secs(3600);
/// How long closing waits at most, for members that make the last commands durable: who drops the
/// catalog may be on a thread that others wait for.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Work for the writer.
pub(super) enum Message {
    /// A command and its serialised form.
    Commit { command: Command, payload: Vec<u8>, reply: Reply<Committed> },
    /// What came of a request.
    Request { key: RequestKey, reply: Reply<Option<RequestOutcome>> },
    /// What came of all requests that are remembered.
    Requests { reply: Reply<Vec<(RequestKey, RequestOutcome)>> },
    /// Ask the log's members whether they are still ours.
    Doubt,
    /// Take no more commits.
    Stop { reason: String },
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, CatalogError>>;

/// Whether readers may see the newest snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readable {
    /// It is durable, and nothing that was acknowledged is missing.
    Yes,
    /// What was acknowledged last before a crash may be missing, until log members are asked.
    NotYet(String),
    /// Another coordinator has taken over: there may be anything that is not known here.
    No(String),
}

/// How the command log is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogStatus {
    /// Whether readers may see the newest snapshot.
    pub readable: Readable,
    /// Whether this coordinator writes it.
    pub is_leading: bool,
    /// The epoch of the log.
    pub log_epoch: LogEpoch,
    /// The last record here.
    pub seq: u64,
    /// Until when nobody else has written the log, since the catalog was opened.
    pub confirmed: Option<Duration>,
    /// The workers that have copies, or are given one.
    pub members: Vec<MemberStatus>,
}

/// What comes to the writer, from anywhere.
pub(super) struct Inputs {
    pub(super) queue: mpsc::Receiver<Message>,
    /// Where workers listen that are not dead.
    pub(super) addresses: watch::Receiver<BTreeMap<WorkerId, Url>>,
    pub(super) links: watch::Receiver<Arc<dyn MemberLinks>>,
}

pub(super) struct Writer {
    pub(super) log: Log,
    pub(super) ledger: Ledger<Reply<Committed>>,
    pub(super) published: Arc<watch::Sender<Published>>,
    pub(super) status: Arc<watch::Sender<LogStatus>>,
    pub(super) started: Instant,
    /// Came in the middle of a group, and waits for its end.
    pub(super) held: Option<Message>,
    /// Released last, after the log is closed.
    pub(super) directory: Directory,
}

type Answers = mpsc::UnboundedSender<(WorkerId, u64, Answer)>;

impl Writer {
    /// Runs until every sender is gone, and for at most [`CLOSE_WAIT`] longer.
    pub(super) async fn run(mut self, mut inputs: Inputs) {
        let (answers, mut answered) = mpsc::unbounded_channel();
        let mut closing = None;
        loop {
            self.do_steps(&inputs, &answers);
            self.tell_status();
            // Nobody has the catalog any more: what waits in the queue is still taken, if it can be.
            if closing.is_none() && inputs.queue.is_closed() {
                closing = Some(self.now() + CLOSE_WAIT);
            }
            let is_done =
                self.ledger.is_settled() && self.held.is_none() && inputs.queue.is_empty();
            if closing.is_some_and(|at| is_done || self.now() >= at) {
                break;
            }
            let tick = if self.ledger.wants_clock() || closing.is_some() { TICK } else { IDLE };
            let is_open = !self.is_busy();
            let has_more = closing.is_none() || !inputs.queue.is_empty();
            let held = if is_open { self.held.take() } else { None };
            tokio::select! {
                biased;
                () = std::future::ready(()), if held.is_some() => {}
                Some((worker, id, answer)) = answered.recv() => {
                    let now = self.now();
                    self.ledger.answered(worker, id, answer, now);
                }
                Ok(()) = inputs.addresses.changed() => self.note_addresses(&mut inputs),
                message = inputs.queue.recv(), if is_open && has_more => {
                    if let Some(first) = message {
                        self.serve(first, &mut inputs.queue);
                    }
                }
                () = tokio::time::sleep(tick) => {}
            }
            if let Some(held) = held {
                self.serve(held, &mut inputs.queue);
            }
            // What became durable is shown before the log set changes, or there would be no turn for it
            // while there is always something to commit.
            self.do_steps(&inputs, &answers);
            let now = self.now();
            self.ledger.poll(now);
        }
        self.close();
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn is_busy(&self) -> bool {
        matches!(self.ledger.readiness(self.now()), Readiness::Busy)
    }

    fn note_addresses(&mut self, inputs: &mut Inputs) {
        let workers = inputs.addresses.borrow_and_update().keys().copied().collect();
        let now = self.now();
        self.ledger.set_reachable(workers, now);
    }

    fn close(&mut self) {
        if !self.ledger.is_settled() || !self.ledger.is_leading() {
            return;
        }
        if let Err(error) = self.log.checkpoint(self.ledger.state()) {
            // The log has everything: the next start replays what the checkpoint would have saved.
            let path = self.directory.path().display();
            tracing::warn!(%error, %path, "the catalog was closed without a checkpoint");
        }
    }

    /// Takes `first` and what waits behind it, up to the limits of a group.
    fn serve(&mut self, first: Message, queue: &mut mpsc::Receiver<Message>) {
        let (mut commands, mut bytes, mut is_doubted) = (0, 0, false);
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Request { .. } | Message::Requests { .. } if commands > 0 => {
                    // Earlier commands of the group are not durable yet: it waits for them.
                    self.held = Some(message);
                    break;
                }
                Message::Request { key, reply } => {
                    let _caller_gone = reply.send(self.request(&key));
                }
                Message::Requests { reply } => {
                    let _caller_gone = reply.send(Ok(self.durable_requests()));
                }
                // Not in the middle of a group.
                Message::Doubt => is_doubted = true,
                Message::Stop { reason } => self.ledger.write_failed(&reason),
                Message::Commit { command, payload, reply } => {
                    match self.ledger.readiness(self.now()) {
                        Readiness::Refused(error) => {
                            let _caller_gone = reply.send(Err(error));
                        }
                        Readiness::Ready | Readiness::Busy => {
                            (commands, bytes) = (commands + 1, bytes + payload.len());
                            self.ledger.commit(command, &payload, reply);
                        }
                    }
                }
            }
            let full = commands >= GROUP_MAX || bytes >= GROUP_BYTES_MAX;
            next = if full { None } else { queue.try_recv().ok() };
        }
        let now = self.now();
        self.ledger.begin_group(now);
        if is_doubted {
            self.ledger.doubt(now);
        }
    }

    fn request(&self, key: &RequestKey) -> Result<Option<RequestOutcome>, CatalogError> {
        match self.ledger.readiness(self.now()) {
            Readiness::Refused(error) => Err(error),
            Readiness::Ready | Readiness::Busy => Ok(self.ledger.state().request(key).cloned()),
        }
    }

    /// The state is ahead of what is durable while a group is under way, and after one that failed.
    fn durable_requests(&self) -> Vec<(RequestKey, RequestOutcome)> {
        let durable = self.published.borrow().snapshot.version;
        let all = self.ledger.state().requests.iter();
        let all = all.filter(|(_, outcome)| outcome.version <= durable);
        all.map(|(key, outcome)| (key.clone(), outcome.clone())).collect()
    }

    fn do_steps(&mut self, inputs: &Inputs, answers: &Answers) {
        while let Some(step) = self.ledger.next_step() {
            match step {
                Step::Ask(ask) => self.ask(ask, inputs, answers),
                Step::Write { records, chain, committed } => {
                    fail_point::hit(FailPoint::CatalogBeforeAppend);
                    match self.log.append(chain, &records, committed) {
                        Ok(()) => {
                            let now = self.now();
                            self.ledger.written(now);
                        }
                        Err(error) => {
                            tracing::error!(%error,
                                "a catalog write failed: no more commits until a restart");
                            self.ledger.write_failed(&error.to_string());
                            self.published.send_modify(Published::note_failed_write);
                        }
                    }
                }
                Step::Publish => {
                    fail_point::hit(FailPoint::CatalogBeforePublish);
                    let state = self.ledger.state();
                    self.published.send_modify(|published| published.show(state));
                    fail_point::hit(FailPoint::CatalogBeforeReply);
                    self.status.send_if_modified(|status| {
                        std::mem::replace(&mut status.readable, Readable::Yes) != Readable::Yes
                    });
                    if let Err(error) = self.log.checkpoint_when_due(state) {
                        tracing::error!(%error,
                            "a catalog write failed: no more commits until a restart");
                        self.ledger.write_failed(&error.to_string());
                    }
                }
                // A caller that went away does not undo its commit.
                Step::Reply(reply, result) => {
                    let _caller_gone = reply.send(result);
                }
            }
        }
    }

    fn ask(&self, ask: AskFor, inputs: &Inputs, answers: &Answers) {
        let (worker, id) = (ask.worker, ask.id);
        let answers = answers.clone();
        let answer: Box<dyn FnOnce(Answer) + Send> = Box::new(move |answer| {
            // The writer has ended: nobody waits for answers.
            let _ended = answers.send((worker, id, answer));
        });
        let url = inputs.addresses.borrow().get(&worker).cloned();
        let cluster = self.ledger.state().cluster().map(|cluster| cluster.cluster);
        let (Some(url), Some(cluster)) = (url, cluster) else {
            return answer(Answer::Failed("its address is not known".to_owned()));
        };
        let question = Question { cluster, ask, log: self.log.reader() };
        let links = Arc::clone(&inputs.links.borrow());
        links.ask(&url, question, answer);
    }

    fn tell_status(&mut self) {
        self.status.send_if_modified(|status| {
            let readable = match (self.ledger.superseded(), &status.readable) {
                (Some(reason), _) => Readable::No(reason.to_owned()),
                (None, Readable::NotYet(_)) => Readable::NotYet(self.ledger.missing()),
                (None, known) => known.clone(),
            };
            let now = LogStatus {
                readable,
                is_leading: self.ledger.is_leading(),
                log_epoch: self.ledger.state().log_epoch(),
                seq: self.ledger.chain().seq,
                confirmed: self.ledger.confirmed(),
                members: self.ledger.members(),
            };
            std::mem::replace(status, now.clone()) != now
        });
    }
}
