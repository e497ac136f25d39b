//! The chunk store on a real disk: opening, identity, listing, removing, reading columns alone.

use std::fs;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::DataType;
use basalt_storage::chunk_store::{ChunkStore, Identity};
use basalt_storage::ids::WorkerId;
use basalt_storage::manifest::Layout;
use basalt_storage::segment_writer::EncodedSegment;
use basalt_storage::vfs::RealVfs;
use uuid::Uuid;

use crate::support::{IDENTITY, TestStore, code, encoded, read_column};

fn ints(rows: i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(0..rows))
}

fn reopen(test: TestStore, identity: Identity) -> basalt_storage::Result<ChunkStore> {
    let TestStore { store, dir } = test;
    drop(store);
    let result = ChunkStore::open(dir.path(), identity, Arc::new(RealVfs));
    drop(dir);
    result
}

#[test]
fn a_second_opener_is_refused() {
    let test = TestStore::new();
    let second = ChunkStore::open(test.dir.path(), IDENTITY, Arc::new(RealVfs));
    assert_eq!(code(second), "LOCKED");
}

#[test]
fn another_worker_is_refused_and_the_same_one_is_not() {
    let other = Identity { worker: WorkerId(Uuid::from_u128(1)), ..IDENTITY };
    assert_eq!(code(reopen(TestStore::new(), other)), "WRONG_IDENTITY");
    assert!(reopen(TestStore::new(), IDENTITY).is_ok());
}

#[test]
fn a_worker_keeps_the_id_that_was_reserved_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let reserved = ChunkStore::reserve_worker(dir.path(), &RealVfs).unwrap();
    assert_eq!(ChunkStore::reserve_worker(dir.path(), &RealVfs).unwrap(), reserved);
    let identity = Identity { worker: reserved, ..IDENTITY };
    drop(ChunkStore::open(dir.path(), identity, Arc::new(RealVfs)).unwrap());
    fs::remove_file(dir.path().join("WORKER_ID")).unwrap();
    assert_eq!(ChunkStore::reserve_worker(dir.path(), &RealVfs).unwrap(), reserved);
}

#[test]
fn a_worker_id_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("WORKER_ID"), "me").unwrap();
    assert_eq!(code(ChunkStore::reserve_worker(dir.path(), &RealVfs)), "CORRUPT");
}

#[test]
fn chunks_without_an_identity_are_not_taken_over() {
    let test = TestStore::new();
    test.store.publish(vec![encoded(vec![ints(10)])]).unwrap();
    fs::remove_file(test.dir.path().join("IDENTITY.json")).unwrap();
    assert_eq!(code(reopen(test, IDENTITY)), "CORRUPT");
}

#[test]
fn a_newer_data_directory_is_refused() {
    let test = TestStore::new();
    let path = test.dir.path().join("IDENTITY.json");
    let json = fs::read_to_string(&path).unwrap();
    fs::write(&path, json.replace("\"format_version\": 1", "\"format_version\": 2")).unwrap();
    let error = reopen(test, IDENTITY).unwrap_err();
    assert_eq!(error.code(), "NEWER_FORMAT");
    assert!(
        error.to_string().ends_with("has format version 2, this release reads versions up to 1")
    );
}

#[test]
fn leftovers_in_tmp_are_removed_at_open() {
    let test = TestStore::new();
    let left = test.dir.path().join("tmp/77/segment");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("c1.v1.parquet"), "half").unwrap();
    let TestStore { store, dir } = test;
    drop(store);
    ChunkStore::open(dir.path(), IDENTITY, Arc::new(RealVfs)).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn published_segments_are_listed_until_removed() {
    let test = TestStore::new();
    let segments = vec![encoded(vec![ints(10)]), encoded(vec![ints(70_000)])];
    let records = test.store.publish(segments).unwrap();
    let mut expected: Vec<_> = records.iter().map(|r| (r.key(), r.layout)).collect();
    expected.sort_by_key(|(key, _)| *key);
    assert_eq!(test.store.list_segments().unwrap(), expected);
    assert_eq!(fs::read_dir(test.dir.path().join("tmp")).unwrap().count(), 0);

    for record in &records {
        test.store.remove_segment(record.key(), record.layout).unwrap();
        test.store.remove_segment(record.key(), record.layout).unwrap();
        assert_eq!(code(test.store.segment_meta(record)), "MISSING");
    }
    assert_eq!(test.store.list_segments().unwrap(), []);
    let slice = test.dir.path().join("chunks/7/3");
    assert_eq!(fs::read_dir(slice).unwrap().count(), 0);
}

#[test]
fn entries_that_are_not_ours_are_passed_over() {
    let test = TestStore::new();
    let record = test.store.publish(vec![encoded(vec![ints(10)])]).unwrap().remove(0);
    let chunks = test.dir.path().join("chunks");
    fs::create_dir_all(chunks.join("07/3/0192f3a10192f3a10192f3a10192f3a1")).unwrap();
    fs::create_dir_all(chunks.join("7/3/lost+found")).unwrap();
    fs::write(chunks.join("7/3/notes.txt"), "hello").unwrap();
    assert_eq!(test.store.list_segments().unwrap(), [(record.key(), Layout::Packed)]);
}

#[test]
fn nothing_is_overwritten() {
    let test = TestStore::new();
    for rows in [10, 70_000] {
        let segment = encoded(vec![ints(rows)]);
        test.store.publish(vec![segment.clone()]).unwrap();
        assert_eq!(code(test.store.publish(vec![segment.clone()])), "IO");
        let read = read_column(&test.store, segment.record(), 1, &DataType::Int64).unwrap();
        assert_eq!(read.len() as i64, rows);
    }
}

#[test]
fn one_column_reads_without_the_files_of_the_others() {
    let test = TestStore::new();
    let record =
        test.store.publish(vec![encoded(vec![ints(70_000), ints(70_000), ints(70_000)])]).unwrap();
    let dir = test.dir.path().join(format!("chunks/7/3/{}", record[0].segment));
    for column in [1, 3] {
        fs::remove_file(dir.join(format!("c{column}.v1.parquet"))).unwrap();
    }
    let read = read_column(&test.store, &record[0], 2, &DataType::Int64).unwrap();
    assert_eq!(read.to_data(), arrow::array::Array::to_data(&ints(70_000)));
    assert_eq!(code(read_column(&test.store, &record[0], 1, &DataType::Int64)), "MISSING");
}

#[test]
fn a_segment_from_elsewhere_is_verified() {
    let segment = encoded(vec![ints(70_000), ints(70_000)]);
    let parts = |files| {
        EncodedSegment::from_parts(segment.record().clone(), segment.meta_bytes().clone(), files)
    };
    let store = TestStore::new();
    let received = parts(segment.files().to_vec()).unwrap();
    store.store.publish(vec![received]).unwrap();
    assert!(read_column(&store.store, segment.record(), 2, &DataType::Int64).is_ok());

    let mut files = segment.files().to_vec();
    let mut bytes = files[1].bytes.to_vec();
    bytes[100] ^= 1;
    files[1].bytes = bytes.into();
    assert_eq!(code(parts(files)), "CORRUPT");
    assert_eq!(code(parts(segment.files()[..1].to_vec())), "MISSING");
    let mut record = segment.record().clone();
    record.meta_digest = basalt_storage::digest::Digest::of(b"another");
    let other =
        EncodedSegment::from_parts(record, segment.meta_bytes().clone(), segment.files().to_vec());
    assert_eq!(code(other), "CORRUPT");
}

#[test]
fn free_space_is_known() {
    assert!(TestStore::new().store.free_space().unwrap() > 0);
}
