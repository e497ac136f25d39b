//! Columns of foreign Parquet files that readers like to get wrong.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal256Array, Int64Array, NullArray, RecordBatch, StringArray,
};
use arrow::datatypes::{
    DataType, Decimal128Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, i256,
};
use basalt_engine::error::ErrorCode;
use basalt_engine::files::ParquetFile;
use parquet::arrow::ArrowWriter;
use parquet::data_type::{ByteArray, FixedLenByteArray, FixedLenByteArrayType};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use tempfile::TempDir;

use crate::files::query;

fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )
    .unwrap();
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// A file with a column of intervals at the top and one in a struct, as DuckDB writes them: no
/// Arrow type in it has all three parts.
fn write_intervals(path: &Path) {
    let schema = "message m {
        optional fixed_len_byte_array(12) i (INTERVAL);
        required group s { optional fixed_len_byte_array(12) i (INTERVAL); }
    }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let parts = [14_u32, 3, u32::MAX];
    let bytes: Vec<u8> = parts.iter().flat_map(|part| part.to_le_bytes()).collect();
    let value = FixedLenByteArray::from(ByteArray::from(bytes));
    while let Some(mut column) = group.next_column().unwrap() {
        let typed = column.typed::<FixedLenByteArrayType>();
        typed.write_batch(std::slice::from_ref(&value), Some(&[1, 0]), None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

#[tokio::test]
async fn intervals_keep_their_months_days_and_milliseconds() {
    let folder = TempDir::new().unwrap();
    write_intervals(&folder.path().join("i.parquet"));
    let sql = "SELECT i, s FROM read_parquet('{}/i.parquet') ORDER BY i IS NULL";
    let rows = query(folder.path(), sql).await.unwrap();
    let expected = IntervalMonthDayNano::new(14, 3, i64::from(u32::MAX) * 1_000_000);
    for array in [rows.column(0), rows.column(1).as_struct().column(0)] {
        assert_eq!(*array.data_type(), DataType::Interval(IntervalUnit::MonthDayNano));
        let intervals = array.as_primitive::<IntervalMonthDayNanoType>();
        assert_eq!(intervals.value(0), expected);
        assert!(intervals.is_null(1));
    }
}

#[tokio::test]
async fn a_wide_decimal_of_few_digits_is_an_ordinary_one() {
    let folder = TempDir::new().unwrap();
    let wide = Decimal256Array::from(vec![i256::from_i128(-125)]);
    let wide = wide.with_precision_and_scale(38, 2).unwrap();
    write(&folder.path().join("d.parquet"), vec![("d", Arc::new(wide))]);
    let rows = query(folder.path(), "SELECT d FROM read_parquet('{}/d.parquet')").await.unwrap();
    assert_eq!(*rows.column(0).data_type(), DataType::Decimal128(38, 2));
    assert_eq!(rows.column(0).as_primitive::<Decimal128Type>().value(0), -125);
}

#[tokio::test]
async fn a_column_has_the_type_of_those_files_where_it_has_values() {
    let folder = TempDir::new().unwrap();
    let untyped: ArrayRef = Arc::new(NullArray::new(2));
    let typed: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    write(&folder.path().join("1.parquet"), vec![("c", Arc::clone(&untyped))]);
    write(&folder.path().join("2.parquet"), vec![("c", typed)]);
    write(&folder.path().join("3.parquet"), vec![("c", Arc::clone(&untyped))]);
    let sql = "SELECT c FROM read_parquet('{}/*.parquet')";
    let rows = query(folder.path(), sql).await.unwrap();
    assert_eq!(*rows.column(0).data_type(), DataType::Utf8View);
    assert_eq!((rows.num_rows(), rows.column(0).null_count()), (6, 4));

    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    write(&folder.path().join("3.parquet"), vec![("c", numbers)]);
    let error = query(folder.path(), sql).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::SourceFile);
    assert!(error.message.contains("3.parquet\" is Int64, not Utf8View"), "{error}");
}

#[test]
fn batches_of_many_columns_have_few_rows() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("wide.parquet");
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..5_000));
    let names: Vec<String> = (0..1_000).map(|index| format!("c{index}")).collect();
    write(&path, names.iter().map(|name| (name.as_str(), Arc::clone(&column))).collect());
    let file = ParquetFile::open(&path, File::open(&path).unwrap()).unwrap();
    let (mut rows, mut largest) = (0, 0);
    let mut sink = |batch: RecordBatch| {
        rows += batch.num_rows();
        largest = largest.max(batch.num_rows());
        true
    };
    assert!(file.read(0..file.rows(), file.schema(), 8_192, &mut sink).unwrap());
    assert_eq!(rows, 5_000);
    assert!(largest * 1_000 <= 2 << 20, "{largest} rows");
}
