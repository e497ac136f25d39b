//! Hostile and wrong peers at the ingest service of a worker: rows that make no sense, owners that
//! are none, transactions that are over. Nothing of it is ever seen, and the next query works.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow::record_batch::RecordBatch;
use basalt_engine::protocol::append_request::Part;
use basalt_engine::protocol::ingest_client::IngestClient;
use basalt_engine::protocol::{
    AbortRequest, AppendBatch, AppendHeader, AppendRequest, SealRequest, WireId,
};
use basalt_engine::snapshot::{Distribution, Relation};
use basalt_engine::write::{AppendTarget, Copies};
use basalt_storage::ids::{ClusterId, Epoch, TxnId, WorkerId};
use basalt_storage::manifest::SegmentRecord;
use futures::{StreamExt, stream};
use tonic::{Code, Status};

use crate::ports::{Port, Scene};

/// A new transaction into the table of the scene, and a slice that worker 0 owns.
fn target(scene: &Scene) -> (AppendTarget, u32) {
    let snapshot = scene.cluster.coordinator().catalog().snapshot();
    let table = match &snapshot.schemas["public"].relations["t"] {
        Relation::Table(table) => Arc::clone(table),
        Relation::View(_) => panic!("t is a table"),
    };
    let mut target = AppendTarget {
        epoch: Epoch(0),
        cluster: ClusterId::generate(),
        txn: TxnId::generate(),
        table: table.id,
        table_name: table.name.clone(),
        schema: Arc::clone(&table.schema),
        distribution: Distribution::Even,
        sort_key: vec![],
        slice_owners: vec![],
        slice_partners: vec![],
        copies: Copies::ONE,
        endpoints: BTreeMap::new(),
        local_slices: false,
        merged_slice: None,
    };
    target.set_cluster(&snapshot.cluster);
    let owned = target.slices_of(scene.cluster.workers()[0].id())[0];
    (target, u32::from(owned.0))
}

fn ipc(columns: Vec<(&str, ArrayRef)>, compression: Option<CompressionType>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
    let schema = batch.schema();
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &schema, options).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn numbers(count: i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(0..count))
}

/// Two columns of numbers, as the table of the scene has.
fn rows(count: i64) -> Vec<u8> {
    ipc(vec![("x", numbers(count)), ("y", numbers(count))], None)
}

fn header(target: &AppendTarget) -> Part {
    Part::Header(AppendHeader { target: Some(target.to_wire().unwrap()), source: 0 })
}

fn batch(slice: u32, ipc: Vec<u8>) -> Part {
    Part::Batch(AppendBatch { slice, ipc })
}

async fn append(port: &Port, parts: Vec<Part>) -> Result<u64, Code> {
    let parts = stream::iter(parts).map(|part| AppendRequest { part: Some(part) });
    let mut client = IngestClient::new(port.channel.clone());
    let answer = client.append(port.request(parts)).await;
    answer.map(|answer| answer.into_inner().rows).map_err(|status| status.code())
}

async fn seal(port: &Port, target: &AppendTarget) -> Result<Vec<SegmentRecord>, Status> {
    let (epoch, table) = (target.epoch.0, target.table.0);
    let request = SealRequest { epoch, txn: target.txn.to_wire(), table };
    let mut client = IngestClient::new(port.channel.clone());
    let mut answers = client.seal(port.request(request)).await?.into_inner();
    let mut records = Vec::new();
    while let Some(answer) = answers.message().await? {
        records.push(serde_json::from_slice(&answer.segment_record).unwrap());
    }
    Ok(records)
}

async fn abort(port: &Port, txn: TxnId) {
    let mut client = IngestClient::new(port.channel.clone());
    client.abort(port.request(AbortRequest { txn: txn.to_wire() })).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_do_not_fit_are_refused_and_the_rest_of_the_transaction_holds() {
    let mut scene = Scene::start().await;
    let port = scene.worker(0);
    let (target, slice) = target(&scene);
    let check = async |parts: Vec<Part>, expected| {
        assert_eq!(append(&port, parts).await, Err(expected));
    };
    let with = |part: Part| vec![header(&target), part];
    check(vec![], Code::InvalidArgument).await;
    check(vec![batch(slice, rows(5))], Code::InvalidArgument).await;
    check(with(header(&target)), Code::InvalidArgument).await;
    check(with(batch(slice, b"garbage".to_vec())), Code::InvalidArgument).await;
    check(with(batch(65_536, rows(5))), Code::InvalidArgument).await;
    check(with(batch(16, rows(5))), Code::Internal).await;
    let foreign =
        target.slice_owners.iter().position(|owner| *owner != scene.cluster.workers()[0].id());
    let foreign = u32::try_from(foreign.unwrap()).unwrap();
    check(with(batch(foreign, rows(5))), Code::Internal).await;
    let compressed = Some(CompressionType::LZ4_FRAME);
    let compressed = ipc(vec![("x", numbers(5)), ("y", numbers(5))], compressed);
    check(with(batch(slice, compressed)), Code::InvalidArgument).await;
    let text: ArrayRef = Arc::new(StringArray::from(vec!["1"; 5]));
    let text = ipc(vec![("x", numbers(5)), ("y", text)], None);
    check(with(batch(slice, text)), Code::Internal).await;
    check(with(batch(slice, ipc(vec![("x", numbers(5))], None))), Code::Internal).await;

    assert_eq!(append(&port, with(batch(slice, rows(7)))).await, Ok(7));
    let sealed = seal(&port, &target).await.unwrap();
    assert_eq!(sealed.iter().map(|record| record.rows).sum::<u64>(), 7);
    scene.still_answers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_of_another_cluster_epoch_or_shape_is_refused() {
    let mut scene = Scene::start().await;
    let port = scene.worker(0);
    let (target, slice) = target(&scene);
    assert_eq!(append(&port, vec![header(&target), batch(slice, rows(3))]).await, Ok(3));
    scene.fenced(0).await;
    let check = async |edit: fn(&mut AppendTarget), expected| {
        let mut other = target.clone();
        edit(&mut other);
        let parts = vec![header(&other), batch(slice, rows(5))];
        assert_eq!(append(&port, parts).await, Err(expected));
    };
    check(|t| t.cluster = ClusterId::generate(), Code::PermissionDenied).await;
    check(|t| t.epoch = Epoch(0), Code::Aborted).await;
    check(|t| t.slice_owners.clear(), Code::Internal).await;
    check(|t| t.slice_owners.fill(WorkerId::generate()), Code::Internal).await;
    check(|t| t.table_name = "another".to_owned(), Code::InvalidArgument).await;
    check(|t| t.sort_key = vec![t.schema.columns[0].id], Code::InvalidArgument).await;
    let stale = AppendTarget { epoch: Epoch(0), ..target.clone() };
    assert_eq!(seal(&port, &stale).await.unwrap_err().code(), Code::Aborted);
    assert_eq!(seal(&port, &target).await.unwrap()[0].rows, 3, "nothing of it was added");
    scene.still_answers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_after_a_seal_or_an_abort_is_refused() {
    let mut scene = Scene::start().await;
    let port = scene.worker(0);
    let (sealed, slice) = target(&scene);
    let parts = |target: &AppendTarget| vec![header(target), batch(slice, rows(9))];
    assert_eq!(append(&port, parts(&sealed)).await, Ok(9));
    let unknown = AppendTarget { txn: TxnId::generate(), ..sealed.clone() };
    assert_eq!(seal(&port, &unknown).await.unwrap(), vec![], "nothing was appended for it");
    let first = seal(&port, &sealed).await.unwrap();
    assert_eq!(first[0].rows, 9);
    assert_eq!(seal(&port, &sealed).await.unwrap(), first, "sealing twice is sealing once");
    assert_eq!(append(&port, parts(&sealed)).await, Err(Code::FailedPrecondition));

    let aborted = AppendTarget { txn: TxnId::generate(), ..sealed.clone() };
    assert_eq!(append(&port, parts(&aborted)).await, Ok(9));
    abort(&port, aborted.txn).await;
    abort(&port, aborted.txn).await;
    assert_eq!(append(&port, parts(&aborted)).await, Err(Code::FailedPrecondition));
    let refused = seal(&port, &aborted).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    // An abort that overtakes the first row.
    let early = AppendTarget { txn: TxnId::generate(), ..sealed.clone() };
    abort(&port, early.txn).await;
    assert_eq!(append(&port, parts(&early)).await, Err(Code::FailedPrecondition));
    abort(&port, sealed.txn).await;
    scene.still_answers().await;
}
