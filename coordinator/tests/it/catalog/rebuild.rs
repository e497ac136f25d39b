//! Histories of a catalog, what workers were told of them, and what comes out of that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::DataType;
use basalt_coordinator::catalog::command::SegmentDeletes;
use basalt_coordinator::catalog::commit_record::{
    CommitView, KnownCatalog, Part, definition, difference,
};
use basalt_coordinator::catalog::rebuild::{Doubt, OnDisk, Rebuilt, WorkerRecords, found, rebuild};
use basalt_coordinator::catalog::{
    Catalog, CatalogError, Change, Command, CopyMove, NewCluster, NewTable, SegmentSeen, State,
};
use basalt_engine::secret::ClusterSecret;
use basalt_engine::snapshot::{Distribution, Relation, TableSnapshot};
use basalt_storage::command_log::Chain;
use basalt_storage::delete_vector::DeleteVector;
use basalt_storage::digest::Digest;
use basalt_storage::ids::{
    ClusterId, ColumnId, ColumnVersion, Epoch, LogEpoch, SegmentId, SliceId, TableId, TxnId,
    WorkerId,
};
use basalt_storage::layout::SegmentKey;
use basalt_storage::manifest::{ColumnRecord, Layout, SegmentRecord};
use basalt_storage::schema::{Column, TableSchema};
use basalt_storage::zone_map::ZoneMap;
use proptest::prelude::*;

/// A catalog with three workers, and what they have.
pub(super) struct Scene {
    state: State,
    log_epoch: u64,
    history: BTreeMap<u64, CommitView>,
    pub(super) workers: Vec<WorkerRecords>,
    told: Vec<Option<CommitView>>,
}

fn view(state: &State) -> CommitView {
    CommitView {
        version: state.version(),
        cluster: Arc::clone(state.cluster().unwrap()),
        schemas: state.snapshot(&BTreeMap::new()).unwrap().schemas,
    }
}

pub(super) fn table(id: TableId, name: &str) -> NewTable {
    let column = Column {
        id: ColumnId(1),
        name: "id".to_owned(),
        data_type: DataType::Int64,
        nullable: false,
        declared: Default::default(),
    };
    NewTable {
        id,
        schema: "public".to_owned(),
        name: name.to_owned(),
        columns: TableSchema { version: 1, columns: vec![column], keys: vec![] },
        distribution: Distribution::Even,
        sort_key: vec![],
        replicas: 2,
    }
}

fn record(table: TableId, txn: TxnId, rows: u32, holders: Vec<WorkerId>) -> SegmentRecord {
    let column = ColumnRecord {
        version: ColumnVersion::FIRST,
        bytes: 8,
        encoding: None,
        zone: ZoneMap::default(),
    };
    SegmentRecord {
        table,
        slice: SliceId(0),
        segment: SegmentId::generate(),
        txn,
        layout: Layout::Packed,
        rows: u64::from(rows),
        row_groups: vec![rows],
        bytes: 8,
        meta_digest: Digest::of(&rows.to_le_bytes()),
        columns: BTreeMap::from([(ColumnId(1), column)]),
        holders,
        deleted: None,
        routed_by: None,
    }
}

/// A segment as a disk has it.
fn on_disk(table: TableId, segment: SegmentId) -> (SegmentKey, Layout) {
    (SegmentKey { table, slice: SliceId(0), segment }, Layout::Packed)
}

impl Scene {
    pub(super) fn new() -> Self {
        let new = NewCluster::generate();
        let ids: Vec<_> = (0..3).map(|_| WorkerId::generate()).collect();
        let records = |worker: &WorkerId| WorkerRecords {
            cluster: new.cluster,
            worker: *worker,
            at: None,
            known: KnownCatalog::default(),
            damage: None,
            on_disk: OnDisk::new(),
            epoch: Epoch(0),
            log_epoch: LogEpoch(0),
            log: None,
        };
        let mut scene = Self {
            state: State::new(),
            log_epoch: 1,
            history: BTreeMap::new(),
            workers: ids.iter().map(records).collect(),
            told: vec![None; 3],
        };
        let mut changes = vec![Change::CreateCluster(new)];
        changes.extend(ids.iter().map(|worker| Change::RegisterWorker { worker: *worker }));
        let owners = ids.iter().copied().cycle().take(16).collect();
        changes.push(Change::AssignSlices { epoch: Epoch(1), owners });
        changes.push(Change::CreateSchema { name: "public".to_owned() });
        changes.push(Change::ReserveTableIds { count: 64 });
        scene.commit(changes);
        scene
    }

    pub(super) fn commit(&mut self, changes: Vec<Change>) {
        self.commit_as(TxnId::generate(), changes);
    }

    fn commit_as(&mut self, txn: TxnId, changes: Vec<Change>) {
        self.state.apply(Command::new(txn, 0, changes)).unwrap();
        self.history.insert(self.state.version(), view(&self.state));
    }

    pub(super) fn create(&mut self, id: u64, name: &str) -> TableId {
        self.commit(vec![Change::CreateTable(table(TableId(id), name))]);
        TableId(id)
    }

    /// A segment on some of the workers, by their places.
    pub(super) fn append(&mut self, table: TableId, rows: u32, holders: &[usize]) -> SegmentId {
        let ids = holders.iter().map(|place| self.workers[*place].worker).collect();
        let txn = TxnId::generate();
        let segment = record(table, txn, rows, ids);
        let id = segment.segment;
        let segments = vec![segment];
        self.commit_as(txn, vec![Change::AddSegments { table, schema_version: 1, segments }]);
        for place in holders {
            self.workers[*place].on_disk.insert(id, on_disk(table, id));
        }
        id
    }

    fn delete(&mut self, table: TableId, segment: SegmentId, rows: &[u32]) {
        let live = live_segments(&view(&self.state));
        let rows_deleted = live[&segment].rows_deleted();
        let seen = SegmentSeen { segment, rows_deleted };
        let rows = DeleteVector::from_positions(rows.iter().copied()).unwrap();
        let segments = vec![SegmentDeletes { seen, rows }];
        self.commit(vec![Change::DeleteRows { table, segments }]);
    }

    fn move_copy(&mut self, table: TableId, segment: SegmentId, from: usize, to: usize) {
        let moves = vec![CopyMove {
            table,
            segment,
            add: vec![self.workers[to].worker],
            remove: vec![self.workers[from].worker],
        }];
        self.commit(vec![Change::MoveCopies { moves }]);
        self.workers[to].on_disk.insert(segment, on_disk(table, segment));
    }

    fn mark(&self, version: u64) -> Chain {
        let epoch = self.history[&version].cluster.epoch;
        let log_epoch = LogEpoch(self.log_epoch);
        Chain { seq: version, epoch, log_epoch, hash: Digest::of(&version.to_le_bytes()) }
    }

    /// Brings some workers' records to the newest commit.
    pub(super) fn tell(&mut self, places: &[usize]) {
        let newest = view(&self.state);
        for place in places {
            let worker = &mut self.workers[*place];
            let before = self.told[*place].replace(newest.clone());
            for part in difference(before.as_ref(), &newest, worker.worker) {
                worker.known.apply(Part::decode(&part.encode().unwrap()).unwrap());
            }
            worker.at = Some(Chain {
                seq: newest.version,
                epoch: newest.cluster.epoch,
                log_epoch: LogEpoch(self.log_epoch),
                hash: Digest::of(&newest.version.to_le_bytes()),
            });
        }
    }

    pub(super) fn rebuild(&self) -> Rebuilt {
        rebuild(&self.workers).unwrap()
    }
}

pub(super) fn all_tables(view: &CommitView) -> Vec<Arc<TableSnapshot>> {
    let relations = view.schemas.values().flat_map(|schema| schema.relations.values());
    let mut tables: Vec<_> = relations
        .filter_map(|relation| match relation {
            Relation::Table(table) => Some(Arc::clone(table)),
            Relation::View(_) => None,
        })
        .collect();
    tables.sort_by_key(|table| table.id);
    tables
}

fn live_segments(view: &CommitView) -> BTreeMap<SegmentId, SegmentRecord> {
    let tables = all_tables(view);
    let segments = tables.iter().flat_map(|table| &table.segments);
    segments.map(|record| (record.segment, SegmentRecord::clone(record))).collect()
}

fn rebuilt_segments(rebuilt: &Rebuilt) -> BTreeMap<SegmentId, SegmentRecord> {
    let segments = rebuilt.tables.iter().flat_map(|table| &table.segments);
    segments.map(|record| (record.segment, record.clone())).collect()
}

/// What was rebuilt is the catalog at a commit, but for who holds what.
fn check_same(rebuilt: &Rebuilt, view: &CommitView) {
    let definitions: Vec<_> = rebuilt.tables.iter().map(|table| table.definition.clone()).collect();
    let expected: Vec<_> = all_tables(view).iter().map(|table| definition(table)).collect();
    assert_eq!(definitions, expected);
    let without_holders = |segments: BTreeMap<SegmentId, SegmentRecord>| {
        let strip = |record| SegmentRecord { holders: vec![], ..record };
        segments.into_values().map(strip).collect::<Vec<_>>()
    };
    let found = without_holders(rebuilt_segments(rebuilt));
    assert_eq!(found, without_holders(live_segments(view)));
}

#[test]
fn workers_that_know_everything_give_everything() {
    let mut scene = Scene::new();
    let (orders, gone) = (scene.create(1, "orders"), scene.create(2, "gone"));
    let first = scene.append(orders, 10, &[0, 1]);
    scene.append(orders, 20, &[1, 2]);
    scene.append(gone, 30, &[0, 2]);
    scene.tell(&[0, 1, 2]);
    scene.delete(orders, first, &[3, 4]);
    scene.commit(vec![
        Change::DropTable { table: gone, version: None },
        Change::CreateSchema { name: "other".to_owned() },
        Change::CreateView {
            schema: "other".to_owned(),
            name: "v".to_owned(),
            query: "SELECT 1".to_owned(),
        },
    ]);
    scene.tell(&[0, 1, 2]);
    let rebuilt = scene.rebuild();
    check_same(&rebuilt, &view(&scene.state));
    assert_eq!(rebuilt.doubts, []);
    assert_eq!(rebuilt_segments(&rebuilt), live_segments(&view(&scene.state)), "holders too");
    assert_eq!(rebuilt.schemas.iter().collect::<Vec<_>>(), ["other", "public"]);
    assert_eq!(rebuilt.views.values().collect::<Vec<_>>(), ["SELECT 1"]);
    assert!(rebuilt.next_table > 2);
    assert!(rebuilt.cluster.epoch > scene.state.epoch());
}

#[test]
fn a_worker_that_lags_brings_nothing_back() {
    let mut scene = Scene::new();
    let (kept, gone) = (scene.create(1, "kept"), scene.create(2, "gone"));
    let segment = scene.append(kept, 10, &[0, 1]);
    scene.append(gone, 10, &[0, 1]);
    scene.tell(&[0, 1, 2]);
    scene.delete(kept, segment, &[0]);
    scene.commit(vec![Change::DropTable { table: gone, version: None }]);
    scene.tell(&[0]);
    let rebuilt = scene.rebuild();
    check_same(&rebuilt, &view(&scene.state));
    let behind = rebuilt.doubts.iter().filter(|doubt| matches!(doubt, Doubt::Behind { .. }));
    assert_eq!((behind.count(), rebuilt.doubts.len()), (2, 2), "{:?}", rebuilt.doubts);
}

#[test]
fn a_segment_whose_newest_records_are_gone_is_named() {
    let mut scene = Scene::new();
    let table = scene.create(1, "t");
    let old = scene.append(table, 10, &[1, 2]);
    scene.tell(&[0, 1, 2]);
    scene.delete(table, old, &[0, 1]);
    let new = scene.append(table, 5, &[1, 2]);
    scene.tell(&[0]);
    let rebuilt = scene.rebuild();
    assert!(rebuilt.doubts.contains(&Doubt::NoRecord { segment: new, table }));
    let key = live_segments(&view(&scene.state))[&old].key();
    assert!(rebuilt.doubts.contains(&Doubt::OtherDeletes { segment: key, known: 0, deleted: 2 }));
    assert!(!rebuilt.doubts.iter().all(Doubt::is_harmless));
}

#[test]
fn as_many_other_rows_that_another_log_deleted_are_a_doubt() {
    let mut scene = Scene::new();
    let table = scene.create(1, "t");
    let segment = scene.append(table, 10, &[1, 2]);
    scene.tell(&[0, 1, 2]);
    let before = scene.state.clone();
    scene.delete(table, segment, &[0, 1]);
    scene.tell(&[1]);
    // A catalog that was rebuilt without this worker, and deletes as many other rows.
    (scene.state, scene.log_epoch) = (before, 2);
    scene.delete(table, segment, &[5, 6]);
    scene.told[0] = None;
    scene.workers[0].known = KnownCatalog::default();
    scene.tell(&[0]);
    let rebuilt = scene.rebuild();
    let key = live_segments(&view(&scene.state))[&segment].key();
    let doubt = Doubt::OtherDeletes { segment: key, known: 2, deleted: 2 };
    assert!(rebuilt.doubts.contains(&doubt), "{:?}", rebuilt.doubts);
}

#[test]
fn missing_workers_damage_and_newer_logs_are_doubts() {
    let mut scene = Scene::new();
    let table = scene.create(1, "t");
    let segment = scene.append(table, 10, &[0, 2]);
    scene.append(table, 10, &[0, 1]);
    scene.tell(&[0, 1, 2]);
    let missing = scene.workers.pop().unwrap().worker;
    let newer = Chain { seq: 99, ..scene.workers[1].at.unwrap() };
    scene.workers[1].log = Some(newer);
    scene.workers[0].damage = Some("a bit".to_owned());
    scene.workers[0].on_disk.remove(&segment);
    let rebuilt = scene.rebuild();
    let key = live_segments(&view(&scene.state))[&segment].key();
    let expected = [
        Doubt::WorkerMissing { worker: missing },
        Doubt::Damaged { worker: scene.workers[0].worker, problem: "a bit".to_owned() },
        Doubt::NewerLog { worker: scene.workers[1].worker, seq: 99 },
        Doubt::CopyElsewhere { segment: key, holders: vec![missing] },
    ];
    assert_eq!(rebuilt.doubts, expected);
    check_same(&rebuilt, &view(&scene.state));
}

#[test]
fn records_without_files_and_files_without_records_make_nothing_live() {
    let mut scene = Scene::new();
    let table = scene.create(1, "t");
    let lost = scene.append(table, 10, &[0, 1]);
    scene.tell(&[0, 1, 2]);
    scene.workers[0].on_disk.clear();
    scene.workers[1].on_disk.clear();
    let orphan = SegmentId::generate();
    scene.workers[2].on_disk.insert(orphan, on_disk(table, orphan));
    let rebuilt = scene.rebuild();
    assert!(rebuilt_segments(&rebuilt).is_empty());
    let key = live_segments(&view(&scene.state))[&lost].key();
    assert_eq!(rebuilt.doubts, [Doubt::NoCopy { segment: key, rows: 10 }]);
}

#[test]
fn a_log_that_was_made_again_outranks_a_longer_one_of_before() {
    let mut scene = Scene::new();
    let old = scene.create(1, "old");
    for _ in 0..5 {
        scene.append(old, 10, &[0, 1]);
    }
    scene.tell(&[0, 1, 2]);
    let mut again = Scene::new();
    again.log_epoch = 2;
    for (new, before) in again.workers.iter_mut().zip(&scene.workers) {
        new.cluster = before.cluster;
    }
    again.create(1, "new");
    again.tell(&[0, 1]);
    // A worker that was away meanwhile.
    let mut workers = again.workers;
    workers.truncate(2);
    workers.push(scene.workers.swap_remove(2));
    let rebuilt = rebuild(&workers).unwrap();
    assert_eq!(rebuilt.tables[0].definition.name, "new");
    assert_eq!(rebuilt.log_epoch, LogEpoch(3));
}

#[test]
fn workers_of_two_clusters_or_logs_and_none_with_records_are_refused() {
    let mut scene = Scene::new();
    assert!(rebuild(&[]).is_err());
    assert!(rebuild(&scene.workers).is_err());
    scene.tell(&[0, 1, 2]);
    let same = [scene.workers[0].clone(), scene.workers[0].clone()];
    assert!(rebuild(&same).unwrap_err().to_string().contains("twice"));
    let mut two = scene.workers.clone();
    two[1].cluster = ClusterId::generate();
    assert!(rebuild(&two).unwrap_err().to_string().contains("cluster"));
    let mut forked = scene.workers.clone();
    forked[1].at.as_mut().unwrap().hash = Digest::of(b"another");
    assert!(rebuild(&forked).unwrap_err().to_string().contains("another one"));
}

#[test]
fn a_catalog_that_was_written_opens_with_what_was_rebuilt() {
    let mut scene = Scene::new();
    let table = scene.create(1, "t");
    let segment = scene.append(table, 10, &[0, 1]);
    scene.delete(table, segment, &[7]);
    scene.tell(&[0, 1, 2]);
    let mut rebuilt = scene.rebuild();
    rebuilt.log_epoch = LogEpoch(7);
    let dir = tempfile::tempdir().unwrap();
    let secret = ClusterSecret::generate().unwrap();
    found(dir.path(), &secret, &rebuilt).unwrap();
    let again = found(dir.path(), &secret, &rebuilt).unwrap_err();
    assert!(matches!(again, CatalogError::ClusterExists { .. }), "{again}");
    let catalog = Catalog::open(dir.path()).unwrap();
    check_same(&rebuilt, &catalog.commit_view());
    assert_eq!(*catalog.cluster(), rebuilt.cluster);
    assert_eq!(catalog.log_status().log_epoch, LogEpoch(7));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let id = runtime.block_on(catalog.allocate_table_id()).unwrap();
    assert!(id.0 >= rebuilt.next_table, "ids are never used again");
    drop(catalog);
    let report = basalt_coordinator::catalog::verify(dir.path()).unwrap();
    assert!(report.is_sound(), "{:?}", report.problems);
}

/// What happens next in a random history.
#[derive(Debug, Clone)]
enum Step {
    Create,
    Append { table: usize, holders: [usize; 2] },
    Delete { segment: usize, row: u32 },
    Drop { table: usize },
    Move { segment: usize, to: usize },
    Tell { places: Vec<usize> },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let holders = prop::sample::select(vec![[0, 1], [1, 2], [2, 0]]);
    let step = prop_oneof![
        1 => Just(Step::Create),
        4 => (0usize..4, holders).prop_map(|(table, holders)| Step::Append { table, holders }),
        3 => (0usize..9, 0u32..10).prop_map(|(segment, row)| Step::Delete { segment, row }),
        1 => (0usize..4).prop_map(|table| Step::Drop { table }),
        2 => (0usize..9, 0usize..3).prop_map(|(segment, to)| Step::Move { segment, to }),
        4 => prop::sample::subsequence(vec![0, 1, 2], 0..=3)
            .prop_map(|places| Step::Tell { places }),
    ];
    prop::collection::vec(step, 1..40)
}

impl Scene {
    fn step(&mut self, step: Step) {
        let now = view(&self.state);
        let tables: Vec<_> = all_tables(&now).iter().map(|table| table.id).collect();
        let segments: Vec<_> = live_segments(&now).into_values().collect();
        match step {
            Step::Create => {
                let id = self.state.version();
                if id < 60 {
                    self.create(id, &format!("t{id}"));
                }
            }
            Step::Append { table, holders } => {
                if let Some(table) = tables.get(table) {
                    self.append(*table, 10, &holders);
                }
            }
            Step::Delete { segment, row } => {
                let Some(record) = segments.get(segment) else { return };
                let row_is_there = DeleteVector::from_positions([row]).unwrap();
                let before = record.deleted.as_ref();
                if before.is_none_or(|before| before.rows_in_common(&row_is_there) == 0) {
                    self.delete(record.table, record.segment, &[row]);
                }
            }
            Step::Drop { table } => {
                if let Some(table) = tables.get(table) {
                    self.commit(vec![Change::DropTable { table: *table, version: None }]);
                }
            }
            Step::Move { segment, to } => {
                let Some(record) = segments.get(segment) else { return };
                let place = |id: &WorkerId| self.workers.iter().position(|w| w.worker == *id);
                let from = place(&record.holders[0]).unwrap();
                if !record.holders.contains(&self.workers[to].worker) {
                    self.move_copy(record.table, record.segment, from, to);
                }
            }
            Step::Tell { places } => self.tell(&places),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_rebuilt_is_the_newest_known_commit_or_says_what_is_not(steps in steps()) {
        let mut scene = Scene::new();
        scene.tell(&[0, 1, 2]);
        for step in steps {
            scene.step(step);
        }
        let rebuilt = scene.rebuild();
        let newest = scene.workers.iter().filter_map(|worker| worker.at).map(|at| at.seq).max();
        prop_assert_eq!(rebuilt.at, scene.mark(newest.unwrap()));
        let then = &scene.history[&newest.unwrap()];
        let (found, expected) = (rebuilt_segments(&rebuilt), live_segments(then));
        let unsure: BTreeSet<_> = rebuilt.doubts.iter().filter_map(|doubt| match doubt {
            Doubt::NoRecord { segment, .. } => Some(*segment),
            Doubt::NoCopy { segment, .. }
            | Doubt::CopyElsewhere { segment, .. }
            | Doubt::OtherDeletes { segment, .. } => Some(segment.segment),
            _ => None,
        }).collect();
        for (id, record) in &found {
            let Some(right) = expected.get(id) else {
                return Err(TestCaseError::fail(format!("{id} came back")));
            };
            prop_assert!(unsure.contains(id) || record.deleted == right.deleted);
            for holder in &record.holders {
                let worker = scene.workers.iter().find(|worker| worker.worker == *holder).unwrap();
                prop_assert!(worker.on_disk.contains_key(id));
            }
        }
        for id in expected.keys() {
            prop_assert!(found.contains_key(id) || unsure.contains(id), "{} is lost", id);
        }
        if scene.workers.iter().all(|worker| worker.at == Some(rebuilt.at)) {
            prop_assert_eq!(&rebuilt.doubts, &vec![]);
            prop_assert_eq!(found, expected);
            check_same(&rebuilt, then);
        }
    }

    #[test]
    fn differences_add_up_to_the_whole_state(steps in steps()) {
        let mut scene = Scene::new();
        for step in steps {
            scene.step(step);
        }
        scene.tell(&[0, 1, 2]);
        for worker in &scene.workers {
            let mut whole = KnownCatalog::default();
            for part in difference(None, &view(&scene.state), worker.worker) {
                whole.apply(part);
            }
            // What is gone is remembered as far back as the records go.
            let known = KnownCatalog {
                gone: BTreeSet::new(), tables_gone: BTreeSet::new(), ..worker.known.clone()
            };
            prop_assert_eq!(known, whole);
        }
    }
}
