//! What one statement sees: every table, its live segments and who holds them, at one commit.
//!
//! Invariant: a snapshot never changes. It is pinned before planning, and the chunk ids it names
//! travel in the plan, so workers never ask for "latest" (RULES 3).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use basalt_storage::ids::{ClusterId, ColumnId, Epoch, SegmentId, SliceId, TableId, WorkerId};
use basalt_storage::manifest::SegmentRecord;
use basalt_storage::schema::TableSchema;
use url::Url;

use crate::segment_list::SegmentList;
use crate::statistics::TableStatistics;

/// The schema that unqualified names resolve through.
pub const DEFAULT_SCHEMA: &str = "public";
/// The one catalog of a cluster, as clients see it.
pub const CATALOG: &str = "basalt";

/// The database at one commit, and the cluster that serves it.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Sequence number of the commit; 0 is the empty database.
    pub version: u64,
    /// Workers and slice owners when the snapshot was taken.
    pub cluster: Arc<ClusterView>,
    /// Schemas by name.
    pub schemas: BTreeMap<String, Arc<SchemaSnapshot>>,
    /// Lives as long as anybody sees the commit: clones of a snapshot share it.
    pub pin: Arc<Pin>,
}

impl Snapshot {
    /// All tables.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<TableSnapshot>> {
        let relations = self.schemas.values().flat_map(|schema| schema.relations.values());
        relations.filter_map(|relation| match relation {
            Relation::Table(table) => Some(table),
            Relation::View(_) => None,
        })
    }

    /// The live segments of all tables.
    pub fn segments(&self) -> impl Iterator<Item = &Arc<SegmentRecord>> {
        self.tables().flat_map(|table| &table.segments)
    }
}

/// Shows that a commit is seen by somebody: files that it names must stay.
#[derive(Debug, Default)]
pub struct Pin;

/// One schema: a namespace of relations.
#[derive(Debug, Clone, Default)]
pub struct SchemaSnapshot {
    /// Tables and views by name.
    pub relations: BTreeMap<String, Relation>,
}

/// Something that a FROM clause can name.
#[derive(Debug, Clone)]
pub enum Relation {
    /// A stored table.
    Table(Arc<TableSnapshot>),
    /// A named query.
    View(Arc<ViewSnapshot>),
}

/// A table at one commit.
#[derive(Debug, Clone)]
pub struct TableSnapshot {
    /// The table's id.
    pub id: TableId,
    /// The schema it is in.
    pub schema_name: String,
    /// Its name.
    pub name: String,
    /// The commit that last changed its rows or columns.
    pub version: u64,
    /// Its columns.
    pub schema: Arc<TableSchema>,
    /// How rows are assigned to slices, as it was declared.
    pub distribution: Distribution,
    /// The key that was chosen for a table whose distribution is left to the engine.
    pub chosen_key: Option<Arc<ChosenKey>>,
    /// Columns that segments are sorted by, the most significant first.
    pub sort_key: Vec<ColumnId>,
    /// Copies that its definition asks for; see [`ClusterView::copies_wanted`].
    pub replicas: u16,
    /// Its live segments.
    pub segments: SegmentList,
    /// What ANALYZE found out about its columns.
    pub statistics: Option<Arc<TableStatistics>>,
}

/// The distribution key of a table under [`Distribution::Auto`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChosenKey {
    /// The column.
    pub column: ColumnId,
    /// Why it was chosen, for those who look.
    pub reason: String,
}

impl TableSnapshot {
    /// How new rows are assigned to slices.
    pub fn appended_by(&self) -> Distribution {
        match (self.distribution, &self.chosen_key) {
            (Distribution::Auto, Some(chosen)) => Distribution::Key(chosen.column),
            (declared, _) => declared,
        }
    }

    /// The column whose slice hash says of every row which slice it is in. A key that was chosen is that
    /// once all segments are written by it: those of before it lie by no value.
    pub fn key_of_rows(&self) -> Option<ColumnId> {
        match (self.distribution, &self.chosen_key) {
            (Distribution::Key(key), _) => Some(key),
            (Distribution::Auto, Some(chosen)) => {
                self.segments.are_routed_by(chosen.column).then_some(chosen.column)
            }
            _ => None,
        }
    }

    /// Rows that are there.
    pub fn live_rows(&self) -> u64 {
        self.segments.totals().live_rows
    }

    /// A column's name, for people.
    pub fn column_name(&self, id: ColumnId) -> &str {
        self.schema.column(id).map_or("?", |column| column.name.as_str())
    }

    /// The distribution as it is: `KEY(id)`, `AUTO`, or `AUTO(KEY(id))` where a key was chosen and all rows lie by it.
    pub fn distribution_in_effect(&self) -> String {
        match (self.distribution, self.key_of_rows()) {
            (Distribution::Auto, Some(key)) => format!("AUTO(KEY({}))", self.column_name(key)),
            _ => self.declared_distribution(),
        }
    }

    /// The distribution as it was declared, such as `KEY(id)`.
    pub fn declared_distribution(&self) -> String {
        match self.distribution {
            Distribution::Auto => "AUTO".to_owned(),
            Distribution::Even => "EVEN".to_owned(),
            Distribution::All => "ALL".to_owned(),
            Distribution::Key(key) => format!("KEY({})", self.column_name(key)),
        }
    }
}

/// A view at one commit.
#[derive(Debug, Clone)]
pub struct ViewSnapshot {
    /// The schema it is in.
    pub schema_name: String,
    /// Its name.
    pub name: String,
    /// The text of its query.
    pub query: String,
}

/// How a table's rows are assigned to slices (Redshift's distribution styles).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// Left to the engine: rows as under `Even`, and copies on every worker of what is not large
    /// ([`auto_choice`](crate::auto_distribution::auto_choice)), or as under `Key` once that is known to
    /// spare more ([`ChosenKey`]).
    Auto,
    /// Round-robin in runs of rows.
    Even,
    /// By the slice hash of a column.
    Key(ColumnId),
    /// All rows in slice 0, meant to be copied to every worker.
    All,
}

/// Workers and slice owners at one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterView {
    /// The cluster.
    pub cluster: ClusterId,
    /// Grows with every change of the slice map.
    pub epoch: Epoch,
    /// The owner of each slice, by slice number.
    pub slice_owners: Vec<WorkerId>,
    /// The workers that should have each slice's other copies, by slice number, the first that
    /// would own it next first. May be shorter than the owners: the rest has no partners.
    pub slice_partners: Vec<Vec<WorkerId>>,
    /// Members of the cluster, whether they live or not.
    pub members: usize,
    /// Where each worker listens that may be given work: not those that are dead or suspect.
    pub workers: BTreeMap<WorkerId, Url>,
    /// What workers fail together with, of those that said so.
    pub domains: BTreeMap<WorkerId, String>,
    /// Who has copies of segments that were moved since the snapshot was pinned: what a plan that
    /// is made again goes by. Empty in a snapshot as the catalog gives it.
    pub moved: HashMap<SegmentId, Vec<WorkerId>>,
}

/// Workers in their order, but those first whose failure domain no worker before them is in, nor
/// one of `taken`. A worker that says nothing is one by itself.
pub fn apart(
    taken: &[WorkerId],
    workers: Vec<WorkerId>,
    domains: &BTreeMap<WorkerId, String>,
) -> Vec<WorkerId> {
    let mut seen: BTreeSet<&String> = taken.iter().filter_map(|id| domains.get(id)).collect();
    let is_apart = |id: &WorkerId| domains.get(id).is_none_or(|domain| seen.insert(domain));
    let (mut apart, together): (Vec<_>, Vec<_>) = workers.into_iter().partition(is_apart);
    apart.extend(together);
    apart
}

impl ClusterView {
    /// The owner of a slice; `None` for a slice number that the cluster does not have.
    pub fn owner(&self, slice: SliceId) -> Option<WorkerId> {
        self.slice_owners.get(usize::from(slice.0)).copied()
    }

    /// The workers of a slice: its owner, then its partners.
    pub fn workers_of(&self, slice: SliceId) -> impl Iterator<Item = WorkerId> + '_ {
        let partners = self.slice_partners.get(usize::from(slice.0));
        self.owner(slice).into_iter().chain(partners.into_iter().flatten().copied())
    }

    /// Whether every worker that may be given work has a copy of each of the segments. Not where
    /// there is no such worker: who reads them is then told which slice has none.
    pub fn are_at_every_worker(&self, segments: &[Arc<SegmentRecord>]) -> bool {
        let is_at_every_worker = |segment: &Arc<SegmentRecord>| {
            let holders = self.moved.get(&segment.segment).unwrap_or(&segment.holders);
            // Counted, as each holds one copy: clusters may have hundreds of workers.
            let live = holders.iter().filter(|holder| self.workers.contains_key(holder));
            holders.len() >= self.workers.len() && live.count() >= self.workers.len()
        };
        !self.workers.is_empty() && segments.iter().all(is_at_every_worker)
    }

    /// How many copies of its chunks a table has that asks for `replicas`: no more than there are
    /// members, so that a cluster of one worker works, and gets second copies when it grows.
    pub fn copies_wanted(&self, replicas: u16) -> usize {
        usize::from(replicas).min(self.members).max(1)
    }
}

#[cfg(test)]
mod tests {
    use basalt_storage::digest::Digest;
    use basalt_storage::ids::TxnId;
    use basalt_storage::manifest::Layout;

    use super::*;

    fn cluster(live: &[WorkerId]) -> ClusterView {
        let url = |worker: &WorkerId| (*worker, "http://127.0.0.1:1".parse().unwrap());
        ClusterView {
            cluster: ClusterId::generate(),
            epoch: Epoch(1),
            slice_owners: live.to_vec(),
            slice_partners: vec![],
            members: live.len(),
            workers: live.iter().map(url).collect(),
            domains: BTreeMap::new(),
            moved: HashMap::new(),
        }
    }

    fn segment(holders: &[WorkerId]) -> Arc<SegmentRecord> {
        Arc::new(SegmentRecord {
            table: TableId(1),
            slice: SliceId(0),
            segment: SegmentId::generate(),
            txn: TxnId::generate(),
            layout: Layout::Wide,
            rows: 1,
            row_groups: vec![],
            columns: BTreeMap::new(),
            meta_digest: Digest::of(b""),
            bytes: 1,
            holders: holders.to_vec(),
            deleted: None,
            routed_by: None,
        })
    }

    #[test]
    fn segments_are_at_every_worker_that_lives() {
        let [one, other, dead] = [(); 3].map(|()| WorkerId::generate());
        let cluster = cluster(&[one, other]);
        let are_everywhere = |holders: &[&[WorkerId]]| {
            let segments: Vec<_> = holders.iter().map(|holders| segment(holders)).collect();
            cluster.are_at_every_worker(&segments)
        };
        assert!(are_everywhere(&[]));
        assert!(are_everywhere(&[&[one, other], &[dead, other, one]]));
        assert!(!are_everywhere(&[&[one, other], &[one]]));
        assert!(!are_everywhere(&[&[one, dead]]), "the dead one's copy counts for nothing");
    }

    #[test]
    fn segments_that_moved_are_where_they_are_now() {
        let [one, other] = [(); 2].map(|()| WorkerId::generate());
        let mut cluster = cluster(&[one, other]);
        let segment = segment(&[one]);
        cluster.moved.insert(segment.segment, vec![other, one]);
        assert!(cluster.are_at_every_worker(&[segment]));
    }

    #[test]
    fn without_workers_nothing_is_at_every_worker() {
        let nobody = cluster(&[]);
        assert!(!nobody.are_at_every_worker(&[]));
        assert!(!nobody.are_at_every_worker(&[segment(&[WorkerId::generate()])]));
    }
}
