//! What encodings cost a reader, and what they must save to be chosen: every such number is here.
//!
//! Nanoseconds are those of STORAGE.md B5 (parquet-rs's benchmark `arrow_reader` on one core;
//! block codecs by lzbench): a number is measured again there and changed here.
//!
//! ```text
//! encoding     ns per value            ns per byte of the plain values
//! raw          0.5, text 2.0           -
//! bytedict     1.25                    -      text stays codes, so it costs what a number does
//! delta        1.4                     -
//! lz4          as raw                  0.26   (3,850 MB/s)
//! zstd         as raw                  0.65   (1,550 MB/s)
//! ```
//! Two readers weigh them differently. A *hot* one has the bytes in memory and pays for decoding
//! above all: the shares below, by which columns are encoded where nobody declared anything, say
//! how much smaller a slower form must be for it. A *cold* one also waits for a disk
//! ([`STORED_BYTE_NS`]): [`cold_ns`] is what `ANALYZE COMPRESSION` ranks by.

use super::ChunkEncoding;

/// Bytes of the largest dictionary: it must stay in a level-2 cache while codes are looked up.
pub(crate) const DICTIONARY_BYTES_MAX: usize = 1024 * 1024;
/// Values of the largest dictionary that is chosen: codes of 16 bits.
pub(super) const DICTIONARY_VALUES_MAX: f64 = 65_536.0;
/// A dictionary must bring values of more than 4 bytes below this share of their plain size.
pub(super) const DICTIONARY_SHARE: f64 = 0.7;
/// The same for smaller values, whose plain form decodes several times faster than codes.
pub(super) const DICTIONARY_SHARE_NARROW: f64 = 0.35;
/// Differences must bring values below this share: they decode at a third of plain's speed.
pub(super) const DELTA_SHARE: f64 = 0.5;
/// LZ4 must save more than a fifth: decompressing was half of the CPU time of scans (STORAGE B1).
pub(super) const LZ4_SHARE: f64 = 0.8;

/// What a byte costs that comes from a disk: 400 MB/s, a network volume or an inexpensive SSD.
const STORED_BYTE_NS: f64 = 2.5;

/// Nanoseconds to read a column that nothing has in memory.
#[expect(clippy::cast_precision_loss, reason = "an estimate needs no more precision")]
pub(super) fn cold_ns(encoding: ChunkEncoding, column: &ColumnSize, stored_bytes: u64) -> f64 {
    let raw_ns = if column.is_text { 2.0 } else { 0.5 };
    let (value_ns, plain_byte_ns) = match encoding {
        ChunkEncoding::Raw => (raw_ns, 0.0),
        ChunkEncoding::Bytedict => (1.25, 0.0),
        ChunkEncoding::Delta => (1.4, 0.0),
        ChunkEncoding::Lz4 => (raw_ns, 0.26),
        ChunkEncoding::Zstd => (raw_ns, 0.65),
    };
    column.values as f64 * value_ns
        + column.plain_bytes as f64 * plain_byte_ns
        + stored_bytes as f64 * STORED_BYTE_NS
}

/// How much there is to read of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ColumnSize {
    /// Values that are not NULL.
    pub(super) values: u64,
    /// Their bytes as they are.
    pub(super) plain_bytes: u64,
    /// Whether they are text or binary of any length.
    pub(super) is_text: bool,
}
