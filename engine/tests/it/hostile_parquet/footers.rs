//! What the footer says, and lies (FAULTS A5: 26 to 28, 32 to 38).

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, ListArray, RecordBatch};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, CompressionCodec};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::statistics::Statistics;

use super::forge::{
    body, check_refused, check_rows, file, footer, read, rows, with_column, with_group,
};

#[tokio::test]
async fn ends_that_are_no_footer_are_refused() {
    let good = file(&rows(), |set| set);
    let with_end = |end: &[u8]| [&good[..good.len() - end.len()], end].concat();
    for (what, bytes) in [
        ("no bytes", Vec::new()),
        ("the magic alone", b"PAR1".to_vec()),
        ("the magic twice", b"PAR1PAR1".to_vec()),
        ("another magic", with_end(b"PARX")),
        ("an encrypted footer", with_end(b"PARE")),
        ("a footer of no bytes", with_end(b"\0\0\0\0PAR1")),
        ("a footer larger than the file", with_end(b"\xff\xff\xff\x7fPAR1")),
        ("a footer of 4 GiB", with_end(b"\xff\xff\xff\xffPAR1")),
        ("a footer that is zeros", [body(&good), &[0; 100], b"\x64\0\0\0PAR1"].concat()),
        ("half of it", good[..good.len() / 2].to_vec()),
        // A list of 2^31 - 1 elements, and structs in structs.
        (
            "a list without end",
            [body(&good), b"\x15\x04\x19\xfc\xff\xff\xff\xff\x07\x0a\0\0\0PAR1"].concat(),
        ),
        ("structs without end", [body(&good), &[0x1c; 50_000], b"\x50\xc3\0\0PAR1"].concat()),
        ("lists without end", [body(&good), &[0x19; 50_000], b"\x50\xc3\0\0PAR1"].concat()),
    ] {
        check_refused(what, &bytes).await;
    }
}

#[tokio::test]
async fn chunks_that_are_not_where_the_footer_says_are_refused() {
    let good = file(&rows(), |set| set.set_dictionary_enabled(false));
    let end = good.len() as i64;
    for offset in [-1, i64::MIN, 0, end - 1, end, end + 1_000, i64::from(u32::MAX), i64::MAX] {
        let bytes = with_column(&good, 0, |c| c.set_data_page_offset(offset));
        check_refused(&format!("pages at {offset}"), &bytes).await;
    }
    for offset in [-1, end, i64::MAX] {
        let bytes = with_column(&good, 1, |c| c.set_dictionary_page_offset(Some(offset)));
        check_refused(&format!("a dictionary at {offset}"), &bytes).await;
    }
    for size in [-1, i64::MIN, 1, 10] {
        let bytes = with_column(&good, 0, |c| c.set_total_compressed_size(size));
        check_refused(&format!("a chunk of {size} bytes"), &bytes).await;
    }
    // The chunk of a column of another type.
    let first = footer(&good).row_group(0).column(0).data_page_offset();
    let overlapping = with_column(&good, 1, |c| c.set_data_page_offset(first));
    check_refused("two columns in one place", &overlapping).await;
}

#[tokio::test]
async fn row_counts_that_are_not_so_are_refused() {
    let good = file(&rows(), |set| set);
    for rows in [-1, i64::MIN / 2, i64::MAX - 500, 499, 501, 5_000_000_000] {
        let bytes = with_group(&good, |group| group.set_num_rows(rows));
        check_refused(&format!("groups of {rows} rows"), &bytes).await;
    }
}

#[tokio::test]
async fn statistics_that_lie_change_no_answer() {
    let good = file(&rows(), |set| set);
    let numbers = |min, max, nulls| Statistics::int64(Some(min), Some(max), None, nulls, false);
    let floats = |min, max| Statistics::double(Some(min), Some(max), None, Some(0), false);
    let texts = |min: &str, max: &str, nulls| {
        Statistics::byte_array(Some(min.into()), Some(max.into()), None, Some(nulls), false)
    };
    for (column, statistics) in [
        (0, numbers(5_000, 6_000, Some(0))),
        (0, numbers(10, -10, Some(0))),
        (0, numbers(0, 1, Some(500))),
        (0, numbers(0, 1, None)),
        (1, texts("x", "a", 0)),
        (1, texts("text 1", "text 2", 500)),
        (1, texts("", "", u64::MAX)),
        (2, floats(f64::NAN, f64::NAN)),
        (2, floats(1e300, -1e300)),
    ] {
        let bytes = with_column(&good, column, |c| c.set_statistics(statistics.clone()));
        check_rows(&format!("{statistics:?}"), &bytes).await;
        for filter in ["n = 700", "n BETWEEN 1 AND 3", "s = 'text 3'", "f < 1", "s IS NULL"] {
            let select = format!("count(*) FILTER (WHERE {filter})");
            assert_eq!(
                read(&bytes, &select).await.unwrap(),
                read(&good, &select).await.unwrap(),
                "{filter}: {statistics:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_arrow_schema_that_is_none_is_left_aside() {
    for schema in ["", "!", "AAAA", "/////wAAAAA=", &"A".repeat(100_000), "QUJD////"] {
        let properties = WriterProperties::builder()
            .set_key_value_metadata(Some(vec![KeyValue::new(
                "ARROW:schema".to_owned(),
                schema.to_owned(),
            )]))
            .build();
        let options =
            ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let mut bytes = Vec::new();
        let batch = rows();
        let mut writer =
            ArrowWriter::try_new_with_options(&mut bytes, batch.schema(), options).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        check_rows(&format!("{schema:.40}"), &bytes).await;
    }
}

#[tokio::test]
async fn codecs_that_nobody_has_are_refused() {
    let good = file(&rows(), |set| set);
    let lzo = with_column(&good, 1, |c| c.set_compression_codec(CompressionCodec::LZO));
    check_refused("LZO", &lzo).await;
    for other in [Compression::SNAPPY, Compression::GZIP(Default::default()), Compression::LZ4_RAW]
    {
        let bytes = with_column(&good, 0, |c| c.set_compression(other));
        check_refused(&format!("plain bytes that claim to be {other}"), &bytes).await;
    }
}

#[tokio::test]
async fn columns_of_one_name_and_types_without_end_are_refused() {
    let integers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
    let field = Field::new("n", integers.data_type().clone(), true);
    let schema = Arc::new(Schema::new(vec![field.clone(), field]));
    let twice = RecordBatch::try_new(schema, vec![integers.clone(), integers]).unwrap();
    let error = check_refused("two columns n", &file(&twice, |set| set)).await;
    assert!(error.message.contains("more than one column \"n\""), "{error}");
    for (depth, fine) in [(10, true), (20, true), (60, false)] {
        let mut array: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None]));
        for _ in 0..depth {
            let item = Arc::new(Field::new_list_field(array.data_type().clone(), true));
            let offsets = OffsetBuffer::from_lengths([array.len()]);
            array = Arc::new(ListArray::new(item, offsets, array, None));
        }
        let batch = RecordBatch::try_from_iter([("n", array)]).unwrap();
        let bytes = file(&batch, |set| set);
        match (read(&bytes, "count(n)").await, fine) {
            (Ok(rows), true) => assert!(rows.contains('1'), "{rows}"),
            (Err(error), false) => assert!(error.message.contains("nests more than"), "{error}"),
            (result, _) => panic!("{depth} lists: {result:?}"),
        }
    }
}

#[tokio::test]
async fn five_thousand_row_groups_of_one_row_are_read() {
    // One write each: the writer recurses once for every row group that a batch is cut into.
    let batch = rows();
    let mut bytes = Vec::new();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(1)).build();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    for n in 0..5_000 {
        writer.write(&batch.slice(n % 5 + 1, 1)).unwrap();
    }
    writer.close().unwrap();
    let read = read(&bytes, "count(*), sum(n)").await.unwrap();
    assert!(read.contains("5000") && read.contains("15000"), "{read}");
}
