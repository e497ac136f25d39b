//! Sides of joins that nobody reads: because another side is empty, a query ends before it has begun with them,
//! and what waits for their workers' words ends, too.

use std::time::Duration;

use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig, Links};

/// What never ends takes longer, on any machine.
const DEADLINE: Duration = Duration::from_secs(120);

async fn check_ends(workers: u16, links: Links) {
    let dir = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig { links, ..EmbeddedConfig::new(dir.path(), workers) };
    let cluster = EmbeddedCluster::start(&config).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    for sql in [
        "CREATE TABLE facts (id BIGINT, a BIGINT, b BIGINT) DISTSTYLE EVEN",
        "CREATE TABLE empty_side (k BIGINT, n BIGINT) DISTSTYLE EVEN",
        "CREATE TABLE unread_side (k BIGINT, n BIGINT) DISTSTYLE EVEN",
        "INSERT INTO facts SELECT value, value % 1000, value % 777 FROM generate_series(1, 100000)",
        "INSERT INTO empty_side SELECT value, value % 10 FROM generate_series(0, 999)",
        "INSERT INTO unread_side SELECT value, value % 10 FROM generate_series(0, 776)",
        "SET one_task_rows = 0",
    ] {
        client.execute_update(sql).await.unwrap();
    }
    // No double is 7, which no statistics tell.
    let query = "SELECT count(*), sum(f.id) FROM facts f JOIN unread_side u ON f.b = u.k \
                 JOIN empty_side e ON f.a = e.k WHERE e.n * 2 = 7 AND u.n * 3 < 16";
    for sql in [query.to_owned(), format!("EXPLAIN ANALYZE {query}")] {
        let answer = tokio::time::timeout(DEADLINE, client.query_all(&sql)).await;
        let (_, rows) =
            answer.unwrap_or_else(|_| panic!("{workers} workers: {sql} goes on")).unwrap();
        assert!(rows.iter().any(|batch| batch.num_rows() > 0), "{sql}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_side_ends_a_query_and_its_analysis() {
    check_ends(1, Links::InProcess).await;
    check_ends(3, Links::InProcess).await;
    check_ends(3, Links::Network).await;
}
