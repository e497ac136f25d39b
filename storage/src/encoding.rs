//! How a column's values are laid out: the encodings there are, which types each fits, and which
//! one values get, from a sample.
//!
//! Invariant: the choice is a pure function of [`Sample`], so equal data gives equal files; and no
//! encoding changes a value, so a declared one (`ENCODE`) can only make a table larger or slower.
//! Decode speed comes first: block compression only where it saves much; dictionaries where they
//! shrink the bytes that a scan reads and checks by more than looking codes up costs.
//!
//! - `costs`: the table of costs that the choice and the suggestion are made from
//! - `suggest`: what `ANALYZE COMPRESSION` makes of measured sizes

mod costs;
mod suggest;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::types::physical_type;
pub(crate) use costs::DICTIONARY_BYTES_MAX;
use costs::{
    DELTA_SHARE, DICTIONARY_SHARE, DICTIONARY_SHARE_NARROW, DICTIONARY_VALUES_MAX, LZ4_SHARE,
};
pub use suggest::{Measured, Suggestion};

/// How the values of a column chunk are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChunkEncoding {
    /// One after the other, uncompressed.
    Raw,
    /// Codes into a dictionary per row group.
    Bytedict,
    /// Bit-packed differences.
    Delta,
    /// One after the other, pages compressed by LZ4.
    Lz4,
    /// One after the other, pages compressed by Zstandard.
    Zstd,
}

impl ChunkEncoding {
    /// Every encoding, in the order of documentation.
    pub const ALL: [Self; 5] = [Self::Raw, Self::Bytedict, Self::Delta, Self::Lz4, Self::Zstd];

    /// Its name in SQL and in the catalog.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Bytedict => "bytedict",
            Self::Delta => "delta",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The encoding with this [`Self::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| encoding.name() == name)
    }

    /// What a segment's metadata calls it, in Parquet's words.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Raw => "plain",
            Self::Bytedict => "dictionary",
            Self::Delta => "delta",
            Self::Lz4 => "plain+lz4",
            Self::Zstd => "plain+zstd",
        }
    }

    /// The encoding with this [`Self::description`].
    pub(crate) fn from_description(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| encoding.description() == text)
    }

    /// Whether values of a stored type can be written so.
    pub fn fits(self, stored: &DataType) -> bool {
        match self {
            Self::Raw | Self::Lz4 | Self::Zstd => true,
            Self::Bytedict => gets_dictionary(&physical_type(stored)),
            Self::Delta => has_differences(&physical_type(stored)),
        }
    }
}

/// Version 1.0 of the Parquet writer has no dictionaries of FIXED_LEN_BYTE_ARRAY and BOOLEAN; the
/// leaves of nested types are not counted one by one.
fn gets_dictionary(physical: &DataType) -> bool {
    match physical {
        DataType::Decimal128(precision, _) => *precision <= 18,
        DataType::Boolean | DataType::FixedSizeBinary(_) => false,
        ty => !ty.is_nested(),
    }
}

/// Types that Parquet stores as INT32 or INT64 and that often come in narrow ranges.
pub(crate) fn has_differences(physical: &DataType) -> bool {
    match physical {
        DataType::Decimal128(precision, _) => *precision <= 18,
        ty => ty.is_integer() || ty.is_temporal(),
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

impl Sample {
    /// The same of values that no dictionary holds.
    pub(crate) fn without_dictionary(self) -> Self {
        Self { distinct: 0, ..self }
    }
}

/// The encoding for values like those in the sample.
pub(crate) fn choose(sample: &Sample) -> ChunkEncoding {
    if sample.values == 0 {
        return ChunkEncoding::Raw;
    }
    let plain = sample.plain_bytes as f64;
    if wants_dictionary(sample) {
        return ChunkEncoding::Bytedict;
    }
    match sample.delta_bytes {
        Some(delta) if (delta as f64) < plain * DELTA_SHARE => ChunkEncoding::Delta,
        _ if (sample.lz4_bytes as f64) < plain * LZ4_SHARE => ChunkEncoding::Lz4,
        _ => ChunkEncoding::Raw,
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

/// How often values occur in an array in physical form: (values, distinct, once, twice). `None`
/// for types that get no dictionary.
pub(crate) fn count_distinct(array: &ArrayRef) -> Option<(u64, u64, u64, u64)> {
    if !gets_dictionary(array.data_type()) {
        return None;
    }
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
