//! Subplans that a statement has several times are computed once: when, and what becomes of those that are not.
//!
//! That the rows are the same is for the suites (`slt/shared_subplans.slt`, `slt/ctes.slt`) and generated queries.

use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig, Links};
use basalt_sql_tests::explain::plan_text;
use basalt_sql_tests::slt::text::append_rows;

const TABLES: [&str; 2] = [
    "CREATE TABLE facts (k BIGINT, g BIGINT, s VARCHAR) DISTKEY(k)",
    "INSERT INTO facts SELECT value, value % 1000, repeat('x', 100) || value \
     FROM generate_series(1, 200000)",
];
const GROUPS: &str = "WITH w AS (SELECT g, count(*) AS n, max(k) AS m FROM facts GROUP BY g) ";

async fn start(dir: &std::path::Path) -> (EmbeddedCluster, Client) {
    let config = EmbeddedConfig { links: Links::Network, ..EmbeddedConfig::new(dir, 3) };
    let cluster = EmbeddedCluster::start(&config).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    for sql in TABLES {
        client.execute_update(sql).await.unwrap();
    }
    (cluster, client)
}

async fn rows(client: &mut Client, sql: &str) -> Vec<Vec<String>> {
    let (_, batches) = client.query_all(sql).await.unwrap();
    let mut rows = Vec::new();
    batches.iter().for_each(|batch| append_rows(batch, &mut rows).unwrap());
    rows.sort();
    rows
}

/// How many parts a statement has, and how many scans of stored tables are left in all.
async fn parts_and_scans(client: &mut Client, sql: &str) -> (usize, usize) {
    let text = plan_text(client, &format!("EXPLAIN {sql}")).await.unwrap();
    let is_scan = |line: &&str| line.contains("TableScan:") && !line.contains("shared_");
    let scans = text.lines().filter(is_scan).count();
    (text.matches("computed first, once").count(), scans)
}

/// What follows the WITH query, and the parts and scans of its plan.
const CASES: [(&str, (usize, usize)); 6] = [
    ("SELECT count(*) FROM w a JOIN w b ON a.g = b.g + 1", (1, 1)),
    ("SELECT g FROM w WHERE n = (SELECT max(n) FROM w)", (1, 1)),
    ("SELECT count(*) FROM w WHERE n > 3", (0, 1)),
    // One of two places is never read.
    ("SELECT a.g FROM w a UNION ALL SELECT g FROM w WHERE false", (0, 1)),
    (
        ", v AS (SELECT n, count(*) AS c FROM w GROUP BY n) \
         SELECT count(*) FROM v a JOIN v b ON a.n = b.n JOIN w ON w.n = a.n",
        (2, 1),
    ),
    // Only rows are read: twice is as good.
    (
        ", v AS (SELECT k FROM facts WHERE g = 1) SELECT count(*) FROM v a JOIN v b USING (k)",
        (0, 2),
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_named_twice_is_computed_once() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, mut client) = start(dir.path()).await;
    for (sql, expected) in CASES {
        let sql = format!("{GROUPS}{sql}");
        client.execute_update("SET shared_subplans = on").await.unwrap();
        assert_eq!(parts_and_scans(&mut client, &sql).await, expected, "{sql}");
        let shared = rows(&mut client, &sql).await;
        client.execute_update("SET shared_subplans = off").await.unwrap();
        assert_eq!(parts_and_scans(&mut client, &sql).await.0, 0, "{sql}");
        assert_eq!(rows(&mut client, &sql).await, shared, "{sql}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_tables_are_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, mut client) = start(dir.path()).await;
    client.execute_update("CREATE TABLE few (k BIGINT, g BIGINT)").await.unwrap();
    client.execute_update("INSERT INTO few VALUES (1, 1), (2, 1), (3, 2)").await.unwrap();
    let sql = "WITH w AS (SELECT g, count(*) AS n FROM few GROUP BY g) \
               SELECT sum(a.n + b.n) FROM w a JOIN w b ON a.g = b.g";
    assert_eq!(parts_and_scans(&mut client, sql).await, (0, 2));
    client.execute_update("SET one_task_rows = 0").await.unwrap();
    assert_eq!(parts_and_scans(&mut client, sql).await, (1, 1));
    assert_eq!(rows(&mut client, sql).await, [["6"]]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_too_many_rows_are_computed_where_they_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, mut client) = start(dir.path()).await;
    // Its texts are longer than any estimate says: only running it shows that it is too large.
    let sql = "WITH w AS (SELECT DISTINCT k, s FROM facts) \
               SELECT count(*), min(a.s), max(length(b.s)) FROM w a JOIN w b ON a.k = b.k";
    assert_eq!(parts_and_scans(&mut client, sql).await.0, 1);
    let expected = [["200000".to_owned(), format!("{}1", "x".repeat(100)), "106".to_owned()]];
    assert_eq!(rows(&mut client, sql).await, expected);
    let analysed = plan_text(&mut client, &format!("EXPLAIN ANALYZE {sql}")).await.unwrap();
    assert!(!analysed.contains("computed first, once"), "{analysed}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_the_statement_never_meets_is_not_its_error() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, mut client) = start(dir.path()).await;
    let part = "WITH w AS (SELECT g, sum(1000 / (g - 500)) AS q FROM facts GROUP BY g) ";
    // What both places leave out is left out of the part.
    let without = "SELECT count(a.q) FROM w a JOIN w b ON a.g = b.g WHERE a.g < 500 AND b.g < 400";
    assert_eq!(rows(&mut client, &format!("{part}{without}")).await, [["400"]]);
    let with = "SELECT sum(a.q) FROM w a JOIN w b ON a.g = b.g";
    let error = client.query_all(&format!("{part}{with}")).await.unwrap_err().to_string();
    assert!(error.contains("division by zero"), "{error}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_may_be_others_the_next_time_are_not_shared() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, mut client) = start(dir.path()).await;
    let sql = "SELECT count(*) FROM (SELECT g, max(random()) AS r FROM facts GROUP BY g) a \
               JOIN (SELECT g, max(random()) AS r FROM facts GROUP BY g) b USING (g)";
    assert_eq!(parts_and_scans(&mut client, sql).await, (0, 2));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_parts_did_is_told_with_the_statement() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, mut client) = start(dir.path()).await;
    client.execute_update("SET profile = on").await.unwrap();
    let sql = format!("{GROUPS}SELECT count(*) FROM w a JOIN w b ON a.g = b.g + 1");
    assert_eq!(rows(&mut client, &sql).await, [["999"]]);
    let stages = "SELECT count(*) > 2, count(DISTINCT part), count(*) FILTER (WHERE tables LIKE '%facts%'), \
                  count(*) FILTER (WHERE part = 'shared_1' AND tables LIKE '%facts%') \
                  FROM sys.query_stages JOIN sys.queries USING (query_id) WHERE text LIKE 'WITH w%'";
    let stages = rows(&mut client, stages).await;
    assert_eq!(stages, [["true", "1", "1", "1"]], "the table is read by one stage, of the part");
    let text = plan_text(&mut client, &format!("EXPLAIN ANALYZE {sql}")).await.unwrap();
    assert!(text.contains("SharedRowsExec: shared_1, rows=1000"), "{text}");
    cluster.stop().await;
}
