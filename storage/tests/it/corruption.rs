//! A changed byte anywhere is an error or changes nothing: never a wrong value.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, StringArray};
use arrow::datatypes::DataType;
use basalt_storage::ids::ColumnId;
use basalt_storage::layout::BLOCK_BYTES;
use basalt_storage::manifest::SegmentRecord;
use basalt_storage::segment_meta::ByteRange;
use basalt_storage::segment_reader::decode_row_group;

use crate::arrays::{Random, random_array};
use crate::support::{TestStore, code, encoded, read_column};

struct Damaged {
    test: TestStore,
    record: SegmentRecord,
    columns: Vec<ArrayRef>,
}

impl Damaged {
    /// A segment of numbers and text.
    fn new(rows: usize) -> Self {
        let test = TestStore::new();
        let columns = vec![
            random_array(&mut Random(1), &DataType::Int64, rows, true, false),
            random_array(&mut Random(2), &DataType::Utf8, rows, true, true),
        ];
        let record = test.store.publish(vec![encoded(columns.clone())]).unwrap().remove(0);
        Self { test, record, columns }
    }

    fn file(&self, column: u32) -> PathBuf {
        let chunk = self.record.chunk(ColumnId(column)).unwrap();
        let path = self.record.key().file_path(self.record.layout, chunk.column, chunk.version);
        self.test.dir.path().join(path)
    }

    fn meta(&self) -> PathBuf {
        self.test.dir.path().join(self.record.key().meta_path(self.record.layout))
    }

    fn read(&self, column: u32) -> basalt_storage::Result<ArrayRef> {
        let ty = self.columns[column as usize - 1].data_type().clone();
        read_column(&self.test.store, &self.record, column, &ty)
    }

    /// Reads all columns: each is right, or an error of this code. Returns how many were errors.
    fn check(&self, expected: &str) -> usize {
        let mut errors = 0;
        for (index, column) in self.columns.iter().enumerate() {
            match self.read(index as u32 + 1) {
                Ok(read) => assert_eq!(read.to_data(), column.to_data()),
                Err(error) => {
                    assert_eq!(error.code(), expected, "{error}");
                    assert!(error.is_copy_suspect());
                    errors += 1;
                }
            }
        }
        errors
    }
}

/// Positions all over a file: each end byte by byte, and a spread in between.
fn positions(length: usize) -> Vec<usize> {
    let ends = (0..length).filter(|at| *at < 64 || length - at <= 64);
    ends.chain((64..length).step_by((length / 40).max(1))).collect()
}

fn check_flips(rows: usize) {
    let damaged = Damaged::new(rows);
    for file in [damaged.file(1), damaged.file(2), damaged.meta()] {
        let good = fs::read(&file).unwrap();
        let mut found = 0;
        for at in positions(good.len()) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&file, bad).unwrap();
            found += damaged.check("CORRUPT").min(1);
        }
        fs::write(&file, good).unwrap();
        assert!(found > 0, "{}", file.display());
    }
    assert_eq!(damaged.check(""), 0);
}

#[test]
fn a_flipped_bit_in_a_packed_segment_is_found() {
    check_flips(1_000);
}

#[test]
fn a_flipped_bit_in_a_wide_segment_is_found() {
    check_flips(66_000);
}

#[test]
fn every_flip_inside_the_blocks_read_is_found() {
    let damaged = Damaged::new(66_000);
    let meta = damaged.test.store.segment_meta(&damaged.record).unwrap();
    let column = meta.column(ColumnId(1)).unwrap();
    let range = column.blocks_for(column.extent(0).unwrap());
    let good = fs::read(damaged.file(1)).unwrap();
    for at in (range.offset..range.end()).step_by(997) {
        let mut bad = good.clone();
        bad[at as usize] ^= 0x10;
        fs::write(damaged.file(1), bad).unwrap();
        assert_eq!(code(damaged.read(1)), "CORRUPT");
    }
}

#[test]
fn truncated_and_emptied_files_are_found() {
    for rows in [1_000, 66_000] {
        let damaged = Damaged::new(rows);
        for file in [damaged.file(2), damaged.meta()] {
            let good = fs::read(&file).unwrap();
            for length in [0, 1, good.len() / 2, good.len() - 1] {
                fs::write(&file, &good[..length]).unwrap();
                assert!(damaged.check("CORRUPT") > 0, "{} {length}", file.display());
            }
            fs::write(&file, good).unwrap();
        }
    }
}

#[test]
fn a_longer_metadata_file_is_found() {
    let damaged = Damaged::new(100);
    let mut bytes = fs::read(damaged.meta()).unwrap();
    bytes.extend_from_slice(&[0; 100]);
    fs::write(damaged.meta(), bytes).unwrap();
    assert_eq!(damaged.check("CORRUPT"), 2);
}

#[test]
fn the_file_of_another_segment_or_column_is_found() {
    let damaged = Damaged::new(66_000);
    let other = Damaged::new(66_000);
    // The same values; only the ids differ.
    fs::copy(other.meta(), damaged.meta()).unwrap();
    assert_eq!(damaged.check("CORRUPT"), 2);
    let damaged = Damaged::new(66_000);
    fs::copy(damaged.file(1), damaged.file(2)).unwrap();
    assert_eq!(code(damaged.read(2)), "CORRUPT");
}

#[test]
fn links_fifos_and_directories_in_place_of_a_chunk_are_refused() {
    let damaged = Damaged::new(66_000);
    let (file, aside) = (damaged.file(1), damaged.test.dir.path().join("aside"));
    fs::copy(&file, &aside).unwrap();
    fs::remove_file(&file).unwrap();
    symlink(&aside, &file).unwrap();
    assert_eq!(code(damaged.read(1)), "IO");
    fs::remove_file(&file).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &file,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert_eq!(code(damaged.read(1)), "IO");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert_eq!(code(damaged.read(1)), "IO");
    assert_eq!(damaged.check("IO"), 1);
}

#[test]
fn missing_files_are_named() {
    let damaged = Damaged::new(1_000);
    fs::remove_file(damaged.file(1)).unwrap();
    let error = damaged.read(1).unwrap_err();
    let expected = format!("chunks/7/3/{}.pack.parquet is missing", damaged.record.segment);
    assert_eq!(error.to_string(), expected);
}

#[test]
fn only_whole_blocks_are_verified_and_only_their_own_bytes_decoded() {
    let numbers: ArrayRef =
        Arc::new(Int64Array::from_iter_values((0..66_000).map(|i| i * 7919 % 65_537 * i)));
    let texts: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..66_000).map(|i| i.to_string())));
    let segment = encoded(vec![numbers, texts]);
    let meta = segment.meta();
    let (first, second) = (meta.column(ColumnId(1)).unwrap(), meta.column(ColumnId(2)).unwrap());
    let bytes = segment.files()[0].bytes.clone();

    let partial = ByteRange { offset: 10, length: 100 };
    assert_eq!(code(first.verify(partial, bytes.slice(10..110))), "INVALID_REQUEST");
    let beyond = ByteRange { offset: 0, length: first.file().length + BLOCK_BYTES };
    assert_eq!(code(first.verify(beyond, bytes.clone())), "INVALID_REQUEST");
    let whole = ByteRange { offset: 0, length: first.file().length };
    assert_eq!(code(first.verify(whole, bytes.slice(1..))), "CORRUPT");

    let verified = first.verify(whole, bytes.clone()).unwrap();
    let read = |column, group, bytes, ty| {
        decode_row_group(meta, ColumnId(column), group, bytes, &ty, None)
    };
    assert!(read(1, 0, &verified, DataType::Int64).is_ok());
    assert_eq!(code(read(2, 0, &verified, DataType::Utf8)), "INVALID_REQUEST");
    assert_eq!(code(read(1, 1, &verified, DataType::Int64)), "INVALID_REQUEST");
    assert_eq!(code(read(9, 0, &verified, DataType::Int64)), "INVALID_REQUEST");
    let start = ByteRange { offset: 0, length: BLOCK_BYTES };
    if first.extent(0).unwrap().end() > BLOCK_BYTES {
        let verified = first.verify(start, bytes.slice(..BLOCK_BYTES as usize)).unwrap();
        assert_eq!(code(read(1, 0, &verified, DataType::Int64)), "INVALID_REQUEST");
    }
    assert_eq!(second.file_name(), "c2.v1.parquet");
}
