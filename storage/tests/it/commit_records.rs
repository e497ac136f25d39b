//! What a worker keeps of commits: what a crash at any byte or a bad disk leaves of it.

use std::sync::Arc;

use basalt_storage::command_log::{Chain, LogDisk, Verdict};
use basalt_storage::commit_records::frame::{HEADER_BYTES, Kind};
use basalt_storage::commit_records::{CommitRecords, Contents, Damage, PutRead};
use basalt_storage::digest::Digest;
use basalt_storage::ids::{Epoch, LogEpoch};
use bytes::{Bytes, BytesMut};

use crate::log_disk::{Fault, MemDisk};

fn at(log_epoch: u64, seq: u64) -> Chain {
    let hash = Digest::of(format!("{log_epoch} {seq}").as_bytes());
    Chain { seq, epoch: Epoch(1), log_epoch: LogEpoch(log_epoch), hash }
}

fn open(disk: &MemDisk) -> CommitRecords {
    CommitRecords::open(Arc::new(disk.clone())).unwrap()
}

/// Puts some bodies; with `after` a delta. `Err` when the disk failed.
fn put(
    records: &mut CommitRecords,
    at: Chain,
    after: Option<Chain>,
    bodies: &[&str],
) -> Result<Verdict, String> {
    let kind = if after.is_some() { Kind::Delta } else { Kind::Full };
    let begun = records.begin(kind, at, after).map_err(|error| error.to_string())?;
    let id = match begun {
        Ok(id) => id,
        Err(verdict) => return Ok(verdict),
    };
    for (number, body) in bodies.iter().enumerate() {
        let is_last = number + 1 == bodies.len();
        records.part(id, body.as_bytes(), is_last).map_err(|error| error.to_string())?;
    }
    Ok(Verdict::Done)
}

fn contents(records: &CommitRecords) -> Contents {
    let mut all = BytesMut::new();
    loop {
        let part = records.read(all.len() as u64, 7).unwrap();
        if part.is_empty() {
            return Contents::of(&all.freeze());
        }
        all.extend_from_slice(&part);
    }
}

fn read(kind: Kind, at: Chain, bodies: &[&str]) -> PutRead {
    let bodies = bodies.iter().map(|body| Bytes::copy_from_slice(body.as_bytes())).collect();
    PutRead { kind, at, bodies }
}

/// A state and two deltas.
fn filled() -> (MemDisk, CommitRecords) {
    let disk = MemDisk::default();
    let mut records = open(&disk);
    assert_eq!(put(&mut records, at(1, 5), None, &["state", "more"]), Ok(Verdict::Done));
    assert_eq!(put(&mut records, at(1, 7), Some(at(1, 5)), &["first"]), Ok(Verdict::Done));
    assert_eq!(put(&mut records, at(2, 9), Some(at(1, 7)), &["second", "x"]), Ok(Verdict::Done));
    (disk, records)
}

#[test]
fn what_was_put_is_there_after_a_restart() {
    let (disk, records) = filled();
    for records in [records, open(&disk.power_on())] {
        let known = records.position();
        assert_eq!((known.at, known.appendable), (Some(at(2, 9)), true));
        let puts = vec![
            read(Kind::Full, at(1, 5), &["state", "more"]),
            read(Kind::Delta, at(1, 7), &["first"]),
            read(Kind::Delta, at(2, 9), &["second", "x"]),
        ];
        assert_eq!(contents(&records), Contents { puts, damage: None });
    }
}

#[test]
fn a_whole_state_takes_the_place_of_everything_before_it() {
    let (disk, mut records) = filled();
    assert_eq!(put(&mut records, at(2, 9), None, &["all"]), Ok(Verdict::Done));
    assert_eq!(disk.files().len(), 1, "the older file is gone");
    assert_eq!(put(&mut records, at(2, 10), Some(at(2, 9)), &["third"]), Ok(Verdict::Done));
    let known = open(&disk.power_on()).position();
    assert_eq!((known.at, known.appendable), (Some(at(2, 10)), true));
    assert_eq!(known.full_bytes, (HEADER_BYTES + 3) as u64);
}

#[test]
fn an_older_commit_is_refused_and_a_delta_that_follows_another_one_is_no_match() {
    let (_, mut records) = filled();
    for kind in [None, Some(at(2, 9))] {
        assert_eq!(put(&mut records, at(1, 12), kind, &["old"]), Ok(Verdict::Refused));
        assert_eq!(put(&mut records, at(2, 8), kind, &["old"]), Ok(Verdict::Refused));
    }
    let other = Chain { hash: Digest::of(b"another"), ..at(2, 9) };
    assert_eq!(put(&mut records, at(2, 11), Some(other), &["x"]), Ok(Verdict::Mismatch));
    assert_eq!(put(&mut records, at(2, 11), Some(at(1, 7)), &["x"]), Ok(Verdict::Mismatch));
    assert_eq!(put(&mut records, at(2, 11), Some(at(2, 9)), &["x"]), Ok(Verdict::Done));
    assert_eq!(
        put(&mut open(&MemDisk::default()), at(1, 2), Some(at(1, 1)), &["x"]),
        Ok(Verdict::Mismatch)
    );
    // A log that was made again has fewer records and a newer epoch.
    assert_eq!(put(&mut records, at(3, 2), None, &["again"]), Ok(Verdict::Done));
}

#[test]
fn a_put_that_ended_early_counts_for_nothing_and_a_whole_state_follows() {
    let (disk, mut records) = filled();
    let id = records.begin(Kind::Delta, at(2, 10), Some(at(2, 9))).unwrap().unwrap();
    records.part(id, b"half", false).unwrap();
    let later = records.begin(Kind::Delta, at(2, 11), Some(at(2, 9))).unwrap();
    assert_eq!(later, Err(Verdict::Mismatch));
    assert!(records.part(id, b"late", true).is_err(), "another put began");
    for mut records in [open(&disk.power_on()), records] {
        assert_eq!(records.position().at, Some(at(2, 9)));
        assert!(!records.position().appendable);
        assert_eq!(put(&mut records, at(2, 11), None, &["all"]), Ok(Verdict::Done));
        assert!(records.position().appendable);
    }
}

/// Every way of losing the power in a put: before it, within each of its writes, at each byte.
#[test]
fn a_power_cut_at_any_byte_leaves_the_put_before_or_the_put() {
    for (after, bodies) in [(Some(at(2, 9)), &["third", "x"][..]), (None, &["all", "of", "it"])] {
        let writes = bodies.len();
        for write in 0..writes {
            for kept in 0..HEADER_BYTES + 8 {
                let (disk, mut records) = filled();
                let kind = if after.is_some() { Kind::Delta } else { Kind::Full };
                let id = records.begin(kind, at(2, 10), after).unwrap().unwrap();
                let mut failed = false;
                for (number, body) in bodies.iter().enumerate() {
                    if number == write {
                        disk.fail(Fault::PowerFails(kept));
                    }
                    failed |= records.part(id, body.as_bytes(), number + 1 == writes).is_err();
                }
                assert!(failed);
                let mut records = open(&disk.power_on());
                let found = records.position().at;
                let is_whole = write + 1 == writes && kept >= HEADER_BYTES + bodies[write].len();
                let expected = if is_whole { at(2, 10) } else { at(2, 9) };
                assert_eq!(found, Some(expected), "{after:?}, write {write}, {kept} bytes kept");
                assert_eq!(records.damage(), None, "a crash is no damage");
                assert_eq!(put(&mut records, at(2, 12), None, &["new"]), Ok(Verdict::Done));
                assert_eq!(open(&disk_of(&records, &disk)).position().at, Some(at(2, 12)));
            }
        }
    }
}

/// The disk that `records` were opened on last: what was written there is read back.
fn disk_of(records: &CommitRecords, cut: &MemDisk) -> MemDisk {
    // Opened on a copy of the cut disk; the same put on another copy gives the same files.
    let again = cut.power_on();
    let mut same = open(&again);
    assert_eq!(put(&mut same, at(2, 12), None, &["new"]), Ok(Verdict::Done));
    assert_eq!(contents(&same), contents(records));
    again.power_on()
}

#[test]
fn a_crash_while_a_new_file_is_made_leaves_the_old_one() {
    let (disk, mut records) = filled();
    disk.fail(Fault::PowerFails(0));
    assert!(records.begin(Kind::Full, at(2, 10), None).is_err());
    let records = open(&disk.power_on());
    assert_eq!((records.position().at, records.position().appendable), (Some(at(2, 9)), true));
}

#[test]
fn a_full_disk_passes_and_a_failed_sync_lasts_until_a_restart() {
    let (disk, mut records) = filled();
    disk.fail(Fault::Full(10));
    put(&mut records, at(2, 10), Some(at(2, 9)), &["x"]).unwrap_err();
    assert_eq!(put(&mut records, at(2, 10), Some(at(2, 9)), &["x"]), Ok(Verdict::Mismatch));
    assert_eq!(put(&mut records, at(2, 10), None, &["all"]), Ok(Verdict::Done));
    disk.fail(Fault::SyncFails);
    put(&mut records, at(2, 11), Some(at(2, 10)), &["x"]).unwrap_err();
    put(&mut records, at(2, 11), None, &["all"]).unwrap_err();
    assert_eq!(put(&mut open(&disk.power_on()), at(2, 12), None, &["all"]), Ok(Verdict::Done));
}

#[test]
fn damage_that_comes_later_is_found_and_a_whole_state_follows() {
    let (disk, mut records) = filled();
    assert_eq!(records.verify().unwrap(), None);
    let name = disk.files().into_keys().next().unwrap();
    disk.edit(&name, |bytes| *bytes.last_mut().unwrap() ^= 1);
    assert!(records.verify().unwrap().is_some());
    assert_eq!((records.position().at, records.position().appendable), (Some(at(1, 7)), false));
    assert_eq!(put(&mut records, at(2, 10), Some(at(2, 9)), &["x"]), Ok(Verdict::Mismatch));
    assert_eq!(put(&mut records, at(2, 10), None, &["all"]), Ok(Verdict::Done));
    assert_eq!((records.verify().unwrap(), records.damage()), (None, None));
}

#[test]
fn a_disk_that_stays_full_does_not_fill_with_parts() {
    let (disk, mut records) = filled();
    for _ in 0..5 {
        disk.fail(Fault::Full(10));
        put(&mut records, at(2, 10), None, &["all", "of", "it"]).unwrap_err();
        let given_up = records.begin(Kind::Full, at(2, 10), None).unwrap().unwrap();
        records.part(given_up, b"half", false).unwrap();
    }
    assert_eq!(put(&mut records, at(2, 10), None, &["all"]), Ok(Verdict::Done));
    assert_eq!(disk.files().len(), 1, "{:?}", disk.files().keys());
}

#[test]
fn a_file_that_is_cut_or_gone_is_damage_while_it_is_open_and_at_the_next_start() {
    for keeps_some in [true, false] {
        let (disk, mut records) = filled();
        let name = disk.files().into_keys().next().unwrap();
        match keeps_some {
            true => disk.edit(&name, |bytes| bytes.truncate(bytes.len() - 1)),
            false => disk.remove(&name).unwrap(),
        }
        let before = keeps_some.then(|| at(1, 7));
        assert!(records.verify().unwrap().is_some());
        assert_eq!((records.position().at, records.position().appendable), (before, false));
        assert_eq!(open(&disk.power_on()).position().at, before);
        assert_eq!(put(&mut records, at(2, 10), None, &["all"]), Ok(Verdict::Done));
        assert_eq!(open(&disk.power_on()).position().at, Some(at(2, 10)));
    }
}

#[test]
fn a_flipped_bit_anywhere_ends_the_records_before_it_and_is_named() {
    let (disk, _) = filled();
    let (name, bytes) = disk.files().into_iter().next().unwrap();
    for place in 0..bytes.len() {
        let disk = disk.power_on();
        disk.edit(&name, |bytes| bytes[place] ^= 0x10);
        let records = open(&disk);
        let known = records.position();
        assert!(known.at != Some(at(2, 9)), "byte {place} is not checked");
        assert!(!known.appendable);
        assert!(records.damage().is_some(), "the damage at byte {place} is not seen");
        let read = contents(&records);
        assert_eq!(read.puts.last().map(|put| put.at), known.at);
        let whole = Contents::of(&disk.files()[&name].clone().into());
        assert!(matches!(whole.damage, Some(Damage::Bytes(_))), "byte {place}");
        assert_eq!(whole.puts, read.puts);
    }
}
