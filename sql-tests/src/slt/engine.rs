//! The seam between the runner and whatever answers SQL.

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType};

use super::text;

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

/// Anything that answers SQL, one statement at a time.
#[async_trait]
pub trait Engine: Send {
    /// The label for `skipif` and `onlyif`.
    fn name(&self) -> &str;

    /// Runs one statement to its end.
    async fn run(&mut self, sql: &str) -> Result<Output, EngineError>;
}

/// An [`Engine`] as the sqllogictest crate wants it.
pub(super) struct Adapter<E>(pub(super) E);

#[async_trait]
impl<E: Engine> AsyncDB for Adapter<E> {
    type Error = EngineError;
    type ColumnType = SltType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<SltType>, EngineError> {
        match self.0.run(sql).await? {
            Output::Done { rows_affected } => Ok(DBOutput::StatementComplete(rows_affected)),
            Output::Rows { schema, batches } => {
                let types =
                    schema.fields().iter().map(|f| text::column_type(f.data_type())).collect();
                let mut rows = Vec::new();
                for batch in &batches {
                    text::append_rows(batch, &mut rows).map_err(|source| EngineError {
                        message: format!("the result cannot be shown: {source}"),
                        sqlstate: None,
                        is_disconnect: false,
                    })?;
                }
                Ok(DBOutput::Rows { types, rows })
            }
        }
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        self.0.name()
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
