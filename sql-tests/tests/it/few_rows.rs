//! Stages of few rows are one task, whatever they do, and give the rows that they would give as several.

use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig, Links};
use basalt_sql_tests::explain::plan_text;
use basalt_sql_tests::slt::text::append_rows;

const TABLES: [&str; 6] = [
    "CREATE TABLE facts (k BIGINT, g BIGINT, m BIGINT, v BIGINT) DISTKEY(k)",
    "CREATE TABLE names (g BIGINT, name VARCHAR, level BIGINT) DISTSTYLE EVEN",
    "INSERT INTO facts SELECT value, value % 7, value % 50000, value % 13 \
     FROM generate_series(1, 100000)",
    "INSERT INTO names SELECT value, 'name ' || value, value % 3 FROM generate_series(0, 20000)",
    "ANALYZE facts",
    "ANALYZE names",
];

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

/// The tasks of the stages below each exchange, in the order of the plan.
async fn tasks(client: &mut Client, sql: &str) -> Vec<usize> {
    let text = plan_text(client, &format!("EXPLAIN {sql}")).await.unwrap();
    let tasks = |line: &str| {
        let (_, tasks) = line.split_once("] => Network")?.1.split_once("input_tasks=")?;
        tasks.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    text.lines().filter_map(tasks).collect()
}

/// A query, and the tasks of its stages.
const CASES: [(&str, &[usize]); 6] = [
    ("SELECT g, count(*) FROM facts GROUP BY g", &[1, 3]),
    ("SELECT g, count(*) AS n FROM facts GROUP BY g ORDER BY n, g", &[1, 3]),
    // Groups that are many stay with all workers.
    ("SELECT m, count(*) FROM facts GROUP BY m", &[3, 3]),
    // What reads a table stays where the table is.
    ("SELECT k, count(*) FROM facts GROUP BY k", &[3]),
    ("SELECT DISTINCT g, v FROM facts", &[1, 3]),
    (
        "SELECT s, count(*) FROM (SELECT g, sum(v) AS s FROM facts GROUP BY g) GROUP BY s",
        &[1, 1, 3],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_of_few_rows_is_one_task() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, mut client) = start(dir.path()).await;
    for (sql, expected) in CASES {
        client.execute_update("RESET one_task_rows").await.unwrap();
        assert_eq!(tasks(&mut client, sql).await, expected, "{sql}");
        let few = rows(&mut client, sql).await;
        client.execute_update("SET one_task_rows = 0").await.unwrap();
        assert!(tasks(&mut client, sql).await.iter().all(|tasks| *tasks == 3), "{sql}");
        assert_eq!(rows(&mut client, sql).await, few, "{sql}");
    }
    cluster.stop().await;
}

/// Few groups below joins, windows and unions of all kinds.
const GROUPS: &str = "WITH w AS (SELECT g, sum(v) AS s FROM facts GROUP BY g) ";
const ABOVE: [&str; 9] = [
    "SELECT count(*), sum(s) FROM w JOIN names USING (g)",
    "SELECT count(*), sum(s) FROM names LEFT JOIN w USING (g)",
    "SELECT count(*), sum(s) FROM names FULL JOIN w USING (g)",
    "SELECT count(*) FROM names WHERE g NOT IN (SELECT g FROM w)",
    "SELECT count(*), sum(f.v) FROM facts f JOIN w ON f.g = w.g AND f.v < w.s",
    "SELECT g, rank() OVER (ORDER BY s DESC, g) FROM w",
    "SELECT g, s FROM w UNION ALL SELECT level, count(*) FROM names GROUP BY level",
    "SELECT level, max(s) FROM names JOIN w USING (g) GROUP BY level ORDER BY level LIMIT 2",
    "SELECT a.g, b.g FROM w a CROSS JOIN w b",
];

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_the_same_above_stages_of_few() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, mut client) = start(dir.path()).await;
    for above in ABOVE {
        let sql = format!("{GROUPS}{above}");
        let mut answers = Vec::new();
        for shared in ["on", "off"] {
            client.execute_update(&format!("SET shared_subplans = {shared}")).await.unwrap();
            for few in ["0", "8192", "1000000"] {
                client.execute_update(&format!("SET one_task_rows = {few}")).await.unwrap();
                answers.push(rows(&mut client, &sql).await);
            }
        }
        assert!(!answers[0].is_empty(), "{sql}");
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{sql}: {answers:?}");
    }
    cluster.stop().await;
}
