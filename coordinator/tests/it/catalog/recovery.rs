//! Opening a log that is not what was written: refused with the number of the record, never
//! skipped, never repaired by guessing.

use std::path::Path;

use basalt_coordinator::catalog::record::{Chain, FORMAT_VERSION, RawRecord};
use basalt_coordinator::catalog::{Catalog, CatalogError, Change, verify};
use basalt_storage::digest::Digest;
use basalt_storage::ids::{Epoch, LogEpoch};
use redb::{Database, ReadableDatabase, TableDefinition};
use tempfile::TempDir;

use super::fixtures::{Fixture, command, rows};

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// A closed catalog with a table and five appends: records 1 to 9.
async fn closed() -> (TempDir, String) {
    let fixture = Fixture::new().await;
    let table = fixture.create_table("t").await;
    for rows in 1..=5 {
        fixture.append(table, rows).await;
    }
    let seen = fixture.seen();
    (fixture.close(), seen)
}

const RECORDS: u64 = 9;

fn database(path: &Path) -> Database {
    Database::open(path.join("catalog.redb")).unwrap()
}

fn record(path: &Path, seq: u64) -> Vec<u8> {
    let db = database(path);
    let txn = db.begin_read().unwrap();
    let table = txn.open_table(LOG).unwrap();
    table.get(seq).unwrap().unwrap().value().to_vec()
}

/// Replaces or, with `None`, removes a stored value, as a faulty disk below redb would.
fn store_record(path: &Path, seq: u64, value: Option<&[u8]>) {
    let db = database(path);
    let txn = db.begin_write().unwrap();
    {
        let mut table = txn.open_table(LOG).unwrap();
        match value {
            Some(value) => table.insert(seq, value).unwrap().is_some(),
            None => table.remove(seq).unwrap().is_some(),
        };
    }
    txn.commit().unwrap();
}

fn edit_meta(path: &Path, key: &str, edit: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) {
    let db = database(path);
    let txn = db.begin_write().unwrap();
    {
        let mut table = txn.open_table(META).unwrap();
        let old = table.remove(key).unwrap().unwrap().value().to_vec();
        if let Some(new) = edit(old) {
            table.insert(key, new.as_slice()).unwrap();
        }
    }
    txn.commit().unwrap();
}

fn flipped(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    let at = at % bytes.len();
    bytes[at] ^= 0x10;
    bytes
}

/// Opening fails with this, and so does the offline check.
fn check_refused(path: &Path, message: &str) {
    let error = Catalog::open(path).err().expect("a damaged log was opened");
    assert!(error.to_string().contains(message), "{error}");
    let report = verify(path).unwrap();
    assert!(!report.is_sound());
    assert!(report.problems.iter().any(|problem| problem.contains(message)), "{report:?}");
}

fn check_opens(path: &Path, seen: &str) {
    let catalog = Catalog::open(path).unwrap();
    assert_eq!(format!("{:?} {:?}", catalog.snapshot(), catalog.cluster()), seen);
}

#[tokio::test]
async fn a_sound_catalog_passes_the_offline_check() {
    let (dir, seen) = closed().await;
    let report = verify(dir.path()).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.records, report.checkpoint), (RECORDS, Some(RECORDS)));
    assert_eq!((report.tables, report.segments, report.rows), (1, 5, 15));
    assert_eq!(report.epoch, Epoch(1));
    check_opens(dir.path(), &seen);
    assert_eq!(verify(dir.path()).unwrap(), report);
}

#[tokio::test]
async fn without_a_checkpoint_the_whole_log_is_replayed() {
    let (dir, seen) = closed().await;
    let before = verify(dir.path()).unwrap();
    edit_meta(dir.path(), "checkpoint", |_| None);
    check_opens(dir.path(), &seen);
    assert_eq!(verify(dir.path()).unwrap().state, before.state);
}

#[tokio::test]
async fn a_damaged_checkpoint_is_reported_and_costs_only_time() {
    let (dir, seen) = closed().await;
    for at in [0, 4, 8, 20, 60, 1000, usize::MAX] {
        edit_meta(dir.path(), "checkpoint", |bytes| {
            let at = at.min(bytes.len() - 1);
            Some(flipped(bytes, at))
        });
        let report = verify(dir.path()).unwrap();
        assert_eq!((report.records, report.checkpoint), (RECORDS, None));
        assert!(report.problems[0].contains("the checkpoint"), "{report:?}");
        // Closing writes a sound one again.
        check_opens(dir.path(), &seen);
    }
    edit_meta(dir.path(), "checkpoint", |bytes| Some(bytes[..40].to_vec()));
    check_opens(dir.path(), &seen);
}

#[tokio::test]
async fn a_flipped_byte_in_any_record_is_refused_by_its_number() {
    let (dir, seen) = closed().await;
    for seq in 1..=RECORDS {
        let sound = record(dir.path(), seq);
        let bad = flipped(sound.clone(), 7 + 41 * usize::try_from(seq).unwrap());
        store_record(dir.path(), seq, Some(&bad));
        check_refused(dir.path(), &format!("log record {seq} "));
        store_record(dir.path(), seq, Some(&sound));
    }
    check_opens(dir.path(), &seen);
}

#[tokio::test]
async fn every_single_flipped_byte_of_a_record_is_noticed() {
    let (dir, _) = closed().await;
    let mut chain = Chain::start();
    for seq in 1..=RECORDS {
        let sound = record(dir.path(), seq);
        for at in 0..sound.len() {
            let bad = flipped(sound.clone(), at);
            assert!(RawRecord::decode(seq, &bad).is_err(), "record {seq} byte {at}");
        }
        for length in 0..sound.len() {
            assert!(RawRecord::decode(seq, &sound[..length]).is_err(), "{length} bytes");
        }
        chain.follow(seq, &RawRecord::decode(seq, &sound).unwrap()).unwrap();
    }
}

#[tokio::test]
async fn a_gap_a_missing_tail_and_a_copied_record_are_refused() {
    let (dir, seen) = closed().await;
    let check = |seq: u64, value: Option<Vec<u8>>, message: &str| {
        let sound = record(dir.path(), seq);
        store_record(dir.path(), seq, value.as_deref());
        check_refused(dir.path(), message);
        store_record(dir.path(), seq, Some(&sound));
    };
    check(4, None, "log record 4 is missing: the next one is 5");
    check(1, None, "log record 1 is missing: the next one is 2");
    check(RECORDS, None, "log record 9 is missing at the end");
    check(5, Some(record(dir.path(), 4)), "log record 5 says it is record 4");
    check_opens(dir.path(), &seen);
    let last = record(dir.path(), RECORDS);
    store_record(dir.path(), RECORDS + 1, Some(&last));
    check_refused(dir.path(), "log record 10 says it is record 9");
}

#[tokio::test]
async fn a_well_formed_record_of_another_history_breaks_the_chain() {
    let (dir, _) = closed().await;
    let payload = |seq| {
        let record = record(dir.path(), seq);
        record[68..record.len() - 4].to_vec()
    };
    // The same commit written after another predecessor: its own checksum is right.
    let mut forged = Chain {
        seq: 4,
        epoch: Epoch(1),
        log_epoch: LogEpoch(0),
        hash: Digest::of(b"another record 4"),
    };
    let sound = record(dir.path(), 5);
    store_record(dir.path(), 5, Some(&forged.append(Epoch(1), LogEpoch(0), &payload(5)).unwrap()));
    check_refused(dir.path(), "log record 5 does not continue the one before it");

    // Record 5 rewritten to continue record 4: now record 6 does not continue it.
    let before = Chain {
        seq: 4,
        epoch: Epoch(1),
        log_epoch: LogEpoch(0),
        hash: Digest::of(&record(dir.path(), 4)),
    };
    let rewritten = before.clone().append(Epoch(1), LogEpoch(0), &payload(6)).unwrap();
    store_record(dir.path(), 5, Some(&rewritten));
    check_refused(dir.path(), "log record 6 does not continue the one before it");

    let back = before.clone().append(Epoch(0), LogEpoch(0), &payload(5)).unwrap();
    store_record(dir.path(), 5, Some(&back));
    check_refused(dir.path(), "log record 5 goes back from epoch 1 to 0");
    store_record(dir.path(), 5, Some(&sound));
    assert!(verify(dir.path()).unwrap().is_sound());
}

#[tokio::test]
async fn a_rewritten_last_record_does_not_match_the_head() {
    let (dir, _) = closed().await;
    let previous = record(dir.path(), RECORDS - 1);
    let mut chain = Chain {
        seq: RECORDS - 1,
        epoch: Epoch(1),
        log_epoch: LogEpoch(0),
        hash: Digest::of(&previous),
    };
    let payload = previous[68..previous.len() - 4].to_vec();
    store_record(
        dir.path(),
        RECORDS,
        Some(&chain.append(Epoch(1), LogEpoch(0), &payload).unwrap()),
    );
    let error = Catalog::open(dir.path()).err().unwrap();
    assert!(matches!(error, CatalogError::Corrupt { .. }), "{error}");
    assert!(!verify(dir.path()).unwrap().is_sound());
}

#[tokio::test]
async fn a_damaged_head_is_refused() {
    let (dir, seen) = closed().await;
    for at in [0, 8, 20, 48, 51] {
        edit_meta(dir.path(), "head", |bytes| Some(flipped(bytes, at)));
        check_refused(dir.path(), "the head of the log");
        edit_meta(dir.path(), "head", |bytes| Some(flipped(bytes, at)));
    }
    check_opens(dir.path(), &seen);
    edit_meta(dir.path(), "head", |_| None);
    check_refused(dir.path(), "the head of the log does not match the last record");
}

#[tokio::test]
async fn a_record_of_a_newer_format_is_refused_as_such() {
    let (dir, _) = closed().await;
    let mut newer = record(dir.path(), 6);
    newer[4..6].copy_from_slice(&(FORMAT_VERSION + 1).to_le_bytes());
    let covered = newer.len() - 4;
    let crc = crc32c::crc32c(&newer[..covered]);
    newer[covered..].copy_from_slice(&crc.to_le_bytes());
    store_record(dir.path(), 6, Some(&newer));
    let error = Catalog::open(dir.path()).err().unwrap();
    let (next, known) = (FORMAT_VERSION + 1, FORMAT_VERSION);
    let message =
        format!("log record 6 has format version {next}, and this version reads up to {known}");
    assert_eq!(error.to_string(), message);
    assert_eq!(verify(dir.path()).unwrap().problems, [message]);
}

#[tokio::test]
async fn a_file_damaged_below_redb_is_refused_or_unharmed_and_never_a_panic() {
    let (dir, seen) = closed().await;
    let path = dir.path().join("catalog.redb");
    let sound = std::fs::read(&path).unwrap();
    let used: Vec<usize> = (0..sound.len()).filter(|&at| sound[at] != 0).collect();
    for at in used.iter().step_by((used.len() / 60).max(1)) {
        std::fs::write(&path, flipped(sound.clone(), *at)).unwrap();
        if let Ok(catalog) = Catalog::open(dir.path()) {
            let now = format!("{:?} {:?}", catalog.snapshot(), catalog.cluster());
            assert_eq!(now, seen, "byte {at}");
        }
    }
    for length in [0, 1, 100, 4096, sound.len() / 2] {
        std::fs::write(&path, &sound[..length]).unwrap();
        assert!(Catalog::open(dir.path()).is_err(), "{length} bytes");
    }
}

#[tokio::test]
async fn damage_after_a_crash_never_goes_back_to_an_earlier_commit() {
    let fixture = Fixture::new().await;
    let table = fixture.create_table("t").await;
    fixture.append(table, 3).await;
    // The file as it is while it is open: what a crash now would leave.
    let path = fixture.path().join("catalog.redb");
    let sound = std::fs::read(&path).unwrap();
    let copy = tempfile::tempdir().unwrap();
    let secret = "cluster.secret";
    std::fs::copy(fixture.path().join(secret), copy.path().join(secret)).unwrap();
    let used: Vec<usize> = (0..sound.len()).filter(|&at| sound[at] != 0).collect();
    for at in used.iter().step_by((used.len() / 120).max(1)) {
        std::fs::write(copy.path().join("catalog.redb"), flipped(sound.clone(), *at)).unwrap();
        if let Ok(catalog) = Catalog::open(copy.path()) {
            assert_eq!(catalog.snapshot().version, fixture.catalog.snapshot().version, "byte {at}");
        }
    }
}

#[tokio::test]
async fn thousands_of_small_commits_come_back_after_a_restart() {
    let fixture = Fixture::new().await;
    let table = fixture.create_table("t").await;
    let appends = (0..2000).map(|_| fixture.catalog.commit(append_one(&fixture, table)));
    let results = futures::future::join_all(appends).await;
    assert!(results.iter().all(Result::is_ok));
    let fixture = fixture.reopen();
    assert_eq!(rows(&fixture.table("t")), 2000);
    let dir = fixture.close();
    assert!(verify(dir.path()).unwrap().is_sound());
}

#[tokio::test]
async fn a_log_that_grew_is_checkpointed_while_it_is_open() {
    let fixture = Fixture::new().await;
    for i in 0..6 {
        let view = Change::CreateView {
            schema: "public".to_owned(),
            name: format!("v{i}"),
            query: "x".repeat(1 << 20),
        };
        fixture.catalog.commit(command(vec![view])).await.unwrap();
    }
    // A copy of the directory as it is: what a crash now would leave.
    let copy = tempfile::tempdir().unwrap();
    for name in ["catalog.redb", "cluster.secret"] {
        std::fs::copy(fixture.path().join(name), copy.path().join(name)).unwrap();
    }
    let report = verify(copy.path()).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert!(report.checkpoint.is_some_and(|at| at < report.records), "{report:?}");
    check_opens(copy.path(), &fixture.seen());
}

fn append_one(
    fixture: &Fixture,
    table: basalt_storage::ids::TableId,
) -> basalt_coordinator::catalog::Command {
    super::fixtures::append(table, 1, fixture.workers[0])
}
