//! What the coordinator and peers may ask of a worker about copies.
//!
//! Every request that writes or removes carries an epoch: what was decided before the slices moved
//! is refused (RULES 15).

use std::sync::Arc;

use basalt_engine::error::to_status;
use basalt_engine::fence::Fence;
use basalt_engine::protocol::put_request::Part;
use basalt_engine::protocol::replicas_server::Replicas;
use basalt_engine::protocol::{
    Endpoint, FetchRequest, FetchResponse, InventoryPart, InventoryRequest, PingRequest,
    PingResponse, PutRequest, PutResponse, RemoveRequest, RemoveResponse, WireId,
};
use basalt_storage::chunk_store::{ChunkStore, SegmentCopy};
use basalt_storage::error::StorageError;
use basalt_storage::fail_point::{self, FailPoint};
use basalt_storage::ids::{ClusterId, Epoch, WorkerId};
use futures::stream::{self, BoxStream, StreamExt};
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::fetch::{FetchError, Fetcher, Source};
use super::receive::{Receiving, malformed};
use super::wire;
use crate::staging::Staging;

/// Segments in one message of an inventory.
const INVENTORY_PART: usize = 1_000;

/// Serves copies of segments.
#[derive(Debug, Clone)]
pub struct ReplicaService {
    store: Arc<ChunkStore>,
    fence: Fence,
    staging: Arc<Staging>,
    fetcher: Fetcher,
    incarnation: Uuid,
}

impl ReplicaService {
    /// A service of one run of a worker.
    pub fn new(
        store: Arc<ChunkStore>,
        fence: Fence,
        staging: Arc<Staging>,
        fetcher: Fetcher,
        incarnation: Uuid,
    ) -> Self {
        Self { store, fence, staging, fetcher, incarnation }
    }

    fn check_epoch(&self, epoch: u64) -> Result<(), Status> {
        self.fence.check_epoch(Epoch(epoch)).map_err(|error| to_status(error.into()))
    }

    async fn header(&self, parts: &mut Streaming<PutRequest>) -> Result<SegmentCopy, Status> {
        let header = match parts.message().await?.and_then(|request| request.part) {
            Some(Part::Header(header)) => header,
            _ => return Err(malformed("header").into()),
        };
        self.check_epoch(header.epoch)?;
        let cluster = ClusterId::from_wire(&header.cluster, "PutHeader", "cluster")?;
        self.fence.check_cluster(cluster).map_err(|error| to_status(error.into()))?;
        let segment = header.segment.as_ref().ok_or_else(|| malformed("segment"))?;
        Ok(wire::from_wire(segment)?)
    }
}

fn status(error: &StorageError) -> Status {
    match error {
        StorageError::Corrupt { .. } => Status::data_loss(error.to_string()),
        StorageError::InvalidRequest { .. } => Status::invalid_argument(error.to_string()),
        _ => Status::unavailable(error.to_string()),
    }
}

fn source(endpoint: &Endpoint) -> Result<Source, Status> {
    const MESSAGE: &str = "FetchRequest";
    let url = endpoint.url.parse();
    let malformed = || basalt_engine::protocol::MalformedMessage::new(MESSAGE, "sources");
    Ok(Source {
        worker: WorkerId::from_wire(&endpoint.worker, MESSAGE, "sources")?,
        url: url.map_err(|_| malformed())?,
    })
}

#[tonic::async_trait]
impl Replicas for ReplicaService {
    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        Ok(Response::new(PingResponse {
            worker: self.store.identity().worker.to_wire(),
            incarnation: self.incarnation.as_bytes().to_vec(),
        }))
    }

    async fn put(
        &self,
        request: Request<Streaming<PutRequest>>,
    ) -> Result<Response<PutResponse>, Status> {
        let mut parts = request.into_inner();
        let copy = self.header(&mut parts).await?;
        self.staging.expect_copy(&copy).map_err(to_status)?;
        let receiving = Receiving::start(Arc::clone(&self.store), copy.clone());
        while let Some(request) = parts.message().await? {
            let Some(Part::Data(part)) = request.part else {
                return Err(malformed("part").into());
            };
            if !receiving.part(part).await {
                break;
            }
        }
        receiving.finish().await.map_err(|error| status(&error))?;
        let (staging, kept) = (Arc::clone(&self.staging), copy);
        tokio::task::spawn_blocking(move || staging.keep_copy(kept))
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(to_status)?;
        fail_point::hit(FailPoint::CopyBeforeReply);
        Ok(Response::new(PutResponse {}))
    }

    async fn fetch(
        &self,
        request: Request<FetchRequest>,
    ) -> Result<Response<FetchResponse>, Status> {
        let request = request.into_inner();
        self.check_epoch(request.epoch)?;
        let segment = request.segment.as_ref().ok_or_else(|| malformed("segment"))?;
        let copy = wire::from_wire(segment)?;
        let sources = request.sources.iter().map(source).collect::<Result<Vec<_>, _>>()?;
        let fetched = self.fetcher.fetch(Epoch(request.epoch), &copy, &sources).await;
        match fetched {
            Ok(bytes) => Ok(Response::new(FetchResponse { bytes })),
            Err(FetchError::Local(error)) => Err(status(&error)),
            Err(error @ FetchError::NoSource { .. }) => Err(Status::not_found(error.to_string())),
        }
    }

    type InventoryStream = BoxStream<'static, Result<InventoryPart, Status>>;

    async fn inventory(
        &self,
        _: Request<InventoryRequest>,
    ) -> Result<Response<Self::InventoryStream>, Status> {
        let store = Arc::clone(&self.store);
        let listed = tokio::task::spawn_blocking(move || store.list_segments())
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| status(&error))?;
        let parts: Vec<_> = listed
            .chunks(INVENTORY_PART)
            .map(|part| {
                let named = part.iter().map(|(key, layout)| wire::key_to_wire(*key, *layout));
                Ok(InventoryPart { segments: named.collect() })
            })
            .collect();
        Ok(Response::new(stream::iter(parts).boxed()))
    }

    async fn remove(
        &self,
        request: Request<RemoveRequest>,
    ) -> Result<Response<RemoveResponse>, Status> {
        let request = request.into_inner();
        self.check_epoch(request.epoch)?;
        let segments = request.segments.iter().map(wire::key_from_wire);
        let segments = segments.collect::<Result<Vec<_>, _>>()?;
        let (store, staging) = (Arc::clone(&self.store), Arc::clone(&self.staging));
        let removed = tokio::task::spawn_blocking(move || {
            // A segment that is on the disk is never begun again, so once is enough.
            let being_written = staging.segments_being_written();
            let mut removed = 0;
            for (key, layout) in segments {
                if !being_written.contains(&key.segment) {
                    store.remove_segment(key, layout)?;
                    removed += 1;
                }
            }
            Ok::<_, StorageError>(removed)
        })
        .await
        .map_err(|error| Status::internal(error.to_string()))?
        .map_err(|error| status(&error))?;
        Ok(Response::new(RemoveResponse { removed }))
    }
}
