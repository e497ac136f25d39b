//! A small cluster to throw statements at.
//!
//! Invariant: after every statement the cluster still answers, and its tables are what they were.

use std::path::PathBuf;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use basalt_coordinator::statements::registry::RunState;
use basalt_engine::files::AllowedRoots;
use basalt_sql_tests::client::{Answer, Client, ClientError, ServerError};
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use tempfile::TempDir;

/// Turns a hang into a failure. The slowest statement here takes a few seconds.
const DEADLINE: Duration = Duration::from_secs(120);

/// Memory for queries of all roles together: little, so that what is too much is soon too much.
const QUERY_MEMORY_BYTES: usize = 192 << 20;

/// What the whole process may ever take: all tests of this binary, the cluster's buffers and one
/// statement of the longest text. A statement that escapes its limits takes tens of gigabytes.
const PROCESS_BYTES_MAX: u64 = 5 << 30;

/// A cluster of three workers with a table `small` of three rows, and a client of it.
pub(super) struct Arena {
    dir: TempDir,
    cluster: EmbeddedCluster,
    pub(super) client: Client,
    /// Statements whose client went away before it asked for their rows: they end by their age.
    pub(super) never_fetched: Vec<String>,
}

impl Arena {
    pub(super) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let readable = dir.path().join("readable");
        std::fs::create_dir(&readable).unwrap();
        let config = EmbeddedConfig {
            allowed_roots: AllowedRoots::new([&readable]).unwrap(),
            memory_bytes: QUERY_MEMORY_BYTES,
            spill_bytes_max: 32 << 20,
            ..EmbeddedConfig::new(dir.path().join("data"), 3)
        };
        let cluster = EmbeddedCluster::start(&config).await.unwrap();
        let client = Client::connect(&cluster.url()).await.unwrap();
        let mut arena = Self { dir, cluster, client, never_fetched: Vec::new() };
        arena.done("CREATE TABLE small (n INTEGER, s VARCHAR)").await;
        arena.done("INSERT INTO small VALUES (1, 'a'), (2, 'b'), (3, NULL)").await;
        arena
    }

    /// The folder that SQL may read.
    pub(super) fn readable(&self) -> PathBuf {
        self.dir.path().join("readable")
    }

    /// The folder with all data of the cluster.
    pub(super) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(super) fn cluster(&self) -> &EmbeddedCluster {
        &self.cluster
    }

    /// Runs a statement to its end; rows come as text, `done` stands for no rows.
    pub(super) async fn run(&mut self, sql: &str) -> Result<String, ClientError> {
        let mut client = self.client.clone();
        within(sql, async { shown(client.run(sql).await?).await }).await
    }

    /// The same with a prepared statement and a row of parameters.
    pub(super) async fn run_prepared(
        &mut self,
        sql: &str,
        parameters: RecordBatch,
    ) -> Result<String, ClientError> {
        let mut client = self.client.clone();
        let run = async {
            let mut prepared = client.prepare(sql).await?;
            shown(prepared.run(Some(parameters)).await?).await
        };
        within(sql, run).await
    }

    /// A statement that must work and returns no rows.
    pub(super) async fn done(&mut self, sql: &str) {
        self.answers(sql, "done").await;
    }

    /// A statement that must work, and its rows.
    pub(super) async fn answers(&mut self, sql: &str, expected: &str) {
        match self.run(sql).await {
            Ok(rows) => assert_eq!(rows, expected, "{}", start_of(sql)),
            Err(error) => panic!("{}: {error}", start_of(sql)),
        }
    }

    /// A statement that must end in this error; the next one works.
    pub(super) async fn refuses(&mut self, sql: &str, code: &str, part: &str) -> ServerError {
        let error = match self.run(sql).await {
            Ok(rows) => panic!("{}: not refused: {:.200}", start_of(sql), rows),
            Err(error) => error,
        };
        let start = start_of(sql);
        let Some(server) = error.server() else { panic!("{start}: {error:?}") };
        assert_eq!(server.code, code, "{start}: {server}");
        assert!(server.message.contains(part), "{start}: {server}");
        assert!(server.sqlstate.is_some(), "{start}: {server:?}");
        let told = server.hint.is_some() || server.message.contains('^');
        assert!(told, "neither place nor remedy: {start}: {server}");
        let server = server.clone();
        self.is_alive(sql).await;
        server
    }

    /// A statement that must end in an error of this kind; the next one works.
    pub(super) async fn refuses_with(&mut self, sql: &str, code: &str) {
        self.refuses_with_one_of(sql, &[code]).await;
    }

    /// The same where several kinds would do.
    pub(super) async fn refuses_with_one_of(&mut self, sql: &str, codes: &[&str]) {
        match self.run(sql).await {
            Ok(rows) => panic!("{}: not refused: {:.200}", start_of(sql), rows),
            Err(error) => self.is_refusal(&error, codes, sql).await,
        }
    }

    /// An error must be of one of these kinds, with its SQLSTATE; the next statement works.
    pub(super) async fn is_refusal(&mut self, error: &ClientError, codes: &[&str], of: &str) {
        let start = start_of(of);
        let code = error.code().unwrap_or_default();
        assert!(codes.contains(&code), "{start}: {error:?}");
        assert!(error.sqlstate().is_some(), "{start}: {error:?}");
        self.is_alive(of).await;
    }

    /// A statement that may work or not; an error must be one that its author can act on.
    pub(super) async fn survives(&mut self, sql: &str) {
        if let Err(error) = self.run(sql).await {
            let code = error.code().unwrap_or_default().to_owned();
            let known = error.sqlstate().is_some() && code != "INTERNAL";
            assert!(known, "{}: {code}: {error}", start_of(sql));
        }
        self.is_alive(sql).await;
    }

    /// The next statement on the same connection works.
    pub(super) async fn is_alive(&mut self, after: &str) {
        let count = self.run("SELECT count(*) FROM small").await;
        assert_eq!(count.ok().as_deref(), Some("3"), "after {}", start_of(after));
    }

    /// Ends a test: nothing was created or left running, and memory stayed within bounds.
    pub(super) async fn stop(mut self) {
        self.answers("SELECT schema_name, table_name FROM sys.tables", "public|small").await;
        let registry = self.cluster.coordinator().statements().registry();
        let is_awaited = |text: &String| !self.never_fetched.contains(text);
        let running = || {
            let mut runs = registry.list().into_iter();
            runs.any(|run| run.state == RunState::Running && is_awaited(&run.text))
        };
        eventually("statements that nobody waits for have ended", || !running()).await;
        let peak = peak_bytes();
        assert!(peak < PROCESS_BYTES_MAX, "the process took {peak} bytes");
        self.cluster.stop().await;
    }
}

async fn within(
    sql: &str,
    run: impl Future<Output = Result<String, ClientError>>,
) -> Result<String, ClientError> {
    match tokio::time::timeout(DEADLINE, run).await {
        Ok(result) => result,
        Err(_) => panic!("no end within {DEADLINE:?}: {}", start_of(sql)),
    }
}

/// All rows of an answer as text.
async fn shown(answer: Answer) -> Result<String, ClientError> {
    let mut rows = match answer {
        Answer::Done { .. } => return Ok("done".to_owned()),
        Answer::Rows(rows) => rows,
    };
    let options = FormatOptions::new().with_null("NULL");
    let mut lines = Vec::new();
    while let Some(batch) = rows.next_batch().await? {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options).unwrap())
            .collect();
        lines.extend((0..batch.num_rows()).map(|row| {
            let values = columns.iter().map(|column| column.value(row).to_string());
            values.collect::<Vec<_>>().join("|")
        }));
    }
    Ok(lines.join("\n"))
}

/// Waits for a state that must come.
pub(super) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, wait).await.is_ok(), "{what}: not within {DEADLINE:?}");
}

/// The most memory that this process ever had.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// What messages show of a statement of megabytes.
fn start_of(sql: &str) -> String {
    let start: String = sql.chars().take(100).collect();
    format!("{start:?} ({} bytes)", sql.len())
}
