//! DataFusion's dialect of logic tests on files of our own: how rows and errors are compared, and
//! what is left out of the judgement.

use std::path::PathBuf;

use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use basalt_sql_tests::slt::{Dialect, FileReport, Need, Place, SltOptions, Tally, run_at};

/// A folder with one file, and what came of it.
async fn run(name: &str, text: &str, ours: &Place, oracle: Option<&Place>) -> FileReport {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    let options = SltOptions { dialect: Some(Dialect::DataFusion), ..SltOptions::default() };
    run_at(&path, ours, oracle, &options).await
}

async fn plain(text: &str) -> FileReport {
    run("a.slt", text, &Place::DataFusion, None).await
}

fn check(report: &FileReport, passed: u64, failed: &[u32], skipped: u64) {
    let lines: Vec<u32> = report.failures.iter().map(|failure| failure.line).collect();
    assert_eq!(
        (report.passed, &lines[..], report.skipped),
        (passed, failed, skipped),
        "{report:#?}"
    );
}

fn tally(report: &FileReport, need: Option<Need>) -> Tally {
    let found = report.tallies.iter().find(|(other, _)| *other == need);
    found.map(|(_, tally)| *tally).unwrap_or_default()
}

#[tokio::test]
async fn rows_are_lines_and_blanks_in_them_count() {
    let report = plain(
        "query TTRB\nSELECT '', 'a  b', 0.1 + 0.2, true\n----\n(empty) a  b 0.3 true\n\n\
         query TT\nSELECT 'a', 'b\n  c'\n----\na\n01)b\n02)--c\n\n\
         query T\nSELECT 'a b'\n----\na  b\n\n\
         query DP\nSELECT DATE '2024-01-02', TIMESTAMP '2024-01-02T03:04:05.5'\n----\n\
         2024-01-02 2024-01-02T03:04:05.500\n\n\
         query T\nSELECT 'now or never'\n----\nnow<slt:ignore>\n",
    )
    .await;
    check(&report, 4, &[14], 0);
}

#[tokio::test]
async fn an_insert_is_a_query_of_its_count() {
    let report = plain(
        "statement ok\nCREATE TABLE t (a INT)\n\n\
         query I\nINSERT INTO t VALUES (1), (2)\n----\n2\n\n\
         query I\nINSERT INTO t VALUES (3)\n----\n2\n",
    )
    .await;
    check(&report, 2, &[9], 0);
}

#[tokio::test]
async fn an_order_counts_where_sql_names_one() {
    let rows = "(VALUES (1), (2)) t(a)";
    let report = plain(&format!(
        "query I\nSELECT a FROM {rows}\n----\n2\n1\n\n\
         query I\nSELECT a FROM {rows} ORDER BY a\n----\n2\n1\n\n\
         query I\nSELECT a FROM {rows}\n----\n2\n2\n"
    ))
    .await;
    check(&report, 1, &[7, 13], 0);
    assert_eq!(tally(&report, None).ours.other_order, 1);
}

#[tokio::test]
async fn an_error_for_an_error_passes_and_is_counted_apart() {
    let report = plain(
        "query error DataFusion error: Error during planning: .*no_such_table.* not found\n\
         SELECT * FROM no_such_table\n\n\
         query error it is raining\nSELECT 1 + DATE '2024-01-02' + 'x'\n\n\
         query error\nSELECT 1\n\n\
         query error it is raining\nSELECT * FROM no_such_table\n",
    )
    .await;
    // That a table is not there says nothing about the rain.
    check(&report, 2, &[7, 10], 0);
    let tally = tally(&report, None);
    assert_eq!((tally.ours.same, tally.ours.other_words), (1, 1));
}

const NEEDS: &str = "statement ok
CREATE EXTERNAL TABLE e (a INT) STORED AS CSV LOCATION '../nowhere/e.csv'

query I
SELECT * FROM e
----
1

query TT
EXPLAIN SELECT 1
----
a plan

statement ok
set datafusion.sql_parser.parse_float_as_decimal = true

query T
SELECT arrow_typeof(1.5)
----
Decimal128(2, 1)

statement ok
reset datafusion.sql_parser.parse_float_as_decimal

query T
SELECT arrow_typeof(1.5)
----
Float64

query I
SELECT a FROM table_of_the_runner
----
1

query I
SELECT 1
----
2
";

#[tokio::test]
async fn what_needs_more_than_sql_is_no_failure() {
    let report = plain(NEEDS).await;
    check(&report, 4, &[35], 4);
    let outside = tally(&report, Some(Need::DataOutside));
    assert_eq!((outside.records, outside.not_run), (1, 1));
    assert_eq!(tally(&report, Some(Need::DependsOnExcluded)).not_run, 1);
    assert_eq!(tally(&report, Some(Need::Setting)).ours.same, 2);
    assert_eq!(tally(&report, Some(Need::SettingInForce)).ours.same, 1);
    assert_eq!(tally(&report, Some(Need::RunnerTable)).records, 1);
    assert_eq!(tally(&report, None).records, 2);
    assert_eq!(report.tallies.sum().records, 9);
}

#[tokio::test]
async fn the_folder_of_another_crate_is_not_run() {
    let text = "query I\nSELECT 1\n----\n2\n";
    let report = run("spark/a.slt", text, &Place::DataFusion, None).await;
    check(&report, 0, &[], 1);
    assert_eq!(tally(&report, Some(Need::Spark)).not_run, 1);
}

#[tokio::test]
async fn in_lockstep_what_datafusion_does_not_answer_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = EmbeddedCluster::start(&EmbeddedConfig::new(dir.path(), 1)).await.unwrap();
    let (ours, _) = Place::server(&cluster.url()).await.unwrap();
    let report = run("a.slt", NEEDS, &ours, Some(&Place::DataFusion)).await;
    // Ours has no such settings: what fails for them is left out of the judgement.
    check(&report, 1, &[], 8);
    let not_plain = tally(&report, Some(Need::NotPlain));
    assert_eq!((not_plain.records, not_plain.ours.all()), (1, 0));
    let sql = tally(&report, None);
    assert_eq!((sql.records, sql.ours.same, sql.oracle.same), (1, 1, 1));
    cluster.stop().await;
}
