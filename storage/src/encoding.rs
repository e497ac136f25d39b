//! Which encoding and codec a column's values get, from a sample.
//!
//! Invariant: the choice is a pure function of [`Sample`], so equal data gives equal files.
//! Decode speed comes first: block compression only where it saves much, since decompressing was
//! half of the CPU time of scans (STORAGE B1); dictionaries where they shrink the bytes that a
//! scan reads and checks by more than looking codes up costs.

use std::fmt;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use xxhash_rust::xxh3::xxh3_64;

/// How values are laid out in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueEncoding {
    /// One after the other.
    Plain,
    /// Codes into a dictionary per row group.
    Dictionary,
    /// Bit-packed differences.
    Delta,
}

/// How a column's values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkEncoding {
    /// How values are laid out in pages.
    pub(crate) values: ValueEncoding,
    /// Whether pages are compressed (LZ4_RAW).
    pub(crate) lz4: bool,
}

impl ChunkEncoding {
    /// Values as they are.
    pub(crate) const PLAIN: Self = Self { values: ValueEncoding::Plain, lz4: false };
}

impl fmt::Display for ChunkEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.values {
            ValueEncoding::Plain => "plain",
            ValueEncoding::Dictionary => "dictionary",
            ValueEncoding::Delta => "delta",
        })?;
        if self.lz4 { f.write_str("+lz4") } else { Ok(()) }
    }
}

/// What is known of a column's values from some of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Values looked at that are not NULL.
    pub(crate) values: u64,
    /// Different ones; 0 when the type gets no dictionary.
    pub(crate) distinct: u64,
    /// Those seen exactly once.
    pub(crate) once: u64,
    /// Those seen exactly twice.
    pub(crate) twice: u64,
    /// Bytes of the values as they are.
    pub(crate) plain_bytes: u64,
    /// The same after LZ4.
    pub(crate) lz4_bytes: u64,
    /// Bytes as bit-packed differences; `None` when the type has no differences.
    pub(crate) delta_bytes: Option<u64>,
    /// Rows of a full row group, NULLs included.
    pub(crate) group_rows: u64,
}

/// Bytes of the largest dictionary: it must stay in a level-2 cache while codes are looked up.
pub(crate) const DICTIONARY_BYTES_MAX: usize = 1024 * 1024;
/// Values of the largest dictionary: codes of 16 bits.
const DICTIONARY_VALUES_MAX: f64 = 65_536.0;
/// A dictionary must bring values of more than 4 bytes below this share of their plain size.
const DICTIONARY_SHARE: f64 = 0.7;
/// The same for smaller values, whose plain form decodes several times faster than codes.
const DICTIONARY_SHARE_NARROW: f64 = 0.35;
/// Differences must bring values below this share: they decode at a third of plain's speed.
const DELTA_SHARE: f64 = 0.5;
/// LZ4 must save more than a fifth.
const LZ4_SHARE: f64 = 0.8;

/// The encoding for values like those in the sample.
pub(crate) fn choose(sample: &Sample) -> ChunkEncoding {
    if sample.values == 0 {
        return ChunkEncoding::PLAIN;
    }
    let plain = sample.plain_bytes as f64;
    if wants_dictionary(sample) {
        return ChunkEncoding { values: ValueEncoding::Dictionary, lz4: false };
    }
    let lz4 = (sample.lz4_bytes as f64) < plain * LZ4_SHARE;
    match sample.delta_bytes {
        Some(delta) if (delta as f64) < plain * DELTA_SHARE => {
            ChunkEncoding { values: ValueEncoding::Delta, lz4: false }
        }
        _ => ChunkEncoding { values: ValueEncoding::Plain, lz4 },
    }
}

fn wants_dictionary(sample: &Sample) -> bool {
    if sample.distinct == 0 {
        return false;
    }
    let values = sample.values as f64;
    let rows = sample.group_rows.max(sample.values) as f64;
    let width = sample.plain_bytes as f64 / values;
    let distinct = estimate_distinct(sample).min(rows);
    let dictionary_bytes = distinct * width;
    let code_bits = distinct.log2().ceil().max(1.0);
    let encoded = dictionary_bytes + rows * code_bits / 8.0;
    let share = if width <= 4.0 { DICTIONARY_SHARE_NARROW } else { DICTIONARY_SHARE };
    distinct <= DICTIONARY_VALUES_MAX
        && dictionary_bytes <= DICTIONARY_BYTES_MAX as f64
        && encoded <= rows * width * share
}

/// Distinct values of the whole from those of the sample, by the number of values seen once and
/// twice (Chao 1984): many singletons mean that many values were not seen at all.
fn estimate_distinct(sample: &Sample) -> f64 {
    let (once, twice) = (sample.once as f64, sample.twice as f64);
    sample.distinct as f64 + once * (once - 1.0).max(0.0) / (2.0 * (twice + 1.0))
}

/// How often values occur in an array: (values, distinct, once, twice). `None` for types that
/// get no dictionary.
pub(crate) fn count_distinct(array: &ArrayRef) -> Option<(u64, u64, u64, u64)> {
    let mut hashes = value_hashes(array)?;
    hashes.sort_unstable();
    let (mut distinct, mut once, mut twice) = (0, 0, 0);
    for run in hashes.chunk_by(|a, b| a == b) {
        distinct += 1;
        match run.len() {
            1 => once += 1,
            2 => twice += 1,
            _ => {}
        }
    }
    Some((hashes.len() as u64, distinct, once, twice))
}

fn value_hashes(array: &ArrayRef) -> Option<Vec<u64>> {
    match array.data_type() {
        DataType::Utf8 => {
            Some(array.as_string::<i32>().iter().flatten().map(|v| xxh3_64(v.as_bytes())).collect())
        }
        DataType::Binary => Some(array.as_binary::<i32>().iter().flatten().map(xxh3_64).collect()),
        ty => {
            let width = ty.primitive_width()?;
            let data = array.to_data();
            let bytes = data.buffers().first()?.as_slice();
            let bytes = bytes.get(data.offset() * width..(data.offset() + data.len()) * width)?;
            let valid = bytes.chunks_exact(width).enumerate();
            Some(valid.filter(|(i, _)| array.is_valid(*i)).map(|(_, v)| xxh3_64(v)).collect())
        }
    }
}

#[cfg(test)]
mod tests;
