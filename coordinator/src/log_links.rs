//! The log's members over gRPC: the service `CommandLog` of workers.
//!
//! Every question is a task of its own with a deadline, so a member that does not answer holds up
//! nobody.

use std::time::Duration;

use basalt_engine::channels::Channels;
use basalt_engine::error::to_status;
use basalt_engine::log_protocol::answer_from_wire;
use basalt_engine::protocol::command_log_client::CommandLogClient;
use basalt_engine::protocol::{
    BYTES_PART_MAX, LogAnswer, LogAppendHeader, LogAppendPart, LogPromiseRequest, LogReadRequest,
    WireId,
};
use basalt_storage::command_log::parts;
use basalt_storage::command_log::record::RECORD_BYTES_MAX;
use basalt_storage::ids::WorkerId;
use bytes::{Bytes, BytesMut};
use datafusion_distributed::grpc::BoxCloneSyncChannel;
use tokio::runtime::Handle;
use tonic::Status;
use url::Url;

use crate::catalog::ledger::{Answer, Ask, Run};
use crate::catalog::links::{MemberLinks, Question};

/// How long an answer may take: longer than a disk that is only slow.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// What is added for the bytes of an append or a read: at least so many in a second.
const BYTES_PER_SECOND_MIN: u64 = 8 << 20;
/// Bytes of records that are asked for at once.
const READ_BYTES_MAX: u64 = 4 << 20;

/// Reaches members over the connections of a coordinator, on its runtime.
#[derive(Debug, Clone)]
pub struct GrpcLinks {
    channels: Channels,
    runtime: Handle,
}

impl GrpcLinks {
    /// Links over `channels`, whose tasks run on `runtime`.
    pub fn new(channels: Channels, runtime: Handle) -> Self {
        Self { channels, runtime }
    }
}

/// A client of the copy of worker `named`, or of whoever listens at `url`.
///
/// # Errors
/// As [`Channels::get`].
pub(crate) fn log_client(
    channels: &Channels,
    named: Option<WorkerId>,
    url: &Url,
) -> Result<CommandLogClient<BoxCloneSyncChannel>, Status> {
    let channel = match named {
        Some(worker) => channels.worker(worker, url),
        None => channels.get(url),
    };
    let channel = channel.map_err(to_status)?;
    Ok(CommandLogClient::new(channel).max_decoding_message_size(BYTES_PART_MAX + 4096))
}

impl MemberLinks for GrpcLinks {
    fn ask(&self, url: &Url, question: Question, answer: Box<dyn FnOnce(Answer) + Send>) {
        let (channels, url) = (self.channels.clone(), url.clone());
        self.runtime.spawn(async move {
            let asked = async {
                // Here and not by the caller: a connection lives on the runtime that it is made on,
                // and others use it. Another worker may listen where the member did: its copy must
                // not count for this one.
                let client = log_client(&channels, Some(question.ask.worker), &url);
                let mut client = client?;
                match &question.ask.ask {
                    Ask::Promise => promise(&mut client, &question).await,
                    Ask::Append { .. } => append(&mut client, question).await,
                    Ask::Read { after } => {
                        let cluster = question.cluster.to_wire();
                        let records = read(&mut client, cluster, *after).await?;
                        Ok(Answer::Records(records))
                    }
                }
            };
            answer(asked.await.unwrap_or_else(|status| {
                Answer::Failed(format!("{}: {}", status.code(), status.message()))
            }));
        });
    }
}

pub(crate) async fn in_time<T>(
    bytes: u64,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let limit = ANSWER_TIMEOUT + Duration::from_secs(bytes / BYTES_PER_SECOND_MIN);
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result,
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {limit:?}"))),
    }
}

/// An answer of `asked`, and of nobody else.
fn answered(answer: &LogAnswer, asked: WorkerId, upto: u64) -> Result<Answer, Status> {
    let (verdict, member) = answer_from_wire(answer)?;
    if member.worker != asked {
        let message = format!("worker {} answers, not worker {asked}", member.worker);
        return Err(Status::unavailable(message));
    }
    Ok(Answer::Position { verdict, position: member.position, upto })
}

type Client = CommandLogClient<BoxCloneSyncChannel>;

async fn promise(client: &mut Client, question: &Question) -> Result<Answer, Status> {
    let request = LogPromiseRequest {
        cluster: question.cluster.to_wire(),
        log_epoch: question.ask.promise.epoch.0,
        writer: question.ask.promise.writer.to_wire(),
    };
    let answer = in_time(0, client.promise(request)).await?;
    answered(answer.get_ref(), question.ask.worker, 0)
}

async fn append(client: &mut Client, question: Question) -> Result<Answer, Status> {
    // Most appends carry their records; those from the disk are read on a thread that may wait.
    let (question, run) = match &question.ask.ask {
        Ask::Append { after, run: Some(run), .. } => {
            let run = Ok(Some((*after, run.clone())));
            (question, run)
        }
        _ => {
            let read = move || {
                let run = question.run();
                (question, run)
            };
            let read = tokio::task::spawn_blocking(read).await;
            read.map_err(|error| Status::internal(error.to_string()))?
        }
    };
    let Some((after, run)) = run.map_err(Status::internal)? else {
        return Err(Status::internal("there is nothing to append"));
    };
    let upto = after + run.records.len() as u64;
    let parts = append_parts(&question, after, &run);
    let bytes = parts.iter().map(|part| part.data.len() as u64).sum();
    let answer = in_time(bytes, client.append(tokio_stream::iter(parts))).await?;
    answered(answer.get_ref(), question.ask.worker, upto)
}

fn append_parts(question: &Question, after: u64, run: &Run) -> Vec<LogAppendPart> {
    let committed = match question.ask.ask {
        Ask::Append { committed, .. } => committed,
        Ask::Promise | Ask::Read { .. } => 0,
    };
    let header = LogAppendHeader {
        cluster: question.cluster.to_wire(),
        log_epoch: question.ask.promise.epoch.0,
        writer: question.ask.promise.writer.to_wire(),
        after,
        hash: run.hash.as_bytes().to_vec(),
        committed,
    };
    let mut data = Bytes::from(parts::join(run.records.iter().map(AsRef::as_ref)));
    let mut first = LogAppendPart { header: Some(header), data: Vec::new() };
    first.data = data.split_to(data.len().min(BYTES_PART_MAX)).to_vec();
    let mut parts = vec![first];
    while !data.is_empty() {
        let part = data.split_to(data.len().min(BYTES_PART_MAX)).to_vec();
        parts.push(LogAppendPart { header: None, data: part });
    }
    parts
}

/// Reads records after `after` from the copy of a worker, bounded: one record may be large.
pub(crate) async fn read(
    client: &mut Client,
    cluster: Vec<u8>,
    after: u64,
) -> Result<Vec<Bytes>, Status> {
    let request = LogReadRequest { cluster, after, bytes_max: READ_BYTES_MAX };
    let mut parts = in_time(READ_BYTES_MAX, client.read(request)).await?.into_inner();
    let mut data = BytesMut::new();
    while let Some(part) = in_time(BYTES_PART_MAX as u64, parts.message()).await? {
        if data.len() + part.data.len() > RECORD_BYTES_MAX + (8 << 20) {
            return Err(Status::out_of_range("a read has too many bytes"));
        }
        data.extend_from_slice(&part.data);
    }
    parts::split(data.freeze()).ok_or_else(|| Status::data_loss("a read ends within a record"))
}
