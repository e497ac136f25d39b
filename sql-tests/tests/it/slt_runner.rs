//! The sqllogictest runner itself, on tiny files of each dialect against plain DataFusion: what is
//! right passes, what is wrong is reported with file, line, expected and actual.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use basalt_sql_tests::slt::{
    BoxEngine, Connect, DataFusionEngine, Dialect, Engine, EngineError, FileReport, Known, Output,
    Place, SltOptions, known, run_at, run_file, run_with,
};
use datafusion::prelude::SessionContext;

/// A folder with files, and what they are run with.
struct Files {
    folder: tempfile::TempDir,
    options: SltOptions,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), options: SltOptions::default() }
    }

    fn add(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    async fn run(&self, name: &str, text: &str) -> FileReport {
        run_at(&self.add(name, text), &Place::DataFusion, None, &self.options).await
    }
}

async fn run(text: &str) -> FileReport {
    Files::new().run("a.test", text).await
}

fn check(report: &FileReport, passed: u64, failed: &[u32], skipped: u64) {
    let lines: Vec<u32> = report.failures.iter().map(|failure| failure.line).collect();
    assert_eq!(
        (report.passed, &lines[..], report.skipped),
        (passed, failed, skipped),
        "{report:#?}"
    );
    assert_eq!(report.failed, failed.len() as u64);
}

const SQLITE: &str = "hash-threshold 8

statement ok
CREATE TABLE t(a INTEGER, b FLOAT, c VARCHAR)

statement ok
INSERT INTO t VALUES (1, 1.5, 'x'), (2, -2.75, ''), (NULL, NULL, NULL)

query IRT rowsort
SELECT a, b, c FROM t
----
1
1.500
x
2
-2.750
(empty)
NULL
NULL
NULL

query I nosort
SELECT b FROM t ORDER BY a
----
1
-2
NULL

skipif mysql # not compatible
query R valuesort
SELECT a FROM t
----
1.000
2.000
NULL

onlyif mysql # not here
query I nosort
SELECT nonsense
----
7

onlyif mssql
halt

query I nosort
SELECT value FROM generate_series(1, 9)
----
9 values hashing to DIGEST
";

/// `printf '%s\n' 1 2 3 4 5 6 7 8 9 | md5sum`
const DIGEST: &str = "22e400a2ddbb013acf2a5852d6ab69fc";

#[tokio::test]
async fn sqlites_files_are_read_as_sqlite_writes_them() {
    let report = run(&SQLITE.replace("DIGEST", DIGEST)).await;
    assert_eq!(report.dialect, Some(Dialect::Sqlite));
    check(&report, 6, &[], 1);
}

#[tokio::test]
async fn a_wrong_digest_shows_the_rows() {
    let report = run(&SQLITE.replace("DIGEST", &"0".repeat(32))).await;
    check(&report, 5, &[46], 1);
    let text = &report.failures[0].text;
    assert!(text.contains(&format!("+   9 values hashing to {DIGEST}")), "{text}");
    assert!(text.contains("+   8\n"), "{text}");
}

#[tokio::test]
async fn a_wrong_value_is_reported_with_its_place() {
    let files = Files::new();
    let report = files.run("a.test", &SQLITE.replace("-2.750", "-2.751")).await;
    let failure = &report.failures[0];
    assert_eq!(failure.line, 9);
    assert!(failure.file.ends_with("a.test"), "{failure:?}");
    assert!(failure.text.contains("-   -2.751\n+   -2.750"), "{}", failure.text);
    assert!(failure.text.contains("SELECT a, b, c FROM t"), "{}", failure.text);
}

#[tokio::test]
async fn queries_of_one_label_have_one_result() {
    let query = |sql: &str, value: &str| format!("query I nosort same\n{sql}\n----\n{value}\n\n");
    let text = format!("hash-threshold 8\n\n{}", query("SELECT 1", "1"));
    check(&run(&format!("{text}{}", query("SELECT 2 - 1", "1"))).await, 2, &[], 0);
    let report = run(&format!("{text}{}", query("SELECT 2", "2"))).await;
    check(&report, 1, &[8], 0);
    assert!(report.failures[0].text.contains("line 3"), "{report:#?}");
}

#[tokio::test]
async fn a_halt_obeys_its_conditions() {
    let text = "statement ok\nSELECT 1\n\nskipif sqlite\nhalt\n\nstatement ok\nSELECT nonsense\n";
    check(&run(text).await, 1, &[], 1);
    let mut files = Files::new();
    files.options.labels = vec!["sqlite".to_owned()];
    check(&files.run("a.test", text).await, 1, &[7], 0);
}

#[tokio::test]
async fn a_row_per_line_is_the_default() {
    let text = "query IT\nSELECT 1, 'a b'\n----\n1 a b\n\nquery I\nSELECT 'x'\n----\nx\n";
    let report = run(text).await;
    assert_eq!(report.dialect, Some(Dialect::Postgres));
    check(&report, 1, &[6], 0);
    assert!(report.failures[0].text.contains("columns mismatch"), "{report:#?}");
}

const DUCKDB: &str = "# name: test/sql/a.test

statement maybe
SELECT nonsense

loop i 1 3

query II
SELECT ${i}, 'x'
----
${i}\tx

endloop

query IT
SELECT 5, 'abc'
----
5
<REGEX>:a.*

mode skip

statement ok
SELECT nonsense

mode unskip

statement error
SELECT nonsense
----
Binder Error: of DuckDB's own words
";

#[tokio::test]
async fn duckdbs_files_are_read_as_duckdb_writes_them() {
    let report = run(DUCKDB).await;
    assert_eq!(report.dialect, Some(Dialect::DuckDb));
    check(&report, 5, &[], 1);
    let report = run(&DUCKDB.replace("<REGEX>:a.*", "<REGEX>:b.*")).await;
    check(&report, 4, &[15], 1);
    let report = run(&DUCKDB.replace("${i}\tx", "2\tx")).await;
    check(&report, 4, &[8], 1);
}

#[tokio::test]
async fn a_file_that_needs_what_is_not_here_is_skipped_with_the_reason() {
    let report = run(&format!("require tpcds\n\n{DUCKDB}")).await;
    assert_eq!(report.skip.as_deref(), Some("requires tpcds"));
    check(&report, 0, &[], 6);
}

const MIXED: &str = "query I
SELECT 1
----
1

query I
SELECT 2
----
3

statement ok
SELECT nonsense

query I
SELECT 4
----
4
";

#[tokio::test]
async fn known_failures_pass_and_fail_once_they_are_right() {
    let mut files = Files::new();
    files.options.marks = true;
    let report = files.run("a.slt", MIXED).await;
    check(&report, 2, &[6, 11], 0);
    let list = known::write(&[report]);
    assert!(list.contains("a.slt\twrong-result\t1\t6\texpected 3, got 2\n"), "{list}");
    assert!(list.contains("a.slt\tmissing-column\t1\t11\t"), "{list}");

    files.options.known = Some(Arc::new(Known::parse(&list).unwrap()));
    let report = files.run("a.slt", MIXED).await;
    check(&report, 4, &[], 0);
    assert_eq!(report.known, 2);
    let report = files.run("a.slt", &MIXED.replace("\n3\n", "\n2\n")).await;
    check(&report, 3, &[6], 0);
    assert!(report.failures[0].text.contains("take it off"), "{report:#?}");
}

#[tokio::test]
async fn expectations_are_completed_in_place() {
    let mut files = Files::new();
    files.options.complete = true;
    let text = format!("# kept\n\n{MIXED}\n# kept\n");
    let report = files.run("a.slt", &text).await;
    check(&report, 4, &[], 0);
    assert_eq!(report.rewritten, 2);
    let completed = std::fs::read_to_string(files.folder.path().join("a.slt")).unwrap();
    let (before, after) = text.split_once("statement ok").unwrap();
    assert!(completed.starts_with(&before.replace("\n3\n", "\n2\n")), "{completed}");
    let (_, kept) = after.split_once("nonsense").unwrap();
    assert!(completed.ends_with(kept), "{completed}");
    files.options.complete = false;
    check(&files.run("a.slt", &completed).await, 4, &[], 0);
}

#[tokio::test]
async fn the_first_failure_ends_a_file_that_is_to_fail_fast() {
    let mut files = Files::new();
    files.options.fail_fast = true;
    check(&files.run("a.slt", MIXED).await, 1, &[6], 2);
}

#[tokio::test]
async fn files_see_no_tables_of_each_other() {
    let files = Files::new();
    let text = "statement ok\nCREATE TABLE t (a INTEGER)\n";
    check(&files.run("a.slt", text).await, 1, &[], 0);
    check(&files.run("b.slt", text).await, 1, &[], 0);
}

/// DataFusion that answers some queries as if they were others.
struct Wrong(DataFusionEngine);

const WRONG: [(&str, &str); 4] = [
    ("SELECT 1", "SELECT 10"),
    ("SELECT 2", "SELECT 20"),
    ("SELECT 4", "SELECT nonsense"),
    ("SELECT a FROM v", "SELECT a FROM v ORDER BY a DESC"),
];

#[async_trait]
impl Engine for Wrong {
    fn name(&self) -> &str {
        "wrong"
    }

    async fn run(&mut self, sql: &str) -> Result<Output, EngineError> {
        let other = WRONG.iter().find(|(from, _)| *from == sql).map_or(sql, |(_, to)| to);
        self.0.run(other).await
    }
}

async fn against_oracle(text: &str, ours_is_wrong: bool) -> FileReport {
    let connect = |is_wrong: bool| -> Connect<'static> {
        let session = SessionContext::new();
        Box::new(move || {
            let engine = DataFusionEngine::new(session.clone());
            let engine: BoxEngine =
                if is_wrong { Box::new(Wrong(engine)) } else { Box::new(engine) };
            Box::pin(async move { Ok(engine) })
        })
    };
    let files = Files::new();
    let path = files.add("a.slt", text);
    run_with(&path, connect(ours_is_wrong), Some(connect(!ours_is_wrong)), &files.options).await
}

#[tokio::test]
async fn only_what_the_oracle_alone_answers_right_fails() {
    let report = against_oracle(MIXED, true).await;
    // Neither gives 3 at line 6, and neither knows the column at line 11.
    check(&report, 0, &[1, 14], 2);
    let oracle = report.oracle.unwrap();
    assert_eq!((oracle.both, oracle.only_oracle, oracle.only_ours), (0, 2, 0), "{oracle:#?}");
    assert_eq!((oracle.both_unexpected, oracle.different), (1, 1), "{oracle:#?}");
    let lines: Vec<u32> = oracle.differences.iter().map(|difference| difference.line).collect();
    assert_eq!(lines, [1, 6, 14]);

    let report = against_oracle(MIXED, false).await;
    check(&report, 2, &[], 2);
    assert_eq!(report.oracle.unwrap().only_ours, 2);
}

#[tokio::test]
async fn an_order_is_compared_where_the_query_has_one() {
    let table = "statement ok\nCREATE VIEW v AS VALUES (1), (2)\n\n";
    let table = table.replace("VALUES (1), (2)", "SELECT * FROM (VALUES (1), (2)) AS x (a)");
    let query = |sql: &str| format!("{table}query I\n{sql}\n----\n5\n");
    let report = against_oracle(&query("SELECT a FROM v"), true).await;
    assert_eq!(report.oracle.unwrap().both_unexpected, 1, "the same rows");
    let report = against_oracle(&query("SELECT 2"), true).await;
    assert_eq!(report.oracle.unwrap().different, 1, "other rows");
}

#[tokio::test]
async fn what_cannot_be_run_at_all_is_a_failure() {
    let files = Files::new();
    let none = Path::new("/none.slt");
    let report = run_at(none, &Place::DataFusion, None, &files.options).await;
    check(&report, 0, &[0], 0);
    let gone = || async { Err::<DataFusionEngine, _>(EngineError::new("gone")) };
    let report = run_file(&files.add("a.slt", MIXED), gone, &files.options).await;
    check(&report, 0, &[0], 0);
    assert!(report.failures[0].text.contains("gone"), "{report:#?}");
}
