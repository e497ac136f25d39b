//! The Python that runs DuckDB: requests are lines of JSON on its standard input, answers are Arrow IPC
//! streams on its standard output.
//!
//! One task owns the process and reads each answer to its end, whether anybody still waits for it or
//! not, so that answers never go to other requests. The process is killed when the last
//! [`DuckDb`] is dropped.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use arrow::ipc::reader::StreamReader;
use async_trait::async_trait;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot};

use super::spelling;
use crate::fuzz::answers::{Answer, Failure};
use crate::fuzz::data::Table;
use crate::fuzz::databases::Database;

const SCRIPT: &str = include_str!("peer.py");
/// How long a query may take before DuckDB is told to stop: generated queries take milliseconds.
const QUERY_SECONDS_MAX: u64 = 60;
/// How long the process may take to say anything: it is hung, and killed, after that.
const SILENCE_MAX: Duration = Duration::from_secs(QUERY_SECONDS_MAX + 30);
/// Bytes of an answer; generated queries have some ten thousand rows.
const ANSWER_BYTES_MAX: u64 = 1 << 30;
/// Requests that wait for the process.
const QUEUE: usize = 64;

/// Why there is no DuckDB.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program is not there, or not executable.
    #[error("{python} cannot be started: name a Python, such as /usr/bin/python3")]
    NoPython {
        /// The program.
        python: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It has no package `duckdb` or `pyarrow`, or is no Python.
    #[error("{python} has no DuckDB ({reason}): `{python} -m pip install duckdb pyarrow`")]
    NoPackage {
        /// The program.
        python: PathBuf,
        /// What it said.
        reason: String,
    },
}

/// A DuckDB with a database in memory.
pub struct DuckDb {
    version: String,
    requests: mpsc::Sender<Request>,
}

struct Request {
    sql: String,
    answer: oneshot::Sender<Result<Answer, Failure>>,
}

impl DuckDb {
    /// Starts `python`, which has the packages `duckdb` and `pyarrow`.
    ///
    /// # Errors
    /// A program that is missing, or lacks a package.
    pub async fn start(python: &Path) -> Result<Self, StartError> {
        let mut command = Command::new(python);
        command.args(["-c", SCRIPT]);
        Self::of(command, python, SILENCE_MAX).await
    }

    async fn of(
        mut command: Command,
        python: &Path,
        silence: Duration,
    ) -> Result<Self, StartError> {
        let no_python = |source| StartError::NoPython { python: python.to_owned(), source };
        let no_package = |reason| StartError::NoPackage { python: python.to_owned(), reason };
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(no_python)?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(no_package("it has no pipes".to_owned()));
        };
        let mut peer = Peer { process, input, output: BufReader::new(output), silence };
        let hello = match tokio::time::timeout(SILENCE_MAX, peer.line()).await {
            Ok(hello) => hello.map_err(|failure| no_package(failure.message))?,
            Err(_) => return Err(no_package("it says nothing".to_owned())),
        };
        let Some(version) = hello["version"].as_str() else {
            return Err(no_package(hello["error"].as_str().unwrap_or("no version").to_owned()));
        };
        let (requests, queue) = mpsc::channel(QUEUE);
        tokio::spawn(serve(peer, queue));
        Ok(Self { version: version.to_owned(), requests })
    }

    /// The version of the package.
    pub fn version(&self) -> &str {
        &self.version
    }

    async fn ask(&self, sql: &str) -> Result<Answer, Failure> {
        let (answer, answered) = oneshot::channel();
        let request = Request { sql: sql.to_owned(), answer };
        let ended = || Failure::of_lost("the process of DuckDB ended");
        self.requests.send(request).await.map_err(|_| ended())?;
        answered.await.unwrap_or_else(|_| Err(ended()))
    }
}

#[async_trait]
impl Database for DuckDb {
    async fn query(&self, sql: &str) -> Result<Answer, Failure> {
        self.ask(sql).await
    }

    async fn execute(&self, sql: &str) -> Result<(), Failure> {
        self.ask(sql).await.map(drop)
    }

    fn is_ours(&self) -> bool {
        false
    }

    async fn load(&self, table: &Table) -> Result<(), Failure> {
        for statement in spelling::statements(table) {
            self.execute(&statement).await?;
        }
        Ok(())
    }
}

/// Answers requests in turn until the last sender is gone, or the process is.
async fn serve(mut peer: Peer, mut queue: mpsc::Receiver<Request>) {
    while let Some(Request { sql, answer }) = queue.recv().await {
        let said = tokio::time::timeout(peer.silence, peer.ask(&sql)).await.unwrap_or_else(|_| {
            Err(Failure::of_lost("DuckDB says nothing for too long, and is ended"))
        });
        let is_lost = said.as_ref().is_err_and(Failure::is_lost);
        // Whoever asked may be gone, which is no reason to stop.
        answer.send(said).ok();
        if is_lost {
            return;
        }
    }
}

/// The process and its streams.
struct Peer {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    silence: Duration,
}

impl Peer {
    async fn ask(&mut self, sql: &str) -> Result<Answer, Failure> {
        let request = serde_json::json!({ "sql": sql, "seconds": QUERY_SECONDS_MAX });
        if let Err(error) = self.input.write_all(format!("{request}\n").as_bytes()).await {
            return Err(self.ended(&error.to_string()));
        }
        let head = self.line().await?;
        let Some(bytes) = head["bytes"].as_u64() else { return Err(refusal(&head)) };
        if bytes > ANSWER_BYTES_MAX {
            return Err(Failure::of_lost(format!("an answer of {bytes} bytes from DuckDB")));
        }
        let mut stream = vec![0; usize::try_from(bytes).unwrap_or_default()];
        if let Err(error) = self.output.read_exact(&mut stream).await {
            return Err(self.ended(&error.to_string()));
        }
        let reader = StreamReader::try_new(Cursor::new(stream), None)?;
        let schema = reader.schema();
        let batches = reader.collect::<Result<Vec<_>, _>>()?;
        Answer::new(&schema, &batches)
    }

    async fn line(&mut self) -> Result<Value, Failure> {
        let mut line = String::new();
        match self.output.read_line(&mut line).await {
            Ok(0) => Err(self.ended("end of file")),
            Ok(_) => serde_json::from_str(&line)
                .map_err(|error| Failure::of_lost(format!("DuckDB says {line:?}: {error}"))),
            Err(error) => Err(self.ended(&error.to_string())),
        }
    }

    fn ended(&mut self, how: &str) -> Failure {
        let status = self.process.try_wait().ok().flatten();
        let status = status.map_or_else(|| how.to_owned(), |status| status.to_string());
        Failure::of_lost(format!("the process of DuckDB ended ({status})"))
    }
}

/// What an error of DuckDB means, as the SQLSTATE of its kind.
fn refusal(head: &Value) -> Failure {
    let (class, error) = (head["class"].as_str().unwrap_or(""), head["error"].as_str());
    let sqlstate = match class {
        "OutOfRangeException" | "ConversionException" => "22000",
        "BinderException" | "NotImplementedException" | "ParserException" | "CatalogException" => {
            "0A000"
        }
        "InterruptException" => "57014",
        _ => "XX000",
    };
    let message = format!("{class}: {}", error.unwrap_or("no reason"));
    Failure { sqlstate: Some(sqlstate.to_owned()), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program in the place of Python.
    async fn shell(script: &str, silence: Duration) -> Result<DuckDb, StartError> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        DuckDb::of(command, Path::new("sh"), silence).await
    }

    #[tokio::test]
    async fn a_process_that_ends_is_an_error_now_and_later() {
        let hello = r#"echo '{"version": "0"}'; read line; exit 3"#;
        let duckdb = shell(hello, SILENCE_MAX).await.unwrap();
        assert_eq!(duckdb.version(), "0");
        for _ in 0..3 {
            let failure = duckdb.query("SELECT 1").await.unwrap_err();
            assert!(failure.is_lost() && failure.message.contains("ended"), "{failure}");
        }
    }

    #[tokio::test]
    async fn a_process_that_says_nothing_is_ended() {
        let hello = r#"echo '{"version": "0"}'; cat > /dev/null"#;
        let duckdb = shell(hello, Duration::from_millis(50)).await.unwrap();
        let failure = duckdb.query("SELECT 1").await.unwrap_err();
        assert!(failure.is_lost() && failure.message.contains("says nothing"), "{failure}");
        assert!(duckdb.query("SELECT 1").await.unwrap_err().is_lost());
    }

    #[tokio::test]
    async fn a_python_that_is_none_is_named_with_a_remedy() {
        let missing = DuckDb::start(Path::new("/nowhere/python")).await.err().unwrap();
        assert!(missing.to_string().starts_with("/nowhere/python cannot be started"), "{missing}");
        let lacking = r#"echo '{"error": "No module named duckdb"}'"#;
        let lacking = shell(lacking, SILENCE_MAX).await.err().unwrap().to_string();
        let expected =
            "sh has no DuckDB (No module named duckdb): `sh -m pip install duckdb pyarrow`";
        assert_eq!(lacking, expected);
        let silent = shell("exit 1", SILENCE_MAX).await.err().unwrap().to_string();
        assert!(silent.contains("pip install duckdb pyarrow"), "{silent}");
    }

    #[test]
    fn errors_have_the_sqlstate_of_their_kind() {
        let code = |class: &str| {
            refusal(&serde_json::json!({ "class": class, "error": "why" })).sqlstate.unwrap()
        };
        assert_eq!(code("OutOfRangeException"), "22000");
        assert_eq!(code("BinderException"), "0A000");
        assert_eq!(code("InterruptException"), "57014");
        assert_eq!(code("InternalException"), "XX000");
    }
}
