//! One record of the log, byte by byte.
//!
//! ```text
//!  0  magic "BLOG"                     4
//!  4  format version                   2   little endian, as all numbers here
//!  6  zero                             2
//!  8  sequence number, from 1          8
//! 16  epoch of the slices after it     8
//! 24  BLAKE3 of the record before     32   zeros for record 1
//! 56  length of the payload            4
//! 60  epoch of the log                 8   since format 4; 0 in records of older formats
//! 68  payload: the command as JSON     n   at 60 in older formats
//! ..  CRC-32C of everything above      4
//! ```
//! Invariant: [`RawRecord::decode`] is the only way from bytes to a record, and it checks all of
//! that but the chain, which needs the neighbour: [`Chain`] does.

use thiserror::Error;

use crate::digest::Digest;
use crate::ids::{Epoch, LogEpoch};

/// The newest format of records and checkpoints that this program reads, and the one it writes.
///
/// - 1: the first
/// - 2: rows are deleted and segments replaced; `DeleteRows`, `ReplaceSegments`, delete vectors
///   columns have defaults and lengths, tables have keys
/// - 3: slices have partners and copies move; `PlaceSlices`, `MoveCopies`, `DrainWorker`,
///   `RemoveWorker`, `DescribeWorker`
/// - 4: the log has members; `SetLogMembers`, the epoch of the log in every record
/// - 5: catalogs that were rebuilt; `RebuildCluster`, `RebuildSegments`
/// - 6: columns have declared encodings, and columns of segments the one they are written in; tables have
///   statistics, `RecordAnalysis`
/// - 7: keys are chosen for tables whose distribution is left to the engine; `ChooseKey`, and segments say
///   by which column their rows were given to their slice
pub const FORMAT_VERSION: u16 = 7;

const MAGIC: &[u8; 4] = b"BLOG";
/// Bytes before the payload, before and since format 4.
const OLD_HEADER_BYTES: usize = 60;
const HEADER_BYTES: usize = 68;
const CRC_BYTES: usize = 4;
/// Since when records carry the epoch of the log.
const LOG_EPOCH_SINCE: u16 = 4;

/// The largest payload. A commit of 100,000 segments of a 100-column table stays below it; redb
/// itself ends at 3 GiB, and so much must fit into memory several times.
pub const PAYLOAD_BYTES_MAX: usize = 256 << 20;

/// The largest record.
pub const RECORD_BYTES_MAX: usize = HEADER_BYTES + PAYLOAD_BYTES_MAX + CRC_BYTES;

/// Why bytes are no record, or none that belongs where it is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The bytes fail a check.
    #[error("log record {seq} {problem}")]
    Corrupt {
        /// The record that should be there.
        seq: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// A newer version of the program wrote them.
    #[error(
        "log record {seq} has format version {found}, and this version reads up to {supported}"
    )]
    NewerFormat {
        /// The record.
        seq: u64,
        /// The version it has.
        found: u16,
        /// The newest version known here.
        supported: u16,
    },
    /// A payload that no record can have.
    #[error("a commit of {bytes} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The most there can be.
        limit: usize,
    },
}

fn corrupt(seq: u64, problem: impl Into<String>) -> RecordError {
    RecordError::Corrupt { seq, problem: problem.into() }
}

/// The end of a log: what the next record must continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// Sequence number of the last record; 0 before the first.
    pub seq: u64,
    /// Epoch of the slices after the last record.
    pub epoch: Epoch,
    /// Epoch of the log after the last record.
    pub log_epoch: LogEpoch,
    /// BLAKE3 of the last record; zeros before the first.
    pub hash: Digest,
}

impl Chain {
    /// Before the first record.
    pub fn start() -> Self {
        let hash = Digest::from_bytes([0; 32]);
        Self { seq: 0, epoch: Epoch(0), log_epoch: LogEpoch(0), hash }
    }

    /// Makes the bytes of the next record, and moves on to it.
    ///
    /// # Errors
    /// [`RecordError::TooLarge`].
    pub fn append(
        &mut self,
        epoch: Epoch,
        log_epoch: LogEpoch,
        payload: &[u8],
    ) -> Result<Vec<u8>, RecordError> {
        let length = u32::try_from(payload.len())
            .ok()
            .filter(|_| payload.len() <= PAYLOAD_BYTES_MAX)
            .ok_or(RecordError::TooLarge { bytes: payload.len(), limit: PAYLOAD_BYTES_MAX })?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len() + CRC_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&(self.seq + 1).to_le_bytes());
        bytes.extend_from_slice(&epoch.0.to_le_bytes());
        bytes.extend_from_slice(self.hash.as_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&log_epoch.0.to_le_bytes());
        bytes.extend_from_slice(payload);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        *self = Self { seq: self.seq + 1, epoch, log_epoch, hash: Digest::of(&bytes) };
        Ok(bytes)
    }

    /// Moves on to a record, stored under `key`, after checking that it is the next one.
    ///
    /// # Errors
    /// [`RecordError::Corrupt`] that says what does not continue.
    pub fn follow(&mut self, key: u64, record: &RawRecord<'_>) -> Result<(), RecordError> {
        if key != self.seq + 1 {
            return Err(corrupt(self.seq + 1, format!("is missing: the next one is {key}")));
        }
        if record.seq != key {
            return Err(corrupt(key, format!("says it is record {}", record.seq)));
        }
        if record.prev != self.hash {
            return Err(corrupt(key, "does not continue the one before it"));
        }
        if record.epoch < self.epoch {
            let problem = format!("goes back from epoch {} to {}", self.epoch, record.epoch);
            return Err(corrupt(key, problem));
        }
        if record.log_epoch < self.log_epoch {
            let (from, to) = (self.log_epoch, record.log_epoch);
            return Err(corrupt(key, format!("goes back from log epoch {from} to {to}")));
        }
        *self = record.chain();
        Ok(())
    }
}

/// A record whose own checks passed and whose payload is not parsed yet.
#[derive(Debug)]
pub struct RawRecord<'a> {
    /// Its sequence number, as it says itself.
    pub seq: u64,
    /// The epoch of the slices after it.
    pub epoch: Epoch,
    /// The epoch of the log after it.
    pub log_epoch: LogEpoch,
    /// BLAKE3 of the record before it.
    pub prev: Digest,
    /// The command.
    pub payload: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> RawRecord<'a> {
    /// Checks the bytes stored under `key`.
    ///
    /// The format version is read before the checksum: a newer program may well have another
    /// checksum, and "written by a newer version" is the more useful answer.
    ///
    /// # Errors
    /// [`RecordError::Corrupt`] and [`RecordError::NewerFormat`].
    pub fn decode(key: u64, bytes: &'a [u8]) -> Result<Self, RecordError> {
        let too_short = || corrupt(key, "is too short to be a record");
        let mut at = Reader(bytes);
        if at.take::<4>().ok_or_else(too_short)? != *MAGIC {
            return Err(corrupt(key, "does not begin like a record"));
        }
        let format = u16::from_le_bytes(at.take().ok_or_else(too_short)?);
        if format > FORMAT_VERSION {
            let (seq, found, supported) = (key, format, FORMAT_VERSION);
            return Err(RecordError::NewerFormat { seq, found, supported });
        }
        let (covered, crc) = bytes.split_last_chunk::<CRC_BYTES>().ok_or_else(too_short)?;
        if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
            return Err(corrupt(key, "fails its checksum"));
        }
        let reserved = at.take::<2>().ok_or_else(too_short)?;
        if format == 0 || reserved != [0; 2] {
            return Err(corrupt(key, "has an impossible header"));
        }
        let seq = u64::from_le_bytes(at.take().ok_or_else(too_short)?);
        let epoch = Epoch(u64::from_le_bytes(at.take().ok_or_else(too_short)?));
        let prev = Digest::from_bytes(at.take().ok_or_else(too_short)?);
        let length = u32::from_le_bytes(at.take().ok_or_else(too_short)?);
        let (log_epoch, header) = if format < LOG_EPOCH_SINCE {
            (0, OLD_HEADER_BYTES)
        } else {
            (u64::from_le_bytes(at.take().ok_or_else(too_short)?), HEADER_BYTES)
        };
        let payload = covered.get(header..).ok_or_else(too_short)?;
        if u32::try_from(payload.len()) != Ok(length) {
            return Err(corrupt(key, "has another length than it says"));
        }
        Ok(Self { seq, epoch, log_epoch: LogEpoch(log_epoch), prev, payload, bytes })
    }

    /// The end of a log that ends with this record.
    pub fn chain(&self) -> Chain {
        let Self { seq, epoch, log_epoch, .. } = *self;
        Chain { seq, epoch, log_epoch, hash: Digest::of(self.bytes) }
    }
}

/// Whether bytes end with the checksum of what is before it, as records of every known format do:
/// one of a newer format that does is none that was damaged.
pub fn has_checksum(bytes: &[u8]) -> bool {
    let parts = bytes.split_last_chunk::<CRC_BYTES>();
    parts.is_some_and(|(covered, crc)| crc32c::crc32c(covered) == u32::from_le_bytes(*crc))
}

/// Takes fixed-size pieces off the front of a slice; `None` past its end.
pub struct Reader<'a>(pub &'a [u8]);

impl Reader<'_> {
    /// The next `N` bytes.
    pub fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (piece, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*piece)
    }
}
