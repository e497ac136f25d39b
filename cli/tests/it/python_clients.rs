//! The unmodified Python drivers (ADBC, pyarrow.flight, pandas, polars) and `basalt load` against
//! three workers.

use std::path::Path;

use basalt_engine::files::AllowedRoots;
use basalt_sql_tests::clients::run_client_tests;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};

#[tokio::test(flavor = "multi_thread")]
async fn the_python_drivers_work() {
    let dir = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig {
        allowed_roots: AllowedRoots::new([std::env::temp_dir()]).unwrap(),
        ..EmbeddedConfig::new(dir.path(), 3)
    };
    let cluster = EmbeddedCluster::start(&config).await.unwrap();
    let url = cluster.url();
    let tests = tokio::task::spawn_blocking(move || {
        run_client_tests(&url, Path::new(env!("CARGO_BIN_EXE_basalt")))
    });
    if let Err(failure) = tests.await.unwrap() {
        panic!("{failure}");
    }
    cluster.stop().await;
}
