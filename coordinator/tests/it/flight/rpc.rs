//! Single RPCs: what runs, how often, and what the answers look like.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, CommandGetImportedKeys, CommandGetPrimaryKeys,
    CommandGetTables, CommandGetXdbcTypeInfo, CommandPreparedStatementQuery,
    CommandPreparedStatementUpdate, CommandStatementIngest, CommandStatementUpdate,
    DoPutUpdateResult, ProstMessageExt, TableDefinitionOptions, TableExistsOption,
    TableNotExistOption,
};
use arrow_flight::{FlightData, FlightDescriptor, FlightInfo, PutResult, Ticket};
use futures::stream;
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tonic::{Code, Status};

use super::test_server::{
    Client, TestServer, action, eventually, fetch, number, prepare, query, rows, run, ticket,
};

async fn put(
    client: &mut Client,
    messages: impl futures::Stream<Item = FlightData> + Send + 'static,
) -> Result<i64, Status> {
    let results: Vec<PutResult> = client.do_put(messages).await?.into_inner().try_collect().await?;
    Ok(DoPutUpdateResult::decode(results[0].app_metadata.as_ref()).unwrap().record_count)
}

fn upload<C: ProstMessageExt>(
    command: &C,
    batches: Vec<RecordBatch>,
) -> impl futures::Stream<Item = FlightData> + Send + use<C> {
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(descriptor))
        .with_max_flight_data_size(usize::MAX)
        .build(stream::iter(batches.into_iter().map(Ok::<_, FlightError>)))
        .map(|message| message.unwrap())
}

fn create_and_append(table: &str) -> CommandStatementIngest {
    CommandStatementIngest {
        table: table.to_owned(),
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: TableNotExistOption::Create as i32,
            if_exists: TableExistsOption::Append as i32,
        }),
        ..CommandStatementIngest::default()
    }
}

fn numbers(values: std::ops::Range<i64>) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
    RecordBatch::try_from_iter_with_nullable([("n", column, true)]).unwrap()
}

#[tokio::test]
async fn a_statement_runs_at_get_flight_info_and_only_there() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    run(client, "CREATE TABLE t (n BIGINT)").await.unwrap();
    let prepared = prepare(client, "INSERT INTO t VALUES (1), (2)").await.unwrap();
    assert_eq!(number(client, "SELECT count(*) FROM t").await, 0);
    let info = run(client, "INSERT INTO t VALUES (1), (2)").await.unwrap();
    assert_eq!((info.total_records, info.endpoint.len()), (2, 0));
    assert!(info.try_decode_schema().unwrap().fields().is_empty());
    assert_eq!(number(client, "SELECT count(*) FROM t").await, 2);
    let handle = prepared.prepared_statement_handle;
    let execute = CommandPreparedStatementQuery { prepared_statement_handle: handle };
    let descriptor = FlightDescriptor::new_cmd(execute.as_any().encode_to_vec());
    client.get_flight_info(descriptor.clone()).await.unwrap();
    client.get_schema(descriptor).await.unwrap();
    assert_eq!(number(client, "SELECT count(*) FROM t").await, 4);
}

#[tokio::test]
async fn a_ticket_is_good_for_one_fetch_on_any_connection() {
    let server = TestServer::start().await;
    let info = run(&mut server.client().await, "SELECT 1").await.unwrap();
    let other = &mut server.client().await;
    assert_eq!(fetch(other, ticket(&info)).await.unwrap()[0].num_rows(), 1);
    let again = fetch(other, ticket(&info)).await.unwrap_err();
    assert_eq!(again.code(), Code::NotFound);
    assert!(again.message().contains("fetched already"), "{}", again.message());
}

#[tokio::test]
async fn the_schema_is_the_same_wherever_it_is_told() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    let sql = "SELECT 1 AS a, 'x' AS b, NULL AS c, count(*) AS d FROM (VALUES (1)) AS v";
    let info = run(client, sql).await.unwrap();
    let announced = info.clone().try_decode_schema().unwrap();
    let fetched = fetch(client, ticket(&info)).await.unwrap()[0].schema();
    let told = client.get_schema(query(sql)).await.unwrap().into_inner();
    let prepared = prepare(client, sql).await.unwrap();
    assert_eq!(&announced, fetched.as_ref());
    assert_eq!(announced, Schema::try_from(&told).unwrap());
    let told = arrow_flight::SchemaResult { schema: prepared.dataset_schema };
    assert_eq!(announced, Schema::try_from(&told).unwrap());
}

#[tokio::test]
async fn plain_sql_is_taken_and_a_ticket_only_reads() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    for sql in ["CREATE TABLE t (n BIGINT)", "INSERT INTO t VALUES (7)"] {
        client.get_flight_info(FlightDescriptor::new_cmd(sql)).await.unwrap();
    }
    let batches = fetch(client, Ticket::new("SELECT n FROM t")).await.unwrap();
    assert_eq!(batches[0].num_rows(), 1);
    let before = server.backend.changes.load(Ordering::SeqCst);
    let refused = fetch(client, Ticket::new("DROP TABLE t")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(server.backend.changes.load(Ordering::SeqCst), before);
}

#[tokio::test]
async fn a_panic_fails_the_request_and_not_the_connection() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    assert_eq!(run(client, "PANIC").await.unwrap_err().code(), Code::Internal);
    assert_eq!(number(client, "SELECT 42").await, 42);
}

#[tokio::test]
async fn an_error_says_what_and_where_and_carries_its_code() {
    let server = TestServer::start().await;
    let status = run(&mut server.client().await, "SELECT nothing_here").await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.metadata().get("x-error-code").unwrap(), "UNDEFINED_COLUMN");
    assert_eq!(status.metadata().get("x-sqlstate").unwrap(), "42703");
    assert!(!status.details().is_empty());
}

#[tokio::test]
async fn an_error_after_rows_is_the_error_and_names_the_query() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    let digits = "(VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9))";
    let sql = format!(
        "SELECT 1 / (99990 - (a.x + 10*b.x + 100*c.x + 1000*d.x + 10000*e.x)) AS q \
         FROM {digits} AS a(x), {digits} AS b(x), {digits} AS c(x), {digits} AS d(x), {digits} AS e(x)"
    );
    let info = run(client, &sql).await.unwrap();
    let status = fetch(client, ticket(&info)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().to_lowercase().contains("divide"), "{}", status.message());
    let query = status.metadata().get("x-query-id").unwrap().as_bytes();
    assert_eq!(query, info.app_metadata.as_ref());
}

#[tokio::test]
async fn an_update_is_answered_before_the_client_ends_its_stream() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    let update = CommandStatementUpdate {
        query: "CREATE TABLE t (n BIGINT); INSERT INTO t VALUES (1), (2)".to_owned(),
        transaction_id: None,
    };
    let descriptor = FlightDescriptor::new_cmd(update.as_any().encode_to_vec());
    let first = FlightData::new().with_descriptor(descriptor);
    let never_ending = stream::iter([first]).chain(stream::pending());
    let answered = tokio::time::timeout(Duration::from_secs(20), put(client, never_ending));
    assert_eq!(answered.await.expect("an answer").unwrap(), 2);
}

#[tokio::test]
async fn an_ingest_loads_large_batches_in_one_go() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    let batches = vec![numbers(0..6_500_000), numbers(0..10)];
    let rows = put(client, upload(&create_and_append("big"), batches)).await.unwrap();
    assert_eq!(rows, 6_500_010);
    assert_eq!(number(client, "SELECT count(*) FROM big").await, 6_500_010);
}

#[tokio::test]
async fn an_ingest_of_nothing_is_explained() {
    let server = TestServer::start().await;
    let status = put(&mut server.client().await, stream::empty()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("zero batches"), "{}", status.message());
}

#[tokio::test]
async fn an_ingest_that_its_client_drops_leaves_nothing() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let stuck = upload(&create_and_append("t"), vec![numbers(0..10)]).chain(stream::pending());
    let backend = Arc::clone(&server.backend);
    let ingest = tokio::spawn(async move { put(&mut client, stuck).await });
    eventually("the ingest runs", || backend.ingesting.load(Ordering::SeqCst) == 1).await;
    ingest.abort();
    eventually("the ingest is over", || backend.ingesting.load(Ordering::SeqCst) == 0).await;
    let status = run(&mut server.client().await, "SELECT * FROM t").await.unwrap_err();
    assert_eq!(status.metadata().get("x-error-code").unwrap(), "UNDEFINED_TABLE");
}

#[tokio::test]
async fn garbage_instead_of_batches_is_an_error() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    let descriptor = create_and_append("t").as_any().encode_to_vec();
    let garbage = FlightData::new()
        .with_descriptor(FlightDescriptor::new_cmd(descriptor))
        .with_data_header(vec![0xff; 100]);
    let status = put(client, stream::iter([garbage])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(number(client, "SELECT 1").await, 1);
}

#[tokio::test]
async fn a_row_of_20_mib_arrives_when_the_client_allows_it() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    let batches = rows(client, "SELECT repeat('x', 20971520) AS s").await.unwrap();
    assert_eq!(batches[0].column(0).as_string::<i32>().value(0).len(), 20 << 20);
}

#[tokio::test]
async fn parameters_are_bound_by_position() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    let prepared =
        prepare(client, "SELECT CAST($2 AS VARCHAR) || CAST($1 AS VARCHAR) AS s").await.unwrap();
    let handle = prepared.prepared_statement_handle;
    let execute = CommandPreparedStatementQuery { prepared_statement_handle: handle };
    let descriptor = FlightDescriptor::new_cmd(execute.as_any().encode_to_vec());
    let unbound = client.get_flight_info(descriptor.clone()).await.unwrap_err();
    assert_eq!(unbound.code(), Code::InvalidArgument);
    let text = |t: &str| Arc::new(StringArray::from(vec![t])) as ArrayRef;
    let row = RecordBatch::try_from_iter([("0", text("b")), ("1", text("a"))]).unwrap();
    let bound = client.do_put(upload(&execute, vec![row])).await.unwrap().into_inner();
    bound.try_collect::<Vec<_>>().await.unwrap();
    let info = client.get_flight_info(descriptor).await.unwrap().into_inner();
    let batches = fetch(client, ticket(&info)).await.unwrap();
    assert_eq!(batches[0].column(0).as_string::<i32>().value(0), "ab");
}

#[tokio::test]
async fn an_update_of_no_columns_and_rows_runs_once() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    run(client, "CREATE TABLE t (n BIGINT)").await.unwrap();
    let prepared = prepare(client, "INSERT INTO t VALUES (1)").await.unwrap();
    let update = CommandPreparedStatementUpdate {
        prepared_statement_handle: prepared.prepared_statement_handle,
    };
    let nothing = RecordBatch::new_empty(Arc::new(Schema::empty()));
    assert_eq!(put(client, upload(&update, vec![nothing])).await.unwrap(), 1);
    assert_eq!(number(client, "SELECT count(*) FROM t").await, 1);
}

#[tokio::test]
async fn a_closed_statement_is_not_found_and_closes_again() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    let handle = prepare(client, "SELECT 1").await.unwrap().prepared_statement_handle;
    let execute = CommandPreparedStatementQuery { prepared_statement_handle: handle.clone() };
    let execute = FlightDescriptor::new_cmd(execute.as_any().encode_to_vec());
    let elsewhere = server.client().await.get_flight_info(execute.clone()).await.unwrap_err();
    assert_eq!(elsewhere.code(), Code::NotFound);
    let close = ActionClosePreparedStatementRequest { prepared_statement_handle: handle };
    for _ in 0..2 {
        let body = close.as_any().encode_to_vec();
        action(client, "ClosePreparedStatement", body).await.unwrap();
    }
    let closed = client.get_flight_info(execute).await.unwrap_err();
    assert_eq!(closed.code(), Code::NotFound);
}

#[tokio::test]
async fn a_transaction_is_refused_so_that_drivers_see_it() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    let status = action(client, "BeginTransaction", Vec::new()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

async fn metadata(client: &mut Client, command: &impl ProstMessageExt) -> (Schema, RecordBatch) {
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let info: FlightInfo = client.get_flight_info(descriptor).await.unwrap().into_inner();
    let batches = fetch(client, ticket(&info)).await.unwrap();
    let schema = info.try_decode_schema().unwrap();
    let batch = arrow::compute::concat_batches(&Arc::new(schema.clone()), &batches).unwrap();
    (schema, batch)
}

#[tokio::test]
async fn keys_are_empty_and_have_their_schemas() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    let table = || "t".to_owned();
    let primary = CommandGetPrimaryKeys { catalog: None, db_schema: None, table: table() };
    let (schema, batch) = metadata(client, &primary).await;
    assert_eq!((schema.fields().len(), batch.num_rows()), (6, 0));
    assert_eq!(schema.field(4), &Field::new("key_sequence", DataType::Int32, false));
    let imported = CommandGetImportedKeys { catalog: None, db_schema: None, table: table() };
    let (schema, batch) = metadata(client, &imported).await;
    assert_eq!((schema.fields().len(), batch.num_rows()), (13, 0));
    let (schema, batch) = metadata(client, &CommandGetXdbcTypeInfo { data_type: None }).await;
    assert_eq!(schema.fields().len(), 19);
    assert!(batch.num_rows() > 15);
}

#[tokio::test]
async fn ten_thousand_tables_are_listed_in_less_than_two_seconds() {
    let server = TestServer::start().await;
    let columns: Vec<_> =
        (0..8).map(|i| Field::new(format!("c{i}"), DataType::Int64, true)).collect();
    let schema = Arc::new(Schema::new(columns));
    for i in 0..10_000 {
        server.backend.add_table(&format!("t{i:05}"), Arc::clone(&schema));
    }
    let client = &mut server.client().await;
    let all = CommandGetTables { include_schema: true, ..CommandGetTables::default() };
    let started = Instant::now();
    let (_, batch) = metadata(client, &all).await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(batch.num_rows(), 10_000);
    let names = batch.column(2).as_string::<i32>();
    assert!(names.iter().is_sorted());
}
