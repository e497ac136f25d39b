//! Wrong and hostile members: who may register and send heartbeats, one process per data
//! directory, and a worker of another cluster behind a known address (FAULTS A5 60, F29, F58;
//! RULES 15, 19, 35).

use std::net::SocketAddr;
use std::sync::Arc;

use basalt_engine::channels::LocalWorkers;
use basalt_engine::files::AllowedRoots;
use basalt_engine::protocol::{HeartbeatRequest, HeartbeatResponse, RegisterRequest, WireId};
use basalt_engine::runtime::Resources;
use basalt_sql_tests::client::Client;
use basalt_sql_tests::cluster::{EmbeddedCluster, EmbeddedConfig};
use basalt_storage::chunk_store::ChunkStore;
use basalt_storage::error::StorageError;
use basalt_storage::ids::ClusterId;
use basalt_storage::vfs::RealVfs;
use basalt_worker::{Worker, WorkerConfig, WorkerError};
use tonic::Code;

use crate::lone::{LoneCoordinator, fresh, heartbeat, newcomer, register};
use crate::ports::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_makes_no_sense_is_refused_and_recorded_nowhere() {
    let mut scene = Scene::start().await;
    let port = scene.coordinator();
    let cluster = scene.cluster.coordinator().catalog().cluster();
    let check = async |edit: &dyn Fn(&mut RegisterRequest), code, named: &str| {
        let mut request = newcomer(1);
        edit(&mut request);
        let refused = register(&port, request).await.unwrap_err();
        assert_eq!(refused.code(), code, "{named}: {refused:?}");
        assert!(refused.message().contains(named), "{named}: {refused:?}");
        assert!(refused.message().len() < 512, "{} bytes", refused.message().len());
    };
    let other = Some(ClusterId::generate().to_wire());
    check(&|r| r.cluster.clone_from(&other), Code::FailedPrecondition, "belongs to cluster").await;
    check(&|r| r.cluster = Some(vec![1]), Code::InvalidArgument, "cluster").await;
    check(&|r| r.protocol += 1, Code::FailedPrecondition, "the worker runs version").await;
    check(&|r| r.version = "0.0.1".into(), Code::FailedPrecondition, "version 0.0.1").await;
    check(&|r| r.version = "9".repeat(1000), Code::InvalidArgument, "version").await;
    check(&|r| r.epoch = u64::MAX, Code::FailedPrecondition, "has seen epoch").await;
    check(&|r| r.worker = b"../..".to_vec(), Code::InvalidArgument, "worker").await;
    check(&|r| r.incarnation.clear(), Code::InvalidArgument, "incarnation").await;
    for url in ["", "not a URL", "/etc/passwd"] {
        check(&|r| r.url = url.into(), Code::InvalidArgument, "url").await;
    }
    for url in [
        "http://169.254.169.254/",
        "http://10.1.2.3:50052",
        "http://example.org:50052",
        "http://127.0.0.1:0",
        "http://127.0.0.1:1/path",
        "http://user:password@127.0.0.1:1",
        "file:///etc/passwd",
    ] {
        check(&|r| r.url = url.into(), Code::InvalidArgument, "is not http://host:port").await;
    }
    let long =
        |bytes| move |r: &mut RegisterRequest| r.url = format!("http://{}:1", "x".repeat(bytes));
    check(&long(1_000), Code::InvalidArgument, "url").await;
    check(&long(1 << 20), Code::OutOfRange, "too large").await;
    // The id and the address of workers that live.
    let live = scene.cluster.workers()[0].id().to_wire();
    check(&|r| r.worker.clone_from(&live), Code::Unavailable, "is live at").await;
    let taken = scene.cluster.workers()[1].url().to_string();
    check(&|r| r.url.clone_from(&taken), Code::Unavailable, "is live at").await;
    assert_eq!(scene.cluster.coordinator().catalog().cluster(), cluster, "nothing was recorded");
    scene.still_answers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_of_strangers_and_of_the_future_change_nothing() {
    let mut scene = Scene::start().await;
    let port = scene.coordinator();
    let epoch = scene.cluster.coordinator().catalog().cluster().epoch.0;
    let known = scene.cluster.workers()[0].id().to_wire();
    let beat = async |worker: Vec<u8>, epoch| {
        heartbeat(
            &port,
            HeartbeatRequest { worker, incarnation: fresh(), epoch, column_cache: None },
        )
        .await
    };
    let told = HeartbeatResponse { epoch, register_again: true };
    assert_eq!(beat(fresh(), epoch).await.unwrap(), told, "an unknown worker");
    assert_eq!(beat(known.clone(), epoch).await.unwrap(), told, "another incarnation");
    assert_eq!(beat(known.clone(), 0).await.unwrap(), told, "of an older epoch");
    let future = beat(known, epoch + 1).await.unwrap_err();
    assert_eq!(future.code(), Code::FailedPrecondition);
    assert_eq!(beat(b"short".to_vec(), epoch).await.unwrap_err().code(), Code::InvalidArgument);
    scene.still_answers().await;
}

fn worker_config(scene: &Scene, dir: &str) -> WorkerConfig {
    let data_dir = scene.dir.path().join(dir);
    let resources = Resources {
        memory_bytes: 64 << 20,
        spill_dir: data_dir.join("spill"),
        spill_bytes_max: 64 << 20,
    };
    let coordinator = scene.cluster.coordinator();
    WorkerConfig {
        data_dir,
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        advertise: None,
        domain: None,
        weight: 1,
        coordinator: format!("http://{}", coordinator.address()).parse().unwrap(),
        secret: coordinator.secret().clone(),
        allowed_roots: AllowedRoots::none(),
        resources,
        query_memory_bytes: 64 << 20,
        load_memory_bytes: 64 << 20,
        column_cache_bytes: 0,
        local_workers: LocalWorkers::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_a_data_directory_never_reaches_the_coordinator() {
    let mut scene = Scene::start().await;
    let second = Worker::start(worker_config(&scene, "worker-1")).await.unwrap_err();
    assert!(matches!(second, WorkerError::Storage(StorageError::Locked { .. })), "{second}");
    let mut wrong = worker_config(&scene, "worker-of-nobody");
    wrong.secret = basalt_engine::secret::ClusterSecret::generate().unwrap();
    let refused = Worker::start(wrong).await.unwrap_err();
    assert!(matches!(refused, WorkerError::Refused { .. }), "{refused}");
    assert!(!refused.to_string().contains(&scene.secret()));
    scene.still_answers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_cluster_is_refused_and_stays_as_it_was() {
    let mut scene = Scene::start().await;
    let other = LoneCoordinator::start().await;
    let mut config = worker_config(&scene, "of-another-cluster");
    (config.coordinator, config.secret) = (other.url().parse().unwrap(), other.secret().clone());
    let worker = Worker::start(config.clone()).await.unwrap();
    worker.stop().await;
    let before = std::fs::read(config.data_dir.join("IDENTITY.json")).unwrap();
    let here = worker_config(&scene, "of-another-cluster");
    let refused = Worker::start(here).await.unwrap_err();
    assert!(refused.to_string().contains("belongs to cluster"), "{refused}");
    assert_eq!(std::fs::read(config.data_dir.join("IDENTITY.json")).unwrap(), before);
    scene.still_answers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_has_run_queries_frees_its_directory_when_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = EmbeddedCluster::start(&EmbeddedConfig::new(dir.path(), 2)).await.unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    client
        .execute_update("CREATE TABLE t AS SELECT value AS x FROM generate_series(1, 1000)")
        .await
        .unwrap();
    client.query_all("SELECT x % 10, count(*) FROM t GROUP BY 1 ORDER BY 1").await.unwrap();
    // Plans of queries are still in the caches of those who made and ran them.
    cluster.stop().await;
    for number in 0..2 {
        let folder = dir.path().join(format!("worker-{number}"));
        let identity = ChunkStore::read_identity(&folder, &RealVfs).unwrap().unwrap();
        ChunkStore::open(&folder, identity, Arc::new(RealVfs)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_worker_takes_over_and_its_old_process_is_fenced() {
    let coordinator = LoneCoordinator::start().await;
    let port = coordinator.port();
    let old = newcomer(1);
    let joined = register(&port, old.clone()).await.unwrap();
    let beat = async |request: &RegisterRequest| {
        let RegisterRequest { worker, incarnation, .. } = request.clone();
        let request =
            HeartbeatRequest { worker, incarnation, epoch: joined.epoch, column_cache: None };
        heartbeat(&port, request).await.unwrap().register_again
    };
    assert!(!beat(&old).await);
    let new =
        RegisterRequest { incarnation: fresh(), cluster: Some(joined.cluster), ..old.clone() };
    register(&port, new.clone()).await.unwrap();
    assert!(!beat(&new).await);
    assert!(beat(&old).await, "the old process is told that it is none any more");
    assert!(!beat(&new).await, "and that changed nothing for the new one");
    let elsewhere = RegisterRequest { url: "http://127.0.0.1:2".to_owned(), ..old };
    let refused = register(&port, elsewhere).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
}

/// A worker of this cluster died, and a worker of another one has its port now.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_another_cluster_behind_a_known_address_gets_and_gives_nothing() {
    let mut theirs = Scene::start().await;
    let ours = LoneCoordinator::start().await;
    let _member = ours.join(theirs.cluster.workers()[0].url().port().unwrap()).await;
    let mut client = Client::connect(&ours.grpc_url()).await.unwrap();
    client.execute_update("CREATE TABLE t (x BIGINT)").await.unwrap();
    let error = client.execute_update("INSERT INTO t VALUES (1)").await.unwrap_err();
    let text = format!("{error:?}");
    assert_eq!(error.code(), Some("UNAVAILABLE"), "{text}");
    assert!(text.contains("secret is missing or wrong"), "{text}");
    let secrets = [ours.secret().expose(), theirs.secret()];
    assert!(secrets.iter().all(|secret| !text.contains(secret.as_str())), "{text}");
    let (_, rows) = client.query_all("SELECT count(*) FROM t").await.unwrap();
    let shown = arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string();
    assert!(shown.contains("| 0 "), "{shown}");
    theirs.still_answers().await;
}
