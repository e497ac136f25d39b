//! Record batches to Flight messages of bounded size.
//!
//! Invariants: every message of a stream has exactly the announced schema (the Go driver rejects
//! a stream that differs in as little as nullability), and no message is larger than
//! [`MESSAGE_BYTES_TARGET`] by much unless a single row is.
//!
//! Batches are cut by rows. How many bytes rows take is measured on the slices themselves, and
//! again on the encoded message: an average would be far off when one row of a batch is large.
//! Errors and panics of the source end the stream as the status that they are.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, OffsetSizeTrait};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow_flight::{FlightData, IpcMessage, SchemaAsIpc};
use basalt_engine::error::{ErrorCode, SqlError};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tonic::Status;

use super::status;
use crate::backend::QueryId;

/// Bytes of a message that batches are cut to, as in arrow-rs: small enough for every client's
/// default limit, large enough to keep the cost per message low.
pub(super) const MESSAGE_BYTES_TARGET: usize = 2 << 20;
/// An encoded message above this is cut again; the least default limit of a client is 16 MiB
/// (gRPC Go: 16 MiB in the ADBC driver).
const MESSAGE_BYTES_CUT: usize = 12 << 20;
/// A single row above this is refused; a client that set its limit can take this much.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Messages on their way to a client.
pub(super) type MessageStream = BoxStream<'static, Result<FlightData, Status>>;

/// Which statement a stream of rows belongs to, for its errors.
#[derive(Clone, Default)]
pub(super) struct Origin {
    pub(super) sql: Option<Arc<str>>,
    pub(super) query: Option<QueryId>,
}

impl Origin {
    fn status(&self, error: &SqlError) -> Status {
        status::from_error(error, self.sql.as_deref().unwrap_or_default(), self.query)
    }
}

/// A schema as an encapsulated IPC message: what FlightInfo, SchemaResult and `table_schema` hold.
pub(super) fn schema_bytes(schema: &Schema) -> Result<Bytes, Status> {
    IpcMessage::try_from(SchemaAsIpc::new(schema, &IpcWriteOptions::default()))
        .map(|message| message.0)
        .map_err(|e| encoding_failed(&e))
}

/// The messages of a result that is in memory.
pub(super) fn batch(batch: RecordBatch) -> MessageStream {
    let schema = batch.schema();
    rows(schema, stream::once(async { Ok(batch) }).boxed(), Origin::default())
}

/// The messages of a stream of rows: the schema, then batches; polls only when a client reads.
pub(super) fn rows(
    schema: SchemaRef,
    rows: BoxStream<'static, Result<RecordBatch, SqlError>>,
    origin: Origin,
) -> MessageStream {
    let head = FlightData::from(SchemaAsIpc::new(&schema, &IpcWriteOptions::default()));
    let rows = AssertUnwindSafe(rows)
        .catch_unwind()
        .map(|item| item.unwrap_or_else(|panic| Err(status::panicked(panic.as_ref()))))
        .boxed();
    let encoder = Encoder::new(schema, rows, origin);
    let body = stream::unfold(Some(encoder), |encoder| async move {
        let mut encoder = encoder?;
        match encoder.next().await {
            Some(Ok(message)) => Some((Ok(message), Some(encoder))),
            Some(Err(status)) => Some((Err(status), None)),
            None => None,
        }
    });
    stream::once(async { Ok(head) }).chain(body).boxed()
}

/// One stream's encoder.
struct Encoder {
    schema: SchemaRef,
    rows: BoxStream<'static, Result<RecordBatch, SqlError>>,
    origin: Origin,
    /// Messages and slices that are due before the next batch.
    due: VecDeque<Due>,
    generator: IpcDataGenerator,
    dictionaries: DictionaryTracker,
    options: IpcWriteOptions,
    context: IpcWriteContext,
}

enum Due {
    Slice(RecordBatch),
    Message(FlightData),
}

impl Encoder {
    fn new(
        schema: SchemaRef,
        rows: BoxStream<'static, Result<RecordBatch, SqlError>>,
        origin: Origin,
    ) -> Self {
        Self {
            schema,
            rows,
            origin,
            due: VecDeque::new(),
            generator: IpcDataGenerator::default(),
            dictionaries: DictionaryTracker::new(false),
            options: IpcWriteOptions::default(),
            context: IpcWriteContext::default(),
        }
    }

    async fn next(&mut self) -> Option<Result<FlightData, Status>> {
        loop {
            match self.due.pop_front() {
                Some(Due::Message(message)) => return Some(Ok(message)),
                Some(Due::Slice(slice)) => {
                    if let Err(error) = self.encode(slice) {
                        return Some(Err(self.origin.status(&error)));
                    }
                }
                None => match self.rows.next().await? {
                    Ok(batch) => match conform(&self.schema, batch) {
                        Ok(batch) => cut(batch, &mut self.due),
                        Err(error) => return Some(Err(self.origin.status(&error))),
                    },
                    Err(error) => return Some(Err(self.origin.status(&error))),
                },
            }
        }
    }

    /// Puts the messages of a slice, or its halves if it is too large, in front of the queue.
    fn encode(&mut self, slice: RecordBatch) -> Result<(), SqlError> {
        let (dictionaries, encoded) = self
            .generator
            .encode(&slice, &mut self.dictionaries, &self.options, &mut self.context)
            .map_err(|e| SqlError::new(ErrorCode::Internal, format!("a batch: {e}")))?;
        let message = FlightData::from(encoded);
        let bytes = message.data_header.len() + message.data_body.len();
        let rows = slice.num_rows();
        if bytes > MESSAGE_BYTES_CUT && rows > 1 {
            let half = rows / 2;
            self.due.push_front(Due::Slice(slice.slice(half, rows - half)));
            self.due.push_front(Due::Slice(slice.slice(0, half)));
            return Ok(());
        }
        if bytes > MESSAGE_BYTES_MAX {
            return Err(row_too_large(bytes));
        }
        self.due.push_front(Due::Message(message));
        for dictionary in dictionaries.into_iter().rev() {
            self.due.push_front(Due::Message(dictionary.into()));
        }
        Ok(())
    }
}

fn row_too_large(bytes: usize) -> SqlError {
    let error = SqlError::new(
        ErrorCode::ResourcesExhausted,
        format!("one row of the result takes {bytes} bytes, more than the {MESSAGE_BYTES_MAX} bytes that one message may have"),
    );
    error.with_hint(
        "select less of the row (substr, left); a client must also allow more than its default \
         of 16 MiB, in ADBC by adbc.flight.sql.client_option.with_max_msg_size",
    )
}

fn encoding_failed(e: &arrow::error::ArrowError) -> Status {
    status::error(ErrorCode::Internal, format!("a schema could not be encoded: {e}"))
}

/// The batch under the announced schema, or the error of a batch that does not fit it.
fn conform(schema: &SchemaRef, batch: RecordBatch) -> Result<RecordBatch, SqlError> {
    if Arc::ptr_eq(schema, batch.schema_ref()) || schema == batch.schema_ref() {
        return Ok(batch);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)
        .map_err(|e| {
            let text = format!("a batch does not have the announced schema: {e}");
            SqlError::new(ErrorCode::Internal, text)
        })
}

/// Cuts a batch into slices of about [`MESSAGE_BYTES_TARGET`], behind what is due already.
fn cut(batch: RecordBatch, due: &mut VecDeque<Due>) {
    let mut whole = vec![batch];
    while let Some(slice) = whole.pop() {
        let rows = slice.num_rows();
        let bytes = wire_bytes(&slice);
        if rows <= 1 || bytes <= MESSAGE_BYTES_TARGET {
            due.push_back(Due::Slice(slice));
            continue;
        }
        // In halves, or at once into as many parts as the average says when that is more.
        let parts = bytes.div_ceil(MESSAGE_BYTES_TARGET).clamp(2, rows);
        let part = rows.div_ceil(parts);
        let starts: Vec<_> = (0..rows).step_by(part).collect();
        for start in starts.into_iter().rev() {
            whole.push(slice.slice(start, part.min(rows - start)));
        }
    }
}

/// About how many bytes a slice takes on the wire, counting only what it refers to.
fn wire_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(array_bytes).sum()
}

fn array_bytes(array: &ArrayRef) -> usize {
    let validity = if array.null_count() > 0 { array.len().div_ceil(8) } else { 0 };
    validity
        + match array.data_type() {
            DataType::Utf8 => offsets_bytes(array.as_string::<i32>().value_offsets()),
            DataType::LargeUtf8 => offsets_bytes(array.as_string::<i64>().value_offsets()),
            DataType::Binary => offsets_bytes(array.as_binary::<i32>().value_offsets()),
            DataType::LargeBinary => offsets_bytes(array.as_binary::<i64>().value_offsets()),
            DataType::List(_) => list_bytes(array.as_list::<i32>()),
            DataType::LargeList(_) => list_bytes(array.as_list::<i64>()),
            DataType::Map(_, _) => {
                let map = array.as_map();
                let entries: ArrayRef = Arc::new(map.entries().clone());
                children_bytes(map.value_offsets(), &entries)
            }
            DataType::Struct(_) => array.as_struct().columns().iter().map(array_bytes).sum(),
            // Fixed width, and rare types that are counted with all they share.
            _ => array
                .to_data()
                .get_slice_memory_size()
                .unwrap_or_else(|_| array.get_buffer_memory_size()),
        }
}

fn offsets_bytes<O: OffsetSizeTrait>(offsets: &[O]) -> usize {
    let (first, last) = span(offsets);
    size_of_val(offsets) + (last - first)
}

fn list_bytes<O: OffsetSizeTrait>(list: &arrow::array::GenericListArray<O>) -> usize {
    children_bytes(list.value_offsets(), list.values())
}

fn children_bytes<O: OffsetSizeTrait>(offsets: &[O], children: &ArrayRef) -> usize {
    let (first, last) = span(offsets);
    size_of_val(offsets) + array_bytes(&children.slice(first, last - first))
}

fn span<O: OffsetSizeTrait>(offsets: &[O]) -> (usize, usize) {
    match offsets {
        [first, .., last] => (first.as_usize(), last.as_usize()),
        _ => (0, 0),
    }
}

#[cfg(test)]
mod tests;
