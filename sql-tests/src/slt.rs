//! Runs sqllogictest files against anything that answers SQL.
//!
//! ```text
//! file.slt --parse--> records --run on--> Engine --Output--> text --compare--> FileReport
//! ```
//!
//! [`run_file`] is generic over [`Engine`], so that one file runs against a cluster through
//! Flight SQL ([`FlightEngine`]) and against plain in-process DataFusion ([`DataFusionEngine`]),
//! with one formatting of values ([`text`]). Every statement and query of a file counts as one
//! record; a failing one does not stop the file, so that a report shows all of them.
//!
//! Invariant: a record is passed, failed or skipped, never dropped: the three numbers add up to
//! the statements and queries of the file (up to a `halt`, a lost connection or `fail_fast`,
//! after which the rest counts as skipped).

mod datafusion_engine;
mod engine;
mod files;
mod flight_engine;
mod record;
pub mod text;

use std::path::{Path, PathBuf};

use sqllogictest::{Record, Runner};

pub use datafusion_engine::DataFusionEngine;
pub use engine::{Engine, EngineError, Output};
pub use files::{FilesError, find_files};
pub use flight_engine::FlightEngine;

use engine::Adapter;

/// How to run files.
#[derive(Debug, Clone, Default)]
pub struct SltOptions {
    /// Stop a file at its first failure.
    pub fail_fast: bool,
    /// More labels for `skipif` and `onlyif`, beside the engine's own name.
    pub labels: Vec<String>,
}

/// One record that did not do what the file says.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The file, which may be one that was included.
    pub file: String,
    /// The line of the record, from 1.
    pub line: u32,
    /// What was expected and what came, as a diff where it is about rows.
    pub text: String,
}

/// What came of one file.
#[derive(Debug, Clone)]
pub struct FileReport {
    /// The file.
    pub path: PathBuf,
    /// Records that did what the file says.
    pub passed: u64,
    /// Records left out by `skipif`, `onlyif`, or because the file was stopped.
    pub skipped: u64,
    /// Records that did something else, in order.
    pub failures: Vec<Failure>,
}

impl FileReport {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), passed: 0, skipped: 0, failures: Vec::new() }
    }
}

/// Runs one file; `connect` makes one engine per connection that the file names (usually one).
///
/// Failures, including a file that cannot be read or parsed and an engine that cannot be
/// reached, are in the report.
pub async fn run_file<E, F, Fut>(path: &Path, connect: F, options: &SltOptions) -> FileReport
where
    E: Engine,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<E, EngineError>>,
{
    let mut report = FileReport::new(path);
    let records = match record::parse(path) {
        Ok(records) => records,
        Err(failure) => {
            report.failures.push(failure);
            return report;
        }
    };

    let mut connect = connect;
    let mut runner = Runner::new(|| {
        let connecting = connect();
        async move { connecting.await.map(Adapter) }
    });
    runner.with_column_validator(engine::columns_match);
    for label in &options.labels {
        runner.add_label(label);
    }

    let mut stopped = false;
    for record in records {
        let counts = record::counts(&record);
        if stopped || matches!(record, Record::Halt { .. }) {
            stopped = true;
            report.skipped += u64::from(counts);
            continue;
        }
        match runner.run_async(record).await {
            Ok(output) if counts => {
                if record::was_skipped(&output) {
                    report.skipped += 1;
                } else {
                    report.passed += 1;
                }
            }
            Ok(_) => {}
            Err(error) => {
                stopped = options.fail_fast || record::lost_connection(&error);
                report.failures.push(record::failure(&error));
            }
        }
    }
    runner.shutdown_async().await;
    report
}
