//! What the bounds in the catalog rule out is not read, and no worker hears of it.

use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use basalt_sql_tests::explain::scan_counters;

/// Loads of rows that follow each other; each makes a segment that is too large to be merged.
const LOADS: i64 = 8;
const ROWS: i64 = 70_000;

async fn shown(client: &mut Client, sql: &str) -> String {
    let (_, rows) = client.query_all(sql).await.unwrap();
    arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string()
}

/// Rows that scans of a query are given, of all segments that are left.
async fn rows_assigned(client: &mut Client, sql: &str) -> f64 {
    scan_counters(client, sql, "t", "rows_assigned").await.unwrap().iter().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_the_sort_key_reads_the_segments_that_have_it_and_no_other() {
    for workers in [1, 3] {
        let dir = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig::new(dir.path(), workers);
        let cluster = EmbeddedCluster::start(&config).await.unwrap();
        let mut client = Client::connect(&cluster.url()).await.unwrap();
        let create = "CREATE TABLE t (at TIMESTAMP, n BIGINT, s VARCHAR) DISTSTYLE ALL SORTKEY(at)";
        client.execute_update(create).await.unwrap();
        for load in 0..LOADS {
            let (first, last) = (load * ROWS, (load + 1) * ROWS - 1);
            let insert = format!(
                "INSERT INTO t SELECT to_timestamp(value), value, CASE WHEN value % 2 = 0 THEN \
                 'even ' || value END FROM generate_series({first}, {last})"
            );
            client.execute_update(&insert).await.unwrap();
        }
        let of_one_load = "at >= to_timestamp(210000) AND at < to_timestamp(280000)";
        let count =
            format!("SELECT count(*) AS n, min(n) AS a, max(n) AS z FROM t WHERE {of_one_load}");
        let answer = shown(&mut client, &count).await;
        assert!(answer.contains("| 70000 | 210000 | 279999 |"), "{answer}");
        assert_eq!(rows_assigned(&mut client, &count).await, ROWS as f64);
        let plan = shown(&mut client, &format!("EXPLAIN {count}")).await;
        assert!(plan.contains(&format!("segments_pruned={}", LOADS - 1)), "{plan}");

        // What bounds cannot decide is read.
        let by_text = "SELECT count(*) AS n FROM t WHERE s LIKE 'even%'";
        assert_eq!(rows_assigned(&mut client, by_text).await, (LOADS * ROWS) as f64);
        // Nothing is left.
        let of_none = "SELECT count(*) AS n, sum(n) AS s FROM t WHERE at > to_timestamp(1000000)";
        let answer = shown(&mut client, of_none).await;
        assert!(answer.contains("| 0 |"), "{answer}");
        let grouped = "SELECT s, count(*) FROM t WHERE at > to_timestamp(1000000) GROUP BY s";
        let (_, groups) = client.query_all(grouped).await.unwrap();
        assert_eq!(groups.iter().map(|batch| batch.num_rows()).sum::<usize>(), 0);

        // Bounds are of all rows, deleted ones too: nothing is lost and nothing comes back.
        client
            .execute_update(&format!("DELETE FROM t WHERE {of_one_load} AND n % 2 = 0"))
            .await
            .unwrap();
        let answer = shown(&mut client, &count).await;
        assert!(answer.contains("| 35000 | 210001 | 279999 |"), "{answer}");
        let moved = format!("UPDATE t SET at = to_timestamp(2000000) WHERE {of_one_load}");
        client.execute_update(&moved).await.unwrap();
        let answer = shown(&mut client, of_none).await;
        assert!(answer.contains("| 35000 | 8575000000 |"), "{answer}");
        cluster.stop().await;
    }
}
