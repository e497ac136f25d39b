//! Plans from somebody who knows the secret and means harm: every node that reads or writes by
//! itself is refused by name before anything is opened, and file scans of ours stay inside the
//! worker's roots (FAULTS A5 49, RULES 29).

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use basalt_engine::codec::EngineCodec;
use basalt_engine::files::{
    AllowedRoots, CsvOptions, FileFormat, FileScan, FileScanExec, ScannedFile, SourceFile, Unit,
};
use basalt_engine::scan::{ScanSegment, ScanTable, SegmentScanExec};
use basalt_engine::snapshot::Relation;
use basalt_storage::digest::Digest;
use basalt_storage::ids::{ColumnVersion, Epoch, SegmentId, TxnId, WorkerId};
use bytes::Bytes;
use datafusion::common::Statistics;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use datafusion::prelude::{CsvReadOptions, JsonReadOptions, SessionConfig, SessionContext};
use datafusion_proto::bytes::physical_plan_to_bytes_with_extension_codec;
use datafusion_proto::physical_plan::{
    ComposedPhysicalExtensionCodec, DefaultPhysicalExtensionCodec,
};
use datafusion_proto::protobuf::physical_plan_node::PhysicalPlanType as Kind;
use datafusion_proto::protobuf::{
    ArrowScanExecNode, AvroScanExecNode, CooperativeExecNode, FileScanExecConf,
    ParquetScanExecNode, PhysicalExtensionNode, PhysicalPlanNode, ScalarSubqueryExecNode,
    UnionExecNode,
};
use futures::{StreamExt, TryStreamExt, stream};
use prost::{Message, Oneof};
use tonic::{Code, Status};

use crate::ports::{HANG, Scene};

/// datafusion-distributed's messages, as far as an attacker needs them.
#[derive(Clone, PartialEq, Message)]
struct CoordinatorToWorker {
    #[prost(message, optional, tag = "1")]
    set_plan: Option<SetPlan>,
}

#[derive(Clone, PartialEq, Message)]
struct SetPlan {
    #[prost(message, optional, tag = "1")]
    task: Option<TaskKey>,
    #[prost(uint64, tag = "2")]
    tasks: u64,
    #[prost(bytes = "vec", tag = "3")]
    plan: Vec<u8>,
    #[prost(string, tag = "5")]
    target_worker_url: String,
}

#[derive(Clone, PartialEq, Message)]
struct TaskKey {
    #[prost(bytes = "vec", tag = "1")]
    query: Vec<u8>,
    #[prost(uint64, tag = "2")]
    stage: u64,
    #[prost(uint64, tag = "3")]
    task: u64,
}

#[derive(Clone, PartialEq, Message)]
struct ExecuteTask {
    #[prost(message, optional, tag = "1")]
    task: Option<TaskKey>,
    #[prost(uint64, tag = "2")]
    first: u64,
    #[prost(uint64, tag = "3")]
    end: u64,
    #[prost(oneof = "Head", tags = "6, 7")]
    head: Option<Head>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Head {
    #[prost(message, tag = "6")]
    None(NoHead),
    #[prost(message, tag = "7")]
    Broadcast(BroadcastHead),
}

#[derive(Clone, PartialEq, Message)]
struct NoHead {}

#[derive(Clone, PartialEq, Message)]
struct BroadcastHead {
    #[prost(uint64, tag = "1")]
    partitions: u64,
}

/// What a refusal says: datafusion-distributed puts the text of its errors into the details.
fn said(refused: &Status) -> String {
    format!("{} {}", refused.message(), String::from_utf8_lossy(refused.details()))
}

fn encode(plan: Arc<dyn ExecutionPlan>) -> Vec<u8> {
    // Workers compose datafusion-distributed's codec and ours; the first encodes none of these.
    let codec = ComposedPhysicalExtensionCodec::new(vec![
        Arc::new(DefaultPhysicalExtensionCodec {}),
        Arc::new(EngineCodec),
    ]);
    physical_plan_to_bytes_with_extension_codec(plan, &codec).unwrap().to_vec()
}

impl Scene {
    /// Gives worker 0 a plan and has it run the first partition; returns how many messages of rows
    /// came back.
    async fn run(&self, plan: Vec<u8>) -> Result<usize, Status> {
        self.run_as(plan, |_| {}).await
    }

    async fn run_as(
        &self,
        plan: Vec<u8>,
        edit: impl FnOnce(&mut ExecuteTask),
    ) -> Result<usize, Status> {
        let port = self.worker(0);
        let task =
            Some(TaskKey { query: TxnId::generate().0.into_bytes().to_vec(), stage: 1, task: 0 });
        let url = self.cluster.workers()[0].url().to_string();
        let set_plan = SetPlan { task: task.clone(), tasks: 1, plan, target_worker_url: url };
        let message = CoordinatorToWorker { set_plan: Some(set_plan) }.encode_to_vec();
        let mut execute = ExecuteTask { task, first: 0, end: 1, head: Some(Head::None(NoHead {})) };
        edit(&mut execute);
        let run = async {
            // The plan lives as long as the stream that brought it.
            let messages = stream::iter([Bytes::from(message)]).chain(stream::pending());
            let _held = port.open("/worker.WorkerService/CoordinatorChannel", messages).await?;
            let message = stream::iter([Bytes::from(execute.encode_to_vec())]);
            let rows = port.open("/worker.WorkerService/ExecuteTask", message).await?;
            rows.try_collect::<Vec<_>>().await.map(|messages| messages.len())
        };
        tokio::time::timeout(HANG, run).await.expect("a plan hangs")
    }

    async fn refuses(&self, plan: Vec<u8>, code: Code, named: &str) {
        let refused = self.run(plan).await.unwrap_err();
        assert_eq!(refused.code(), code, "{named}: {refused:?}");
        assert!(said(&refused).contains(named), "{named}: {refused:?}");
    }
}

/// A session of plain DataFusion with a table `numbers`, which plans what an attacker wants.
fn attacker() -> SessionContext {
    let mut config = SessionConfig::new();
    config.options_mut().execution.collect_statistics = false;
    let context = SessionContext::new_with_config(config);
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10));
    let batch = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
    context.register_batch("numbers", batch).unwrap();
    context
}

async fn planned(context: &SessionContext, sql: &str) -> Arc<dyn ExecutionPlan> {
    context.sql(sql).await.unwrap().create_physical_plan().await.unwrap()
}

/// Scans of a file and of a URL, in every format that DataFusion reads by itself.
async fn scans(path: &Path) -> Vec<(&'static str, PhysicalPlanNode)> {
    let context = attacker();
    let schema = Schema::new(vec![Field::new("line", DataType::Utf8, true)]);
    let path = path.to_str().unwrap();
    let csv = CsvReadOptions::new().schema(&schema).file_extension("");
    context.register_csv("csv", path, csv).await.unwrap();
    let json = JsonReadOptions::default().schema(&schema).file_extension("");
    context.register_json("json", path, json).await.unwrap();
    let csv = encode(planned(&context, "SELECT * FROM csv").await);
    let json = encode(planned(&context, "SELECT * FROM json").await);
    let csv = PhysicalPlanNode::decode(csv.as_slice()).unwrap();
    let json = PhysicalPlanNode::decode(json.as_slice()).unwrap();
    let conf = file_scan_of(&csv).expect("plain DataFusion scans a file by itself").clone();
    let conf = || Some(conf.clone());
    let node = |kind| PhysicalPlanNode { physical_plan_type: Some(kind) };
    let parquet = ParquetScanExecNode { base_conf: conf(), ..Default::default() };
    let url =
        FileScanExecConf { object_store_url: "http://169.254.169.254/".into(), ..conf().unwrap() };
    let parquet_url = ParquetScanExecNode { base_conf: Some(url), ..Default::default() };
    vec![
        ("CsvScan", csv.clone()),
        ("JsonScan", json),
        ("ParquetScan", node(Kind::ParquetScan(parquet))),
        ("ParquetScan", node(Kind::ParquetScan(parquet_url))),
        ("ArrowScan", node(Kind::ArrowScan(ArrowScanExecNode { base_conf: conf() }))),
        ("AvroScan", node(Kind::AvroScan(AvroScanExecNode { base_conf: conf() }))),
    ]
}

/// What a CSV scan, below whatever plain DataFusion put on top of it, reads.
fn file_scan_of(node: &PhysicalPlanNode) -> Option<&FileScanExecConf> {
    match node.physical_plan_type.as_ref()? {
        Kind::CsvScan(scan) => scan.base_conf.as_ref(),
        Kind::Cooperative(node) => file_scan_of(node.input.as_deref()?),
        Kind::Repartition(node) => file_scan_of(node.input.as_deref()?),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_urls_are_not_read_by_plans_of_datafusion() {
    let mut scene = Scene::start().await;
    for (named, scan) in scans(Path::new("/etc/passwd")).await {
        let node = |kind| PhysicalPlanNode { physical_plan_type: Some(kind) };
        scene.refuses(scan.encode_to_vec(), Code::PermissionDenied, named).await;
        let mut deep = scan.clone();
        for _ in 0..30 {
            let input = Some(Box::new(deep));
            deep = node(Kind::Cooperative(Box::new(CooperativeExecNode { input })));
        }
        scene.refuses(deep.encode_to_vec(), Code::PermissionDenied, named).await;
        // In a subquery, and below a node that nobody knows.
        let subquery = ScalarSubqueryExecNode { input: None, subqueries: vec![scan.clone()] };
        let subquery = node(Kind::ScalarSubquery(Box::new(subquery)));
        scene.refuses(subquery.encode_to_vec(), Code::PermissionDenied, "ScalarSubquery").await;
        let unknown = PhysicalExtensionNode { node: vec![0x08, 9], inputs: vec![scan.clone()] };
        let unknown = node(Kind::Extension(unknown));
        scene.refuses(unknown.encode_to_vec(), Code::PermissionDenied, "Extension").await;
        let union = UnionExecNode { inputs: vec![memory_scan().await, scan] };
        scene
            .refuses(node(Kind::Union(union)).encode_to_vec(), Code::PermissionDenied, named)
            .await;
    }
    scene.still_answers().await;
}

async fn memory_scan() -> PhysicalPlanNode {
    let plan = encode(planned(&attacker(), "SELECT n FROM numbers").await);
    PhysicalPlanNode::decode(plan.as_slice()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_plan_writes_a_file() {
    let mut scene = Scene::start().await;
    let context = attacker();
    for (format, named) in [("CSV", "CsvSink"), ("JSON", "JsonSink"), ("PARQUET", "ParquetSink")] {
        let path = scene.dir.path().join(format!("stolen.{format}"));
        let sql = format!("COPY numbers TO '{}' STORED AS {format}", path.display());
        let plan = planned(&context, &sql).await;
        scene.refuses(encode(plan), Code::PermissionDenied, named).await;
        assert!(!path.try_exists().unwrap(), "{format}");
    }
    let insert = planned(&context, "INSERT INTO numbers VALUES (1)").await;
    let codec = DefaultPhysicalExtensionCodec {};
    let sink = physical_plan_to_bytes_with_extension_codec(insert, &codec);
    assert!(sink.is_err(), "a sink into memory has no encoding, so it cannot arrive");
    scene.still_answers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_that_are_none_or_ask_for_too_much_are_refused() {
    let mut scene = Scene::start().await;
    scene.refuses(vec![], Code::InvalidArgument, "malformed").await;
    scene.refuses(vec![0xff; 1000], Code::InvalidArgument, "malformed").await;
    let mut whole = encode(planned(&attacker(), "SELECT n + 1 FROM numbers").await);
    assert!(scene.run(whole.clone()).await.unwrap() > 1, "schema and rows of a plan that may run");
    whole.truncate(whole.len() - 3);
    scene.refuses(whole, Code::InvalidArgument, "malformed").await;
    let mut nested = memory_scan().await;
    for _ in 0..200 {
        let input = Some(Box::new(nested));
        let kind = Kind::Cooperative(Box::new(CooperativeExecNode { input }));
        nested = PhysicalPlanNode { physical_plan_type: Some(kind) };
    }
    scene.refuses(nested.encode_to_vec(), Code::InvalidArgument, "nested too deeply").await;

    let good = memory_scan().await.encode_to_vec();
    let check = async |edit: fn(&mut ExecuteTask), named: &str| {
        let refused = scene.run_as(good.clone(), edit).await.unwrap_err();
        assert!(said(&refused).contains(named), "{refused:?}");
    };
    check(|task| (task.first, task.end) = (1, 0), "no range").await;
    check(|task| task.end = u64::MAX, "partitions").await;
    check(|task| task.end = 1 << 40, "partitions").await;
    check(|task| (task.first, task.end) = (7, 8), "partition 7 not available").await;
    let broadcast = |task: &mut ExecuteTask| {
        task.head = Some(Head::Broadcast(BroadcastHead { partitions: u64::MAX }));
    };
    check(broadcast, "partitions").await;
    check(|task| task.head = None, "producer_head").await;
    scene.still_answers().await;
}

/// A scan of one CSV file with one column `a`, by our own leaf.
fn file_scan(path: &Path) -> Arc<dyn ExecutionPlan> {
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("a", DataType::Utf8, true)]));
    let metadata = std::fs::metadata(path).unwrap();
    let modified = metadata.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    let source = SourceFile {
        path: path.to_owned(),
        bytes: metadata.len(),
        modified_ns: i64::try_from(modified.as_nanos()).unwrap(),
    };
    let csv = CsvOptions { header: true, ..CsvOptions::default() };
    let files = vec![ScannedFile { source, rows: None }];
    let scan = FileScan { format: FileFormat::Csv, csv, schema, files };
    let unit = Unit { file: 0, first_row: 0, rows: None };
    Arc::new(FileScanExec::new(Arc::new(scan), None, None, vec![vec![unit]]).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_file_scan_stays_inside_the_roots_of_the_worker() {
    let outside = tempfile::tempdir().unwrap();
    let root = outside.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let (secret, inside) = (outside.path().join("secret.csv"), root.join("inside.csv"));
    std::fs::write(&secret, "a\ngeheim\n").unwrap();
    std::fs::write(&inside, "a\noffen\n").unwrap();
    std::os::unix::fs::symlink(&secret, root.join("link.csv")).unwrap();
    std::os::unix::fs::symlink(outside.path(), root.join("folder")).unwrap();
    let roots = AllowedRoots::new([&root]).unwrap();
    let mut scene = Scene::start_with(|config| basalt_sql_tests::cluster::EmbeddedConfig {
        allowed_roots: roots,
        ..config
    })
    .await;
    assert!(scene.run(encode(file_scan(&inside))).await.unwrap() > 1, "what may be read is read");
    for path in [
        Path::new("/etc/passwd"),
        &secret,
        &root.join("link.csv"),
        &root.join("../secret.csv"),
        &root.join("folder/secret.csv"),
    ] {
        let refused = scene.run(encode(file_scan(path))).await.unwrap_err();
        assert!(said(&refused).contains("outside the folders"), "{path:?}: {refused:?}");
        assert!(!said(&refused).contains("geheim"), "{refused:?}");
        let both = UnionExec::try_new(vec![file_scan(path), file_scan(&inside)]).unwrap();
        let refused = scene.run(encode(both)).await.unwrap_err();
        assert!(said(&refused).contains("outside the folders"), "{path:?}: {refused:?}");
    }
    scene.still_answers().await;
}

/// A scan of the table of a scene, after `edit`.
fn scan_of(scene: &Scene, edit: fn(&mut ScanTable, &mut ScanSegment)) -> Vec<u8> {
    let snapshot = scene.cluster.coordinator().catalog().snapshot();
    let table = match &snapshot.schemas["public"].relations["t"] {
        Relation::Table(table) => Arc::clone(table),
        Relation::View(_) => panic!("t is a table"),
    };
    let mut scan_table = ScanTable::new(&table, &snapshot.cluster, &[0, 1]);
    let columns = scan_table.columns.clone();
    let segments = table.segments.iter().map(|record| ScanSegment::new(0, record, &columns));
    let mut segments: Vec<_> = segments.collect();
    edit(&mut scan_table, &mut segments[0]);
    let statistics = Statistics::new_unknown(&scan_table.schema);
    encode(Arc::new(SegmentScanExec::new(Arc::new(scan_table), segments, 1, statistics)))
}

fn of_another_version(_: &mut ScanTable, segment: &mut ScanSegment) {
    segment.column_versions[0] = Some(ColumnVersion(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_of_another_version_gives_no_rows_from_memory_either() {
    let mut scene = Scene::start().await;
    scene.fenced(0).await;
    for _ in 0..2 {
        let scan = scan_of(&scene, |_, _| ());
        assert!(scene.run(scan).await.unwrap() > 1);
    }
    let scan = scan_of(&scene, of_another_version);
    let refused = scene.run(scan).await.unwrap_err();
    assert!(said(&refused).contains("version of the snapshot"), "{refused:?}");
    scene.still_answers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_with_the_wrong_digest_version_or_epoch_gives_no_rows() {
    // What is in the column cache needs no holder, as the digest vouches for it.
    let mut scene = Scene::start_with(|config| basalt_sql_tests::cluster::EmbeddedConfig {
        column_cache_bytes: 0,
        ..config
    })
    .await;
    scene.fenced(0).await;
    let scan = scan_of(&scene, |_, _| ());
    assert!(scene.run(scan).await.unwrap() > 1);
    let check = async |edit: fn(&mut ScanTable, &mut ScanSegment), named: &str| {
        let scan = scan_of(&scene, edit);
        let refused = scene.run(scan).await.unwrap_err();
        assert!(said(&refused).contains(named), "{named}: {refused:?}");
    };
    check(|_, segment| segment.meta_digest = Digest::of(b"another"), "cannot be read").await;
    check(|_, segment| segment.rows += 1, "another segment").await;
    check(|_, segment| segment.holders.clear(), "no worker holds it").await;
    check(|_, segment| segment.segment = SegmentId::generate(), "cannot be read").await;
    check(of_another_version, "version of the snapshot").await;
    check(|table, _| table.epoch = Epoch(0), "slices have moved").await;
    // Addresses of peers outside this machine are not called, secret in hand.
    let away = |table: &mut ScanTable, segment: &mut ScanSegment| {
        let peer = WorkerId::generate();
        segment.holders = vec![peer];
        table.endpoints.insert(peer, "http://169.254.169.254:80/".parse().unwrap());
    };
    check(away, "of this machine").await;
    scene.still_answers().await;
}

/// The first groups by `max` of keys that are NaN: DataFusion's own code panics in the middle
/// (sql-tests/upstream/topk-of-nan.md).
#[tokio::test(flavor = "multi_thread")]
async fn a_fragment_that_panics_is_an_error_and_not_fewer_rows() {
    let mut scene = Scene::start().await;
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
    let keys = (0..100u8).map(|id| if id % 2 == 0 { f64::NAN } else { f64::from(id) });
    let keys: ArrayRef = Arc::new(Float64Array::from_iter_values(keys));
    let batch = RecordBatch::try_from_iter([("id", ids), ("key", keys)]).unwrap();
    context.register_batch("t", batch).unwrap();
    let sql = "SELECT key, max(id) AS m FROM t GROUP BY key ORDER BY m DESC LIMIT 3";
    let fragment = encode(planned(&context, sql).await);
    scene.refuses(fragment, Code::Internal, "a worker panicked").await;
    scene.still_answers().await;
}
