//! Random queries on plain DataFusion and on clusters: the same rows, as multisets (RULES 1).
//!
//! Tables are small, skewed and full of NULLs, and each has another distribution style; see
//! [`queries`] for what is generated. A difference is printed with its seed and SQL, and
//!
//! ```text
//! BASALT_DIFF_SEED=7 BASALT_DIFF_QUERIES=1 cargo test -p basalt-sql-tests --test it differential
//! ```
//!
//! runs query 7 again: query i of a run has the seed SEED + i, and the data never changes.
//! Without the variables the seeds are fixed, so that CI is the same every time; a night run sets
//! another seed and a large number.
//!
//! A statement that plain DataFusion itself cannot run says nothing about distribution. It is
//! counted, and there may be few of them.

mod queries;

use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use basalt_sql_tests::slt::text;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::prelude::{SessionConfig, SessionContext};

use queries::{TABLES, random_query};

use crate::random::Random;

/// The first seed, and how many queries, when the environment does not say.
const SEED: u64 = 1;
const QUERIES: u64 = 200;
/// Queries of which at most one may be beyond plain DataFusion.
const QUERIES_PER_UNSUPPORTED: u64 = 20;
/// The workers that see every query, and those that see each n-th one.
const WORKERS_ALWAYS: u16 = 3;
const WORKERS_SOMETIMES: [(u16, u64); 2] = [(2, 8), (5, 8)];

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// The rows as text, sorted.
fn shown(batches: &[RecordBatch]) -> Vec<String> {
    let mut rows = Vec::new();
    for batch in batches {
        text::append_rows(batch, &mut rows).unwrap();
    }
    let mut rows: Vec<_> = rows.into_iter().map(|row| row.join(" | ")).collect();
    rows.sort();
    rows
}

async fn plain_datafusion() -> SessionContext {
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    for table in TABLES {
        let create = format!("CREATE TABLE {} ({})", table.name, table.columns);
        session.sql(&create).await.unwrap().collect().await.unwrap();
        for insert in table.inserts() {
            session.sql(&insert).await.unwrap().collect().await.unwrap();
        }
    }
    session
}

/// A cluster with the tables, and a session on it.
struct Loaded {
    workers: u16,
    _dir: tempfile::TempDir,
    cluster: EmbeddedCluster,
    client: Client,
}

impl Loaded {
    async fn start(workers: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig::new(dir.path(), workers);
        let cluster = EmbeddedCluster::start(&config).await.unwrap();
        let mut client = Client::connect(&cluster.url()).await.unwrap();
        client.run("SET target_partitions = 2").await.unwrap();
        for table in TABLES {
            let create = format!("CREATE TABLE {} ({}) {}", table.name, table.columns, table.style);
            client.execute_update(&create).await.unwrap();
            for insert in table.inserts() {
                client.execute_update(&insert).await.unwrap();
            }
        }
        Self { workers, _dir: dir, cluster, client }
    }

    /// What is wrong with the cluster's answer to a query, if anything.
    async fn difference(&mut self, sql: &str, expected: &[String]) -> Option<String> {
        let got = match self.client.query_all(sql).await {
            Ok((_, batches)) => shown(&batches),
            Err(error) => return Some(format!("{} workers: {error}", self.workers)),
        };
        if got == expected {
            return None;
        }
        let missing: Vec<_> = expected.iter().filter(|row| !got.contains(row)).take(5).collect();
        let extra: Vec<_> = got.iter().filter(|row| !expected.contains(row)).take(5).collect();
        Some(format!(
            "{} workers: {} rows for {}, missing {missing:?}, too many {extra:?}",
            self.workers,
            got.len(),
            expected.len()
        ))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_queries_give_the_rows_of_plain_datafusion() {
    let first = from_environment("BASALT_DIFF_SEED", SEED);
    let count = from_environment("BASALT_DIFF_QUERIES", QUERIES);
    let oracle = plain_datafusion().await;
    let mut always = Loaded::start(WORKERS_ALWAYS).await;
    let mut sometimes = Vec::new();
    for (workers, every) in WORKERS_SOMETIMES {
        sometimes.push((Loaded::start(workers).await, every));
    }
    let (mut unsupported, mut differences) = (Vec::new(), Vec::new());
    for seed in first..first + count {
        let sql = random_query(&mut Random::new(seed));
        let rows = match oracle.sql(&sql).await {
            Ok(frame) => frame.collect().await,
            Err(error) => Err(error),
        };
        let expected = match rows {
            Ok(batches) => shown(&batches),
            Err(error) => {
                unsupported.push(format!("seed {seed}: {}\n{sql}", error.strip_backtrace()));
                continue;
            }
        };
        let mut found: Vec<_> = always.difference(&sql, &expected).await.into_iter().collect();
        for (loaded, every) in &mut sometimes {
            if seed % *every == 0 || count == 1 {
                found.extend(loaded.difference(&sql, &expected).await);
            }
        }
        differences.extend(found.iter().map(|found| format!("seed {seed}: {found}\n{sql}")));
    }
    always.cluster.stop().await;
    for (loaded, _) in sometimes {
        loaded.cluster.stop().await;
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
    let allowed = count.div_ceil(QUERIES_PER_UNSUPPORTED);
    assert!(unsupported.len() as u64 <= allowed, "{}", unsupported.join("\n\n"));
}
