//! An owner's side of a load: its new segments go to partners while it writes its own copies.
//!
//! The first partners get the segment at once; one that fails is replaced by the next on the
//! transaction's list. Who answered has fsynced a copy with the same digests.

use std::sync::Arc;
use std::time::Duration;

use basalt_engine::channels::Channels;
use basalt_engine::error::{ErrorCode, SqlError, from_status};
use basalt_engine::protocol::put_request::Part;
use basalt_engine::protocol::replicas_client::ReplicasClient;
use basalt_engine::protocol::{
    BYTES_PART_MAX, FilePart, MESSAGE_BYTES_MAX, PutHeader, PutRequest, WireId,
};
use basalt_engine::write::AppendTarget;
use basalt_storage::chunk_store::SegmentCopy;
use basalt_storage::fail_point::{self, FailPoint};
use basalt_storage::ids::WorkerId;
use basalt_storage::manifest::SegmentRecord;
use basalt_storage::segment_writer::EncodedSegment;
use bytes::Bytes;
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::Result;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::wire::to_wire;

/// Segments on their way to partners at a time: enough to keep a network busy while some of them
/// wait for a disk.
const PUTS_AT_ONCE: usize = 8;
/// Messages of one segment under way before the sender waits.
const PARTS_IN_FLIGHT: usize = 4;
/// How long a partner may take in nothing before the next one is asked.
const STALLED_AFTER: Duration = Duration::from_secs(10);
/// How long a partner may take to make a segment durable that it has taken in.
const SYNCED_AFTER: Duration = Duration::from_secs(60);

/// Sends this worker's new segments to partners.
#[derive(Debug)]
pub struct ReplicaSender {
    channels: Channels,
    puts: Semaphore,
}

impl ReplicaSender {
    /// A sender over connections to peers.
    pub fn new(channels: Channels) -> Self {
        Self { channels, puts: Semaphore::new(PUTS_AT_ONCE) }
    }

    /// Puts a segment on as many partners as the transaction wants beside this worker, whose copy
    /// is in the record already. Returns the record with all holders.
    ///
    /// On `Ok` there are, with the owner's, as many durable copies as the transaction requires.
    ///
    /// # Errors
    /// [`ErrorCode::Unavailable`] when too few partners took it.
    pub async fn replicate(
        &self,
        target: &Arc<AppendTarget>,
        segment: &EncodedSegment,
    ) -> Result<SegmentRecord> {
        let mut record = segment.record().clone();
        let mut partners = target.partners(record.slice).iter().copied();
        let wanted = usize::from(target.copies.wanted).saturating_sub(record.holders.len());
        let put = |partner| async move { (partner, self.put(target, segment, partner).await) };
        let mut puts: FuturesUnordered<_> = partners.by_ref().take(wanted).map(put).collect();
        let mut failures = Vec::new();
        while let Some((partner, result)) = puts.next().await {
            match result {
                Ok(()) => record.holders.push(partner),
                Err(error) => {
                    tracing::warn!(segment = %record.segment, worker = %partner, %error,
                        "a partner did not take a copy, trying another");
                    failures.push(format!("worker {partner}: {}", error.message));
                    puts.extend(partners.next().map(put));
                }
            }
        }
        // In the order of preference, whoever was faster.
        let order = target.partners(record.slice);
        record.holders[1..].sort_by_key(|holder| order.iter().position(|id| id == holder));
        if record.holders.len() < usize::from(target.copies.required) {
            let message = format!(
                "{} of {} copies of a segment of table \"{}\" could be written ({})",
                record.holders.len(),
                target.copies.required,
                target.table_name,
                failures.join("; ")
            );
            return Err(SqlError::new(ErrorCode::Unavailable, message)
                .with_hint("send the statement again; sys.workers shows who is missing")
                .into());
        }
        Ok(record)
    }

    /// On `Ok` the partner has a durable copy that matches every digest.
    async fn put(
        &self,
        target: &AppendTarget,
        segment: &EncodedSegment,
        partner: WorkerId,
    ) -> Result<(), SqlError> {
        fail_point::hit(FailPoint::CopyBegun);
        let internal = |error: String| SqlError::new(ErrorCode::Internal, error);
        let _turn = self.puts.acquire().await.map_err(|error| internal(error.to_string()))?;
        let url = target.endpoints.get(&partner).ok_or_else(|| {
            SqlError::new(ErrorCode::Unavailable, "it cannot be reached".to_owned())
        })?;
        let channel =
            self.channels.worker(partner, url).map_err(|error| internal(error.to_string()))?;
        let mut client = ReplicasClient::new(channel).max_encoding_message_size(MESSAGE_BYTES_MAX);
        let (sender, receiver) = mpsc::channel(PARTS_IN_FLIGHT);
        let call = SpawnedTask::spawn(async move {
            client.put(ReceiverStream::new(receiver)).await.map_err(|status| from_status(&status))
        });
        let header = PutHeader {
            epoch: target.epoch.0,
            cluster: target.cluster.to_wire(),
            segment: Some(to_wire(&SegmentCopy::from(segment.record()))),
        };
        let mut parts = std::iter::once(Part::Header(header)).chain(parts(segment)?);
        let stalled = loop {
            let Some(part) = parts.next() else { break false };
            let send = sender.send(PutRequest { part: Some(part) });
            match tokio::time::timeout(STALLED_AFTER, send).await {
                Ok(Ok(())) => {}
                // It ended the call: its answer says why.
                Ok(Err(_)) => break false,
                Err(_) => break true,
            }
        };
        drop(sender);
        let late = || SqlError::new(ErrorCode::Unavailable, "it does not go on".to_owned());
        if stalled {
            return Err(late());
        }
        let answer = tokio::time::timeout(SYNCED_AFTER, call.join()).await.map_err(|_| late())?;
        answer.map_err(|error| internal(error.to_string()))?.map(|_| ())
    }
}

/// The files of a segment in bounded parts: the metadata, then the others as it lists them.
fn parts(segment: &EncodedSegment) -> Result<impl Iterator<Item = Part> + '_, SqlError> {
    let mut files: Vec<&Bytes> = vec![segment.meta_bytes()];
    for expected in segment.meta().chunk_files() {
        let file = segment.files().iter().find(|file| file.path == expected.path);
        let file = file.ok_or_else(|| {
            SqlError::new(ErrorCode::Internal, "a segment lacks a file that it names".to_owned())
        })?;
        files.push(&file.bytes);
    }
    Ok((0..).zip(files).flat_map(|(file, bytes)| {
        (0..bytes.len()).step_by(BYTES_PART_MAX).map(move |start| {
            let end = bytes.len().min(start + BYTES_PART_MAX);
            Part::Data(FilePart { file, data: bytes.slice(start..end).to_vec() })
        })
    }))
}
