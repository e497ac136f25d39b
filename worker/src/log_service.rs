//! This worker's copy of the coordinator's command log, for the coordinator and for whoever
//! restores one.
//!
//! The copy is kept in `<data-dir>/log`, and [`LogCopy`] decides what it takes from whom. Here are
//! its messages, its threads, and the cluster it belongs to: log epochs of another cluster mean
//! nothing.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use basalt_engine::log_protocol::{MemberPosition, answer_to_wire};
use basalt_engine::protocol::command_log_server::{CommandLog, CommandLogServer};
use basalt_engine::protocol::{
    BYTES_PART_MAX, BytesPart, LogAnswer, LogAppendHeader, LogAppendPart, LogPosition,
    LogPositionRequest, LogPromiseRequest, LogReadRequest, MalformedMessage, WireId,
    digest_from_wire,
};
use basalt_storage::chunk_store::{ChunkStore, Identity};
use basalt_storage::command_log::copy::{Promise, check};
use basalt_storage::command_log::record::RECORD_BYTES_MAX;
use basalt_storage::command_log::{Append, LOG_DIR, LogCopy, LogError, Verdict, home, parts};
use basalt_storage::ids::{ClusterId, LogEpoch, LogWriter, WorkerId};
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

use crate::WorkerError;

/// Bytes of records in one append: the largest record, and what comes with it.
const APPEND_BYTES_MAX: usize = RECORD_BYTES_MAX + (8 << 20);
/// Bytes of records that one read hands out at least, if there are so many and it asks for them.
const READ_BYTES_MAX: u64 = 16 << 20;
/// Appends that are received at the same time: a coordinator has one under way, and one that was
/// replaced another.
const APPENDS_MAX: usize = 4;
/// How long the next part of an append may take.
const PART_TIMEOUT: Duration = Duration::from_secs(10);
/// A message is a part of at most 1 MiB, and a header.
const MESSAGE_BYTES_MAX: usize = BYTES_PART_MAX + 4096;

/// Serves a copy of the command log. Clones serve the same one.
#[derive(Debug, Clone)]
pub struct LogService {
    identity: Identity,
    held: Arc<Held>,
}

/// The copy, and what keeps every other process and worker off its folder while it may be written.
#[derive(Debug)]
struct Held {
    copy: Mutex<LogCopy>,
    /// Turns to receive an append, which may be large.
    appends: Semaphore,
    _folder: Arc<ChunkStore>,
}

impl LogService {
    /// Opens the copy in the data directory of a worker, whose store is `folder`, or makes an empty
    /// one. Blocks on the disk.
    ///
    /// # Errors
    /// [`WorkerError::DataDir`] when the folder cannot be had or read; damage is none.
    pub fn open(data_dir: &Path, folder: Arc<ChunkStore>) -> Result<Self, WorkerError> {
        let identity = folder.identity();
        let copy = home::open(data_dir, identity).map_err(|error| {
            let source = std::io::Error::other(error.to_string());
            WorkerError::DataDir { path: data_dir.join(LOG_DIR), source }
        })?;
        let appends = Semaphore::new(APPENDS_MAX);
        let held = Held { copy: Mutex::new(copy), appends, _folder: folder };
        Ok(Self { identity, held: Arc::new(held) })
    }

    /// Whose copy it is.
    pub fn worker(&self) -> WorkerId {
        self.identity.worker
    }

    /// The gRPC service, which takes only messages as short as its own.
    pub fn into_server(self) -> CommandLogServer<Self> {
        CommandLogServer::new(self).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Reads the whole copy again now and then, until the task is aborted.
    pub async fn scrub(self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            match self.scrub_now().await {
                Ok(None) => tracing::debug!("the copy of the command log is sound"),
                Ok(Some(damage)) => {
                    tracing::error!(damage, "a copy of the command log is damaged");
                }
                Err(status) => {
                    let problem = status.message();
                    tracing::warn!(problem, "the copy of the command log cannot be checked");
                }
            }
        }
    }

    /// Reads the whole copy again, while it is appended to. Says what is damaged; the copy ends
    /// before that then, and the coordinator fills it again.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn scrub_now(&self) -> Result<Option<String>, Status> {
        let part = self.with_copy(|copy| Ok(copy.checkable())).await?;
        let checked = tokio::task::spawn_blocking(move || check(&part)).await;
        let damage = checked
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| to_status(&error))?;
        if damage.is_some() {
            self.with_copy(LogCopy::reopen).await?;
        }
        Ok(damage)
    }

    fn check_cluster(&self, theirs: &[u8], message: &'static str) -> Result<(), Status> {
        let theirs = ClusterId::from_wire(theirs, message, "cluster")?;
        if theirs == self.identity.cluster {
            return Ok(());
        }
        let ours = self.identity.cluster;
        let message = format!("this worker belongs to cluster {ours}, not to {theirs}");
        Err(Status::permission_denied(message))
    }

    /// Runs `f` on a thread that may wait for the disk. It goes on when nobody waits any more.
    async fn with_copy<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut LogCopy) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, Status> {
        let held = Arc::clone(&self.held);
        let work = move || {
            let mut copy = held.copy.lock().unwrap_or_else(PoisonError::into_inner);
            let result = f(&mut copy);
            if let Err(error @ LogError::Damaged(_)) = &result {
                // It ends before the damage from now on, and the coordinator fills it again.
                tracing::error!(%error, "a copy of the command log is damaged");
                copy.reopen()?;
            }
            result
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result.map_err(|error| to_status(&error)),
            Err(error) => Err(Status::internal(error.to_string())),
        }
    }

    async fn answer(
        &self,
        f: impl FnOnce(&mut LogCopy) -> Result<Verdict, LogError> + Send + 'static,
    ) -> Result<Response<LogAnswer>, Status> {
        let Identity { cluster, worker } = self.identity;
        self.with_copy(move |copy| {
            let verdict = f(copy)?;
            let position = copy.position();
            Ok(answer_to_wire(verdict, MemberPosition { cluster, worker, position }))
        })
        .await
        .map(Response::new)
    }
}

fn to_status(error: &LogError) -> Status {
    let message = error.to_string();
    match error {
        LogError::Io { .. } | LogError::Failed { .. } => Status::unavailable(message),
        LogError::EpochOutOfRange { .. } => Status::invalid_argument(message),
        LogError::Misplaced { .. } => Status::failed_precondition(message),
        LogError::Record(_) | LogError::Damaged(_) | LogError::Diverged { .. } => {
            Status::data_loss(message)
        }
    }
}

fn promise(log_epoch: u64, writer: &[u8], message: &'static str) -> Result<Promise, Status> {
    let writer = LogWriter::from_wire(writer, message, "writer")?;
    Ok(Promise { epoch: LogEpoch(log_epoch), writer })
}

/// Reads a whole append whose header `admit` lets in, bounded.
async fn receive(
    mut parts: Streaming<LogAppendPart>,
    admit: impl Fn(&LogAppendHeader) -> Result<(), Status>,
) -> Result<(LogAppendHeader, Vec<Bytes>), Status> {
    const MESSAGE: &str = "LogAppendPart";
    let mut header = None;
    let mut data = BytesMut::new();
    let slow = |_| Status::deadline_exceeded("the next part of an append takes too long");
    while let Some(part) =
        tokio::time::timeout(PART_TIMEOUT, parts.message()).await.map_err(slow)??
    {
        match (&header, part.header) {
            (None, Some(first)) => {
                admit(&first)?;
                header = Some(first);
            }
            (Some(_), None) => {}
            _ => return Err(MalformedMessage::new(MESSAGE, "header").into()),
        }
        if data.len() + part.data.len() > APPEND_BYTES_MAX {
            return Err(Status::out_of_range("an append has too many bytes"));
        }
        data.extend_from_slice(&part.data);
    }
    let header = header.ok_or_else(|| MalformedMessage::new(MESSAGE, "header"))?;
    let records = parts::split(data.freeze());
    Ok((header, records.ok_or_else(|| MalformedMessage::new(MESSAGE, "data"))?))
}

#[tonic::async_trait]
impl CommandLog for LogService {
    async fn position(
        &self,
        _: Request<LogPositionRequest>,
    ) -> Result<Response<LogPosition>, Status> {
        let Identity { cluster, worker } = self.identity;
        let position = self.with_copy(|copy| Ok(copy.position())).await?;
        Ok(Response::new(MemberPosition { cluster, worker, position }.to_wire()))
    }

    async fn promise(
        &self,
        request: Request<LogPromiseRequest>,
    ) -> Result<Response<LogAnswer>, Status> {
        const MESSAGE: &str = "LogPromiseRequest";
        let request = request.into_inner();
        self.check_cluster(&request.cluster, MESSAGE)?;
        let promise = promise(request.log_epoch, &request.writer, MESSAGE)?;
        self.answer(move |copy| copy.promise(promise)).await
    }

    async fn append(
        &self,
        request: Request<Streaming<LogAppendPart>>,
    ) -> Result<Response<LogAnswer>, Status> {
        const MESSAGE: &str = "LogAppendHeader";
        let busy = |_| Status::resource_exhausted("too many appends are under way");
        let _turn = self.held.appends.try_acquire().map_err(busy)?;
        let admit = |header: &LogAppendHeader| self.check_cluster(&header.cluster, MESSAGE);
        let (header, records) = receive(request.into_inner(), admit).await?;
        let append = Append {
            promise: promise(header.log_epoch, &header.writer, MESSAGE)?,
            after: header.after,
            hash: digest_from_wire(&header.hash, MESSAGE)?,
            records,
            committed: header.committed,
        };
        self.answer(move |copy| copy.append(&append)).await
    }

    type ReadStream = BoxStream<'static, Result<BytesPart, Status>>;

    async fn read(
        &self,
        request: Request<LogReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        self.check_cluster(&request.cluster, "LogReadRequest")?;
        let bytes_max = usize::try_from(request.bytes_max.min(READ_BYTES_MAX)).unwrap_or(0);
        let records = self.with_copy(move |copy| copy.read(request.after, bytes_max)).await?;
        let mut data = Bytes::from(parts::join(records.iter().map(AsRef::as_ref)));
        let parts = std::iter::from_fn(move || {
            let part = data.split_to(data.len().min(BYTES_PART_MAX));
            (!part.is_empty()).then(|| Ok(BytesPart { data: part.to_vec() }))
        });
        Ok(Response::new(stream::iter(parts).boxed()))
    }
}
