//! The internal ports of a cluster, as somebody sees them who speaks raw bytes: what the tests of
//! hostile and wrong peers share.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::ArrayRef;
use arrow::util::display::array_value_to_string;
use basalt_engine::addressee::WORKER_HEADER;
use basalt_engine::channels::checksums::ChecksummedChannel;
use basalt_engine::secret::SECRET_HEADER;
use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig, Links};
use bytes::{Buf, BufMut, Bytes};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// No answer may take longer, on the slowest machine: what takes longer hangs.
pub(crate) const HANG: Duration = Duration::from_secs(60);

/// Rows of the table that [`Scene::still_answers`] reads, on all workers.
const ROWS: i64 = 10_000;

/// A cluster of three workers with a table on all of them.
pub(crate) struct Scene {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) cluster: EmbeddedCluster,
    pub(crate) client: Client,
}

impl Scene {
    pub(crate) async fn start() -> Self {
        Self::start_with(|config| config).await
    }

    pub(crate) async fn start_with(edit: impl FnOnce(EmbeddedConfig) -> EmbeddedConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig { links: Links::Network, ..EmbeddedConfig::new(dir.path(), 3) };
        let config = edit(config);
        let cluster = EmbeddedCluster::start(&config).await.unwrap();
        let mut client = Client::connect(&cluster.url()).await.unwrap();
        let create = format!(
            "CREATE TABLE t DISTKEY(x) AS SELECT value AS x, value % 10 AS y \
             FROM generate_series(1, {ROWS})"
        );
        client.execute_update(&create).await.unwrap();
        let mut scene = Self { dir, cluster, client };
        scene.still_answers().await;
        scene
    }

    /// The next query works, over all workers and with an exchange, and no row came or went.
    pub(crate) async fn still_answers(&mut self) {
        let sql = "SELECT count(*), sum(n), sum(s) FROM \
                   (SELECT y, count(*) AS n, sum(x) AS s FROM t GROUP BY y)";
        let expected = format!("10,{ROWS},{}", ROWS * (ROWS + 1) / 2);
        assert_eq!(self.one_row(sql).await, expected);
        let workers = "SELECT count(*), count(DISTINCT url), 0 FROM sys.workers";
        assert_eq!(self.one_row(workers).await, "3,3,0");
    }

    /// The values of a row of three, as text.
    pub(crate) async fn one_row(&mut self, sql: &str) -> String {
        let answer = tokio::time::timeout(HANG, self.client.query_all(sql)).await.unwrap();
        let (_, batches) = answer.unwrap();
        let batch = batches.iter().find(|batch| batch.num_rows() > 0).unwrap();
        let value = |column: &ArrayRef| array_value_to_string(column, 0).unwrap();
        batch.columns().iter().map(value).collect::<Vec<_>>().join(",")
    }

    pub(crate) fn secret(&self) -> String {
        self.cluster.coordinator().secret().expose()
    }

    /// The port of a worker, for somebody who knows the secret.
    pub(crate) fn worker(&self, index: usize) -> Port {
        let url = self.cluster.workers()[index].url().to_string();
        Port::new(&url).with_secret(self.secret())
    }

    /// The port of the coordinator, for somebody who knows the secret.
    pub(crate) fn coordinator(&self) -> Port {
        let url = format!("http://{}", self.cluster.coordinator().address());
        Port::new(&url).with_secret(self.secret())
    }
}

/// Every internal RPC, by path, and whether the coordinator serves it.
pub(crate) const RPCS: [(&str, bool); 15] = [
    ("/worker.WorkerService/CoordinatorChannel", false),
    ("/worker.WorkerService/ExecuteTask", false),
    ("/worker.WorkerService/GetWorkerInfo", false),
    ("/basalt.internal.v1.Chunks/ReadSegmentMeta", false),
    ("/basalt.internal.v1.Chunks/ReadExtent", false),
    ("/basalt.internal.v1.Ingest/Append", false),
    ("/basalt.internal.v1.Ingest/Seal", false),
    ("/basalt.internal.v1.Ingest/Abort", false),
    ("/basalt.internal.v1.Replicas/Ping", false),
    ("/basalt.internal.v1.Replicas/Put", false),
    ("/basalt.internal.v1.Replicas/Fetch", false),
    ("/basalt.internal.v1.Replicas/Inventory", false),
    ("/basalt.internal.v1.Replicas/Remove", false),
    ("/basalt.internal.v1.Membership/Register", true),
    ("/basalt.internal.v1.Membership/Heartbeat", true),
];

/// A port and what is presented there.
#[derive(Clone)]
pub(crate) struct Port {
    pub(crate) channel: ChecksummedChannel<Channel>,
    secret: Option<AsciiMetadataValue>,
    worker: Option<AsciiMetadataValue>,
}

impl Port {
    pub(crate) fn new(url: &str) -> Self {
        let endpoint = Channel::from_shared(url.to_owned()).unwrap();
        let channel = ChecksummedChannel::new(endpoint.connect_lazy(), Arc::new(|| ()));
        Self { channel, secret: None, worker: None }
    }

    pub(crate) fn with_secret(&self, secret: impl AsRef<[u8]>) -> Self {
        let secret = AsciiMetadataValue::try_from(secret.as_ref()).unwrap();
        Self { secret: Some(secret), ..self.clone() }
    }

    pub(crate) fn without_secret(&self) -> Self {
        Self { secret: None, ..self.clone() }
    }

    pub(crate) fn meant_for(&self, worker: impl AsRef<[u8]>) -> Self {
        let worker = AsciiMetadataValue::try_from(worker.as_ref()).unwrap();
        Self { worker: Some(worker), ..self.clone() }
    }

    /// Adds the secret to a request, and whom it is for.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(secret) = &self.secret {
            request.metadata_mut().insert(SECRET_HEADER, secret.clone());
        }
        if let Some(worker) = &self.worker {
            request.metadata_mut().insert(WORKER_HEADER, worker.clone());
        }
        request
    }

    /// Sends messages of raw bytes and waits for all of the answer.
    pub(crate) async fn call(
        &self,
        path: &str,
        messages: Vec<Bytes>,
    ) -> Result<Vec<Bytes>, Status> {
        let answers = async { self.open(path, stream::iter(messages)).await?.try_collect().await };
        tokio::time::timeout(HANG, answers).await.expect("an RPC hangs")
    }

    /// Sends a stream of messages of raw bytes; the answer can be read while they are sent.
    pub(crate) async fn open(
        &self,
        path: &str,
        messages: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>, Status> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let request = self.request(messages);
        let answers = grpc.streaming(request, path.parse().unwrap(), RawCodec).await?;
        Ok(answers.into_inner().boxed())
    }
}

/// Messages are the bytes they are.
#[derive(Default)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
