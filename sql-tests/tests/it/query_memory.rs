//! Queries beyond their memory end by themselves: `RESOURCES_EXHAUSTED`, and nobody else suffers.
//!
//! Beside each of them clients look rows up, add them up and load: every one of their answers is
//! right. Afterwards nothing of the workers' memory is reserved.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Memory of queries of each worker.
const WORKER_MEMORY_BYTES: usize = 48 << 20;
/// What one query may have of it.
const QUERY_MEMORY_BYTES: usize = WORKER_MEMORY_BYTES / 4 * 3;
/// Rows of `big` for each worker: their texts take 40 MB, and what is made of them more than its memory.
const ROWS_PER_WORKER: u64 = 600_000;
/// Rows that every query has memory for.
const FEW_ROWS: u64 = 1_000;

/// What a query needs memory for, and its text with `{rows}` for how many rows it is about.
const HUNGRY: [(&str, &str); 4] = [
    (
        "groups",
        "SELECT count(*) AS a FROM (SELECT s, count(*) FROM big WHERE n <= {rows} GROUP BY s)",
    ),
    (
        "the build side of a join",
        "SELECT count(*) AS a FROM big x JOIN big y ON x.s = y.s AND x.n + y.n > 0 WHERE x.n <= {rows} AND y.n <= {rows}",
    ),
    (
        "a window",
        "SELECT count(*) AS a FROM (SELECT s, max(s) OVER () AS w FROM big WHERE n <= {rows}) WHERE w >= s",
    ),
    (
        "a sort",
        "SELECT count(*) AS a FROM (SELECT n, row_number() OVER (ORDER BY s) AS r FROM big WHERE n <= {rows}) WHERE r > 0",
    ),
];

/// What spills when there is room for it. Numbers: DataFusion counts texts in sorted runs more than once, and
/// in so little memory has too little to merge them.
const SPILLING: [(&str, &str); 2] = [
    (
        "groups",
        "SELECT count(*) AS a FROM (SELECT s, count(*) FROM big WHERE n <= {rows} GROUP BY s)",
    ),
    (
        "a sort",
        "SELECT count(*) AS a FROM (SELECT a, b, c, d, e, row_number() OVER (ORDER BY n % 1009, n DESC) AS r \
         FROM (SELECT n, n * 2 AS a, n * 3 AS b, n * 5 AS c, n * 7 AS d, n * 11 AS e FROM big WHERE n <= {rows})) \
         WHERE r > 0 AND a + b + c + d + e > 0",
    ),
];

struct Scene {
    _dir: TempDir,
    cluster: EmbeddedCluster,
    client: Client,
    rows: u64,
}

impl Scene {
    /// A cluster with a table of about as much as its memory, of which one query may have a part, and spill space of
    /// so many bytes.
    async fn start(workers: u16, spill_bytes_max: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let memory_bytes = WORKER_MEMORY_BYTES * usize::from(workers);
        let config = EmbeddedConfig {
            memory_bytes,
            query_memory_bytes: QUERY_MEMORY_BYTES * usize::from(workers),
            column_cache_bytes: memory_bytes as u64 / 2,
            load_memory_bytes: memory_bytes / 8,
            spill_bytes_max,
            ..EmbeddedConfig::new(dir.path(), workers)
        };
        let cluster = EmbeddedCluster::start(&config).await.unwrap();
        let mut client = Client::connect(&cluster.url()).await.unwrap();
        let rows = ROWS_PER_WORKER * u64::from(workers);
        let text = "repeat(chr(97 + value % 26), 60) || value";
        for create in [
            format!("CREATE TABLE big DISTKEY(n) AS SELECT value AS n, {text} AS s FROM generate_series(1, {rows})"),
            "CREATE TABLE small AS SELECT value AS n, value % 7 AS k FROM generate_series(1, 20000)".to_owned(),
            "CREATE TABLE loaded (n BIGINT, s VARCHAR)".to_owned(),
        ] {
            client.execute_update(&create).await.unwrap();
        }
        Self { _dir: dir, cluster, client, rows }
    }

    async fn answer(&mut self, sql: &str) -> String {
        answer(&mut self.client, sql).await.unwrap()
    }

    /// The memory of every worker is free again, but for what may be on its way out.
    async fn nothing_is_reserved(&self, after: &str) {
        let started = Instant::now();
        let reserved =
            || self.cluster.workers().iter().map(|w| w.memory_reserved_bytes()).collect::<Vec<_>>();
        while reserved().iter().any(|bytes| *bytes > 0) {
            assert!(started.elapsed() < Duration::from_secs(30), "{after}: {:?}", reserved());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn answer(client: &mut Client, sql: &str) -> Result<String, String> {
    match client.query_all(sql).await {
        Ok((_, rows)) => Ok(arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string()),
        Err(error) => Err(format!("{:?}: {error}", error.code())),
    }
}

fn is(answer: &str, value: u64) -> bool {
    answer.contains(&format!("| {value} "))
}

/// A client that asks until it is told to stop; what it asked, and its first wrong answer.
struct Neighbour {
    stop: Arc<AtomicBool>,
    asking: JoinHandle<(u64, Option<String>)>,
}

impl Neighbour {
    async fn start(url: &str, queries: &'static [(&'static str, &'static str)]) -> Self {
        let mut client = Client::connect(url).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let asking = tokio::spawn(async move {
            let mut asked = 0;
            loop {
                for (sql, expected) in queries {
                    match answer(&mut client, sql).await {
                        Ok(rows) if rows.contains(expected) => asked += 1,
                        other => return (asked, Some(format!("{sql}: {other:?}"))),
                    }
                }
                if is_over.load(Ordering::Relaxed) {
                    return (asked, None);
                }
            }
        });
        Self { stop, asking }
    }

    /// All of its answers were right, and there were some.
    async fn was_served(self, beside: &str) {
        self.stop.store(true, Ordering::Relaxed);
        let (asked, wrong) = self.asking.await.unwrap();
        assert_eq!(wrong, None, "beside {beside}, after {asked} right answers");
        assert!(asked > 0, "beside {beside}");
    }
}

const LOOKUPS: &[(&str, &str)] = &[
    ("SELECT k FROM small WHERE n = 77", "| 0 "),
    ("SELECT s FROM big WHERE n = 27", "| bbbbbbbbbb"),
    ("SELECT count(*) AS c, sum(k) AS s FROM small", "| 20000 | 59998 "),
];
const AGGREGATES: &[(&str, &str)] = &[
    ("SELECT count(*) AS c FROM (SELECT k, count(*) FROM small GROUP BY k)", "| 7 "),
    ("SELECT count(*) AS c FROM small x JOIN small y ON x.n = y.n WHERE x.k = 3", "| 2857 "),
    ("SELECT n FROM small ORDER BY k DESC, n LIMIT 1", "| 6 "),
];

/// Without spill space each of the queries is refused, while its neighbours are served.
async fn check_refused(workers: u16) {
    let mut scene = Scene::start(workers, 1 << 20).await;
    let url = scene.cluster.url();
    let mut loads = 0;
    for (what, sql) in HUNGRY {
        scene.nothing_is_reserved(what).await;
        let neighbours =
            [Neighbour::start(&url, LOOKUPS).await, Neighbour::start(&url, AGGREGATES).await];
        let mut loader = Client::connect(&url).await.unwrap();
        let load = tokio::spawn(async move {
            let rows = "INSERT INTO loaded SELECT value, repeat('l', 40) || value FROM generate_series(1, 50000)";
            loader.execute_update(rows).await
        });
        for _ in 0..2 {
            let all = sql.replace("{rows}", &scene.rows.to_string());
            let error = scene.client.query_all(&all).await.map(|(_, rows)| rows).unwrap_err();
            assert_eq!(error.code(), Some("RESOURCES_EXHAUSTED"), "{what}: {error}");
        }
        load.await.unwrap().unwrap();
        loads += 1;
        for neighbour in neighbours {
            neighbour.was_served(what).await;
        }
        let few = scene.answer(&sql.replace("{rows}", &FEW_ROWS.to_string())).await;
        assert!(is(&few, FEW_ROWS), "{what} of few rows: {few}");
        let loaded = scene.answer("SELECT count(*) AS c, sum(n) % 1000003 AS s FROM loaded").await;
        assert!(is(&loaded, loads * 50_000), "{loaded}");
        scene.nothing_is_reserved(what).await;
    }
    scene.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_beyond_the_memory_of_a_worker_is_refused_and_nobody_else_suffers() {
    check_refused(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_beyond_the_memory_of_three_workers_is_refused_and_nobody_else_suffers() {
    check_refused(3).await;
}

/// With spill space what can spill has its answer.
async fn check_spills(workers: u16) {
    let mut scene = Scene::start(workers, 4 << 30).await;
    let neighbours = [
        Neighbour::start(&scene.cluster.url(), LOOKUPS).await,
        Neighbour::start(&scene.cluster.url(), AGGREGATES).await,
    ];
    for (what, sql) in SPILLING {
        let sql = sql.replace("{rows}", &scene.rows.to_string());
        let all = scene.answer(&sql).await;
        assert!(is(&all, scene.rows), "{what}: {all}");
        let plan = scene.answer(&format!("EXPLAIN ANALYZE {sql}")).await;
        let mut spills = plan.split("spill_count=").skip(1);
        assert!(spills.any(|count| !count.starts_with('0')), "{what} spilled nothing: {plan}");
    }
    for neighbour in neighbours {
        neighbour.was_served("what spills").await;
    }
    scene.nothing_is_reserved("what spills").await;
    scene.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_spill_is_answered_where_there_is_room_for_it() {
    check_spills(1).await;
    check_spills(3).await;
}
