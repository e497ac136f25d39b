//! Columns that were read are in memory: they are not read again, and answers stay what they are.

use std::time::{Duration, Instant};

use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use basalt_sql_tests::explain::scan_counters;
use tempfile::TempDir;

struct Scene {
    _dir: TempDir,
    cluster: EmbeddedCluster,
    client: Client,
}

impl Scene {
    /// A cluster of one worker and a table of one wide segment.
    async fn start(column_cache_bytes: u64) -> Self {
        Self::start_with(|config| config.column_cache_bytes = column_cache_bytes).await
    }

    async fn start_with(change: impl FnOnce(&mut EmbeddedConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = EmbeddedConfig::new(dir.path(), 1);
        change(&mut config);
        let cluster = EmbeddedCluster::start(&config).await.unwrap();
        let mut client = Client::connect(&cluster.url()).await.unwrap();
        let create = "CREATE TABLE t DISTSTYLE ALL AS SELECT value AS a, value % 1000 AS b, \
                      'a text that does not fit into a view, ' || value AS c \
                      FROM generate_series(1, 200000)";
        client.execute_update(create).await.unwrap();
        Self { _dir: dir, cluster, client }
    }

    /// Bytes that a query reads from disk.
    async fn reads(&mut self, sql: &str) -> f64 {
        let read = scan_counters(&mut self.client, sql, "t", "local_bytes").await.unwrap();
        read.iter().sum()
    }

    /// Bytes of columns that it finds in memory.
    async fn cached(&mut self, sql: &str) -> f64 {
        let cached = scan_counters(&mut self.client, sql, "t", "cached_bytes").await.unwrap();
        cached.iter().sum()
    }

    /// Runs a query until it finds all of its columns in memory: compaction may have replaced segments.
    async fn fill(&mut self, sql: &str) {
        let started = Instant::now();
        while self.reads(sql).await > 0.0 {
            assert!(started.elapsed() < Duration::from_secs(30), "{sql} reads again and again");
        }
    }

    /// Waits until a heartbeat tells of the cache what `condition` says.
    async fn told(&mut self, condition: &str) {
        let sql = format!("SELECT count(*) AS n FROM sys.cache WHERE {condition}");
        let started = Instant::now();
        while !self.answer(&sql).await.contains("| 1 ") {
            let is_late = started.elapsed() > Duration::from_secs(30);
            let cache = self.answer("SELECT * FROM sys.cache").await;
            assert!(!is_late, "no heartbeat tells that {condition}:\n{cache}");
            tokio::task::yield_now().await;
        }
    }

    async fn answer(&mut self, sql: &str) -> String {
        let (_, rows) = self.client.query_all(sql).await.unwrap();
        arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_was_read_is_not_read_again() {
    let mut scene = Scene::start(256 << 20).await;
    let sum = "SELECT sum(a), min(c) FROM t";
    assert!(scene.reads(sum).await > 0.0, "the first time");
    assert_eq!(scene.reads(sum).await, 0.0, "the second time");
    assert!(scene.cached(sum).await > 200_000.0 * 8.0);
    assert!(scene.reads("SELECT sum(b) FROM t").await > 0.0, "another column");
    // Workers tell with their heartbeats.
    let told =
        "hits > 0 AND bytes > 200000 * 8 AND bytes <= room_bytes AND hit_rate BETWEEN 0.1 AND 0.9";
    scene.told(told).await;
    scene.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_of_which_few_rows_are_wanted_again_and_again_is_not_read_again() {
    let mut scene = Scene::start(256 << 20).await;
    let few = "SELECT c FROM t WHERE b = 7 AND a < 3000 ORDER BY a";
    let first = scene.answer(few).await;
    assert_eq!(first.matches("a text").count(), 3, "{first}");
    assert!(scene.reads(few).await > 0.0, "c is read as a whole the second time");
    assert_eq!(scene.reads(few).await, 0.0);
    assert_eq!(scene.answer(few).await, first);
    scene.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_needs_the_memory_has_it_and_the_cache_fills_again() {
    let mut scene = Scene::start_with(|config| {
        config.memory_bytes = 64 << 20;
        config.column_cache_bytes = 64 << 20;
        config.load_memory_bytes = 8 << 20;
    })
    .await;
    // 600,000 rows of more than 60 bytes.
    let fill = "INSERT INTO t SELECT value, 7, 'a text that does not fit into a view, ' || value \
                FROM generate_series(200001, 600000)";
    scene.client.execute_update(fill).await.unwrap();
    let all = "SELECT sum(a), sum(b), min(c) FROM t";
    let first = scene.answer(all).await;
    scene.fill(all).await;
    let held = scene.cached(all).await;
    assert!(held > 40e6, "{held}");
    scene.told(&format!("bytes >= {held} AND room_bytes = budget_bytes")).await;
    assert_eq!(scene.cluster.workers()[0].memory_reserved_bytes(), 0);

    // The build side of a join cannot spill, and has more than what the table leaves.
    let keys = "(SELECT repeat('x', 100) || a AS k FROM t WHERE a <= 150000)";
    let hungry = format!("SELECT count(*) AS n FROM {keys} x JOIN {keys} y ON x.k = y.k");
    let hungry_answer = scene.answer(&hungry).await;
    assert!(hungry_answer.contains("| 150000 "), "{hungry_answer}");
    scene.told(&format!("bytes < {held} AND room_bytes = budget_bytes")).await;
    assert!(scene.reads(all).await > 0.0, "what the cache gave back is read again");

    assert_eq!(scene.answer(all).await, first);
    scene.fill(all).await;
    assert_eq!(scene.cached(all).await, held, "and is in memory again");
    scene.told(&format!("bytes >= {held} AND room_bytes = budget_bytes")).await;
    scene.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cache_a_column_is_read_each_time() {
    let mut scene = Scene::start(0).await;
    let sum = "SELECT sum(a) FROM t";
    assert!(scene.reads(sum).await > 0.0);
    assert!(scene.reads(sum).await > 0.0);
    assert_eq!(scene.cached(sum).await, 0.0);
    scene.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_is_seen_whatever_is_in_memory() {
    let (mut cached, mut plain) = (Scene::start(256 << 20).await, Scene::start(0).await);
    let queries = [
        "SELECT count(*) AS n, sum(a) AS a, sum(b) AS b, min(c) AS l, max(c) AS g FROM t",
        "SELECT a, b, c FROM t WHERE b = 7 ORDER BY a LIMIT 5",
        // Some columns are in memory, others are read for few rows.
        "SELECT a, b FROM t WHERE c LIKE '%999%' ORDER BY a LIMIT 7",
        "SELECT * FROM t WHERE a % 5000 = 77 ORDER BY a",
        "SELECT c, a FROM t WHERE b = 500 AND a > 150000 ORDER BY a",
        "SELECT count(*) AS n FROM (SELECT a FROM t LIMIT 1234) AS s",
        "SELECT b, count(*) AS n, max(c) AS c FROM t WHERE a % 7 = 3 GROUP BY b ORDER BY b LIMIT 9",
    ];
    let changes = [
        "DELETE FROM t WHERE a % 3 = 0",
        "UPDATE t SET c = 'changed ' || a WHERE b = 7",
        "INSERT INTO t SELECT value, 7, 'new ' || value FROM generate_series(300000, 300500)",
        "VACUUM t",
        "DELETE FROM t WHERE a < 100000",
    ];
    for change in changes {
        for _ in 0..3 {
            for query in queries {
                assert_eq!(cached.answer(query).await, plain.answer(query).await, "{query}");
            }
        }
        cached.client.execute_update(change).await.unwrap();
        plain.client.execute_update(change).await.unwrap();
    }
    for query in queries {
        assert_eq!(cached.answer(query).await, plain.answer(query).await, "{query}");
    }
    assert!(cached.cached(queries[0]).await > 0.0);
    cached.cluster.stop().await;
    plain.cluster.stop().await;
}
