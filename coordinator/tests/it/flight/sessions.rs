//! Connections: their sessions, their number, their end, and the handshake.

use std::time::Duration;

use arrow_flight::HandshakeRequest;
use basalt_coordinator::backend::SessionId;
use basalt_coordinator::flight::FlightOptions;
use futures::{StreamExt, stream};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tonic::Request;

use super::test_server::{TestServer, action, eventually, number, prepare, run, ticket};

#[tokio::test]
async fn a_session_ends_with_its_connection() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    assert_eq!(number(&mut client, "SELECT 1").await, 1);
    assert!(server.backend.closed_sessions.lock().unwrap().is_empty());
    drop(client);
    eventually("the session is closed", || {
        *server.backend.closed_sessions.lock().unwrap() == [SessionId(1)]
    })
    .await;
}

#[tokio::test]
async fn close_session_resets_the_session_and_keeps_the_connection() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    let bodies = action(client, "CloseSession", Vec::new()).await.unwrap();
    assert_eq!(bodies[0].as_ref(), [8, 1]);
    assert_eq!(*server.backend.closed_sessions.lock().unwrap(), [SessionId(1)]);
    assert_eq!(number(client, "SELECT 1").await, 1);
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once() {
    let options = FlightOptions { connections_max: 1, ..FlightOptions::default() };
    let server = TestServer::start_with(options).await;
    let mut first = server.client().await;
    assert_eq!(number(&mut first, "SELECT 1").await, 1);
    let mut second = TcpStream::connect(&server.address).await.unwrap();
    assert_eq!(second.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert_eq!(number(&mut first, "SELECT 2").await, 2);
}

#[tokio::test]
async fn statements_that_are_prepared_and_never_closed_are_bounded_and_end_with_their_connection() {
    let options = FlightOptions { prepared_per_session_max: 100, ..FlightOptions::default() };
    let server = TestServer::start_with(options).await;
    for _ in 0..3 {
        // Each connection has room of its own.
        let mut client = server.client().await;
        for _ in 0..100 {
            prepare(&mut client, "SELECT 1").await.unwrap();
        }
        let refused = prepare(&mut client, "SELECT 1").await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused:?}");
        assert_eq!(number(&mut client, "SELECT 1").await, 1);
    }
    eventually("the sessions are closed", || {
        server.backend.closed_sessions.lock().unwrap().len() == 3
    })
    .await;
}

#[tokio::test]
async fn the_server_stops_though_a_client_never_stops_reading() {
    let options =
        FlightOptions { shutdown_grace: Duration::from_millis(50), ..FlightOptions::default() };
    let server = TestServer::start_with(options).await;
    let client = &mut server.client().await;
    let info = run(client, "FOREVER").await.unwrap();
    let mut rows = client.do_get(ticket(&info)).await.unwrap().into_inner();
    rows.next().await.unwrap().unwrap();
    let backend = std::sync::Arc::clone(&server.backend);
    tokio::time::timeout(Duration::from_secs(20), server.stop()).await.expect("it stops");
    eventually("the query is over", || backend.running() == 0).await;
}

#[tokio::test]
async fn the_handshake_hands_out_a_bearer_token() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    for first in [Vec::new(), vec![HandshakeRequest::default()]] {
        let mut request = Request::new(stream::iter(first));
        let basic = "Basic dXNlcjpwYXNz".parse().unwrap();
        request.metadata_mut().insert("authorization", basic);
        let response = client.handshake(request).await.unwrap();
        let token = response.metadata().get("authorization").unwrap().to_str().unwrap().to_owned();
        assert!(token.starts_with("Bearer "), "{token}");
        let answer = response.into_inner().next().await.unwrap().unwrap();
        assert_eq!(token.as_bytes()["Bearer ".len()..], answer.payload[..]);
    }
}
