//! A mixed load on real processes: answers stay right, and memory, descriptors, threads and files stay flat.
//!
//! The short one is part of the test command. The long one by name, in minutes:
//! ```console
//! $ BASALT_SOAK_MINUTES=10 cargo test --workspace --locked -- --ignored --nocapture soak_at_length
//! ```
//! `BASALT_SOAK_SEED` (1) chooses another run, `BASALT_SOAK_REPORT` a file for the table.

use std::time::Duration;

use basalt_sql_tests::faults::runner::from_environment;
use basalt_sql_tests::soak::gauges::Kind;
use basalt_sql_tests::soak::report::Report;
use basalt_sql_tests::soak::{SoakConfig, run};

const WORKERS: usize = 3;

/// What no process takes, where queries have 128 MiB: beside what the pool counts there is the debug build, and what DataFusion's
/// operators do not count (`results/soak.txt`).
const RSS_MIB_MAX: f64 = 2_048.0;

#[expect(clippy::print_stdout, reason = "the table of a run, for who asks for it")]
async fn soak(lasts: Duration, sample_every: Duration) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let seed = from_environment("BASALT_SOAK_SEED", 1).unwrap();
    let binary = env!("CARGO_BIN_EXE_basalt").into();
    let config = SoakConfig { binary, workers: WORKERS, lasts, sample_every, seed };
    let report = run(&config, dir.path()).await.unwrap();
    println!("{report}");
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mixed_load_has_right_answers_and_leaves_nothing_behind() {
    let report = soak(Duration::from_secs(20), Duration::from_millis(250)).await;
    let counts = report.counts();
    assert!(counts.written > 20 && counts.answered > 20, "{counts:?}");
    assert!(counts.refused > 0 && counts.cut_off > 0, "{counts:?}");
    // Memory takes minutes until it has had its peaks: here it only has an end.
    let growing = report.growing_beside(&[Kind::RssMib, Kind::CachedMib]);
    assert_eq!(growing, Vec::<String>::new());
    assert!(report.most(Kind::RssMib) < RSS_MIB_MAX, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; named by the README"]
async fn soak_at_length() {
    let minutes = from_environment("BASALT_SOAK_MINUTES", 10).unwrap();
    let report = soak(Duration::from_secs(60 * minutes), Duration::from_secs(1)).await;
    if let Some(path) = std::env::var_os("BASALT_SOAK_REPORT") {
        std::fs::write(path, report.to_string()).unwrap();
    }
    assert_eq!(report.growing(), Vec::<String>::new());
}
