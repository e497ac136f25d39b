//! Prepared statements.

use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use arrow_flight::sql::client::PreparedStatement;
use tonic::transport::Channel;

use super::error::ClientError;
use super::{Answer, Client};

/// A statement that the server has parsed and planned, with parameters to fill in.
pub struct Prepared {
    client: Client,
    statement: PreparedStatement<Channel>,
}

impl Prepared {
    pub(super) async fn create(mut client: Client, sql: &str) -> Result<Self, ClientError> {
        let statement = client.flight.prepare(sql.to_owned(), None).await?;
        Ok(Self { client, statement })
    }

    /// The columns of its result; empty for a statement without rows.
    ///
    /// # Errors
    /// When the server sent no valid schema.
    pub fn dataset_schema(&self) -> Result<&Schema, ClientError> {
        Ok(self.statement.dataset_schema()?)
    }

    /// Its parameters `$1..$n` in order; an unknown type is `Null`.
    ///
    /// # Errors
    /// When the server sent no valid schema.
    pub fn parameter_schema(&self) -> Result<&Schema, ClientError> {
        Ok(self.statement.parameter_schema()?)
    }

    /// Runs it, with one row of parameters where it has any.
    ///
    /// # Errors
    /// What the server says.
    pub async fn run(&mut self, parameters: Option<RecordBatch>) -> Result<Answer, ClientError> {
        if let Some(parameters) = parameters {
            self.statement.set_parameters(parameters)?;
        }
        let info = self.statement.execute().await?;
        self.client.answer(info)
    }

    /// Frees what the server holds for it.
    ///
    /// # Errors
    /// What the server says; the handle expires on its own when this never arrives.
    pub async fn close(self) -> Result<(), ClientError> {
        Ok(self.statement.close().await?)
    }
}
