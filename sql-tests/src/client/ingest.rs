//! Uploading batches into a table.

use std::collections::HashMap;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow_flight::FlightDescriptor;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    CommandStatementIngest, ProstMessageExt, TableDefinitionOptions, TableExistsOption,
    TableNotExistOption,
};
use futures::channel::oneshot;
use futures::future::{self, Either};
use futures::{Stream, StreamExt, TryStreamExt};
use prost::Message;
use tonic::transport::Channel;

use super::error::ClientError;

/// What to do when the table is missing, or there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IngestMode {
    /// Append; a missing table is an error.
    Append,
    /// Create; an existing table is an error.
    Create,
    /// Drop an existing table and create it again, in one commit with the rows.
    Replace,
    /// Create when missing, append when there.
    CreateAppend,
}

/// Where uploaded rows go.
#[derive(Debug, Clone)]
pub struct IngestTarget {
    /// The schema, when not the default one.
    pub schema: Option<String>,
    /// The table.
    pub table: String,
    /// What to do when it is missing, or there.
    pub mode: IngestMode,
    /// How to lay out a table that is created: `diststyle`, `distkey`, `sortkey`.
    pub options: HashMap<String, String>,
}

impl IngestTarget {
    fn into_command(self) -> CommandStatementIngest {
        use {TableExistsOption as Exists, TableNotExistOption as Missing};
        let (missing, exists) = match self.mode {
            IngestMode::Append => (Missing::Fail, Exists::Append),
            IngestMode::Create => (Missing::Create, Exists::Fail),
            IngestMode::Replace => (Missing::Create, Exists::Replace),
            IngestMode::CreateAppend => (Missing::Create, Exists::Append),
        };
        CommandStatementIngest {
            table_definition_options: Some(TableDefinitionOptions {
                if_not_exist: missing.into(),
                if_exists: exists.into(),
            }),
            table: self.table,
            schema: self.schema,
            catalog: None,
            temporary: false,
            transaction_id: None,
            options: self.options,
        }
    }
}

/// Sends `batches`; see [`super::Client::ingest`].
pub(super) async fn ingest<S>(
    flight: &mut FlightSqlServiceClient<Channel>,
    target: IngestTarget,
    schema: SchemaRef,
    batches: S,
) -> Result<u64, ClientError>
where
    S: Stream<Item = Result<RecordBatch, ClientError>> + Send + 'static,
{
    let descriptor = FlightDescriptor::new_cmd(target.into_command().as_any().encode_to_vec());
    // The schema is given up front so that a stream of no batches still sends the command.
    let messages = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(descriptor))
        .with_schema(schema)
        .build(batches.map_err(|error| FlightError::ExternalError(Box::new(error))));

    // A failing source must reset the call. Ending the request stream instead (as arrow-flight's
    // own `execute_ingest` does) looks like success to the server, which would commit a part.
    let (report, failed) = oneshot::channel();
    let mut report = Some(report);
    let messages = messages
        .then(move |message| {
            let failure = match message {
                Ok(message) => return Either::Left(future::ready(message)),
                Err(error) => error,
            };
            if let Some(report) = report.take() {
                // A receiver that is gone has dropped the call already.
                let _ = report.send(failure);
            }
            Either::Right(future::pending())
        })
        .boxed();

    let call = async {
        let mut results = flight.do_put(messages).await?;
        let result = results.message().await.map_err(ClientError::from)?;
        super::rows_affected(result.map(|result| result.app_metadata))
    };
    let call = std::pin::pin!(call);
    match future::select(failed, call).await {
        Either::Left((Ok(error), _reset_by_drop)) => Err(local_error(error)),
        // The source ended well and its sender is gone: only the server has something to say.
        Either::Left((Err(_), call)) => call.await,
        Either::Right((result, _)) => result,
    }
}

/// The caller's own error back, where the source failed; else what the encoder says.
fn local_error(error: FlightError) -> ClientError {
    match error {
        FlightError::ExternalError(source) => match source.downcast::<ClientError>() {
            Ok(error) => *error,
            Err(source) => ClientError::Local(source.to_string()),
        },
        FlightError::Arrow(source) => ClientError::Local(source.to_string()),
        other => other.into(),
    }
}
