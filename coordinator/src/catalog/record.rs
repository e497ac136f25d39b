//! The records of the log: their bytes are [`basalt_storage::command_log::record`]'s, which log
//! members know as well, and their payloads are commands.

pub use basalt_storage::command_log::record::{
    Chain, FORMAT_VERSION, PAYLOAD_BYTES_MAX, RawRecord, RecordError,
};

use basalt_storage::digest::Digest;

use super::command::Command;
use super::error::CatalogError;

/// A record, by its number and its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Its sequence number; 0 is before the first.
    pub seq: u64,
    /// Its hash.
    pub hash: Digest,
}

impl Mark {
    /// The last record of a log.
    pub fn at(chain: Chain) -> Self {
        Self { seq: chain.seq, hash: chain.hash }
    }
}

/// Parses the payload of a record.
///
/// # Errors
/// [`CatalogError::Corrupt`] when it is no command.
pub fn command(record: &RawRecord<'_>) -> Result<Command, CatalogError> {
    serde_json::from_slice(record.payload).map_err(|error| {
        CatalogError::corrupt_record(record.seq, format!("holds no command: {error}"))
    })
}

impl From<RecordError> for CatalogError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Corrupt { seq, problem } => Self::corrupt_record(seq, problem),
            RecordError::NewerFormat { seq, found, supported } => {
                Self::NewerFormat { place: format!("log record {seq}"), found, supported }
            }
            RecordError::TooLarge { bytes, limit } => Self::TooLarge { bytes, limit },
        }
    }
}
