//! What was asked before is planned as it was then, as long as planning it now would give the same, and no longer.

use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use basalt_sql_tests::slt::text::append_rows;
use tempfile::TempDir;

struct Scene {
    _dir: TempDir,
    cluster: EmbeddedCluster,
    client: Client,
}

impl Scene {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cluster = EmbeddedCluster::start(&EmbeddedConfig::new(dir.path(), 3)).await.unwrap();
        let client = Client::connect(&cluster.url()).await.unwrap();
        let mut scene = Self { _dir: dir, cluster, client };
        for sql in [
            "CREATE TABLE t (k BIGINT, v BIGINT) DISTKEY(k)",
            "INSERT INTO t SELECT value, value % 7 FROM generate_series(1, 30000)",
            "CREATE TABLE u (k BIGINT, w BIGINT) DISTKEY(k)",
            "INSERT INTO u SELECT value * 2, value % 5 FROM generate_series(1, 20000)",
            "CREATE TABLE other (k BIGINT)",
            // The background has nothing to analyse then.
            "ANALYZE",
        ] {
            scene.run(sql).await;
        }
        scene
    }

    async fn run(&mut self, sql: &str) {
        self.client.execute_update(sql).await.unwrap();
    }

    async fn rows(&mut self, sql: &str) -> Vec<Vec<String>> {
        let (_, batches) = self.client.query_all(sql).await.unwrap();
        let mut rows = Vec::new();
        batches.iter().for_each(|batch| append_rows(batch, &mut rows).unwrap());
        rows
    }

    /// The rows of a query, and whether it was planned as before.
    async fn asked(&mut self, sql: &str) -> (Vec<Vec<String>>, bool) {
        let rows = self.rows(sql).await;
        let newest = "SELECT plan_cached FROM sys.queries WHERE state = 'done' ORDER BY started DESC LIMIT 1";
        let is_known = self.rows(newest).await == [["true"]];
        (rows, is_known)
    }

    /// Asks until the plan is kept; returns the rows.
    async fn known(&mut self, sql: &str) -> Vec<Vec<String>> {
        let (first, is_known) = self.asked(sql).await;
        assert!(!is_known, "nobody has asked {sql}");
        // Most statements are asked once, so only the second is kept.
        assert_eq!(self.asked(sql).await, (first.clone(), false));
        assert_eq!(self.asked(sql).await, (first.clone(), true));
        first
    }
}

const JOIN: &str =
    "SELECT v, count(*) AS n, sum(w) AS s FROM t JOIN u ON t.k = u.k GROUP BY v ORDER BY v";

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_is_asked_again_is_not_optimised_again() {
    let mut scene = Scene::start().await;
    let rows = scene.known(JOIN).await;
    // Its text may be written otherwise, and somebody else may ask.
    scene.client = Client::connect(&scene.cluster.url()).await.unwrap();
    let again = JOIN.to_lowercase().replace(' ', "  ");
    assert_eq!(scene.asked(&again).await, (rows.clone(), true));
    // What others do to other tables is nothing to it.
    scene.run("INSERT INTO other VALUES (1)").await;
    assert_eq!(scene.asked(JOIN).await, (rows.clone(), true));
    // Unless the session does not want it, or its settings are others.
    scene.run("SET plan_cache = off").await;
    assert_eq!(scene.asked(JOIN).await, (rows.clone(), false));
    scene.run("RESET plan_cache").await;
    scene.run("SET join_order = off").await;
    assert_eq!(scene.asked(JOIN).await, (rows, false));
    scene.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_and_go_are_in_the_answer() {
    let mut scene = Scene::start().await;
    let count = "SELECT count(*) AS n FROM t JOIN u ON t.k = u.k WHERE w = 0";
    assert_eq!(scene.known(count).await, [["3000"]]);
    scene.run("INSERT INTO t VALUES (10, 0)").await;
    assert_eq!(scene.asked(count).await, (vec![vec!["3001".to_owned()]], false));
    scene.run("DELETE FROM u WHERE k = 10").await;
    assert_eq!(scene.asked(count).await, (vec![vec!["2999".to_owned()]], false));
    // Statistics change no rows, and what the plan should be.
    assert!(scene.asked(count).await.1);
    scene.run("ANALYZE t").await;
    assert_eq!(scene.asked(count).await, (vec![vec!["2999".to_owned()]], false));
    scene.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_values_and_other_tables_of_the_name_have_plans_of_their_own() {
    let mut scene = Scene::start().await;
    let of = |value: &str| format!("SELECT count(*) AS n, {value} AS c FROM t WHERE v = {value}");
    assert_eq!(scene.known(&of("3")).await, [["4286", "3"]]);
    assert_eq!(scene.known(&of("5")).await, [["4286", "5"]]);
    assert_eq!(scene.known(&of("CAST(3 AS SMALLINT)")).await, [["4286", "3"]]);

    scene.run("CREATE SCHEMA s").await;
    scene.run("CREATE TABLE s.t (k BIGINT, v BIGINT)").await;
    scene.run("INSERT INTO s.t VALUES (1, 3)").await;
    scene.run("SET search_path = s").await;
    assert_eq!(scene.known(&of("3")).await, [["1", "3"]]);
    scene.run("RESET search_path").await;
    assert_eq!(scene.asked(&of("3")).await, (vec![vec!["4286".to_owned(), "3".to_owned()]], true));

    scene.run("DROP TABLE t").await;
    scene.run("CREATE TABLE t (v BIGINT, k BIGINT)").await;
    scene.run("INSERT INTO t VALUES (3, 4)").await;
    assert_eq!(scene.asked(&of("3")).await, (vec![vec!["1".to_owned(), "3".to_owned()]], false));
    scene.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_depends_on_more_than_tables_is_planned_each_time() {
    let mut scene = Scene::start().await;
    for query in [
        "SELECT count(*) FROM t WHERE CAST(now() AS DATE) > DATE '2020-01-01'",
        "SELECT count(*) FROM t WHERE random() < 2",
        "SELECT count(*) FROM sys.tables",
        "SELECT 1",
    ] {
        for _ in 0..4 {
            assert!(!scene.asked(query).await.1, "{query}");
        }
    }
    scene.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_written_each_time() {
    let mut scene = Scene::start().await;
    scene.run("CREATE TABLE copies (k BIGINT)").await;
    scene.run("CREATE SCHEMA s").await;
    scene.run("CREATE TABLE s.copies (k BIGINT)").await;
    for round in 1..=4 {
        for table in ["copies", "s.copies"] {
            scene.run(&format!("INSERT INTO {table} SELECT k FROM t WHERE v = 3")).await;
            let count = scene.rows(&format!("SELECT count(*) FROM {table}")).await;
            assert_eq!(count, [[(4286 * round).to_string()]]);
        }
    }
    scene.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_queries_are_known() {
    let mut scene = Scene::start().await;
    let shared = "WITH sums AS (SELECT k % 10 AS d, sum(v) AS s FROM t GROUP BY 1) \
                  SELECT a.d, a.s FROM sums a JOIN sums b ON a.s = b.s WHERE a.d < 2 ORDER BY 1, 2";
    let written = {
        scene.run("SET plan_cache = off").await;
        scene.run("SET shared_subplans = off").await;
        let rows = scene.rows(shared).await;
        scene.run("RESET ALL").await;
        rows
    };
    assert_eq!(scene.known(shared).await, written);
    scene.cluster.stop().await;
}
