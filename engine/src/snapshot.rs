//! What one statement sees: every table, its live segments and who holds them, at one commit.
//!
//! Invariant: a snapshot never changes. It is pinned before planning, and the chunk ids it names
//! travel in the plan, so workers never ask for "latest" (RULES 3).

use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_storage::ids::{ClusterId, ColumnId, Epoch, SliceId, TableId, WorkerId};
use basalt_storage::manifest::SegmentRecord;
use basalt_storage::schema::TableSchema;
use url::Url;

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
}

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
    /// How rows are assigned to slices.
    pub distribution: Distribution,
    /// Columns that segments are sorted by, the most significant first.
    pub sort_key: Vec<ColumnId>,
    /// Its live segments.
    pub segments: Vec<Arc<SegmentRecord>>,
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
    /// Left to the engine; today the same as `Even`.
    Auto,
    /// Round-robin in runs of rows.
    Even,
    /// By the slice hash of a column.
    Key(ColumnId),
    /// All rows in slice 0, meant to be copied to every worker.
    All,
}

/// Workers and slice owners at one epoch.
#[derive(Debug, Clone)]
pub struct ClusterView {
    /// The cluster.
    pub cluster: ClusterId,
    /// Grows with every change of the slice map.
    pub epoch: Epoch,
    /// The owner of each slice, by slice number.
    pub slice_owners: Vec<WorkerId>,
    /// Where each registered worker listens.
    pub workers: BTreeMap<WorkerId, Url>,
}

impl ClusterView {
    /// The owner of a slice; `None` for a slice number that the cluster does not have.
    pub fn owner(&self, slice: SliceId) -> Option<WorkerId> {
        self.slice_owners.get(usize::from(slice.0)).copied()
    }
}
