//! Hostile and wrong peers on the ports of a cluster: without the secret, with garbage, with
//! requests for chunks and with rows that make no sense. Each gets a typed error, nothing happens,
//! and the next query works (FAULTS A5 45-47, 54, 58, 59; RULES 15, 19, 29).

use std::path::Path;
use std::time::Instant;

use basalt_engine::protocol::chunks_client::ChunksClient;
use basalt_engine::protocol::replicas_client::ReplicasClient;
use basalt_engine::protocol::{BytesPart, ExtentRequest, RemoveRequest, SegmentMetaRequest};
use bytes::Bytes;
use futures::TryStreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::codegen::Service;
use tonic::{Code, Status};

use crate::ports::{HANG, Port, RPCS, Scene};

impl Scene {
    fn port_of(&self, on_coordinator: bool) -> Port {
        if on_coordinator { self.coordinator() } else { self.worker(0) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_heard_without_the_very_secret() {
    let mut scene = Scene::start().await;
    let secret = scene.secret();
    let mut almost = secret.clone().into_bytes();
    *almost.last_mut().unwrap() ^= 1;
    let wrong: Vec<Option<Vec<u8>>> = vec![
        None,
        Some(vec![]),
        Some(almost),
        Some(secret.as_bytes()[..63].to_vec()),
        Some(secret.repeat(2).into_bytes()),
        Some(secret.to_uppercase().into_bytes()),
        Some(vec![0xff; 64]),
        Some("geheimnis-\u{e4}\u{20ac}".as_bytes().to_vec()),
    ];
    for (path, on_coordinator) in RPCS {
        let port = scene.port_of(on_coordinator);
        for presented in &wrong {
            let port = match presented {
                Some(presented) => port.with_secret(presented),
                None => port.without_secret(),
            };
            let refused = port.call(path, vec![Bytes::new()]).await.unwrap_err();
            assert_eq!(refused.code(), Code::Unauthenticated, "{path}: {refused:?}");
            let shown = format!("{refused:?}");
            assert!(!shown.contains(&secret) && !shown.contains("geheimnis"), "{shown}");
        }
    }
    scene.still_answers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_meant_for_a_worker_that_was_here_before_is_refused_by_every_rpc() {
    let mut scene = Scene::start().await;
    let before = "0198c0de-0000-7000-8000-000000000001";
    for (path, _) in RPCS.into_iter().filter(|(_, on_coordinator)| !on_coordinator) {
        let port = scene.port_of(false);
        let refused = port.meant_for(before).call(path, vec![Bytes::new()]).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{path}: {refused:?}");
        assert!(refused.message().ends_with(&format!("not worker {before}")), "{refused:?}");
    }
    scene.still_answers().await;
}

/// What is no message of any RPC.
fn garbage() -> Vec<Bytes> {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let random = (0..4096).map(|_| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random.to_le_bytes()[0]
    });
    vec![
        Bytes::from(vec![0xff; 100]),
        Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n"),
        // Field 1 claims 127 bytes and has two.
        Bytes::from_static(&[0x0a, 0x7f, 1, 2]),
        // Groups in groups, deeper than any message may nest.
        Bytes::from(vec![0x0b; 10_000]),
        Bytes::from(random.collect::<Vec<u8>>()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_refused_by_every_rpc() {
    let mut scene = Scene::start().await;
    for (path, on_coordinator) in RPCS {
        let port = scene.port_of(on_coordinator);
        for bytes in garbage() {
            let refused = port.call(path, vec![bytes.clone()]).await.unwrap_err();
            let typed = [Code::InvalidArgument, Code::Internal, Code::OutOfRange];
            assert!(typed.contains(&refused.code()), "{path}: {refused:?} for {bytes:?}");
            assert!(!refused.message().contains("panicked"), "{path}: {refused:?} for {bytes:?}");
        }
        // A message without any field is valid where nothing has to be said.
        let empty = port.call(path, vec![Bytes::new()]).await;
        // To remove nothing is no error either, at the newest epoch, which may be the first.
        if !path.ends_with("Replicas/Remove") {
            let valid = ["GetWorkerInfo", "Replicas/Ping", "Replicas/Inventory"];
            let is_valid = valid.iter().any(|name| path.ends_with(name));
            assert_eq!(empty.is_ok(), is_valid, "{path}: {empty:?}");
        }
        let unknown = port.call(&format!("{path}Not"), vec![Bytes::new()]).await.unwrap_err();
        assert_eq!(unknown.code(), Code::Unimplemented);
    }
    scene.still_answers().await;
}

/// Sends the first five bytes of a gRPC message, which claim a length, and nothing more.
async fn claim(port: &Port, path: &str, prefix: &'static str) -> Status {
    let uri = format!("http://localhost{path}");
    let request = tonic::codegen::http::Request::post(uri)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(prefix.to_owned()))
        .unwrap();
    let mut request = request;
    let (metadata, _, ()) = port.request(()).into_parts();
    request.headers_mut().extend(metadata.into_headers());
    let mut channel = port.channel.clone();
    std::future::poll_fn(|context| channel.poll_ready(context)).await.unwrap();
    let answer = tokio::time::timeout(HANG, channel.call(request)).await.unwrap().unwrap();
    Status::from_header_map(answer.headers()).expect("an error comes before any message")
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_claim_to_be_too_long_or_compressed_are_refused_by_their_prefix() {
    let mut scene = Scene::start().await;
    for (path, on_coordinator) in RPCS {
        let port = scene.port_of(on_coordinator);
        // 0x05000000 is 80 MiB, above MESSAGE_BYTES_MAX; 0x7f7f7f7f is 2 GiB.
        for prefix in ["\0\x05\0\0\0", "\0\x7f\x7f\x7f\x7f"] {
            let refused = claim(&port, path, prefix).await;
            assert_eq!(refused.code(), Code::OutOfRange, "{path}: {refused:?}");
        }
        let compressed = claim(&port, path, "\x01\0\0\0\x01").await;
        let is_typed = matches!(compressed.code(), Code::Unimplemented | Code::Internal);
        assert!(is_typed, "{path}: {compressed:?}");
    }
    scene.still_answers().await;
}

/// Sends bytes to a port and waits until the server has closed the connection.
async fn is_hung_up_on(address: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(HANG, stream.read_to_end(&mut answer)).await;
    // Closed in good order or reset: both are an end.
    let _ended = read.unwrap_or_else(|_| panic!("{address} keeps a connection with {bytes:?}"));
    assert!(answer.len() < 1024, "it says more than a GOAWAY: {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_protocols_are_hung_up_on() {
    let mut scene = Scene::start().await;
    let worker = scene.cluster.workers()[0].url().clone();
    let worker = format!("127.0.0.1:{}", worker.port().unwrap());
    let coordinator = scene.cluster.coordinator().address().to_string();
    let mut tls = vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
    tls.extend([0x5a; 506]);
    for address in [worker, coordinator] {
        is_hung_up_on(&address, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        is_hung_up_on(&address, b"SSH-2.0-OpenSSH_9.9\r\n").await;
        is_hung_up_on(&address, &tls).await;
        for bytes in garbage() {
            is_hung_up_on(&address, &bytes).await;
        }
        // The right preface, and then frames that are none.
        let mut preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        preface.extend([0xff; 64]);
        is_hung_up_on(&address, &preface).await;
    }
    scene.still_answers().await;
}

/// A packed segment on a worker's disk: table, slice, segment, length of its file.
fn some_segment(worker_dir: &Path) -> (u64, u32, Vec<u8>, u64) {
    let folders = |path: &Path| -> Vec<std::path::PathBuf> {
        std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    for table in folders(&worker_dir.join("chunks")) {
        for slice in folders(&table) {
            for file in folders(&slice) {
                let Some(id) = name(&file).strip_suffix(".pack.parquet").map(str::to_owned) else {
                    continue;
                };
                let segment: basalt_storage::ids::SegmentId = id.parse().unwrap();
                let length = std::fs::metadata(&file).unwrap().len();
                let segment = segment.0.as_bytes().to_vec();
                return (
                    name(&table).parse().unwrap(),
                    name(&slice).parse().unwrap(),
                    segment,
                    length,
                );
            }
        }
    }
    panic!("the table has no packed segment on this worker");
}

async fn read_extent(port: &Port, request: ExtentRequest) -> Result<Vec<u8>, Code> {
    let read = async {
        let mut client = ChunksClient::new(port.channel.clone());
        let parts = client.read_extent(port.request(request)).await?.into_inner();
        parts.try_collect::<Vec<BytesPart>>().await
    };
    let parts = tokio::time::timeout(HANG, read).await.unwrap();
    parts.map(|parts| parts.concat_data()).map_err(|status| status.code())
}

trait Concat {
    fn concat_data(self) -> Vec<u8>;
}

impl Concat for Vec<BytesPart> {
    fn concat_data(self) -> Vec<u8> {
        self.into_iter().flat_map(|part| part.data).collect()
    }
}

async fn read_meta(port: &Port, request: SegmentMetaRequest) -> Result<usize, Code> {
    let mut client = ChunksClient::new(port.channel.clone());
    match client.read_segment_meta(port.request(request)).await {
        Ok(answer) => {
            let parts = answer.into_inner().try_collect::<Vec<_>>().await;
            parts.map(|parts| parts.concat_data().len()).map_err(|status| status.code())
        }
        Err(status) => Err(status.code()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chunk_service_gives_out_chunks_and_nothing_else() {
    let mut scene = Scene::start().await;
    let port = scene.worker(0);
    let epoch = scene.cluster.coordinator().catalog().cluster().epoch.0;
    let (table, slice, segment, length) = some_segment(&scene.dir.path().join("worker-0"));
    let whole = ExtentRequest {
        epoch,
        table,
        slice,
        segment,
        packed: true,
        column: 1,
        column_version: 1,
        offset: 0,
        length,
    };
    let bytes = read_extent(&port, whole.clone()).await.unwrap();
    assert_eq!(bytes.len() as u64, length);
    assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));

    let check = async |edit: fn(&mut ExtentRequest), expected| {
        let mut request = whole.clone();
        edit(&mut request);
        assert_eq!(read_extent(&port, request.clone()).await, expected, "{request:?}");
    };
    check(|r| r.length = 0, Ok(vec![])).await;
    check(|r| (r.offset, r.length) = (0, r.length + 1), Err(Code::DataLoss)).await;
    check(|r| r.offset = r.length, Err(Code::DataLoss)).await;
    check(|r| (r.offset, r.length) = (u64::MAX, 1), Err(Code::DataLoss)).await;
    check(|r| r.length = u64::MAX, Err(Code::InvalidArgument)).await;
    check(|r| r.length = 3 << 30, Err(Code::InvalidArgument)).await;
    check(|r| r.table = u64::MAX, Err(Code::NotFound)).await;
    check(|r| r.slice = 65_535, Err(Code::NotFound)).await;
    check(|r| r.slice = 65_536, Err(Code::InvalidArgument)).await;
    check(|r| r.segment = b"../../etc/passwd".to_vec(), Err(Code::NotFound)).await;
    check(|r| r.segment = b"../../../../../../etc/passwd".to_vec(), Err(Code::InvalidArgument))
        .await;
    check(|r| r.segment.clear(), Err(Code::InvalidArgument)).await;
    check(|r| (r.packed, r.column) = (false, u32::MAX), Err(Code::NotFound)).await;

    let meta = |segment: &[u8], epoch| SegmentMetaRequest {
        epoch,
        table,
        slice,
        segment: segment.to_vec(),
        packed: true,
    };
    assert!(read_meta(&port, meta(&whole.segment, epoch)).await.unwrap() > 100);
    let path_like = read_meta(&port, meta(b"../../etc/passwd", epoch)).await;
    assert_eq!(path_like, Err(Code::NotFound));
    assert_eq!(read_meta(&port, meta(b"..", epoch)).await, Err(Code::InvalidArgument));

    // What was planned before slices moved may go on to read: bytes never change.
    scene.fenced(0).await;
    let old = ExtentRequest { epoch: 0, ..whole.clone() };
    assert_eq!(read_extent(&port, old).await, Ok(bytes));
    assert!(read_meta(&port, meta(&whole.segment, 0)).await.unwrap() > 100);
    scene.still_answers().await;
}

impl Scene {
    /// Waits until a worker has heard of the epoch of the slice map, with its next heartbeat.
    pub(crate) async fn fenced(&self, worker: usize) {
        let (port, started) = (self.worker(worker), Instant::now());
        let mut client = ReplicasClient::new(port.channel.clone());
        let mut is_fenced = async || {
            let nothing = port.request(RemoveRequest { epoch: 0, segments: vec![] });
            client.remove(nothing).await.is_err_and(|status| status.code() == Code::Aborted)
        };
        while !is_fenced().await {
            assert!(started.elapsed() < HANG, "the worker never hears of the epoch");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}
