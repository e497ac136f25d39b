//! What queries did is told: by EXPLAIN ANALYZE, by `sys.query_stages` and `sys.query_alerts`, and after a restart.

use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use basalt_sql_tests::explain::plan_text;
use basalt_sql_tests::slt::text::append_rows;

/// One key of which most rows have one value, so that one task has most of the work.
const TABLES: [&str; 6] = [
    "CREATE TABLE few (k BIGINT, d BIGINT) DISTKEY(k)",
    "CREATE TABLE skewed (k BIGINT, q BIGINT) DISTKEY(k)",
    "INSERT INTO few SELECT value, value % 7 FROM generate_series(1, 20000)",
    "INSERT INTO skewed SELECT CASE WHEN value % 10 = 0 THEN value / 10 ELSE 1 END, value \
     FROM generate_series(1, 200000)",
    "ANALYZE few",
    "ANALYZE skewed",
];
const QUERY: &str = "SELECT d, count(*) FROM skewed s JOIN few f ON s.k = f.k GROUP BY d";

async fn rows(client: &mut Client, sql: &str) -> Vec<Vec<String>> {
    let (_, batches) = client.query_all(sql).await.unwrap();
    let mut rows = Vec::new();
    batches.iter().for_each(|batch| append_rows(batch, &mut rows).unwrap());
    rows
}

/// The stages that the query left behind, of its newest run.
const STAGES: &str = "SELECT stage, tasks, exchange, s.rows, rows_estimated > 0, compute_ms > 0 \
     FROM sys.query_stages s JOIN sys.queries q USING (query_id) \
     WHERE q.text LIKE 'SELECT d, count%' ORDER BY started DESC, stage LIMIT 3";
const ALERTS: &str = "SELECT DISTINCT kind, event LIKE 'one of 3 tasks of stage % reads % rows of %public.skewed%' \
     FROM sys.query_alerts WHERE text LIKE 'SELECT d, count%' AND kind = 'skew'";

#[tokio::test(flavor = "multi_thread")]
async fn stages_and_alerts_of_a_query_are_told_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig::new(dir.path(), 3);
    let cluster = EmbeddedCluster::start(&config).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    for sql in TABLES {
        client.execute_update(sql).await.unwrap();
    }
    client.execute_update("SET profile = on").await.unwrap();
    assert_eq!(rows(&mut client, QUERY).await.len(), 7);
    let stages = rows(&mut client, STAGES).await;
    // Of each task's seven groups three stages make seven groups, and hand them on.
    let expected = [
        ["0", "1", "answer", "7", "true", "true"],
        ["1", "3", "shuffle", "42", "true", "true"],
        ["2", "1", "gather", "7", "true", "true"],
    ];
    assert_eq!(stages, expected);
    assert_eq!(rows(&mut client, ALERTS).await, [["skew", "true"]]);

    let text = plan_text(&mut client, &format!("EXPLAIN ANALYZE {QUERY}")).await.unwrap();
    let parts =
        ["stage  tasks", "estimated", "scan of public.skewed", "skew: one of 3 tasks", "wall ms"];
    for part in parts {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    // All three workers are named with the time that they took.
    for worker in rows(&mut client, "SELECT worker FROM sys.workers").await {
        assert!(text.contains(&worker[0]), "{worker:?} is not in\n{text}");
    }
    let slowest = "SELECT DISTINCT wall_ms > 0, w.state FROM sys.query_stages s \
         JOIN sys.queries USING (query_id) JOIN sys.workers w ON w.worker = s.slowest_worker \
         WHERE text LIKE 'SELECT d, count%' AND s.stage = 1";
    assert_eq!(rows(&mut client, slowest).await, [["true", "live"]]);
    cluster.stop().await;

    let cluster = EmbeddedCluster::start(&config).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    assert_eq!(rows(&mut client, STAGES).await, expected);
    assert_eq!(rows(&mut client, ALERTS).await, [["skew", "true"]]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quick_queries_leave_no_stages_behind() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = EmbeddedCluster::start(&EmbeddedConfig::new(dir.path(), 2)).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    rows(&mut client, "SELECT 1").await;
    let count = "SELECT count(*) FROM sys.query_stages WHERE query_id IN \
                 (SELECT query_id FROM sys.queries WHERE text = 'SELECT 1')";
    assert_eq!(rows(&mut client, count).await, [["0"]]);
    cluster.stop().await;
}
