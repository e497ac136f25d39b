//! Groups are made before the joins that only name them, where that is estimated to pay and nothing can fail.

use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use basalt_sql_tests::explain::plan_text;
use tempfile::TempDir;

struct Scene {
    _dir: TempDir,
    cluster: EmbeddedCluster,
    client: Client,
}

impl Scene {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cluster = EmbeddedCluster::start(&EmbeddedConfig::new(dir.path(), 3)).await.unwrap();
        let mut client = Client::connect(&cluster.url()).await.unwrap();
        for sql in [
            "CREATE TABLE sales (item BIGINT, shop BIGINT, amount BIGINT) DISTKEY(item)",
            "INSERT INTO sales SELECT value % 500, value % 20, value % 9 FROM generate_series(1, 400000)",
            "CREATE TABLE items (id BIGINT, name VARCHAR, kind VARCHAR) DISTKEY(id)",
            "INSERT INTO items SELECT value, 'item ' || value, 'kind ' || (value % 3) FROM generate_series(0, 499)",
            "CREATE TABLE shops (id BIGINT, town VARCHAR) DISTSTYLE ALL",
            "INSERT INTO shops SELECT value, 'town ' || value FROM generate_series(0, 19)",
            "ANALYZE",
        ] {
            client.execute_update(sql).await.unwrap();
        }
        Self { _dir: dir, cluster, client }
    }

    async fn set(&mut self, value: &str) {
        let sql = format!("SET eager_aggregation = {value}");
        self.client.execute_update(&sql).await.unwrap();
    }

    /// Whether a query makes groups early.
    async fn is_early(&mut self, sql: &str) -> bool {
        let plan = plan_text(&mut self.client, &format!("EXPLAIN {sql}")).await.unwrap();
        plan.contains("early_0_value_0_1_0")
    }
}

const NAMES: &str =
    "SELECT name, kind, sum(amount) FROM sales JOIN items ON item = id GROUP BY name, kind";

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_summed_up_before_they_get_names_where_that_pays() {
    let mut scene = Scene::start().await;
    assert!(scene.is_early(NAMES).await);
    let few = format!("{NAMES} HAVING sum(amount) > 1")
        .replace("FROM sales", "FROM (SELECT * FROM sales WHERE shop = 3) s");
    assert!(!scene.is_early(&few).await, "it has 20,000 rows");
    let selective = NAMES.replace("GROUP", "WHERE name < 'item 2' GROUP");
    assert!(!scene.is_early(&selective).await, "most of what is summed up early would be left out");
    scene.set("always").await;
    assert!(scene.is_early(&few).await && scene.is_early(&selective).await);
    scene.set("off").await;
    assert!(!scene.is_early(NAMES).await);
    scene.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_fail_or_has_no_two_steps_is_computed_of_joined_rows() {
    let mut scene = Scene::start().await;
    scene.set("always").await;
    let of = |value: &str| {
        format!("SELECT name, {value} FROM sales JOIN items ON item = id GROUP BY name")
    };
    for value in ["sum(amount)", "avg(shop)", "count(*)", "max(amount)", "min(shop)"] {
        assert!(scene.is_early(&of(value)).await, "{value}");
    }
    for value in [
        "sum(100 / amount)",
        "sum(amount * shop)",
        "count(DISTINCT amount)",
        "sum(amount) FILTER (WHERE shop > 3)",
        "stddev(amount)",
        "sum(CAST(amount AS DOUBLE))",
        "sum(amount + length(name))",
    ] {
        assert!(!scene.is_early(&of(value)).await, "{value}");
    }
    // Towns could be joined late, and leave out the shop of which this fails.
    let fails = "SELECT town, max(amount), min(kind) FROM sales JOIN items i ON item = i.id AND 1 / (shop - i.id) < 2 \
                 JOIN shops s ON shop = s.id WHERE town > 'town 6' GROUP BY town";
    assert!(!scene.is_early(fails).await);
    assert!(scene.is_early(&fails.replace("1 / (shop - i.id) < 2", "shop < i.id")).await);
    scene.cluster.stop().await;
}
