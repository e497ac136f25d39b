//! A catalog whose disk is gone, made again from the copies of log members.
//!
//! ```text
//! positions of the members ─▶ the newest copy ─▶ every record: checksum, chain, replay ─▶ catalog.redb
//!                                   └─▶ are these members enough to be certain?
//! ```
//! Nothing is written on the members: the first start of the restored coordinator is promised the
//! next epoch by them, takes over what it does not have, and only then shows anything but the
//! founding of the cluster. So a restore that ends half-way, or comes while the old coordinator
//! still runs, loses nothing.

use std::collections::BTreeMap;
use std::path::Path;

use basalt_engine::log_protocol::MemberPosition;
use basalt_engine::secret::ClusterSecret;
use basalt_storage::command_log::{Chain, Position, RawRecord};
use basalt_storage::ids::{ClusterId, LogEpoch, TxnId, WorkerId};
use bytes::Bytes;

use super::command::{Change, Command};
use super::directory::Directory;
use super::error::CatalogError;
use super::log::{Log, Missing, Opened, apply_record};
use super::members::{LogSet, LogSets};
use super::record::Mark;
use super::state::State;
use super::{serialise, wall_clock_ms};

/// A copy of the log, as a restore reads it. Calls block.
pub trait LogSource {
    /// How people call it.
    fn name(&self) -> String;
    /// Whose it is, and what it has.
    ///
    /// # Errors
    /// Why it cannot say.
    fn position(&self) -> Result<MemberPosition, String>;
    /// Records after `after`: at least one when there is one.
    ///
    /// # Errors
    /// Why it has none.
    fn read(&self, cluster: ClusterId, after: u64) -> Result<Vec<Bytes>, String>;
}

/// What a restore may assume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// Every acknowledged commit must be found, or nothing is restored.
    Required,
    /// The operator says that members that do not answer are gone for good, with what only they
    /// had, and that the old coordinator will not come back.
    Waived,
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The cluster.
    pub cluster: ClusterId,
    /// Records of the log.
    pub records: u64,
    /// The members that answered.
    pub answered: Vec<WorkerId>,
    /// Why acknowledged commits may be missing; empty when none can be.
    pub doubts: Vec<String>,
}

/// Makes the catalog of a cluster again in `path`, which must hold none. Blocks.
///
/// On `Ok` the catalog survives a crash, and a coordinator can be started there.
///
/// # Errors
/// [`CatalogError::CannotRestore`] when the copies do not answer, are damaged, or are not enough
/// to be certain of every acknowledged commit; [`CatalogError::ClusterExists`].
pub fn restore(
    path: &Path,
    secret: &ClusterSecret,
    sources: &[Box<dyn LogSource>],
    certainty: Certainty,
) -> Result<Restored, CatalogError> {
    let directory = Directory::create(path)?;
    if directory.has_catalog()? {
        return Err(CatalogError::ClusterExists { path: path.to_owned() });
    }
    let answers = ask_all(sources)?;
    let new = directory.new_catalog()?;
    let Opened { mut log, mut state, committed: _ } = Log::open(&new, Missing::Create)?;
    copy_records(&answers, &mut log, &mut state)?;
    let positions = answers.positions();
    let doubts = doubts(state.log_sets(), &positions);
    if !doubts.is_empty() && certainty == Certainty::Required {
        return Err(cannot(doubts.join("; ")));
    }
    if !doubts.is_empty() {
        force(&mut log, &mut state, &positions)?;
    }
    let records = log.chain().seq;
    drop(log);
    keep_secret(&directory, secret)?;
    directory.adopt_catalog(&new)?;
    let answered = positions.keys().copied().collect();
    Ok(Restored { cluster: answers.cluster, records, answered, doubts })
}

fn cannot(problem: impl Into<String>) -> CatalogError {
    CatalogError::CannotRestore { problem: problem.into() }
}

/// Why members that answered are not enough to be certain of every acknowledged commit; empty
/// when they are.
pub fn doubts(sets: &LogSets, positions: &BTreeMap<WorkerId, Position>) -> Vec<String> {
    let complete = |worker: WorkerId| positions.get(&worker).map(|position| position.complete);
    let doubt = |set: &LogSet| {
        if set.is_won(None, complete) {
            return None;
        }
        if set.workers.is_empty() {
            let epoch = set.log_epoch;
            return Some(format!(
                "since log epoch {epoch} the coordinator alone had the log, so `basalt catalog \
                 rebuild` is what is left"
            ));
        }
        let state = |worker: &WorkerId| match complete(*worker) {
            Some(true) => format!("{worker} (has answered)"),
            Some(false) => format!("{worker} (its copy is damaged or was never filled)"),
            None => format!("{worker} (has not answered)"),
        };
        Some(format!(
            "log epoch {} needs the copies of {} of these workers: {}",
            set.log_epoch,
            set.foreign_wins(),
            set.workers.iter().map(state).collect::<Vec<_>>().join(", ")
        ))
    };
    sets.all().filter_map(doubt).collect()
}

struct Answers<'a> {
    cluster: ClusterId,
    /// The newest copy first.
    copies: Vec<(MemberPosition, &'a dyn LogSource)>,
}

impl Answers<'_> {
    fn positions(&self) -> BTreeMap<WorkerId, Position> {
        self.copies.iter().map(|(member, _)| (member.worker, member.position)).collect()
    }
}

fn ask_all(sources: &[Box<dyn LogSource>]) -> Result<Answers<'_>, CatalogError> {
    let mut copies: Vec<(MemberPosition, &dyn LogSource)> = Vec::new();
    let mut silent = Vec::new();
    for source in sources {
        match source.position() {
            Ok(member) => copies.push((member, source.as_ref())),
            Err(problem) => silent.push(format!("{}: {problem}", source.name())),
        }
    }
    let Some((first, _)) = copies.first() else {
        return Err(cannot(format!("no copy of the log answers: {}", silent.join("; "))));
    };
    let cluster = first.cluster;
    if let Some((other, source)) = copies.iter().find(|(member, _)| member.cluster != cluster) {
        return Err(cannot(format!(
            "{} has the log of cluster {}, and others that of {cluster}",
            source.name(),
            other.cluster
        )));
    }
    for problem in silent {
        tracing::warn!(%problem, "a copy of the log does not answer");
    }
    copies.sort_by_key(|(member, _)| {
        let tail = member.position.tail;
        std::cmp::Reverse((tail.log_epoch, tail.seq))
    });
    Ok(Answers { cluster, copies })
}

/// Copies the newest copy, record by record, each checked and applied. A record that its copy does
/// not hand out whole is taken from another one: the chain says whether it is the same.
fn copy_records(
    answers: &Answers<'_>,
    log: &mut Log,
    state: &mut State,
) -> Result<(), CatalogError> {
    let Some((best, _)) = answers.copies.first() else { return Ok(()) };
    let wanted = best.position.tail;
    let mut problems = Vec::new();
    while log.chain().seq < wanted.seq {
        let from = log.chain();
        for (_, source) in &answers.copies {
            match source.read(answers.cluster, from.seq) {
                Ok(records) => take(&records, wanted, log, state)?,
                Err(problem) => problems.push(format!("{}: {problem}", source.name())),
            }
            if log.chain().seq > from.seq {
                break;
            }
        }
        if log.chain().seq == from.seq {
            return Err(cannot(format!(
                "no copy has log record {} whole. {}",
                from.seq + 1,
                problems.join("; ")
            )));
        }
    }
    if log.chain() != wanted {
        return Err(cannot("the copies of the log do not belong together"));
    }
    Ok(())
}

/// Takes the records that continue the log, up to the first that is damaged or another one's.
fn take(
    records: &[Bytes],
    wanted: Chain,
    log: &mut Log,
    state: &mut State,
) -> Result<(), CatalogError> {
    let mut chain = log.chain();
    let mut taken = Vec::new();
    for bytes in records {
        let seq = chain.seq + 1;
        let mut next = chain;
        let Ok(raw) = RawRecord::decode(seq, bytes) else { break };
        if seq > wanted.seq || next.follow(seq, &raw).is_err() {
            break;
        }
        apply_record(state, &raw)?;
        chain = next;
        taken.push(bytes.as_ref().into());
    }
    if taken.is_empty() {
        return Ok(());
    }
    // Nothing is known to be durable before members have promised: opening shows only the founding
    // record then, and `Catalog::readable` waits.
    log.append(chain, &taken, Mark::at(Chain::start()))
}

/// Writes the operator's word: those who answered are the members, and nobody else has a say.
fn force(
    log: &mut Log,
    state: &mut State,
    positions: &BTreeMap<WorkerId, Position>,
) -> Result<(), CatalogError> {
    let cluster = state.cluster().ok_or_else(|| cannot("the log founds no cluster"))?;
    let copies = state.log_sets().current.copies;
    let workers = positions.keys().copied().filter(|worker| cluster.workers.contains(worker));
    let workers = workers.take(usize::from(copies)).collect();
    let promised = positions.values().filter_map(|position| position.promised);
    let newest = promised.map(|promise| promise.epoch).max().unwrap_or(LogEpoch(0));
    let log_epoch = newest.max(state.log_epoch()).next();
    let set = LogSet { log_epoch, coordinator: log.coordinator(), workers, copies };
    append_forced(log, state, set)
}

/// Appends a record by which `set` alone has a say.
fn append_forced(log: &mut Log, state: &mut State, set: LogSet) -> Result<(), CatalogError> {
    let change = Change::SetLogMembers { set, forced: true };
    let command = Command::new(TxnId::generate(), wall_clock_ms(), vec![change]);
    let payload = serialise(&command)?;
    state.apply(command)?;
    let mut chain = log.chain();
    let record = chain.append(state.epoch(), state.log_epoch(), &payload)?;
    log.append(chain, &[record.into()], Mark::at(Chain::start()))
}

/// Makes a coordinator that is stopped the only member of its log, so that it takes commits again
/// although the other members are gone for good. Blocks.
///
/// Whoever restores from one of those later does not learn of what is committed from now on.
///
/// # Errors
/// As [`Catalog::open`](super::Catalog::open).
pub fn detach(path: &Path) -> Result<Vec<WorkerId>, CatalogError> {
    let directory = Directory::lock(path)?;
    if !directory.has_catalog()? {
        return Err(CatalogError::NoCluster { path: path.to_owned() });
    }
    let Opened { mut log, mut state, committed: _ } =
        Log::open(&directory.catalog(), Missing::Refuse)?;
    let before: Vec<_> = state.log_sets().workers().into_iter().collect();
    if before.is_empty() {
        return Ok(before);
    }
    let copies = state.log_sets().current.copies;
    let log_epoch = state.log_epoch().next();
    let workers = std::collections::BTreeSet::new();
    let set = LogSet { log_epoch, coordinator: log.coordinator(), workers, copies };
    append_forced(&mut log, &mut state, set)?;
    Ok(before)
}

/// Writes the secret beside the catalog, unless it is there already.
pub(super) fn keep_secret(
    directory: &Directory,
    secret: &ClusterSecret,
) -> Result<(), CatalogError> {
    if !directory.has_secret()? {
        return Ok(secret.write_new(&directory.secret())?);
    }
    if ClusterSecret::read(&directory.secret())? == *secret {
        return Ok(());
    }
    Err(cannot(format!("{} holds another secret", directory.secret().display())))
}
