//! `SQL.md` says what is so: each of its `sql` blocks is run, one statement a line, and what stands
//! after `--` is compared with the answer.

use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use basalt_sql_tests::slt::text;

const PAGE: &str = include_str!("../../../SQL.md");

/// The lines of the page's `sql` blocks, each with its number.
fn lines() -> impl Iterator<Item = (usize, &'static str)> {
    let mut inside = false;
    (1..).zip(PAGE.lines()).filter(move |(_, line)| {
        if line.starts_with("```") {
            inside = *line == "```sql";
            return false;
        }
        inside
    })
}

async fn answer(client: &mut Client, sql: &str) -> String {
    let has_rows = ["SELECT", "SHOW", "DESCRIBE", "ANALYZE COMPRESSION"]
        .iter()
        .any(|word| sql.starts_with(word));
    let result = match has_rows {
        true => client.query_all(sql).await.map(|(_, batches)| batches),
        false => client.execute_update(sql).await.map(|_| vec![]),
    };
    match result {
        Err(error) => match error.server() {
            Some(server) => format!("error: {}", server.message),
            None => panic!("{sql}: {error}"),
        },
        Ok(batches) => {
            let mut rows = Vec::new();
            for batch in &batches {
                text::append_rows(batch, &mut rows).unwrap();
            }
            let rows: Vec<_> = rows.iter().map(|row| row.join(" | ")).collect();
            rows.join("; ").replace('\n', "\\n")
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_claim_of_the_page_is_so() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = EmbeddedCluster::start(&EmbeddedConfig::new(dir.path(), 1)).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for (number, line) in lines() {
        let (sql, expected) = match line.split_once(";  -- ") {
            Some((sql, expected)) => (sql, expected),
            None => (line, ""),
        };
        let actual = answer(&mut client, sql).await;
        let is_so = match expected.starts_with("error: ") {
            true => actual.starts_with(expected),
            false => actual == expected,
        };
        checked += 1;
        if !is_so {
            wrong.push(format!("line {number}: {sql}\n  says {expected}\n  gives {actual}"));
        }
    }
    cluster.stop().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 30, "only {checked} lines of SQL.md are checked");
}
