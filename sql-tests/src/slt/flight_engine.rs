//! A cluster behind Flight SQL as an [`Engine`].

use async_trait::async_trait;

use super::engine::{Engine, EngineError, Output};
use crate::client::{Answer, Client, ClientError};

/// A connection to a server, labelled `basalt`.
pub struct FlightEngine {
    client: Client,
}

impl FlightEngine {
    /// Connects to a server.
    ///
    /// # Errors
    /// When nobody answers there.
    pub async fn connect(url: &str) -> Result<Self, EngineError> {
        Ok(Self { client: Client::connect(url).await? })
    }

    /// An engine over a connection that exists already.
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl Engine for FlightEngine {
    fn name(&self) -> &str {
        "basalt"
    }

    async fn run(&mut self, sql: &str) -> Result<Output, EngineError> {
        match self.client.run(sql).await? {
            Answer::Done { rows_affected } => {
                Ok(Output::Done { rows_affected: rows_affected.unwrap_or(0) })
            }
            Answer::Rows(mut stream) => {
                let mut batches = Vec::new();
                while let Some(batch) = stream.next_batch().await? {
                    batches.push(batch);
                }
                Ok(Output::Rows { schema: stream.schema().clone(), batches })
            }
        }
    }
}

impl From<ClientError> for EngineError {
    fn from(error: ClientError) -> Self {
        Self {
            sqlstate: error.sqlstate().map(str::to_owned),
            is_disconnect: error.is_disconnect(),
            message: error.to_string(),
        }
    }
}
