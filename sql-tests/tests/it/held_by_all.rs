//! What every worker has: one worker reads it alone where it is not much, and all do in equal parts where it is.

use std::time::{Duration, Instant};

use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use basalt_sql_tests::explain::{exchanges, scan_counters};

const WORKERS: u16 = 3;
/// Four row groups of one segment.
const ROWS: i64 = 420_000;

const OF_BOTH: &str = "SELECT d.name, count(*) AS n, sum(t.n) AS s FROM t JOIN d ON d.k = t.n % 5 \
                       WHERE t.n % 3 = 0 GROUP BY d.name ORDER BY d.name";

async fn shown(client: &mut Client, sql: &str) -> String {
    let (_, rows) = client.query_all(sql).await.unwrap();
    arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string()
}

/// Waits until no segment of the tables lacks a copy: a write is acknowledged before all workers have it.
async fn wait_for_copies(client: &mut Client) {
    let lacking = "SELECT count(*) AS n FROM sys.segments WHERE length(holders) - \
                   length(replace(holders, ',', '')) + 1 < (SELECT count(*) FROM sys.workers)";
    let started = Instant::now();
    while !shown(client, lacking).await.contains("| 0 |") {
        assert!(started.elapsed() < Duration::from_secs(60), "copies are not made");
        tokio::task::yield_now().await;
    }
}

async fn done(client: &mut Client, sql: &str) {
    client.execute_update(sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_every_worker_has_is_read_by_one_or_by_all_alike() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = EmbeddedCluster::start(&EmbeddedConfig::new(dir.path(), WORKERS)).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    done(&mut client, "CREATE TABLE t (n BIGINT, x BIGINT) DISTSTYLE ALL").await;
    done(&mut client, "CREATE TABLE d (k BIGINT, name VARCHAR) DISTSTYLE ALL").await;
    let names = "INSERT INTO d SELECT value, 'name ' || value FROM generate_series(0, 4)";
    done(&mut client, names).await;
    let last = ROWS - 1;
    let rows = format!("INSERT INTO t SELECT value, value % 11 FROM generate_series(0, {last})");
    done(&mut client, &rows).await;
    wait_for_copies(&mut client).await;
    assert_eq!(exchanges(&mut client, OF_BOTH).await.unwrap(), ["Coalesce"]);
    let alone = shown(&mut client, OF_BOTH).await;
    assert!(alone.contains("| name 0 | 28000 |"), "{alone}");

    done(&mut client, "SET one_task_rows = 1").await;
    assert_eq!(shown(&mut client, OF_BOTH).await, alone);
    assert!(exchanges(&mut client, OF_BOTH).await.unwrap().len() > 1);
    let count = "SELECT count(*) AS n, sum(n) AS s FROM t WHERE x >= 0";
    let rows = scan_counters(&mut client, count, "t", "rows_assigned").await.unwrap();
    assert_eq!(rows.len(), usize::from(WORKERS), "{rows:?}");
    assert!(rows.iter().all(|rows| *rows > 0.0), "{rows:?}");
    // Of two such tables all read the smaller whole, and a part of the larger.
    let in_a_join = scan_counters(&mut client, OF_BOTH, "t", "rows_assigned").await.unwrap();
    assert_eq!(in_a_join, rows);

    // Rows that are changed are found in all parts, once.
    for one_task_rows in [1, 8192] {
        done(&mut client, &format!("SET one_task_rows = {one_task_rows}")).await;
        done(&mut client, "UPDATE t SET x = x + 100 WHERE n % 1000 = 7").await;
        done(&mut client, "DELETE FROM t WHERE n % 1000 = 8").await;
    }
    wait_for_copies(&mut client).await;
    let changed =
        "SELECT count(*) AS n, sum(n) AS s, sum(CASE WHEN x >= 200 THEN 1 ELSE 0 END) AS u FROM t";
    let last = "SELECT n, x FROM t WHERE n % 1000 = 7 ORDER BY n DESC LIMIT 2";
    for one_task_rows in [0, 1, 8192] {
        done(&mut client, &format!("SET one_task_rows = {one_task_rows}")).await;
        let answer = shown(&mut client, changed).await;
        assert!(answer.contains("| 419580 | 88111796640 | 420 |"), "{answer}");
        let answer = shown(&mut client, last).await;
        assert!(answer.contains("| 419007 | 206 |\n| 418007 | 207 |"), "{answer}");
    }
    cluster.stop().await;
}
