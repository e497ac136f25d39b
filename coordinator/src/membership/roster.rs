//! Who may join and who lives: pure decisions about workers, on a clock that is handed in.
//!
//! ```text
//!             heartbeat                 silent            silent longer
//!  register ─▶ Joining ──────▶ Live ─────────▶ Suspect ─────────▶ Dead
//!                                ◀───────────────┘ heartbeat        └─▶ must register again
//! ```
//! A worker that does not answer the coordinator is suspect too, whatever its heartbeats say, until
//! it answers again: a way that works in one direction only is none (FAULTS F12).
//!
//! Invariant: at most one incarnation of a worker is a member. A state is computed from the time
//! of the last heartbeat whenever it is asked for, so none can wedge (RULES 16).
//!
//! Time is monotonic, as a [`Duration`] since the coordinator started: wall clocks jump.

use std::collections::BTreeMap;
use std::time::Duration;

use basalt_engine::channels::check_peer_address;
use basalt_storage::ids::{ClusterId, Epoch, WorkerId};
use thiserror::Error;
use url::Url;
use uuid::Uuid;

use crate::placement::Candidate;

/// One run of a worker process: a restart is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(pub Uuid);

impl Incarnation {
    /// A new one, for a process that starts.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

/// What two processes must have in common: plans and their codecs change with every version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    /// The version of the program.
    pub binary: String,
    /// The version of the internal protocol.
    pub protocol: u32,
}

/// When a silent worker is suspected, and when it is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Liveness {
    /// How often workers send a heartbeat.
    pub heartbeat_every: Duration,
    /// Silence after which a worker is suspect: it may be replaced by a restart of itself.
    pub suspect_after: Duration,
    /// Silence after which a worker is dead: readers no longer learn its URL.
    pub dead_after: Duration,
}

impl Default for Liveness {
    /// A busy worker is not a dead worker (RULES 24): four heartbeats lost in a row make a
    /// suspect, ten seconds of silence a loss.
    fn default() -> Self {
        Self {
            heartbeat_every: Duration::from_millis(500),
            suspect_after: Duration::from_secs(2),
            dead_after: Duration::from_secs(10),
        }
    }
}

/// A worker that asks to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// The cluster that its data directory belongs to; `None` when it never was in one.
    pub cluster: Option<ClusterId>,
    /// The worker.
    pub worker: WorkerId,
    /// This run of it.
    pub incarnation: Incarnation,
    /// Where it listens: `http://host:port`.
    pub url: Url,
    /// What it runs.
    pub versions: Versions,
    /// The newest epoch it has heard of.
    pub epoch: Epoch,
    /// What it can take, and what it fails together with.
    pub candidate: Candidate,
}

/// Why a worker must not join.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Its data directory belongs elsewhere.
    #[error("the worker's data directory belongs to cluster {theirs}, and this is cluster {ours}")]
    OtherCluster {
        /// The cluster it names.
        theirs: ClusterId,
        /// The cluster here.
        ours: ClusterId,
    },
    /// It runs another version.
    #[error(
        "the worker runs version {} with protocol {}, and the coordinator {} with protocol {}",
        theirs.binary, theirs.protocol, ours.binary, ours.protocol
    )]
    OtherVersion {
        /// What it runs.
        theirs: Versions,
        /// What the coordinator runs.
        ours: Versions,
    },
    /// It has heard of an epoch that is not yet: this coordinator is behind, or of the past.
    #[error("the worker has seen epoch {theirs}, and this coordinator is at epoch {ours}")]
    FutureEpoch {
        /// The epoch it has seen.
        theirs: Epoch,
        /// The epoch here.
        ours: Epoch,
    },
    /// Another process with this worker id lives.
    #[error("worker {worker} is live at {url} as another process")]
    AlreadyLive {
        /// The worker.
        worker: WorkerId,
        /// Where the other process listens.
        url: Url,
        /// When it will be suspect if it stays silent.
        retry_after: Duration,
    },
    /// Another worker lives at this address.
    #[error("worker {holder} is live at {url}")]
    AddressTaken {
        /// The other worker.
        holder: WorkerId,
        /// The address.
        url: Url,
    },
    /// The address is none that a worker can have.
    #[error("{detail}")]
    BadAddress {
        /// The address, and what it should be.
        detail: String,
    },
    /// There are as many members as there can be.
    #[error("the cluster cannot have more than {limit} workers")]
    TooMany {
        /// The most there can be.
        limit: usize,
    },
}

impl Refusal {
    /// Whether the same registration may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::AlreadyLive { .. } | Self::AddressTaken { .. })
    }
}

/// How a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemberState {
    /// Registered, no heartbeat yet.
    Joining,
    /// Heard of lately.
    Live,
    /// Silent for a while.
    Suspect,
    /// Silent for long, or gone in good order: it must register again.
    Dead,
}

/// A worker as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The worker.
    pub worker: WorkerId,
    /// This run of it.
    pub incarnation: Incarnation,
    /// Where it listens.
    pub url: Url,
    /// How it is.
    pub state: MemberState,
    /// How long ago it was heard of, or could be reached.
    pub silent: Duration,
}

impl Member {
    /// Whether nothing but the time differs.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        let Self { worker, incarnation, url, state, silent: _ } = self;
        *worker == other.worker
            && *incarnation == other.incarnation
            && *url == other.url
            && *state == other.state
    }
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// Noted.
    Alive {
        /// Whether it was joining or suspect before.
        changed: bool,
    },
    /// This incarnation is no member: register again.
    Register,
    /// It has heard of a later epoch than the coordinator has: the coordinator is of the past.
    FutureEpoch,
}

/// The most members that are remembered.
const MEMBERS_MAX: usize = 1_024;

#[derive(Debug, Clone)]
struct Entry {
    incarnation: Incarnation,
    url: Url,
    heard: Duration,
    confirmed: bool,
    /// Since when it does not answer what it is asked.
    accused: Option<Duration>,
    gone: bool,
}

/// Everybody who registered since the coordinator started.
#[derive(Debug, Clone)]
pub struct Roster {
    cluster: ClusterId,
    liveness: Liveness,
    versions: Versions,
    entries: BTreeMap<WorkerId, Entry>,
}

impl Roster {
    /// Nobody yet.
    pub fn new(cluster: ClusterId, liveness: Liveness, versions: Versions) -> Self {
        Self { cluster, liveness, versions, entries: BTreeMap::new() }
    }

    /// When silence counts.
    pub fn liveness(&self) -> Liveness {
        self.liveness
    }

    /// Lets a worker in, at time `now` and epoch `epoch`, or says why not.
    ///
    /// The same incarnation may come again (its answer was lost, or its address changed). Another
    /// one replaces it when the old one is silent, gone, or listened where the new one does:
    /// two processes cannot listen at one address.
    pub fn register(&mut self, join: Join, epoch: Epoch, now: Duration) -> Result<(), Refusal> {
        self.check_origin(&join, epoch)?;
        if let Some(old) = self.entries.get(&join.worker)
            && old.incarnation != join.incarnation
            && old.url != join.url
            && matches!(self.state(old, now), MemberState::Joining | MemberState::Live)
        {
            return Err(Refusal::AlreadyLive {
                worker: join.worker,
                url: old.url.clone(),
                retry_after: self.liveness.suspect_after.saturating_sub(silence(old, now)),
            });
        }
        self.clear_address(&join, now)?;
        if !self.entries.contains_key(&join.worker) && self.entries.len() >= MEMBERS_MAX {
            return Err(Refusal::TooMany { limit: MEMBERS_MAX });
        }
        let Join { worker, incarnation, url, .. } = join;
        let (confirmed, accused, gone) = (false, None, false);
        let entry = Entry { incarnation, url, heard: now, confirmed, accused, gone };
        self.entries.insert(worker, entry);
        Ok(())
    }

    fn check_origin(&self, join: &Join, epoch: Epoch) -> Result<(), Refusal> {
        if let Some(theirs) = join.cluster.filter(|theirs| *theirs != self.cluster) {
            return Err(Refusal::OtherCluster { theirs, ours: self.cluster });
        }
        if join.versions != self.versions {
            let (theirs, ours) = (join.versions.clone(), self.versions.clone());
            return Err(Refusal::OtherVersion { theirs, ours });
        }
        if join.epoch > epoch {
            return Err(Refusal::FutureEpoch { theirs: join.epoch, ours: epoch });
        }
        check_peer_address(&join.url).map_err(|error| Refusal::BadAddress { detail: error.message })
    }

    /// Makes sure that no other member has the address: a silent one that had it is gone.
    fn clear_address(&mut self, join: &Join, now: Duration) -> Result<(), Refusal> {
        let holder = |(worker, entry): &(&WorkerId, &Entry)| {
            **worker != join.worker && entry.url == join.url && !entry.gone
        };
        let Some((holder, entry)) = self.entries.iter().find(holder) else {
            return Ok(());
        };
        let holder = *holder;
        if matches!(self.state(entry, now), MemberState::Joining | MemberState::Live) {
            return Err(Refusal::AddressTaken { holder, url: join.url.clone() });
        }
        if let Some(entry) = self.entries.get_mut(&holder) {
            entry.gone = true;
        }
        Ok(())
    }

    /// Notes a heartbeat. `theirs` is the newest epoch the worker has heard of, `ours` the
    /// coordinator's.
    pub fn heartbeat(
        &mut self,
        worker: WorkerId,
        incarnation: Incarnation,
        theirs: Epoch,
        ours: Epoch,
        now: Duration,
    ) -> Beat {
        if theirs > ours {
            return Beat::FutureEpoch;
        }
        let liveness = self.liveness;
        let Some(entry) = self.entries.get_mut(&worker) else {
            return Beat::Register;
        };
        let state = state_of(entry, liveness, now);
        if entry.incarnation != incarnation || state == MemberState::Dead {
            return Beat::Register;
        }
        // A heartbeat that was handled late must not make the worker younger than a later one.
        entry.heard = entry.heard.max(now);
        entry.confirmed = true;
        Beat::Alive { changed: state != MemberState::Live }
    }

    /// Notes that a worker stopped in good order. Another incarnation is left alone.
    pub fn leave(&mut self, worker: WorkerId, incarnation: Incarnation) {
        if let Some(entry) = self.entries.get_mut(&worker)
            && entry.incarnation == incarnation
        {
            entry.gone = true;
        }
    }

    /// Everybody, by worker id.
    pub fn members(&self, now: Duration) -> Vec<Member> {
        let member = |(worker, entry): (&WorkerId, &Entry)| Member {
            worker: *worker,
            incarnation: entry.incarnation,
            url: entry.url.clone(),
            state: self.state(entry, now),
            silent: silence(entry, now).max(unanswered(entry, now)),
        };
        self.entries.iter().map(member).collect()
    }

    /// Notes that a worker did not answer. Another incarnation is left alone.
    pub fn accuse(&mut self, worker: WorkerId, incarnation: Incarnation, now: Duration) {
        if let Some(entry) = self.entries.get_mut(&worker)
            && entry.incarnation == incarnation
        {
            entry.accused.get_or_insert(now);
        }
    }

    /// Notes that a worker answered, which is a sign of life as good as a heartbeat. One that is
    /// dead stays dead until it registers again.
    pub fn answered(&mut self, worker: WorkerId, incarnation: Incarnation, now: Duration) {
        let liveness = self.liveness;
        if let Some(entry) = self.entries.get_mut(&worker)
            && entry.incarnation == incarnation
            && state_of(entry, liveness, now) != MemberState::Dead
        {
            entry.accused = None;
            entry.heard = entry.heard.max(now);
        }
    }

    /// Where those listen who may be given work: those that live, or the suspects when nobody does.
    /// All are suspect at once when it is the coordinator that was away.
    pub fn urls(&self, now: Duration) -> BTreeMap<WorkerId, Url> {
        let living =
            self.urls_of(now, |state| matches!(state, MemberState::Joining | MemberState::Live));
        match living.is_empty() {
            false => living,
            true => self.urls_of(now, |state| state == MemberState::Suspect),
        }
    }

    fn urls_of(
        &self,
        now: Duration,
        wanted: impl Fn(MemberState) -> bool,
    ) -> BTreeMap<WorkerId, Url> {
        let is_reachable = |entry: &Entry| wanted(self.state(entry, now));
        let reachable = self.entries.iter().filter(|(_, entry)| is_reachable(entry));
        reachable.map(|(worker, entry)| (*worker, entry.url.clone())).collect()
    }

    fn state(&self, entry: &Entry, now: Duration) -> MemberState {
        state_of(entry, self.liveness, now)
    }
}

fn state_of(entry: &Entry, liveness: Liveness, now: Duration) -> MemberState {
    let silence = silence(entry, now);
    if entry.gone || silence >= liveness.dead_after {
        MemberState::Dead
    } else if silence >= liveness.suspect_after || entry.accused.is_some() {
        MemberState::Suspect
    } else if entry.confirmed {
        MemberState::Live
    } else {
        MemberState::Joining
    }
}

/// How long it has not answered what it was asked.
fn unanswered(entry: &Entry, now: Duration) -> Duration {
    entry.accused.map_or(Duration::ZERO, |since| now.saturating_sub(since))
}

fn silence(entry: &Entry, now: Duration) -> Duration {
    now.saturating_sub(entry.heard)
}
