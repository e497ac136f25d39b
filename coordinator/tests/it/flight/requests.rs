//! The header that names a statement: which calls read it, and which do not.

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    CommandGetTables, CommandPreparedStatementQuery, CommandPreparedStatementUpdate,
    CommandStatementIngest, CommandStatementUpdate, ProstMessageExt, TableDefinitionOptions,
    TableExistsOption, TableNotExistOption,
};
use arrow_flight::{FlightData, FlightDescriptor};
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use std::sync::Arc;
use tonic::{Code, Request};

use super::test_server::{Client, TestServer, fetch, prepare, query, run, ticket};

const HEADER: &str = "x-basalt-request";

fn keyed<T>(message: T, key: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(HEADER, key.parse().unwrap());
    request
}

fn descriptor<C: ProstMessageExt>(command: &C) -> FlightDescriptor {
    FlightDescriptor::new_cmd(command.as_any().encode_to_vec())
}

/// A keyed DoPut of a command with one row.
async fn put<C: ProstMessageExt>(client: &mut Client, command: &C, key: &str) {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    let batch = RecordBatch::try_from_iter_with_nullable([("n", column, true)]).unwrap();
    let messages = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(descriptor(command)))
        .build(stream::iter([Ok::<_, FlightError>(batch)]))
        .map(|message| message.unwrap());
    let results = client.do_put(keyed(messages, key)).await.unwrap().into_inner();
    results.try_collect::<Vec<_>>().await.unwrap();
}

async fn server() -> (TestServer, Client) {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    run(&mut client, "CREATE TABLE t (n BIGINT)").await.unwrap();
    server.backend.keys.lock().unwrap().clear();
    (server, client)
}

#[track_caller]
fn check_keys(server: &TestServer, expected: &[Option<&str>]) {
    let keys = server.backend.keys.lock().unwrap();
    assert_eq!(keys.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn the_calls_that_run_a_statement_hand_its_key_on() {
    let (server, mut client) = server().await;
    let insert = "INSERT INTO t VALUES (1)";
    client.get_flight_info(keyed(query(insert), "info")).await.unwrap();
    client.poll_flight_info(keyed(query(insert), "poll")).await.unwrap();
    let update = CommandStatementUpdate { query: insert.to_owned(), transaction_id: None };
    let message =
        FlightData { flight_descriptor: Some(descriptor(&update)), ..FlightData::default() };
    client.do_put(keyed(stream::iter([message]), "update")).await.unwrap();
    let handle =
        prepare(&mut client, "INSERT INTO t VALUES (?)").await.unwrap().prepared_statement_handle;
    put(&mut client, &CommandPreparedStatementUpdate { prepared_statement_handle: handle }, "many")
        .await;
    let ingest = CommandStatementIngest {
        table: "t".to_owned(),
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: TableNotExistOption::Fail as i32,
            if_exists: TableExistsOption::Append as i32,
        }),
        ..CommandStatementIngest::default()
    };
    put(&mut client, &ingest, "ingest").await;
    client.get_flight_info(query(insert)).await.unwrap();
    let expected = [Some("info"), Some("poll"), Some("update"), Some("many"), Some("ingest"), None];
    check_keys(&server, &expected);
}

#[tokio::test]
async fn calls_that_run_nothing_take_no_notice_of_a_key() {
    let (server, mut client) = server().await;
    let bad = "k".repeat(300);
    client.get_schema(keyed(query("SELECT n FROM t"), &bad)).await.unwrap();
    client.get_flight_info(keyed(descriptor(&CommandGetTables::default()), "k")).await.unwrap();
    let info = run(&mut client, "SELECT n FROM t").await.unwrap();
    client.do_get(keyed(ticket(&info), &bad)).await.unwrap();
    check_keys(&server, &[None]);
}

#[tokio::test]
async fn a_key_of_the_call_that_binds_is_not_that_of_the_run() {
    let (server, mut client) = server().await;
    let handle = prepare(&mut client, "SELECT n FROM t WHERE n = ?").await.unwrap();
    let bind = CommandPreparedStatementQuery {
        prepared_statement_handle: handle.prepared_statement_handle,
    };
    put(&mut client, &bind, "bind").await;
    let info = client.get_flight_info(descriptor(&bind)).await.unwrap().into_inner();
    fetch(&mut client, ticket(&info)).await.unwrap();
    check_keys(&server, &[None]);
}

#[tokio::test]
async fn what_is_no_key_is_refused_and_runs_nothing() {
    let (server, mut client) = server().await;
    let insert = query("INSERT INTO t VALUES (1)");
    let refused = client.get_flight_info(keyed(insert, &"k".repeat(256))).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.message(), "the request key is longer than 255 bytes");
    check_keys(&server, &[]);
}
