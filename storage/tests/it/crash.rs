//! A power failure at every step of a publication: all of it, or nothing that a commit names.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::DataType;
use basalt_storage::chunk_store::ChunkStore;
use basalt_storage::segment_writer::EncodedSegment;

use crate::crash_vfs::{CrashVfs, Loss, Plan};
use crate::support::{code, encoded, open, read_column};

/// Two wide segments and two packed ones, of one transaction.
fn segments() -> Vec<EncodedSegment> {
    let column = |rows: i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(0..rows)) };
    vec![
        encoded(vec![column(65_536), column(65_536)]),
        encoded(vec![column(10)]),
        encoded(vec![column(65_536)]),
        encoded(vec![column(20), column(20)]),
    ]
}

fn store(vfs: &CrashVfs) -> ChunkStore {
    open(Arc::new(vfs.clone())).unwrap()
}

/// What each file of the segments must contain, by its full path.
fn expected_files(segments: &[EncodedSegment]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for segment in segments {
        let record = segment.record();
        let meta = record.key().meta_path(record.layout);
        files.insert(format!("/data/{}", meta.display()), segment.meta_bytes().to_vec());
        for file in segment.files() {
            files.insert(format!("/data/{}", file.path.display()), file.bytes.to_vec());
        }
    }
    files
}

/// Every segment reads back to its last row.
fn check_all_there(store: &ChunkStore, segments: &[EncodedSegment]) {
    for segment in segments {
        let rows = read_column(store, segment.record(), 1, &DataType::Int64).unwrap().len();
        assert_eq!(rows as u64, segment.record().rows);
    }
}

const LOSSES: [Loss; 4] = [Loss::All, Loss::Random(1), Loss::Random(2), Loss::Random(3)];

/// How many steps a publication takes without a failure.
fn steps_of_a_publication(segments: &[EncodedSegment]) -> usize {
    let vfs = CrashVfs::new();
    let store = store(&vfs);
    vfs.plan(Plan::default());
    store.publish(segments.to_vec()).unwrap();
    vfs.counts().0
}

#[test]
fn a_power_failure_at_any_step_leaves_all_or_nothing() {
    let segments = segments();
    let expected = expected_files(&segments);
    for step in 1..=steps_of_a_publication(&segments) + 1 {
        let vfs = CrashVfs::new();
        let first = store(&vfs);
        vfs.plan(Plan { freeze_at: Some(step), ..Plan::default() });
        let acknowledged = first.publish(segments.clone()).is_ok();
        for loss in LOSSES {
            let disk = vfs.crash(loss);
            let restarted = store(&disk);
            assert!(disk.files("/data/tmp").is_empty());
            if acknowledged {
                check_all_there(&restarted, &segments);
            }
            // What has its final name is complete, acknowledged or not.
            for (path, content) in disk.files("/data/chunks") {
                assert!(expected[&path] == content, "step {step}, {loss:?}: {path}");
            }
            // And the store works.
            let more = vec![encoded(vec![Arc::new(Int64Array::from(vec![1])) as ArrayRef])];
            restarted.publish(more.clone()).unwrap();
            drop(restarted);
            check_all_there(&store(&disk.crash(Loss::All)), &more);
        }
    }
}

#[test]
fn a_power_failure_at_any_step_of_the_first_open_is_survived() {
    let vfs = CrashVfs::new();
    drop(store(&vfs));
    let steps = vfs.counts().0;
    for step in 1..=steps {
        let vfs = CrashVfs::new();
        vfs.plan(Plan { freeze_at: Some(step), ..Plan::default() });
        let _ = open(Arc::new(vfs.clone()));
        for loss in LOSSES {
            let disk = vfs.crash(loss);
            drop(store(&disk));
            // Once opened, it stays what it is.
            store(&disk.crash(Loss::All));
        }
    }
}

#[test]
fn the_model_sees_a_directory_sync_that_is_left_out() {
    let segments = segments();
    let vfs = CrashVfs::new();
    let first = store(&vfs);
    vfs.plan(Plan { forget_dir_syncs: true, ..Plan::default() });
    first.publish(segments.clone()).unwrap();
    let restarted = store(&vfs.crash(Loss::All));
    assert_eq!(code(restarted.segment_meta(segments[0].record())), "MISSING");
}

#[test]
fn a_publication_syncs_each_file_and_each_directory_once() {
    let vfs = CrashVfs::new();
    let store = store(&vfs);
    vfs.plan(Plan::default());
    store.publish(segments()).unwrap();
    let (_, files, dirs) = vfs.counts();
    // 3 + 2 + 2 + 2 files with metadata; staged directories of the 2 wide segments, the new
    // table's and slice's parents, and the slice.
    assert_eq!((files, dirs), (9, 5));

    vfs.plan(Plan::default());
    store.publish(segments()).unwrap();
    let (_, files, dirs) = vfs.counts();
    assert_eq!((files, dirs), (9, 3));
}

#[test]
fn a_failed_sync_fails_the_write_and_ends_all_writing() {
    let segments = segments();
    for sync in 1..=14 {
        let vfs = CrashVfs::new();
        let store = store(&vfs);
        vfs.plan(Plan { fail_sync: Some((sync, io::ErrorKind::Other)), ..Plan::default() });
        assert_eq!(code(store.publish(segments.clone())), "IO", "sync {sync}");
        assert_eq!(code(store.publish(segments.clone())), "READ_ONLY");
        assert!(vfs.files("/data/chunks").is_empty());
        assert!(vfs.files("/data/tmp").is_empty());
    }
}

#[test]
fn a_full_disk_fails_the_write_and_nothing_more() {
    let segments = segments();
    for sync in 1..=14 {
        let vfs = CrashVfs::new();
        let store = store(&vfs);
        vfs.plan(Plan { fail_sync: Some((sync, io::ErrorKind::StorageFull)), ..Plan::default() });
        let error = store.publish(segments.clone()).unwrap_err();
        assert!(error.is_retryable(), "{error}");
        vfs.plan(Plan::default());
        store.publish(segments.clone()).unwrap();
        check_all_there(&store, &segments);
    }
}
