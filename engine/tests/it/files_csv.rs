//! CSV from outside: records, types and what is wrong where.

use std::fs;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use basalt_engine::error::{ErrorCode, SqlError};
use basalt_engine::files::{AllowedRoots, CsvOptions, FileFormat, FileScan, FileSet};
use tempfile::TempDir;

use crate::files::query;

/// The rows of a batch as text; NULL is `~`.
fn rows(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::new().with_null("~");
    let columns: Vec<_> =
        batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
    (0..batch.num_rows())
        .map(|row| columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join("|"))
        .collect()
}

async fn read(content: impl AsRef<[u8]>, options: &str) -> Result<RecordBatch, SqlError> {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("a.csv"), content).unwrap();
    query(folder.path(), &format!("SELECT * FROM read_csv('{{}}/a.csv'{options})")).await
}

async fn check(content: &str, options: &str, expected: &[&str]) {
    assert_eq!(rows(&read(content, options).await.unwrap()), expected, "{content:?}");
}

async fn check_error(content: impl AsRef<[u8]>, options: &str, part: &str) {
    let error = read(content, options).await.unwrap_err();
    assert!(error.message.contains(part) && error.message.contains("a.csv"), "{error:?}");
}

#[tokio::test]
async fn records_end_in_any_line_break_or_none() {
    for content in [
        "a,b\n1,x\n2,y\n",
        "a,b\r\n1,x\r\n2,y\r\n",
        "a,b\r1,x\r2,y\r",
        "a,b\n1,x\n2,y",
        "\n\na,b\n\n1,x\n\n2,y\n\n",
    ] {
        check(content, "", &["1|x", "2|y"]).await;
    }
}

#[tokio::test]
async fn quotes_protect_delimiters_breaks_and_quotes() {
    check("a,b\n\"1,\n2\",\"say \"\"hi\"\"\"\n", "", &["1,\n2|say \"hi\""]).await;
    check("a,b\n\"x\r\ny\",z\n", "", &["x\r\ny|z"]).await;
    check("a,b\nx\"y,z\n", "", &["x\"y|z"]).await;
    check(
        "a;b\n'1;2';'it\\'s'\n",
        ", delimiter => ';', quote => '''', escape => '\\'",
        &["1;2|it's"],
    )
    .await;
}

#[tokio::test]
async fn an_unquoted_null_text_is_null_and_a_quoted_one_is_text() {
    check("a,b\n,x\n\"\",y\n", "", &["~|x", "|y"]).await;
    check("a,b\n\\N,x\n\"\\N\",\n", ", 'null=\\N'", &["~|x", "\\N|"]).await;
    check("a\n1\n\n3\n", "", &["1", "~", "3"]).await;
}

#[tokio::test]
async fn a_byte_order_mark_is_not_part_of_the_first_name() {
    let batch = read("\u{feff}ä,b\n1,2\n", "").await.unwrap();
    assert_eq!(batch.schema().field(0).name(), "ä");
}

#[tokio::test]
async fn files_without_header_get_numbered_columns() {
    let batch = read("1,x\n2,y\n", ", header => false").await.unwrap();
    assert_eq!(batch.schema().field(1).name(), "column_2");
    assert_eq!(rows(&batch), ["1|x", "2|y"]);
}

#[tokio::test]
async fn a_header_alone_is_a_table_without_rows() {
    assert_eq!(read("a,b\n", "").await.unwrap().num_rows(), 0);
    check_error("", "", "is empty").await;
}

#[tokio::test]
async fn types_are_guessed_from_the_first_records() {
    let batch =
        read("i,f,d,t,b,s,n\n1,1.5,2026-01-31,2026-01-31 10:00:00,true,007,\n", "").await.unwrap();
    let types: Vec<_> = batch.schema().fields().iter().map(|f| f.data_type().clone()).collect();
    assert_eq!(
        types,
        [
            DataType::Int64,
            DataType::Float64,
            DataType::Date32,
            DataType::Timestamp(TimeUnit::Microsecond, None),
            DataType::Boolean,
            DataType::Utf8View,
            DataType::Utf8View,
        ]
    );
}

#[tokio::test]
async fn a_value_unlike_the_guess_is_an_error_with_its_place() {
    let mut content = "id,\"wörd\"\n".to_owned();
    (0..12_000).for_each(|n| content.push_str(&format!("{n},\"two\nlines\"\n")));
    content.push_str("oops,x\n");
    check_error(&content, "", "line 24002, column \"id\": \"oops\" is not a value of type Int64")
        .await;
}

#[tokio::test]
async fn broken_records_are_named_by_line() {
    check_error("a,b\n1,2\n3\n", "", "line 3: 1 fields where 2 are expected").await;
    check_error("a,b\n1,2,3\n", "", "line 2: 3 fields where 2 are expected").await;
    check_error("a,b\n1,2\n\"3,4\n5,6\n", "", "line 3: a quote is not closed").await;
    check_error("a,b\n\"1\"x,2\n", "", "line 2: text after a closing quote").await;
    check_error("a,a\n1,2\n", "", "column \"a\" twice").await;
    check_error("a,\n1,2\n", "", "no name for column 2").await;
    check_error(b"a,b\n1,\xff\xfe\n", "", "line 2: text is not valid UTF-8").await;
    check_error(b"\xff\xfea\0,\0b\0\n\0", "", "is UTF-16").await;
}

#[tokio::test]
async fn a_record_without_end_is_refused_within_bounds() {
    let mut content = b"a,b\n1,\"".to_vec();
    content.resize(20 << 20, b'x');
    check_error(&content, "", "line 2: the record that begins here is over 16 MiB").await;
}

#[tokio::test]
async fn files_of_a_set_are_matched_by_name() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("1.csv"), "a,b\n1,x\n").unwrap();
    fs::write(folder.path().join("2.csv"), "b,a\ny,2.5\n").unwrap();
    let all = query(folder.path(), "SELECT a, b FROM read_csv('{}') ORDER BY a").await.unwrap();
    assert_eq!(rows(&all), ["1.0|x", "2.5|y"]);
    fs::write(folder.path().join("3.csv"), "a,c\n1,x\n").unwrap();
    let error = query(folder.path(), "SELECT a FROM read_csv('{}')").await.unwrap_err();
    for part in ["\"c\" of", "is extra", "\"b\" is missing"] {
        assert!(error.message.contains(part), "{error}");
    }
}

#[tokio::test]
async fn columns_are_projected_and_counted() {
    let content = "a,b,c\n1,x,2\n3,y,4\n";
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("a.csv"), content).unwrap();
    let some = query(folder.path(), "SELECT c, a FROM READ_CSV('{}/a.csv')").await.unwrap();
    assert_eq!(rows(&some), ["2|1", "4|3"]);
    let count = query(folder.path(), "SELECT count(*) FROM read_csv('{}/a.csv')").await.unwrap();
    assert_eq!(rows(&count), ["2"]);
}

#[tokio::test]
async fn options_that_do_not_exist_are_refused() {
    for options in [", colour => 'red'", ", 'delimiter=ab'", ", 'header=perhaps'", ", 1"] {
        let error = read("a\n1\n", options).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidParameter, "{options}: {error}");
    }
}

fn open(folder: &Path, declared: &Schema) -> Result<FileScan, SqlError> {
    let roots = AllowedRoots::new([folder]).unwrap();
    let set = FileSet::resolve(folder.to_str().unwrap(), Some(FileFormat::Csv), &roots)?;
    FileScan::open(set, &CsvOptions::default(), Some(declared), &roots)
}

/// Reads one value as a declared type.
async fn declared(text: &str, data_type: DataType) -> Result<String, SqlError> {
    use basalt_engine::error::from_datafusion;
    use basalt_engine::files::FileTable;
    use std::sync::Arc;
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("a.csv"), format!("V\n{text}\n")).unwrap();
    let schema = Schema::new(vec![Field::new("v", data_type.clone(), true)]);
    let table = FileTable::new(open(folder.path(), &schema)?);
    let context = crate::files::session(folder.path());
    let frame = context.read_table(Arc::new(table)).map_err(from_datafusion)?;
    let batches = frame.collect().await.map_err(from_datafusion)?;
    Ok(batches.iter().flat_map(rows).collect())
}

#[tokio::test]
async fn declared_types_are_parsed_strictly() {
    use DataType as T;
    let second = T::Timestamp(TimeUnit::Second, None);
    for (text, data_type, expected) in [
        ("12.50", T::Decimal128(10, 2), "12.50"),
        ("-0.5", T::Decimal128(3, 2), "-0.50"),
        ("200", T::UInt8, "200"),
        ("1e3", T::Float64, "1000.0"),
        ("2026-02-28", T::Date32, "2026-02-28"),
        ("2026-02-28 10:00:00", second.clone(), "2026-02-28T10:00:00"),
        ("10:00:00.5", T::Time64(TimeUnit::Nanosecond), "10:00:00.500"),
        ("true", T::Boolean, "true"),
    ] {
        assert_eq!(declared(text, data_type).await.unwrap(), expected, "{text}");
    }
    for (text, data_type) in [
        ("12.505", T::Decimal128(10, 2)),
        ("12345", T::Decimal128(4, 0)),
        ("256", T::UInt8),
        ("-1", T::UInt64),
        ("1.5", T::Int32),
        ("1e400", T::Float64),
        ("1e39", T::Float32),
        ("2026-02-30", T::Date32),
        ("2026-02-28 10:00:00.5", second),
        ("\"1,5\"", T::Float64),
        ("0x10", T::Int64),
        ("1_000", T::Int64),
        ("x", T::Boolean),
    ] {
        let error = declared(text, data_type).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::DataException, "{text}: {error}");
        assert!(error.message.contains("line 2, column \"V\""), "{error}");
    }
    let list = DataType::List(std::sync::Arc::new(Field::new_list_field(DataType::Int32, true)));
    assert_eq!(declared("1", list).await.unwrap_err().code, ErrorCode::FeatureNotSupported);
}
