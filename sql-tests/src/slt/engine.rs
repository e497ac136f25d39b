//! The seam between the runner and whatever answers SQL.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType};

use super::{datafusion, letters, text};

pub(super) type SltType = DefaultColumnType;

/// What came of one statement.
#[derive(Debug, Clone)]
pub enum Output {
    /// A query's rows, all of them.
    Rows {
        /// Its columns.
        schema: SchemaRef,
        /// Its rows.
        batches: Vec<RecordBatch>,
    },
    /// Something else, done.
    Done {
        /// Rows affected; 0 where that means nothing.
        rows_affected: u64,
    },
}

/// Why a statement failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    /// The whole text that a user would see, for `error <regex>`.
    pub message: String,
    /// The SQLSTATE where the engine has one, for `error (<SQLSTATE>)`.
    pub sqlstate: Option<String>,
    /// Whether the engine is gone, so that the rest of the file cannot run.
    pub is_disconnect: bool,
}

impl EngineError {
    /// An error that leaves the engine as it was.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), sqlstate: None, is_disconnect: false }
    }
}

/// Anything that answers SQL, one statement at a time.
#[async_trait]
pub trait Engine: Send {
    /// The label for `skipif` and `onlyif`.
    fn name(&self) -> &str;

    /// Runs one statement to its end.
    async fn run(&mut self, sql: &str) -> Result<Output, EngineError>;
}

/// Any engine.
pub type BoxEngine = Box<dyn Engine>;

#[async_trait]
impl Engine for BoxEngine {
    fn name(&self) -> &str {
        (**self).name()
    }

    async fn run(&mut self, sql: &str) -> Result<Output, EngineError> {
        (**self).run(sql).await
    }
}

/// What decides how the values of a record are written.
#[derive(Debug, Clone, Default)]
pub(super) enum Writing {
    /// A value's own type.
    #[default]
    ByType,
    /// The letters of the record.
    ByLetters(Vec<char>),
    /// A value's own type, as DataFusion's runner does it.
    DataFusion,
}

/// How the values of the next record are written, shared by a runner and its connections.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedWriting(Arc<Mutex<Writing>>);

impl SharedWriting {
    pub(super) fn set(&self, writing: Writing) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = writing;
    }

    fn get(&self) -> Writing {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// An [`Engine`] as the sqllogictest crate wants it.
pub(super) struct Adapter {
    pub(super) engine: BoxEngine,
    pub(super) writing: SharedWriting,
}

#[async_trait]
impl AsyncDB for Adapter {
    type Error = EngineError;
    type ColumnType = SltType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<SltType>, EngineError> {
        match self.engine.run(sql).await? {
            Output::Done { rows_affected } => Ok(DBOutput::StatementComplete(rows_affected)),
            Output::Rows { schema, batches } => {
                let types: Vec<SltType> =
                    schema.fields().iter().map(|f| text::column_type(f.data_type())).collect();
                let writing = self.writing.get();
                let mut rows = Vec::new();
                for batch in &batches {
                    match &writing {
                        // Another number of columns than the record names is reported by their
                        // types.
                        Writing::ByLetters(letters) if letters.len() == types.len() => {
                            letters::append_rows(batch, letters, &mut rows)
                        }
                        Writing::DataFusion => datafusion::append_rows(batch, &mut rows),
                        _ => text::append_rows(batch, &mut rows),
                    }
                    .map_err(|e| EngineError::new(format!("the result cannot be shown: {e}")))?;
                }
                Ok(DBOutput::Rows { types, rows })
            }
        }
    }

    async fn shutdown(&mut self) {}

    /// Nothing: all labels, the engine's own name among them, are the runner's.
    fn engine_name(&self) -> &str {
        ""
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn error_sql_state(error: &EngineError) -> Option<String> {
        error.sqlstate.clone()
    }
}

/// Whether the columns that came are the ones a `query` record names: as many, and each of its
/// kind where the record says `T`, `I` or `R`.
#[expect(clippy::ptr_arg, reason = "the signature of sqllogictest::ColumnTypeValidator")]
pub(super) fn columns_match(actual: &Vec<SltType>, expected: &Vec<SltType>) -> bool {
    // A record without types (`query`, `query error`) does not say how many columns it expects.
    expected.is_empty()
        || actual.len() == expected.len()
            && actual.iter().zip(expected).all(|(a, e)| *e == SltType::Any || a == e)
}

/// Whether as many columns came as a `query` record names.
#[expect(clippy::ptr_arg, reason = "the signature of sqllogictest::ColumnTypeValidator")]
pub(super) fn columns_count_matches(actual: &Vec<SltType>, expected: &Vec<SltType>) -> bool {
    expected.is_empty() || actual.len() == expected.len()
}
