//! A query of one task runs where its rows are, however often it is asked: what it reads is kept in memory there.

use std::collections::BTreeSet;

use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use basalt_sql_tests::explain::plan_text;

const WORKERS: u16 = 3;
/// As any worker might be the right one by chance.
const TIMES: usize = 12;

/// The workers that a query ran on, asked again and again, by EXPLAIN ANALYZE.
async fn workers_of(client: &mut Client, sql: &str) -> BTreeSet<String> {
    let mut workers = BTreeSet::new();
    for _ in 0..TIMES {
        let text = plan_text(client, &format!("EXPLAIN ANALYZE {sql}")).await.unwrap();
        let (_, section) = text.split_once("stage  wall ms  cpu ms  worker\n").expect(&text);
        let rows = section.lines().take_while(|line| line.starts_with(' '));
        workers.extend(rows.filter_map(|row| row.split_whitespace().nth(3)).map(str::to_owned));
    }
    workers
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_of_one_task_run_with_one_worker_where_their_rows_are() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = EmbeddedCluster::start(&EmbeddedConfig::new(dir.path(), WORKERS)).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    for (table, distribution) in [("lines", "DISTKEY(k)"), ("names", "DISTSTYLE ALL")] {
        let create = format!("CREATE TABLE {table} (k BIGINT, n BIGINT) {distribution}");
        client.execute_update(&create).await.unwrap();
        let rows = "SELECT value, value % 7 FROM generate_series(0, 29999)";
        client.execute_update(&format!("INSERT INTO {table} {rows}")).await.unwrap();
    }
    let mut homes = BTreeSet::new();
    for k in 0..5 {
        let looked_up = format!("SELECT k, n FROM lines WHERE k = {k}");
        let workers = workers_of(&mut client, &looked_up).await;
        assert_eq!(workers.len(), 1, "{looked_up}: {workers:?}");
        homes.extend(workers);
    }
    assert!(homes.len() > 1, "keys of several slices have several homes: {homes:?}");
    let workers = workers_of(&mut client, "SELECT count(*) FROM names WHERE n = 3").await;
    assert_eq!(workers.len(), 1, "{workers:?}");
    cluster.stop().await;
}
