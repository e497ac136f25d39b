//! Record batches that clients send: parameters and ingested rows.
//!
//! Invariant: malformed bytes are an error, never a panic: arrow-ipc 59 panics on some malformed
//! schemas, so decoding runs under `catch_unwind`. Buffers are validated; nothing is trusted. Nor
//! can a message make it allocate much more than the message is long: what compressed buffers claim
//! to expand to is looked at first (`engine/src/ipc.rs`).

use std::panic::AssertUnwindSafe;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow_flight::FlightData;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use basalt_engine::error::{ErrorCode, SqlError};
use basalt_engine::ipc::{Compression, check_message};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use tonic::{Status, Streaming};

use super::status;

/// The batches of a DoPut stream, behind their schema.
pub(super) struct Upload {
    /// The schema that the client announced.
    pub(super) schema: SchemaRef,
    /// The batches; an error when the client breaks off or sends nonsense.
    pub(super) batches: BoxStream<'static, Result<RecordBatch, SqlError>>,
}

/// Reads the schema of an upload whose first message was taken off already.
///
/// `None` when the stream ends before a schema came.
pub(super) async fn upload(
    first: FlightData,
    rest: Streaming<FlightData>,
) -> Result<Option<Upload>, Status> {
    // A first message may hold the descriptor only; the decoder wants IPC messages.
    let first = stream::iter((!first.data_header.is_empty()).then_some(Ok(first)));
    let messages = first.chain(rest.map_err(FlightError::from));
    let mut payloads = payloads(messages);
    loop {
        let payload = payloads.try_next().await;
        match payload.map_err(|e| status::from_error(&e, "", None))? {
            Some(DecodedPayload::Schema(schema)) => {
                return Ok(Some(Upload { schema, batches: batches(payloads) }));
            }
            Some(DecodedPayload::None) => {}
            Some(DecodedPayload::RecordBatch(_)) => {
                return Err(status::invalid("a record batch came before its schema"));
            }
            None => return Ok(None),
        }
    }
}

/// All batches of an upload of at most `bytes_max` bytes in memory.
pub(super) async fn collect(
    upload: Upload,
    bytes_max: usize,
) -> Result<Vec<RecordBatch>, SqlError> {
    let mut batches = upload.batches;
    let mut collected = Vec::new();
    let mut bytes = 0;
    while let Some(batch) = batches.try_next().await? {
        bytes += batch.get_array_memory_size();
        if bytes > bytes_max {
            let text = format!("the parameters take more than {bytes_max} bytes");
            return Err(SqlError::new(ErrorCode::ResourcesExhausted, text)
                .with_hint("load many rows by ingest (adbc_ingest) or COPY"));
        }
        collected.push(batch);
    }
    Ok(collected)
}

fn batches(
    payloads: BoxStream<'static, Result<DecodedPayload, SqlError>>,
) -> BoxStream<'static, Result<RecordBatch, SqlError>> {
    payloads
        .try_filter_map(|payload| async move {
            match payload {
                DecodedPayload::RecordBatch(batch) => Ok(Some(batch)),
                DecodedPayload::None => Ok(None),
                DecodedPayload::Schema(_) => Err(invalid("a second schema came in one upload")),
            }
        })
        .boxed()
}

/// Decodes messages; a panic of the decoder ends the stream with an error.
fn payloads(
    messages: impl Stream<Item = Result<FlightData, FlightError>> + Send + 'static,
) -> BoxStream<'static, Result<DecodedPayload, SqlError>> {
    let messages = messages.and_then(|message| std::future::ready(safe(message)));
    AssertUnwindSafe(FlightDataDecoder::new(messages))
        .catch_unwind()
        .map(|decoded| match decoded {
            Ok(Ok(data)) => Ok(data.payload),
            Ok(Err(FlightError::Tonic(status))) => Err(broken_off(&status)),
            Ok(Err(e)) => Err(invalid(format!("an Arrow message is malformed: {e}"))),
            Err(_) => Err(invalid("an Arrow message is malformed")),
        })
        .boxed()
}

/// A message that is safe to decode, when it is an Arrow message at all.
fn safe(message: FlightData) -> Result<FlightData, FlightError> {
    if !message.data_header.is_empty() {
        check_message(&message.data_header, &message.data_body, Compression::Bounded)
            .map_err(|error| FlightError::DecodeError(error.to_string()))?;
    }
    Ok(message)
}

fn invalid(message: impl Into<String>) -> SqlError {
    SqlError::new(ErrorCode::InvalidParameter, message)
}

/// The client's side of the stream failed: it was cancelled, died, or sent too large a message.
fn broken_off(status: &Status) -> SqlError {
    match status.code() {
        tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => {
            SqlError::new(ErrorCode::ResourcesExhausted, format!("a message: {}", status.message()))
                .with_hint("send smaller batches")
        }
        _ => SqlError::new(
            ErrorCode::Cancelled,
            format!("the client broke off its stream: {}", status.message()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::ipc::writer::IpcWriteOptions;
    use arrow_flight::SchemaAsIpc;
    use std::sync::Arc;

    use super::*;

    async fn decode(message: FlightData) -> Result<Vec<DecodedPayload>, SqlError> {
        payloads(stream::iter([Ok(message)])).try_collect().await
    }

    #[tokio::test]
    async fn malformed_schemas_are_errors_and_not_panics() {
        let columns = [
            ("n", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
            ("s", Arc::new(StringArray::from(vec!["x"])) as ArrayRef),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let options = IpcWriteOptions::default();
        let whole = FlightData::from(SchemaAsIpc::new(&batch.schema(), &options));
        assert!(decode(whole.clone()).await.is_ok());
        for position in 0..whole.data_header.len() {
            for flipped in [0x01, 0x80, 0xff] {
                let mut bytes = whole.data_header.to_vec();
                bytes[position] ^= flipped;
                // Some mutations are harmless: what counts is that each gives an answer.
                let _answer =
                    decode(FlightData { data_header: bytes.into(), ..whole.clone() }).await;
            }
        }
    }

    /// A batch whose one buffer, compressed, claims to be as long as `claimed` when expanded.
    fn compressed_batch(claimed: i64) -> [FlightData; 2] {
        use arrow::ipc::CompressionType;
        use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext};
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        let batch = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
        let options = IpcWriteOptions::default()
            .try_with_compression(Some(CompressionType::LZ4_FRAME))
            .unwrap();
        let schema = FlightData::from(SchemaAsIpc::new(&batch.schema(), &options));
        let (_, encoded) = IpcDataGenerator::default()
            .encode(
                &batch,
                &mut DictionaryTracker::new(false),
                &options,
                &mut IpcWriteContext::default(),
            )
            .unwrap();
        let mut rows = FlightData::from(encoded);
        let mut body = rows.data_body.to_vec();
        let honest = (1000i64 * 8).to_le_bytes();
        let position = body.windows(8).position(|window| window == honest).unwrap();
        body[position..position + 8].copy_from_slice(&claimed.to_le_bytes());
        rows.data_body = body.into();
        [schema, rows]
    }

    #[tokio::test]
    async fn a_batch_that_claims_to_expand_to_terabytes_is_an_error_and_not_an_abort() {
        let check = async |claimed| {
            let messages = stream::iter(compressed_batch(claimed).map(Ok));
            payloads(messages).try_collect::<Vec<_>>().await.map(|decoded| decoded.len())
        };
        assert_eq!(check(8_000).await.unwrap(), 2);
        for claimed in [1 << 45, i64::MAX, -2] {
            assert_eq!(check(claimed).await.unwrap_err().code, ErrorCode::InvalidParameter);
        }
    }

    #[tokio::test]
    async fn a_client_that_breaks_off_is_told_apart_from_one_that_ends() {
        let broken = stream::iter([Err(FlightError::from(Status::unknown("reset")))]);
        let error = payloads(broken).try_next().await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Cancelled);
        assert!(payloads(stream::empty()).try_next().await.unwrap().is_none());
    }
}
