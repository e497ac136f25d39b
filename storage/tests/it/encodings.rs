//! Declared encodings: what is asked for is what lies on the disk, values stay what they are, and
//! a dictionary that would be too large is none.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use basalt_storage::StorageError;
use basalt_storage::encoding::ChunkEncoding;
use basalt_storage::ids::ColumnId;
use basalt_storage::layout::ROW_GROUP_ROWS;
use basalt_storage::schema::TableSchema;
use basalt_storage::segment_writer::{EncodedSegment, SegmentWriter, WriterOptions, measure};
use basalt_storage::types::view_type;
use bytes::Bytes;
use parquet::basic::{Compression, Encoding};
use parquet::file::metadata::ParquetMetaDataReader;
use proptest::prelude::*;

use crate::arrays::{Random, random_array, storable_types};
use crate::support::{TestStore, batch, read_column, schema, spec};

/// A table of one column that declares an encoding.
fn declaring(ty: &DataType, nullable: bool, encode: ChunkEncoding) -> Arc<TableSchema> {
    let mut schema = TableSchema::clone(&schema(&[(ty.clone(), nullable)]));
    schema.columns[0].declared.encode = Some(encode);
    Arc::new(schema)
}

fn written(array: &ArrayRef, encode: ChunkEncoding) -> EncodedSegment {
    let schema = declaring(array.data_type(), true, encode);
    let mut writer =
        SegmentWriter::new(spec(Arc::clone(&schema)), WriterOptions::default()).unwrap();
    writer.append(batch(&schema, vec![Arc::clone(array)])).unwrap();
    writer.encode().unwrap()
}

/// Codec and encodings of the data pages of every leaf in a Parquet file, as any reader sees them.
fn on_disk(bytes: &Bytes) -> (Vec<Compression>, Vec<Encoding>) {
    let footer = ParquetMetaDataReader::new().parse_and_finish(bytes).unwrap();
    let (mut codecs, mut encodings) = (Vec::new(), Vec::new());
    for chunk in footer.row_groups().iter().flat_map(|group| group.columns()) {
        codecs.push(chunk.compression());
        encodings.extend(chunk.page_encoding_stats_mask().unwrap().encodings());
    }
    codecs.dedup();
    encodings.dedup();
    (codecs, encodings)
}

#[test]
fn the_file_has_the_encoding_that_was_declared() {
    // Values for which a measurement would choose another one each time.
    let constant: ArrayRef = Arc::new(Int64Array::from(vec![7; 70_000]));
    for (encode, codec, encoding) in [
        (ChunkEncoding::Raw, "UNCOMPRESSED", Encoding::PLAIN),
        (ChunkEncoding::Bytedict, "UNCOMPRESSED", Encoding::RLE_DICTIONARY),
        (ChunkEncoding::Delta, "UNCOMPRESSED", Encoding::DELTA_BINARY_PACKED),
        (ChunkEncoding::Lz4, "LZ4_RAW", Encoding::PLAIN),
        (ChunkEncoding::Zstd, "ZSTD", Encoding::PLAIN),
    ] {
        let segment = written(&constant, encode);
        let (codecs, encodings) = on_disk(&segment.files()[0].bytes);
        assert!(format!("{codecs:?}").contains(codec), "{encode:?}: {codecs:?}");
        let dictionary = [Encoding::PLAIN_DICTIONARY, Encoding::RLE_DICTIONARY];
        let same = match encoding {
            Encoding::RLE_DICTIONARY => encodings.iter().all(|e| dictionary.contains(e)),
            encoding => encodings == [encoding],
        };
        assert!(same && !encodings.is_empty(), "{encode:?}: {encodings:?}");
        assert_eq!(segment.record().columns[&ColumnId(1)].encoding, Some(encode));
    }
}

#[test]
fn a_dictionary_that_would_be_too_large_is_none() {
    // Values of 40 bytes, each once: 2.6 MB of dictionary.
    let texts = (0..65_536).map(|n| format!("{:040}", n * 7919 % 65_537));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    let segment = written(&texts, ChunkEncoding::Bytedict);
    let (_, encodings) = on_disk(&segment.files()[0].bytes);
    assert_eq!(encodings, [Encoding::PLAIN]);
    let stored = segment.record().columns[&ColumnId(1)].encoding;
    assert_eq!(stored, Some(ChunkEncoding::Lz4), "what a measurement chooses without one");
    let test = TestStore::new();
    let record = test.store.publish(vec![segment]).unwrap().remove(0);
    let read = read_column(&test.store, &record, 1, &DataType::Utf8).unwrap();
    assert_eq!(read.to_data(), texts.to_data());
}

#[test]
fn a_dictionary_that_grows_too_large_later_is_none_from_then_on() {
    let group = ROW_GROUP_ROWS as usize;
    let few = (0..group).map(|n| format!("{:040}", n % 10));
    let many = (0..group).map(|n| format!("{n:040}"));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(few.chain(many)));
    let segment = written(&texts, ChunkEncoding::Bytedict);
    let (_, encodings) = on_disk(&segment.files()[0].bytes);
    assert_eq!(encodings.len(), 2, "{encodings:?}");
    assert_eq!(encodings[1], Encoding::PLAIN);
    let test = TestStore::new();
    let record = test.store.publish(vec![segment]).unwrap().remove(0);
    let read = read_column(&test.store, &record, 1, &DataType::Utf8).unwrap();
    assert_eq!(read.to_data(), texts.to_data());
}

#[test]
fn an_encoding_that_does_not_fit_the_type_is_refused() {
    let schema = declaring(&DataType::Utf8, true, ChunkEncoding::Delta);
    let refused = SegmentWriter::new(spec(schema), WriterOptions::default());
    let Err(error @ StorageError::InvalidRequest { .. }) = refused else { panic!() };
    assert!(error.to_string().contains("encoding delta does not fit column \"c1\" of type Utf8"));
    assert_eq!(error.code(), "INVALID_REQUEST");
}

#[test]
fn what_is_measured_is_what_a_segment_takes() {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values((0..100_000).map(|n| n / 3)));
    let column = schema(&[(DataType::Int64, true)]).columns[0].clone();
    let measured = measure(&column, std::slice::from_ref(&numbers)).unwrap();
    assert_eq!((measured.values, measured.is_text), (100_000, false));
    assert_eq!(measured.bytes.len(), ChunkEncoding::ALL.len());
    for (encode, bytes) in &measured.bytes {
        let record = written(&numbers, *encode).record().clone();
        let stored = record.columns[&ColumnId(1)].bytes;
        // The rest is the file's footer.
        assert!((stored.saturating_sub(2_000)..=stored).contains(bytes), "{encode:?}");
    }
    assert_eq!(measured.suggest(ChunkEncoding::Raw).encoding, ChunkEncoding::Delta);
}

#[test]
fn an_encoding_that_cannot_hold_the_values_is_not_measured() {
    let texts: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..50_000).map(|n| format!("{n:040}"))));
    let column = schema(&[(DataType::Utf8, true)]).columns[0].clone();
    let measured = measure(&column, &[texts]).unwrap();
    assert_eq!(measured.bytes_in(ChunkEncoding::Bytedict), None, "too large");
    assert_eq!(measured.bytes_in(ChunkEncoding::Delta), None, "does not fit");
    assert!(measured.bytes_in(ChunkEncoding::Zstd) < measured.bytes_in(ChunkEncoding::Raw));
}

/// Writes random values in a declared encoding and reads them back.
fn check(ty: &DataType, encode: ChunkEncoding, rows: usize, nullable: bool, low: bool, seed: u64) {
    let array = random_array(&mut Random(seed), ty, rows, nullable, low);
    let schema = declaring(ty, nullable, encode);
    let mut writer =
        SegmentWriter::new(spec(Arc::clone(&schema)), WriterOptions::default()).unwrap();
    writer.append(batch(&schema, vec![array.slice(0, rows / 2)])).unwrap();
    writer.append(batch(&schema, vec![array.slice(rows / 2, rows - rows / 2)])).unwrap();
    let test = TestStore::new();
    let record = writer.finish(&test.store).unwrap();
    let read = read_column(&test.store, &record, 1, ty).unwrap();
    assert_eq!(read.to_data(), array.to_data(), "{ty} as {encode:?}");
    let views = view_type(ty);
    if views != *ty && !ty.is_nested() {
        let read = read_column(&test.store, &record, 1, &views).unwrap();
        assert_eq!(read.to_data(), cast(&array, &views).unwrap().to_data(), "{views}");
    }
}

/// A column of every type in every encoding that fits it.
fn everything(nullable: bool) -> Arc<TableSchema> {
    let fitting = storable_types().into_iter().flat_map(|ty| {
        let all = ChunkEncoding::ALL.into_iter();
        all.filter(|encode| encode.fits(&ty)).map(|encode| (ty.clone(), encode)).collect::<Vec<_>>()
    });
    let columns: Vec<_> = fitting.collect();
    let types: Vec<_> = columns.iter().map(|(ty, _)| (ty.clone(), nullable)).collect();
    let mut schema = TableSchema::clone(&schema(&types));
    for (column, (_, encode)) in schema.columns.iter_mut().zip(columns) {
        column.declared.encode = Some(encode);
    }
    Arc::new(schema)
}

#[test]
fn every_type_comes_back_from_every_encoding() {
    let test = TestStore::new();
    for (rows, nullable, low) in
        [(0, true, true), (1, true, false), (100, true, true), (100, false, false)]
    {
        let schema = everything(nullable);
        let random =
            |(seed, ty): (u64, &DataType)| random_array(&mut Random(seed), ty, rows, nullable, low);
        let types = schema.columns.iter().map(|column| &column.data_type);
        let columns: Vec<ArrayRef> = (0..).zip(types).map(random).collect();
        let mut writer =
            SegmentWriter::new(spec(Arc::clone(&schema)), WriterOptions::default()).unwrap();
        writer.append(batch(&schema, columns.clone())).unwrap();
        let record = writer.finish(&test.store).unwrap();
        for (column, values) in schema.columns.iter().zip(&columns) {
            let read = read_column(&test.store, &record, column.id.0, &column.data_type).unwrap();
            let encode = column.declared.encode;
            assert_eq!(read.to_data(), values.to_data(), "{} as {encode:?}", column.data_type);
        }
    }
}

#[test]
fn an_encoding_fits_a_type_or_is_refused() {
    for ty in storable_types() {
        for encode in ChunkEncoding::ALL {
            let schema = declaring(&ty, true, encode);
            let writer = SegmentWriter::new(spec(schema), WriterOptions::default());
            assert_eq!(writer.is_ok(), encode.fits(&ty), "{ty} as {encode:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_declared_encoding_never_changes_values(
        ty in prop::sample::select(storable_types()),
        encode in prop::sample::select(ChunkEncoding::ALL.to_vec()),
        rows in 0_usize..3_000,
        nullable: bool,
        low: bool,
        seed: u64,
    ) {
        if encode.fits(&ty) {
            check(&ty, encode, rows, nullable, low, seed);
        }
    }
}
