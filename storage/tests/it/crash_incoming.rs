//! A power failure, a full disk and a failing disk at every step of taking segments and files in.
//!
//! What must hold: a name has what it had before, or nothing, or the right content; metadata that
//! was not good before is there only where every file is good; once acknowledged, all is good.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use basalt_storage::Result;
use basalt_storage::chunk_store::{ChunkStore, ReadFrom, SegmentCheck};
use basalt_storage::segment_writer::EncodedSegment;
use basalt_storage::vfs::Vfs;

use crate::crash_vfs::{CrashVfs, Loss, Plan, Step};
use crate::support::{code, copy_of, encoded, open, send, send_files};

const LOSSES: [Loss; 5] =
    [Loss::All, Loss::Random(1), Loss::Random(2), Loss::Random(3), Loss::Random(4)];

/// A wide one and a packed one.
fn segments() -> [EncodedSegment; 2] {
    let column = |rows: i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(0..rows)) };
    [encoded(vec![column(65_536), column(65_536)]), encoded(vec![column(20), column(20)])]
}

fn store(vfs: &CrashVfs) -> Arc<ChunkStore> {
    Arc::new(open(Arc::new(vfs.clone())).unwrap())
}

fn check(store: &ChunkStore, segment: &EncodedSegment) -> SegmentCheck {
    store.check_segment(&copy_of(segment), ReadFrom::Media).unwrap()
}

/// Every file of a segment, by its full path, metadata last.
fn contents(segment: &EncodedSegment) -> Vec<(String, Vec<u8>)> {
    let record = segment.record();
    let meta = record.key().meta_path(record.layout);
    let files = segment.files().iter().map(|file| (file.path.clone(), &file.bytes));
    let files = files.chain([(meta, segment.meta_bytes())]);
    files.map(|(path, bytes)| (format!("/data/{}", path.display()), bytes.to_vec())).collect()
}

fn is_tmp_empty(vfs: &CrashVfs) -> bool {
    vfs.list(Path::new("/data/tmp")).unwrap().is_empty()
}

/// How a segment is damaged before it, or some files of it, are sent: content per file, the
/// metadata behind the last.
type Damage = Vec<(usize, Option<&'static [u8]>)>;

/// What is sent, to a disk in which state.
struct Case {
    segment: EncodedSegment,
    /// `None`: the segment was never there.
    damage: Option<Damage>,
    /// `None`: all of it.
    files: Option<Vec<usize>>,
}

impl Case {
    fn send(&self, store: &Arc<ChunkStore>) -> Result<()> {
        match &self.files {
            None => send(store, &self.segment),
            Some(files) => send_files(store, &self.segment, files),
        }
    }

    /// A disk in that state, and a store on it.
    fn start(&self) -> (CrashVfs, Arc<ChunkStore>) {
        let vfs = CrashVfs::new();
        let store = store(&vfs);
        if let Some(damage) = &self.damage {
            store.publish(vec![self.segment.clone()]).unwrap();
            for (file, content) in damage {
                vfs.put(&contents(&self.segment)[*file].0, *content);
            }
        }
        vfs.plan(Plan::default());
        (vfs, store)
    }

    fn steps(&self) -> usize {
        let (vfs, store) = self.start();
        self.send(&store).unwrap();
        assert!(check(&store, &self.segment).is_good());
        assert!(is_tmp_empty(&vfs));
        vfs.counts().0
    }

    /// What is under `chunks/` is what may be there.
    fn check_state(&self, vfs: &CrashVfs, store: &ChunkStore, acknowledged: bool, when: &str) {
        let (before, _) = self.start();
        let before = before.files("/data/chunks");
        let now = vfs.files("/data/chunks");
        let good: BTreeMap<_, _> = contents(&self.segment).into_iter().collect();
        for (path, content) in &now {
            let right = good.get(path) == Some(content) || before.get(path) == Some(content);
            assert!(right, "{when}: {path}");
        }
        for (path, content) in &good {
            // What was good is never touched.
            if before.get(path) == Some(content) {
                assert!(now.get(path) == Some(content), "{when}: {path}");
            }
        }
        let found = check(store, &self.segment);
        let meta = &contents(&self.segment).pop().unwrap();
        if before.get(&meta.0) != Some(&meta.1) {
            assert!(found.is_good() || found.is_meta_bad(), "{when}: {found:?}");
        }
        assert!(found.is_good() || !acknowledged, "{when}: {found:?}");
    }
}

fn cases() -> Vec<Case> {
    const ROTTEN: Option<&[u8]> = Some(b"rotten");
    let [wide, packed] = segments();
    let mut cases = Vec::new();
    let mut add = |segment: &EncodedSegment, damage: Option<Damage>, files: Option<Vec<usize>>| {
        cases.push(Case { segment: segment.clone(), damage, files });
    };
    // The metadata is file 2 of the wide one, file 1 of the packed one.
    for segment in [&wide, &packed] {
        let meta = segment.files().len();
        add(segment, None, None);
        for damage in [vec![], vec![(0, ROTTEN)], vec![(0, None)], vec![(meta, ROTTEN)]] {
            add(segment, Some(damage), None);
        }
        add(segment, Some(vec![(0, ROTTEN), (meta, None)]), None);
        add(segment, Some(vec![(0, ROTTEN)]), Some(vec![0]));
        add(segment, Some(vec![(0, None)]), Some(vec![0]));
        add(segment, Some(vec![(meta, ROTTEN)]), Some(vec![]));
        add(segment, Some(vec![(meta, None), (0, ROTTEN)]), Some(vec![0]));
    }
    add(&wide, Some(vec![(0, ROTTEN), (1, None)]), None);
    add(&wide, Some(vec![(0, ROTTEN), (1, None)]), Some(vec![0, 1]));
    add(&wide, Some(vec![(0, ROTTEN), (1, ROTTEN), (2, ROTTEN)]), Some(vec![0, 1]));
    cases
}

#[test]
fn a_power_failure_at_any_step_leaves_what_was_or_what_is_to_be_or_nothing() {
    for (number, case) in cases().iter().enumerate() {
        for step in 1..=case.steps() + 1 {
            let (vfs, first) = case.start();
            vfs.plan(Plan { freeze_at: Some(step), ..Plan::default() });
            let acknowledged = case.send(&first).is_ok();
            for loss in LOSSES {
                let when = format!("case {number}, step {step}, {loss:?}");
                let disk = vfs.crash(loss);
                let restarted = store(&disk);
                assert!(is_tmp_empty(&disk));
                case.check_state(&disk, &restarted, acknowledged, &when);
                // And the next try brings all of it, whatever the first one left.
                send(&restarted, &case.segment).unwrap();
                drop(restarted);
                let again = store(&disk.crash(Loss::All));
                assert!(check(&again, &case.segment).is_good(), "{when}");
            }
        }
    }
}

#[test]
fn a_process_that_dies_at_any_step_leaves_nothing_that_the_next_takes_for_durable() {
    for case in cases() {
        for step in 1..=case.steps() {
            let (vfs, first) = case.start();
            vfs.plan(Plan { freeze_at: Some(step), ..Plan::default() });
            let _ = case.send(&first);
            drop(first);
            // The file system goes on: what was written and not synced is there, and not safe.
            vfs.plan(Plan::default());
            let second = store(&vfs);
            send(&second, &case.segment).unwrap();
            drop(second);
            let restarted = store(&vfs.crash(Loss::All));
            assert!(check(&restarted, &case.segment).is_good());
        }
    }
}

#[test]
fn what_is_confirmed_survives_also_where_the_process_before_died_at_any_step() {
    let mut confirmed = 0;
    for case in cases() {
        for step in 1..=case.steps() + 1 {
            let (vfs, first) = case.start();
            vfs.plan(Plan { freeze_at: Some(step), ..Plan::default() });
            let _ = case.send(&first);
            drop(first);
            vfs.plan(Plan::default());
            let second = store(&vfs);
            if second.confirm_segment(&copy_of(&case.segment)).unwrap().is_good() {
                confirmed += 1;
                drop(second);
                let restarted = store(&vfs.crash(Loss::All));
                assert!(check(&restarted, &case.segment).is_good(), "step {step}");
            }
        }
    }
    assert!(confirmed >= cases().len());
}

#[test]
fn a_full_or_failing_disk_at_any_step_is_an_error_and_leaves_nothing_half() {
    for (number, case) in cases().iter().enumerate() {
        for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
            for step in 1..=case.steps() {
                let when = format!("case {number}, step {step}, {kind:?}");
                let (vfs, store) = case.start();
                vfs.plan(Plan { fail_step: Some((step, kind)), ..Plan::default() });
                let sent = case.send(&store);
                let failed = vfs.failed().unwrap();
                vfs.plan(Plan::default());

                case.check_state(&vfs, &store, sent.is_ok(), &when);
                // Only tidying up may fail unnoticed.
                assert_eq!(sent.is_ok(), failed == Step::Remove, "{when}");
                assert!(is_tmp_empty(&vfs) || failed == Step::Remove, "{when}");
                let poisons = failed == Step::Sync && kind == ErrorKind::Other;
                assert_eq!(store.is_writable(), !poisons, "{when}");
                if poisons {
                    assert_eq!(code(send(&store, &case.segment)), "READ_ONLY");
                } else {
                    send(&store, &case.segment).unwrap();
                    assert!(check(&store, &case.segment).is_good(), "{when}");
                }
            }
        }
    }
}

#[test]
fn a_new_segment_that_fails_is_not_there_at_all() {
    // A pack stays where the last sync fails: a crash may bring the metadata back, never alone.
    for (segment, left_expected) in segments().into_iter().zip([0, 1]) {
        let case = Case { segment, damage: None, files: None };
        let mut left = 0;
        for step in 1..=case.steps() {
            let (vfs, store) = case.start();
            let fail_step = Some((step, ErrorKind::StorageFull));
            vfs.plan(Plan { fail_step, ..Plan::default() });
            if case.send(&store).is_err() && !vfs.files("/data/chunks").is_empty() {
                left += 1;
                let found = check(&store, &case.segment);
                assert!(found.is_meta_bad() && !found.missing, "step {step}");
            }
        }
        assert_eq!(left, left_expected);
    }
}

#[test]
fn the_model_sees_a_directory_sync_that_is_left_out() {
    for segment in segments() {
        let vfs = CrashVfs::new();
        let first = store(&vfs);
        vfs.plan(Plan { forget_dir_syncs: true, ..Plan::default() });
        send(&first, &segment).unwrap();
        assert!(check(&store(&vfs.crash(Loss::All)), &segment).missing);
    }
}

#[test]
fn each_file_is_synced_once_and_metadata_of_a_packed_one_after_its_pack() {
    let [wide, packed] = segments();
    for (segment, files, dirs) in [(wide, 3, 2), (packed, 2, 2)] {
        let vfs = CrashVfs::new();
        let store = store(&vfs);
        // Makes the directories of table and slice.
        store
            .publish(vec![encoded(vec![Arc::new(Int64Array::from(vec![1])) as ArrayRef])])
            .unwrap();
        vfs.plan(Plan::default());
        send(&store, &segment).unwrap();
        let (_, file_syncs, dir_syncs) = vfs.counts();
        assert_eq!((file_syncs, dir_syncs), (files, dirs));
    }
}

#[test]
fn a_segment_that_only_the_cache_takes_for_good_is_replaced() {
    for segment in segments() {
        let vfs = CrashVfs::new();
        let first = store(&vfs);
        send(&first, &segment).unwrap();
        for (path, _) in contents(&segment) {
            vfs.damage_disk(&path, 20);
        }
        send(&first, &segment).unwrap();
        drop(first);
        assert!(check(&store(&vfs.crash(Loss::All)), &segment).is_good());
    }
}
