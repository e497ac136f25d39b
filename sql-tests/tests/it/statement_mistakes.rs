//! The catalogue of mistakes that only a server finds: what users read when a statement is well
//! formed and wrong about what there is.
//!
//! `statement_mistakes.txt` holds the statements and the exact text shown for each, and is read by
//! people before it is changed. Mistakes that parsing or planning a query finds are in
//! `engine/tests/it/mistakes.txt`.

use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};

/// What the mistakes are about.
const SETUP: &str = "
    CREATE SCHEMA sales;
    CREATE TABLE items (id INTEGER NOT NULL, name VARCHAR(5), price DECIMAL(6, 2) DEFAULT 1);
    CREATE TABLE sales.orders (id BIGINT PRIMARY KEY, at DATE NOT NULL, note TEXT);
    CREATE VIEW cheap AS SELECT id FROM items WHERE price < 2;
";

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_of_the_catalogue_reads_as_written_there() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = EmbeddedCluster::start(&EmbeddedConfig::new(dir.path(), 1)).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    client.execute_update(SETUP).await.unwrap();
    let catalogue = include_str!("statement_mistakes.txt");
    let mut actual = String::new();
    for block in catalogue.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let sql: Vec<_> = block.lines().filter_map(|line| line.strip_prefix("> ")).collect();
        let sql = sql.join("\n");
        let error = match client.query_all(&sql).await {
            Ok(_) => panic!("no mistake: {sql}"),
            Err(error) => error,
        };
        let error = error.server().unwrap_or_else(|| panic!("{sql}: {error}"));
        for line in sql.lines() {
            actual.push_str(&format!("> {line}\n"));
        }
        let state = error.sqlstate.as_deref().unwrap_or("?");
        actual.push_str(&format!("{state} {}\n", error.message));
        if let Some(hint) = &error.hint {
            actual.push_str(&format!("HINT: {hint}\n"));
        }
        actual.push('\n');
    }
    cluster.stop().await;
    if actual.trim() != catalogue.trim() {
        panic!("the catalogue has changed; it would be:\n{actual}");
    }
}
