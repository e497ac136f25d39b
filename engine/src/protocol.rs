//! The gRPC contracts between coordinator and workers (`proto/internal.proto`), and the
//! conversions between their fields and ids.

#[expect(missing_docs, reason = "generated; internal.proto has the documentation")]
#[expect(clippy::allow_attributes_without_reason, reason = "generated")]
#[expect(clippy::large_enum_variant, reason = "generated; one header per stream")]
mod generated {
    tonic::include_proto!("basalt.internal.v1");
}

use basalt_storage::digest::Digest;
use basalt_storage::ids::{ClusterId, LogWriter, SegmentId, TxnId, WorkerId};
pub use generated::*;
use tonic::Status;
use uuid::Uuid;

/// The largest weight of a worker.
pub const WORKER_WEIGHT_MAX: u32 = 1_000;
/// The longest name of a failure domain, in bytes.
const DOMAIN_BYTES_MAX: usize = 255;

/// What is wrong with a text as the name of a failure domain, if anything.
pub fn domain_problem(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("is empty")
    } else if name.len() > DOMAIN_BYTES_MAX {
        Some("is longer than 255 bytes")
    } else if name.chars().any(char::is_control) {
        Some("has control characters")
    } else {
        None
    }
}

/// The version of plans, codecs and messages. Members of a cluster have the same one (RULES 35).
/// 2: epochs in every request, recursion and functions of our own in plans. 4: copies on partners.
/// 5: checksums over every body, requests that name their worker. 6: commit records, segments that
/// name the table they were written for. 7: rows that are merged stay in their slice.
/// 8: scans in the order of the sort key, encodings that columns declare, sketches of columns. 9: fragments name
/// their query. 10: averages of integers are exact. 11: rows are sent to the tasks of their slices.
/// 12: plans have rows with them. 13: sums of sums. 14: appends name the source of their rows.
pub const PROTOCOL_VERSION: u32 = 14;

/// The largest message any internal service sends or accepts, in bytes. One record batch must
/// fit: a batch is cut to about 2 MiB, and a single row may be as long as a Flight message.
pub const MESSAGE_BYTES_MAX: usize = 72 * 1024 * 1024;

/// The largest part of a file that one message carries, in bytes.
pub const BYTES_PART_MAX: usize = 1024 * 1024;

/// A malformed field of a message.
#[derive(Debug, thiserror::Error)]
#[error("field {field} of {message} is malformed")]
pub struct MalformedMessage {
    message: &'static str,
    field: &'static str,
}

impl MalformedMessage {
    /// Names the field of a message that makes no sense.
    pub fn new(message: &'static str, field: &'static str) -> Self {
        Self { message, field }
    }
}

impl From<MalformedMessage> for Status {
    fn from(error: MalformedMessage) -> Self {
        Status::invalid_argument(error.to_string())
    }
}

impl From<MalformedMessage> for datafusion::error::DataFusionError {
    fn from(error: MalformedMessage) -> Self {
        Self::External(Box::new(error))
    }
}

/// An id that travels as 16 bytes.
pub trait WireId: Sized {
    /// The bytes of the id.
    fn to_wire(&self) -> Vec<u8>;
    /// Reads an id; any other length than 16 is malformed.
    fn from_wire(
        bytes: &[u8],
        message: &'static str,
        field: &'static str,
    ) -> Result<Self, MalformedMessage>;
}

/// Implements [`WireId`] for the newtypes over UUIDs.
macro_rules! wire_id {
    ($($name:ident),*) => {$(
        impl WireId for $name {
            fn to_wire(&self) -> Vec<u8> {
                self.0.as_bytes().to_vec()
            }

            fn from_wire(
                bytes: &[u8],
                message: &'static str,
                field: &'static str,
            ) -> Result<Self, MalformedMessage> {
                Uuid::from_slice(bytes)
                    .map(Self)
                    .map_err(|_| MalformedMessage::new(message, field))
            }
        }
    )*};
}

wire_id!(ClusterId, LogWriter, SegmentId, TxnId, WorkerId);

/// Reads a digest; any other length than 32 is malformed.
pub fn digest_from_wire(bytes: &[u8], message: &'static str) -> Result<Digest, MalformedMessage> {
    <[u8; 32]>::try_from(bytes)
        .map(Digest::from_bytes)
        .map_err(|_| MalformedMessage::new(message, "digest"))
}
