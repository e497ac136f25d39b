//! What a log member writes into its files: frames, one for each call that changed something.
//!
//! ```text
//!  0  magic "BLF1"                                            4
//!  4  kind: 1 start, 2 promise, 3 append                      1
//!  5  flags: 1 complete, 2 an epoch is promised               1
//!  6  zero                                                    2
//!  8  promised log epoch                                      8   little endian, as all numbers
//! 16  promised writer                                        16
//! 32  append: the records follow this one                     8
//!     start: so many bytes of the file before are valid
//! 40  start: the number of the file before, 0 for none        4
//! 44  length of the body                                      4
//! 48  CRC-32C of everything above                             4
//! 52  body: records in a row (parts.rs), each with its own checksum
//! ```
//! A file begins with a start frame and is only ever appended to. What follows the last valid
//! frame of a file is not part of the log, and the start frame of the next file says how much of
//! it is; so nothing is cut or written in place.

use crate::ids::{LogEpoch, LogWriter};

use super::record::Reader;

pub(super) const MAGIC: &[u8; 4] = b"BLF1";
/// Bytes before the body.
pub const HEADER_BYTES: usize = 52;
const COMPLETE: u8 = 1;
const PROMISED: u8 = 2;

/// An epoch that a member has promised, and to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    /// Writers of older epochs are refused.
    pub epoch: LogEpoch,
    /// The one writer of this epoch.
    pub writer: LogWriter,
}

/// What a frame says beside the promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Begins a file: of the file before it, so many bytes are valid.
    Start {
        /// The number of the file before, 0 for none.
        file: u32,
        /// How much of it belongs to the log.
        valid: u64,
    },
    /// Nothing else.
    Promise,
    /// The records in the body follow record `after`; what came after that before is void.
    Append {
        /// The record they follow.
        after: u64,
    },
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// What it says.
    pub kind: Kind,
    /// What is promised from now on.
    pub promised: Option<Promise>,
    /// Whether the copy has everything that it ever said was durable.
    pub complete: bool,
    /// Bytes of the body.
    pub body: u32,
}

impl Frame {
    /// The bytes of the header.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, number, file) = match self.kind {
            Kind::Start { file, valid } => (1, valid, file),
            Kind::Promise => (2, 0, 0),
            Kind::Append { after } => (3, after, 0),
        };
        let mut flags = if self.complete { COMPLETE } else { 0 };
        let (epoch, writer) = match self.promised {
            Some(Promise { epoch, writer }) => {
                flags |= PROMISED;
                (epoch.0, *writer.0.as_bytes())
            }
            None => (0, [0; 16]),
        };
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[kind, flags, 0, 0]);
        bytes.extend_from_slice(&epoch.to_le_bytes());
        bytes.extend_from_slice(&writer);
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&file.to_le_bytes());
        bytes.extend_from_slice(&self.body.to_le_bytes());
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Checks and reads the header that `bytes` begin with; `None` when there is none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<HEADER_BYTES>()?;
        let (covered, crc) = header.split_last_chunk::<4>()?;
        if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut at = Reader(covered);
        if at.take::<4>()? != *MAGIC {
            return None;
        }
        let [kind, flags, 0, 0] = at.take::<4>()? else { return None };
        let epoch = LogEpoch(u64::from_le_bytes(at.take()?));
        let writer = LogWriter(uuid::Uuid::from_bytes(at.take()?));
        let number = u64::from_le_bytes(at.take()?);
        let file = u32::from_le_bytes(at.take()?);
        let body = u32::from_le_bytes(at.take()?);
        let kind = match kind {
            1 => Kind::Start { file, valid: number },
            2 => Kind::Promise,
            3 => Kind::Append { after: number },
            _ => return None,
        };
        let promised = (flags & PROMISED != 0).then_some(Promise { epoch, writer });
        Some(Self { kind, promised, complete: flags & COMPLETE != 0, body })
    }
}
