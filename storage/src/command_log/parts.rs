//! Records in a row, as messages and files carry them: `length 4, record` each, little endian.

use bytes::{Buf, Bytes};

use super::record::RECORD_BYTES_MAX;

/// The bytes of some records in a row.
pub fn join<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        // A record is at most a few hundred MiB: `Chain::append` makes no longer ones.
        let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(record);
    }
    bytes
}

/// Takes the first record off; `None` when `bytes` does not hold all of it yet.
///
/// # Errors
/// With the length that no record has.
pub fn split_first(bytes: &mut Bytes) -> Result<Option<Bytes>, usize> {
    let Some(length) = bytes.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if length > RECORD_BYTES_MAX {
        return Err(length);
    }
    if bytes.len() - 4 < length {
        return Ok(None);
    }
    bytes.advance(4);
    Ok(Some(bytes.split_to(length)))
}

/// The records of a whole run of them; `None` when it ends within one.
pub fn split(mut bytes: Bytes) -> Option<Vec<Bytes>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        records.push(split_first(&mut bytes).ok()??);
    }
    Some(records)
}
