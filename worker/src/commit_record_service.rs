//! What this worker keeps of the catalog's commits: the service of [`CommitRecords`].
//!
//! Invariant: records are taken from the coordinator of this worker's cluster only, at an epoch no
//! older than the newest that this worker has heard of, and what an answer says is known is durable.
//! What they say is the coordinator's business: a worker knows nothing of the catalog.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use basalt_engine::commit_protocol::{RecordsPosition, mark_from_wire, put_answer_to_wire};
use basalt_engine::error::to_status;
use basalt_engine::fence::Fence;
use basalt_engine::protocol::commit_records_server::{
    CommitRecords as CommitRecordsRpc, CommitRecordsServer,
};
use basalt_engine::protocol::{
    BYTES_PART_MAX, BytesPart, CommitPosition, CommitPositionRequest, CommitPutAnswer,
    CommitPutHeader, CommitPutPart, CommitReadRequest, MESSAGE_BYTES_MAX, MalformedMessage, WireId,
};
use basalt_storage::chunk_store::{ChunkStore, Identity};
use basalt_storage::command_log::{DirDisk, Verdict};
use basalt_storage::commit_records::frame::Kind;
use basalt_storage::commit_records::{COMMITS_DIR, CommitRecords, CommitRecordsError, PutId};
use basalt_storage::ids::{ClusterId, Epoch, WorkerId};
use futures::stream::{self, BoxStream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::WorkerError;

/// Serves the commit records of a worker. Clones serve the same ones.
#[derive(Debug, Clone)]
pub struct CommitRecordService {
    identity: Identity,
    fence: Fence,
    records: Arc<Mutex<CommitRecords>>,
    /// Holds the folder's lock until the last write has ended.
    folder: Arc<ChunkStore>,
}

impl CommitRecordService {
    /// Opens the records in a worker's data directory, or begins with none. Blocks on the disk.
    ///
    /// # Errors
    /// [`WorkerError::DataDir`] when the folder cannot be had or read; damage is none.
    pub fn open(
        data_dir: &Path,
        folder: Arc<ChunkStore>,
        fence: Fence,
    ) -> Result<Self, WorkerError> {
        let path = data_dir.join(COMMITS_DIR);
        let failed = |source| WorkerError::DataDir { path: path.clone(), source };
        let disk = DirDisk::new(&path).map_err(failed)?;
        let records = CommitRecords::open(Arc::new(disk))
            .map_err(|error| failed(std::io::Error::other(error)))?;
        let (identity, records) = (folder.identity(), Arc::new(Mutex::new(records)));
        Ok(Self { identity, fence, records, folder })
    }

    /// The gRPC service.
    pub fn into_server(self) -> CommitRecordsServer<Self> {
        CommitRecordsServer::new(self).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Reads the records again every so often. What is damaged is written anew by the coordinator
    /// with the next commit.
    pub async fn scrub(self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            match self.with_records(CommitRecords::verify).await {
                Ok(None) => tracing::debug!("the commit records are sound"),
                Ok(Some(problem)) => tracing::error!(%problem, "the commit records were damaged"),
                Err(status) => {
                    let problem = status.message();
                    tracing::warn!(problem, "the commit records cannot be checked");
                }
            }
        }
    }

    fn check_cluster(&self, cluster: &[u8], message: &'static str) -> Result<(), Status> {
        let cluster = ClusterId::from_wire(cluster, message, "cluster")?;
        self.fence.check_cluster(cluster).map_err(|error| to_status(error.into()))
    }

    fn check_header(&self, header: &CommitPutHeader) -> Result<(), Status> {
        const MESSAGE: &str = "CommitPutHeader";
        self.check_cluster(&header.cluster, MESSAGE)?;
        let (ours, theirs) =
            (self.identity.worker, WorkerId::from_wire(&header.worker, MESSAGE, "worker")?);
        if ours != theirs {
            let message = format!("this is worker {ours}, not {theirs}");
            return Err(Status::permission_denied(message));
        }
        self.fence.check_epoch(Epoch(header.epoch)).map_err(|error| to_status(error.into()))
    }

    /// Runs `f` on a thread that may wait for the disk. It goes on when nobody waits any more.
    async fn with_records<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut CommitRecords) -> Result<T, CommitRecordsError> + Send + 'static,
    ) -> Result<T, Status> {
        let (records, folder) = (Arc::clone(&self.records), Arc::clone(&self.folder));
        let work = move || {
            let _folder = folder;
            f(&mut records.lock().unwrap_or_else(PoisonError::into_inner))
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result.map_err(|error| status(&error)),
            Err(error) => Err(Status::internal(error.to_string())),
        }
    }

    async fn records_position(&self) -> Result<RecordsPosition, Status> {
        let Identity { cluster, worker } = self.identity;
        let epoch = self.fence.epoch();
        self.with_records(move |records| {
            let damage = records.damage().map(str::to_owned);
            Ok(RecordsPosition { cluster, worker, epoch, known: records.position(), damage })
        })
        .await
    }

    async fn begin(&self, header: &CommitPutHeader) -> Result<Result<PutId, Verdict>, Status> {
        let malformed = || MalformedMessage::new("CommitPutHeader", "at");
        let at = mark_from_wire(header.at.as_ref().ok_or_else(malformed)?)?;
        let after = header.after.as_ref().map(mark_from_wire).transpose()?;
        let kind = if after.is_some() { Kind::Delta } else { Kind::Full };
        self.with_records(move |records| records.begin(kind, at, after)).await
    }

    /// Writes the parts of a put up to its last one.
    async fn take_parts(
        &self,
        put: PutId,
        mut next: Option<CommitPutPart>,
        parts: &mut Streaming<CommitPutPart>,
    ) -> Result<(), Status> {
        let malformed = |field| MalformedMessage::new("CommitPutPart", field);
        while let Some(CommitPutPart { header, body, is_last }) = next {
            if header.is_some() {
                return Err(malformed("header").into());
            }
            self.with_records(move |records| records.part(put, &body, is_last)).await?;
            if is_last {
                return Ok(());
            }
            next = parts.message().await?;
        }
        Err(malformed("is_last").into())
    }

    async fn answer(&self, verdict: Verdict) -> Result<Response<CommitPutAnswer>, Status> {
        let position = self.records_position().await?;
        Ok(Response::new(put_answer_to_wire(verdict, &position)))
    }
}

fn status(error: &CommitRecordsError) -> Status {
    let message = error.to_string();
    match error {
        CommitRecordsError::Io { .. } | CommitRecordsError::Failed { .. } => {
            Status::unavailable(message)
        }
        CommitRecordsError::Superseded => Status::aborted(message),
        CommitRecordsError::TooLarge { .. } => Status::out_of_range(message),
    }
}

#[tonic::async_trait]
impl CommitRecordsRpc for CommitRecordService {
    async fn position(
        &self,
        _: Request<CommitPositionRequest>,
    ) -> Result<Response<CommitPosition>, Status> {
        Ok(Response::new(self.records_position().await?.to_wire()))
    }

    async fn put(
        &self,
        request: Request<Streaming<CommitPutPart>>,
    ) -> Result<Response<CommitPutAnswer>, Status> {
        let malformed = |field| MalformedMessage::new("CommitPutPart", field);
        let mut parts = request.into_inner();
        let mut next = parts.message().await?;
        let header = next.as_mut().and_then(|part| part.header.take());
        let header = header.ok_or_else(|| malformed("header"))?;
        self.check_header(&header)?;
        let put = match self.begin(&header).await? {
            Ok(put) => put,
            Err(verdict) => return self.answer(verdict).await,
        };
        let taken = self.take_parts(put, next, &mut parts).await;
        if taken.is_err() {
            let abandon = move |records: &mut CommitRecords| {
                records.abandon(put);
                Ok(())
            };
            self.with_records(abandon).await?;
        }
        taken?;
        self.answer(Verdict::Done).await
    }

    type ReadStream = BoxStream<'static, Result<BytesPart, Status>>;

    async fn read(
        &self,
        request: Request<CommitReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        self.check_cluster(&request.into_inner().cluster, "CommitReadRequest")?;
        let file = self.with_records(|records| Ok(records.file_number())).await?;
        let next = move |(service, offset): (Self, u64)| async move {
            let read = move |records: &mut CommitRecords| {
                Ok((records.file_number(), records.read(offset, BYTES_PART_MAX)?))
            };
            let (number, bytes) = service.with_records(read).await?;
            if number != file {
                return Err(Status::aborted("the commit records were replaced: read them again"));
            }
            let after = offset + bytes.len() as u64;
            let part = BytesPart { data: bytes.to_vec() };
            Ok((!bytes.is_empty()).then_some((part, (service, after))))
        };
        Ok(Response::new(stream::try_unfold((self.clone(), 0), next).boxed()))
    }
}
