//! Small tables, segments and commands, and a catalog in a temporary directory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::DataType;
use basalt_coordinator::catalog::{
    Catalog, Change, Command, Committed, NewCluster, NewTable, find_table,
};
use basalt_engine::snapshot::{Distribution, TableSnapshot};
use basalt_storage::digest::Digest;
use basalt_storage::ids::{
    ColumnId, ColumnVersion, Epoch, SegmentId, SliceId, TableId, TxnId, WorkerId,
};
use basalt_storage::manifest::{ColumnRecord, Layout, SegmentRecord};
use basalt_storage::schema::{Column, TableSchema};
use basalt_storage::zone_map::{ZoneMap, ZoneValue};
use tempfile::TempDir;

/// A command with a new transaction id.
pub(crate) fn command(changes: Vec<Change>) -> Command {
    Command::new(TxnId::generate(), 0, changes)
}

/// `public.<name>(id BIGINT NOT NULL, note TEXT)`.
pub(crate) fn new_table(id: TableId, name: &str) -> NewTable {
    let column = |id, name: &str, data_type, nullable| Column {
        id: ColumnId(id),
        name: name.to_owned(),
        data_type,
        nullable,
        declared: Default::default(),
    };
    NewTable {
        id,
        schema: "public".to_owned(),
        name: name.to_owned(),
        columns: TableSchema {
            version: 1,
            columns: vec![
                column(1, "id", DataType::Int64, false),
                column(2, "note", DataType::Utf8, true),
            ],
            keys: vec![],
        },
        distribution: Distribution::Even,
        sort_key: vec![ColumnId(1)],
        replicas: 1,
    }
}

/// A segment of slice 0 for a table as [`new_table`] makes it.
pub(crate) fn segment(table: TableId, txn: TxnId, rows: u32, holder: WorkerId) -> SegmentRecord {
    let zone = ZoneMap {
        null_count: 0,
        min: Some(ZoneValue::Int(1)),
        max: Some(ZoneValue::Int(i64::from(rows))),
    };
    let column =
        |zone| ColumnRecord { version: ColumnVersion::FIRST, bytes: 8, encoding: None, zone };
    SegmentRecord {
        table,
        slice: SliceId(0),
        segment: SegmentId::generate(),
        txn,
        layout: Layout::Packed,
        rows: u64::from(rows),
        row_groups: vec![rows],
        bytes: 16,
        meta_digest: Digest::of(&rows.to_le_bytes()),
        columns: BTreeMap::from([
            (ColumnId(1), column(zone)),
            (ColumnId(2), column(ZoneMap { null_count: 1, ..ZoneMap::default() })),
        ]),
        holders: vec![holder],
        deleted: None,
        routed_by: None,
    }
}

/// A command that adds one segment.
pub(crate) fn append(table: TableId, rows: u32, holder: WorkerId) -> Command {
    let txn = TxnId::generate();
    let segments = vec![segment(table, txn, rows, holder)];
    let change = Change::AddSegments { table, schema_version: 1, segments };
    Command::new(txn, 0, vec![change]).with_rows_affected(u64::from(rows))
}

/// The changes that make `workers` members and give them the 16 slices in turn.
pub(crate) fn join(workers: &[WorkerId]) -> Vec<Change> {
    let mut changes: Vec<_> =
        workers.iter().map(|&worker| Change::RegisterWorker { worker }).collect();
    let owners = workers.iter().copied().cycle().take(16).collect();
    changes.push(Change::AssignSlices { epoch: Epoch(1), owners });
    changes
}

/// A cluster with three workers, on disk.
pub(crate) struct Fixture {
    pub(crate) dir: TempDir,
    pub(crate) catalog: Catalog,
    pub(crate) workers: Vec<WorkerId>,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::create(dir.path(), NewCluster::generate()).unwrap();
        let workers: Vec<_> = (0..3).map(|_| WorkerId::generate()).collect();
        catalog.commit(command(join(&workers))).await.unwrap();
        Self { dir, catalog, workers }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Closes the catalog and opens it again.
    pub(crate) fn reopen(self) -> Self {
        let Self { dir, catalog, workers } = self;
        drop(catalog);
        let catalog = Catalog::open(dir.path()).unwrap();
        Self { dir, catalog, workers }
    }

    /// Closes the catalog and keeps its directory.
    pub(crate) fn close(self) -> TempDir {
        drop(self.catalog);
        self.dir
    }

    pub(crate) async fn create_table(&self, name: &str) -> TableId {
        let id = self.catalog.allocate_table_id().await.unwrap();
        let create = Change::CreateTable(new_table(id, name));
        self.catalog.commit(command(vec![create])).await.unwrap();
        id
    }

    pub(crate) async fn append(&self, table: TableId, rows: u32) -> Committed {
        self.catalog.commit(append(table, rows, self.workers[0])).await.unwrap()
    }

    pub(crate) fn table(&self, name: &str) -> Arc<TableSnapshot> {
        Arc::clone(find_table(&self.catalog.snapshot(), "public", name).unwrap())
    }

    /// Everything a reader can see.
    pub(crate) fn seen(&self) -> String {
        format!("{:?} {:?}", self.catalog.snapshot(), self.catalog.cluster())
    }
}

pub(crate) fn rows(table: &TableSnapshot) -> u64 {
    table.segments.iter().map(|segment| segment.rows).sum()
}
