//! Segments and files from elsewhere: taken in when every byte is right, refused otherwise.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, StringArray};
use arrow::datatypes::DataType;
use basalt_storage::chunk_store::{ChunkStore, IncomingSegment, ReadFrom, SegmentCopy};
use basalt_storage::digest::Digest;
use basalt_storage::error::StorageError;
use basalt_storage::ids::{ClusterId, SegmentId, TxnId};
use basalt_storage::manifest::Layout;
use basalt_storage::segment_writer::{EncodedSegment, SegmentWriter, WriterOptions};
use bytes::Bytes;
use uuid::Uuid;

use crate::arrays::{Random, random_array};
use crate::support::{
    TestStore, batch, code, copy_of, encoded, read_column, schema, send, send_files, spec,
};

/// Three columns of numbers and text that do not compress away.
fn segment(rows: usize) -> EncodedSegment {
    let column = |seed, ty: &DataType| random_array(&mut Random(seed), ty, rows, true, false);
    encoded(vec![
        column(1, &DataType::Int64),
        column(2, &DataType::Utf8),
        column(3, &DataType::Int64),
    ])
}

fn wide() -> EncodedSegment {
    segment(65_536)
}

fn packed() -> EncodedSegment {
    segment(1_000)
}

fn receive(test: &TestStore, segment: &EncodedSegment) -> IncomingSegment {
    test.store.receive(copy_of(segment), segment.meta_bytes().clone()).unwrap()
}

/// The paths of all files of a segment, metadata last.
fn paths(test: &TestStore, segment: &EncodedSegment) -> Vec<PathBuf> {
    let record = segment.record();
    let files = segment.files().iter().map(|file| file.path.clone());
    let files = files.chain([record.key().meta_path(record.layout)]);
    files.map(|path| test.dir.path().join(path)).collect()
}

fn is_good(store: &ChunkStore, segment: &EncodedSegment) -> bool {
    store.check_segment(&copy_of(segment), ReadFrom::Media).unwrap().is_good()
}

fn entries(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn staged(test: &TestStore) -> Vec<String> {
    entries(&test.dir.path().join("tmp"))
}

fn quarantined(test: &TestStore) -> Vec<String> {
    entries(&test.dir.path().join("quarantine"))
}

/// Refused, with nothing left anywhere.
fn check_refused(
    segment: &EncodedSegment,
    expected: &str,
    write: impl FnOnce(&mut IncomingSegment) -> Result<(), StorageError>,
) {
    let test = TestStore::new();
    let mut incoming = receive(&test, segment);
    let written = write(&mut incoming);
    let failed = written.is_err();
    let result = written.and_then(|()| incoming.finish());
    if failed {
        assert_eq!(staged(&test), [""; 0]);
    }
    assert_eq!(code(result), expected);
    assert_eq!(staged(&test), [""; 0]);
    assert_eq!(test.store.list_segments().unwrap(), []);
    assert!(test.store.is_writable());
}

fn write_all(incoming: &mut IncomingSegment, files: &[Bytes]) -> Result<(), StorageError> {
    files.iter().enumerate().try_for_each(|(file, bytes)| incoming.write(file, bytes))
}

fn contents(segment: &EncodedSegment) -> Vec<Bytes> {
    segment.files().iter().map(|file| file.bytes.clone()).collect()
}

#[test]
fn a_segment_that_comes_in_pieces_reads_like_the_one_that_was_sent() {
    for segment in [wide(), packed()] {
        let here = TestStore::new();
        here.store.publish(vec![segment.clone()]).unwrap();
        for piece in [1_000, 65_536, 1 << 30] {
            let there = TestStore::new();
            let mut incoming = receive(&there, &segment);
            assert_eq!(incoming.meta().key(), segment.record().key());
            for (file, bytes) in contents(&segment).iter().enumerate() {
                for piece in bytes.chunks(piece) {
                    incoming.write(file, piece).unwrap();
                }
            }
            incoming.finish().unwrap();
            for (here, there) in paths(&here, &segment).iter().zip(paths(&there, &segment)) {
                assert_eq!(fs::read(here).unwrap(), fs::read(there).unwrap());
            }
            let types = [DataType::Int64, DataType::Utf8, DataType::Int64];
            for (column, ty) in types.iter().enumerate() {
                let read = |store| {
                    read_column(store, segment.record(), column as u32 + 1, ty).unwrap().to_data()
                };
                assert_eq!(read(&here.store), read(&there.store));
            }
            assert_eq!(staged(&there), [""; 0]);
            assert_eq!(quarantined(&there), [""; 0]);
        }
    }
}

#[test]
fn files_are_in_the_order_of_their_columns_wherever_the_metadata_is() {
    for (segment, count) in [(wide(), 3), (packed(), 1)] {
        let meta = segment.meta();
        let decoded = basalt_storage::segment_meta::SegmentMeta::decode(
            segment.meta_bytes(),
            segment.record().meta_digest,
        );
        let decoded = decoded.unwrap();
        let (files, again) = (meta.chunk_files(), decoded.chunk_files());
        assert_eq!((files.len(), again.len()), (count, count));
        for ((file, again), sent) in files.iter().zip(&again).zip(segment.files()) {
            assert_eq!((&file.path, file.chunk), (&again.path, again.chunk));
            assert_eq!(file.path, sent.path);
            assert_eq!(file.meta, again.meta);
            let column = meta.column(file.chunk.column).unwrap();
            assert_eq!(column.path(), file.path);
        }
    }
}

#[test]
fn more_files_than_stay_open_at_once_come_in() {
    let column: ArrayRef = Arc::new(BooleanArray::from(vec![true; 65_536]));
    let segment = encoded(vec![column; 150]);
    assert_eq!(segment.record().layout, Layout::Wide);
    let test = TestStore::new();
    send(&test.store, &segment).unwrap();
    assert!(is_good(&test.store, &segment));
}

#[test]
fn wrong_bytes_are_refused_wherever_they_are() {
    for segment in [wide(), packed()] {
        let files = contents(&segment);
        for (file, bytes) in files.iter().enumerate() {
            for at in [0, bytes.len() / 3, bytes.len() - 1] {
                let mut bad = files.clone();
                let mut bytes = bytes.to_vec();
                bytes[at] ^= 4;
                bad[file] = bytes.into();
                check_refused(&segment, "CORRUPT", |incoming| write_all(incoming, &bad));
            }
        }
    }
}

#[test]
fn short_long_and_missing_files_are_refused() {
    for segment in [wide(), packed()] {
        let files = contents(&segment);
        for (file, bytes) in files.iter().enumerate() {
            let with = |content: &[u8]| {
                let mut files = files.clone();
                files[file] = content.to_vec().into();
                files
            };
            let short = with(&bytes[..bytes.len() - 1]);
            check_refused(&segment, "CORRUPT", |incoming| write_all(incoming, &short));
            let long = with(&[bytes, &[0][..]].concat());
            check_refused(&segment, "CORRUPT", |incoming| write_all(incoming, &long));
            let empty = with(&[]);
            check_refused(&segment, "MISSING", |incoming| write_all(incoming, &empty));
            check_refused(&segment, "MISSING", |incoming| {
                let others = files.iter().enumerate().filter(|(other, _)| *other != file);
                others.into_iter().try_for_each(|(other, bytes)| incoming.write(other, bytes))
            });
        }
    }
}

#[test]
fn bytes_beyond_the_end_of_a_file_are_refused_at_once() {
    let (test, segment) = (TestStore::new(), wide());
    let mut incoming = receive(&test, &segment);
    let bytes = &segment.files()[0].bytes;
    incoming.write(0, bytes).unwrap();
    incoming.write(0, &[]).unwrap();
    let error = incoming.write(0, &[0]).unwrap_err();
    let expected = format!("more than its {} bytes came", bytes.len());
    assert!(error.to_string().ends_with(&expected), "{error}");
    // There is no way back.
    assert_eq!(code(incoming.write(1, &segment.files()[1].bytes)), "INVALID_REQUEST");
    assert_eq!(code(incoming.finish()), "INVALID_REQUEST");
    assert_eq!(staged(&test), [""; 0]);
}

#[test]
fn swapped_files_are_refused() {
    let segment = wide();
    let mut files = contents(&segment);
    files.swap(0, 2);
    check_refused(&segment, "CORRUPT", |incoming| write_all(incoming, &files));
}

#[test]
fn files_out_of_order_and_files_that_do_not_exist_are_refused() {
    let segment = wide();
    let files = contents(&segment);
    check_refused(&segment, "INVALID_REQUEST", |incoming| {
        incoming.write(0, &files[0])?;
        incoming.write(1, &files[1])?;
        incoming.write(0, &[])
    });
    check_refused(&segment, "INVALID_REQUEST", |incoming| {
        write_all(incoming, &files)?;
        incoming.write(3, &[])
    });
}

/// A segment of one column, with the same ids as every other of this function.
fn version(values: &[i64], txn: u128) -> EncodedSegment {
    let schema = schema(&[(DataType::Int64, true)]);
    let mut spec = spec(Arc::clone(&schema));
    spec.segment = SegmentId(Uuid::from_u128(0x5E6));
    spec.txn = TxnId(Uuid::from_u128(txn));
    let mut writer = SegmentWriter::new(spec, WriterOptions::default()).unwrap();
    writer.append(batch(&schema, vec![Arc::new(Int64Array::from(values.to_vec()))])).unwrap();
    writer.encode().unwrap()
}

#[test]
fn a_stale_version_of_the_same_segment_is_refused() {
    let (stale, fresh) = (version(&[1, 2], 1), version(&[1, 3], 1));
    check_refused(&fresh, "CORRUPT", |incoming| write_all(incoming, &contents(&stale)));
    let test = TestStore::new();
    assert_eq!(code(test.store.receive(copy_of(&fresh), stale.meta_bytes().clone())), "CORRUPT");
    // And one that lies here is replaced.
    send(&test.store, &stale).unwrap();
    send(&test.store, &fresh).unwrap();
    let read = read_column(&test.store, fresh.record(), 1, &DataType::Int64).unwrap();
    assert_eq!(read.to_data(), Int64Array::from(vec![1, 3]).to_data());
    assert_eq!(quarantined(&test).len(), 2);
}

#[test]
fn foreign_metadata_is_refused() {
    let (test, segment, other) = (TestStore::new(), packed(), packed());
    let refused = |copy: SegmentCopy, meta: &Bytes| {
        let result = test.store.receive(copy.clone(), meta.clone());
        let files = test.store.receive_files(copy, meta.clone(), &[0]);
        let code = code(result);
        assert_eq!(crate::support::code(files), code);
        assert_eq!(staged(&test), [""; 0]);
        code
    };
    let (copy, meta) = (copy_of(&segment), segment.meta_bytes());
    assert_eq!(refused(copy.clone(), other.meta_bytes()), "CORRUPT");
    assert_eq!(refused(copy.clone(), &meta.slice(1..)), "CORRUPT");
    // Right bytes, under the name of another.
    let key = other.record().key();
    assert_eq!(refused(SegmentCopy { key, ..copy.clone() }, meta), "CORRUPT");
    assert_eq!(refused(SegmentCopy { layout: Layout::Wide, ..copy.clone() }, meta), "CORRUPT");
    let txn = TxnId(Uuid::from_u128(0xBAD));
    assert_eq!(refused(SegmentCopy { txn, ..copy.clone() }, meta), "CORRUPT");
    let mut newer = meta.to_vec();
    newer[8] = 2;
    let crc = crc32c::crc32c(&newer[..newer.len() - 4]).to_le_bytes();
    let end = newer.len() - 4;
    newer[end..].copy_from_slice(&crc);
    let meta_digest = Digest::of(&newer);
    assert_eq!(refused(SegmentCopy { meta_digest, ..copy }, &newer.into()), "NEWER_FORMAT");
}

#[test]
fn a_segment_of_another_cluster_is_refused() {
    let schema = schema(&[(DataType::Int64, true)]);
    let mut spec = spec(Arc::clone(&schema));
    spec.cluster = ClusterId(Uuid::from_u128(0xC2));
    let segment = SegmentWriter::new(spec, WriterOptions::default()).unwrap().encode().unwrap();
    let test = TestStore::new();
    let result = test.store.receive(copy_of(&segment), segment.meta_bytes().clone());
    assert_eq!(code(result), "INVALID_REQUEST");
}

#[test]
fn dropped_before_its_end_nothing_of_a_segment_is_left() {
    let (test, segment) = (TestStore::new(), wide());
    let mut incoming = receive(&test, &segment);
    write_all(&mut incoming, &contents(&segment)).unwrap();
    assert_eq!(staged(&test).len(), 1);
    drop(incoming);
    assert_eq!(staged(&test), [""; 0]);
    assert_eq!(test.store.list_segments().unwrap(), []);
}

#[test]
fn a_segment_sent_twice_is_as_good_as_once() {
    for segment in [wide(), packed()] {
        let test = TestStore::new();
        send(&test.store, &segment).unwrap();
        let inodes = |test| paths(test, &segment).iter().map(inode).collect::<Vec<_>>();
        let before = inodes(&test);
        send(&test.store, &segment).unwrap();
        assert_eq!(inodes(&test), before);
        assert_eq!((quarantined(&test).len(), staged(&test).len()), (0, 0));
    }
}

fn inode(path: &PathBuf) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

#[test]
fn what_is_bad_of_a_segment_that_is_here_is_replaced_and_nothing_else() {
    for segment in [wide(), packed()] {
        for bad in 0..segment.files().len() + 1 {
            let test = TestStore::new();
            test.store.publish(vec![segment.clone()]).unwrap();
            let paths = paths(&test, &segment);
            let before: Vec<u64> = paths.iter().map(inode).collect();
            fs::write(&paths[bad], "rotten").unwrap();
            assert!(!is_good(&test.store, &segment));
            send(&test.store, &segment).unwrap();
            assert!(is_good(&test.store, &segment));
            for (at, (path, before)) in paths.iter().zip(before).enumerate() {
                assert_eq!(inode(path) != before, at == bad, "{}", path.display());
            }
            check_quarantined(&test, &paths[bad], "rotten");
        }
    }
}

/// One entry, named for a path under `chunks/`.
fn check_quarantined(test: &TestStore, path: &Path, content: &str) {
    let names = quarantined(test);
    assert_eq!(names.len(), 1, "{names:?}");
    let path = path.strip_prefix(test.dir.path().join("chunks")).unwrap();
    let told = path.to_str().unwrap().replace('/', ".");
    assert!(names[0].ends_with(&format!("-{told}")), "{names:?}");
    let kept = test.dir.path().join("quarantine").join(&names[0]);
    assert_eq!(fs::read_to_string(kept).unwrap(), content);
}

#[test]
fn single_files_replace_bad_and_missing_ones() {
    let (test, segment) = (TestStore::new(), wide());
    test.store.publish(vec![segment.clone()]).unwrap();
    let paths = paths(&test, &segment);
    let before: Vec<u64> = paths.iter().map(inode).collect();
    fs::write(&paths[0], "rotten").unwrap();
    fs::remove_file(&paths[2]).unwrap();
    send_files(&test.store, &segment, &[0, 2]).unwrap();
    assert!(is_good(&test.store, &segment));
    let after: Vec<u64> = paths.iter().map(inode).collect();
    assert_eq!((after[1], after[3]), (before[1], before[3]));
    check_quarantined(&test, &paths[0], "rotten");
}

#[test]
fn a_file_is_replaced_when_it_is_sent_even_if_the_cache_takes_it_for_good() {
    let (test, segment) = (TestStore::new(), packed());
    test.store.publish(vec![segment.clone()]).unwrap();
    let before = inode(&paths(&test, &segment)[0]);
    send_files(&test.store, &segment, &[0]).unwrap();
    assert_ne!(inode(&paths(&test, &segment)[0]), before);
    assert!(is_good(&test.store, &segment));
}

#[test]
fn bad_and_missing_metadata_is_restored_without_the_files() {
    for segment in [wide(), packed()] {
        for content in [Some("rotten"), None] {
            let test = TestStore::new();
            test.store.publish(vec![segment.clone()]).unwrap();
            let meta = paths(&test, &segment).pop().unwrap();
            fs::remove_file(&meta).unwrap();
            content.map_or(Ok(()), |content| fs::write(&meta, content)).unwrap();
            send_files(&test.store, &segment, &[]).unwrap();
            assert!(is_good(&test.store, &segment));
        }
    }
}

#[test]
fn metadata_is_not_restored_over_files_that_are_bad_or_missing() {
    let segment = wide();
    for (bad, expected) in [(Some("rotten"), "CORRUPT"), (None, "MISSING")] {
        let test = TestStore::new();
        test.store.publish(vec![segment.clone()]).unwrap();
        let paths = paths(&test, &segment);
        fs::remove_file(&paths[3]).unwrap();
        fs::remove_file(&paths[1]).unwrap();
        bad.map_or(Ok(()), |content| fs::write(&paths[1], content)).unwrap();
        let error = send_files(&test.store, &segment, &[0]).unwrap_err();
        assert_eq!(error.code(), expected);
        assert!(error.to_string().contains("c2.v1.parquet"), "{error}");
        assert_eq!(code(test.store.segment_meta(segment.record())), "MISSING");
        send_files(&test.store, &segment, &[0, 1]).unwrap();
        assert!(is_good(&test.store, &segment));
    }
}

#[test]
fn files_of_a_segment_that_is_not_here_are_refused() {
    for segment in [wide(), packed()] {
        let test = TestStore::new();
        let result = send_files(&test.store, &segment, &[]);
        assert_eq!(code(result), "MISSING");
        assert_eq!(test.store.list_segments().unwrap(), []);
    }
}

#[test]
fn a_file_that_was_not_announced_is_refused() {
    let (test, segment) = (TestStore::new(), wide());
    let (copy, meta) = (copy_of(&segment), segment.meta_bytes());
    let result = test.store.receive_files(copy.clone(), meta.clone(), &[1, 3]);
    assert_eq!(code(result), "INVALID_REQUEST");
    for file in [0, 2] {
        let mut incoming = test.store.receive_files(copy.clone(), meta.clone(), &[1]).unwrap();
        let result = incoming.write(file, &segment.files()[file].bytes);
        assert_eq!(code(result), "INVALID_REQUEST");
    }
}

#[test]
fn links_directories_and_fifos_in_place_of_a_file_are_replaced() {
    let segment = wide();
    let strange: [fn(&Path); 4] = [
        |path| symlink("/etc/passwd", path).unwrap(),
        |path| symlink("nowhere", path).unwrap(),
        |path| fs::create_dir(path).unwrap(),
        |path| {
            let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
            rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
        },
    ];
    for put in strange {
        for bad in [0, 3] {
            let test = TestStore::new();
            test.store.publish(vec![segment.clone()]).unwrap();
            let paths = paths(&test, &segment);
            fs::remove_file(&paths[bad]).unwrap();
            put(&paths[bad]);
            send(&test.store, &segment).unwrap();
            assert!(is_good(&test.store, &segment));
            assert_eq!(quarantined(&test).len(), 1);
        }
        let test = TestStore::new();
        let dir = paths(&test, &segment)[0].parent().unwrap().to_path_buf();
        fs::create_dir_all(dir.parent().unwrap()).unwrap();
        put(&dir);
        send(&test.store, &segment).unwrap();
        assert!(is_good(&test.store, &segment));
    }
}

#[test]
fn what_an_interrupted_removal_left_is_completed() {
    for segment in [wide(), packed()] {
        let test = TestStore::new();
        test.store.publish(vec![segment.clone()]).unwrap();
        let paths = paths(&test, &segment);
        fs::remove_file(paths.last().unwrap()).unwrap();
        let listed = test.store.list_segments().unwrap();
        assert_eq!(listed, [(segment.record().key(), segment.record().layout)]);
        send(&test.store, &segment).unwrap();
        assert!(is_good(&test.store, &segment));
    }
}

#[test]
fn many_at_once_share_the_folder_of_their_transaction() {
    let test = TestStore::new();
    let segments: Vec<EncodedSegment> = (0..6).map(|at| segment(1_000 + at)).collect();
    std::thread::scope(|scope| {
        for (at, segment) in segments.iter().enumerate() {
            let store = &test.store;
            if at % 2 == 0 {
                scope.spawn(|| store.publish(vec![segment.clone()]).unwrap());
            } else {
                scope.spawn(|| send(store, segment).unwrap());
                scope.spawn(|| send(store, segment).unwrap());
            }
        }
    });
    assert!(segments.iter().all(|segment| is_good(&test.store, segment)));
    assert_eq!((staged(&test).len(), quarantined(&test).len()), (0, 0));
}

#[test]
fn an_incoming_segment_may_move_between_threads() {
    fn check<T: Send>() {}
    check::<IncomingSegment>();
}

#[test]
fn text_that_is_long_comes_in_too() {
    let texts: Vec<String> = (0..65_536).map(|row| format!("{row:0>64}")).collect();
    let segment = encoded(vec![Arc::new(StringArray::from(texts)) as ArrayRef]);
    let test = TestStore::new();
    send(&test.store, &segment).unwrap();
    assert!(is_good(&test.store, &segment));
}
