//! Registration and heartbeats over gRPC, on the same port as Flight SQL, behind the secret.
//!
//! What a message may hold is short and known, so what is longer is refused before it is read:
//! it would end up in logs and in the error texts of others.

use std::sync::Arc;

use basalt_engine::channels::PEER_ADDRESS_BYTES_MAX;
use basalt_engine::column_cache::ColumnCacheUse;
use basalt_engine::protocol::membership_server::{Membership, MembershipServer};
use basalt_engine::protocol::{
    HeartbeatRequest, HeartbeatResponse, MalformedMessage, RegisterRequest, RegisterResponse,
    WORKER_WEIGHT_MAX, WireId, domain_problem,
};
use basalt_storage::ids::{ClusterId, Epoch, WorkerId};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::catalog::Catalog;
use crate::membership::{Beat, Incarnation, Join, Members, Refusal, RegisterError, Versions};
use crate::placement::Candidate;

/// A registration has ids, an address and a version: some 200 bytes.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// A version is three numbers, with room for a name.
const VERSION_BYTES_MAX: usize = 64;

/// Serves the members of one cluster.
#[derive(Clone)]
pub struct MembershipService {
    catalog: Catalog,
    members: Arc<Members>,
}

impl MembershipService {
    /// A service over the members of a cluster.
    pub fn new(catalog: Catalog, members: Arc<Members>) -> Self {
        Self { catalog, members }
    }

    /// The gRPC service, which takes only messages as short as its own.
    pub fn into_server(self) -> MembershipServer<Self> {
        MembershipServer::new(self).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

fn incarnation(bytes: &[u8], message: &'static str) -> Result<Incarnation, Status> {
    Uuid::from_slice(bytes)
        .map(Incarnation)
        .map_err(|_| MalformedMessage::new(message, "incarnation").into())
}

/// What a worker says of itself, if it can be so.
fn candidate(weight: u32, domain: Option<String>) -> Result<Candidate, MalformedMessage> {
    let malformed = |field| MalformedMessage::new("RegisterRequest", field);
    if !(1..=WORKER_WEIGHT_MAX).contains(&weight) {
        return Err(malformed("weight"));
    }
    if domain.as_deref().is_some_and(|domain| domain_problem(domain).is_some()) {
        return Err(malformed("domain"));
    }
    Ok(Candidate { weight, domain })
}

fn refused(error: &RegisterError) -> Status {
    let message = error.to_string();
    match error {
        RegisterError::Refused(refusal) if refusal.is_retryable() => Status::unavailable(message),
        RegisterError::Refused(Refusal::BadAddress { .. }) => Status::invalid_argument(message),
        RegisterError::Refused(_) => Status::failed_precondition(message),
        RegisterError::Catalog(error) if error.is_retryable() => Status::unavailable(message),
        RegisterError::Catalog(_) => Status::internal(message),
    }
}

#[tonic::async_trait]
impl Membership for MembershipService {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        const MESSAGE: &str = "RegisterRequest";
        let request = request.into_inner();
        if request.version.len() > VERSION_BYTES_MAX {
            return Err(MalformedMessage::new(MESSAGE, "version").into());
        }
        if request.url.len() > PEER_ADDRESS_BYTES_MAX {
            return Err(MalformedMessage::new(MESSAGE, "url").into());
        }
        let cluster = match &request.cluster {
            Some(bytes) => Some(ClusterId::from_wire(bytes, MESSAGE, "cluster")?),
            None => None,
        };
        let join = Join {
            cluster,
            worker: WorkerId::from_wire(&request.worker, MESSAGE, "worker")?,
            incarnation: incarnation(&request.incarnation, MESSAGE)?,
            url: request.url.parse().map_err(|_| MalformedMessage::new(MESSAGE, "url"))?,
            versions: Versions { binary: request.version, protocol: request.protocol },
            epoch: Epoch(request.epoch),
            candidate: candidate(request.weight, request.domain)?,
        };
        let registered = self.members.register(join).await.map_err(|error| {
            tracing::warn!(%error, "a registration is refused");
            refused(&error)
        })?;
        Ok(Response::new(RegisterResponse {
            cluster: registered.cluster.to_wire(),
            epoch: registered.epoch.0,
            heartbeat_ms: u64::try_from(registered.heartbeat_every.as_millis()).unwrap_or(u64::MAX),
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        const MESSAGE: &str = "HeartbeatRequest";
        let request = request.into_inner();
        let worker = WorkerId::from_wire(&request.worker, MESSAGE, "worker")?;
        let incarnation = incarnation(&request.incarnation, MESSAGE)?;
        let beat = self.members.heartbeat(worker, incarnation, Epoch(request.epoch));
        let register_again = match beat {
            Beat::Alive { .. } => {
                if let Some(usage) = request.column_cache {
                    self.members.note_column_cache(worker, ColumnCacheUse::from_wire(usage));
                }
                false
            }
            Beat::Register => true,
            Beat::FutureEpoch => {
                return Err(Status::failed_precondition(
                    "this coordinator knows only an older epoch than the worker",
                ));
            }
        };
        let epoch = self.catalog.cluster().epoch.0;
        Ok(Response::new(HeartbeatResponse { epoch, register_again }))
    }
}
