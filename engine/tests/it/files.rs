//! Files from outside: which are read, what is read of them, and what is refused.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, DictionaryArray, Int32Array, Int64Array, LargeStringArray, ListArray,
    RecordBatch, RecordBatchOptions, StringArray, StringViewArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema};
use basalt_engine::dialect::{self, Statement};
use basalt_engine::error::{ErrorCode, SqlError, from_datafusion};
use basalt_engine::files::{
    AllowedRoots, CsvOptions, FileFormat, FileScan, FileScanExec, FileSet, FileTable, ReadFiles,
    ScannedFile, SourceFile, Unit,
};
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{SessionConfig, SessionContext};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use proptest::prelude::*;
use tempfile::TempDir;

/// A session whose process may read below `folder`.
pub(crate) fn session(folder: &Path) -> SessionContext {
    let roots = Arc::new(AllowedRoots::new([folder]).unwrap());
    let config = SessionConfig::new()
        .with_target_partitions(3)
        .with_batch_size(100)
        .with_extension(Arc::clone(&roots));
    let context = SessionContext::new_with_config(config);
    for format in [FileFormat::Parquet, FileFormat::Csv] {
        let function = ReadFiles::new(format, Arc::clone(&roots), CsvOptions::default());
        context.register_udtf(function.name(), Arc::new(function));
    }
    context
}

/// Runs SQL with `{}` standing for the folder.
pub(crate) async fn query(folder: &Path, sql: &str) -> Result<RecordBatch, SqlError> {
    let context = session(folder);
    let sql = sql.replace("{}", folder.to_str().unwrap());
    let Statement::Query(statement) = dialect::parse_one(&sql)?.statement else { panic!("{sql}") };
    let plan = context.state().statement_to_plan(statement).await.map_err(from_datafusion)?;
    let frame = context.execute_logical_plan(plan).await.map_err(from_datafusion)?;
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let batches = frame.collect().await.map_err(from_datafusion)?;
    Ok(concat_batches(&schema, &batches).unwrap())
}

fn integers(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

fn write(path: &Path, batch: &RecordBatch, group_rows: usize) {
    let properties =
        WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).build();
    let file = fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

fn numbers(path: &Path, from: i64, count: i64, group_rows: usize) {
    write(path, &batch(vec![("n", integers(from..from + count))]), group_rows);
}

fn open(pattern: &Path, roots: &AllowedRoots) -> Result<FileScan, SqlError> {
    let set = FileSet::resolve(pattern.to_str().unwrap(), None, roots)?;
    FileScan::open(set, &CsvOptions::default(), None, roots)
}

fn refused(result: Result<impl std::fmt::Debug, SqlError>, code: ErrorCode, part: &str) {
    let error = result.unwrap_err();
    assert!(error.code == code && error.message.contains(part), "{error:?}");
}

#[tokio::test]
async fn a_glob_reads_every_file_once() {
    let folder = TempDir::new().unwrap();
    for part in 0..5 {
        numbers(&folder.path().join(format!("part-{part}.parquet")), part * 1_000, 1_000, 300);
    }
    let result = query(
        folder.path(),
        "SELECT count(*), sum(n), count(DISTINCT n) FROM read_parquet('{}/part-*.parquet')",
    );
    let result = result.await.unwrap();
    let value = |column: usize| result.column(column).as_primitive::<Int64Type>().value(0);
    assert_eq!((value(0), value(1), value(2)), (5_000, 4_999 * 2_500, 5_000));
}

#[tokio::test]
async fn a_folder_is_read_with_its_folders_but_not_its_notes() {
    let folder = TempDir::new().unwrap();
    fs::create_dir_all(folder.path().join("a/b")).unwrap();
    fs::create_dir_all(folder.path().join("_temporary")).unwrap();
    numbers(&folder.path().join("x.parquet"), 0, 1, 1);
    numbers(&folder.path().join("a/b/ü.parquet"), 0, 2, 1);
    numbers(&folder.path().join("_temporary/y.parquet"), 0, 4, 1);
    numbers(&folder.path().join(".hidden.parquet"), 0, 8, 1);
    fs::write(folder.path().join("_SUCCESS"), "").unwrap();
    fs::write(folder.path().join("README"), "x").unwrap();
    let result = query(folder.path(), "SELECT count(*) FROM read_parquet('{}')").await.unwrap();
    assert_eq!(result.column(0).as_primitive::<Int64Type>().value(0), 3);
}

#[test]
fn only_the_allowed_folders_are_read() {
    let folder = TempDir::new().unwrap();
    let allowed = folder.path().join("in");
    fs::create_dir(&allowed).unwrap();
    numbers(&folder.path().join("secret.parquet"), 0, 1, 1);
    numbers(&allowed.join("ok.parquet"), 0, 1, 1);
    std::os::unix::fs::symlink("../secret.parquet", allowed.join("link.parquet")).unwrap();
    std::os::unix::fs::symlink(folder.path(), allowed.join("up")).unwrap();
    let roots = AllowedRoots::new([&allowed]).unwrap();
    let resolve = |path: String| FileSet::resolve(&path, Some(FileFormat::Parquet), &roots);
    let base = allowed.display();
    assert_eq!(resolve(format!("{base}/ok.parquet")).unwrap().files.len(), 1);
    for outside in [
        format!("{base}/../secret.parquet"),
        format!("{base}/link.parquet"),
        format!("{base}/up/secret.parquet"),
        format!("{base}/*.parquet"), // one of them is the link
        format!("{base}/../*.parquet"),
        format!("{base}/up/*.parquet"),
        format!("{base}/no/../../secret.parquet"),
        "/etc/passwd".to_owned(),
        "/no/such/file".to_owned(),
        "/etc/*".to_owned(),
        "/proc/self/environ".to_owned(),
        "/dev/zero".to_owned(),
    ] {
        refused(resolve(outside.clone()), ErrorCode::PermissionDenied, "outside the folders");
        assert!(resolve(outside).unwrap_err().hint.unwrap().contains("--allow-path"));
    }
    let nothing = FileSet::resolve(&format!("{base}/ok.parquet"), None, &AllowedRoots::none());
    refused(nothing, ErrorCode::PermissionDenied, "outside the folders");
    refused(resolve("s3://bucket/x.parquet".into()), ErrorCode::FeatureNotSupported, "URL");
    refused(resolve("file:///etc/passwd".into()), ErrorCode::FeatureNotSupported, "URL");
    refused(resolve("a\0b".into()), ErrorCode::InvalidParameter, "NUL");
    refused(resolve(String::new()), ErrorCode::InvalidParameter, "empty");
    refused(resolve(format!("{base}/*/../../*")), ErrorCode::InvalidParameter, ".. after");
    refused(resolve(format!("{base}/[")), ErrorCode::InvalidParameter, "is wrong at");
}

#[test]
fn only_regular_files_are_read() {
    let folder = TempDir::new().unwrap();
    let roots = AllowedRoots::new([folder.path()]).unwrap();
    let fifo = folder.path().join("pipe.parquet");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let resolve =
        |path: &Path| FileSet::resolve(path.to_str().unwrap(), Some(FileFormat::Parquet), &roots);
    refused(resolve(&fifo), ErrorCode::SourceFile, "not a regular file");
    refused(resolve(&folder.path().join("none.parquet")), ErrorCode::SourceFile, "does not exist");
    refused(resolve(&folder.path().join("*.csv")), ErrorCode::SourceFile, "no file matches");
    fs::remove_file(&fifo).unwrap();
    refused(resolve(folder.path()), ErrorCode::SourceFile, "no file matches");
    assert!(AllowedRoots::new([folder.path().join("missing")]).is_err());
}

#[test]
fn one_file_twice_through_a_link_is_an_error() {
    let folder = TempDir::new().unwrap();
    let roots = AllowedRoots::new([folder.path()]).unwrap();
    numbers(&folder.path().join("a.parquet"), 0, 1, 1);
    std::os::unix::fs::symlink("a.parquet", folder.path().join("b.parquet")).unwrap();
    refused(open(folder.path(), &roots), ErrorCode::SourceFile, "twice");
}

#[test]
fn the_format_comes_from_the_extension_or_the_statement() {
    let folder = TempDir::new().unwrap();
    let roots = AllowedRoots::new([folder.path()]).unwrap();
    numbers(&folder.path().join("a.parquet"), 0, 1, 1);
    fs::write(folder.path().join("b.csv"), "a\n1\n").unwrap();
    fs::write(folder.path().join("c.dat"), "a\n1\n").unwrap();
    let resolve = |name: &str, format| {
        FileSet::resolve(folder.path().join(name).to_str().unwrap(), format, &roots)
    };
    assert_eq!(resolve("b.csv", None).unwrap().format, FileFormat::Csv);
    refused(resolve("c.dat", None), ErrorCode::SourceFile, "tells no format");
    assert_eq!(resolve("c.dat", Some(FileFormat::Csv)).unwrap().format, FileFormat::Csv);
    refused(resolve("[ab]*", None), ErrorCode::SourceFile, "different formats");
    assert_eq!(resolve("", Some(FileFormat::Csv)).unwrap().files.len(), 1);
}

#[tokio::test]
async fn a_file_that_changes_after_planning_is_an_error() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.parquet");
    numbers(&path, 0, 10, 10);
    let context = session(folder.path());
    let sql = format!("SELECT n FROM read_parquet('{}')", path.display());
    let plan = context.sql(&sql).await.unwrap().create_physical_plan().await.unwrap();
    numbers(&path, 0, 11, 10);
    let error = from_datafusion(collect(plan, context.task_ctx()).await.unwrap_err());
    assert_eq!(error.code, ErrorCode::SourceFile);
    assert!(error.message.contains("has changed since"), "{error}");
}

#[tokio::test]
async fn the_running_process_checks_its_own_roots() {
    let folder = TempDir::new().unwrap();
    let elsewhere = TempDir::new().unwrap();
    let path = folder.path().join("a.parquet");
    numbers(&path, 0, 10, 10);
    let sql = format!("SELECT n FROM read_parquet('{}')", path.display());
    let plan =
        session(folder.path()).sql(&sql).await.unwrap().create_physical_plan().await.unwrap();
    for context in [session(elsewhere.path()), SessionContext::new()] {
        let result = collect(Arc::clone(&plan), context.task_ctx()).await;
        assert_eq!(from_datafusion(result.unwrap_err()).code, ErrorCode::PermissionDenied);
    }
}

#[tokio::test]
async fn text_of_every_layout_is_read_as_views() {
    let folder = TempDir::new().unwrap();
    let dictionary: DictionaryArray<Int32Type> = ["x", "y", "x"].into_iter().collect();
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([
        Some(vec![Some(1), None]),
        None,
        Some(vec![]),
    ]);
    let rows = batch(vec![
        ("plain", Arc::new(StringArray::from(vec!["a", "b", "c"]))),
        ("large", Arc::new(LargeStringArray::from(vec!["a", "b", "c"]))),
        ("view", Arc::new(StringViewArray::from(vec!["a", "b", "c"]))),
        ("dictionary", Arc::new(dictionary)),
        ("list", Arc::new(list)),
        ("naïve & \"quoted\"", integers([1, 2, 3])),
    ]);
    write(&folder.path().join("a.parquet"), &rows, 2);
    let all = query(folder.path(), "SELECT * FROM read_parquet('{}/a.parquet') ORDER BY plain")
        .await
        .unwrap();
    let types: Vec<_> = all.schema().fields().iter().map(|f| f.data_type().clone()).collect();
    assert_eq!(types[..4], vec![DataType::Utf8View; 4]);
    assert_eq!(
        all.column(3).as_string_view().iter().collect::<Vec<_>>(),
        [Some("x"), Some("y"), Some("x")]
    );
    assert_eq!(
        all.column(4).as_list::<i32>().value(0).as_primitive::<Int32Type>(),
        &Int32Array::from(vec![Some(1), None])
    );
    let some = query(
        folder.path(),
        "SELECT \"naïve & \"\"quoted\"\"\", large FROM read_parquet('{}/a.parquet') ORDER BY 1",
    );
    assert_eq!(some.await.unwrap().column(1).as_string_view().value(2), "c");
}

#[tokio::test]
async fn files_without_rows_or_groups_are_read() {
    let folder = TempDir::new().unwrap();
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let file = fs::File::create(folder.path().join("empty.parquet")).unwrap();
    ArrowWriter::try_new(file, schema, None).unwrap().close().unwrap();
    let count = "SELECT count(n) FROM read_parquet('{}')";
    assert_eq!(
        query(folder.path(), count).await.unwrap().column(0).as_primitive::<Int64Type>().value(0),
        0
    );
    numbers(&folder.path().join("ones.parquet"), 0, 250, 1);
    assert_eq!(
        query(folder.path(), count).await.unwrap().column(0).as_primitive::<Int64Type>().value(0),
        250
    );
}

#[tokio::test]
async fn files_agree_up_to_order_and_nullability() {
    let folder = TempDir::new().unwrap();
    let text: ArrayRef = Arc::new(StringArray::from(vec!["x", "y"]));
    let nullable: ArrayRef = Arc::new(Int64Array::from(vec![Some(3), None]));
    write(
        &folder.path().join("a.parquet"),
        &batch(vec![("n", integers([1, 2])), ("t", Arc::clone(&text))]),
        10,
    );
    write(&folder.path().join("b.parquet"), &batch(vec![("t", text), ("n", nullable)]), 10);
    let result =
        query(folder.path(), "SELECT n, t FROM read_parquet('{}') ORDER BY n").await.unwrap();
    let n = result.column(0).as_primitive::<Int64Type>();
    assert_eq!(n.iter().collect::<Vec<_>>(), [Some(1), Some(2), Some(3), None]);
}

#[test]
fn every_difference_between_files_is_in_one_error() {
    let folder = TempDir::new().unwrap();
    let roots = AllowedRoots::new([folder.path()]).unwrap();
    write(
        &folder.path().join("a.parquet"),
        &batch(vec![("n", integers([1])), ("m", integers([1]))]),
        10,
    );
    write(
        &folder.path().join("b.parquet"),
        &batch(vec![("n", Arc::new(StringArray::from(vec!["1"])))]),
        10,
    );
    write(
        &folder.path().join("c.parquet"),
        &batch(vec![("n", integers([1])), ("x", integers([1])), ("m", integers([1]))]),
        10,
    );
    let error = open(folder.path(), &roots).unwrap_err();
    for part in ["column \"n\" of", "not Int64", "\"m\" is missing in", "\"x\" of", "is extra"] {
        assert!(error.message.contains(part), "{part}: {error}");
    }
}

#[tokio::test]
async fn two_thousand_columns_are_read_and_one_of_them_alone() {
    let folder = TempDir::new().unwrap();
    let names: Vec<_> = (0..2_000).map(|n| format!("c{n}")).collect();
    let columns = names.iter().map(|name| (name.as_str(), integers([7, 8]))).collect();
    write(&folder.path().join("wide.parquet"), &batch(columns), 10);
    let all = query(folder.path(), "SELECT * FROM read_parquet('{}')").await.unwrap();
    assert_eq!((all.num_columns(), all.num_rows()), (2_000, 2));
    let one = query(folder.path(), "SELECT c1999 FROM read_parquet('{}')").await.unwrap();
    assert_eq!(one.column(0).as_primitive::<Int64Type>().values(), &[7, 8]);
}

#[test]
fn files_that_are_not_parquet_are_named() {
    let folder = TempDir::new().unwrap();
    let roots = AllowedRoots::new([folder.path()]).unwrap();
    let good = folder.path().join("good.parquet");
    numbers(&good, 0, 10_000, 1_000);
    let bytes = fs::read(&good).unwrap();
    let mut wrong_magic = bytes.clone();
    wrong_magic[bytes.len() - 4..].copy_from_slice(b"PARX");
    let mut huge_footer = bytes.clone();
    huge_footer[bytes.len() - 8..bytes.len() - 4].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
    for (name, content) in [
        ("empty", Vec::new()),
        ("magic", b"PAR1".to_vec()),
        ("twice", b"PAR1PAR1".to_vec()),
        ("text", b"a,b\n1,2\n".to_vec()),
        ("truncated", bytes[..bytes.len() / 2].to_vec()),
        ("wrong_magic", wrong_magic),
        ("huge_footer", huge_footer),
    ] {
        let path = folder.path().join(format!("{name}.parquet"));
        fs::write(&path, content).unwrap();
        refused(open(&path, &roots), ErrorCode::SourceFile, &format!("{name}.parquet"));
    }
}

#[tokio::test]
async fn flipped_bytes_give_an_error_or_rows_and_never_a_panic() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.parquet");
    numbers(&path, 0, 500, 100);
    let bytes = fs::read(&path).unwrap();
    std::panic::set_hook(Box::new(|_| {})); // panics of the decoder are caught, and noisy
    for position in (4..bytes.len()).step_by(bytes.len() / 150 + 1) {
        let mut damaged = bytes.clone();
        damaged[position] ^= 0xff;
        fs::write(&path, damaged).unwrap();
        if let Err(error) = query(folder.path(), "SELECT sum(n) FROM read_parquet('{}')").await {
            assert!(
                matches!(error.code, ErrorCode::SourceFile | ErrorCode::DataException),
                "{position}: {error:?}"
            );
        }
    }
    let _default = std::panic::take_hook();
}

#[tokio::test]
async fn a_limit_stops_reading() {
    let folder = TempDir::new().unwrap();
    numbers(&folder.path().join("a.parquet"), 0, 10_000, 100);
    let result = query(folder.path(), "SELECT n FROM read_parquet('{}') LIMIT 7").await.unwrap();
    assert_eq!(result.num_rows(), 7);
}

#[tokio::test]
async fn parts_cut_anywhere_hold_their_rows() {
    let folder = TempDir::new().unwrap();
    let roots = AllowedRoots::new([folder.path()]).unwrap();
    numbers(&folder.path().join("a.parquet"), 0, 1_000, 300);
    numbers(&folder.path().join("b.parquet"), 1_000, 7, 3);
    numbers(&folder.path().join("c.parquet"), 1_007, 500, 1_000);
    let scan = Arc::new(open(folder.path(), &roots).unwrap());
    let context = session(folder.path());
    for (tasks, partitions) in [(1, 1), (1, 3), (2, 2), (3, 5), (7, 11), (2, 1_000)] {
        let mut found = Vec::new();
        for task in scan.split(tasks, partitions) {
            let leaf = FileScanExec::new(Arc::clone(&scan), None, None, task).unwrap();
            let leaf = FileScanExec::from_proto(&leaf.to_proto().unwrap()).unwrap();
            for batch in collect(Arc::new(leaf), context.task_ctx()).await.unwrap() {
                found.extend_from_slice(batch.column(0).as_primitive::<Int64Type>().values());
            }
        }
        found.sort_unstable();
        assert!(found.iter().copied().eq(0..1_507), "{tasks} x {partitions}");
    }
}

#[test]
fn a_leaf_survives_its_encoding() {
    let folder = TempDir::new().unwrap();
    let roots = AllowedRoots::new([folder.path()]).unwrap();
    for n in 0..3 {
        numbers(&folder.path().join(format!("{n}.parquet")), 0, 100, 10);
    }
    let scan = Arc::new(open(folder.path(), &roots).unwrap());
    let second_task = scan.split(3, 2).remove(1);
    let leaf = FileScanExec::new(Arc::clone(&scan), Some(vec![0]), Some(5), second_task).unwrap();
    let bytes = leaf.to_proto().unwrap();
    let decoded = FileScanExec::from_proto(&bytes).unwrap();
    assert_eq!(decoded.scan().files.len(), 1, "files that no unit reads stay at home");
    assert_eq!((decoded.limit(), decoded.projection()), (Some(5), Some(&[0][..])));
    assert_eq!(decoded.schema(), leaf.schema());
    for cut in 0..bytes.len() {
        if let Err(error) = FileScanExec::from_proto(&bytes[..cut]) {
            assert_eq!(error.code, ErrorCode::Internal);
        }
    }
    let outside = vec![vec![Unit { file: 9, first_row: 0, rows: Some(1) }]];
    assert!(leaf.with_units(outside).is_err());
    let too_long = vec![vec![Unit { file: 0, first_row: 99, rows: Some(2) }]];
    assert!(leaf.with_units(too_long).is_err());
}

#[tokio::test]
async fn the_number_of_rows_is_known_exactly() {
    let folder = TempDir::new().unwrap();
    numbers(&folder.path().join("a.parquet"), 0, 123, 100);
    let roots = AllowedRoots::new([folder.path()]).unwrap();
    let table = FileTable::open(
        folder.path().to_str().unwrap(),
        None,
        &CsvOptions::default(),
        None,
        &roots,
    )
    .unwrap();
    use datafusion::catalog::TableProvider as _;
    let rows = table.statistics().unwrap().num_rows;
    assert_eq!(rows, datafusion::common::stats::Precision::Exact(123));
    let empty = RecordBatch::try_new_with_options(
        Arc::new(Schema::empty()),
        vec![],
        &RecordBatchOptions::new().with_row_count(Some(1)),
    );
    assert_eq!(empty.unwrap().num_rows(), 1);
}

/// A set of files that exists only on paper: splitting reads nothing.
fn paper(rows: &[Option<u64>]) -> FileScan {
    let file = |(index, rows): (usize, &Option<u64>)| ScannedFile {
        source: SourceFile {
            path: format!("/{index}").into(),
            bytes: rows.unwrap_or(index as u64 * 10),
            modified_ns: 0,
        },
        rows: *rows,
    };
    FileScan {
        format: FileFormat::Parquet,
        csv: CsvOptions::default(),
        schema: Arc::new(Schema::empty()),
        files: rows.iter().enumerate().map(file).collect(),
    }
}

proptest! {
    #[test]
    fn every_row_is_in_exactly_one_unit(
        rows in prop::collection::vec(0_u64..5_000, 1..20),
        tasks in 1_usize..9,
        partitions in 1_usize..9,
    ) {
        let scan = paper(&rows.iter().map(|r| Some(*r)).collect::<Vec<_>>());
        let split = scan.split(tasks, partitions);
        prop_assert_eq!(split.len(), tasks);
        prop_assert!(split.iter().all(|task| task.len() == partitions));
        let mut next = vec![0_u64; rows.len()];
        let mut sizes = Vec::new();
        for partition in split.iter().flatten() {
            sizes.push(partition.iter().map(|u| u.rows.unwrap()).sum::<u64>());
            for unit in partition {
                // Units come in order, so the first row of each is where the last one ended.
                prop_assert_eq!(unit.first_row, next[unit.file]);
                prop_assert!(unit.rows.unwrap() > 0);
                next[unit.file] += unit.rows.unwrap();
            }
        }
        prop_assert_eq!(next, rows);
        prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
    }

    #[test]
    fn every_csv_file_is_in_exactly_one_unit(
        files in 1_usize..50,
        tasks in 1_usize..9,
        partitions in 1_usize..9,
    ) {
        let scan = paper(&vec![None; files]);
        let split = scan.split(tasks, partitions);
        let mut seen: Vec<_> = split.iter().flatten().flatten().map(|u| (u.file, u.rows)).collect();
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..files).map(|file| (file, None)).collect::<Vec<_>>());
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _either_way = FileScanExec::from_proto(&bytes);
    }
}
