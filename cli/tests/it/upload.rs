//! Files on their way into a table.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Int64Array, ListArray, RecordBatch, StringArray, StringViewArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use basalt_cli::upload::{CsvOptions, SourceFile, file_schema, find, stream, unify};
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;

const CSV: CsvOptions = CsvOptions { delimiter: b',', known_types: None };

fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
    let fields: Vec<Field> = fields.iter().map(|(n, t)| Field::new(*n, t.clone(), true)).collect();
    Arc::new(Schema::new(fields))
}

fn write_parquet(path: &Path, columns: &[(&str, ArrayRef)]) {
    let batch = RecordBatch::try_from_iter(columns.iter().cloned()).unwrap();
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn find_in(folder: &Path, pattern: &str) -> anyhow::Result<Vec<SourceFile>> {
    find(&[folder.join(pattern).to_string_lossy().into_owned()])
}

fn schemas(files: &[SourceFile], csv: &CsvOptions) -> anyhow::Result<Vec<(PathBuf, SchemaRef)>> {
    files.iter().map(|file| Ok((file.path.clone(), file_schema(file, csv)?))).collect()
}

#[test]
fn one_error_lists_every_difference_of_every_file() {
    let files = [
        (PathBuf::from("a.parquet"), schema(&[("id", DataType::Int64), ("name", DataType::Utf8)])),
        (PathBuf::from("b.parquet"), schema(&[("name", DataType::Utf8), ("id", DataType::Int64)])),
        (
            PathBuf::from("c.parquet"),
            schema(&[("id", DataType::Utf8), ("extra", DataType::Date32)]),
        ),
        (PathBuf::from("d.parquet"), schema(&[("id", DataType::Int64)])),
    ];
    let text = unify(&files).unwrap_err().to_string();
    for line in [
        "the files have different columns than a.parquet:",
        "c.parquet: column \"id\" is Utf8, not Int64",
        "c.parquet: column \"name\" is missing",
        "c.parquet: column \"extra\" is extra (Date32)",
        "d.parquet: column \"name\" is missing",
        "HINT:",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
    assert!(!text.contains("b.parquet"), "another order is no difference:\n{text}");
}

#[test]
fn a_column_without_a_type_takes_that_of_the_other_files() {
    let files = [
        (PathBuf::from("a"), schema(&[("x", DataType::Null)])),
        (PathBuf::from("b"), schema(&[("x", DataType::Date32)])),
        (PathBuf::from("c"), schema(&[("x", DataType::Null)])),
    ];
    assert_eq!(unify(&files).unwrap(), schema(&[("x", DataType::Date32)]));
}

#[test]
fn names_that_writers_give_to_list_items_are_no_difference() {
    let folder = tempfile::tempdir().unwrap();
    for (file, item) in [("1.parquet", "element"), ("2.parquet", "item")] {
        let offsets = OffsetBuffer::from_lengths([2]);
        let values: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let item = Arc::new(Field::new(item, DataType::Int64, item == "item"));
        let list: ArrayRef = Arc::new(ListArray::new(item, offsets, values, None));
        write_parquet(&folder.path().join(file), &[("l", list)]);
    }
    let files = find_in(folder.path(), "").unwrap();
    assert_eq!(unify(&schemas(&files, &CSV).unwrap()).unwrap().fields().len(), 1);
}

#[test]
fn a_column_that_is_there_twice_is_an_error() {
    let files = [(PathBuf::from("a"), schema(&[("x", DataType::Int64), ("x", DataType::Int64)]))];
    assert!(unify(&files).unwrap_err().to_string().contains("column \"x\" is there twice"));
}

#[tokio::test]
async fn files_with_other_orders_and_layouts_become_one_stream() {
    let folder = tempfile::tempdir().unwrap();
    let text: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    write_parquet(&folder.path().join("1.parquet"), &[("id", ids.clone()), ("name", text)]);
    let view: ArrayRef = Arc::new(StringViewArray::from(vec!["c", "d"]));
    write_parquet(&folder.path().join("2.parquet"), &[("name", view), ("id", ids.clone())]);
    let dictionary: DictionaryArray<Int32Type> = [Some("e"), None].into_iter().collect();
    let dictionary: ArrayRef = Arc::new(dictionary);
    write_parquet(&folder.path().join("3.parquet"), &[("id", ids), ("name", dictionary)]);
    std::fs::write(folder.path().join("4.csv"), "name,id\nf,7\n").unwrap();

    let files = find_in(folder.path(), "").unwrap();
    assert_eq!(files.len(), 4, "a folder is its Parquet and CSV files");
    let target = unify(&schemas(&files, &CSV).unwrap()).unwrap();
    let batches: Vec<RecordBatch> = stream(files, target.clone(), CSV).try_collect().await.unwrap();
    assert!(batches.iter().all(|batch| batch.schema() == target));
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(rows, 7);
    assert_eq!(*target.field(1).data_type(), DataType::Utf8);
    assert!(target.field(1).is_nullable(), "nullable when it is in any file");
}

#[tokio::test]
async fn a_bad_value_ends_the_stream_with_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bad.csv"), "id\n1\nx\n").unwrap();
    let files = find_in(folder.path(), "bad.csv").unwrap();
    let csv = CsvOptions { known_types: Some(schema(&[("id", DataType::Int64)])), ..CSV };
    let target = unify(&schemas(&files, &csv).unwrap()).unwrap();
    assert_eq!(*target.field(0).data_type(), DataType::Int64, "the table's type, not the file's");
    let result: Result<Vec<RecordBatch>, _> = stream(files, target, csv).try_collect().await;
    let error = result.unwrap_err().to_string();
    assert!(error.contains("bad.csv cannot be loaded"), "{error}");
}

#[test]
fn a_csv_column_that_the_table_does_not_have_is_an_error_that_lists_them() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.csv"), "id,nmae,x\n").unwrap();
    let files = find_in(folder.path(), "a.csv").unwrap();
    let known = schema(&[("id", DataType::Int64), ("name", DataType::Utf8)]);
    let csv = CsvOptions { known_types: Some(known), ..CSV };
    let error = schemas(&files, &csv).unwrap_err().to_string();
    assert!(error.contains("\"nmae\", \"x\"") && error.contains("id, name"), "{error}");
}

#[test]
fn what_is_not_parquet_or_csv_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("fake.parquet"), "hello").unwrap();
    std::fs::write(folder.path().join("notes.txt"), "hello").unwrap();
    let error = find_in(folder.path(), "fake.parquet").unwrap_err().to_string();
    assert!(error.contains("does not start with PAR1"), "{error}");
    let error = find_in(folder.path(), "notes.txt").unwrap_err().to_string();
    assert!(error.contains("neither Parquet nor named .csv"), "{error}");
    let error = find_in(folder.path(), "*.pq").unwrap_err().to_string();
    assert!(error.contains("matches no file") && error.contains("COPY"), "{error}");
}
