//! The rows of one query on their way in.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{FlightInfo, Ticket};
use futures::{Stream, TryStreamExt, stream};
use tonic::transport::Channel;

use super::error::ClientError;

/// The result of a query, fetched batch by batch in the order of its endpoints.
///
/// Nothing is fetched before the first [`QueryStream::next_batch`]; dropping the stream cancels
/// the query. At most one endpoint is open at a time, so memory is bounded by one batch and the
/// flow-control window.
pub struct QueryStream {
    flight: FlightSqlServiceClient<Channel>,
    info: FlightInfo,
    schema: SchemaRef,
    next_endpoint: usize,
    open: Option<FlightRecordBatchStream>,
}

impl QueryStream {
    pub(super) fn new(
        flight: FlightSqlServiceClient<Channel>,
        info: FlightInfo,
    ) -> Result<Self, ClientError> {
        let schema = info
            .clone()
            .try_decode_schema()
            .map_err(|source| ClientError::Protocol(format!("the result schema: {source}")))?;
        Ok(Self { flight, info, schema: Arc::new(schema), next_endpoint: 0, open: None })
    }

    /// The columns of the result.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// What the server said about the result; needed to cancel it by name.
    pub fn info(&self) -> &FlightInfo {
        &self.info
    }

    /// The next batch, or `None` after the last row.
    ///
    /// # Errors
    /// What the server says: a result that breaks off is an error, never a short result.
    pub async fn next_batch(&mut self) -> Result<Option<RecordBatch>, ClientError> {
        loop {
            if let Some(open) = &mut self.open {
                if let Some(batch) = open.try_next().await? {
                    return self.checked(batch).map(Some);
                }
                self.open = None;
            }
            let Some(endpoint) = self.info.endpoint.get(self.next_endpoint) else {
                return Ok(None);
            };
            let ticket: Ticket = endpoint.ticket.clone().ok_or_else(|| {
                ClientError::Protocol(format!("endpoint {} has no ticket", self.next_endpoint))
            })?;
            self.next_endpoint += 1;
            self.open = Some(self.flight.do_get(ticket).await?);
        }
    }

    /// The same as a [`Stream`].
    pub fn into_stream(self) -> impl Stream<Item = Result<RecordBatch, ClientError>> + Send {
        stream::try_unfold(self, |mut stream| async move {
            Ok(stream.next_batch().await?.map(|batch| (batch, stream)))
        })
    }

    /// Refuses a batch whose types differ from the announced ones.
    fn checked(&self, batch: RecordBatch) -> Result<RecordBatch, ClientError> {
        let announced = self.schema.fields().iter().map(|field| field.data_type());
        let received = batch.schema_ref().fields().iter().map(|field| field.data_type());
        if announced.eq(received) {
            return Ok(batch);
        }
        Err(ClientError::Protocol(format!(
            "rows of the schema {:?} where {:?} was announced",
            batch.schema(),
            self.schema
        )))
    }
}
