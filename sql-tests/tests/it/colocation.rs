//! Rows that are joined and grouped where they lie: which exchanges a plan is left with.
//!
//! That the answers are the same is for the suites (`slt/colocation.slt`) and generated queries.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig, Links};
use basalt_sql_tests::explain::{exchanges, plan_text, scan_counters};

/// What brings an answer to the coordinator.
const ANSWER: &str = "Coalesce";

/// Two large tables by one key, one by another, one by none, and one that every worker has. So many rows that
/// no side of a join is small enough to be sent to all workers.
const TABLES: [&str; 10] = [
    "CREATE TABLE orders (k BIGINT, c BIGINT, d BIGINT) DISTKEY(k)",
    "CREATE TABLE lines (k BIGINT, p INTEGER, q BIGINT) DISTKEY(k)",
    "CREATE TABLE parts (p BIGINT, n BIGINT) DISTKEY(p)",
    "CREATE TABLE events (k BIGINT, z BIGINT) DISTSTYLE EVEN",
    "CREATE TABLE customers (c BIGINT, n BIGINT) DISTSTYLE ALL",
    "INSERT INTO orders SELECT value, value % 997, value % 7 FROM generate_series(1, 200000)",
    "INSERT INTO lines SELECT value % 200000, value % 150000, value FROM generate_series(1, 400000)",
    "INSERT INTO parts SELECT value, value % 10 FROM generate_series(1, 150000)",
    "INSERT INTO events SELECT value % 200000, value FROM generate_series(1, 150000)",
    "INSERT INTO customers SELECT value, value % 25 FROM generate_series(0, 996)",
];

async fn start(dir: &std::path::Path, workers: u16) -> (EmbeddedCluster, Client) {
    let config = EmbeddedConfig { links: Links::Network, ..EmbeddedConfig::new(dir, workers) };
    let cluster = EmbeddedCluster::start(&config).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    for sql in TABLES {
        client.execute_update(sql).await.unwrap();
    }
    (cluster, client)
}

async fn number(client: &mut Client, sql: &str) -> i64 {
    let (_, rows) = client.query_all(sql).await.unwrap();
    rows[0].column(0).as_primitive::<Int64Type>().value(0)
}

/// What moves with and without: another column than the key.
const ALWAYS_MOVED: [&str; 2] = [
    "SELECT count(*) FROM lines l JOIN orders o ON l.q = o.c",
    "SELECT c, count(*) FROM orders GROUP BY c",
];

/// A query, and what its plan exchanges beside the answer.
const CASES: [(&str, &[&str]); 12] = [
    ("SELECT count(*) FROM lines l JOIN orders o ON l.k = o.k", &[]),
    ("SELECT count(*) FROM lines l LEFT JOIN orders o ON l.k = o.k", &[]),
    ("SELECT count(*) FROM lines l FULL JOIN orders o ON l.k = o.k", &[]),
    ("SELECT count(*) FROM orders o WHERE NOT EXISTS (SELECT 1 FROM lines l WHERE l.k = o.k)", &[]),
    ("SELECT count(*) FROM orders o WHERE EXISTS (SELECT 1 FROM lines l WHERE l.k = o.k)", &[]),
    // Grouped by the key, and what every worker has joined to it.
    (
        "SELECT l.k, sum(q) FROM lines l JOIN orders o ON l.k = o.k JOIN customers c USING (c) GROUP BY l.k",
        &[],
    ),
    ("SELECT k, q, row_number() OVER (PARTITION BY k ORDER BY q) FROM lines", &[]),
    (
        "SELECT count(*) FROM (SELECT k, sum(q) AS s FROM lines GROUP BY k) l JOIN orders o ON l.k = o.k",
        &[],
    ),
    // Integers of another width are the same keys. Lines go to their parts, and parts stay.
    ("SELECT sum(q) FROM lines l JOIN parts p ON l.p = p.p WHERE n < 9", &["Shuffle"]),
    // Events go to the slices of the others, which stay: the three-way plan of DESIGN.md.
    (
        "SELECT sum(q + z) FROM lines l JOIN orders o ON l.k = o.k JOIN events e ON e.k = l.k",
        &["Shuffle"],
    ),
    // Joined by another column than the key.
    (ALWAYS_MOVED[0], &["Shuffle", "Shuffle"]),
    (ALWAYS_MOVED[1], &["Shuffle"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_where_they_should_be_are_not_exchanged() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, mut client) = start(dir.path(), 3).await;
    for (sql, expected) in CASES {
        client.execute_update("SET colocation = on").await.unwrap();
        let mut found = exchanges(&mut client, sql).await.unwrap();
        assert_eq!(found.first().map(String::as_str), Some(ANSWER), "{sql}");
        found.remove(0);
        assert_eq!(found, expected, "{sql}");
        let count = format!("SELECT count(*) FROM ({sql})");
        let lying = number(&mut client, &count).await;
        client.execute_update("SET colocation = off").await.unwrap();
        let without = exchanges(&mut client, sql).await.unwrap().len() - 1;
        let is_less = without > expected.len();
        assert_eq!(is_less, !ALWAYS_MOVED.contains(&sql), "{sql}: {without} exchanges without it");
        assert_eq!(number(&mut client, &count).await, lying, "{sql}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_where_rows_lie_reads_nothing_from_other_workers() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, mut client) = start(dir.path(), 3).await;
    let sql = "SELECT count(*), sum(q + d) FROM lines l JOIN orders o ON l.k = o.k";
    for table in ["lines", "orders"] {
        let peers = scan_counters(&mut client, sql, table, "peer_bytes").await.unwrap();
        assert_eq!(peers, [0.0; 3], "{table}");
        let rows = scan_counters(&mut client, sql, table, "output_rows").await.unwrap();
        assert_eq!(rows.len(), 3, "{table}");
        assert!(rows.iter().all(|rows| *rows > 0.0), "{table}: {rows:?}");
    }
    cluster.stop().await;
}

/// A join, what Redshift calls it, and why rows move.
const LABELS: [(&str, &str, &str); 6] = [
    ("lines l JOIN orders o ON l.k = o.k", "DS_DIST_NONE", ""),
    ("orders o JOIN customers c ON o.c = c.c", "DS_DIST_ALL_NONE", ""),
    (
        "lines l JOIN parts p ON l.p = p.p",
        "DS_DIST_OUTER",
        "public.lines goes to the workers of its keys: it is KEY(k) and joined by",
    ),
    (
        "lines l JOIN events e ON l.q = e.z",
        "DS_DIST_BOTH",
        "public.events goes to the workers of its keys: it is EVEN and joined by z",
    ),
    (
        "lines l JOIN events e ON l.q = e.k AND e.z < 100",
        "DS_BCAST_INNER",
        "public.events goes to all workers: it is EVEN and joined by k",
    ),
    ("lines l JOIN events e ON l.q < e.z AND e.z < 9", "DS_BCAST_INNER", "no key is equal"),
];

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_what_a_join_moves_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, mut client) = start(dir.path(), 3).await;
    for (join, label, reason) in LABELS {
        let sql = format!("EXPLAIN SELECT count(*) FROM {join}");
        let plan = plan_text(&mut client, &sql).await.unwrap();
        let line = plan.lines().find(|line| line.starts_with("DS_")).unwrap_or_default();
        assert!(line.starts_with(&format!("{label} ")), "{join}: {line} in {plan}");
        assert!(plan.contains(reason), "{join}: {plan}");
    }
    // One task moves nothing, and has no label.
    let plan =
        plan_text(&mut client, "EXPLAIN SELECT 1 FROM customers a JOIN customers b USING (c)");
    assert!(!plan.await.unwrap().contains("DS_"));
    cluster.stop().await;
}

/// A query, and the mode of its only join: one hash table in each task where its rows are few beside those that are
/// looked up, and nothing above needs their partitions.
const BUILDS: [(&str, &str); 9] = [
    (
        "SELECT count(*), sum(q) FROM lines l JOIN orders o ON l.k = o.k AND o.c < 800",
        "CollectLeft",
    ),
    (
        "SELECT count(d) FROM lines l LEFT JOIN (SELECT * FROM orders WHERE c < 800) o USING (k)",
        "CollectLeft",
    ),
    (
        "SELECT count(q) FROM lines l RIGHT JOIN (SELECT * FROM orders WHERE c < 800) o USING (k)",
        "CollectLeft",
    ),
    (
        "SELECT count(q + d) FROM lines l FULL JOIN (SELECT * FROM orders WHERE c < 800) o USING (k)",
        "CollectLeft",
    ),
    (
        "SELECT count(*) FROM orders WHERE c < 800 AND NOT EXISTS (SELECT 1 FROM lines WHERE k = orders.k)",
        "CollectLeft",
    ),
    (
        "SELECT count(*) FROM orders WHERE c < 800 AND EXISTS (SELECT 1 FROM lines WHERE k = orders.k)",
        "CollectLeft",
    ),
    // The sides are as large as each other.
    ("SELECT count(*) FROM orders a JOIN orders b ON a.k = b.k", "Partitioned"),
    // The groups are of the same key.
    (
        "SELECT sum(n) FROM (SELECT l.k, count(*) AS n FROM lines l JOIN orders o ON l.k = o.k AND c < 800 GROUP BY l.k)",
        "Partitioned",
    ),
    // Both sides are sent to the tasks of their keys.
    ("SELECT count(*) FROM lines l JOIN orders o ON l.q = o.c AND o.k < 150000", "Partitioned"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_join_builds_one_table_in_each_task_where_that_is_cheaper() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, mut client) = start(dir.path(), 3).await;
    client.execute_update("SET target_partitions = 2").await.unwrap();
    for (sql, mode) in BUILDS {
        client.execute_update("SET whole_builds = on").await.unwrap();
        let (plan, answer) = modes_and_number(&mut client, sql).await;
        assert_eq!(plan, [mode], "{sql}");
        client.execute_update("SET whole_builds = off").await.unwrap();
        let (plan, without) = modes_and_number(&mut client, sql).await;
        assert_eq!(plan, ["Partitioned"], "{sql}");
        assert_eq!(answer, without, "{sql}");
    }
    cluster.stop().await;
}

/// The modes of a query's hash joins, and what it answers.
async fn modes_and_number(client: &mut Client, sql: &str) -> (Vec<String>, i64) {
    let plan = plan_text(client, &format!("EXPLAIN {sql}")).await.unwrap();
    let mode = |line: &str| {
        let (_, mode) = line.split_once("HashJoinExec: mode=")?;
        mode.split_once(',').map(|(mode, _)| mode.to_owned())
    };
    (plan.lines().filter_map(mode).collect(), number(client, sql).await)
}
