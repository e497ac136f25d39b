//! One record of the log, byte by byte.
//!
//! ```text
//!  0  magic "BLOG"                     4
//!  4  format version                   2   little endian, as all numbers here
//!  6  zero                             2
//!  8  sequence number, from 1          8
//! 16  epoch after this record          8
//! 24  BLAKE3 of the record before     32   zeros for record 1
//! 56  length of the payload            4
//! 60  payload: the command as JSON     n
//! ..  CRC-32C of everything above      4
//! ```
//! Invariant: [`RawRecord::decode`] is the only way from bytes to a record, and it checks all of
//! that but the chain, which needs the neighbour: [`Chain`] does.

use basalt_storage::digest::Digest;
use basalt_storage::ids::Epoch;

use super::command::Command;
use super::error::CatalogError;

/// The newest format of records and checkpoints that this program reads, and the one it writes.
///
/// - 1: the first
/// - 2: rows are deleted and segments replaced; `DeleteRows`, `ReplaceSegments`, delete vectors
///   columns have defaults and lengths, tables have keys
/// - 3: slices have partners and copies move; `PlaceSlices`, `MoveCopies`, `DrainWorker`,
///   `RemoveWorker`, `DescribeWorker`
pub const FORMAT_VERSION: u16 = 3;

const MAGIC: &[u8; 4] = b"BLOG";
const HEADER_BYTES: usize = 60;
const CRC_BYTES: usize = 4;

/// The largest payload. A commit of 100,000 segments of a 100-column table stays below it; redb
/// itself ends at 3 GiB, and so much must fit into memory several times.
pub const PAYLOAD_BYTES_MAX: usize = 256 << 20;

/// The end of a log: what the next record must continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// Sequence number of the last record; 0 before the first.
    pub seq: u64,
    /// Epoch of the last record.
    pub epoch: Epoch,
    /// BLAKE3 of the last record; zeros before the first.
    pub hash: Digest,
}

impl Chain {
    /// Before the first record.
    pub fn start() -> Self {
        Self { seq: 0, epoch: Epoch(0), hash: Digest::from_bytes([0; 32]) }
    }

    /// Makes the bytes of the next record, and moves on to it.
    pub fn append(&mut self, epoch: Epoch, payload: &[u8]) -> Result<Vec<u8>, CatalogError> {
        let length = u32::try_from(payload.len())
            .ok()
            .filter(|_| payload.len() <= PAYLOAD_BYTES_MAX)
            .ok_or(CatalogError::TooLarge { bytes: payload.len(), limit: PAYLOAD_BYTES_MAX })?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len() + CRC_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&(self.seq + 1).to_le_bytes());
        bytes.extend_from_slice(&epoch.0.to_le_bytes());
        bytes.extend_from_slice(self.hash.as_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(payload);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        *self = Self { seq: self.seq + 1, epoch, hash: Digest::of(&bytes) };
        Ok(bytes)
    }

    /// Checks that `record`, found under the key `key`, continues the chain, and moves on to it.
    ///
    /// Fails with [`CatalogError::Corrupt`] on a gap, a duplicate, an epoch that goes back or a
    /// hash of another predecessor.
    pub fn follow(&mut self, key: u64, record: &RawRecord<'_>) -> Result<(), CatalogError> {
        let expected = self.seq + 1;
        if key != expected {
            return Err(CatalogError::corrupt_record(
                expected,
                format!("is missing: the next one is {key}"),
            ));
        }
        if record.seq != key {
            let problem = format!("says it is record {}", record.seq);
            return Err(CatalogError::corrupt_record(key, problem));
        }
        if record.prev != self.hash {
            return Err(CatalogError::corrupt_record(key, "does not continue the one before it"));
        }
        if record.epoch < self.epoch {
            let problem = format!("goes back from epoch {} to {}", self.epoch, record.epoch);
            return Err(CatalogError::corrupt_record(key, problem));
        }
        *self = Self { seq: key, epoch: record.epoch, hash: Digest::of(record.bytes) };
        Ok(())
    }
}

/// A record whose own checks passed and whose payload is not parsed yet.
#[derive(Debug)]
pub struct RawRecord<'a> {
    /// Its sequence number, as it says itself.
    pub seq: u64,
    /// The epoch of the cluster after it.
    pub epoch: Epoch,
    prev: Digest,
    payload: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> RawRecord<'a> {
    /// Checks the bytes stored under `key`.
    ///
    /// The format version is read before the checksum: a newer program may well have another
    /// checksum, and "written by a newer version" is the more useful answer.
    pub fn decode(key: u64, bytes: &'a [u8]) -> Result<Self, CatalogError> {
        let corrupt = |problem: &str| CatalogError::corrupt_record(key, problem);
        let too_short = || corrupt("is too short to be a record");
        let mut at = Reader(bytes);
        if at.take::<4>().ok_or_else(too_short)? != *MAGIC {
            return Err(corrupt("does not begin like a record"));
        }
        let format = u16::from_le_bytes(at.take().ok_or_else(too_short)?);
        if format > FORMAT_VERSION {
            return Err(CatalogError::NewerFormat {
                place: format!("log record {key}"),
                found: format,
                supported: FORMAT_VERSION,
            });
        }
        let (covered, crc) = bytes.split_last_chunk::<CRC_BYTES>().ok_or_else(too_short)?;
        if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
            return Err(corrupt("fails its checksum"));
        }
        let reserved = at.take::<2>().ok_or_else(too_short)?;
        if format == 0 || reserved != [0; 2] {
            return Err(corrupt("has an impossible header"));
        }
        let seq = u64::from_le_bytes(at.take().ok_or_else(too_short)?);
        let epoch = Epoch(u64::from_le_bytes(at.take().ok_or_else(too_short)?));
        let prev = Digest::from_bytes(at.take().ok_or_else(too_short)?);
        let length = u32::from_le_bytes(at.take().ok_or_else(too_short)?);
        let payload = covered.get(HEADER_BYTES..).ok_or_else(too_short)?;
        if u32::try_from(payload.len()) != Ok(length) {
            return Err(corrupt("has another length than it says"));
        }
        Ok(Self { seq, epoch, prev, payload, bytes })
    }

    /// Parses the payload.
    pub fn command(&self) -> Result<Command, CatalogError> {
        serde_json::from_slice(self.payload).map_err(|error| {
            CatalogError::corrupt_record(self.seq, format!("holds no command: {error}"))
        })
    }
}

/// Takes fixed-size pieces off the front of a slice; `None` past its end.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (piece, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*piece)
    }
}
