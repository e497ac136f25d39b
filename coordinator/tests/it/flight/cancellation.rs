//! Requests that clients abandon or cancel, and clients that do not read.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow_flight::sql::{ActionCancelQueryRequest, Any, ProstMessageExt};
use arrow_flight::{CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightInfo};
use futures::StreamExt;
use prost::Message;
use tonic::Code;

use super::test_server::{Client, TestServer, action, eventually, fetch, number, run, ticket};

#[tokio::test]
async fn planning_ends_with_the_request_that_asked_for_it() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let backend = Arc::clone(&server.backend);
    let planning = tokio::spawn(async move { run(&mut client, "HANG").await });
    eventually("it hangs", || backend.hanging.load(Ordering::SeqCst) == 1).await;
    planning.abort();
    eventually("planning is over", || backend.hanging.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn dropping_the_rows_ends_the_query() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    let info = run(client, "FOREVER").await.unwrap();
    assert_eq!(server.backend.running(), 0);
    let mut rows = client.do_get(ticket(&info)).await.unwrap().into_inner();
    rows.next().await.unwrap().unwrap();
    assert_eq!(server.backend.running(), 1);
    drop(rows);
    eventually("the query is over", || server.backend.running() == 0).await;
    assert_eq!(number(client, "SELECT 1").await, 1);
}

#[tokio::test]
async fn losing_the_connection_ends_the_query() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let info = run(&mut client, "FOREVER").await.unwrap();
    let mut rows = client.do_get(ticket(&info)).await.unwrap().into_inner();
    rows.next().await.unwrap().unwrap();
    drop((client, rows));
    eventually("the query is over", || server.backend.running() == 0).await;
    eventually("the session is closed", || {
        server.backend.closed_sessions.lock().unwrap().len() == 1
    })
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_query_back() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    let info = run(client, "FOREVER").await.unwrap();
    let mut rows = client.do_get(ticket(&info)).await.unwrap().into_inner();
    rows.next().await.unwrap().unwrap();
    // Each batch is 800 kB: with nobody reading only windows and socket buffers fill up.
    let mut last = usize::MAX;
    let mut same = 0;
    eventually("the query stands still", || {
        let now = server.backend.batches();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        same > 100
    })
    .await;
    assert!(last < 50, "{last} batches were produced");
}

async fn check_cancel(
    cancel: impl AsyncFnOnce(&mut Client, FlightInfo) -> CancelStatus,
) {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    let info = run(client, "FOREVER").await.unwrap();
    let mut rows = client.do_get(ticket(&info)).await.unwrap().into_inner();
    rows.next().await.unwrap().unwrap();
    assert_eq!(cancel(&mut server.client().await, info).await, CancelStatus::Cancelled);
    let ended = loop {
        match rows.next().await.expect("an error at the end") {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Cancelled);
    eventually("the query is over", || server.backend.running() == 0).await;
}

async fn cancel_flight_info(client: &mut Client, info: FlightInfo) -> CancelStatus {
    let request = CancelFlightInfoRequest { info: Some(info) };
    let bodies = action(client, "CancelFlightInfo", request.encode_to_vec()).await.unwrap();
    CancelFlightInfoResult::decode(bodies[0].as_ref()).unwrap().status()
}

#[tokio::test]
async fn cancel_flight_info_ends_a_running_query() {
    check_cancel(cancel_flight_info).await;
}

#[tokio::test]
async fn cancel_query_does_the_same() {
    check_cancel(async |client: &mut Client, info: FlightInfo| {
        let request = ActionCancelQueryRequest { info: info.encode_to_vec().into() };
        let body = request.as_any().encode_to_vec();
        let bodies = action(client, "CancelQuery", body).await.unwrap();
        let result: arrow_flight::sql::ActionCancelQueryResult =
            Any::decode(bodies[0].as_ref()).unwrap().unpack().unwrap().unwrap();
        CancelStatus::try_from(result.result).unwrap()
    })
    .await;
}

#[tokio::test]
async fn a_query_that_was_cancelled_before_its_fetch_never_starts() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    let info = run(client, "FOREVER").await.unwrap();
    assert_eq!(cancel_flight_info(client, info.clone()).await, CancelStatus::Cancelled);
    assert_eq!(fetch(client, ticket(&info)).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(cancel_flight_info(client, info).await, CancelStatus::NotCancellable);
}
