//! Segments written by earlier releases read as they were written.
//!
//! `BASALT_BLESS=1` writes the files of the current format version again: only when a version is
//! new, never to make this test pass.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int32Array, Int64Array, StringArray};
use arrow::datatypes::DataType;
use basalt_storage::ids::{SegmentId, TxnId};
use basalt_storage::manifest::{ColumnRecord, SegmentRecord};
use basalt_storage::segment_meta::SegmentMeta;
use basalt_storage::segment_writer::{EncodedSegment, SegmentWriter, WriterOptions};
use uuid::Uuid;

use crate::arrays::{Random, random_array, storable_types};
use crate::support::{batch, code, read_with, schema, spec};

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

/// Dictionary, delta and plain columns; wide, since 65,536 rows are.
fn wide_columns() -> Vec<ArrayRef> {
    let rows = 0..65_536;
    vec![
        Arc::new(Int32Array::from_iter_values(rows.clone().map(|row| row % 7))),
        Arc::new(Int64Array::from_iter(
            rows.clone().map(|row| (row % 100 != 0).then_some(row.into())),
        )),
        Arc::new(StringArray::from_iter_values(
            rows.map(|row| ["north", "south"][row as usize / 40_000]),
        )),
    ]
}

/// Every storable type, 20 rows. The files hold the types of `storable_types` as it is: a new
/// type needs a golden segment of its own.
fn packed_columns() -> Vec<ArrayRef> {
    let types = storable_types();
    types.iter().map(|ty| random_array(&mut Random(5), ty, 20, true, false)).collect()
}

fn write(columns: Vec<ArrayRef>, id: u128) -> EncodedSegment {
    let types: Vec<_> = columns.iter().map(|c| (c.data_type().clone(), true)).collect();
    let schema = schema(&types);
    let mut spec = spec(Arc::clone(&schema));
    spec.segment = SegmentId(Uuid::from_u128(id));
    spec.txn = TxnId(Uuid::from_u128(id + 1));
    let mut writer = SegmentWriter::new(spec, WriterOptions::default()).unwrap();
    writer.append(batch(&schema, columns)).unwrap();
    writer.encode().unwrap()
}

fn bless(name: &str, segment: &EncodedSegment) {
    let record = segment.record();
    let save = |path: &Path, bytes: &[u8]| {
        let path = dir().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    save(&record.key().meta_path(record.layout), segment.meta_bytes());
    for file in segment.files() {
        save(&file.path, &file.bytes);
    }
    let json = serde_json::to_vec_pretty(record).unwrap();
    save(Path::new(&format!("{name}.record.json")), &json);
}

fn check(name: &str, columns: Vec<ArrayRef>, id: u128) {
    if std::env::var_os("BASALT_BLESS").is_some() {
        bless(name, &write(columns.clone(), id));
    }
    let json = fs::read(dir().join(format!("{name}.record.json"))).unwrap();
    let record: SegmentRecord = serde_json::from_slice(&json).unwrap();
    let meta = fs::read(dir().join(record.key().meta_path(record.layout))).unwrap();
    let meta = SegmentMeta::decode(&meta, record.meta_digest).unwrap();
    for (index, expected) in columns.iter().enumerate() {
        let column = meta.columns().nth(index).unwrap();
        // Records of before format 6 of the catalog do not say how a column is written.
        let now = column.record();
        assert!(now.encoding.is_some(), "the metadata does: {}", column.encoding());
        assert_eq!(record.columns[&column.id()], ColumnRecord { encoding: None, ..now });
        let read = read_with(&meta, column.id().0, expected.data_type(), |column, range| {
            let file = fs::read(dir().join(column.path())).unwrap();
            Ok(bytes::Bytes::from(file).slice(range.offset as usize..range.end() as usize))
        });
        assert_eq!(read.unwrap().to_data(), expected.to_data(), "{}", column.data_type());
    }
}

#[test]
fn a_wide_segment_of_version_1_reads() {
    check("wide", wide_columns(), 0xA1);
}

#[test]
fn a_packed_segment_of_version_1_reads() {
    check("packed", packed_columns(), 0xB1);
}

#[test]
fn the_golden_columns_have_the_encodings_they_are_to_cover() {
    let segment = write(wide_columns(), 0xA1);
    let encodings: Vec<_> = segment.meta().columns().map(|c| c.encoding().to_owned()).collect();
    assert_eq!(encodings, ["dictionary", "delta", "dictionary"]);
    assert_eq!(
        segment.meta().column(basalt_storage::ids::ColumnId(3)).unwrap().data_type(),
        &DataType::Utf8
    );
}

#[test]
fn segment_metadata_of_the_next_version_is_refused() {
    let segment = write(wide_columns(), 0xA1);
    let mut bytes = segment.meta_bytes().to_vec();
    bytes[8] += 1;
    let digest = basalt_storage::digest::Digest::of(&bytes);
    assert_eq!(code(SegmentMeta::decode(&bytes, digest)), "NEWER_FORMAT");
}
