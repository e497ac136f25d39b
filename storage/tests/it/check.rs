//! Reading segments back: whatever is not as it was committed is found, and named.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::DataType;
use basalt_storage::chunk_store::{BadPart, ChunkStore, ReadFrom, SegmentCheck};
use basalt_storage::layout::BLOCK_BYTES;
use basalt_storage::segment_writer::EncodedSegment;
use proptest::prelude::*;

use crate::arrays::{Random, random_array};
use crate::crash_vfs::{CrashVfs, Plan};
use crate::support::{TestStore, code, copy_of, encoded, open};

/// Two columns of numbers and text.
fn segment(rows: usize) -> EncodedSegment {
    let column = |seed, ty: &DataType| random_array(&mut Random(seed), ty, rows, true, false);
    encoded(vec![column(1, &DataType::Int64), column(2, &DataType::Utf8)])
}

/// A wide and a packed segment in one store, with the paths of all their files.
struct Stored {
    test: TestStore,
    segments: Vec<EncodedSegment>,
}

impl Stored {
    fn new() -> Self {
        let (test, segments) = (TestStore::new(), vec![segment(65_536), segment(3_000)]);
        test.store.publish(segments.clone()).unwrap();
        Self { test, segments }
    }

    /// Which segment, which file of it (behind the last: the metadata), where.
    fn files(&self) -> Vec<(usize, usize, PathBuf)> {
        let mut files = Vec::new();
        for (at, segment) in self.segments.iter().enumerate() {
            let record = segment.record();
            let paths = segment.files().iter().map(|file| file.path.clone());
            let paths = paths.chain([record.key().meta_path(record.layout)]);
            let paths = paths.map(|path| self.test.dir.path().join(path));
            files.extend(paths.enumerate().map(|(file, path)| (at, file, path)));
        }
        files
    }

    fn check(&self, segment: usize, read: ReadFrom) -> SegmentCheck {
        self.test.store.check_segment(&copy_of(&self.segments[segment]), read).unwrap()
    }

    /// Changes a file, and expects the check to name it and nothing else.
    fn check_found(&self, at: usize, change: impl FnOnce(&mut Vec<u8>)) {
        let (segment, file, path) = &self.files()[at];
        let good = fs::read(path).unwrap();
        let mut bad = good.clone();
        change(&mut bad);
        fs::write(path, &bad).unwrap();
        let found = self.check(*segment, ReadFrom::Cache);
        let codes: Vec<_> = found.bad.iter().map(|part| part.error().code()).collect();
        assert_eq!(codes, ["CORRUPT"], "{}", path.display());
        assert!(!found.missing);
        let is_meta = *file == self.segments[*segment].files().len();
        assert_eq!(found.is_meta_bad(), is_meta);
        assert_eq!(found.bad_files(), if is_meta { vec![] } else { vec![*file] });
        fs::write(path, &good).unwrap();
    }
}

#[test]
fn a_good_segment_is_read_to_its_last_byte() {
    let stored = Stored::new();
    for (at, segment) in stored.segments.iter().enumerate() {
        for read in [ReadFrom::Cache, ReadFrom::Media] {
            let found = stored.check(at, read);
            assert!(found.is_good() && !found.missing);
            let bytes = segment.record().bytes + segment.meta_bytes().len() as u64;
            assert_eq!(found.bytes, bytes);
        }
    }
}

#[test]
fn missing_files_are_told_from_a_missing_segment() {
    let stored = Stored::new();
    for (segment, file, path) in stored.files() {
        let good = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let found = stored.check(segment, ReadFrom::Media);
        assert!(!found.missing);
        assert_eq!(found.bad.len(), 1);
        assert_eq!(found.bad[0].error().code(), "MISSING");
        match &found.bad[0] {
            BadPart::Meta(_) => assert_eq!(file, stored.segments[segment].files().len()),
            BadPart::File { file: found, .. } => assert_eq!(*found, file),
        }
        fs::write(&path, good).unwrap();
    }
    for (at, segment) in stored.segments.iter().enumerate() {
        let record = segment.record();
        stored.test.store.remove_segment(record.key(), record.layout).unwrap();
        let found = stored.check(at, ReadFrom::Media);
        assert!(found.missing && !found.is_good());
        let files = stored.test.store.check_files(segment.meta(), ReadFrom::Media).unwrap();
        assert!(files.missing);
        assert_eq!(files.bad_files(), (0..segment.files().len()).collect::<Vec<_>>());
    }
}

#[test]
fn where_the_metadata_is_bad_the_files_are_checked_with_that_of_a_peer() {
    let stored = Stored::new();
    for (at, segment) in stored.segments.iter().enumerate() {
        let (_, _, meta) = stored.files().into_iter().rfind(|(of, _, _)| *of == at).unwrap();
        fs::write(meta, "rotten").unwrap();
        let found = stored.check(at, ReadFrom::Cache);
        assert!(found.is_meta_bad() && found.bad.len() == 1);
        let check = || stored.test.store.check_files(segment.meta(), ReadFrom::Cache).unwrap();
        assert!(check().is_good());
        let (_, _, first) = stored.files().into_iter().find(|(of, _, _)| *of == at).unwrap();
        fs::write(first, "rotten").unwrap();
        assert_eq!(check().bad_files(), [0]);
    }
}

#[test]
fn swapped_and_stale_files_and_foreign_metadata_are_found() {
    let stored = Stored::new();
    let wide = |test: &Stored| test.files()[0].2.parent().unwrap().to_path_buf();
    let dir = wide(&stored);
    let [first, second] = ["c1.v1.parquet", "c2.v1.parquet"].map(|name| dir.join(name));
    let swap = || {
        let contents = [&first, &second].map(|path| fs::read(path).unwrap());
        fs::write(&first, &contents[1]).unwrap();
        fs::write(&second, &contents[0]).unwrap();
    };
    swap();
    assert_eq!(stored.check(0, ReadFrom::Cache).bad_files(), [0, 1]);
    swap();

    // The same rows in another segment: only ids differ.
    let other = Stored::new();
    let length = fs::metadata(&first).unwrap().len();
    assert_eq!(length, fs::metadata(wide(&other).join("c1.v1.parquet")).unwrap().len());
    fs::copy(wide(&other).join("c1.v1.parquet"), &first).unwrap();
    assert_eq!(stored.check(0, ReadFrom::Cache).bad_files(), [0]);
    fs::copy(wide(&other).join("segment.meta"), dir.join("segment.meta")).unwrap();
    assert!(stored.check(0, ReadFrom::Cache).is_meta_bad());
}

/// Bits that leave a CRC-32C as it is, in the order of the wire: its polynomial.
const CRC_BLIND: [u8; 5] = {
    // x^32 and then 0x1EDC6F41 from its highest bit, each byte from its lowest.
    let polynomial: u64 = (1 << 32) | 0x1EDC_6F41;
    let mut bytes = [0; 5];
    let mut bit = 0;
    while bit <= 32 {
        if polynomial >> (32 - bit) & 1 == 1 {
            bytes[bit / 8] |= 1 << (bit % 8);
        }
        bit += 1;
    }
    bytes
};

#[test]
fn a_change_that_the_checksum_of_its_block_misses_is_found_by_the_digest() {
    let blind = |bytes: &mut [u8]| {
        bytes[100..].iter_mut().zip(CRC_BLIND).for_each(|(byte, change)| *byte ^= change);
    };
    let mut bytes = vec![7; 200];
    let crc = crc32c::crc32c(&bytes);
    blind(&mut bytes);
    assert_eq!(crc32c::crc32c(&bytes), crc);

    let stored = Stored::new();
    stored.check_found(0, |bytes| blind(bytes));
    let path = &stored.files()[0].2;
    let mut bytes = fs::read(path).unwrap();
    blind(&mut bytes);
    fs::write(path, bytes).unwrap();
    let found = stored.check(0, ReadFrom::Cache);
    assert!(found.bad[0].error().to_string().contains("its digest is"), "{:?}", found.bad);
}

#[test]
fn a_bad_block_is_named() {
    let stored = Stored::new();
    let path = &stored.files()[0].2;
    let mut bytes = fs::read(path).unwrap();
    bytes[3 * BLOCK_BYTES as usize + 5] ^= 1;
    fs::write(path, bytes).unwrap();
    let found = stored.check(0, ReadFrom::Cache);
    let error = found.bad[0].error().to_string();
    assert!(error.ends_with("c1.v1.parquet is corrupt: block 3 fails its checksum"), "{error}");
}

#[test]
fn damage_under_the_page_cache_is_found_when_the_disk_is_read() {
    let vfs = CrashVfs::new();
    let store = open(Arc::new(vfs.clone())).unwrap();
    let segment = segment(1_000);
    store.publish(vec![segment.clone()]).unwrap();
    let meta_path = segment.record().key().meta_path(segment.record().layout);
    for path in [&segment.files()[0].path, &meta_path] {
        let path = format!("/data/{}", path.display());
        vfs.damage_disk(&path, 50);
        let check = |read| store.check_segment(&copy_of(&segment), read).unwrap();
        assert!(check(ReadFrom::Cache).is_good());
        assert!(!check(ReadFrom::Media).is_good());
        vfs.damage_disk(&path, 50);
        assert!(check(ReadFrom::Media).is_good());
    }
}

fn check_with_reads_failing(errno: rustix::io::Errno) -> basalt_storage::Result<SegmentCheck> {
    let vfs = CrashVfs::new();
    let store: ChunkStore = open(Arc::new(vfs.clone())).unwrap();
    let segment = segment(1_000);
    store.publish(vec![segment.clone()]).unwrap();
    vfs.plan(Plan { fail_reads: Some(errno.raw_os_error()), ..Plan::default() });
    let files = store.check_files(segment.meta(), ReadFrom::Media);
    let whole = store.check_segment(&copy_of(&segment), ReadFrom::Media);
    assert_eq!(files.is_ok(), whole.is_ok());
    whole
}

#[test]
fn a_file_that_the_disk_does_not_give_is_bad() {
    let found = check_with_reads_failing(rustix::io::Errno::IO).unwrap();
    assert_eq!(found.bad[0].error().code(), "IO");
    assert!(!found.missing);
}

#[test]
fn a_process_without_descriptors_or_memory_judges_nothing() {
    for errno in [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE, rustix::io::Errno::NOMEM] {
        assert_eq!(code(check_with_reads_failing(errno)), "IO");
    }
}

/// One for all cases: each leaves it as it was.
fn shared() -> &'static Stored {
    static STORED: OnceLock<Stored> = OnceLock::new();
    STORED.get_or_init(Stored::new)
}

/// Any number below `length`, from a number below 1.
fn position(fraction: f64, length: usize) -> usize {
    ((fraction * length as f64) as usize).min(length - 1)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    // One test, since its cases change the same files.
    #[test]
    fn any_single_change_of_any_file_is_found(
        file in 0..5_usize,
        at in 0.0..1.0_f64,
        bit in 0..8_u32,
        more in prop::collection::vec(any::<u8>(), 1..70_000),
    ) {
        let stored = shared();
        stored.check_found(file, |bytes| {
            let at = position(at, bytes.len());
            bytes[at] ^= 1 << bit;
        });
        stored.check_found(file, |bytes| bytes.truncate(position(at, bytes.len())));
        stored.check_found(file, |bytes| bytes.extend_from_slice(&more));
    }
}
