//! Many clients that change the same rows at once, while compactions move them: no change is lost,
//! none happens twice, and no client hears of a compaction (RULES 3, 9).

use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use futures::future::try_join_all;

/// Clients that update, and how often each does.
const UPDATERS: u32 = 3;
const UPDATES: u32 = 12;
const KEYS: u32 = 4;
/// Clients that insert row by row and delete every third row again: enough inserts for compactions.
const INSERTERS: u32 = 2;
const INSERTS: u32 = 24;

async fn update(url: String, client: u32) {
    let mut connection = Client::connect(&url).await.unwrap();
    for number in 0..UPDATES {
        let key = (client + number) % KEYS;
        let sql = format!("UPDATE counters SET n = n + 1 WHERE k = {key}");
        assert_eq!(connection.execute_update(&sql).await.unwrap(), 1, "{sql}");
        if number % 4 == 3 {
            connection.execute_update("VACUUM counters").await.unwrap();
        }
    }
}

async fn insert_and_delete(url: String, client: u32) {
    let mut connection = Client::connect(&url).await.unwrap();
    for number in 0..INSERTS {
        let row = client * 1_000 + number;
        connection.execute_update(&format!("INSERT INTO rows VALUES ({row})")).await.unwrap();
        if number % 3 == 2 {
            let sql = format!("DELETE FROM rows WHERE n = {row}");
            assert_eq!(connection.execute_update(&sql).await.unwrap(), 1, "{sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_at_once_are_all_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = EmbeddedCluster::start(&EmbeddedConfig::new(dir.path(), 3)).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    client.execute_update("CREATE TABLE counters (k INT, n BIGINT)").await.unwrap();
    client.execute_update("CREATE TABLE rows (n INT)").await.unwrap();
    let zeros =
        format!("INSERT INTO counters SELECT value, 0 FROM generate_series(0, {})", KEYS - 1);
    client.execute_update(&zeros).await.unwrap();

    let updaters = (0..UPDATERS).map(|n| tokio::spawn(update(cluster.url(), n)));
    let inserters = (0..INSERTERS).map(|n| tokio::spawn(insert_and_delete(cluster.url(), n)));
    try_join_all(updaters.chain(inserters)).await.unwrap();

    let sums = "SELECT CAST(sum(n) AS VARCHAR), CAST(count(*) AS VARCHAR) FROM counters";
    let (_, batches) = client.query_all(sums).await.unwrap();
    let mut rows = Vec::new();
    basalt_sql_tests::slt::text::append_rows(&batches[0], &mut rows).unwrap();
    assert_eq!(rows, [[(UPDATERS * UPDATES).to_string(), KEYS.to_string()]]);

    let left =
        "SELECT count(*), count(DISTINCT n), count(*) FILTER (WHERE n % 1000 % 3 = 2) FROM rows";
    let (_, batches) = client.query_all(left).await.unwrap();
    let mut rows = Vec::new();
    basalt_sql_tests::slt::text::append_rows(&batches[0], &mut rows).unwrap();
    let kept = (INSERTERS * INSERTS * 2 / 3).to_string();
    assert_eq!(rows, [[kept.clone(), kept, "0".to_owned()]]);
    cluster.stop().await;
}
