//! The client against a small Flight SQL server over plain DataFusion.
//!
//! The server is as strict as ours is meant to be about the one thing that matters here: an
//! upload is committed when its stream ends well, and only then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    CommandStatementIngest, CommandStatementQuery, CommandStatementUpdate, ProstMessageExt,
    SqlInfo, TicketStatementQuery,
};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use basalt_coordinator::flight::strict_body::StrictBodies;
use datafusion::dataframe::DataFrame;
use datafusion::prelude::SessionContext;
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tonic::{Code, Request, Response, Status};

use super::*;
use crate::slt::{self, DataFusionEngine, FlightEngine, SltOptions};

#[derive(Clone, Default)]
struct Server {
    session: SessionContext,
    /// The uploads that were committed: command and rows.
    uploads: Arc<Mutex<Vec<(CommandStatementIngest, u64)>>>,
    /// Told whenever an upload ends, well or not.
    upload_ended: Arc<Notify>,
}

fn refused(error: impl std::fmt::Display) -> Status {
    let mut status = Status::new(Code::InvalidArgument, format!("{error}\nHINT: try harder"));
    status.metadata_mut().insert("x-error-code", "SYNTAX_ERROR".parse().unwrap());
    status
}

impl Server {
    async fn plan(&self, sql: &str) -> Result<DataFrame, Status> {
        self.session.sql(sql).await.map_err(|error| refused(error.strip_backtrace()))
    }

    /// Serves on a free port for the rest of the test. Returns a client.
    async fn start(&self) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("grpc://{}", listener.local_addr().unwrap());
        let service = StrictBodies::new(FlightServiceServer::new(self.clone()));
        let connections = tonic::transport::server::TcpIncoming::from(listener);
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(connections),
        );
        Client::connect(&url).await.unwrap()
    }
}

#[tonic::async_trait]
impl FlightSqlService for Server {
    type FlightService = Self;

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        _request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let plan = self.plan(&query.query).await?;
        let schema = plan.schema().as_arrow().clone();
        let info = FlightInfo::new().try_with_schema(&schema).unwrap();
        if schema.fields().is_empty() {
            return Ok(Response::new(info.with_total_records(7)));
        }
        let ticket = TicketStatementQuery { statement_handle: query.query.into() };
        let ticket = Ticket::new(ticket.as_any().encode_to_vec());
        let endpoint = FlightEndpoint::new().with_ticket(ticket);
        Ok(Response::new(info.with_endpoint(endpoint).with_total_records(-1)))
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        _request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        let sql = String::from_utf8(ticket.statement_handle.to_vec()).unwrap();
        let plan = self.plan(&sql).await?;
        let schema = Arc::new(plan.schema().as_arrow().clone());
        let rows = plan.execute_stream().await.map_err(refused)?;
        // An error of a later batch, as ours sends it: a status in the middle of the stream.
        let rows = rows.map_err(|error| FlightError::Tonic(Box::new(refused(error))));
        let data = FlightDataEncoderBuilder::new().with_schema(schema).build(rows);
        Ok(Response::new(data.map_err(Status::from).boxed()))
    }

    async fn do_put_statement_update(
        &self,
        command: CommandStatementUpdate,
        _request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        self.plan(&command.query).await?.collect().await.map_err(refused)?;
        Ok(3)
    }

    async fn do_put_statement_ingest(
        &self,
        command: CommandStatementIngest,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let messages = request.into_inner().map_err(FlightError::from);
        let batches = FlightRecordBatchStream::new_from_flight_data(messages);
        let batches: Result<Vec<_>, _> = batches.try_collect().await;
        let outcome = batches.map_err(Status::from).map(|batches| {
            let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
            self.uploads.lock().unwrap().push((command, rows));
            i64::try_from(rows).unwrap()
        });
        self.upload_ended.notify_one();
        outcome
    }

    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}

fn batch(values: Vec<i64>) -> RecordBatch {
    RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(values)) as ArrayRef)]).unwrap()
}

fn target() -> IngestTarget {
    IngestTarget {
        schema: None,
        table: "t".to_owned(),
        mode: IngestMode::CreateAppend,
        options: HashMap::from([("distkey".to_owned(), "n".to_owned())]),
    }
}

#[tokio::test]
async fn a_query_streams_its_rows_and_a_statement_is_done() {
    let mut client = Server::default().start().await;
    let sql = "SELECT * FROM generate_series(1, 100000) AS t(n)";
    let (schema, batches) = client.query_all(sql).await.unwrap();
    assert_eq!(schema.field(0).name(), "n");
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 100_000);

    let answer = client.run("CREATE TABLE t (n INT)").await.unwrap();
    assert!(matches!(answer, Answer::Done { rows_affected: Some(7) }));
    assert_eq!(client.execute_update("INSERT INTO t VALUES (1)").await.unwrap(), 3);
}

#[tokio::test]
async fn errors_before_and_in_the_middle_of_a_result_are_the_servers_own() {
    let mut client = Server::default().start().await;
    let early = client.run("SELEC 1").await.err().unwrap();
    assert_eq!(early.code(), Some("SYNTAX_ERROR"));
    assert_eq!(early.sqlstate(), Some("42601"));
    assert_eq!(early.server().unwrap().hint.as_deref(), Some("try harder"));

    let sql = "SELECT 1 / (n - 90000) FROM generate_series(1, 100000) AS t(n)";
    let late = client.query_all(sql).await.unwrap_err();
    assert_eq!(late.code(), Some("SYNTAX_ERROR"), "{late}");
    assert!(late.to_string().contains("ivide by zero"), "{late}");
}

#[tokio::test]
async fn an_upload_is_one_commit_of_all_batches() {
    let server = Server::default();
    let mut client = server.start().await;
    let batches = [batch(vec![1, 2]), batch(vec![3])];
    let schema = batches[0].schema();
    let rows = client.ingest(target(), schema, stream::iter(batches.map(Ok))).await.unwrap();
    assert_eq!(rows, 3);
    let uploads = server.uploads.lock().unwrap();
    assert_eq!(uploads.len(), 1);
    assert_eq!(uploads[0].0.table, "t");
    assert_eq!(uploads[0].0.options["distkey"], "n");
}

#[tokio::test]
async fn an_upload_of_no_batches_still_names_its_table() {
    let server = Server::default();
    let mut client = server.start().await;
    let rows = client.ingest(target(), batch(vec![]).schema(), stream::empty()).await.unwrap();
    assert_eq!(rows, 0);
    assert_eq!(server.uploads.lock().unwrap()[0].0.table, "t");
}

#[tokio::test]
async fn an_upload_whose_source_fails_is_reset_and_not_committed() {
    let server = Server::default();
    let mut client = server.start().await;
    let failure = || Err(ClientError::Local("b.csv: line 7 is broken".to_owned()));
    let batches = stream::iter([Ok(batch(vec![1, 2])), failure()]);
    let error = client.ingest(target(), batch(vec![]).schema(), batches).await.unwrap_err();
    assert_eq!(error.to_string(), "b.csv: line 7 is broken");
    server.upload_ended.notified().await;
    assert!(server.uploads.lock().unwrap().is_empty(), "a part was committed");
}

#[tokio::test]
async fn what_a_server_does_not_offer_is_named_so() {
    let mut client = Server::default().start().await;
    // The channel works, the method does not: this server cannot prepare.
    let error = client.prepare("SELECT 1").await.err().unwrap();
    assert_eq!(error.code(), Some("UNIMPLEMENTED"), "{error}");
}

const SLT: &str = "\
statement ok
CREATE TABLE t AS SELECT n, n / 4.0 AS q FROM generate_series(1, 3) AS s(n)

query IR rowsort
SELECT n, q FROM t
----
1 0.25
2 0.5
3 0.75

query T
SELECT ''
----
(empty)

onlyif basalt
query T
SELECT 'only over flight'
----
only over flight

statement error [Nn]o such|not found
SELECT * FROM missing

query I
SELECT 1
----
2

query T
SELECT 1
----
1
";

#[tokio::test]
async fn one_file_runs_over_flight_and_in_process() {
    let mut file = tempfile::NamedTempFile::with_suffix(".slt").unwrap();
    std::io::Write::write_all(&mut file, SLT.as_bytes()).unwrap();
    let server = Server::default();
    let url = server.start().await.url().to_owned();

    let flight = || FlightEngine::connect(&url);
    let report = slt::run_file(file.path(), flight, &SltOptions::default()).await;
    let lines: Vec<u32> = report.failures.iter().map(|failure| failure.line).collect();
    assert_eq!((report.passed, report.skipped, lines), (5, 0, vec![25, 30]), "{report:#?}");
    let [wrong_value, wrong_type] = &report.failures[..] else { panic!("{report:#?}") };
    assert!(wrong_value.text.contains("-   2\n+   1"), "{}", wrong_value.text);
    assert!(wrong_type.text.contains("columns mismatch"), "{}", wrong_type.text);

    let local = || async { Ok(DataFusionEngine::new(SessionContext::new())) };
    let report = slt::run_file(file.path(), local, &SltOptions::default()).await;
    assert_eq!((report.passed, report.skipped, report.failures.len()), (4, 1, 2), "{report:#?}");

    let fail_fast = SltOptions { fail_fast: true, ..Default::default() };
    let report = slt::run_file(file.path(), local, &fail_fast).await;
    assert_eq!((report.passed, report.skipped, report.failures.len()), (4, 2, 1), "{report:#?}");
}

fn check_url(url: &str, target: &str) {
    assert_eq!(endpoint(url).unwrap().uri().to_string(), target, "{url}");
}

fn check_refused(url: &str, reason: &str) {
    let error = endpoint(url).unwrap_err().to_string();
    assert!(error.contains(reason), "{url}: {error}");
}

#[test]
fn every_usual_form_of_an_address_is_accepted() {
    check_url("grpc://127.0.0.1:50051", "http://127.0.0.1:50051/");
    check_url("grpc+tcp://db:1/", "http://db:1/");
    check_url("http://localhost:50051", "http://localhost:50051/");
    check_url("localhost:50051", "http://localhost:50051/");
    check_url("[::1]:50051", "http://[::1]:50051/");
}

#[test]
fn a_bad_address_says_what_is_wrong_with_it() {
    check_refused("", "expected grpc://host:port");
    check_refused("localhost", "port is missing");
    check_refused("postgres://localhost:5432", "scheme postgres");
    check_refused("https://localhost:50051", "plain gRPC");
    check_refused("grpc://localhost:1/db", "expected grpc://host:port");
}
