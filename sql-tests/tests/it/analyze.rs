//! ANALYZE: what it finds, that it finds the same whoever reads, and that nobody waits for it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use basalt_sql_tests::slt::text;

const FOUND: &str = "SELECT column_name, CAST(distinct_values AS VARCHAR), \
                     CAST(rows_analysed AS VARCHAR), array_to_string(histogram, ' ') \
                     FROM sys.column_statistics WHERE table_name = 't' ORDER BY column_name";

struct Scene {
    cluster: EmbeddedCluster,
    client: Client,
}

impl Scene {
    async fn start(dir: &Path, workers: u16) -> Self {
        let cluster = EmbeddedCluster::start(&EmbeddedConfig::new(dir, workers)).await.unwrap();
        let client = Client::connect(&cluster.url()).await.unwrap();
        Self { cluster, client }
    }

    async fn run(&mut self, sql: &str) {
        self.client.execute_update(sql).await.unwrap();
    }

    async fn rows(&mut self, sql: &str) -> Vec<Vec<String>> {
        rows(&mut self.client, sql).await
    }

    /// Rows that were analysed of column `a`, once it is so.
    async fn wait_for_rows_analysed(&mut self, rows: u64) {
        let sql = "SELECT CAST(rows_analysed AS VARCHAR) FROM sys.column_statistics \
                   WHERE table_name = 't' AND column_name = 'a'";
        let started = Instant::now();
        loop {
            let found = self.rows(sql).await;
            if found == [[rows.to_string()]] {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{found:?} instead of {rows}");
            tokio::task::yield_now().await;
        }
    }
}

async fn rows(client: &mut Client, sql: &str) -> Vec<Vec<String>> {
    let (_, batches) = client.query_all(sql).await.unwrap();
    let mut rows = Vec::new();
    for batch in &batches {
        text::append_rows(batch, &mut rows).unwrap();
    }
    rows
}

/// 9,000 rows, fewer than are analysed in the background: `skewed` has its values by their squares,
/// so that the least of them have most rows.
const SKEWED: &str = "CREATE TABLE t (a BIGINT, skewed BIGINT, words VARCHAR, price DECIMAL(12, 2), \
    day DATE, none INTEGER, list INTEGER[]) DISTKEY(a) SORTKEY(skewed, day)";
const ROWS: &str = "INSERT INTO t SELECT value, value * value / 90000, 'word ' || (value % 1000), \
    CAST(value % 250 AS DECIMAL(12, 2)) / 4, DATE '2020-01-01' + CAST(value % 31 AS INTEGER), NULL, \
    [1] FROM generate_series(1, 9000)";

#[tokio::test(flavor = "multi_thread")]
async fn three_workers_find_to_the_last_digit_what_one_finds_and_it_is_near_the_truth() {
    let mut found = Vec::new();
    for workers in [1, 3] {
        let dir = tempfile::tempdir().unwrap();
        let mut scene = Scene::start(dir.path(), workers).await;
        scene.run(SKEWED).await;
        scene.run(ROWS).await;
        scene.run("ANALYZE t").await;
        let rows = scene.rows(FOUND).await;
        found.push(rows.iter().map(|row| row[..3].to_vec()).collect::<Vec<_>>());
        let skewed = scene.rows("SELECT CAST(count(DISTINCT skewed) AS VARCHAR) FROM t").await;
        check_near_the_truth(&rows, skewed[0][0].parse().unwrap());
        scene.cluster.stop().await;
    }
    assert_eq!(found[0], found[1]);
}

fn check_near_the_truth(rows: &[Vec<String>], skewed: f64) {
    let found: BTreeMap<_, _> = rows.iter().map(|row| (row[0].as_str(), row)).collect();
    let distinct = |column: &str| found[column][1].parse::<f64>().unwrap();
    for (column, truth) in
        [("a", 9_000.0), ("skewed", skewed), ("words", 1_000.0), ("price", 250.0), ("day", 31.0)]
    {
        let off = (distinct(column) - truth).abs() / truth;
        // Five standard deviations.
        assert!(off < 0.082, "{column}: {} of {truth}", distinct(column));
        assert_eq!(found[column][2], "9000");
    }
    assert_eq!(distinct("none"), 0.0);
    assert_eq!(found["list"][1], "NULL", "lists are not sketched");
    assert_eq!(found["words"][3], "NULL", "only keys have a histogram");
    let bounds: Vec<f64> =
        found["skewed"][3].split(' ').map(|bound| bound.parse().unwrap()).collect();
    assert_eq!(bounds.len(), 101);
    assert!(bounds.is_sorted());
    // Half of the rows are below a quarter of the largest value.
    assert!((bounds[50] - 225.0).abs() < 75.0, "{}", bounds[50]);
    assert_eq!(found["day"][3].split(' ').count(), 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_survive_a_restart_and_the_next_analysis_adds_to_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::start(dir.path(), 2).await;
    scene.run(SKEWED).await;
    scene.run(ROWS).await;
    scene.run("ANALYZE t").await;
    let before = scene.rows(FOUND).await;
    scene.cluster.stop().await;

    let mut scene = Scene::start(dir.path(), 2).await;
    assert_eq!(scene.rows(FOUND).await, before);
    scene.run("INSERT INTO t (a, words) VALUES (10001, 'new'), (10002, 'newer')").await;
    scene.run("DELETE FROM t WHERE a <= 100").await;
    scene.run("ANALYZE t").await;
    let after = scene.rows(FOUND).await;
    // What is deleted stays in until it is a tenth.
    assert_eq!((after[0][0].as_str(), after[0][2].as_str()), ("a", "9002"));
    scene.run("DELETE FROM t WHERE a <= 2000").await;
    scene.run("ANALYZE t").await;
    assert_eq!(scene.rows(FOUND).await[0][2], "7002");
    scene.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_grew_by_more_than_a_tenth_is_analysed_in_the_background() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::start(dir.path(), 2).await;
    scene.run("CREATE TABLE t (a BIGINT)").await;
    let insert = |from: u64, to: u64| {
        format!("INSERT INTO t SELECT value FROM generate_series({from}, {})", to - 1)
    };
    scene.run(&insert(0, 200_000)).await;
    scene.wait_for_rows_analysed(200_000).await;
    // Not more than a tenth yet, and then it is.
    scene.run(&insert(200_000, 220_000)).await;
    scene.run(&insert(220_000, 230_000)).await;
    scene.wait_for_rows_analysed(230_000).await;
    scene.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_and_analyses_at_once_do_not_hear_of_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::start(dir.path(), 3).await;
    scene.run("CREATE TABLE t (a BIGINT, b VARCHAR) DISTKEY(a) SORTKEY(b)").await;
    let url = scene.cluster.url();
    let writer = tokio::spawn(async move {
        let mut client = Client::connect(&url).await.unwrap();
        for n in 0..20 {
            let insert =
                format!("INSERT INTO t SELECT value + {n}00, 'x' FROM generate_series(0, 99)");
            client.execute_update(&insert).await.unwrap();
            let delete = format!("DELETE FROM t WHERE a = {n}00");
            client.execute_update(&delete).await.unwrap();
        }
    });
    while !writer.is_finished() {
        scene.run("ANALYZE t").await;
        scene.run("ANALYZE t (b)").await;
    }
    writer.await.unwrap();
    scene.run("DELETE FROM t WHERE a < 1000").await;
    scene.run("VACUUM t").await;
    scene.run("ANALYZE").await;
    let found = scene.rows(FOUND).await;
    assert_eq!((found[0][2].as_str(), found[1][2].as_str()), ("990", "990"));
    scene.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_dropped_meanwhile_ends_an_analysis_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::start(dir.path(), 2).await;
    scene.run("CREATE TABLE kept (a BIGINT)").await;
    let url = scene.cluster.url();
    for _ in 0..8 {
        scene.run("CREATE TABLE t AS SELECT value AS a FROM generate_series(1, 5000)").await;
        let url = url.clone();
        let dropped = tokio::spawn(async move {
            let mut client = Client::connect(&url).await.unwrap();
            client.execute_update("DROP TABLE t").await.unwrap();
        });
        let one = scene.client.execute_update("ANALYZE t").await;
        // Of all tables at once nobody asked for this one.
        scene.run("ANALYZE").await;
        dropped.await.unwrap();
        if let Err(error) = one {
            let server = error.server().unwrap();
            let is_clean = server.message.contains("dropped") || server.message.contains("exist");
            assert!(is_clean, "{}", server.message);
        }
    }
    assert!(scene.rows(FOUND).await.is_empty());
    scene.cluster.stop().await;
}
