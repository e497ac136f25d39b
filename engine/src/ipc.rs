//! Arrow IPC bytes from outside, looked at before arrow's decoder sees them.
//!
//! arrow-ipc (59) allocates what a message says it needs: the length of its body, and the length
//! that each compressed buffer has once it is expanded. A message of 200 bytes can say 32 TiB, and
//! an allocation that fails ends the whole process: `catch_unwind` does not help.
//!
//! Invariant: what passes here makes the decoder allocate no more than the bytes that are there,
//! plus [`EXPANDED_BYTES_MAX`] where compression is allowed. Not here: whether the arrays are
//! valid, which arrow checks by itself; it may panic on bad schemas (STORAGE.md T15).

use arrow::ipc::{Message, MessageHeader, RecordBatch, root_as_message};

/// What the compressed buffers of one batch may expand to: 1 GiB is an array of the longest text
/// that has 32-bit offsets, half filled.
pub const EXPANDED_BYTES_MAX: u64 = 1 << 30;

/// Marks the start of a message since Arrow 0.15.
const CONTINUATION: u32 = u32::MAX;
/// A compressed buffer begins with its expanded length.
const LENGTH_PREFIX_BYTES: usize = 8;
/// Stands for "not compressed after all".
const NOT_COMPRESSED: i64 = -1;

/// Why bytes cannot be Arrow IPC that is safe to decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnsafeIpc {
    /// A message ends before the length it claims, or is no message.
    #[error("an Arrow message is malformed")]
    Malformed,
    /// Its buffers are compressed, and nothing here sends such.
    #[error("an Arrow message is compressed")]
    Compressed,
    /// Its buffers would expand to too much.
    #[error("an Arrow message expands to more than {EXPANDED_BYTES_MAX} bytes")]
    TooLarge,
}

/// Whether the buffers of a batch may be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Members of the cluster never compress what they hand to each other as a whole stream.
    Refused,
    /// Clients may.
    Bounded,
}

/// Looks at every message of a stream: schema, dictionaries, batches.
///
/// # Errors
/// [`UnsafeIpc`].
pub fn check_stream(mut rest: &[u8], compression: Compression) -> Result<(), UnsafeIpc> {
    while !rest.is_empty() {
        let mut length = take_u32(&mut rest)?;
        if length == CONTINUATION {
            length = take_u32(&mut rest)?;
        }
        if length == 0 {
            return Ok(());
        }
        let header = take(&mut rest, u64::from(length))?;
        let message = root_as_message(header).map_err(|_| UnsafeIpc::Malformed)?;
        let body = u64::try_from(message.bodyLength()).map_err(|_| UnsafeIpc::Malformed)?;
        check(&message, take(&mut rest, body)?, compression)?;
    }
    Ok(())
}

/// Looks at one message whose header and body come apart, as in Flight.
///
/// # Errors
/// [`UnsafeIpc`].
pub fn check_message(
    header: &[u8],
    body: &[u8],
    compression: Compression,
) -> Result<(), UnsafeIpc> {
    let message = root_as_message(header).map_err(|_| UnsafeIpc::Malformed)?;
    check(&message, body, compression)
}

fn check(message: &Message<'_>, body: &[u8], compression: Compression) -> Result<(), UnsafeIpc> {
    let batch = match message.header_type() {
        MessageHeader::RecordBatch => message.header_as_record_batch(),
        MessageHeader::DictionaryBatch => {
            message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data())
        }
        _ => return Ok(()),
    };
    let batch = batch.ok_or(UnsafeIpc::Malformed)?;
    if batch.compression().is_none() {
        return Ok(());
    }
    match compression {
        Compression::Refused => Err(UnsafeIpc::Compressed),
        Compression::Bounded if expanded_bytes(&batch, body)? > EXPANDED_BYTES_MAX => {
            Err(UnsafeIpc::TooLarge)
        }
        Compression::Bounded => Ok(()),
    }
}

/// What the buffers of a compressed batch say they expand to.
fn expanded_bytes(batch: &RecordBatch<'_>, body: &[u8]) -> Result<u64, UnsafeIpc> {
    let mut expanded = 0u64;
    for buffer in batch.buffers().into_iter().flatten() {
        let start = usize::try_from(buffer.offset()).map_err(|_| UnsafeIpc::Malformed)?;
        let length = usize::try_from(buffer.length()).map_err(|_| UnsafeIpc::Malformed)?;
        if length == 0 {
            continue;
        }
        let bytes = start.checked_add(length).and_then(|end| body.get(start..end));
        let prefix = bytes.and_then(|bytes| bytes.first_chunk::<LENGTH_PREFIX_BYTES>());
        let claimed = i64::from_le_bytes(*prefix.ok_or(UnsafeIpc::Malformed)?);
        if claimed != NOT_COMPRESSED {
            let claimed = u64::try_from(claimed).map_err(|_| UnsafeIpc::Malformed)?;
            expanded = expanded.saturating_add(claimed);
        }
    }
    Ok(expanded)
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, UnsafeIpc> {
    let (bytes, after) = rest.split_first_chunk::<4>().ok_or(UnsafeIpc::Malformed)?;
    *rest = after;
    Ok(u32::from_le_bytes(*bytes))
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], UnsafeIpc> {
    let length = usize::try_from(length).map_err(|_| UnsafeIpc::Malformed)?;
    let (taken, after) = rest.split_at_checked(length).ok_or(UnsafeIpc::Malformed)?;
    *rest = after;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::ipc::CompressionType;
    use arrow::ipc::reader::StreamReader;
    use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
    use arrow::record_batch::RecordBatch;
    use proptest::prelude::*;

    use super::*;

    fn stream(compression: Option<CompressionType>) -> Vec<u8> {
        let columns = [
            ("n", Arc::new(Int64Array::from_iter_values(0..1000)) as ArrayRef),
            ("s", Arc::new(StringArray::from(vec!["x"; 1000])) as ArrayRef),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
        let mut writer =
            StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    }

    /// The stream with the expanded length of its first compressed buffer replaced.
    fn claiming(expanded: i64) -> Vec<u8> {
        let mut bytes = stream(Some(CompressionType::LZ4_FRAME));
        let honest = (1000i64 * 8).to_le_bytes();
        let position = bytes.windows(8).position(|window| window == honest).unwrap();
        bytes[position..position + 8].copy_from_slice(&expanded.to_le_bytes());
        bytes
    }

    #[test]
    fn what_arrow_writes_passes() {
        let plain = stream(None);
        assert_eq!(check_stream(&plain, Compression::Refused), Ok(()));
        let compressed = stream(Some(CompressionType::LZ4_FRAME));
        assert_eq!(check_stream(&compressed, Compression::Bounded), Ok(()));
        assert_eq!(check_stream(&compressed, Compression::Refused), Err(UnsafeIpc::Compressed));
        assert_eq!(check_stream(&[], Compression::Refused), Ok(()));
    }

    #[test]
    fn a_buffer_that_claims_to_expand_to_terabytes_is_refused() {
        let check = |claimed, expected| {
            assert_eq!(check_stream(&claiming(claimed), Compression::Bounded), expected);
        };
        check(8000, Ok(()));
        check(NOT_COMPRESSED, Ok(()));
        check(1 << 45, Err(UnsafeIpc::TooLarge));
        check(i64::MAX, Err(UnsafeIpc::TooLarge));
        check(-2, Err(UnsafeIpc::Malformed));
    }

    #[test]
    fn lengths_beyond_the_bytes_are_refused() {
        let whole = stream(None);
        for length in [1, 5, 9, whole.len() / 2, whole.len() - 9] {
            let cut = check_stream(&whole[..length], Compression::Refused);
            assert_eq!(cut, Err(UnsafeIpc::Malformed), "cut at {length}");
        }
        let mut header_of_2_gib = whole;
        header_of_2_gib[4..8].copy_from_slice(&i32::MAX.to_le_bytes());
        let refused = check_stream(&header_of_2_gib, Compression::Refused);
        assert_eq!(refused, Err(UnsafeIpc::Malformed));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn flipped_bytes_never_make_the_decoder_allocate_what_is_not_there(
            position in any::<prop::sample::Index>(),
            flipped in 1..=255u8,
        ) {
            let mut bytes = stream(None);
            let position = position.index(bytes.len());
            bytes[position] ^= flipped;
            if check_stream(&bytes, Compression::Refused).is_ok() {
                // An abort would end the test process; a panic or an error is an answer.
                let _answer = std::panic::catch_unwind(|| {
                    let reader = StreamReader::try_new(Cursor::new(&bytes), None)?;
                    reader.collect::<Result<Vec<_>, _>>()
                });
            }
        }
    }
}
