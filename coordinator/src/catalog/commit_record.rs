//! What workers are told of commits, so that a catalog can be made again from them alone.
//!
//! ```text
//!   view at 120 ─┐
//!                ├─ difference ──▶ parts (JSON) ──▶ worker ──▶ KnownCatalog::read ──▶ rebuild
//!   view at 131 ─┘
//! ```
//! Every worker is told the cluster, all definitions, and of *every* live segment its id and how
//! many of its rows are deleted; the records of segments only go to those that hold them. So one
//! worker that is up to date says what exactly was live at its newest commit, in all tables at
//! once, and whether a record that another one has is that of the same moment.
//!
//! Invariant: reading the difference of two views into what was known of the first gives what is
//! known of the second ([`difference`] and [`KnownCatalog::apply`] are inverse). A reader refuses
//! parts of a newer [`FORMAT`], never skips them.
//!
//! Not here: how parts travel and lie on disks ([`basalt_storage::commit_records`]), and when they
//! are sent ([`crate::reconcile`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use basalt_engine::snapshot::{Relation, SchemaSnapshot, TableSnapshot, ViewSnapshot};
use basalt_storage::command_log::Chain;
use basalt_storage::commit_records::{Contents, Damage};
use basalt_storage::digest::Digest;
use basalt_storage::ids::{SegmentId, TableId, WorkerId};
use basalt_storage::manifest::SegmentRecord;
use serde::{Deserialize, Serialize};

use super::command::NewTable;
use super::state::ClusterState;

/// The newest format of parts that this program reads, and the one it writes. 2: columns have
/// declared encodings. 3: segments say what gave their rows to their slice.
pub const FORMAT: u16 = 3;

/// A part is closed when it has about so many bytes: a few messages' worth, far below
/// [`basalt_storage::commit_records::BODY_BYTES_MAX`], which bounds the largest single thing in one.
pub(crate) const PART_BYTES: usize = 4 << 20;

/// The catalog at a durable commit, without a pin: it does not keep files that it names.
#[derive(Debug, Clone)]
pub struct CommitView {
    /// The commit.
    pub version: u64,
    /// The cluster: all members.
    pub cluster: Arc<ClusterState>,
    /// Schemas by name.
    pub schemas: BTreeMap<String, Arc<SchemaSnapshot>>,
}

impl super::Catalog {
    /// The newest durable commit, all of it of one moment.
    pub fn commit_view(&self) -> CommitView {
        let published = self.inner.published.borrow();
        CommitView {
            version: published.snapshot.version,
            cluster: Arc::clone(&published.cluster),
            schemas: published.snapshot.schemas.clone(),
        }
    }
}

/// A view by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewName {
    /// The schema it is in.
    pub schema: String,
    /// Its name.
    pub name: String,
}

/// A live segment, as all workers know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveSegment {
    /// The segment.
    pub segment: SegmentId,
    /// Its table.
    pub table: TableId,
    /// How many of its rows are deleted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rows_deleted: u64,
    /// Which ones: the beginning of the delete vector's BLAKE3 digest, 0 without one. Two logs may
    /// have deleted as many rows, and others.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub deletes: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A part of what a worker is told: what is new, other or gone. On disk for ever, as the fields of
/// [commands](super::command) are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// [`FORMAT`] of who wrote it.
    format: u16,
    /// When it was sent, in milliseconds since 1970 by the coordinator's clock.
    #[serde(default, skip_serializing_if = "is_zero")]
    told_ms: u64,
    /// The cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster: Option<ClusterState>,
    /// Schemas that are there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    schemas: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    schemas_gone: Vec<String>,
    /// Tables as they are defined, under the names that they have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tables: Vec<NewTable>,
    /// Tables that were dropped, with all of their segments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tables_gone: Vec<TableId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    views: Vec<(ViewName, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    views_gone: Vec<ViewName>,
    /// Segments that are live.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    live: Vec<LiveSegment>,
    /// Segments that are live no longer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gone: Vec<SegmentId>,
    /// Live segments that the worker holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    held: Vec<SegmentRecord>,
    /// Live segments that it holds no longer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    held_no_longer: Vec<SegmentId>,
}

/// Parts that are being filled, in order.
struct Parts {
    done: Vec<Part>,
    open: Part,
    bytes: usize,
}

impl Parts {
    fn new() -> Self {
        Self { done: Vec::new(), open: Part { format: FORMAT, ..Part::default() }, bytes: 0 }
    }

    /// The part that the next thing, of about so many bytes, goes into.
    fn room_for(&mut self, bytes: usize) -> &mut Part {
        if self.bytes + bytes > PART_BYTES && self.bytes > 0 {
            let full = std::mem::take(&mut self.open);
            self.open.format = FORMAT;
            self.done.push(full);
            self.bytes = 0;
        }
        self.bytes += bytes;
        &mut self.open
    }

    fn finish(mut self) -> Vec<Part> {
        self.done.push(self.open);
        self.done
    }
}

/// About how many bytes of JSON an id takes, with its field names.
const ID_BYTES: usize = 96;

/// About how many bytes of JSON a segment's record takes.
pub(in crate::catalog) fn record_bytes(record: &SegmentRecord) -> usize {
    // An estimate decides only where parts end.
    let deleted = usize::try_from(record.rows_deleted()).unwrap_or(usize::MAX).min(1 << 20);
    512 + record.columns.len() * 224 + record.holders.len() * 40 + deleted * 3
}

/// What `worker` is to be told when it knows commit `before`, or nothing, and the newest is `after`:
/// at least one part, which may be empty.
pub fn difference(before: Option<&CommitView>, after: &CommitView, worker: WorkerId) -> Vec<Part> {
    let nothing = BTreeMap::new();
    let old = before.map_or(&nothing, |before| &before.schemas);
    let mut parts = Parts::new();
    if before.is_none_or(|before| before.cluster != after.cluster) {
        // A few hundred bytes for each of at most a thousand workers and slices.
        parts.room_for(PART_BYTES / 4).cluster = Some(ClusterState::clone(&after.cluster));
    }
    for name in after.schemas.keys().filter(|name| !old.contains_key(*name)) {
        parts.room_for(ID_BYTES + name.len()).schemas.push(name.clone());
    }
    add_views(&mut parts, old, &after.schemas);
    add_tables(&mut parts, old, &after.schemas, worker);
    for name in old.keys().filter(|name| !after.schemas.contains_key(*name)) {
        parts.room_for(ID_BYTES + name.len()).schemas_gone.push(name.clone());
    }
    parts.finish()
}

type Schemas = BTreeMap<String, Arc<SchemaSnapshot>>;

fn relations(schemas: &Schemas) -> impl Iterator<Item = &Relation> {
    schemas.values().flat_map(|schema| schema.relations.values())
}

fn views(schemas: &Schemas) -> BTreeMap<ViewName, &Arc<ViewSnapshot>> {
    let views = relations(schemas).filter_map(|relation| match relation {
        Relation::View(view) => {
            let name = ViewName { schema: view.schema_name.clone(), name: view.name.clone() };
            Some((name, view))
        }
        Relation::Table(_) => None,
    });
    views.collect()
}

fn tables(schemas: &Schemas) -> BTreeMap<TableId, &Arc<TableSnapshot>> {
    let tables = relations(schemas).filter_map(|relation| match relation {
        Relation::Table(table) => Some((table.id, table)),
        Relation::View(_) => None,
    });
    tables.collect()
}

fn add_views(parts: &mut Parts, old: &Schemas, new: &Schemas) {
    let (old, new) = (views(old), views(new));
    for (name, view) in &new {
        if old.get(name).is_none_or(|old| old.query != view.query) {
            let part = parts.room_for(ID_BYTES + view.query.len());
            part.views.push((name.clone(), view.query.clone()));
        }
    }
    for name in old.into_keys().filter(|name| !new.contains_key(name)) {
        parts.room_for(ID_BYTES + name.name.len()).views_gone.push(name);
    }
}

fn add_tables(parts: &mut Parts, old: &Schemas, new: &Schemas, worker: WorkerId) {
    let (old, new) = (tables(old), tables(new));
    for (id, table) in &new {
        let before = old.get(id).copied();
        if before.is_some_and(|before| Arc::ptr_eq(before, table)) {
            continue;
        }
        let defined = definition(table);
        if before.is_none_or(|before| definition(before) != defined) {
            let bytes = ID_BYTES + defined.columns.columns.len() * 512;
            parts.room_for(bytes).tables.push(defined);
        }
        add_segments(parts, before, table, worker);
    }
    for id in old.into_keys().filter(|id| !new.contains_key(id)) {
        parts.room_for(ID_BYTES).tables_gone.push(id);
    }
}

/// A table without its rows.
pub fn definition(table: &TableSnapshot) -> NewTable {
    NewTable {
        id: table.id,
        schema: table.schema_name.clone(),
        name: table.name.clone(),
        columns: table.schema.as_ref().clone(),
        distribution: table.distribution,
        sort_key: table.sort_key.clone(),
        replicas: table.replicas,
    }
}

/// A segment of `table`, which it need not have been written for: it may have been salvaged.
fn live(table: TableId, record: &SegmentRecord) -> LiveSegment {
    let (rows_deleted, deletes) = (record.rows_deleted(), deletes_of(record));
    LiveSegment { segment: record.segment, table, rows_deleted, deletes }
}

fn add_segments(
    parts: &mut Parts,
    before: Option<&Arc<TableSnapshot>>,
    after: &TableSnapshot,
    worker: WorkerId,
) {
    let old = before.map_or(&[][..], |before| before.segments.as_slice());
    let mut old: HashMap<_, _> = old.iter().map(|record| (record.segment, record)).collect();
    for record in &after.segments {
        let before = old.remove(&record.segment);
        if before.is_some_and(|before| Arc::ptr_eq(before, record)) {
            continue;
        }
        if before.is_none_or(|before| live(after.id, before) != live(after.id, record)) {
            parts.room_for(ID_BYTES).live.push(live(after.id, record));
        }
        let held_before = before.filter(|before| before.holders.contains(&worker));
        if record.holders.contains(&worker) {
            if held_before.is_none_or(|before| before != record) {
                parts.room_for(record_bytes(record)).held.push(SegmentRecord::clone(record));
            }
        } else if held_before.is_some() {
            parts.room_for(ID_BYTES).held_no_longer.push(record.segment);
        }
    }
    let mut gone: Vec<_> = old.into_keys().collect();
    gone.sort();
    for segment in gone {
        parts.room_for(ID_BYTES).gone.push(segment);
    }
}

/// [`LiveSegment::deletes`] of a record.
pub(in crate::catalog) fn deletes_of(record: &SegmentRecord) -> u64 {
    let digest = record.deleted.as_ref().map(|deleted| Digest::of(&deleted.to_bytes()));
    digest.and_then(|digest| digest.as_bytes().first_chunk().copied()).map_or(0, u64::from_le_bytes)
}

impl Part {
    /// Its bytes.
    ///
    /// # Errors
    /// What cannot be written as JSON.
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|error| error.to_string())
    }

    /// Says when it was sent, in milliseconds since 1970.
    pub fn told_at(&mut self, ms: u64) {
        self.told_ms = ms;
    }

    /// Reads what [`Self::encode`] made.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        /// Only what every version of a part has, to tell a newer one from a damaged one.
        #[derive(Deserialize)]
        struct AnyFormat {
            format: u16,
        }
        let unreadable = |error: serde_json::Error| format!("it cannot be read: {error}");
        let AnyFormat { format } = serde_json::from_slice(bytes).map_err(unreadable)?;
        if format > FORMAT {
            return Err(format!(
                "it has format version {format}, and this version reads up to {FORMAT}"
            ));
        }
        serde_json::from_slice(bytes).map_err(unreadable)
    }
}

/// What a worker's records say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KnownCatalog {
    /// When the worker was told of it last, in milliseconds since 1970.
    pub told_ms: u64,
    /// The cluster.
    pub cluster: Option<ClusterState>,
    /// The schemas.
    pub schemas: BTreeSet<String>,
    /// The tables, without rows.
    pub tables: BTreeMap<TableId, NewTable>,
    /// The views, with their queries.
    pub views: BTreeMap<ViewName, String>,
    /// All live segments.
    pub live: BTreeMap<SegmentId, LiveSegment>,
    /// The live segments that the worker holds.
    pub held: BTreeMap<SegmentId, SegmentRecord>,
    /// Segments that were live and are not, as far back as the records go.
    pub gone: BTreeSet<SegmentId>,
    /// Tables that were dropped, as far back as the records go.
    pub tables_gone: BTreeSet<TableId>,
}

impl KnownCatalog {
    /// Reads records, as far as they are good: the last commit they know, what they say of it, and
    /// what is damaged behind it.
    pub fn read(contents: &Contents) -> (Option<Chain>, Self, Option<String>) {
        let (mut at, mut known) = (None, Self::default());
        for put in &contents.puts {
            let parts: Result<Vec<_>, _> =
                put.bodies.iter().map(|body| Part::decode(body)).collect();
            match parts {
                Ok(parts) => parts.into_iter().for_each(|part| known.apply(part)),
                Err(problem) => {
                    return (
                        at,
                        known,
                        Some(format!("the record of commit {}: {problem}", put.at.seq)),
                    );
                }
            }
            at = Some(put.at);
        }
        let damage = match &contents.damage {
            Some(Damage::Bytes(problem)) => Some(problem.clone()),
            Some(Damage::Torn) | None => None,
        };
        (at, known, damage)
    }

    /// Takes in a part.
    pub fn apply(&mut self, part: Part) {
        self.told_ms = self.told_ms.max(part.told_ms);
        self.cluster = part.cluster.or(self.cluster.take());
        self.schemas.extend(part.schemas);
        for name in part.schemas_gone {
            self.schemas.remove(&name);
        }
        for table in part.tables {
            self.tables.insert(table.id, table);
        }
        self.views.extend(part.views);
        for name in part.views_gone {
            self.views.remove(&name);
        }
        for segment in part.live {
            self.live.insert(segment.segment, segment);
        }
        for segment in part.held {
            self.held.insert(segment.segment, segment);
        }
        for segment in part.held_no_longer {
            self.held.remove(&segment);
        }
        for segment in part.gone {
            self.live.remove(&segment);
            self.held.remove(&segment);
            self.gone.insert(segment);
        }
        self.drop_tables(part.tables_gone.into_iter().collect());
    }

    fn drop_tables(&mut self, dropped: BTreeSet<TableId>) {
        if dropped.is_empty() {
            return;
        }
        self.tables.retain(|id, _| !dropped.contains(id));
        let gone = &mut self.gone;
        self.live.retain(|id, segment| {
            let stays = !dropped.contains(&segment.table);
            if !stays {
                gone.insert(*id);
            }
            stays
        });
        let live = &self.live;
        self.held.retain(|id, _| live.contains_key(id));
        self.tables_gone.extend(dropped);
    }
}
