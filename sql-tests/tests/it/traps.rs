//! Traps of Parquet, DataFusion and datafusion-distributed that give wrong or missing answers silently; the table
//! is in ARCHITECTURE.md ("Traps"). Here are those that no other test has.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use basalt_engine::files::AllowedRoots;
use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig, Links};
use basalt_sql_tests::explain::scan_counters;
use parquet::arrow::ArrowWriter;
use parquet::file::reader::{FileReader, SerializedFileReader};
use tempfile::TempDir;

struct Scene {
    dir: TempDir,
    cluster: EmbeddedCluster,
    client: Client,
}

impl Scene {
    async fn start(workers: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = dir.path().join("files");
        std::fs::create_dir(&files).unwrap();
        let config = EmbeddedConfig {
            links: Links::Network,
            allowed_roots: AllowedRoots::new([&files]).unwrap(),
            ..EmbeddedConfig::new(dir.path().join("data"), workers)
        };
        let cluster = EmbeddedCluster::start(&config).await.unwrap();
        let client = Client::connect(&cluster.url()).await.unwrap();
        Self { dir, cluster, client }
    }

    async fn done(&mut self, sql: &str) {
        self.client.execute_update(sql).await.unwrap();
    }

    async fn answer(&mut self, sql: &str) -> String {
        let (_, rows) = self.client.query_all(sql).await.unwrap();
        arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string()
    }

    fn files(&self) -> PathBuf {
        self.dir.path().join("files")
    }
}

/// T1: rows that displace the true first ones, and rows that are dropped, both with filters that scans evaluate and
/// top-k bounds that change while they run.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_rows_are_the_same_however_scans_filter() {
    // Ties, NULLs, rows that the filter takes out, deleted rows, few and many segments.
    let queries = [
        "SELECT k, n, s FROM t WHERE n % 3 <> 1 ORDER BY k, n DESC LIMIT 25",
        "SELECT n, s FROM t WHERE s LIKE '%77%' ORDER BY n LIMIT 13",
        "SELECT n FROM t WHERE k > 100 ORDER BY n DESC LIMIT 7 OFFSET 3",
        "SELECT k, n FROM t ORDER BY k DESC NULLS LAST, n LIMIT 11",
        "SELECT t.n, d.name FROM t JOIN d ON t.k = d.k WHERE d.name < 'd2' ORDER BY t.n DESC LIMIT 9",
        "SELECT k, max(n) AS m FROM t WHERE n < 150000 GROUP BY k ORDER BY m DESC, k LIMIT 5",
        "SELECT min(n) AS a, max(n) AS z, count(s) AS c FROM t WHERE k BETWEEN 40 AND 44",
    ];
    for workers in [1, 3] {
        let mut scene = Scene::start(workers).await;
        scene
            .done(
                "CREATE TABLE t DISTKEY(n) SORTKEY(k) AS SELECT value AS n, CASE WHEN value % 11 > 0 \
                 THEN value * 7919 % 500 END AS k, 'text ' || (value % 1000) AS s FROM generate_series(1, 160000)",
            )
            .await;
        let dims = "CREATE TABLE d AS SELECT value AS k, 'd' || value AS name FROM generate_series(0, 400)";
        scene.done(dims).await;
        scene.done("DELETE FROM t WHERE n % 5 = 0 OR n > 159900").await;
        for query in queries {
            let mut answers = Vec::new();
            for settings in [
                "SET filter_pushdown = off; SET pruning = off; SET column_cache = off",
                "SET filter_pushdown = on; SET pruning = on; SET column_cache = on",
                "SET filter_pushdown = on; SET pruning = off; SET batch_rows = 100",
                "SET filter_pushdown = off; SET pruning = on; SET target_partitions = 5",
            ] {
                scene.done(settings).await;
                answers.push(scene.answer(query).await);
            }
            answers.iter().for_each(|answer| assert_eq!(answer, &answers[0], "{query}"));
            scene.done("RESET batch_rows; RESET target_partitions").await;
        }
        scene.cluster.stop().await;
    }
}

/// T2: in DataFusion's scan a selection of rows, which is what a delete vector is, switches off what dynamic
/// filters rule out.
#[tokio::test(flavor = "multi_thread")]
async fn deleted_rows_keep_no_row_group_from_being_ruled_out_while_a_query_runs() {
    let mut scene = Scene::start(1).await;
    // Three row groups of one segment. Not its sort key, which would need no sort.
    scene
        .done("CREATE TABLE t DISTSTYLE ALL AS SELECT value AS n, value % 7 AS k FROM generate_series(1, 393216)")
        .await;
    scene.done("SET target_partitions = 2").await;
    let first = "SELECT n FROM t WHERE k >= 0 ORDER BY n LIMIT 5";
    let mut read = Vec::new();
    for delete in ["DELETE FROM t WHERE n = 3", "DELETE FROM t WHERE n % 3 = 0"] {
        scene.done(delete).await;
        let answer = scene.answer(first).await;
        assert!(answer.contains("| 1 ") && !answer.contains("| 3 "), "{answer}");
        let rows = scan_counters(&mut scene.client, first, "t", "row_groups_pruned").await.unwrap();
        read.push(rows.iter().sum::<f64>());
    }
    assert!(read.iter().all(|pruned| *pruned >= 1.0), "row groups ruled out: {read:?}");
    scene.cluster.stop().await;
}

/// T10: a task that takes over files of a sibling, which runs elsewhere, reads them twice. The files of
/// `read_parquet` and COPY are spread over tasks as row groups are.
#[tokio::test(flavor = "multi_thread")]
async fn every_file_is_read_by_one_task() {
    let mut scene = Scene::start(3).await;
    let rows_each = 3_000;
    for file in 0..7 {
        let numbers = Int64Array::from_iter_values(file * rows_each..(file + 1) * rows_each);
        let batch = RecordBatch::try_from_iter([("n", Arc::new(numbers) as ArrayRef)]).unwrap();
        let path = scene.files().join(format!("part-{file}.parquet"));
        let file = std::fs::File::create(path).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }
    let glob = format!("{}/*.parquet", scene.files().display());
    let all = "| 21000 | 21000 | 220489500 |";
    for partitions in [2, 3, 8] {
        scene.done(&format!("SET target_partitions = {partitions}")).await;
        let sql = format!(
            "SELECT count(*) AS c, count(DISTINCT n) AS d, sum(n) AS s FROM read_parquet('{glob}')"
        );
        let answer = scene.answer(&sql).await;
        assert!(answer.contains(all), "{partitions} partitions: {answer}");
    }
    scene.done("CREATE TABLE t (n BIGINT) DISTKEY(n)").await;
    scene.done(&format!("COPY t FROM '{glob}' FORMAT PARQUET")).await;
    let copied =
        scene.answer("SELECT count(*) AS c, count(DISTINCT n) AS d, sum(n) AS s FROM t").await;
    assert!(copied.contains(all), "{copied}");
    scene.cluster.stop().await;
}

/// T14: version 2 of Parquet's writer falls back from dictionaries to encodings that decode slowly.
#[tokio::test(flavor = "multi_thread")]
async fn files_are_of_version_1() {
    let mut scene = Scene::start(1).await;
    for (name, rows) in [("wide", 150_000), ("packed", 100)] {
        scene
            .done(&format!(
                "CREATE TABLE {name} DISTSTYLE ALL AS SELECT value AS n, 'text ' || value AS s, \
                 value / 7.0 AS f FROM generate_series(1, {rows})"
            ))
            .await;
    }
    let mut files = Vec::new();
    parquet_files(&scene.dir.path().join("data"), &mut files);
    assert!(files.len() >= 4, "three columns and a pack: {files:?}");
    for path in files {
        let reader = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
        assert_eq!(reader.metadata().file_metadata().version(), 1, "{}", path.display());
    }
    scene.cluster.stop().await;
}

fn parquet_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            parquet_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            found.push(path);
        }
    }
}

/// The version of a package in Cargo.lock, as numbers.
fn locked(name: &str) -> Option<Vec<u64>> {
    let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock");
    let text = std::fs::read_to_string(lock).unwrap();
    let entry = text.split("[[package]]").find(|e| e.contains(&format!("name = \"{name}\"\n")))?;
    let version = entry.lines().find_map(|line| line.strip_prefix("version = \""))?;
    Some(version.trim_end_matches('"').split('.').map(|part| part.parse().unwrap()).collect())
}

/// T1: DataFusion before 55.2 gives other rows. T13: a file that is mapped and cut ends the process.
#[test]
fn datafusion_is_one_that_gives_the_first_rows_and_no_file_is_mapped() {
    assert!(locked("datafusion").unwrap() >= vec![55, 2, 0]);
    for mapping in ["memmap", "memmap2", "mmap-rs"] {
        assert_eq!(locked(mapping), None, "{mapping} maps files");
    }
}
