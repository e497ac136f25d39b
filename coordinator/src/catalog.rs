//! The catalog: which schemas, tables, views and segments there are, and who owns which slice.
//!
//! ```text
//!   commit(command) ──queue──▶ writer thread ──▶ State::apply ──▶ log (redb, fsync) ──▶ readers
//!                                              pure, all or nothing │  CRC + hash chain   snapshot()
//!                                                                   └▶ log members (workers)
//! ```
//! A deterministic state machine: every change is a serialisable [`Command`], applied by one
//! writer and logged before anybody sees it, so that a Raft log can later carry the same
//! commands. Nothing else mutates it.
//!
//! Invariant: what [`Catalog::snapshot`] shows is durable, on `min(copies, members)` of the log's
//! members. What [`Catalog::commit`] acknowledged is in every later snapshot, also after a crash:
//! at once, or once [`Catalog::readable`] says so.
//!
//! Not here: where workers listen and whether they live ([`membership`](crate::membership) tells
//! the catalog), and whether a segment's chunks exist (who commits has made them durable).
//!
//! Read the modules in this order:
//!
//! - [`command`]: everything that can happen, as data
//! - [`state`]: the state machine, with what each change means in `apply` and `rules`
//! - [`record`]: the bytes of a log record, and the chain
//! - `log`, `checkpoint`, `directory`: what is on the disk
//! - [`members`]: who keeps copies of the log, and how many are enough
//! - [`ledger`]: the log's writer without thread, disk and network
//! - `writer`, [`links`]: the thread that commits, and its way to the members
//! - [`lookup`]: finding relations by name
//! - `verify`: the offline check
//! - [`restore`]: a catalog made again from the copies of log members
//! - [`commit_record`], [`rebuild`]: what workers are told of commits, and a catalog made again from it
//! - [`error`]: what can go wrong

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use basalt_engine::snapshot::{DEFAULT_SCHEMA, Pin, Snapshot};
use basalt_storage::ids::{LogWriter, TableId, TxnId, WorkerId};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use url::Url;

mod apply;
mod checkpoint;
pub mod command;
pub mod commit_record;
mod directory;
pub mod error;
pub mod ledger;
pub mod links;
mod log;
pub mod lookup;
pub mod members;
pub mod rebuild;
pub mod record;
pub mod restore;
mod rules;
pub mod state;
mod verify;
mod writer;

pub use command::{
    Change, Command, CopyMove, NewCluster, NewTable, Request, RequestKey, SegmentDeletes,
    SegmentSeen, SliceHash,
};
pub use error::{CatalogError, ObjectKind};
pub use lookup::{find_relation, find_schema, find_table};
pub use state::{ClusterState, RequestOutcome, State};
pub use verify::{Report, verify};

use basalt_engine::secret::ClusterSecret;
use directory::Directory;
use ledger::{Ledger, Opening, Timing};
use links::{MemberLinks, no_links};
use log::{Log, LogReader, Missing, Opened};
use record::Mark;
use writer::{Inputs, Message, QUEUE_MAX, Writer};
pub use writer::{LogStatus, Readable};

/// Earlier commits that are remembered before those that nobody sees are forgotten behind one that
/// somebody does.
const EARLIER_KEPT: usize = 1_024;

/// Table ids set aside at once: one commit of its own per so many created tables, and at most so
/// many ids lost with a restart.
const TABLE_IDS_RESERVED: u16 = 64;

/// How long a statement waits after a start, until enough log members have said what was
/// acknowledged last: as long as a commit waits for them.
const READABLE_WAIT: Duration = Duration::from_secs(10);

/// The catalog of one cluster. Clones are handles to the same one.
///
/// When the last handle is dropped, queued commits are finished as far as members answer within a
/// second, and the directory is released.
#[derive(Clone)]
pub struct Catalog {
    inner: Arc<Inner>,
}

struct Inner {
    /// `None` only while dropping.
    queue: Option<mpsc::Sender<Message>>,
    /// `None` only while dropping.
    writer: Option<JoinHandle<()>>,
    published: Arc<watch::Sender<Published>>,
    status: Arc<watch::Sender<LogStatus>>,
    addresses: watch::Sender<BTreeMap<WorkerId, Url>>,
    links: watch::Sender<Arc<dyn MemberLinks>>,
    log: LogReader,
    started: Instant,
    table_ids: Mutex<Range<u64>>,
    secret: ClusterSecret,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue = None;
        // So that the lock is free when this returns. Waits for the writes of one queue on the own disk,
        // and a second at most for members (`CLOSE_WAIT`).
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the catalog writer panicked");
        }
    }
}

/// What readers get: replaced as a whole by the writer and by membership.
pub(crate) struct Published {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) cluster: Arc<ClusterState>,
    urls: BTreeMap<WorkerId, Url>,
    /// Commits before the newest that somebody may see still, the oldest first.
    earlier: VecDeque<(u64, Weak<Pin>)>,
    /// A write failed: the log may have commits that nobody sees before a restart.
    may_lack_commits: bool,
}

impl Published {
    pub(crate) fn new(state: &State) -> Option<Self> {
        let urls = BTreeMap::new();
        let cluster = Arc::clone(state.cluster()?);
        let snapshot = Arc::new(state.snapshot(&urls)?);
        Some(Self { snapshot, cluster, urls, earlier: VecDeque::new(), may_lack_commits: false })
    }

    /// Shows a state that is durable.
    pub(crate) fn show(&mut self, state: &State) {
        // A state that has a cluster never loses it, so neither is ever `None` here.
        if let (Some(snapshot), Some(cluster)) = (state.snapshot(&self.urls), state.cluster()) {
            self.earlier.push_back((self.snapshot.version, Arc::downgrade(&self.snapshot.pin)));
            self.snapshot = Arc::new(snapshot);
            self.cluster = Arc::clone(cluster);
            while self.earlier.front().is_some_and(|(_, pin)| pin.strong_count() == 0) {
                self.earlier.pop_front();
            }
            if self.earlier.len() > EARLIER_KEPT {
                self.earlier.retain(|(_, pin)| pin.strong_count() > 0);
            }
        }
    }

    /// Notes that a write failed. What it was to commit may be in the log, and seen again after a
    /// restart.
    pub(crate) fn note_failed_write(&mut self) {
        self.may_lack_commits = true;
    }

    /// The oldest commit that somebody sees: the newest, unless a statement runs on an earlier one.
    /// After a write that failed it is 0: nobody knows what commits name, so everything must stay.
    pub(crate) fn oldest_pinned(&self) -> u64 {
        if self.may_lack_commits {
            return 0;
        }
        let seen = self.earlier.iter().find(|(_, pin)| pin.strong_count() > 0);
        seen.map_or(self.snapshot.version, |(version, _)| *version)
    }

    /// Shows where workers listen, at the same commit.
    pub(crate) fn move_workers(&mut self, urls: BTreeMap<WorkerId, Url>) -> bool {
        if self.urls == urls {
            return false;
        }
        self.urls = urls;
        let cluster = Arc::new(state::cluster_view(&self.cluster, &self.urls));
        self.snapshot = Arc::new(Snapshot { cluster, ..Snapshot::clone(&self.snapshot) });
        true
    }
}

/// A commit that is durable and visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its sequence number: a snapshot of this or a later version has it.
    pub version: u64,
    /// Its transaction; of a replay, the one that did the work.
    pub txn: TxnId,
    /// Rows affected, as the command said.
    pub rows_affected: Option<u64>,
    /// The table ids it set aside.
    pub reserved: Range<u64>,
    /// Whether the request key was known and nothing was done again. The caller must then
    /// discard what it wrote for this attempt.
    pub replayed: bool,
}

impl Committed {
    /// What a request that is sent again hears.
    pub(crate) fn replayed(first: RequestOutcome) -> Self {
        let RequestOutcome { payload: _, txn, version, rows_affected } = first;
        Self { version, txn, rows_affected, reserved: 0..0, replayed: true }
    }
}

impl Catalog {
    /// Founds a cluster in the data directory `path`: its first commit, which makes the cluster
    /// and the schema `public`, then its secret. Blocks on the disk.
    ///
    /// On `Ok` the cluster survives a crash. After a crash before, `path` holds either no cluster
    /// or one that [`Self::open`] completes. Fails with [`CatalogError::ClusterExists`], and with
    /// [`CatalogError::Locked`] when another process has the directory.
    pub fn create(path: &Path, new: NewCluster) -> Result<Self, CatalogError> {
        let directory = Directory::create(path)?;
        if directory.has_catalog()? {
            return Err(CatalogError::ClusterExists { path: path.to_owned() });
        }
        found(&directory, new)?;
        Self::open_in(directory, Timing::default())
    }

    /// Opens the cluster in the data directory `path`. Blocks on the disk.
    ///
    /// Checks the whole log: any damage, and a format of a newer version, is an error that names
    /// the record. Fails with [`CatalogError::NoCluster`] when there is none, and with
    /// [`CatalogError::Locked`] when another process has it.
    pub fn open(path: &Path) -> Result<Self, CatalogError> {
        Self::open_timed(path, Timing::default())
    }

    /// The same, with other patience for log members.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_timed(path: &Path, timing: Timing) -> Result<Self, CatalogError> {
        let directory = Directory::lock(path)?;
        if !directory.has_catalog()? {
            return Err(CatalogError::NoCluster { path: path.to_owned() });
        }
        Self::open_in(directory, timing)
    }

    /// Opens the cluster in `path`, or founds `new` when there is none. Fails as both do.
    pub fn open_or_create(path: &Path, new: NewCluster) -> Result<Self, CatalogError> {
        let directory = Directory::create(path)?;
        if !directory.has_catalog()? {
            found(&directory, new)?;
        }
        Self::open_in(directory, Timing::default())
    }

    fn open_in(directory: Directory, timing: Timing) -> Result<Self, CatalogError> {
        let opened = Log::open(&directory.catalog(), Missing::Refuse)?;
        let Some(cluster) = opened.state.cluster() else {
            return Err(CatalogError::corrupt_record(1, "is missing: the log is empty"));
        };
        let secret = if cluster.workers.is_empty() {
            // Nobody has the secret yet, so a crash between founding and its file is completed.
            ClusterSecret::read_or_create(&directory.secret())?
        } else {
            ClusterSecret::read(&directory.secret())?
        };
        Self::start(directory, opened, secret, timing)
    }

    fn start(
        directory: Directory,
        opened: Opened,
        secret: ClusterSecret,
        timing: Timing,
    ) -> Result<Self, CatalogError> {
        let Opened { log, state, committed } = opened;
        let no_cluster = || CatalogError::NoCluster { path: directory.path().to_owned() };
        let known = committed.as_ref().map(|(mark, _)| *mark);
        let is_whole = committed.is_none();
        // Who writes another one's log knows only what that one had: a copy, or one that was put back.
        let is_newest = is_whole && state.log_sets().is_led_by(log.coordinator());
        // Readers get what is known to be durable, and the rest when it is.
        let shown = committed.as_ref().map_or(&state, |(_, state)| state);
        let published = Published::new(shown).ok_or_else(no_cluster)?;
        let published = Arc::new(watch::Sender::new(published));
        drop(committed);
        let opening = Opening {
            own: log.coordinator(),
            writer: LogWriter::generate(),
            chain: log.chain(),
            committed: known.or(is_whole.then(|| Mark::at(log.chain()))),
            state,
        };
        let started = Instant::now();
        let ledger = Ledger::new(opening, timing, Duration::ZERO);
        let status = LogStatus {
            readable: if is_newest { Readable::Yes } else { Readable::NotYet(String::new()) },
            is_leading: ledger.is_leading(),
            log_epoch: ledger.state().log_epoch(),
            seq: ledger.chain().seq,
            confirmed: ledger.confirmed(),
            members: ledger.members(),
        };
        let status = Arc::new(watch::Sender::new(status));
        let (queue, messages) = mpsc::channel(QUEUE_MAX);
        let (addresses, links) =
            (watch::Sender::new(BTreeMap::new()), watch::Sender::new(no_links()));
        let inputs =
            Inputs { queue: messages, addresses: addresses.subscribe(), links: links.subscribe() };
        let path = directory.path().to_owned();
        let reader = log.reader();
        let writer = Writer {
            log,
            ledger,
            published: Arc::clone(&published),
            status: Arc::clone(&status),
            started,
            held: None,
            directory,
        };
        let io = |source| CatalogError::Io { path, source };
        // Only for its timers: answers of members come from other threads.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(source) => return Err(io(source)),
        };
        let writer = thread::Builder::new()
            .name("catalog-writer".to_owned())
            .spawn(move || runtime.block_on(writer.run(inputs)))
            .map_err(io)?;
        let inner = Inner {
            queue: Some(queue),
            writer: Some(writer),
            published,
            status,
            addresses,
            links,
            log: reader,
            started,
            table_ids: Mutex::new(0..0),
            secret,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Reaches log members by `links` from now on. Until then a log that has members takes no
    /// commits.
    pub fn replicate(&self, links: Arc<dyn MemberLinks>) {
        self.inner.links.send_replace(links);
    }

    /// How the command log is doing now.
    pub fn log_status(&self) -> LogStatus {
        self.inner.status.borrow().clone()
    }

    /// The own copy of the log, to read it while it is written.
    pub fn log(&self) -> LogReader {
        self.inner.log.clone()
    }

    /// Takes no more commits from now on, because the own copy of the log is not what it should be.
    pub async fn stop_commits(&self, reason: String) {
        if let Some(queue) = &self.inner.queue {
            // A writer that has ended takes none either.
            let _ended = queue.send(Message::Stop { reason }).await;
        }
    }

    /// Waits until the status of the command log satisfies `wanted`.
    pub async fn wait_for_log(&self, mut wanted: impl FnMut(&LogStatus) -> bool) {
        let mut changes = self.inner.status.subscribe();
        // The sender lives in `self`, so this cannot fail.
        let _sender_lives = changes.wait_for(|status| wanted(status)).await;
    }

    /// Waits until snapshots have everything that was ever acknowledged.
    ///
    /// At once, but after a crash or a restore, when enough log members have to be asked first.
    ///
    /// # Errors
    /// [`CatalogError::LogUnavailable`] when too few of them answer for some time;
    /// [`CatalogError::Stopped`] when another coordinator has taken over.
    pub async fn readable(&self) -> Result<(), CatalogError> {
        if self.inner.status.borrow().readable == Readable::Yes {
            return Ok(());
        }
        let decided = self.wait_for_log(|status| !matches!(status.readable, Readable::NotYet(_)));
        let _in_time = tokio::time::timeout(READABLE_WAIT, decided).await;
        match self.log_status().readable {
            Readable::Yes => Ok(()),
            Readable::NotYet(reason) => Err(CatalogError::LogUnavailable { reason }),
            Readable::No(reason) => Err(CatalogError::Stopped { reason }),
        }
    }

    /// Waits until it is certain that no other coordinator had taken over when this was called, so
    /// that what snapshots named then was the newest that any named. For what cannot be undone.
    ///
    /// # Errors
    /// As [`Self::readable`].
    pub async fn confirm(&self) -> Result<(), CatalogError> {
        self.readable().await?;
        let called = self.inner.started.elapsed();
        if let Some(queue) = &self.inner.queue {
            // Or they are asked with the next heartbeat. A writer that has ended asks nobody.
            let _ended_or_full = queue.try_send(Message::Doubt);
        }
        let is_confirmed = |status: &LogStatus| status.confirmed.is_some_and(|at| at >= called);
        let is_over = |status: &LogStatus| matches!(status.readable, Readable::No(_));
        let decided = self.wait_for_log(|status| is_confirmed(status) || is_over(status));
        let _in_time = tokio::time::timeout(READABLE_WAIT, decided).await;
        self.readable().await?;
        match is_confirmed(&self.log_status()) {
            true => Ok(()),
            false => Err(CatalogError::LogUnavailable {
                reason: "the members of the command log do not confirm this coordinator".to_owned(),
            }),
        }
    }

    /// The newest durable commit, with the workers known now. Copies one pointer.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.inner.published.borrow().snapshot)
    }

    /// The oldest commit that a statement still sees. What later commits do not name may be removed
    /// once no statement sees an earlier one.
    pub fn oldest_pinned(&self) -> u64 {
        self.inner.published.borrow().oldest_pinned()
    }

    /// The cluster at the newest durable commit: all members, also those that do not live.
    pub fn cluster(&self) -> Arc<ClusterState> {
        Arc::clone(&self.inner.published.borrow().cluster)
    }

    /// What internal RPCs must present.
    pub fn secret(&self) -> &ClusterSecret {
        &self.inner.secret
    }

    /// Waits until a snapshot satisfies `wanted`, and returns it.
    pub async fn wait_for(&self, mut wanted: impl FnMut(&Snapshot) -> bool) -> Arc<Snapshot> {
        let mut changes = self.inner.published.subscribe();
        match changes.wait_for(|published| wanted(&published.snapshot)).await {
            Ok(published) => Arc::clone(&published.snapshot),
            // The sender lives in `self`, so this cannot be.
            Err(_) => self.snapshot(),
        }
    }

    /// Says where workers listen; snapshots from now on have it. Nothing is logged.
    pub fn set_worker_urls(&self, urls: BTreeMap<WorkerId, Url>) {
        self.inner.addresses.send_if_modified(|known| {
            if *known == urls {
                return false;
            }
            known.clone_from(&urls);
            true
        });
        self.inner.published.send_if_modified(|published| published.move_workers(urls));
    }

    /// Applies `command` and makes it durable and visible.
    ///
    /// - `Ok`: the record is fsynced on enough log members, and snapshots from now on have it. It
    ///   survives any crash, and the loss of this machine's disk when the log has members. With
    ///   [`Committed::replayed`] an earlier commit of the same request key is what survives.
    /// - [`CatalogError::OutcomeUnknown`]: the write failed, or too few members answered in time.
    ///   Later the commit is wholly there or wholly absent; a request key finds out which.
    /// - any other error: nothing was logged, nothing changed. Errors that
    ///   [are retryable](CatalogError::is_retryable) may succeed when the statement is planned
    ///   again on a new snapshot.
    ///
    /// Waits for a place in the queue. Dropping the future before it had one does nothing;
    /// dropping it later does not stop the commit: its outcome is then unknown to the caller.
    pub async fn commit(&self, command: Command) -> Result<Committed, CatalogError> {
        let payload = serialise(&command)?;
        let txn = command.txn;
        let lost = || CatalogError::OutcomeUnknown {
            txn,
            cause: "the catalog writer ended without an answer".to_owned(),
        };
        self.ask(|reply| Message::Commit { command, payload, reply }, lost).await
    }

    /// What came of the write with this request key, when it is committed and remembered.
    pub async fn request(&self, key: RequestKey) -> Result<Option<RequestOutcome>, CatalogError> {
        self.ask(|reply| Message::Request { key, reply }, writer_ended).await
    }

    /// Every request that is remembered, the oldest first. After a write that failed, those that
    /// were durable before it: what the write left shows after a restart.
    pub async fn requests(&self) -> Result<Vec<(RequestKey, RequestOutcome)>, CatalogError> {
        self.ask(|reply| Message::Requests { reply }, writer_ended).await
    }

    /// An id for a table that will be created: never handed out before or again, also when it
    /// ends up unused. Commits now and then, and fails as [`Self::commit`] does.
    pub async fn allocate_table_id(&self) -> Result<TableId, CatalogError> {
        let mut ids = self.inner.table_ids.lock().await;
        if ids.is_empty() {
            let reserve = vec![Change::ReserveTableIds { count: TABLE_IDS_RESERVED }];
            let command = Command::new(TxnId::generate(), wall_clock_ms(), reserve);
            *ids = self.commit(command).await?.reserved;
        }
        let id = ids.next().ok_or_else(|| CatalogError::invalid("no table id was set aside"))?;
        Ok(TableId(id))
    }

    async fn ask<T>(
        &self,
        message: impl FnOnce(oneshot::Sender<Result<T, CatalogError>>) -> Message,
        lost: impl FnOnce() -> CatalogError,
    ) -> Result<T, CatalogError> {
        let queue = self.inner.queue.as_ref().ok_or_else(writer_ended)?;
        let (reply, answer) = oneshot::channel();
        queue.send(message(reply)).await.map_err(|_| writer_ended())?;
        answer.await.unwrap_or_else(|_| Err(lost()))
    }
}

fn writer_ended() -> CatalogError {
    CatalogError::Stopped { reason: "the catalog writer has ended".to_owned() }
}

/// Makes a log with the cluster's first commit, and only then gives it its name: a catalog file
/// that is there but empty is damage, never an invitation to found another cluster.
fn found(directory: &Directory, new: NewCluster) -> Result<(), CatalogError> {
    if directory.has_secret()? {
        return Err(CatalogError::Corrupt {
            place: format!("data directory {}", directory.path().display()),
            problem: "has a cluster.secret and no catalog: to found a new cluster there, remove \
                      the secret"
                .to_owned(),
        });
    }
    let path = directory.new_catalog()?;
    let Opened { mut log, mut state, committed: _ } = Log::open(&path, Missing::Create)?;
    let public = Change::CreateSchema { name: DEFAULT_SCHEMA.to_owned() };
    let changes = vec![Change::CreateCluster(new), public];
    let command = Command::new(TxnId::generate(), wall_clock_ms(), changes);
    let payload = serialise(&command)?;
    state.apply(command)?;
    let mut chain = log.chain();
    let record = chain.append(state.epoch(), state.log_epoch(), &payload)?;
    // There is nobody else yet: what is on this disk is durable.
    log.append(chain, &[record.into()], Mark::at(chain))?;
    drop(log);
    directory.adopt_catalog(&path)
}

/// Milliseconds since 1970 by the machine's clock, for people who read the log; 0 before 1970.
pub fn wall_clock_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn serialise(command: &Command) -> Result<Vec<u8>, CatalogError> {
    let payload = serde_json::to_vec(command)
        .map_err(|error| CatalogError::invalid(format!("it cannot be written: {error}")))?;
    if payload.len() > record::PAYLOAD_BYTES_MAX {
        return Err(CatalogError::TooLarge {
            bytes: payload.len(),
            limit: record::PAYLOAD_BYTES_MAX,
        });
    }
    Ok(payload)
}
