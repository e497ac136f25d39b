//! Writes of more rows than fit into the memory that rows of writes may take.

use std::path::Path;
use std::time::{Duration, Instant};

use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use tempfile::TempDir;

const ROWS: usize = 300_000;
/// Of about 30 MB of rows.
const LOAD_MEMORY_BYTES: usize = 4 << 20;

struct Scene {
    dir: TempDir,
    cluster: EmbeddedCluster,
    client: Client,
}

impl Scene {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig {
            load_memory_bytes: LOAD_MEMORY_BYTES,
            ..EmbeddedConfig::new(dir.path(), 2)
        };
        let cluster = EmbeddedCluster::start(&config).await.unwrap();
        let client = Client::connect(&cluster.url()).await.unwrap();
        Self { dir, cluster, client }
    }

    async fn has_all_rows(&mut self) -> bool {
        let all = "SELECT count(*) = 300000 AND count(DISTINCT a) = 300000 AND sum(b) = \
                   300000::BIGINT * 299999 / 2 AND min(c) LIKE '% 1' AND count(d) = 300000 AS ok FROM t";
        self.answer(all).await.contains("true")
    }

    async fn answer(&mut self, sql: &str) -> String {
        let (_, rows) = self.client.query_all(sql).await.unwrap();
        arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string()
    }
}

fn rows_of(layout: &str, failing: &str) -> String {
    format!(
        "CREATE TABLE t {layout} SORTKEY(b) AS SELECT value AS a, value * 7919 % {ROWS} AS b, \
         'a text that does not fit into a view, nor into what a load may take ' || value AS c, \
         {failing} AS d FROM generate_series(1, {ROWS})"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_larger_than_its_memory_writes_every_row_in_sorted_runs() {
    let mut scene = Scene::start().await;
    scene.client.execute_update(&rows_of("DISTKEY(a)", "1")).await.unwrap();
    assert!(scene.has_all_rows().await);
    let segments = "SELECT count(*) > 20 AS ok FROM sys.segments WHERE table_name = 't'";
    assert!(scene.answer(segments).await.contains("true"));
    scene.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vacuum_merges_runs_into_segments_side_by_side() {
    for layout in ["DISTKEY(a)", "DISTSTYLE EVEN", "DISTSTYLE ALL"] {
        let mut scene = Scene::start().await;
        scene.client.execute_update(&rows_of(layout, "1")).await.unwrap();
        let is_sorted = "SELECT unsorted = 0 AS ok FROM sys.tables WHERE table_name = 't'";
        assert!(scene.answer(is_sorted).await.contains("false"), "{layout}");
        scene.client.execute_update("DELETE FROM t WHERE a = 77").await.unwrap();
        scene.client.execute_update("VACUUM t").await.unwrap();
        assert!(scene.answer(is_sorted).await.contains("true"), "{layout}");
        let row = format!("INSERT INTO t VALUES (77, 77 * 7919 % {ROWS}, 'not 1', 1)");
        scene.client.execute_update(&row).await.unwrap();
        assert!(scene.has_all_rows().await, "{layout}");
        scene.cluster.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_fails_after_segments_were_closed_leaves_nothing() {
    let mut scene = Scene::start().await;
    let failing = rows_of("DISTKEY(a)", &format!("1 / ({ROWS} - value)"));
    let error = scene.client.execute_update(&failing).await.unwrap_err();
    assert!(error.to_string().contains("zero"), "{error}");
    // What was on its way to the disk is removed when it is there.
    let started = Instant::now();
    while has_segments(scene.dir.path()) {
        assert!(started.elapsed() < Duration::from_secs(30), "segments are left");
        tokio::task::yield_now().await;
    }
    scene.cluster.stop().await;
}

/// Whether any worker has files of a segment.
fn has_segments(dir: &Path) -> bool {
    let is_meta = |path: &Path| path.extension().is_some_and(|e| e == "meta" || e == "parquet");
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if is_meta(&path) {
                return true;
            }
        }
    }
    false
}
