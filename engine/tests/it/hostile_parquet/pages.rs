//! What pages say, and become (FAULTS A5: 29 to 31, 36).

use std::io::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::forge::{
    body, check_refused, check_rows, data_page, file, footer, read, rows, with_column, with_page,
};

/// Parquet's numbers of encodings.
const PLAIN: i64 = 0;
const RLE_DICTIONARY: i64 = 8;

/// Levels that say: some values, none NULL.
fn all_present(values: u8) -> Vec<u8> {
    vec![2, 0, 0, 0, values << 1, 1]
}

#[tokio::test]
async fn pages_that_claim_to_be_huge_are_refused_before_room_is_made() {
    for codec in [
        Compression::SNAPPY,
        Compression::ZSTD(Default::default()),
        Compression::LZ4_RAW,
        Compression::GZIP(Default::default()),
        Compression::BROTLI(Default::default()),
    ] {
        let good = file(&rows(), |set| set.set_compression(codec).set_dictionary_enabled(false));
        check_rows(&codec.to_string(), &good).await;
        for inflated in [i64::from(i32::MAX), 257 << 20] {
            let bytes = with_page(&good, 0, &data_page(inflated, 500, PLAIN, &[0; 100]));
            let error = check_refused(&codec.to_string(), &bytes).await;
            assert!(error.message.contains("at most 268435456 are read"), "{error}");
        }
        let bytes = with_page(&good, 0, &data_page(-1, 500, PLAIN, &[0; 100]));
        check_refused("a negative size", &bytes).await;
    }
}

#[tokio::test]
async fn bombs_are_refused() {
    let zeros = vec![0; 1 << 20];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let mut brotli = brotli::CompressorWriter::new(Vec::new(), 4_096, 5, 22);
    for _ in 0..300 {
        gzip.write_all(&zeros).unwrap();
        brotli.write_all(&zeros).unwrap();
    }
    for (codec, bomb) in [
        (Compression::GZIP(Default::default()), gzip.finish().unwrap()),
        (Compression::BROTLI(Default::default()), brotli.into_inner()),
    ] {
        let good = file(&rows(), |set| set.set_compression(codec).set_dictionary_enabled(false));
        let bytes = with_page(&good, 0, &data_page(4_000, 500, PLAIN, &bomb));
        let error = check_refused(&codec.to_string(), &bytes).await;
        assert!(error.message.contains("at most 268435456 are read"), "{error}");
    }
    // One value that is too large: honest, and refused all the same.
    let value: ArrayRef = Arc::new(BinaryArray::from_vec(vec![&vec![0; 300 << 20][..]]));
    let batch = RecordBatch::try_from_iter([("n", value)]).unwrap();
    let honest = file(&batch, |set| {
        set.set_compression(Compression::ZSTD(Default::default())).set_dictionary_enabled(false)
    });
    let error = read(&honest, "count(n)").await.unwrap_err();
    assert!(error.message.contains("at most 268435456 are read"), "{error}");
}

#[tokio::test]
async fn pages_that_hold_less_than_they_say_are_refused() {
    let good = file(&rows(), |set| set.set_dictionary_enabled(false));
    let values: Vec<u8> = (0_i64..10).flat_map(i64::to_le_bytes).collect();
    for (what, page) in [
        ("500 values in 10", [all_present(10), values.clone()].concat()),
        ("no values", Vec::new()),
        ("levels of 4 GiB", [vec![0xff; 4], values.clone()].concat()),
        ("levels that end early", [vec![2, 0, 0, 0, 20], Vec::new()].concat()),
        ("levels above the highest", [vec![2, 0, 0, 0, 20, 0xff], values.clone()].concat()),
    ] {
        let bytes = with_page(&good, 0, &data_page(page.len() as i64, 500, PLAIN, &page));
        check_refused(what, &bytes).await;
    }
    for values in [-1, 499] {
        let plain: Vec<u8> = (0_i64..500).flat_map(i64::to_le_bytes).collect();
        let page = data_page(plain.len() as i64, values, PLAIN, &plain);
        check_refused(&format!("{values} values"), &with_page(&good, 0, &page)).await;
    }
    // More than the row group has rows: what is too many is not looked at.
    for values in [501, i64::from(i32::MAX)] {
        let plain: Vec<u8> = (0_i64..500).flat_map(i64::to_le_bytes).collect();
        let page = data_page(plain.len() as i64, values, PLAIN, &plain);
        check_rows(&format!("{values} values"), &with_page(&good, 0, &page)).await;
    }
}

#[tokio::test]
async fn indices_without_their_dictionary_are_refused() {
    let good = file(&rows(), |set| set.set_dictionary_enabled(false));
    let indices = [all_present(100), vec![8, 0xe8, 0x07, 5]].concat();
    let page = data_page(indices.len() as i64, 500, RLE_DICTIONARY, &indices);
    check_refused("no dictionary", &with_page(&good, 0, &page)).await;
    // A dictionary of 100 texts, and indices of which all are 255: each run of the page's own
    // indices becomes one of a width of eight bits.
    let with_dictionary = file(&rows(), |set| set);
    let chunk = footer(&with_dictionary).row_group(0).column(1).clone();
    let data = chunk.data_page_offset() as usize;
    let mut bytes = with_dictionary.clone();
    let length = chunk.compressed_size() as usize
        - (data - chunk.dictionary_page_offset().unwrap() as usize);
    for byte in &mut bytes[data + length - 60..data + length] {
        *byte = 0xff;
    }
    check_refused("indices out of range", &bytes).await;
    let missing = with_column(&with_dictionary, 1, |c| {
        c.set_dictionary_page_offset(None).set_total_compressed_size(length as i64)
    });
    check_refused("a dictionary left out", &missing).await;
    for encoding in [99, -1, 1, 7] {
        let page = data_page(10, 500, encoding, &[0; 10]);
        check_refused(&format!("encoding {encoding}"), &with_page(&good, 0, &page)).await;
    }
    assert!(!body(&good).is_empty());
}

#[tokio::test]
async fn text_that_is_not_utf8_is_refused() {
    for dictionary in [true, false] {
        let schema = Arc::new(
            parse_message_type("message m { required binary n (UTF8); required binary s (UTF8); }")
                .unwrap(),
        );
        let properties = WriterProperties::builder().set_dictionary_enabled(dictionary).build();
        let mut bytes = Vec::new();
        let mut writer =
            SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).unwrap();
        let mut group = writer.next_row_group().unwrap();
        while let Some(mut column) = group.next_column().unwrap() {
            let values = vec![ByteArray::from("fine"), ByteArray::from(vec![b'x', 0xff, 0xfe])];
            column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
        writer.close().unwrap();
        let error = read(&bytes, "max(s)").await.unwrap_err();
        assert!(
            error.message.to_lowercase().contains("utf-8") || error.message.contains("utf8"),
            "{error}"
        );
        check_not_text(&bytes).await;
    }
}

async fn check_not_text(bytes: &[u8]) {
    let error = read(bytes, "max(n)").await.unwrap_err();
    assert_eq!(error.code, basalt_engine::error::ErrorCode::SourceFile, "{error:?}");
}
