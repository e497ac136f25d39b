//! Joining the cluster, and staying alive in it.
//!
//! Heartbeats run on a thread of their own with a runtime of their own, so that a worker whose
//! query threads are all busy is not taken for dead (RULES 24).

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use basalt_engine::channels::Channels;
use basalt_engine::column_cache::ColumnCache;
use basalt_engine::fence::Fence;
use basalt_engine::protocol::membership_client::MembershipClient;
use basalt_engine::protocol::{
    HeartbeatRequest, PROTOCOL_VERSION, RegisterRequest, RegisterResponse, WireId,
};
use basalt_engine::secret::ClusterSecret;
use basalt_storage::ids::{ClusterId, Epoch, WorkerId};
use tokio::sync::watch;
use tonic::{Code, Status};
use url::Url;
use uuid::Uuid;

use crate::WorkerError;

/// Waits between attempts to reach the coordinator.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Who registers, and where.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The coordinator.
    pub coordinator: Url,
    /// The cluster secret.
    pub secret: ClusterSecret,
    /// The worker.
    pub worker: WorkerId,
    /// This process.
    pub incarnation: Uuid,
    /// Where the worker listens.
    pub url: Url,
    /// What the worker fails together with.
    pub domain: Option<String>,
    /// Its relative capacity.
    pub weight: u32,
    /// The cluster that the data directory belongs to, if any.
    pub cluster: Option<ClusterId>,
    /// The newest epoch that this process has seen.
    pub epoch: u64,
}

/// What the coordinator said.
#[derive(Debug, Clone, Copy)]
pub struct Joined {
    /// The cluster.
    pub cluster: ClusterId,
    /// The epoch of the slice map.
    pub epoch: u64,
    /// How often to send a heartbeat.
    pub heartbeat: Duration,
}

impl Registration {
    /// Registers, waiting as long as the coordinator cannot be reached.
    ///
    /// # Errors
    /// [`WorkerError::Refused`] when the coordinator answers and says no.
    pub async fn register(&self) -> Result<Joined, WorkerError> {
        let mut wait = RETRY_FIRST;
        loop {
            match self.try_register().await {
                Ok(joined) => return Ok(joined),
                Err(status) if is_passing(status.code()) => {
                    tracing::info!(coordinator = %self.coordinator, reason = status.message(),
                        "the coordinator cannot be reached yet");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(RETRY_MAX);
                }
                Err(status) => {
                    return Err(WorkerError::Refused {
                        coordinator: self.coordinator.to_string(),
                        status: Box::new(status),
                    });
                }
            }
        }
    }

    async fn try_register(&self) -> Result<Joined, Status> {
        let request = RegisterRequest {
            worker: self.worker.to_wire(),
            incarnation: self.incarnation.as_bytes().to_vec(),
            url: self.url.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: self.cluster.map(|cluster| cluster.to_wire()),
            protocol: PROTOCOL_VERSION,
            epoch: self.epoch,
            domain: self.domain.clone(),
            weight: self.weight,
        };
        let RegisterResponse { cluster, epoch, heartbeat_ms } =
            self.client()?.register(request).await?.into_inner();
        let cluster = ClusterId::from_wire(&cluster, "RegisterResponse", "cluster")?;
        let heartbeat = Duration::from_millis(heartbeat_ms.clamp(50, 60_000));
        Ok(Joined { cluster, epoch, heartbeat })
    }

    fn client(
        &self,
    ) -> Result<MembershipClient<datafusion_distributed::grpc::BoxCloneSyncChannel>, Status> {
        let internal =
            |error: datafusion::error::DataFusionError| Status::internal(error.to_string());
        let channel = Channels::new(&self.secret).map_err(internal)?.get(&self.coordinator);
        Ok(MembershipClient::new(channel.map_err(internal)?))
    }

    /// Sends heartbeats until `stop` changes.
    async fn beat(
        mut self,
        joined: Joined,
        fence: Fence,
        columns: Arc<ColumnCache>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut client = None;
        loop {
            tokio::select! {
                _ = stop.changed() => return,
                () = tokio::time::sleep(joined.heartbeat) => {}
            }
            if client.is_none() {
                client = self.client().ok();
            }
            let Some(open) = client.as_mut() else { continue };
            let request = HeartbeatRequest {
                worker: self.worker.to_wire(),
                incarnation: self.incarnation.as_bytes().to_vec(),
                epoch: fence.epoch().0,
                column_cache: Some(columns.usage().to_wire()),
            };
            match open.heartbeat(request).await {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    fence.advance(Epoch(answer.epoch));
                    if answer.register_again {
                        self.cluster = Some(joined.cluster);
                        self.epoch = fence.epoch().0;
                        match self.try_register().await {
                            Ok(again) => fence.advance(Epoch(again.epoch)),
                            Err(status) => {
                                tracing::warn!(reason = status.message(), "cannot register again");
                            }
                        }
                    }
                }
                Err(status) => {
                    tracing::debug!(reason = status.message(), "heartbeat failed");
                    // The next one goes over another connection: this one may be the reason.
                    client = None;
                }
            }
        }
    }
}

fn is_passing(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown)
}

/// The heartbeat thread of one worker process.
#[derive(Debug)]
pub struct Heartbeats {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Heartbeats {
    /// Starts the thread. What the coordinator answers advances `fence`; how `columns` is used is told.
    ///
    /// # Errors
    /// [`WorkerError::Thread`] when the machine has none left.
    pub fn start(
        registration: Registration,
        joined: Joined,
        fence: Fence,
        columns: Arc<ColumnCache>,
    ) -> Result<Self, WorkerError> {
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(WorkerError::Thread)?;
        let thread = std::thread::Builder::new()
            .name("heartbeats".to_owned())
            .spawn(move || runtime.block_on(registration.beat(joined, fence, columns, stopped)))
            .map_err(WorkerError::Thread)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Heartbeats {
    fn drop(&mut self) {
        // Ends the loop at its next turn; a call under way is bounded by the channel's timeouts,
        // so the thread is not waited for.
        let _ = self.stop.send(true);
        drop(self.thread.take());
    }
}
