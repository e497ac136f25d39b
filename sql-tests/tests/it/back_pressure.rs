//! Small segments do not pile up without end: writes wait for compaction, and are refused at last.

use basalt_coordinator::statements::pressure::SegmentLimits;
use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};

/// Fewer segments than compaction begins at: it never runs.
const LIMITS: SegmentLimits = SegmentLimits { wait_from: 4, refuse_from: 9 };

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_refused_once_too_many_small_segments_are_left() {
    let dir = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig { segment_limits: LIMITS, ..EmbeddedConfig::new(dir.path(), 1) };
    let cluster = EmbeddedCluster::start(&config).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    client.execute_update("CREATE TABLE t (a BIGINT) DISTSTYLE ALL").await.unwrap();
    let mut refused = None;
    for value in 0..20 {
        match client.execute_update(&format!("INSERT INTO t VALUES ({value})")).await {
            Ok(_) => assert!(value < LIMITS.refuse_from, "row {value} was taken"),
            Err(error) => {
                refused = Some((value, error.to_string()));
                break;
            }
        }
    }
    let (rows, error) = refused.expect("one write is refused");
    assert_eq!(rows, LIMITS.refuse_from);
    assert!(error.contains("has 9 small segments"), "{error}");
    for refused in ["INSERT INTO t SELECT 1", "UPDATE t SET a = a + 100"] {
        let error = client.execute_update(refused).await.unwrap_err().to_string();
        assert!(error.contains("small segments"), "{refused}: {error}");
    }
    // What makes no segments still works, and so does what makes them fewer.
    client.execute_update("DELETE FROM t WHERE a = 0").await.unwrap();
    client.execute_update("VACUUM t").await.unwrap();
    client.execute_update("INSERT INTO t VALUES (100)").await.unwrap();
    let (_, rows) = client.query_all("SELECT count(*) AS n, sum(a) AS s FROM t").await.unwrap();
    let shown = arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string();
    assert!(shown.contains("| 9 | 136 |"), "{shown}");
    cluster.stop().await;
}
