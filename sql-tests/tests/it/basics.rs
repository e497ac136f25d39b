//! The main job in small: create, insert, select, over one and three workers.

use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};

async fn cluster(workers: u16) -> (tempfile::TempDir, EmbeddedCluster, Client) {
    let dir = tempfile::tempdir().unwrap();
    let cluster = EmbeddedCluster::start(&EmbeddedConfig::new(dir.path(), workers)).await.unwrap();
    let client = Client::connect(&cluster.url()).await.unwrap();
    (dir, cluster, client)
}

async fn check(client: &mut Client, sql: &str, expected: &str) {
    let (_, batches) = client.query_all(sql).await.unwrap();
    let shown = arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string();
    assert_eq!(shown.trim(), expected.trim(), "{sql}");
}

async fn rows_survive_insert_and_grouping(workers: u16) {
    let (_dir, cluster, mut client) = cluster(workers).await;
    client.execute_update("CREATE TABLE t (k INTEGER, v DOUBLE, s VARCHAR)").await.unwrap();
    let inserted = client
        .execute_update("INSERT INTO t VALUES (1, 1.5, 'a'), (2, 2.5, 'b'), (1, 3.0, NULL)")
        .await
        .unwrap();
    assert_eq!(inserted, 3);
    check(
        &mut client,
        "SELECT k, sum(v) AS v, count(s) AS n FROM t GROUP BY k ORDER BY k",
        "+---+-----+---+\n| k | v   | n |\n+---+-----+---+\n| 1 | 4.5 | 1 |\n| 2 | 2.5 | 1 |\n+---+-----+---+",
    )
    .await;
    client
        .execute_update("CREATE TABLE big DISTKEY(x) AS SELECT value AS x, value % 7 AS y FROM generate_series(1, 100000)")
        .await
        .unwrap();
    check(
        &mut client,
        "SELECT count(*) AS n, sum(x) AS s, count(DISTINCT y) AS d FROM big",
        "+--------+------------+---+\n| n      | s          | d |\n+--------+------------+---+\n| 100000 | 5000050000 | 7 |\n+--------+------------+---+",
    )
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_survive_on_one_worker() {
    rows_survive_insert_and_grouping(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_survive_on_three_workers() {
    rows_survive_insert_and_grouping(3).await;
}
