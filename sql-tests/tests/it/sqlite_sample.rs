//! A sample of SQLite's own logic tests (`sql-tests/sqlite`): three workers answer whatever plain
//! DataFusion answers as SQLite does, and what DataFusion does not is on a list that was generated.

use std::path::Path;

use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use basalt_sql_tests::slt::{Place, SltOptions, find_files, known, run_at};

#[tokio::test(flavor = "multi_thread")]
async fn three_workers_answer_what_datafusion_answers_as_sqlite_does() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = find_files(&[here.join("sqlite").to_string_lossy().into_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cluster = EmbeddedCluster::start(&EmbeddedConfig::new(dir.path(), 3)).await.unwrap();
    let (place, _) = Place::server(&cluster.url()).await.unwrap();
    // Tables of ten rows in several tasks.
    let place = place.with_settings(vec!["SET one_task_rows = 0".to_owned()]);
    let options = SltOptions { marks: true, ..SltOptions::default() };
    let mut reports = Vec::new();
    for file in files {
        let report = run_at(&file, &place, Some(&Place::DataFusion), &options).await;
        assert_eq!(report.failed, 0, "{}: {:#?}", file.display(), report.failures);
        let oracle = report.oracle.as_ref().unwrap();
        // Where neither side does what the file says, both do the same.
        assert_eq!(oracle.different, 0, "{}: {:#?}", file.display(), oracle.differences);
        reports.push(report);
    }
    let records: u64 = reports.iter().map(|report| report.records).sum();
    assert!(records > 2_400, "{records} records");
    let list = std::fs::read_to_string(here.join("known/sqlite-sample.tsv")).unwrap();
    let command = "basalt slt sql-tests/sqlite --oracle datafusion --write-known sql-tests/known/sqlite-sample.tsv";
    assert_eq!(
        known::write(&reports),
        list,
        "DataFusion fails at other records than it did: {command}"
    );
    cluster.stop().await;
}
