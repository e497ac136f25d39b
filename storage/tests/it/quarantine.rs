//! What is taken out of the way is kept, within bounds, and does not come back.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use basalt_storage::chunk_store::{
    ChunkStore, QUARANTINE_BYTES_MAX, QUARANTINE_FILES_MAX, ReadFrom,
};
use basalt_storage::segment_writer::EncodedSegment;
use basalt_storage::vfs::RealVfs;
use uuid::Uuid;

use crate::crash_vfs::{CrashVfs, Loss, Plan};
use crate::support::{IDENTITY, TestStore, code, copy_of, encoded, open, send};

fn segment(rows: i64) -> EncodedSegment {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    encoded(vec![column.clone(), column])
}

fn quarantine(store: &ChunkStore, segment: &EncodedSegment) -> basalt_storage::Result<()> {
    store.quarantine_segment(segment.record().key(), segment.record().layout)
}

fn names(test: &TestStore) -> Vec<String> {
    let entries = fs::read_dir(test.dir.path().join("quarantine")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_segment_in_quarantine_is_whole_and_not_here_any_more() {
    for (rows, files) in [(65_536, 1), (10, 2)] {
        let (test, segment) = (TestStore::new(), segment(rows));
        test.store.publish(vec![segment.clone()]).unwrap();
        quarantine(&test.store, &segment).unwrap();
        assert_eq!(test.store.list_segments().unwrap(), []);
        assert!(test.store.check_segment(&copy_of(&segment), ReadFrom::Cache).unwrap().missing);
        let names = names(&test);
        assert_eq!(names.len(), files);
        let told = format!("-7.3.{}", segment.record().segment);
        assert!(names.iter().all(|name| name.contains(&told)), "{names:?}");
        if files == 1 {
            let kept = test.dir.path().join("quarantine").join(&names[0]);
            for file in segment.files() {
                let name = file.path.file_name().unwrap();
                assert_eq!(fs::read(kept.join(name)).unwrap(), file.bytes);
            }
        }
        // It may come again, and go again.
        send(&test.store, &segment).unwrap();
        quarantine(&test.store, &segment).unwrap();
        assert_eq!(self::names(&test).len(), 2 * files);
    }
}

#[test]
fn what_is_not_here_needs_no_quarantine() {
    let test = TestStore::new();
    for rows in [65_536, 10] {
        quarantine(&test.store, &segment(rows)).unwrap();
    }
    assert_eq!(names(&test), [""; 0]);
}

#[test]
fn a_segment_in_quarantine_stays_there_over_a_power_failure() {
    for rows in [65_536, 10] {
        let vfs = CrashVfs::new();
        let store = open(Arc::new(vfs.clone())).unwrap();
        let segment = segment(rows);
        store.publish(vec![segment.clone()]).unwrap();
        quarantine(&store, &segment).unwrap();
        let disk = vfs.crash(Loss::All);
        assert!(disk.files("/data/chunks").is_empty());
        assert_eq!(disk.files("/data/quarantine").len(), segment.files().len() + 1);
    }
}

/// After a power failure at any step of taking a segment away.
fn check_taken_away(take: impl Fn(&ChunkStore, &EncodedSegment) -> basalt_storage::Result<()>) {
    for segment in [segment(65_536), segment(10)] {
        for step in 1..=8 {
            let vfs = CrashVfs::new();
            let store = open(Arc::new(vfs.clone())).unwrap();
            store.publish(vec![segment.clone()]).unwrap();
            vfs.plan(Plan { freeze_at: Some(step), ..Plan::default() });
            let _ = take(&store, &segment);
            for loss in [Loss::All, Loss::Random(1), Loss::Random(2), Loss::Random(3)] {
                let restarted = open(Arc::new(vfs.crash(loss))).unwrap();
                let found = restarted.check_segment(&copy_of(&segment), ReadFrom::Cache).unwrap();
                assert!(found.is_good() || found.is_meta_bad(), "step {step}: {found:?}");
                take(&restarted, &segment).unwrap();
                assert_eq!(restarted.list_segments().unwrap(), []);
            }
        }
    }
}

#[test]
fn a_power_failure_leaves_a_segment_whole_or_without_its_metadata() {
    check_taken_away(quarantine);
    check_taken_away(|store, segment| {
        store.remove_segment(segment.record().key(), segment.record().layout)
    });
}

#[test]
fn the_oldest_go_when_there_are_too_many() {
    let vfs = CrashVfs::new();
    let store = open(Arc::new(vfs.clone())).unwrap();
    // Names sort by age.
    let old: Vec<String> = (0..QUARANTINE_FILES_MAX)
        .map(|_| format!("/data/quarantine/{}-7.3.old", Uuid::now_v7().as_simple()))
        .collect();
    old.iter().for_each(|path| vfs.put(path, Some(b"bad")));
    let segment = segment(10);
    store.publish(vec![segment.clone()]).unwrap();
    quarantine(&store, &segment).unwrap();
    let kept: Vec<String> = vfs.files("/data/quarantine").into_keys().collect();
    assert_eq!(kept.len() as u64, QUARANTINE_FILES_MAX);
    assert_eq!(kept[..kept.len() - 2], old[2..]);
    assert!(kept[kept.len() - 2].ends_with(".pack.meta"));
}

/// Quarantines a segment with a file that says it is this long, without having the bytes.
fn quarantine_long(test: &TestStore, bytes: u64) {
    let segment = segment(10);
    test.store.publish(vec![segment.clone()]).unwrap();
    let path = test.dir.path().join(&segment.files()[0].path);
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(bytes).unwrap();
    quarantine(&test.store, &segment).unwrap();
}

#[test]
fn the_oldest_go_when_they_are_too_large_and_the_newest_stays() {
    let test = TestStore::new();
    let foreign = test.dir.path().join("quarantine/notes.txt");
    fs::write(&foreign, "look at this one").unwrap();
    quarantine_long(&test, QUARANTINE_BYTES_MAX / 2);
    quarantine_long(&test, QUARANTINE_BYTES_MAX / 4);
    assert_eq!(names(&test).len(), 2 * 2 + 1);
    quarantine_long(&test, QUARANTINE_BYTES_MAX / 2);
    // The first pack is gone, and its metadata, which is older.
    assert_eq!(names(&test).len(), 2 * 2 + 1);
    quarantine_long(&test, 3 * QUARANTINE_BYTES_MAX);
    let names = names(&test);
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0].ends_with(".pack.parquet"));
    assert!(foreign.try_exists().unwrap());
}

#[test]
fn a_store_that_takes_no_writes_moves_nothing() {
    let vfs = CrashVfs::new();
    let store = open(Arc::new(vfs.clone())).unwrap();
    let segment = segment(10);
    store.publish(vec![segment.clone()]).unwrap();
    let fail_sync = Some((1, std::io::ErrorKind::Other));
    vfs.plan(Plan { fail_sync, ..Plan::default() });
    assert!(store.is_writable());
    assert_eq!(code(store.publish(vec![self::segment(10)])), "IO");
    assert!(!store.is_writable());
    assert_eq!(code(quarantine(&store, &segment)), "READ_ONLY");
    assert!(store.check_segment(&copy_of(&segment), ReadFrom::Media).unwrap().is_good());
}

#[test]
fn used_bytes_are_those_of_all_files_of_segments() {
    let test = TestStore::new();
    assert_eq!(test.store.used_bytes().unwrap(), 0);
    let segments = [segment(10), segment(65_536)];
    test.store.publish(segments.to_vec()).unwrap();
    let bytes = |s: &EncodedSegment| s.record().bytes + s.meta_bytes().len() as u64;
    assert_eq!(test.store.used_bytes().unwrap(), segments.iter().map(bytes).sum::<u64>());
    quarantine(&test.store, &segments[0]).unwrap();
    assert_eq!(test.store.used_bytes().unwrap(), bytes(&segments[1]));
    // Strangers count as what they are, as deep as the store nests, and hinder nothing.
    let deep = Path::new("lost+found/a/b/c/d");
    fs::create_dir_all(test.dir.path().join("chunks").join(deep)).unwrap();
    fs::write(test.dir.path().join("chunks/7/3/notes.txt"), "hello").unwrap();
    assert_eq!(test.store.used_bytes().unwrap(), bytes(&segments[1]) + 5);
}

#[test]
fn a_full_quarantine_opens() {
    let test = TestStore::new();
    quarantine_long(&test, 2 * QUARANTINE_BYTES_MAX);
    let TestStore { store, dir } = test;
    drop(store);
    ChunkStore::open(dir.path(), IDENTITY, Arc::new(RealVfs)).unwrap();
}
