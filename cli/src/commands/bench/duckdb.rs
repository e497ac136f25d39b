//! DuckDB on the same files in the same run, through the Python package that users have.
//!
//! A process of its own runs `duckdb_peer.py`: DuckDB's memory and threads are not ours. It ends
//! with its standard input, and is killed when the measurement is dropped.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, bail};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::workload::{Query, Workload, statements};

const SCRIPT: &str = include_str!("duckdb_peer.py");

/// A running DuckDB; its database lives as long as this.
pub(super) struct DuckDb {
    version: String,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    _process: Child,
    _database: TempDir,
}

/// What the script says of one request.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Answer {
    Done { ms: f64, rows: u64 },
    Failed { error: String },
}

#[derive(Debug, Deserialize)]
struct Hello {
    version: String,
}

impl DuckDb {
    /// Starts `python`, which has the package `duckdb`, over the files in `data`. The database is
    /// made below `home`, on the disk that the cluster uses.
    pub(super) async fn start(
        python: &Path,
        workload: &Workload,
        data: &Path,
        home: &Path,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(home)
            .with_context(|| format!("folder {} cannot be made", home.display()))?;
        let database = tempfile::Builder::new().prefix("duckdb-").tempdir_in(home)?;
        let mut process = Command::new(python)
            .args(["-c", SCRIPT])
            .arg(std::fs::canonicalize(data)?)
            .arg(database.path())
            .args(workload.tables.iter().map(|table| table.name))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", python.display()))?;
        let stdin = process.stdin.take().context("standard input was piped")?;
        let stdout = process.stdout.take().context("standard output was piped")?;
        let mut stdout = BufReader::new(stdout).lines();
        let hello = stdout.next_line().await?.with_context(|| {
            format!("{} has no DuckDB: `pip install duckdb` into it", python.display())
        })?;
        let Hello { version } = serde_json::from_str(&hello)?;
        Ok(Self { version, stdin, stdout, _process: process, _database: database })
    }

    /// The version of the package.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Loads all tables into a new database. Returns the milliseconds.
    pub(super) async fn load(&mut self) -> anyhow::Result<f64> {
        Ok(self.ask("\"load\"".to_owned()).await?.0)
    }

    /// Runs a query to its last row. Returns the milliseconds and the rows.
    pub(super) async fn run(&mut self, query: &Query) -> anyhow::Result<(f64, u64)> {
        // DuckDB's name of the function.
        let sql = query.sql.replace("to_timestamp_seconds(", "to_timestamp(");
        self.run_statements(&statements(&sql)).await
    }

    /// Runs statements to the last row. Returns the milliseconds and the rows.
    pub(super) async fn run_statements(
        &mut self,
        statements: &[String],
    ) -> anyhow::Result<(f64, u64)> {
        self.ask(serde_json::to_string(statements)?).await
    }

    async fn ask(&mut self, request: String) -> anyhow::Result<(f64, u64)> {
        self.stdin.write_all(format!("{request}\n").as_bytes()).await?;
        let line = self.stdout.next_line().await?.context("the DuckDB process ended")?;
        match serde_json::from_str(&line)? {
            Answer::Done { ms, rows } => Ok((ms, rows)),
            Answer::Failed { error } => bail!("DuckDB: {error}"),
        }
    }
}
