//! One frame of a commit records file.
//!
//! ```text
//!  0  magic "BCR1"                                      4
//!  4  kind: 1 full, 2 delta                             1
//!  5  flags: 1 the put's last frame                     1
//!  6  zero                                              2
//!  8  number of the frame in its put, from 0            4   little endian, as all numbers here
//! 12  length of the body                                4
//! 16  sequence number of the commit after the put       8
//! 24  epoch of the slices after it                      8
//! 32  epoch of the log after it                         8
//! 40  BLAKE3 of its log record                         32
//! 72  CRC-32C of the body                               4
//! 76  CRC-32C of everything above                       4
//! 80  body                                              n
//! ```

use super::scan::Damage;
use crate::command_log::Chain;
use crate::command_log::record::Reader;
use crate::digest::Digest;
use crate::ids::{Epoch, LogEpoch};

const MAGIC: &[u8; 4] = b"BCR1";
/// Bytes before the body.
pub const HEADER_BYTES: usize = 80;
const LAST: u8 = 1;

/// The longest body. The largest single thing in one is the record of a segment of 32,768 columns,
/// about 8 MiB; one message carries a body.
pub const BODY_BYTES_MAX: usize = 64 << 20;

/// What a put is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The whole state at a commit: it begins a file.
    Full,
    /// What is other than at the commit of the put before.
    Delta,
}

/// A frame without its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What its put is.
    pub kind: Kind,
    /// Which frame of the put it is, from 0.
    pub part: u32,
    /// Whether the put ends with it.
    pub is_last: bool,
    /// The commit that is known once the put is there.
    pub at: Chain,
    /// Bytes of the body.
    pub body: u32,
    /// Checksum of the body.
    pub body_crc: u32,
}

/// The bytes of a frame; `body` has at most [`BODY_BYTES_MAX`] bytes.
pub fn encode(kind: Kind, part: u32, is_last: bool, at: Chain, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(MAGIC);
    let kind = match kind {
        Kind::Full => 1,
        Kind::Delta => 2,
    };
    bytes.extend_from_slice(&[kind, if is_last { LAST } else { 0 }, 0, 0]);
    bytes.extend_from_slice(&part.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&at.seq.to_le_bytes());
    bytes.extend_from_slice(&at.epoch.0.to_le_bytes());
    bytes.extend_from_slice(&at.log_epoch.0.to_le_bytes());
    bytes.extend_from_slice(at.hash.as_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

impl Header {
    /// Checks and reads a header.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let damaged = |problem: &str| Damage::Bytes(problem.to_owned());
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(Damage::Torn);
        };
        let parsed = Self::parse(header).ok_or_else(|| damaged("a frame's header is damaged"))?;
        if parsed.body as usize > BODY_BYTES_MAX {
            return Err(damaged("a frame is longer than any"));
        }
        Ok(parsed)
    }

    fn parse(header: &[u8; HEADER_BYTES]) -> Option<Self> {
        let (covered, crc) = header.split_last_chunk::<4>()?;
        if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut at = Reader(covered);
        if at.take::<4>()? != *MAGIC {
            return None;
        }
        let [kind, flags, 0, 0] = at.take::<4>()? else { return None };
        let kind = match kind {
            1 => Kind::Full,
            2 => Kind::Delta,
            _ => return None,
        };
        let part = u32::from_le_bytes(at.take()?);
        let body = u32::from_le_bytes(at.take()?);
        let commit = Chain {
            seq: u64::from_le_bytes(at.take()?),
            epoch: Epoch(u64::from_le_bytes(at.take()?)),
            log_epoch: LogEpoch(u64::from_le_bytes(at.take()?)),
            hash: Digest::from_bytes(at.take()?),
        };
        let body_crc = u32::from_le_bytes(at.take()?);
        (flags & !LAST == 0).then_some(Self {
            kind,
            part,
            is_last: flags & LAST != 0,
            at: commit,
            body,
            body_crc,
        })
    }
}
