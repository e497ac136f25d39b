//! The catalog's state, and the one function that changes it.
//!
//! Invariant: [`State`] is a function of the commands applied so far and of nothing else: no
//! clock, no randomness, no I/O, no iteration over hash order. Two states that applied the same
//! commands have equal [`digest`](State::digest)s. A refused command changes nothing.
//!
//! Tables live in the form that readers get, behind [`Arc`]s: a commit copies what it touches
//! (one table's list of segment pointers), a snapshot copies a few pointers.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use basalt_engine::snapshot::{ClusterView, SchemaSnapshot, Snapshot};
use basalt_storage::digest::Digest;
use basalt_storage::ids::{ClusterId, Epoch, LogEpoch, SegmentId, TableId, TxnId, WorkerId};
use serde::{Deserialize, Serialize};
use url::Url;

use super::Committed;
use super::apply::Draft;
use super::command::{Change, Command, NewCluster, Request, RequestKey, SliceHash};
use super::error::CatalogError;
use super::members::LogSets;
use crate::placement::Candidate;

/// How many request keys are remembered; the oldest is forgotten first. At one labelled write a
/// second that is 18 hours.
pub const REQUESTS_KEPT_MAX: usize = 65_536;

/// How many dropped tables are remembered, so that a statement that planned on one learns who
/// dropped it: far more than can be dropped while a statement runs.
pub(super) const DROPS_KEPT_MAX: usize = 16_384;

/// The cluster as the catalog knows it: who is a member, and which slices they own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterState {
    /// The cluster.
    pub cluster: ClusterId,
    /// How many slices every table has.
    pub slices: u16,
    /// The hash that assigns rows to slices.
    pub slice_hash: SliceHash,
    /// Workers to wait for before the first assignment, when the cluster was made for a number.
    pub workers_expected: Option<u16>,
    /// Grows by one with every slice map; 0 before the first.
    pub epoch: Epoch,
    /// The owner of each slice, by slice number; empty before the first assignment.
    pub slice_owners: Vec<WorkerId>,
    /// The partners of each slice, by slice number; absent in maps of before format 3.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slice_partners: Vec<Vec<WorkerId>>,
    /// Every worker that registered and was not removed since.
    pub workers: BTreeSet<WorkerId>,
    /// Workers that are to lose their slices and copies.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub draining: BTreeSet<WorkerId>,
    /// What is known of workers that are not like any other.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub described: BTreeMap<WorkerId, Candidate>,
    /// The transaction that made the slice map, or the cluster.
    pub assigned_by: TxnId,
}

impl ClusterState {
    pub(super) fn new(new: &NewCluster, txn: TxnId) -> Self {
        Self {
            cluster: new.cluster,
            slices: new.slices,
            slice_hash: new.slice_hash,
            workers_expected: new.workers_expected,
            epoch: Epoch(0),
            slice_owners: Vec::new(),
            slice_partners: Vec::new(),
            workers: BTreeSet::new(),
            draining: BTreeSet::new(),
            described: BTreeMap::new(),
            assigned_by: txn,
        }
    }
}

impl ClusterState {
    /// What workers fail together with, of those that said so.
    pub fn domains(&self) -> BTreeMap<WorkerId, String> {
        let said = self.described.iter();
        said.filter_map(|(worker, known)| Some((*worker, known.domain.clone()?))).collect()
    }

    /// A worker as one that slices may be placed on.
    pub fn candidate(&self, worker: WorkerId) -> (WorkerId, Candidate) {
        (worker, self.described.get(&worker).cloned().unwrap_or_default())
    }

    /// The workers of each slice, by slice number: the owner, then its partners.
    pub fn slice_workers(&self) -> Vec<Vec<WorkerId>> {
        let partners =
            self.slice_partners.iter().map(Vec::as_slice).chain(std::iter::repeat(&[][..]));
        let workers = |(owner, partners): (&WorkerId, &[WorkerId])| {
            std::iter::once(*owner).chain(partners.iter().copied()).collect()
        };
        self.slice_owners.iter().zip(partners).map(workers).collect()
    }
}

/// What the catalog knows of a table beyond what readers see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableEntry {
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) created_by: TxnId,
    /// The transaction that last changed its rows, or created it: who won when another conflicts.
    pub(super) changed_by: TxnId,
}

/// A table that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DroppedTable {
    pub(super) table: TableId,
    pub(super) name: String,
    pub(super) by: TxnId,
}

/// What came of a write that had a request key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestOutcome {
    /// Digest of what was asked for.
    pub payload: Digest,
    /// The transaction that did it.
    pub txn: TxnId,
    /// Its sequence number.
    pub version: u64,
    /// Rows affected, where that means something.
    pub rows_affected: Option<u64>,
}

/// The request keys that are remembered, by age.
#[derive(Debug, Clone, Default)]
pub(super) struct Requests {
    by_key: HashMap<RequestKey, RequestOutcome>,
    by_age: VecDeque<RequestKey>,
}

impl Requests {
    pub(super) fn remember(&mut self, key: RequestKey, outcome: RequestOutcome) {
        self.by_age.push_back(key.clone());
        self.by_key.insert(key, outcome);
        while self.by_age.len() > REQUESTS_KEPT_MAX {
            if let Some(oldest) = self.by_age.pop_front() {
                self.by_key.remove(&oldest);
            }
        }
    }

    /// The remembered keys, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&RequestKey, &RequestOutcome)> {
        self.by_age.iter().filter_map(|key| self.by_key.get_key_value(key))
    }
}

/// What came of applying a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The sequence number of the commit.
    pub version: u64,
    /// The table ids it set aside.
    pub reserved: Range<u64>,
}

/// The catalog at one commit.
#[derive(Debug, Clone)]
pub struct State {
    pub(super) version: u64,
    pub(super) cluster: Option<Arc<ClusterState>>,
    pub(super) schemas: BTreeMap<String, Arc<SchemaSnapshot>>,
    pub(super) tables: Arc<BTreeMap<TableId, TableEntry>>,
    /// The first id that was never set aside.
    pub(super) next_table: u64,
    /// Ids set aside and not used for a table yet.
    pub(super) unused_tables: Arc<BTreeSet<TableId>>,
    /// Segments of all live tables. Not shared: it only grows and shrinks after all checks.
    pub(super) segments: HashSet<SegmentId>,
    pub(super) drops: VecDeque<DroppedTable>,
    pub(super) requests: Requests,
    pub(super) log_sets: LogSets,
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// Before the first command.
    pub fn new() -> Self {
        Self {
            version: 0,
            cluster: None,
            schemas: BTreeMap::new(),
            tables: Arc::default(),
            next_table: 1,
            unused_tables: Arc::default(),
            segments: HashSet::new(),
            drops: VecDeque::new(),
            requests: Requests::default(),
            log_sets: LogSets::default(),
        }
    }

    /// The number of commands applied, which is the sequence number of the last one.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The epoch of the slice map; 0 before there is one.
    pub fn epoch(&self) -> Epoch {
        self.cluster.as_ref().map_or(Epoch(0), |cluster| cluster.epoch)
    }

    /// The epoch of the log; 0 before it has members.
    pub fn log_epoch(&self) -> LogEpoch {
        self.log_sets.current.log_epoch
    }

    /// Who keeps copies of the log.
    pub fn log_sets(&self) -> &LogSets {
        &self.log_sets
    }

    /// The cluster, once it is founded.
    pub fn cluster(&self) -> Option<&Arc<ClusterState>> {
        self.cluster.as_ref()
    }

    /// Applies one command: all of its changes, or none when it fails.
    ///
    /// A command whose request key is known must not come here: see [`Self::replay_of`].
    pub fn apply(&mut self, command: Command) -> Result<Applied, CatalogError> {
        let Command { txn, changes, rows_affected, request, time_ms: _ } = command;
        if let Some(request) = &request
            && self.replay_of(request)?.is_some()
        {
            return Err(CatalogError::invalid(format!(
                "request key \"{}\" is applied already",
                request.key
            )));
        }
        let sets_members = |change: &Change| matches!(change, Change::SetLogMembers { .. });
        let is_of_members = changes.iter().any(sets_members);
        if is_of_members && changes.len() > 1 {
            return Err(CatalogError::invalid("log members are set by a command of its own"));
        }
        let mut draft = Draft::new(self, txn);
        for change in changes {
            draft.change(change)?;
        }
        let (delta, reserved) = draft.finish();
        delta.install(self);
        if !is_of_members {
            self.log_sets.settle();
        }
        self.version += 1;
        let version = self.version;
        if let Some(Request { key, payload }) = request {
            self.requests.remember(key, RequestOutcome { payload, txn, version, rows_affected });
        }
        Ok(Applied { version, reserved })
    }

    /// Applies a command, or finds the outcome that its request had before. Also says whether the
    /// command is new: one that is not changes nothing, and no record of it is wanted.
    pub(crate) fn apply_once(
        &mut self,
        command: Command,
    ) -> Result<(Committed, bool), CatalogError> {
        let (txn, rows_affected) = (command.txn, command.rows_affected);
        if let Some(request) = &command.request
            && let Some(first) = self.replay_of(request)?
        {
            return Ok((Committed::replayed(first), false));
        }
        let Applied { version, reserved } = self.apply(command)?;
        Ok((Committed { version, txn, rows_affected, reserved, replayed: false }, true))
    }

    /// The first outcome of a request, when it was applied before and is still remembered.
    ///
    /// Fails with [`CatalogError::RequestKeyReused`] when the key stands for another payload.
    pub fn replay_of(&self, request: &Request) -> Result<Option<RequestOutcome>, CatalogError> {
        request.key.check()?;
        match self.request(&request.key) {
            Some(first) if first.payload != request.payload => {
                Err(CatalogError::RequestKeyReused { key: request.key.clone(), first: first.txn })
            }
            first => Ok(first.cloned()),
        }
    }

    /// What came of the request with this key.
    pub fn request(&self, key: &RequestKey) -> Option<&RequestOutcome> {
        self.requests.by_key.get(key)
    }

    /// What readers see, given where the workers listen; `None` before there is a cluster.
    pub fn snapshot(&self, urls: &BTreeMap<WorkerId, Url>) -> Option<Snapshot> {
        let cluster = self.cluster.as_ref()?;
        Some(Snapshot {
            version: self.version,
            cluster: Arc::new(cluster_view(cluster, urls)),
            schemas: self.schemas.clone(),
            pin: Arc::default(),
        })
    }
}

/// Joins what the catalog knows of the cluster with what membership knows.
pub(super) fn cluster_view(cluster: &ClusterState, urls: &BTreeMap<WorkerId, Url>) -> ClusterView {
    ClusterView {
        cluster: cluster.cluster,
        epoch: cluster.epoch,
        slice_owners: cluster.slice_owners.clone(),
        slice_partners: cluster.slice_partners.clone(),
        members: cluster.workers.len(),
        workers: urls
            .iter()
            .filter(|(worker, _)| cluster.workers.contains(worker))
            .map(|(worker, url)| (*worker, url.clone()))
            .collect(),
        domains: cluster.domains(),
        moved: HashMap::new(),
    }
}
