//! Streams of rows to the workers that own their slices.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use basalt_storage::ids::{SliceId, WorkerId};
use basalt_storage::segment_writer::RowSource;
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::{DataFusionError, Result};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{AppendTarget, SliceAppender, SliceSink};
use crate::channels::Channels;
use crate::error::{ErrorCode, SqlError, from_status};
use crate::protocol::append_request::Part;
use crate::protocol::ingest_client::IngestClient;
use crate::protocol::{AppendBatch, AppendHeader, AppendRequest, MESSAGE_BYTES_MAX};

/// Batches on their way to one peer before an append waits.
const BATCHES_IN_FLIGHT: usize = 2;

/// A message above this is cut in two: a batch of the thousands of rows that operators work on
/// may be far larger than [`MESSAGE_BYTES_MAX`] when its texts are long.
const MESSAGE_BYTES_CUT: usize = 8 << 20;

/// A sink of a process that owns no slices: every row goes to a peer.
#[derive(Debug)]
pub struct PeerSink {
    channels: Channels,
}

impl PeerSink {
    /// A sink over connections to workers.
    pub fn new(channels: Channels) -> Self {
        Self { channels }
    }
}

impl SliceSink for PeerSink {
    fn local_slices(&self, _: &AppendTarget) -> Vec<SliceId> {
        vec![]
    }

    fn open(
        &self,
        target: &Arc<AppendTarget>,
        source: RowSource,
    ) -> Result<Box<dyn SliceAppender>> {
        Ok(Box::new(PeerAppender::new(Arc::clone(target), source, self.channels.clone())))
    }
}

/// The open streams of one writer. Dropping it ends them; their rows stay staged until the
/// transaction is aborted.
pub struct PeerAppender {
    target: Arc<AppendTarget>,
    source: RowSource,
    channels: Channels,
    peers: HashMap<WorkerId, PeerStream>,
}

struct PeerStream {
    sender: mpsc::Sender<AppendRequest>,
    call: SpawnedTask<Result<u64>>,
}

impl fmt::Debug for PeerAppender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerAppender({} peers)", self.peers.len())
    }
}

impl PeerAppender {
    /// A writer without open streams yet.
    pub fn new(target: Arc<AppendTarget>, source: RowSource, channels: Channels) -> Self {
        Self { target, source, channels, peers: HashMap::new() }
    }

    fn open(&self, owner: WorkerId) -> Result<PeerStream> {
        let url = self.target.endpoints.get(&owner).ok_or_else(|| {
            SqlError::new(ErrorCode::Unavailable, format!("worker {owner} cannot be reached"))
                .with_hint("start it again; sys.workers shows which one it is")
        })?;
        let mut client = IngestClient::new(self.channels.worker(owner, url)?)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let (sender, receiver) = mpsc::channel(BATCHES_IN_FLIGHT);
        let header = AppendHeader { target: Some(self.target.to_wire()?), source: self.source.0 };
        // The channel is new and empty, so there is room for the header.
        sender
            .try_send(AppendRequest { part: Some(Part::Header(header)) })
            .map_err(|error| DataFusionError::External(Box::new(error)))?;
        let call = SpawnedTask::spawn(async move {
            let answer = client.append(ReceiverStream::new(receiver)).await;
            answer
                .map(|answer| answer.into_inner().rows)
                .map_err(|status| from_status(&status).into())
        });
        Ok(PeerStream { sender, call })
    }

    /// Sends one message to the owner of a slice.
    async fn send(&mut self, slice: SliceId, ipc: Vec<u8>) -> Result<()> {
        let owner = self.target.owner(slice)?;
        let part = AppendBatch { slice: u32::from(slice.0), ipc };
        let request = AppendRequest { part: Some(Part::Batch(part)) };
        let peer = match self.peers.remove(&owner) {
            Some(peer) => peer,
            None => self.open(owner)?,
        };
        if peer.sender.send(request).await.is_ok() {
            self.peers.insert(owner, peer);
            return Ok(());
        }
        // The peer ended the call: its answer says why.
        let answer = joined(peer.call).await;
        answer.and(Err(DataFusionError::Internal(format!("worker {owner} ended an append early"))))
    }
}

#[async_trait]
impl SliceAppender for PeerAppender {
    async fn append(&mut self, slice: SliceId, batch: RecordBatch) -> Result<()> {
        let mut due = vec![batch];
        while let Some(ipc) = next_message(&mut due)? {
            self.send(slice, ipc).await?;
        }
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<u64> {
        let mut rows = 0;
        for (_, PeerStream { sender, call }) in self.peers {
            drop(sender);
            rows += joined(call).await?;
        }
        Ok(rows)
    }
}

async fn joined(call: SpawnedTask<Result<u64>>) -> Result<u64> {
    call.join().await.map_err(|error| DataFusionError::External(Box::new(error)))?
}

/// Takes the rows of one message off `due`, whose last batch comes first. Batches that are too
/// large are cut in two until they are not, or are a single row.
fn next_message(due: &mut Vec<RecordBatch>) -> Result<Option<Vec<u8>>> {
    while let Some(batch) = due.pop() {
        let ipc = encode(&batch)?;
        let rows = batch.num_rows();
        if ipc.len() <= MESSAGE_BYTES_CUT || rows <= 1 {
            return Ok(Some(ipc));
        }
        let half = rows / 2;
        due.push(batch.slice(half, rows - half));
        due.push(batch.slice(0, half));
    }
    Ok(None)
}

/// One batch as an Arrow IPC stream.
fn encode(batch: &RecordBatch) -> Result<Vec<u8>> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
    writer.write(batch)?;
    Ok(writer.into_inner()?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, StringArray};
    use arrow::compute::concat_batches;
    use arrow::ipc::reader::StreamReader;

    use super::*;

    #[test]
    fn a_batch_larger_than_a_message_is_cut_and_keeps_its_rows_in_order() {
        const ROWS: usize = 2_000;
        let texts = (0..ROWS).map(|row| format!("{row:0>20000}"));
        let column: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
        let batch = RecordBatch::try_from_iter([("s", column)]).unwrap();
        let mut due = vec![batch.clone()];
        let mut parts = Vec::new();
        while let Some(ipc) = next_message(&mut due).unwrap() {
            assert!(ipc.len() <= MESSAGE_BYTES_CUT, "{} bytes", ipc.len());
            let reader = StreamReader::try_new(ipc.as_slice(), None).unwrap();
            parts.extend(reader.map(|batch| batch.unwrap()));
        }
        assert!(parts.len() > 1);
        let together = concat_batches(&batch.schema(), &parts).unwrap();
        assert_eq!(together.column(0).as_string::<i32>(), batch.column(0).as_string::<i32>());
    }

    #[test]
    fn a_single_row_is_one_message_however_large() {
        let column: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(9 << 20)]));
        let mut due = vec![RecordBatch::try_from_iter([("s", column)]).unwrap()];
        assert!(next_message(&mut due).unwrap().is_some_and(|ipc| ipc.len() > 9 << 20));
        assert!(next_message(&mut due).unwrap().is_none());
    }
}
