//! What lies on disks beside a rebuilt catalog, and the tables that come of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use basalt_coordinator::catalog::commit_record::{KnownCatalog, Part, difference};
use basalt_coordinator::catalog::rebuild::salvage::{FoundSegment, Orphan, orphans, salvage};
use basalt_coordinator::catalog::rebuild::{Rebuilt, RebuiltTable, found};
use basalt_coordinator::catalog::{Catalog, Change};
use basalt_engine::secret::ClusterSecret;
use basalt_storage::digest::Digest;
use basalt_storage::ids::{ClusterId, ColumnId, SegmentId, SliceId, TableId, TxnId, WorkerId};
use basalt_storage::schema::{Column, TableSchema};
use basalt_storage::segment_writer::{EncodedSegment, SegmentSpec, SegmentWriter, WriterOptions};

use super::rebuild::{Scene, all_tables, table};

fn column(id: u32, name: &str, data_type: DataType) -> Column {
    let (id, name, declared) = (ColumnId(id), name.to_owned(), Default::default());
    Column { id, name, data_type, nullable: false, declared }
}

/// A segment as a worker wrote it.
fn written(cluster: ClusterId, table: TableId, slice: u16, columns: Vec<Column>) -> EncodedSegment {
    let schema = Arc::new(TableSchema { version: 1, columns, keys: vec![] });
    let spec = SegmentSpec {
        cluster,
        table,
        slice: SliceId(slice),
        segment: SegmentId::generate(),
        txn: TxnId::generate(),
        schema: Arc::clone(&schema),
        sort_key: vec![],
        holder: WorkerId::generate(),
    };
    let mut writer = SegmentWriter::new(spec, WriterOptions::default()).unwrap();
    let values = schema.columns.iter().map(|column| -> ArrayRef {
        match column.data_type {
            DataType::Int64 => Arc::new(Int64Array::from(vec![1, 2, 3])),
            _ => Arc::new(StringArray::from(vec!["a", "b", "c"])),
        }
    });
    writer.append(RecordBatch::try_new(schema.to_arrow(), values.collect()).unwrap()).unwrap();
    writer.encode().unwrap()
}

/// Puts a segment on the disks of some workers.
fn lay_down(scene: &mut Scene, segment: &EncodedSegment, places: &[usize]) {
    let meta = segment.meta();
    for place in places {
        let copy = (meta.key(), meta.layout());
        scene.workers[*place].on_disk.insert(meta.key().segment, copy);
    }
}

/// What is found where `segments` lie on disks.
fn look(scene: &Scene, rebuilt: &Rebuilt, segments: &[EncodedSegment]) -> Vec<FoundSegment> {
    let read = |orphan: Orphan| {
        let segment = segments.iter().find(|segment| segment.meta().key() == orphan.key)?;
        let meta_digest = Digest::of(segment.meta_bytes());
        Some(FoundSegment { worker: orphan.worker, meta: Arc::clone(segment.meta()), meta_digest })
    };
    orphans(&scene.workers, rebuilt).into_iter().filter_map(read).collect()
}

fn names(tables: &[RebuiltTable]) -> Vec<String> {
    let name =
        |table: &RebuiltTable| format!("{}.{}", table.definition.schema, table.definition.name);
    tables.iter().map(name).collect()
}

fn id_column() -> Vec<Column> {
    vec![column(1, "id", DataType::Int64)]
}

#[test]
fn what_no_record_names_becomes_tables_of_its_own() {
    let mut scene = Scene::new();
    let cluster = scene.workers[0].cluster;
    let orders = scene.create(1, "orders");
    scene.append(orders, 10, &[0, 1]);
    scene.tell(&[0, 1, 2]);
    let unknown = vec![column(1, "a", DataType::Int64), column(2, "b", DataType::Utf8)];
    let segments = [
        written(cluster, orders, 3, id_column()),
        written(cluster, orders, 5, id_column()),
        written(cluster, orders, 5, unknown.clone()),
        written(cluster, TableId(40), 0, unknown),
    ];
    for (segment, places) in segments.iter().zip([&[0, 2][..], &[1], &[1], &[0]]) {
        lay_down(&mut scene, segment, places);
    }
    let mut rebuilt = scene.rebuild();
    let before = rebuilt.clone();
    let found = look(&scene, &rebuilt, &segments);
    assert_eq!(found.len(), 5);
    salvage(&mut rebuilt, found);
    assert_eq!(
        names(&rebuilt.recovered.tables),
        ["recovered.public_orders", "recovered.public_orders_2", "recovered.table_40"]
    );
    assert_eq!(rebuilt.recovered.left, Vec::<String>::new());
    assert_eq!((&rebuilt.tables, &rebuilt.doubts), (&before.tables, &before.doubts));
    let tables = &rebuilt.recovered.tables;
    assert_eq!(tables[0].definition.columns, table(orders, "orders").columns);
    assert_eq!(tables[0].segments.len(), 2);
    let first = &segments[0];
    let record = tables[0].segments.iter().find(|s| s.segment == first.record().segment).unwrap();
    let holders = [scene.workers[0].worker, scene.workers[2].worker];
    assert_eq!(record.holders.iter().collect::<BTreeSet<_>>(), holders.iter().collect());
    let holders = record.holders.clone();
    let expected = basalt_storage::manifest::SegmentRecord { holders, ..first.record().clone() };
    assert_eq!(*record, expected, "a record from metadata is that of the writer");
    let columns: Vec<_> =
        tables[2].definition.columns.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(columns, ["a", "b"]);
    let ids: BTreeSet<_> = tables.iter().map(|table| table.definition.id).collect();
    assert!(ids.len() == 3 && ids.iter().all(|id| id.0 >= before.next_table));
}

#[test]
fn what_is_known_to_be_gone_is_not_salvaged() {
    let mut scene = Scene::new();
    let cluster = scene.workers[0].cluster;
    let (kept, dropped) = (scene.create(1, "kept"), scene.create(2, "dropped"));
    let live = scene.append(kept, 10, &[0, 1]);
    let gone = scene.append(dropped, 10, &[0, 1]);
    scene.tell(&[0, 1, 2]);
    scene.commit(vec![Change::DropTable { table: dropped, version: None }]);
    scene.tell(&[0, 1, 2]);
    let stray = written(cluster, dropped, 0, id_column());
    lay_down(&mut scene, &stray, &[2]);
    assert!(scene.workers[0].on_disk.contains_key(&live));
    assert!(scene.workers[0].on_disk.contains_key(&gone));
    assert_eq!(orphans(&scene.workers, &scene.rebuild()), []);
}

#[test]
fn what_belongs_elsewhere_is_left_and_named() {
    let mut scene = Scene::new();
    let cluster = scene.workers[0].cluster;
    scene.tell(&[0, 1, 2]);
    let foreign = written(ClusterId::generate(), TableId(9), 0, id_column());
    let outside = written(cluster, TableId(9), 999, id_column());
    let segments = [foreign, outside];
    for segment in &segments {
        lay_down(&mut scene, segment, &[0]);
    }
    let mut rebuilt = scene.rebuild();
    let found = look(&scene, &rebuilt, &segments);
    salvage(&mut rebuilt, found);
    assert_eq!(names(&rebuilt.recovered.tables), Vec::<String>::new());
    assert_eq!(rebuilt.recovered.left.len(), 2, "{:?}", rebuilt.recovered.left);
    assert!(!rebuilt.schemas.contains("recovered"));
}

#[test]
fn of_copies_that_differ_the_one_that_most_workers_have_is_taken() {
    let mut scene = Scene::new();
    let cluster = scene.workers[0].cluster;
    scene.tell(&[0, 1, 2]);
    let segment = written(cluster, TableId(9), 0, id_column());
    lay_down(&mut scene, &segment, &[0, 1, 2]);
    let mut rebuilt = scene.rebuild();
    let mut found = look(&scene, &rebuilt, std::slice::from_ref(&segment));
    found[1].meta_digest = Digest::of(b"another");
    salvage(&mut rebuilt, found);
    let record = &rebuilt.recovered.tables[0].segments[0];
    assert_eq!(record.meta_digest, Digest::of(segment.meta_bytes()));
    assert_eq!(record.holders.len(), 2);
    assert!(rebuilt.recovered.left[0].contains("differ"), "{:?}", rebuilt.recovered.left);
}

#[test]
fn salvaged_tables_are_tables_and_survive_another_rebuild() {
    let mut scene = Scene::new();
    let cluster = scene.workers[0].cluster;
    let orders = scene.create(1, "orders");
    scene.append(orders, 10, &[0, 1]);
    scene.tell(&[0, 1, 2]);
    let segments =
        [written(cluster, orders, 0, id_column()), written(cluster, TableId(9), 0, id_column())];
    segments.iter().for_each(|segment| lay_down(&mut scene, segment, &[0, 1]));
    let mut rebuilt = scene.rebuild();
    let salvaged = look(&scene, &rebuilt, &segments);
    salvage(&mut rebuilt, salvaged);
    let dir = tempfile::tempdir().unwrap();
    found(dir.path(), &ClusterSecret::generate().unwrap(), &rebuilt).unwrap();
    let catalog = Catalog::open(dir.path()).unwrap();
    let after = catalog.commit_view();
    let in_recovered = |view| {
        let tables = all_tables(view);
        let tables = tables.into_iter().filter(|table| table.schema_name == "recovered");
        tables.map(|table| (table.name.clone(), table.segments.len())).collect::<Vec<_>>()
    };
    let both = [("public_orders".to_owned(), 1), ("table_9".to_owned(), 1)];
    assert_eq!(in_recovered(&after), both);

    // Workers are told of it, and of a table that goes while its salvaged segments stay.
    for worker in &mut scene.workers {
        let mut known = KnownCatalog::default();
        for part in difference(None, &after, worker.worker) {
            known.apply(Part::decode(&part.encode().unwrap()).unwrap());
        }
        known.apply(Part::decode(br#"{"format": 1, "tables_gone": [1]}"#).unwrap());
        (worker.known, worker.log_epoch) = (known, rebuilt.log_epoch);
        if let Some(at) = &mut worker.at {
            (at.log_epoch, at.seq) = (rebuilt.log_epoch, after.version);
        }
    }
    let again = scene.rebuild();
    assert_eq!(names(&again.tables), ["recovered.public_orders", "recovered.table_9"]);
    assert_eq!(again.doubts, []);
    let dir = tempfile::tempdir().unwrap();
    found(dir.path(), &ClusterSecret::generate().unwrap(), &again).unwrap();
    assert_eq!(in_recovered(&Catalog::open(dir.path()).unwrap().commit_view()), both);
}
