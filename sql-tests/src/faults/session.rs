//! A client that goes on when its server goes away: connects again, and knows of each write
//! whether it was made, was not made, or may have been.
//!
//! Invariant: a write is sent once, unless the session labels its writes: then it is sent again
//! under the same label until its outcome is known, and the server makes it once.

use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;

use super::violation::{Kind, Violation};
use crate::client::{Client, ClientError};

/// How long a statement may take before it counts as hanging: longer than any timeout of ours.
pub const STATEMENT_MAX: Duration = Duration::from_secs(60);

/// How long a cluster may take to answer again once nothing is wrong any more.
pub const RECOVERY_MAX: Duration = Duration::from_secs(60);

/// Waits between attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// What came of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The server said that it is made, of so many rows.
    Acknowledged(u64),
    /// It was not made, and never will be.
    Refused(String),
    /// It may have been made.
    Unknown(String),
}

impl Outcome {
    /// What an error says about the write it was an answer to.
    pub fn of(error: &ClientError) -> Self {
        let text = error.to_string();
        match error {
            // Nothing was sent.
            ClientError::Unreachable { .. } | ClientError::InvalidUrl { .. } => Self::Refused(text),
            ClientError::Local(_) | ClientError::Protocol(_) => Self::Unknown(text),
            ClientError::Server(server) => match server.code.as_str() {
                // Decided before the commit, by a server that told us so.
                "SYNTAX_ERROR"
                | "UNDEFINED_TABLE"
                | "UNDEFINED_COLUMN"
                | "DUPLICATE_OBJECT"
                | "CONFLICT"
                | "RESOURCES_EXHAUSTED"
                | "DATA_CORRUPTED"
                | "UNKNOWN_HANDLE"
                | "FEATURE_NOT_SUPPORTED"
                | "INVALID_STATEMENT"
                | "INVALID_PARAMETER"
                | "SOURCE_FILE"
                | "PERMISSION_DENIED"
                | "DATA_EXCEPTION"
                | "NUMERIC_OUT_OF_RANGE"
                | "NOT_NULL_VIOLATION"
                | "DATATYPE_MISMATCH"
                | "UNDEFINED_FUNCTION" => Self::Refused(text),
                _ => Self::Unknown(text),
            },
        }
    }

    /// Whether it may have been made.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }
}

/// Whether writes carry a label, by which the server knows them when they are sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Labels {
    /// They do not.
    None,
    /// They end in `LABEL '<prefix>-<number>'`, and are sent again until their outcome is known.
    Prefixed(String),
}

/// One client.
pub struct Session {
    url: String,
    client: Option<Client>,
    labels: Labels,
    writes: u64,
}

impl Session {
    /// A session that connects when it is used.
    pub fn new(url: &str) -> Self {
        Self { url: url.to_owned(), client: None, labels: Labels::None, writes: 0 }
    }

    /// Gives the session's writes labels. The prefix must be nobody else's.
    pub fn with_labels(mut self, labels: Labels) -> Self {
        self.labels = labels;
        self
    }

    /// Runs a statement that changes something.
    ///
    /// # Errors
    /// [`Kind::Hang`] when there is no answer at all.
    pub async fn write(&mut self, sql: &str) -> Result<Outcome, Violation> {
        self.writes += 1;
        let Labels::Prefixed(prefix) = &self.labels else { return self.write_once(sql).await };
        let labelled = format!("{sql} LABEL '{prefix}-{}'", self.writes);
        let deadline = Instant::now() + RECOVERY_MAX;
        loop {
            let outcome = self.write_once(&labelled).await?;
            // A refusal may be of this attempt alone: an earlier one may have been made.
            let is_known = matches!(outcome, Outcome::Acknowledged(_));
            if is_known || Instant::now() > deadline {
                return Ok(outcome);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn write_once(&mut self, sql: &str) -> Result<Outcome, Violation> {
        let attempt = async { self.connected().await?.execute_update(sql).await };
        let answer = within_time(sql, attempt).await?;
        self.forget_after(&answer);
        Ok(answer.map_or_else(|error| Outcome::of(&error), Outcome::Acknowledged))
    }

    /// Runs a query of integers, once.
    ///
    /// # Errors
    /// [`Kind::Hang`] when there is no answer at all.
    pub async fn read(
        &mut self,
        sql: &str,
    ) -> Result<Result<Vec<Vec<i64>>, ClientError>, Violation> {
        let attempt = async { self.connected().await?.query_all(sql).await };
        let answer = within_time(sql, attempt).await?;
        self.forget_after(&answer);
        Ok(answer.map(|(_, batches)| integers(&batches)))
    }

    /// Runs a query of integers until it is answered, for when nothing is wrong any more.
    ///
    /// # Errors
    /// [`Kind::Hang`] when it is not answered within [`RECOVERY_MAX`].
    pub async fn read_until_answered(&mut self, sql: &str) -> Result<Vec<Vec<i64>>, Violation> {
        let deadline = Instant::now() + RECOVERY_MAX;
        loop {
            match self.read(sql).await? {
                Ok(rows) => return Ok(rows),
                Err(error) if Instant::now() > deadline => {
                    let detail = format!("no answer to {sql}: {error}");
                    return Err(Violation::new(Kind::Hang, detail));
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Runs a statement until it is acknowledged, for when nothing is wrong and it may be made
    /// twice: `CREATE TABLE IF NOT EXISTS`.
    ///
    /// # Errors
    /// [`Kind::Hang`] when it is not acknowledged within [`RECOVERY_MAX`].
    pub async fn write_until_acknowledged(&mut self, sql: &str) -> Result<u64, Violation> {
        let deadline = Instant::now() + RECOVERY_MAX;
        loop {
            match self.write_once(sql).await? {
                Outcome::Acknowledged(rows) => return Ok(rows),
                Outcome::Refused(error) | Outcome::Unknown(error) if Instant::now() > deadline => {
                    let detail = format!("{sql} is not taken: {error}");
                    return Err(Violation::new(Kind::Hang, detail));
                }
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// The connection, a new one if need be.
    async fn connected(&mut self) -> Result<&mut Client, ClientError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(&self.url).await?,
        };
        Ok(self.client.insert(client))
    }

    /// After an error, whatever it was, the next statement connects again: that costs little.
    fn forget_after<T>(&mut self, answer: &Result<T, ClientError>) {
        if answer.is_err() {
            self.client = None;
        }
    }
}

async fn within_time<T>(
    sql: &str,
    attempt: impl Future<Output = Result<T, ClientError>>,
) -> Result<Result<T, ClientError>, Violation> {
    let answer = tokio::time::timeout(STATEMENT_MAX, attempt).await;
    answer.map_err(|_| Violation::new(Kind::Hang, format!("{sql} hangs")))
}

/// Rows of integers; NULL is [`i64::MIN`], which no workload stores.
pub fn integers(batches: &[RecordBatch]) -> Vec<Vec<i64>> {
    let value = |column: &ArrayRef, row: usize| {
        let column = column.as_primitive::<Int64Type>();
        if column.is_null(row) { i64::MIN } else { column.value(row) }
    };
    let row = |batch: &RecordBatch, row| {
        batch.columns().iter().map(|column| value(column, row)).collect::<Vec<_>>()
    };
    let rows = |batch: &RecordBatch| {
        (0..batch.num_rows()).map(|index| row(batch, index)).collect::<Vec<_>>()
    };
    batches.iter().flat_map(rows).collect()
}
