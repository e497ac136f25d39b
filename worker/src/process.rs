//! Starting and stopping a worker.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use basalt_engine::addressee;
use basalt_engine::channels::checksums::Checksums;
use basalt_engine::channels::{Channels, LocalWorkers};
use basalt_engine::column_cache::ColumnCache;
use basalt_engine::fence::Fence;
use basalt_engine::protocol::MESSAGE_BYTES_MAX;
use basalt_engine::protocol::chunks_server::ChunksServer;
use basalt_engine::protocol::ingest_server::IngestServer;
use basalt_engine::protocol::replicas_server::ReplicasServer;
use basalt_engine::session::WorkerServices;
use basalt_storage::chunk_store::{ChunkStore, Identity};
use basalt_storage::durable_write::create_dir_durable;
use basalt_storage::ids::{Epoch, WorkerId};
use basalt_storage::vfs::{RealVfs, Vfs};
use datafusion::execution::memory_pool::MemoryPool;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::service::InterceptorLayer;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use url::Url;
use uuid::Uuid;

use crate::append_sink::AppendSink;
use crate::chunk_service::ChunkService;
use crate::chunk_source::WorkerChunks;
use crate::commit_record_service::CommitRecordService;
use crate::early_log::EarlyLog;
use crate::fragment_gate::FragmentGate;
use crate::fragments::fragment_runner;
use crate::ingest_service::IngestService;
use crate::lent::Lender;
use crate::log_service::LogService;
use crate::panics::CatchPanics;
use crate::registration::{Heartbeats, Joined, Registration};
use crate::replicas::fetch::Fetcher;
use crate::replicas::healer::Healer;
use crate::replicas::sender::ReplicaSender;
use crate::replicas::service::ReplicaService;
use crate::staging::Staging;
use crate::task_sweep::sweep_tasks;
use crate::{WorkerConfig, WorkerError};

/// HTTP/2 flow-control windows of the server side, in bytes; as in `Channels`.
const WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// A ping goes out after this long without a frame, and must be answered within as long again.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Bytes of headers a request may have: the secret and the settings of a fragment.
const HEADER_BYTES_MAX: u32 = 64 << 10;
/// How often the copy of the command log is read again: it is small, and all of it is needed when
/// it is needed.
const LOG_SCRUB_EVERY: Duration = Duration::from_secs(3600);
/// How long a stopping worker waits for requests under way.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a stopping worker looks whether its directory is free.
const RELEASE_POLL: Duration = Duration::from_millis(2);

/// A worker that has joined its cluster and serves.
#[derive(Debug)]
pub struct Worker {
    id: WorkerId,
    url: Url,
    local_workers: LocalWorkers,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
    store: Weak<()>,
    lender: Option<Lender>,
    memory: Arc<dyn MemoryPool>,
    _heartbeats: Heartbeats,
    log_scrub: JoinHandle<()>,
    task_sweep: JoinHandle<()>,
}

impl Worker {
    /// Starts a worker: takes its data directory, joins the cluster, serves. Waits for the
    /// coordinator as long as it cannot be reached.
    ///
    /// # Errors
    /// [`WorkerError`] when the directory, the address or the cluster refuses it.
    pub async fn start(config: WorkerConfig) -> Result<Self, WorkerError> {
        if !config.listen.ip().is_loopback() {
            return Err(WorkerError::NotLoopback { address: config.listen.to_string() });
        }
        let listener = listen(config.listen).await?;
        let url = advertised(&config, &listener)?;
        let listen_error =
            |source| WorkerError::Listen { address: config.listen.to_string(), source };
        let listener = listener.into_std().map_err(listen_error)?;
        let (store, log, registration, joined) = join(&config, url.clone(), &listener).await?;
        let listener = TcpListener::from_std(listener).map_err(listen_error)?;
        let id = store.identity().worker;
        let local_workers = config.local_workers.clone();
        let channels = Channels::new(&config.secret)?.with_local(local_workers.clone());
        let fence = Fence::new(joined.cluster, Epoch(joined.epoch));
        let commits = open_commits(&config.data_dir, &store, &fence).await?;
        let fetcher = Fetcher::new(Arc::clone(&store), channels.clone());
        let replicas = Arc::new(ReplicaSender::new(channels.clone()));
        let columns = Arc::new(ColumnCache::new(config.column_cache_bytes));
        let runtime = config.resources.runtime_beside(Arc::clone(&columns))?;
        let staging = Arc::new(Staging::new(
            Arc::clone(&store),
            fence.clone(),
            replicas,
            config.load_memory_bytes,
            &runtime.memory_pool,
        ));
        let copies = ReplicaService::new(
            Arc::clone(&store),
            fence.clone(),
            Arc::clone(&staging),
            fetcher.clone(),
            registration.incarnation,
        );
        let healer = Healer::start(fetcher.clone());
        let lender = Lender::new(
            WorkerChunks::new(Arc::clone(&store), channels.clone(), healer),
            AppendSink::new(id, Arc::clone(&staging), channels.clone()),
        );
        let services = WorkerServices {
            chunks: lender.chunks(),
            columns: Arc::clone(&columns),
            sink: lender.sink(),
            allowed_roots: config.allowed_roots.clone(),
            channels,
            fence: fence.clone(),
            query_memory_bytes: config.query_memory_bytes,
        };
        let memory = Arc::clone(&runtime.memory_pool);
        let (runner, sessions) = fragment_runner(services, runtime)?;
        let fragments = runner
            .clone()
            .into_worker_server()
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let held = store.alive();
        let secret = config.secret.clone();
        let (stop, stopped) = oneshot::channel::<()>();
        // The server's own option does not reach connections that come from outside of it, and
        // with Nagle's algorithm every small exchange waits 40 ms for a delayed acknowledgement.
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let (log_scrub, commits_scrub) =
            (log.clone().scrub(LOG_SCRUB_EVERY), commits.clone().scrub(LOG_SCRUB_EVERY));
        let log_scrub = tokio::spawn(async { tokio::join!(log_scrub, commits_scrub).0 });
        let server = Server::builder()
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .http2_max_header_list_size(HEADER_BYTES_MAX)
            .layer(InterceptorLayer::new(move |request| secret.admit(request)))
            .layer(Checksums)
            // Behind the checksums: what it says is summed up, too.
            .layer(InterceptorLayer::new(move |request| addressee::admit(id, request)))
            .layer(CatchPanics)
            .add_service(FragmentGate::new(fragments))
            .add_service(log.into_server())
            .add_service(commits.into_server())
            .add_service(ChunksServer::new(ChunkService::new(store)))
            .add_service(ReplicasServer::new(copies).max_decoding_message_size(MESSAGE_BYTES_MAX))
            .add_service(
                IngestServer::new(IngestService::new(staging))
                    .max_decoding_message_size(MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(MESSAGE_BYTES_MAX),
            )
            .serve_with_incoming_shutdown(incoming, async {
                let _ = stopped.await;
            });
        let server = tokio::spawn(server);
        let heartbeats = Heartbeats::start(registration, joined, fence, columns)?;
        let task_sweep = sweep_tasks(runner.clone());
        local_workers.add(url.clone(), runner, sessions);
        tracing::info!(worker = %id, %url, cluster = %joined.cluster, "worker joined the cluster");
        Ok(Self {
            id,
            url,
            local_workers,
            stop: Some(stop),
            server,
            store: held,
            lender: Some(lender),
            memory,
            _heartbeats: heartbeats,
            log_scrub,
            task_sweep,
        })
    }

    /// The worker's id.
    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// Where it serves.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Bytes that queries and rows of writes have reserved of the worker's memory now.
    pub fn memory_reserved_bytes(&self) -> usize {
        self.memory.reserved()
    }

    /// Stops taking requests, lets those under way end for a while, and returns once the data
    /// directory is free for another process; checks of copies that take longer keep it locked.
    pub async fn stop(mut self) {
        self.local_workers.remove(&self.url);
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if tokio::time::timeout(STOP_TIMEOUT, &mut self.server).await.is_err() {
            self.server.abort();
        }
        self.log_scrub.abort();
        self.task_sweep.abort();
        self.lender = None;
        // Tasks that were told to end do so when the runtime comes to them.
        let store = self.store.clone();
        let released = async {
            while store.strong_count() > 0 {
                tokio::time::sleep(RELEASE_POLL).await;
            }
        };
        if tokio::time::timeout(STOP_TIMEOUT, released).await.is_err() {
            tracing::warn!(worker = %self.id, "the data directory is still in use");
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.local_workers.remove(&self.url);
        self.log_scrub.abort();
        self.task_sweep.abort();
        self.server.abort();
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, WorkerError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| WorkerError::Listen { address: address.to_string(), source })
}

fn advertised(config: &WorkerConfig, listener: &TcpListener) -> Result<Url, WorkerError> {
    if let Some(url) = &config.advertise {
        return Ok(url.clone());
    }
    let listen = |source| WorkerError::Listen { address: config.listen.to_string(), source };
    let address = listener.local_addr().map_err(listen)?;
    Url::parse(&format!("http://{address}"))
        .map_err(|error| listen(io::Error::new(io::ErrorKind::InvalidInput, error)))
}

/// Opens the commit records, all of which are read, on a thread that may wait.
async fn open_commits(
    dir: &Path,
    store: &Arc<ChunkStore>,
    fence: &Fence,
) -> Result<CommitRecordService, WorkerError> {
    let (path, store, fence) = (dir.to_owned(), Arc::clone(store), fence.clone());
    let open = move || CommitRecordService::open(&path, store, fence);
    let opened = tokio::task::spawn_blocking(open).await;
    opened.unwrap_or_else(|error| {
        let source = io::Error::other(error);
        Err(WorkerError::DataDir { path: dir.to_owned(), source })
    })
}

/// Opens the copy of the command log, all of which is read, on a thread that may wait.
async fn open_log(dir: &Path, store: &Arc<ChunkStore>) -> Result<LogService, WorkerError> {
    let (path, store) = (dir.to_owned(), Arc::clone(store));
    let opened = tokio::task::spawn_blocking(move || LogService::open(&path, store)).await;
    opened.unwrap_or_else(|error| {
        let source = io::Error::other(error);
        Err(WorkerError::DataDir { path: dir.to_owned(), source })
    })
}

/// Opens the data directory and registers. A directory with an identity is locked first, so that a
/// second process on it never reaches the coordinator, and its copy of the command log is served
/// meanwhile.
async fn join(
    config: &WorkerConfig,
    url: Url,
    listener: &std::net::TcpListener,
) -> Result<(Arc<ChunkStore>, LogService, Registration, Joined), WorkerError> {
    let dir = &config.data_dir;
    let io = |source| WorkerError::DataDir { path: dir.clone(), source };
    create_dir_durable(dir).map_err(io)?;
    fs::create_dir_all(&config.resources.spill_dir).map_err(io)?;
    let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
    let known = ChunkStore::read_identity(dir, vfs.as_ref())?;
    let opened = match known {
        Some(identity) => {
            let store = Arc::new(ChunkStore::open(dir, identity, Arc::clone(&vfs))?);
            let log = open_log(dir, &store).await?;
            Some((store, log))
        }
        None => None,
    };
    let registration = Registration {
        coordinator: config.coordinator.clone(),
        secret: config.secret.clone(),
        // Durable before anybody hears of it: a worker that dies while it joins is no new one.
        worker: ChunkStore::reserve_worker(dir, vfs.as_ref())?,
        incarnation: Uuid::new_v4(),
        url,
        domain: config.domain.clone(),
        weight: config.weight,
        cluster: known.map(|identity| identity.cluster),
        epoch: 0,
    };
    let early = opened
        .as_ref()
        .map(|(_, log)| EarlyLog::start(listener, config.secret.clone(), log.clone()).map_err(io));
    let early = early.transpose()?;
    let joined = registration.register().await?;
    if let Some(early) = early {
        early.stop().await;
    }
    let (store, log) = match opened {
        Some(opened) => opened,
        None => {
            let identity = Identity { cluster: joined.cluster, worker: registration.worker };
            let store = Arc::new(ChunkStore::open(dir, identity, vfs)?);
            let log = open_log(dir, &store).await?;
            (store, log)
        }
    };
    Ok((store, log, registration, joined))
}
