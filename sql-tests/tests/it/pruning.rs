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

/// Pages of what a query reads, and of what it need not.
async fn pages(client: &mut Client, sql: &str) -> (f64, f64) {
    let mut sum = async |name| scan_counters(client, sql, "t", name).await.unwrap().iter().sum();
    (sum("pages_read").await, sum("pages_pruned").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_few_rows_reads_the_pages_that_have_them_and_no_other() {
    for workers in [1, 3] {
        let dir = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig::new(dir.path(), workers);
        let cluster = EmbeddedCluster::start(&config).await.unwrap();
        let mut client = Client::connect(&cluster.url()).await.unwrap();
        let create = "CREATE TABLE t (k BIGINT, n BIGINT, s VARCHAR) DISTSTYLE ALL SORTKEY(k)";
        client.execute_update(create).await.unwrap();
        let insert = "INSERT INTO t SELECT value, value * 7919 % 200003, CASE WHEN value % 3 = 0 \
                      THEN 'text ' || value END FROM generate_series(0, 199999)";
        client.execute_update(insert).await.unwrap();
        // 13 pages in two row groups.
        let few = "SELECT k, n, s FROM t WHERE k BETWEEN 50000 AND 50009 ORDER BY k";
        let wide = "SELECT count(*) AS n, sum(n) AS sum, max(s) AS s FROM t WHERE k % 2 = 0 AND \
                    (k < 20000 OR k > 190000)";
        let answers = async |client: &mut Client| {
            let mut answers = Vec::new();
            for query in [few, wide] {
                answers.push(shown(client, query).await);
            }
            answers
        };
        client.execute_update("SET pruning = off").await.unwrap();
        let expected = answers(&mut client).await;
        client.execute_update("RESET pruning").await.unwrap();
        let (read, pruned) = pages(&mut client, few).await;
        assert_eq!((read, pruned), (1.0, 7.0));
        let sum = async |client: &mut Client, name| -> f64 {
            scan_counters(client, few, "t", name).await.unwrap().iter().sum()
        };
        assert_eq!(sum(&mut client, "row_groups_read").await, 1.0);
        assert_eq!(sum(&mut client, "row_groups_pruned").await, 1.0);
        assert!(sum(&mut client, "pruned_bytes").await > 0.0);
        // The first times pages are decoded alone, later whole columns are found in the cache.
        for settings in ["SET batch_rows = 8192", "SET batch_rows = 7", "SET column_cache = off"] {
            client.execute_update(settings).await.unwrap();
            for _ in 0..4 {
                assert_eq!(answers(&mut client).await, expected, "{settings}");
            }
        }
        client.execute_update("RESET batch_rows").await.unwrap();
        client.execute_update("RESET column_cache").await.unwrap();
        // Rows of pages that are not read can be deleted, and those of pages that are.
        client.execute_update("DELETE FROM t WHERE k % 5 = 0").await.unwrap();
        let with_pruning = answers(&mut client).await;
        assert_eq!(pages(&mut client, few).await, (1.0, 7.0));
        client.execute_update("SET pruning = off").await.unwrap();
        assert_eq!(answers(&mut client).await, with_pruning);
        assert_ne!(with_pruning, expected);
        cluster.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_workers_are_read_alone_too() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = EmbeddedCluster::start(&EmbeddedConfig::new(dir.path(), 3)).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    let create = "CREATE TABLE t (k BIGINT, n BIGINT) DISTKEY(n) SORTKEY(k) REPLICAS 1";
    client.execute_update(create).await.unwrap();
    let insert =
        "INSERT INTO t SELECT value, value * 2654435761 % 1000003 FROM generate_series(1, 600000)";
    client.execute_update(insert).await.unwrap();
    client.execute_update("SET column_cache = off").await.unwrap();
    // One task reads what all workers have.
    client.execute_update("SET one_task_rows = 1000000").await.unwrap();
    let query =
        "SELECT count(*) AS c, sum(n) AS s, min(k) AS a FROM t WHERE k BETWEEN 1000 AND 1200";
    let found = shown(&mut client, query).await;
    let (read, pruned) = pages(&mut client, query).await;
    assert!(read > 0.0 && pruned > 0.0, "{read} pages read, {pruned} pruned");
    let from_peers: f64 =
        scan_counters(&mut client, query, "t", "peer_bytes").await.unwrap().iter().sum();
    assert!(from_peers > 0.0);
    client.execute_update("SET pruning = off").await.unwrap();
    assert_eq!(shown(&mut client, query).await, found);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_by_the_distribution_key_asks_one_worker_for_one_slice() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = EmbeddedCluster::start(&EmbeddedConfig::new(dir.path(), 3)).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    let keys = [
        ("BIGINT", "value"),
        ("INTEGER", "value::INTEGER"),
        ("VARCHAR", "'key ' || value"),
        ("DECIMAL(12, 2)", "value::DECIMAL(12, 2) / 4"),
        ("DATE", "DATE '2020-01-01' + value::INTEGER"),
        ("DOUBLE", "CASE WHEN value = 0 THEN -0.0 ELSE value / 4.0 END"),
    ];
    for (data_type, key) in keys {
        client.execute_update("DROP TABLE IF EXISTS t").await.unwrap();
        let create = format!("CREATE TABLE t (k {data_type}, n BIGINT) DISTKEY(k)");
        client.execute_update(&create).await.unwrap();
        let fill = format!("INSERT INTO t SELECT {key}, value FROM generate_series(0, 9999)");
        client.execute_update(&fill).await.unwrap();
        // Rows whose keys change go to other slices.
        for change in ["", "UPDATE t SET k = (SELECT max(k) FROM t) WHERE n = 77"] {
            if !change.is_empty() {
                client.execute_update(change).await.unwrap();
            }
            for value in [0, 1, 77, 4_000, 9_999] {
                // As text, as a user writes it.
                let literal =
                    shown(&mut client, &format!("SELECT k::VARCHAR FROM t WHERE n = {value}"))
                        .await;
                let literal = literal.lines().nth(3).unwrap().trim_matches(['|', ' ']).to_owned();
                for predicate in [
                    format!("k = '{literal}'::{data_type}"),
                    format!("k IN ('{literal}'::{data_type}, NULL) AND n >= 0"),
                    format!("k = '{literal}'::{data_type} OR n = 5"),
                ] {
                    let query = format!("SELECT k, n FROM t WHERE {predicate} ORDER BY n");
                    let answer = shown(&mut client, &query).await;
                    assert!(
                        answer.contains(&format!("| {value} ")),
                        "{data_type} {query}\n{answer}"
                    );
                    client.execute_update("SET pruning = off").await.unwrap();
                    assert_eq!(shown(&mut client, &query).await, answer, "{data_type} {query}");
                    client.execute_update("SET pruning = on").await.unwrap();
                }
                let query = format!("SELECT n FROM t WHERE k = '{literal}'::{data_type}");
                let assigned = rows_assigned(&mut client, &query).await;
                // Zeros have two forms and are one value; bounds alone leave all slices but at the ends.
                match data_type {
                    "DOUBLE" if value == 4_000 => {
                        assert!(assigned > 9_000.0, "{query}: {assigned}")
                    }
                    "DOUBLE" => {}
                    _ => assert!(assigned < 1_000.0, "{data_type} {query}: {assigned}"),
                }
            }
        }
    }
    cluster.stop().await;
}
