//! Statements whose plan cannot be cut: `sys.queries` says so of those that change rows as it does
//! of queries, and they do what they would do.

use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use basalt_sql_tests::slt::text;

/// The numbers 2, 4, 8, ... 64. Every round reads `edges` again, and an exchange can be read once.
const RECURSIVE: &str = "WITH RECURSIVE r(n) AS (SELECT b FROM edges WHERE a = 1 UNION ALL \
                         SELECT e.b FROM r JOIN edges AS e ON e.a = r.n WHERE e.b > 0) SELECT n FROM r";

struct Scene {
    _dir: tempfile::TempDir,
    cluster: EmbeddedCluster,
    client: Client,
}

impl Scene {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cluster = EmbeddedCluster::start(&EmbeddedConfig::new(dir.path(), 3)).await.unwrap();
        let mut client = Client::connect(&cluster.url()).await.unwrap();
        // 1 leads to 2, 4, 8, ... 64, among rows enough for several tasks.
        let setup = "CREATE TABLE edges (a BIGINT, b BIGINT) DISTKEY(a);
            INSERT INTO edges SELECT value, CASE WHEN value <= 32 THEN 2 * value END
            FROM generate_series(1, 20000);
            CREATE TABLE numbers (n BIGINT, v INTEGER) DISTKEY(n);
            INSERT INTO numbers SELECT value, 0 FROM generate_series(1, 1000);";
        client.execute_update(setup).await.unwrap();
        Self { _dir: dir, cluster, client }
    }

    async fn rows(&mut self, sql: &str) -> Vec<String> {
        let (_, batches) = self.client.query_all(sql).await.unwrap();
        let mut rows = Vec::new();
        batches.iter().for_each(|batch| text::append_rows(batch, &mut rows).unwrap());
        rows.iter().map(|row| row.join("|")).collect()
    }

    /// Runs a statement, and tells how `sys.queries` shows it.
    async fn check(&mut self, sql: &str, rows: u64, as_one_task: bool) {
        let changed = self.client.execute_update(sql).await;
        assert_eq!(changed.unwrap_or_else(|error| panic!("{sql}: {error}")), rows, "{sql}");
        let text = sql.replace('\'', "''");
        let shown = format!(
            "SELECT rows, coalesce(fallback LIKE '%RecursiveQueryExec%', false) FROM sys.queries \
             WHERE text = '{text}'"
        );
        assert_eq!(self.rows(&shown).await, [format!("{rows}|{as_one_task}")], "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_run_as_one_task_are_shown_as_such() {
    let mut scene = Scene::start().await;
    let chosen = format!("n IN ({RECURSIVE})");
    scene.check(&format!("UPDATE numbers SET v = 1 WHERE {chosen}"), 6, true).await;
    let value =
        format!("UPDATE numbers SET v = (SELECT count(*) FROM ({RECURSIVE}) AS x) WHERE n = 7");
    scene.check(&value, 1, true).await;
    scene.check(&format!("DELETE FROM numbers WHERE {chosen} AND n > 8"), 3, true).await;
    scene.check(&format!("INSERT INTO numbers SELECT n, 2 FROM ({RECURSIVE}) AS x"), 6, true).await;
    scene.check(&format!("CREATE TABLE reached AS {RECURSIVE}"), 6, true).await;
    scene.check("UPDATE numbers SET v = 3 WHERE n = 999", 1, false).await;
    scene.check("DELETE FROM numbers WHERE n = 1000", 1, false).await;
    let left = scene.rows("SELECT v, count(*), sum(n) FROM numbers GROUP BY v ORDER BY v").await;
    let sum_of_zeros = 500_500 - (2 + 4 + 8 + 16 + 32 + 64) - 7 - 999 - 1_000;
    let zeros = format!("0|{}|{sum_of_zeros}", 1_000 - 6 - 3);
    assert_eq!(left, [zeros.as_str(), "1|3|14", "2|6|126", "3|1|999", "6|1|7"]);
    scene.cluster.stop().await;
}
