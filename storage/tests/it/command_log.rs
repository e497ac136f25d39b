//! A member's copy of the command log: what it takes from whom, and what a crash or a bad disk
//! leaves of it. The protocol around it is simulated in the coordinator's tests.

use std::sync::Arc;

use basalt_storage::command_log::copy::{Promise, check};
use basalt_storage::command_log::record::FORMAT_VERSION;
use basalt_storage::command_log::{Append, Chain, LogCopy, LogError, RawRecord, Verdict};
use basalt_storage::digest::Digest;
use basalt_storage::ids::{Epoch, LogEpoch, LogWriter};
use bytes::Bytes;

use crate::log_disk::{Fault, MemDisk};

/// A writer's side: its records, under one epoch.
#[derive(Clone)]
struct Writer {
    promise: Promise,
    records: Vec<Bytes>,
    chain: Chain,
}

impl Writer {
    fn new(epoch: u64) -> Self {
        let promise = Promise { epoch: LogEpoch(epoch), writer: LogWriter::generate() };
        Self { promise, records: Vec::new(), chain: Chain::start() }
    }

    /// The same log under a newer epoch, by another writer.
    fn successor(&self, epoch: u64) -> Self {
        Self { promise: Self::new(epoch).promise, ..self.clone() }
    }

    fn write(&mut self, payload: &str) -> &mut Self {
        let epoch = self.promise.epoch;
        let record = self.chain.append(Epoch(1), epoch, payload.as_bytes()).unwrap();
        self.records.push(record.into());
        self
    }

    /// The records after `after`.
    fn from(&self, after: u64) -> Append {
        let at = usize::try_from(after).unwrap();
        let hash =
            at.checked_sub(1).map_or(Chain::start().hash, |at| Digest::of(&self.records[at]));
        let records = self.records[at..].to_vec();
        Append { promise: self.promise, after, hash, records, committed: self.chain.seq }
    }
}

fn open(disk: &MemDisk) -> LogCopy {
    LogCopy::open_with(Arc::new(disk.clone()), 600).unwrap()
}

/// A writer with some records, and a copy that has them.
fn filled(count: usize) -> (Writer, MemDisk, LogCopy) {
    let (mut writer, disk) = (Writer::new(1), MemDisk::default());
    let mut copy = open(&disk);
    for number in 0..count {
        let after = writer.chain.seq;
        writer.write(&format!("command {number}"));
        assert_eq!(copy.append(&writer.from(after)).unwrap(), Verdict::Done);
    }
    (writer, disk, copy)
}

fn check_has(copy: &LogCopy, records: &[Bytes]) {
    let have = copy.read(0, usize::MAX).unwrap();
    assert_eq!(have, records);
    assert_eq!(copy.position().tail.seq, records.len() as u64);
}

#[test]
fn what_was_appended_is_there_after_a_restart_with_one_sync_each() {
    let (writer, disk, copy) = filled(9);
    assert_eq!(disk.syncs(), 9);
    assert!(disk.files().len() > 1, "small files follow one another");
    check_has(&copy, &writer.records);
    let again = open(&disk.power_on());
    check_has(&again, &writer.records);
    assert_eq!(again.position(), copy.position());
    assert!(again.position().complete);
    assert_eq!(again.position().promised, Some(writer.promise));
}

#[test]
fn the_same_append_again_changes_nothing() {
    let (writer, disk, mut copy) = filled(5);
    let before = disk.files();
    for after in 0..=5 {
        assert_eq!(copy.append(&writer.from(after)).unwrap(), Verdict::Done);
    }
    assert_eq!(disk.files(), before);
}

#[test]
fn an_append_that_follows_something_else_is_answered_with_the_place() {
    let (mut writer, _, mut copy) = filled(3);
    let mut other = Writer::new(1).successor(1);
    other.promise = writer.promise;
    other.write("other 0").write("other 1").write("other 2");
    writer.write("command 3").write("command 4");
    assert_eq!(copy.append(&writer.from(4)).unwrap(), Verdict::Mismatch);
    assert_eq!(copy.append(&other.from(2)).unwrap(), Verdict::Mismatch);
    assert_eq!(copy.position().tail.seq, 3);
    assert_eq!(copy.append(&writer.from(3)).unwrap(), Verdict::Done);
}

#[test]
fn an_older_writer_and_a_second_one_of_an_epoch_are_refused_also_after_a_restart() {
    let (mut old, disk, mut copy) = filled(3);
    let new = Writer::new(2).promise;
    let twin = Writer::new(2).promise;
    assert_eq!(copy.promise(new).unwrap(), Verdict::Done);
    old.write("command 3");
    for mut copy in [copy, open(&disk.power_on())] {
        assert_eq!(copy.append(&old.from(3)).unwrap(), Verdict::Refused);
        assert_eq!(copy.promise(old.promise).unwrap(), Verdict::Refused);
        assert_eq!(copy.promise(twin).unwrap(), Verdict::Refused);
        assert_eq!(copy.promise(new).unwrap(), Verdict::Done, "to the one that has it");
        assert_eq!(copy.position().tail.seq, 3);
        assert_eq!(copy.position().promised, Some(new));
    }
}

#[test]
fn a_newer_writer_replaces_what_an_older_one_left_and_nobody_else_does() {
    let (old, disk, mut copy) = filled(5);
    let mut new = Writer::new(1);
    for number in 0..3 {
        new.write(&format!("command {number}"));
    }
    new.promise = old.promise;
    new.records.clone_from(&old.records[..3].to_vec());
    new.chain = RawRecord::decode(3, &new.records[2]).unwrap().chain();
    let mut twin = new.clone();
    twin.write("another command 3");
    let diverged = copy.append(&twin.from(3)).unwrap_err();
    assert!(matches!(diverged, LogError::Diverged { seq: 4, .. }), "{diverged}");
    let mut new = new.successor(2);
    new.write("the new command 3");
    assert_eq!(copy.append(&new.from(2)).unwrap(), Verdict::Done);
    check_has(&copy, &new.records);
    check_has(&open(&disk.power_on()), &new.records);
    let late = Append { promise: new.promise, ..old.from(0) };
    let diverged = copy.append(&late).unwrap_err();
    assert!(matches!(diverged, LogError::Diverged { seq: 4, .. }), "{diverged}");
}

#[test]
fn a_late_append_of_the_same_writer_takes_nothing_away() {
    let (writer, _, mut copy) = filled(6);
    let mut late = writer.from(1);
    late.records.truncate(2);
    assert_eq!(copy.append(&late).unwrap(), Verdict::Done);
    check_has(&copy, &writer.records);
}

#[test]
fn a_power_cut_anywhere_in_a_write_leaves_all_of_it_or_nothing() {
    for kept in 0..600 {
        let (mut writer, disk, mut copy) = filled(4);
        writer.write("first of two").write("second of two");
        disk.fail(Fault::PowerFails(kept));
        let answered = copy.append(&writer.from(4));
        let disk = disk.power_on();
        let mut again = open(&disk);
        let seq = again.position().tail.seq;
        assert!(seq == 6 || (seq == 4 && answered.is_err()), "{kept} bytes: {seq}");
        check_has(&again, &writer.records[..usize::try_from(seq).unwrap()]);
        assert!(again.position().complete, "{kept} bytes: nothing that was answered is missing");
        writer.write("later");
        assert_eq!(again.append(&writer.from(seq)).unwrap(), Verdict::Done);
        check_has(&open(&disk.power_on()), &writer.records);
    }
}

#[test]
fn a_power_cut_in_a_promise_leaves_it_or_the_one_before() {
    for kept in 0..120 {
        let (writer, disk, mut copy) = filled(1);
        let new = Writer::new(2).promise;
        disk.fail(Fault::PowerFails(kept));
        let answered = copy.promise(new);
        let promised = open(&disk.power_on()).position().promised;
        let is_old = promised == Some(writer.promise) && answered.is_err();
        assert!(promised == Some(new) || is_old, "{kept} bytes: {promised:?}");
    }
}

#[test]
fn a_full_disk_fails_the_append_and_the_next_one_goes_on() {
    for kept in [0, 1, 40, 52, 90, 10_000] {
        let (mut writer, disk, mut copy) = filled(2);
        writer.write("does not fit");
        disk.fail(Fault::Full(kept));
        assert!(matches!(copy.append(&writer.from(2)), Err(LogError::Io { .. })));
        assert_eq!(copy.append(&writer.from(2)).unwrap(), Verdict::Done);
        check_has(&copy, &writer.records);
        check_has(&open(&disk.power_on()), &writer.records);
    }
}

#[test]
fn after_a_failed_sync_nothing_is_taken_until_a_restart() {
    let (mut writer, disk, mut copy) = filled(2);
    writer.write("command 2");
    disk.fail(Fault::SyncFails);
    assert!(copy.append(&writer.from(2)).is_err());
    assert!(matches!(copy.append(&writer.from(2)), Err(LogError::Failed { .. })));
    assert!(matches!(copy.promise(Writer::new(9).promise), Err(LogError::Failed { .. })));
    let mut again = open(&disk.power_on());
    assert_eq!(again.append(&writer.from(2)).unwrap(), Verdict::Done);
}

#[test]
fn any_flipped_byte_is_found_and_a_writer_fills_the_copy_again() {
    let (writer, disk, _) = filled(7);
    for (name, bytes) in disk.files() {
        for at in 0..bytes.len() {
            let disk = disk.power_on();
            disk.edit(&name, |bytes| bytes[at] ^= 0x20);
            let mut copy = open(&disk);
            let seq = copy.position().tail.seq;
            check_has(&copy, &writer.records[..usize::try_from(seq).unwrap()]);
            assert!(seq < 7 && !copy.position().complete, "{name} byte {at}: {seq}");
            assert_eq!(copy.append(&writer.from(seq)).unwrap(), Verdict::Done);
            assert!(copy.position().complete);
            let again = open(&disk.power_on());
            check_has(&again, &writer.records);
            assert!(again.position().complete, "{name} byte {at}");
        }
    }
}

#[test]
fn damage_is_found_while_the_copy_is_open() {
    let (mut writer, disk, mut copy) = filled(7);
    assert_eq!(check(&copy.checkable()).unwrap(), None);
    disk.edit("00000001.log", |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let part = copy.checkable();
    writer.write("meanwhile");
    assert_eq!(copy.append(&writer.from(7)).unwrap(), Verdict::Done);
    let found = check(&part).unwrap().unwrap();
    assert!(found.contains("00000001.log"), "{found}");
    copy.reopen().unwrap();
    let position = copy.position();
    assert!(position.tail.seq < 7 && !position.complete, "{position:?}");
    assert_eq!(position.promised, Some(writer.promise), "promises outlive damage");
    assert_eq!(copy.append(&writer.from(position.tail.seq)).unwrap(), Verdict::Done);
    check_has(&copy, &writer.records);
}

#[test]
fn a_promise_outlives_damage_at_any_place() {
    for records in [0, 1, 7] {
        let (writer, disk, mut copy) = filled(records);
        let new = Writer::new(7).promise;
        copy.promise(new).unwrap();
        for (name, bytes) in disk.files() {
            for at in 0..bytes.len() {
                let disk = disk.power_on();
                disk.edit(&name, |bytes| bytes[at] ^= 0x20);
                let mut copy = open(&disk);
                assert_eq!(copy.position().promised, Some(new), "{name} byte {at}");
                assert_eq!(copy.promise(writer.promise).unwrap(), Verdict::Refused);
                copy.promise(Writer::new(8).promise).unwrap();
                let again = open(&disk.power_on()).position();
                assert_eq!(again.promised.unwrap().epoch, LogEpoch(8), "{name} byte {at}");
            }
        }
    }
}

#[test]
fn a_disk_that_stays_full_does_not_fill_with_files() {
    let (mut writer, disk, mut copy) = filled(2);
    writer.write("does not fit");
    let before = disk.files().len();
    for kept in 0..150 {
        disk.fail(Fault::Full(kept));
        assert!(matches!(copy.append(&writer.from(2)), Err(LogError::Io { .. })));
    }
    assert!(disk.files().len() <= before + 1, "{:?}", disk.files().keys());
    check_has(&open(&disk.power_on()), &writer.records[..2]);
    assert_eq!(copy.append(&writer.from(2)).unwrap(), Verdict::Done);
    check_has(&open(&disk.power_on()), &writer.records);
}

#[test]
fn zeros_where_a_write_was_torn_hide_nothing_that_was_answered() {
    for kept in [0, 20, 52, 70] {
        let (mut writer, disk, mut copy) = filled(4);
        writer.write("torn");
        disk.fail(Fault::PowerFails(kept));
        let _torn = copy.append(&writer.from(4));
        let disk = disk.power_on();
        let last = disk.files().into_keys().last().unwrap();
        disk.edit(&last, |bytes| bytes.extend([0; 4096]));
        let mut again = open(&disk);
        check_has(&again, &writer.records[..4]);
        // It cannot be told from damage, so the copy vouches for nothing until it is filled.
        assert!(!again.position().complete);
        assert_eq!(again.append(&writer.from(4)).unwrap(), Verdict::Done);
        check_has(&open(&disk.power_on()), &writer.records);
    }
}

#[test]
fn an_epoch_that_nobody_could_follow_is_refused() {
    let (_, disk, mut copy) = filled(1);
    let before = disk.files();
    let absurd = Writer::new(u64::MAX).promise;
    assert!(matches!(copy.promise(absurd), Err(LogError::EpochOutOfRange { .. })));
    let append = Append { promise: absurd, ..filled(1).0.from(1) };
    assert!(matches!(copy.append(&append), Err(LogError::EpochOutOfRange { .. })));
    assert_eq!(disk.files(), before);
}

#[test]
fn nothing_is_read_after_the_end() {
    let (_, _, copy) = filled(3);
    for after in [3, 4, u64::MAX] {
        assert!(copy.read(after, usize::MAX).unwrap().is_empty(), "{after}");
    }
}

#[test]
fn files_that_are_cut_swapped_or_gone_never_make_another_log() {
    let (writer, disk, _) = filled(9);
    let names: Vec<_> = disk.files().into_keys().collect();
    let check = |what: &str, edit: &dyn Fn(&MemDisk)| {
        let disk = disk.power_on();
        edit(&disk);
        let copy = open(&disk);
        let seq = usize::try_from(copy.position().tail.seq).unwrap();
        check_has(&copy, &writer.records[..seq]);
        let mut copy = copy;
        copy.append(&writer.from(seq as u64)).unwrap();
        check_has(&copy, &writer.records);
        println!("{what}: {seq} of 9 records were left");
    };
    for name in &names {
        check("half", &|disk| disk.edit(name, |bytes| bytes.truncate(bytes.len() / 2)));
        check("nothing", &|disk| disk.edit(name, Vec::clear));
        check("zeros", &|disk| disk.edit(name, |bytes| bytes.extend([0; 4096])));
        check("another file", &|disk| {
            let other = disk.files()[&names[0]].clone();
            disk.edit(name, |bytes| *bytes = other);
        });
    }
}

#[test]
fn an_empty_copy_vouches_for_nothing_until_it_has_what_is_committed() {
    let (writer, _, _) = filled(4);
    let mut copy = open(&MemDisk::default());
    assert!(!copy.position().complete);
    let mut part = writer.from(0);
    part.records.truncate(3);
    copy.append(&part).unwrap();
    assert!(!copy.position().complete);
    copy.append(&writer.from(3)).unwrap();
    assert!(copy.position().complete);
}

#[test]
fn what_is_no_record_is_refused_and_changes_nothing() {
    let (writer, disk, mut copy) = filled(2);
    let before = disk.files();
    let good = writer.records[1].clone();
    let mut newer = good.to_vec();
    newer[4..6].copy_from_slice(&(FORMAT_VERSION + 1).to_le_bytes());
    for record in [Bytes::new(), good.slice(1..), good.clone(), newer.into()] {
        let append = Append { records: vec![record], ..writer.from(2) };
        assert!(matches!(copy.append(&append), Err(LogError::Record(_))));
    }
    assert_eq!(disk.files(), before);
}
