//! Tables by one key are joined where they lie, and nothing moves between workers: also after one was killed,
//! and after one was added.

use std::path::Path;
use std::time::{Duration, Instant};

use basalt_sql_tests::client::Client;
use basalt_sql_tests::explain::{exchanges, scan_counters};
use basalt_sql_tests::faults::session::Session;
use basalt_sql_tests::processes::{ProcessCluster, ProcessClusterConfig};

const STATEMENTS: [&str; 5] = [
    "CREATE TABLE orders (k BIGINT, d BIGINT) DISTKEY(k)",
    "CREATE TABLE lines (k BIGINT, q BIGINT) DISTKEY(k)",
    "INSERT INTO orders SELECT value, value % 7 FROM generate_series(1, 100000)",
    "INSERT INTO lines SELECT value % 100000, value FROM generate_series(1, 300000)",
    // The background has nothing to analyse then, and commits no more.
    "ANALYZE",
];
const QUERY: &str = "SELECT count(*), sum(q + d) FROM lines l JOIN orders o ON l.k = o.k";
/// Whether scans that were measured read bytes, all of them here, and work was spread over the tasks.
const SCANNED: &str = "SELECT count(DISTINCT tables) FROM sys.query_stages WHERE tables LIKE '%lines%' \
     AND cached_bytes + local_bytes > 0 AND peer_bytes = 0 AND skew < tasks AND compute_ms > 0";
/// How long slices may take to move to a new worker.
const PLACED_WITHIN: Duration = Duration::from_secs(60);

fn config(dir: &Path, workers: usize) -> ProcessClusterConfig {
    ProcessClusterConfig {
        binary: env!("CARGO_BIN_EXE_basalt").into(),
        data_dir: dir.to_owned(),
        workers,
        allow_path: vec![],
        worker_args: vec![],
    }
}

async fn start(config: &ProcessClusterConfig) -> (ProcessCluster, Client, Session) {
    let cluster = ProcessCluster::start(config).unwrap();
    let mut client = Client::connect(cluster.url()).await.unwrap();
    for sql in STATEMENTS {
        client.execute_update(sql).await.unwrap();
    }
    let session = Session::new(cluster.url());
    (cluster, client, session)
}

/// The answer, of which nothing moved but the coordinator's part.
async fn answer_where_rows_lie(
    client: &mut Client,
    session: &mut Session,
    workers: usize,
) -> Vec<Vec<i64>> {
    let answer = session.read_until_answered(QUERY).await.unwrap();
    assert_eq!(exchanges(client, QUERY).await.unwrap(), ["Coalesce"]);
    for table in ["lines", "orders"] {
        let moved = scan_counters(client, QUERY, table, "peer_bytes").await.unwrap();
        assert_eq!(moved, vec![0.0; workers], "{table}");
    }
    // What was explained last left its stages behind, with what the scans of all workers read.
    assert_eq!(session.read_until_answered(SCANNED).await.unwrap(), [[1]]);
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_moves_after_a_worker_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut cluster, mut client, mut session) = start(&config(dir.path(), 3)).await;
    let before = answer_where_rows_lie(&mut client, &mut session, 3).await;
    cluster.workers()[1].kill().unwrap();
    let after = answer_where_rows_lie(&mut client, &mut session, 2).await;
    assert_eq!(after, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_moves_after_a_worker_was_added() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), 2);
    let (mut cluster, mut client, mut session) = start(&config).await;
    let before = answer_where_rows_lie(&mut client, &mut session, 2).await;
    cluster.add_worker(&config).unwrap();
    let placed = "SELECT count(*) FROM sys.workers WHERE slices > 0 AND segments > 0 AND \
                  NOT EXISTS (SELECT 1 FROM sys.chunks WHERE state <> 'full')";
    let started = Instant::now();
    while session.read_until_answered(placed).await.unwrap() != [[3]] {
        assert!(started.elapsed() < PLACED_WITHIN, "no slices moved to the new worker");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let after = answer_where_rows_lie(&mut client, &mut session, 3).await;
    assert_eq!(after, before);
}
