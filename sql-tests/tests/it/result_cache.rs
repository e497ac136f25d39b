//! What was asked before is answered from memory, as long as running it now could give the same, and no longer.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, TimestampMicrosecondArray};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use basalt_sql_tests::client::{Answer, Client};
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use tempfile::TempDir;

struct Scene {
    _dir: TempDir,
    cluster: EmbeddedCluster,
    client: Client,
}

impl Scene {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = EmbeddedConfig::new(dir.path(), 2);
        config.result_cache_bytes = 16 << 20;
        let cluster = EmbeddedCluster::start(&config).await.unwrap();
        let mut client = Client::connect(&cluster.url()).await.unwrap();
        for sql in [
            "CREATE TABLE t (k BIGINT, v BIGINT) DISTKEY(k)",
            "INSERT INTO t SELECT value, value % 7 FROM generate_series(1, 1000)",
            "CREATE TABLE other (k BIGINT)",
        ] {
            client.execute_update(sql).await.unwrap();
        }
        Self { _dir: dir, cluster, client }
    }

    async fn connect(&self) -> Client {
        Client::connect(&self.cluster.url()).await.unwrap()
    }

    async fn run(&mut self, sql: &str) {
        self.client.execute_update(sql).await.unwrap();
    }

    /// Whether a query is answered from memory.
    async fn is_cached(&mut self, sql: &str) -> bool {
        let mut client = self.client.clone();
        shown(&mut client, sql).await;
        newest_is_cached(&mut client).await
    }
}

async fn shown(client: &mut Client, sql: &str) -> String {
    let (_, rows) = client.query_all(sql).await.unwrap();
    arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string()
}

/// Whether the newest statement that is over was answered from memory.
async fn newest_is_cached(client: &mut Client) -> bool {
    let newest =
        "SELECT result_cached FROM sys.queries WHERE state = 'done' ORDER BY started DESC LIMIT 1";
    let (_, rows) = client.query_all(newest).await.unwrap();
    let batch = rows.iter().find(|batch| batch.num_rows() == 1).unwrap();
    batch.column(0).as_boolean().value(0)
}

const SUM: &str = "SELECT v, count(*) AS n, sum(k) AS s FROM t GROUP BY v ORDER BY v";

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_is_asked_again_is_not_run_again() {
    let mut scene = Scene::start().await;
    let first = shown(&mut scene.client, SUM).await;
    assert!(!newest_is_cached(&mut scene.client).await);
    assert_eq!(shown(&mut scene.client, SUM).await, first);
    assert!(newest_is_cached(&mut scene.client).await);
    // Its text may be written otherwise, and somebody else may ask.
    let mut another = scene.connect().await;
    let again = SUM.to_lowercase().replace(' ', "  ");
    assert_eq!(shown(&mut another, &again).await, first);
    assert!(newest_is_cached(&mut another).await);
    // Unless they do not want it, or their settings are others.
    another.execute_update("SET result_cache = off").await.unwrap();
    assert_eq!(shown(&mut another, SUM).await, first);
    assert!(!newest_is_cached(&mut another).await);
    scene.run("SET timezone = 'Europe/Berlin'").await;
    assert!(!scene.is_cached(SUM).await);
    scene.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_the_answer_makes_it_anew_and_what_does_not_does_not() {
    let mut scene = Scene::start().await;
    scene.run("CREATE VIEW w AS SELECT sum(v) AS s FROM t WHERE k < 500").await;
    scene.run("CREATE SCHEMA near").await;
    let view = "SELECT * FROM w";
    let queries = [SUM, view, "SELECT count(*) FROM t WHERE k IN (SELECT k FROM t WHERE v = 3)"];
    for sql in queries {
        assert!(!scene.is_cached(sql).await && scene.is_cached(sql).await, "{sql}");
    }
    for unrelated in
        ["INSERT INTO other VALUES (1)", "ANALYZE t", "VACUUM t", "CREATE TABLE new (a INT)"]
    {
        scene.run(unrelated).await;
        for sql in queries {
            assert!(scene.is_cached(sql).await, "{sql} after {unrelated}");
        }
    }
    let changes = [
        vec!["INSERT INTO t VALUES (1, 1)"],
        vec!["DELETE FROM t WHERE k = 7"],
        vec!["UPDATE t SET v = 3 WHERE k = 8"],
        vec!["DELETE FROM t"],
        vec![
            "DROP VIEW w",
            "DROP TABLE t",
            "CREATE TABLE t (k BIGINT, v BIGINT)",
            "CREATE VIEW w AS SELECT sum(v) AS s FROM t WHERE k < 500",
        ],
    ];
    for change in changes {
        for statement in &change {
            scene.run(statement).await;
        }
        for sql in queries {
            assert!(!scene.is_cached(sql).await, "{sql} after {change:?}");
            assert!(scene.is_cached(sql).await, "{sql} after {change:?}");
        }
    }
    // Another view, and another table of the name.
    scene.run("DROP VIEW w").await;
    scene.run("CREATE VIEW w AS SELECT max(v) AS s FROM t").await;
    assert!(!scene.is_cached(view).await && scene.is_cached(view).await);
    scene.run("CREATE TABLE near.t (k BIGINT, v BIGINT)").await;
    scene.run("SET search_path = near, public").await;
    assert!(!scene.is_cached(SUM).await);
    scene.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_depends_on_more_than_tables_is_run_each_time() {
    let mut scene = Scene::start().await;
    for sql in [
        "SELECT count(*) FROM t WHERE random() < 2",
        "SELECT count(*) FROM t WHERE now() > TIMESTAMP '2020-01-01'",
        "SELECT current_schema(), count(*) FROM t",
        "SELECT count(*) FROM t, sys.tables",
        "SELECT count(*) FROM t WHERE k IN (SELECT value FROM generate_series(1, 3))",
        "SELECT 1",
    ] {
        assert!(!scene.is_cached(sql).await && !scene.is_cached(sql).await, "{sql}");
    }
    // Too many rows to be kept.
    let wide = "SELECT repeat('x', 2000) || k FROM t";
    assert!(!scene.is_cached(wide).await && !scene.is_cached(wide).await);
    scene.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_a_part_of_what_is_asked() {
    let mut scene = Scene::start().await;
    let mut prepared =
        scene.client.clone().prepare("SELECT sum(v) AS s FROM t WHERE k < $1").await.unwrap();
    for (limit, is_cached) in [(10, false), (10, true), (20, false), (10, true), (20, true)] {
        let values: ArrayRef = Arc::new(Int64Array::from(vec![limit]));
        let values = RecordBatch::try_from_iter([("$1", values)]).unwrap();
        let Answer::Rows(mut rows) = prepared.run(Some(values)).await.unwrap() else { panic!() };
        let mut sum = 0;
        while let Some(batch) = rows.next_batch().await.unwrap() {
            sum += batch.column(0).as_primitive::<Int64Type>().value(0);
        }
        assert_eq!(sum, (1..limit).map(|k| k % 7).sum::<i64>());
        assert_eq!(newest_is_cached(&mut scene.client).await, is_cached, "{limit}");
    }
    scene.cluster.stop().await;
}

/// Changes and queries in turns, each query with the cache and without.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_from_memory_is_what_running_the_query_gives() {
    let mut scene = Scene::start().await;
    let mut fresh = scene.connect().await;
    fresh.execute_update("SET result_cache = off").await.unwrap();
    let (mut state, mut hits) = (7_u64, 0);
    let mut draw = |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..150 {
        let n = draw(40);
        match draw(8) {
            0 => scene.run(&format!("INSERT INTO t VALUES ({n}, {n})")).await,
            1 => scene.run(&format!("DELETE FROM t WHERE k = {n}")).await,
            2 => scene.run(&format!("UPDATE t SET v = v + 1 WHERE k = {n}")).await,
            3 if n == 0 => scene.run("VACUUM t").await,
            _ => {}
        }
        for sql in [
            SUM.to_owned(),
            format!("SELECT count(*) AS n, max(v) AS v FROM t WHERE k < {}", draw(3)),
        ] {
            let cached = shown(&mut scene.client, &sql).await;
            hits += u32::from(newest_is_cached(&mut scene.client).await);
            assert_eq!(cached, shown(&mut fresh, &sql).await, "{sql}");
        }
    }
    assert!(hits > 50, "{hits}");
    scene.cluster.stop().await;
}

/// The same moment of two zones is equal, and an answer may depend on the zone.
#[tokio::test(flavor = "multi_thread")]
async fn the_zone_of_a_parameter_is_a_part_of_what_is_asked() {
    let mut scene = Scene::start().await;
    let sql = "SELECT CAST($1 AS VARCHAR) AS text, count(*) AS n FROM t WHERE k = 1";
    let mut prepared = scene.client.clone().prepare(sql).await.unwrap();
    let mut texts = Vec::new();
    for zone in [None, Some("+02:00"), Some("-05:00"), None] {
        let values = TimestampMicrosecondArray::from(vec![1_700_000_000_000_000]);
        let values: ArrayRef = Arc::new(values.with_timezone_opt(zone));
        let values = RecordBatch::try_from_iter([("$1", values)]).unwrap();
        let Answer::Rows(mut rows) = prepared.run(Some(values)).await.unwrap() else { panic!() };
        while let Some(batch) = rows.next_batch().await.unwrap() {
            texts.push(arrow::util::display::array_value_to_string(batch.column(0), 0).unwrap());
        }
        let is_cached = newest_is_cached(&mut scene.client).await;
        assert_eq!(is_cached, texts.len() == 4, "{zone:?}: {texts:?}");
    }
    assert_eq!(texts[0], texts[3]);
    scene.cluster.stop().await;
}

/// One writer, whose changes leave a sum as it is, and readers that may be answered from memory.
#[tokio::test(flavor = "multi_thread")]
async fn readers_beside_a_writer_see_whole_changes_and_a_writer_its_own() {
    let scene = Scene::start().await;
    let (mut writer, mut readers) = (scene.connect().await, Vec::new());
    writer.execute_update("CREATE TABLE accounts (id BIGINT, amount BIGINT)").await.unwrap();
    writer.execute_update("INSERT INTO accounts VALUES (1, 0), (2, 0)").await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    for _ in 0..2 {
        let (mut client, stopped) = (scene.connect().await, stopped.clone());
        readers.push(tokio::spawn(async move {
            let mut least = 0;
            while !*stopped.borrow() {
                let sql = "SELECT sum(amount) AS s, max(amount) AS m FROM accounts";
                let (_, rows) = client.query_all(sql).await.unwrap();
                let batch = rows.iter().find(|batch| batch.num_rows() == 1).unwrap();
                let value =
                    |column: usize| batch.column(column).as_primitive::<Int64Type>().value(0);
                assert_eq!(value(0), 0);
                assert!(value(1) >= least, "an older answer came after a newer one");
                least = value(1);
            }
            least
        }));
    }
    for n in 1..=20 {
        let change = "UPDATE accounts SET amount = amount + CASE WHEN id = 1 THEN 1 ELSE -1 END";
        writer.execute_update(change).await.unwrap();
        let own =
            shown(&mut writer, "SELECT sum(amount) AS s, max(amount) AS m FROM accounts").await;
        assert!(own.contains(&format!("| {n} ")), "{own}");
    }
    stop.send(true).unwrap();
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
    scene.cluster.stop().await;
}
