//! A server on a port of its own, and raw clients of it.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any,
    CommandStatementQuery, ProstMessageExt,
};
use arrow_flight::{Action, FlightDescriptor, FlightInfo, Ticket};
use basalt_coordinator::flight::{FlightOptions, FlightSqlServer, server};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::fake_backend::FakeBackend;

pub(super) type Client = FlightServiceClient<Channel>;

/// A server in front of a [`FakeBackend`]; stops when dropped.
pub(super) struct TestServer {
    pub(super) backend: Arc<FakeBackend>,
    /// `127.0.0.1:port`.
    pub(super) address: String,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl TestServer {
    pub(super) async fn start() -> Self {
        Self::start_with(FlightOptions::default()).await
    }

    pub(super) async fn start_with(options: FlightOptions) -> Self {
        let backend = FakeBackend::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let service = FlightSqlServer::new(backend.clone(), options);
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _sent_or_dropped = stopped.await;
        };
        let served = tokio::spawn(server::serve(listener, service, shutdown));
        Self { backend, address, stop, served }
    }

    /// A client on a connection of its own.
    pub(super) async fn client(&self) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        FlightServiceClient::new(endpoint.connect().await.unwrap())
            .max_decoding_message_size(80 << 20)
            .max_encoding_message_size(80 << 20)
    }

    /// Stops the server, once running requests are over or the grace has passed.
    pub(super) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.served.await.unwrap().unwrap();
    }
}

/// Waits for a state that must come soon.
pub(super) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), waiting).await.is_ok(), "{what}");
}

pub(super) fn query(sql: &str) -> FlightDescriptor {
    let query = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
    FlightDescriptor::new_cmd(query.as_any().encode_to_vec())
}

pub(super) async fn run(client: &mut Client, sql: &str) -> Result<FlightInfo, Status> {
    client.get_flight_info(query(sql)).await.map(tonic::Response::into_inner)
}

pub(super) fn ticket(info: &FlightInfo) -> Ticket {
    info.endpoint[0].ticket.clone().unwrap()
}

/// Fetches all rows of a ticket.
pub(super) async fn fetch(client: &mut Client, ticket: Ticket) -> Result<Vec<RecordBatch>, Status> {
    let messages = client.do_get(ticket).await?.into_inner().map_err(FlightError::from);
    let batches = FlightRecordBatchStream::new_from_flight_data(messages).try_collect().await;
    batches.map_err(|e| match e {
        FlightError::Tonic(status) => *status,
        other => Status::unknown(other.to_string()),
    })
}

/// Runs a query and fetches its rows.
pub(super) async fn rows(client: &mut Client, sql: &str) -> Result<Vec<RecordBatch>, Status> {
    let info = run(client, sql).await?;
    fetch(client, ticket(&info)).await
}

/// The number that a query returns.
pub(super) async fn number(client: &mut Client, sql: &str) -> i64 {
    let batches = rows(client, sql).await.unwrap();
    let column = arrow::compute::cast(batches[0].column(0), &arrow::datatypes::DataType::Int64);
    arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(&column.unwrap()).value(0)
}

/// Sends an action with a body wrapped in `Any`; the bodies of its results.
pub(super) async fn action(
    client: &mut Client,
    name: &str,
    body: Vec<u8>,
) -> Result<Vec<Bytes>, Status> {
    let results = client.do_action(Action::new(name, body)).await?.into_inner();
    results.map(|result| result.map(|r| r.body)).try_collect().await
}

/// Prepares a statement.
pub(super) async fn prepare(
    client: &mut Client,
    sql: &str,
) -> Result<ActionCreatePreparedStatementResult, Status> {
    let request =
        ActionCreatePreparedStatementRequest { query: sql.to_owned(), transaction_id: None };
    let body = request.as_any().encode_to_vec();
    let bodies = action(client, "CreatePreparedStatement", body).await?;
    Ok(Any::decode(bodies[0].as_ref()).unwrap().unpack().unwrap().unwrap())
}
