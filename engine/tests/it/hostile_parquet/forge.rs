//! Valid files with one thing changed.

use std::fs;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use basalt_engine::error::{ErrorCode, SqlError};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::{
    ColumnChunkMetaDataBuilder, ParquetMetaData, ParquetMetaDataReader, ParquetMetaDataWriter,
    RowGroupMetaDataBuilder,
};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use tempfile::TempDir;

/// `n`, `s` and `f` of a thousand rows in two row groups.
pub(super) fn rows() -> RecordBatch {
    let texts = (0..1_000).map(|n| (n % 7 != 0).then(|| format!("text {}", n % 100)));
    let columns: [(&str, ArrayRef); 3] = [
        ("n", Arc::new(Int64Array::from_iter_values(0..1_000))),
        ("s", Arc::new(StringArray::from_iter(texts))),
        ("f", Arc::new(Float64Array::from_iter_values((0..1_000).map(|n| f64::from(n) / 4.0)))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// A file's bytes.
pub(super) fn file(
    batch: &RecordBatch,
    set: impl FnOnce(WriterPropertiesBuilder) -> WriterPropertiesBuilder,
) -> Vec<u8> {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(500));
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, batch.schema(), Some(set(properties).build())).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}

pub(super) fn footer(bytes: &[u8]) -> ParquetMetaData {
    let bytes = Bytes::copy_from_slice(bytes);
    ParquetMetaDataReader::new().parse_and_finish(&bytes).unwrap()
}

/// The part of a file before its footer.
pub(super) fn body(bytes: &[u8]) -> &[u8] {
    let length = bytes[bytes.len() - 8..bytes.len() - 4].try_into().unwrap();
    &bytes[..bytes.len() - 8 - u32::from_le_bytes(length) as usize]
}

/// The body with another footer.
pub(super) fn with_footer(body: &[u8], footer: &ParquetMetaData) -> Vec<u8> {
    let mut end = Vec::new();
    ParquetMetaDataWriter::new(&mut end, footer).finish().unwrap();
    [body, &end].concat()
}

/// The file with one column of its first row group described anew.
pub(super) fn with_column(
    bytes: &[u8],
    column: usize,
    change: impl Fn(ColumnChunkMetaDataBuilder) -> ColumnChunkMetaDataBuilder,
) -> Vec<u8> {
    with_group(bytes, |group| {
        let group = group.build().unwrap();
        let mut columns = group.columns().to_vec();
        columns[column] = change(columns[column].clone().into_builder()).build().unwrap();
        group.into_builder().set_column_metadata(columns)
    })
}

/// The file with its first row group described anew.
pub(super) fn with_group(
    bytes: &[u8],
    change: impl Fn(RowGroupMetaDataBuilder) -> RowGroupMetaDataBuilder,
) -> Vec<u8> {
    let mut footer = footer(bytes).into_builder();
    let mut groups = footer.take_row_groups();
    groups[0] = change(groups[0].clone().into_builder()).build().unwrap();
    with_footer(body(bytes), &footer.set_row_groups(groups).build())
}

/// The file with the first page of a column in its first row group replaced: the new page is put
/// behind all others, and the footer says so.
pub(super) fn with_page(bytes: &[u8], column: usize, page: &[u8]) -> Vec<u8> {
    let body = body(bytes);
    let place = body.len() as i64;
    let mut footer = footer(bytes).into_builder();
    let mut groups = footer.take_row_groups();
    let group = groups.remove(0);
    let mut columns = group.columns().to_vec();
    columns[column] = columns[column]
        .clone()
        .into_builder()
        .set_dictionary_page_offset(None)
        .set_data_page_offset(place)
        .set_total_compressed_size(page.len() as i64)
        .build()
        .unwrap();
    groups.insert(0, group.into_builder().set_column_metadata(columns).build().unwrap());
    with_footer(&[body, page].concat(), &footer.set_row_groups(groups).build())
}

/// A number as Thrift's compact form writes it.
pub(super) fn number(n: i64) -> Vec<u8> {
    let mut rest = ((n << 1) ^ (n >> 63)) as u64;
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

/// A data page of the first version: its header says `inflated` bytes and `values` values.
pub(super) fn data_page(inflated: i64, values: i64, encoding: i64, bytes: &[u8]) -> Vec<u8> {
    let mut page = Vec::new();
    for n in [0, inflated, bytes.len() as i64] {
        page.push(0x15);
        page.extend(number(n));
    }
    page.push(0x2c); // field 5: the header of a data page
    for n in [values, encoding, 3, 3] {
        page.push(0x15);
        page.extend(number(n));
    }
    page.extend([0, 0]);
    page.extend(bytes);
    page
}

/// What a query over the file gives: rows as text, or the error.
pub(super) async fn read(bytes: &[u8], select: &str) -> Result<String, SqlError> {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("a.parquet"), bytes).unwrap();
    let sql = format!("SELECT {select} FROM read_parquet('{{}}/a.parquet')");
    let batch = crate::files::query(folder.path(), &sql).await?;
    let shown = arrow::util::pretty::pretty_format_batches(&[batch]).unwrap().to_string();
    Ok(shown.lines().skip(3).filter(|line| line.starts_with('|')).collect::<Vec<_>>().join("\n"))
}

/// Reading it must end in an error about the file.
pub(super) async fn check_refused(what: &str, bytes: &[u8]) -> SqlError {
    let result = read(bytes, "count(n), count(s), sum(f), max(s)").await;
    let error = match result {
        Ok(rows) => panic!("{what}: not refused: {rows}"),
        Err(error) => error,
    };
    assert_eq!(error.code, ErrorCode::SourceFile, "{what}: {error:?}");
    assert!(error.message.contains("a.parquet"), "{what}: {error:?}");
    error
}

/// Reading it gives the rows of [`rows`].
pub(super) async fn check_rows(what: &str, bytes: &[u8]) {
    let aggregates = "count(*), sum(n), count(s), min(n), max(n), max(s), sum(f), min(f), max(f)";
    let found = read(bytes, aggregates).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let expected = read(&file(&rows(), |set| set), aggregates).await.unwrap();
    assert_eq!(found, expected, "{what}");
}
