//! Sizes, schemas and errors of encoded streams.

use arrow::array::{Int64Array, ListArray, StringArray};
use arrow::datatypes::{Field, Int64Type};
use arrow_flight::decode::FlightRecordBatchStream;
use futures::TryStreamExt;

use super::*;

fn strings(values: Vec<String>) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("s", DataType::Utf8, true)]);
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(StringArray::from(values))]).unwrap()
}

async fn messages(batch: RecordBatch) -> Vec<FlightData> {
    super::batch(batch).try_collect().await.unwrap()
}

/// Encodes, checks that every message is small, decodes, compares.
async fn check_round_trip(batch: RecordBatch, messages_max: usize) {
    let messages = messages(batch.clone()).await;
    assert!(messages.len() <= messages_max, "{} messages", messages.len());
    for message in &messages {
        assert!(message.data_body.len() <= MESSAGE_BYTES_CUT, "{}", message.data_body.len());
    }
    let data = stream::iter(messages.into_iter().map(Ok));
    let decoded: Vec<_> =
        FlightRecordBatchStream::new_from_flight_data(data).try_collect().await.unwrap();
    let decoded = arrow::compute::concat_batches(&batch.schema(), &decoded).unwrap();
    assert_eq!(decoded, batch);
}

#[tokio::test]
async fn even_rows_are_cut_to_the_target() {
    let batch = strings((0..10_000).map(|i| format!("{i:01000}")).collect());
    check_round_trip(batch, 8).await;
}

#[tokio::test]
async fn one_large_row_among_small_ones_does_not_make_small_messages() {
    let mut values: Vec<_> = (0..100_000).map(|i| i.to_string()).collect();
    values[50_000] = "x".repeat(11 << 20);
    check_round_trip(strings(values), 40).await;
}

#[tokio::test]
async fn a_slice_of_a_large_batch_counts_only_its_own_rows() {
    let batch = strings((0..100_000).map(|i| format!("{i:0500}")).collect());
    assert!(wire_bytes(&batch) > 50_000_000);
    let slice = batch.slice(77, 1_000);
    assert!(wire_bytes(&slice) < 600_000);
    check_round_trip(slice, 2).await;
}

#[tokio::test]
async fn lists_are_measured_by_their_slice() {
    let lists = (0..50_000).map(|i| Some((0..20).map(move |j| Some(i * j)).collect::<Vec<_>>()));
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>(lists);
    let schema = Schema::new(vec![Field::new("l", list.data_type().clone(), true)]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(list)]).unwrap();
    check_round_trip(batch, 10).await;
}

#[tokio::test]
async fn an_empty_result_is_its_schema() {
    let batch = strings(Vec::new());
    let schema = batch.schema();
    let messages: Vec<_> =
        rows(schema, stream::empty().boxed(), Origin::default()).try_collect().await.unwrap();
    assert_eq!(messages.len(), 1);
}

#[tokio::test]
async fn rows_without_columns_keep_their_number() {
    let options = RecordBatchOptions::new().with_row_count(Some(7));
    let batch =
        RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options).unwrap();
    check_round_trip(batch, 2).await;
}

#[tokio::test]
async fn a_row_above_the_limit_names_the_option() {
    let batch = strings(vec!["x".repeat(MESSAGE_BYTES_MAX + 1)]);
    let error = super::batch(batch).try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::ResourceExhausted);
    assert!(error.message().contains("with_max_msg_size"), "{}", error.message());
}

#[tokio::test]
async fn a_batch_of_another_schema_is_our_error() {
    let announced = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
    let wrong = stream::iter([Ok(strings(vec!["x".to_owned()]))]).boxed();
    let error =
        rows(announced, wrong, Origin::default()).try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Internal);
}

#[tokio::test]
async fn nullability_is_brought_to_the_announced_schema() {
    let announced = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
    let strict = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let batch = RecordBatch::try_new(strict, vec![Arc::new(Int64Array::from(vec![1]))]).unwrap();
    let conformed = conform(&announced, batch).unwrap();
    assert_eq!(conformed.schema(), announced);
}

#[tokio::test]
async fn an_error_after_rows_is_the_last_item() {
    let batch = strings(vec!["x".to_owned()]);
    let failing = stream::iter([
        Ok(batch.clone()),
        Err(SqlError::new(ErrorCode::DataException, "division by zero")),
        Ok(batch.clone()),
    ]);
    let items: Vec<_> =
        rows(batch.schema(), failing.boxed(), Origin::default()).collect().await;
    assert_eq!(items.len(), 3);
    assert_eq!(items[2].as_ref().unwrap_err().message(), "division by zero");
}

#[tokio::test]
async fn a_panic_in_the_source_is_an_error_of_the_stream() {
    let batch = strings(vec!["x".to_owned()]);
    let panicking = stream::once(async { panic!("boom") });
    let items: Vec<_> =
        rows(batch.schema(), panicking.boxed(), Origin::default()).collect().await;
    assert_eq!(items[1].as_ref().unwrap_err().code(), tonic::Code::Internal);
}
