//! Runs sqllogictest files against anything that answers SQL.
//!
//! ```text
//! file --source--> records --side--> Engine --Output--> text --check--> Verdict --run--> FileReport
//!         |dialect                     |a second side, the oracle --agree-->|
//! ```
//!
//! [`run_file`] is generic over [`Engine`], so that one file runs against a cluster through
//! Flight SQL ([`FlightEngine`]) and against plain in-process DataFusion ([`DataFusionEngine`]),
//! with one formatting of values ([`text`]). [`run_at`] runs a file at a [`Place`], in a schema of
//! its own and in lockstep with an oracle. Every statement and query of a file counts as one
//! record; a failing one does not stop the file, so that a report shows all of them.
//!
//! Invariant: a record is passed, failed or skipped, never dropped: the three numbers add up to
//! the statements and queries of the file (up to a `halt`, a lost connection or `fail_fast`,
//! after which the rest counts as skipped). Two things can fail beside records: reading a file,
//! and making and dropping its schema.
//!
//! DataFusion's own files have records that need more than SQL: each has a [`Need`], and these are
//! counted apart ([`Tallies`]) and never fail.

mod agree;
mod check;
mod class;
mod complete;
mod conditions;
mod datafusion;
mod datafusion_engine;
mod dialect;
mod digest;
mod duckdb;
mod duckdb_engine;
mod engine;
mod files;
mod flight_engine;
pub mod known;
mod letters;
mod needs;
mod place;
mod report;
mod run;
mod schema;
mod side;
mod sketch;
mod source;
mod tally;
pub mod text;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use agree::is_ordered;
pub use class::Class;
pub use datafusion_engine::DataFusionEngine;
pub use dialect::Dialect;
pub use duckdb_engine::DuckDbEngine;
pub use engine::{BoxEngine, Engine, EngineError, Output};
pub use files::{FilesError, find_files};
pub use flight_engine::FlightEngine;
pub use known::Known;
pub use needs::Need;
pub use place::{Place, run_at};
pub use report::{Failure, FileReport, Mark, OracleReport, Slow};
pub use run::run_with;
pub use schema::Schemas;
pub use side::Connect;
pub use tally::{Answers, Tallies, Tally};

/// How to run files.
#[derive(Debug, Clone, Default)]
pub struct SltOptions {
    /// Stop a file at its first failure.
    pub fail_fast: bool,
    /// Labels for `skipif` and `onlyif`; the engine's own name if there are none.
    pub labels: Vec<String>,
    /// The same for the oracle.
    pub oracle_labels: Vec<String>,
    /// The dialect of all files; found out for each if there is none.
    pub dialect: Option<Dialect>,
    /// Records that are known to fail: they pass, and fail once they do what the file says.
    pub known: Option<Arc<Known>>,
    /// Keep what came of every record, for an allow-list.
    pub marks: bool,
    /// Rewrite expectations that are not met.
    pub complete: bool,
    /// Keep so many of the slowest records.
    pub slowest: usize,
    /// Set by whoever wants the files to end early.
    pub stop: Arc<AtomicBool>,
}

/// Runs one file; `connect` makes one engine per connection that the file names (usually one).
///
/// Failures, including a file that cannot be read or parsed and an engine that cannot be
/// reached, are in the report.
pub async fn run_file<E, F, Fut>(path: &Path, mut connect: F, options: &SltOptions) -> FileReport
where
    E: Engine + 'static,
    F: FnMut() -> Fut + Send,
    Fut: Future<Output = Result<E, EngineError>> + Send,
{
    let connect: Connect<'_> = Box::new(move || {
        let connecting = connect();
        Box::pin(async move { connecting.await.map(|engine| Box::new(engine) as BoxEngine) })
    });
    run_with(path, connect, None, options).await
}
