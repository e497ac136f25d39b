//! A coordinator without workers, for tests that play the worker themselves.

use std::net::SocketAddr;

use basalt_coordinator::membership::Liveness;
use basalt_coordinator::reconcile::ReconcileOptions;
use basalt_coordinator::statements::pressure::SegmentLimits;
use basalt_coordinator::{Coordinator, CoordinatorConfig};
use basalt_engine::channels::LocalWorkers;
use basalt_engine::files::AllowedRoots;
use basalt_engine::protocol::membership_client::MembershipClient;
use basalt_engine::protocol::{
    HeartbeatRequest, HeartbeatResponse, PROTOCOL_VERSION, RegisterRequest, RegisterResponse,
    WireId,
};
use basalt_engine::runtime::Resources;
use basalt_engine::secret::ClusterSecret;
use basalt_storage::ids::{TxnId, WorkerId};
use tokio::task::JoinHandle;
use tonic::Status;

use crate::ports::Port;

pub(crate) struct LoneCoordinator {
    _dir: tempfile::TempDir,
    coordinator: Coordinator,
}

impl LoneCoordinator {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let coordinator = Coordinator::start(CoordinatorConfig {
            data_dir: dir.path().join("coordinator"),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            workers_expected: None,
            allowed_roots: AllowedRoots::none(),
            resources: Resources {
                memory_bytes: 64 << 20,
                spill_dir: dir.path().join("spill"),
                spill_bytes_max: 64 << 20,
            },
            local_workers: LocalWorkers::default(),
            liveness: Liveness::default(),
            reconcile: ReconcileOptions::default(),
            segment_limits: SegmentLimits::default(),
            result_cache_bytes: 0,
        });
        Self { coordinator: coordinator.await.unwrap(), _dir: dir }
    }

    pub(crate) fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    pub(crate) fn secret(&self) -> &ClusterSecret {
        self.coordinator.secret()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.coordinator.address())
    }

    pub(crate) fn grpc_url(&self) -> String {
        format!("grpc://{}", self.coordinator.address())
    }

    pub(crate) fn port(&self) -> Port {
        Port::new(&self.url()).with_secret(self.secret().expose())
    }

    /// Registers a worker that is said to listen at some port, and keeps it alive.
    pub(crate) async fn join(&self, port: u16) -> Member {
        let (request, coordinator) = (newcomer(port), self.port());
        let id = WorkerId::from_wire(&request.worker, "test", "worker").unwrap();
        let (worker, incarnation) = (request.worker.clone(), request.incarnation.clone());
        let told = incarnation.clone();
        let joined = register(&coordinator, request).await.unwrap();
        let beat =
            HeartbeatRequest { worker, incarnation, epoch: joined.epoch, column_cache: None };
        heartbeat(&coordinator, beat.clone()).await.unwrap();
        let every = std::time::Duration::from_millis(joined.heartbeat_ms);
        let beats = tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                let _answer = heartbeat(&coordinator, beat.clone()).await;
            }
        });
        Member { id, incarnation: told, beats }
    }
}

/// A worker that lives for the coordinator as long as this value does.
pub(crate) struct Member {
    pub(crate) id: WorkerId,
    /// As it registered.
    pub(crate) incarnation: Vec<u8>,
    beats: JoinHandle<()>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.beats.abort();
    }
}

/// 16 bytes that nobody has had.
pub(crate) fn fresh() -> Vec<u8> {
    TxnId::generate().to_wire()
}

/// What a new worker at some port of this machine sends.
pub(crate) fn newcomer(port: u16) -> RegisterRequest {
    RegisterRequest {
        worker: fresh(),
        incarnation: fresh(),
        url: format!("http://127.0.0.1:{port}"),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster: None,
        protocol: PROTOCOL_VERSION,
        epoch: 0,
        domain: None,
        weight: 1,
    }
}

pub(crate) async fn register(
    port: &Port,
    request: RegisterRequest,
) -> Result<RegisterResponse, Status> {
    let mut client = MembershipClient::new(port.channel.clone());
    client.register(port.request(request)).await.map(tonic::Response::into_inner)
}

pub(crate) async fn heartbeat(
    port: &Port,
    request: HeartbeatRequest,
) -> Result<HeartbeatResponse, Status> {
    let mut client = MembershipClient::new(port.channel.clone());
    client.heartbeat(port.request(request)).await.map(tonic::Response::into_inner)
}
