//! A worker that knows the secret and lies about the rows it took: whatever it says, the statement
//! fails with an error that names it, and nothing becomes visible (RULES 2, 10, 22).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use basalt_engine::channels::checksums::Checksums;
use basalt_engine::protocol::append_request::Part;
use basalt_engine::protocol::ingest_server::{Ingest, IngestServer};
use basalt_engine::protocol::replicas_server::{Replicas, ReplicasServer};
use basalt_engine::protocol::{
    AbortRequest, AbortResponse, AppendRequest, AppendResponse, FetchRequest, FetchResponse,
    InventoryPart, InventoryRequest, PingRequest, PingResponse, PutRequest, PutResponse,
    RemoveRequest, RemoveResponse, SealRequest, SealResponse, WireId,
};
use basalt_engine::snapshot::Relation;
use basalt_sql_tests::client::Client;
use basalt_storage::digest::Digest;
use basalt_storage::ids::{SegmentId, SliceId, TableId, TxnId, WorkerId};
use basalt_storage::manifest::{Layout, SegmentRecord};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

use crate::lone::LoneCoordinator;

/// What the worker says instead of the truth.
#[derive(Debug, Clone)]
struct Lies {
    appended: u64,
    sealed: Vec<Vec<u8>>,
}

/// What to say of a table's rows in a transaction.
type Script = Box<dyn Fn(TxnId, TableId) -> Lies + Send>;

#[derive(Clone)]
struct LyingWorker {
    /// Called with the transaction and the table of a statement.
    lies: Arc<Mutex<Script>>,
    asked: Arc<Mutex<Option<(TxnId, TableId)>>>,
}

impl LyingWorker {
    fn lies(&self) -> Lies {
        let (txn, table) = self.asked.lock().unwrap().unwrap();
        (self.lies.lock().unwrap())(txn, table)
    }
}

#[tonic::async_trait]
impl Ingest for LyingWorker {
    async fn append(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<AppendResponse>, Status> {
        let mut parts = request.into_inner();
        while let Some(part) = parts.message().await? {
            if let Some(Part::Header(header)) = part.part {
                let target = header.target.unwrap();
                let txn = TxnId::from_wire(&target.txn, "test", "txn")?;
                *self.asked.lock().unwrap() = Some((txn, TableId(target.table)));
            }
        }
        Ok(Response::new(AppendResponse { rows: self.lies().appended }))
    }

    type SealStream = BoxStream<'static, Result<SealResponse, Status>>;

    async fn seal(&self, _: Request<SealRequest>) -> Result<Response<Self::SealStream>, Status> {
        let records = self.lies().sealed.into_iter();
        let answers = records.map(|segment_record| Ok(SealResponse { segment_record }));
        Ok(Response::new(stream::iter(answers.collect::<Vec<_>>()).boxed()))
    }

    async fn abort(&self, _: Request<AbortRequest>) -> Result<Response<AbortResponse>, Status> {
        Ok(Response::new(AbortResponse {}))
    }
}

/// The part of a worker that says that it is there, and of that nothing but the truth.
struct Present {
    worker: WorkerId,
    incarnation: Vec<u8>,
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("this worker has no copies"))
}

#[tonic::async_trait]
impl Replicas for Present {
    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        let (worker, incarnation) = (self.worker.to_wire(), self.incarnation.clone());
        Ok(Response::new(PingResponse { worker, incarnation }))
    }

    async fn put(
        &self,
        _: Request<Streaming<PutRequest>>,
    ) -> Result<Response<PutResponse>, Status> {
        not_here()
    }

    async fn fetch(&self, _: Request<FetchRequest>) -> Result<Response<FetchResponse>, Status> {
        not_here()
    }

    type InventoryStream = BoxStream<'static, Result<InventoryPart, Status>>;

    async fn inventory(
        &self,
        _: Request<InventoryRequest>,
    ) -> Result<Response<Self::InventoryStream>, Status> {
        not_here()
    }

    async fn remove(&self, _: Request<RemoveRequest>) -> Result<Response<RemoveResponse>, Status> {
        not_here()
    }
}

/// A segment of one row that looks right.
fn record(txn: TxnId, table: TableId, holder: WorkerId) -> SegmentRecord {
    SegmentRecord {
        table,
        slice: SliceId(0),
        segment: SegmentId::generate(),
        txn,
        layout: Layout::Packed,
        rows: 1,
        row_groups: vec![1],
        columns: std::collections::BTreeMap::new(),
        meta_digest: Digest::of(b"none"),
        bytes: 1,
        holders: vec![holder],
        deleted: None,
        routed_by: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_lies_about_rows_makes_the_statement_fail_and_nothing_visible() {
    let coordinator = LoneCoordinator::start().await;
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let member = coordinator.join(listener.local_addr().unwrap().port()).await;
    let me = member.id;
    let nothing = |_, _| Lies { appended: 0, sealed: vec![] };
    let liar = LyingWorker {
        lies: Arc::new(Mutex::new(Box::new(nothing))),
        asked: Arc::new(Mutex::new(None)),
    };
    let present = Present { worker: me, incarnation: member.incarnation.clone() };
    let server = tonic::transport::Server::builder()
        .layer(Checksums)
        .add_service(IngestServer::new(liar.clone()))
        .add_service(ReplicasServer::new(present));
    let server = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let mut client = Client::connect(&coordinator.grpc_url()).await.unwrap();
    client.execute_update("CREATE TABLE t (x BIGINT)").await.unwrap();

    let check = async |lies: Box<dyn Fn(TxnId, TableId) -> Lies + Send>, named: &str| {
        *liar.lies.lock().unwrap() = lies;
        let sql = "INSERT INTO t VALUES (1)";
        let mut client = client.clone();
        let error = client.execute_update(sql).await.unwrap_err();
        assert!(format!("{error}").contains(named), "{named}: {error}");
        let (_, rows) = client.query_all("SELECT count(*) FROM t").await.unwrap();
        let shown = arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string();
        assert!(shown.contains("| 0 "), "{named}: {shown}");
    };
    let sealing = move |edit: fn(&mut SegmentRecord)| {
        Box::new(move |txn, table| {
            let mut record = record(txn, table, me);
            edit(&mut record);
            Lies { appended: 1, sealed: vec![serde_json::to_vec(&record).unwrap()] }
        })
    };
    check(Box::new(nothing), "took 0 of 1 rows").await;
    check(Box::new(|_, _| Lies { appended: 2, sealed: vec![] }), "took 2 of 1 rows").await;
    check(Box::new(|_, _| Lies { appended: 1, sealed: vec![] }), "sealed 0 of 1 rows").await;
    let garbage = |_, _| Lies { appended: 1, sealed: vec![b"{]".to_vec()] };
    check(Box::new(garbage), "malformed segment").await;
    check(sealing(|record| record.rows = 2), "sealed 2 of 1 rows").await;
    check(sealing(|record| record.txn = TxnId::generate()), "another transaction").await;
    check(sealing(|record| record.table = TableId(9_999)), "another transaction").await;
    check(sealing(|record| record.slice = SliceId(99)), "does not own").await;
    check(sealing(|record| record.holders.clear()), "does not own").await;
    check(sealing(|record| record.holders = vec![WorkerId::generate()]), "does not own").await;
    let after = coordinator.coordinator().catalog().snapshot();
    let table = &after.schemas["public"].relations["t"];
    assert!(matches!(table, Relation::Table(table) if table.segments.is_empty()));
    server.abort();
}
