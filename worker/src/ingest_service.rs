//! Rows from peers and from the coordinator, into this worker's staging.

use std::io::Cursor;
use std::sync::Arc;

use arrow::ipc::reader::StreamReader;
use arrow::record_batch::RecordBatch;
use basalt_engine::error::to_status;
use basalt_engine::ipc::{Compression, check_stream};
use basalt_engine::protocol::append_request::Part;
use basalt_engine::protocol::ingest_server::Ingest;
use basalt_engine::protocol::{
    AbortRequest, AbortResponse, AppendBatch, AppendRequest, AppendResponse, MalformedMessage,
    SealRequest, SealResponse, WireId,
};
use basalt_engine::write::AppendTarget;
use basalt_storage::ids::{Epoch, SliceId, TableId, TxnId};
use basalt_storage::segment_writer::RowSource;
use futures::stream::{self, BoxStream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::staging::Staging;

/// Serves appends.
#[derive(Debug, Clone)]
pub struct IngestService {
    staging: Arc<Staging>,
}

impl IngestService {
    /// A service over a staging area.
    pub fn new(staging: Arc<Staging>) -> Self {
        Self { staging }
    }
}

#[tonic::async_trait]
impl Ingest for IngestService {
    async fn append(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<AppendResponse>, Status> {
        let mut parts = request.into_inner();
        let header = match parts.message().await?.and_then(|request| request.part) {
            Some(Part::Header(header)) => header,
            _ => return Err(MalformedMessage::new("AppendRequest", "header").into()),
        };
        let target = header.target.unwrap_or_default();
        let target = Arc::new(AppendTarget::from_wire(&target)?);
        let source = RowSource(header.source);
        let mut rows = 0;
        while let Some(request) = parts.message().await? {
            let Some(Part::Batch(batch)) = request.part else {
                return Err(MalformedMessage::new("AppendRequest", "part").into());
            };
            let (slice, batches) = decode(&batch)?;
            for batch in batches {
                rows += batch.num_rows() as u64;
                self.staging.append(&target, source, slice, batch).await.map_err(to_status)?;
            }
        }
        Ok(Response::new(AppendResponse { rows }))
    }

    type SealStream = BoxStream<'static, Result<SealResponse, Status>>;

    async fn seal(
        &self,
        request: Request<SealRequest>,
    ) -> Result<Response<Self::SealStream>, Status> {
        let request = request.into_inner();
        let txn = TxnId::from_wire(&request.txn, "SealRequest", "txn")?;
        let (table, epoch) = (TableId(request.table), Epoch(request.epoch));
        let records = self.staging.seal(txn, table, epoch).await.map_err(to_status)?;
        self.staging.sweep();
        let answers = records.into_iter().map(|record| {
            serde_json::to_vec(&record)
                .map(|segment_record| SealResponse { segment_record })
                .map_err(|error| Status::internal(error.to_string()))
        });
        let answers: Vec<_> = answers.collect();
        Ok(Response::new(stream::iter(answers).boxed()))
    }

    async fn abort(
        &self,
        request: Request<AbortRequest>,
    ) -> Result<Response<AbortResponse>, Status> {
        let txn = TxnId::from_wire(&request.into_inner().txn, "AbortRequest", "txn")?;
        let staging = Arc::clone(&self.staging);
        tokio::task::spawn_blocking(move || staging.abort(txn))
            .await
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(AbortResponse {}))
    }
}

/// Reads the batches of one message. Arrow's decoder may panic on hostile bytes (STORAGE.md T15),
/// and allocates what they say.
fn decode(batch: &AppendBatch) -> Result<(SliceId, Vec<RecordBatch>), Status> {
    let malformed = |field| Status::from(MalformedMessage::new("AppendBatch", field));
    let slice = u16::try_from(batch.slice).map_err(|_| malformed("slice"))?;
    check_stream(&batch.ipc, Compression::Refused).map_err(|_| malformed("ipc"))?;
    let decoded = std::panic::catch_unwind(|| {
        StreamReader::try_new(Cursor::new(&batch.ipc), None)?.collect::<Result<Vec<_>, _>>()
    });
    match decoded {
        Ok(Ok(batches)) => Ok((SliceId(slice), batches)),
        _ => Err(malformed("ipc")),
    }
}
