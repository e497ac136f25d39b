//! The fixed-size entries beside the records: where the log ends, and up to where it is committed.

use basalt_storage::command_log::Chain;
use basalt_storage::command_log::record::Reader;
use basalt_storage::digest::Digest;
use basalt_storage::ids::{Epoch, LogEpoch};

use super::CatalogError;
use crate::catalog::record::Mark;

pub(super) fn encode_head(chain: Chain) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(60);
    bytes.extend_from_slice(&chain.seq.to_le_bytes());
    bytes.extend_from_slice(&chain.epoch.0.to_le_bytes());
    bytes.extend_from_slice(chain.hash.as_bytes());
    bytes.extend_from_slice(&chain.log_epoch.0.to_le_bytes());
    with_crc(bytes)
}

pub(super) fn decode_head(bytes: &[u8]) -> Result<Chain, CatalogError> {
    let covered = without_crc(bytes)?;
    let mut at = Reader(covered);
    let (Some(seq), Some(epoch), Some(hash)) = (at.take(), at.take(), at.take()) else {
        return Err(head_corrupt("is too short"));
    };
    // Before format 4 there was no log epoch.
    let log_epoch = match (at.0.is_empty(), at.take()) {
        (true, _) => 0,
        (false, Some(epoch)) if at.0.is_empty() => u64::from_le_bytes(epoch),
        _ => return Err(head_corrupt("has another length than it should")),
    };
    Ok(Chain {
        seq: u64::from_le_bytes(seq),
        epoch: Epoch(u64::from_le_bytes(epoch)),
        log_epoch: LogEpoch(log_epoch),
        hash: Digest::from_bytes(hash),
    })
}

pub(super) fn encode_committed(committed: Mark) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(44);
    bytes.extend_from_slice(&committed.seq.to_le_bytes());
    bytes.extend_from_slice(committed.hash.as_bytes());
    with_crc(bytes)
}

pub(super) fn decode_committed(bytes: &[u8]) -> Result<Mark, CatalogError> {
    let mut at = Reader(without_crc(bytes)?);
    match (at.take(), at.take(), at.0) {
        (Some(seq), Some(hash), []) => {
            Ok(Mark { seq: u64::from_le_bytes(seq), hash: Digest::from_bytes(hash) })
        }
        _ => Err(head_corrupt("has another length than it should")),
    }
}

pub(super) fn with_crc(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

pub(super) fn without_crc(bytes: &[u8]) -> Result<&[u8], CatalogError> {
    match bytes.split_last_chunk::<4>() {
        Some((covered, crc)) if crc32c::crc32c(covered) == u32::from_le_bytes(*crc) => Ok(covered),
        Some(_) => Err(head_corrupt("fails its checksum")),
        None => Err(head_corrupt("is too short")),
    }
}

pub(super) fn head_corrupt(problem: &str) -> CatalogError {
    CatalogError::Corrupt { place: "the head of the log".to_owned(), problem: problem.to_owned() }
}
