//! Which encoding to suggest for a column, from what its values take in each: a pure function.

use super::ChunkEncoding;
use super::costs::{ColumnSize, cold_ns};

/// What the same values take in every encoding that can hold them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// Values that are not NULL.
    pub values: u64,
    /// Whether they are text or binary of any length.
    pub is_text: bool,
    /// Bytes in each encoding. [`ChunkEncoding::Raw`] is always there.
    pub bytes: Vec<(ChunkEncoding, u64)>,
}

/// An encoding, and what it makes of the bytes that are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suggestion {
    /// The encoding.
    pub encoding: ChunkEncoding,
    /// Bytes that the measured values take as they are stored now.
    pub stored_bytes: u64,
    /// Bytes that they take in the suggested encoding; never more.
    pub bytes: u64,
}

impl Suggestion {
    /// How many hundredths of a per cent smaller the values become.
    pub fn reduction_basis_points(self) -> u64 {
        let saved = self.stored_bytes.saturating_sub(self.bytes);
        // Rounded down: what is suggested never saves less than is said.
        saved.saturating_mul(10_000).checked_div(self.stored_bytes).unwrap_or(0)
    }
}

impl Measured {
    /// Bytes in one encoding; `None` when it cannot hold the values.
    pub fn bytes_in(&self, encoding: ChunkEncoding) -> Option<u64> {
        self.bytes.iter().find(|(found, _)| *found == encoding).map(|(_, bytes)| *bytes)
    }

    /// The encoding that is read fastest from a disk, among those that take no more bytes than the
    /// one that is `stored`; that one itself when none saves anything.
    pub fn suggest(&self, stored: ChunkEncoding) -> Suggestion {
        let raw = self.bytes_in(ChunkEncoding::Raw).unwrap_or(0);
        let (stored, stored_bytes) = match self.bytes_in(stored) {
            Some(bytes) => (stored, bytes),
            // Its dictionary held the values of each segment and does not hold the sample.
            None => (ChunkEncoding::Raw, raw),
        };
        let size = ColumnSize { values: self.values, plain_bytes: raw, is_text: self.is_text };
        // NULLs take a few bytes in every encoding: not worth a word.
        let worth = self.bytes.iter().filter(|_| self.values > 0);
        let smaller = worth.filter(|(_, bytes)| *bytes < stored_bytes);
        let best = smaller.min_by(|(a, a_bytes), (b, b_bytes)| {
            cold_ns(*a, &size, *a_bytes).total_cmp(&cold_ns(*b, &size, *b_bytes))
        });
        let now = cold_ns(stored, &size, stored_bytes);
        match best {
            Some((encoding, bytes)) if cold_ns(*encoding, &size, *bytes) < now => {
                Suggestion { encoding: *encoding, stored_bytes, bytes: *bytes }
            }
            _ => Suggestion { encoding: stored, stored_bytes, bytes: stored_bytes },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ChunkEncoding::{Bytedict, Delta, Lz4, Raw, Zstd};
    use super::*;

    fn numbers(bytes: &[(ChunkEncoding, u64)]) -> Measured {
        Measured { values: 1_000, is_text: false, bytes: bytes.to_vec() }
    }

    #[test]
    fn what_saves_most_bytes_is_suggested_where_it_decodes_as_fast() {
        let column = numbers(&[(Raw, 8_000), (Bytedict, 2_000), (Delta, 1_500), (Lz4, 3_000)]);
        let found = column.suggest(Raw);
        assert_eq!((found.encoding, found.bytes, found.stored_bytes), (Delta, 1_500, 8_000));
        assert_eq!(found.reduction_basis_points(), 8_125);
    }

    #[test]
    fn a_codec_that_saves_less_than_it_costs_is_not_suggested() {
        let column = numbers(&[(Raw, 8_000), (Lz4, 7_900), (Zstd, 7_000)]);
        assert_eq!(column.suggest(Raw).encoding, Raw);
        assert_eq!(column.suggest(Raw).reduction_basis_points(), 0);
    }

    #[test]
    fn what_is_stored_stays_when_nothing_is_better() {
        let column = numbers(&[(Raw, 8_000), (Bytedict, 1_000), (Zstd, 990)]);
        assert_eq!(column.suggest(Bytedict).encoding, Bytedict);
    }

    #[test]
    fn nothing_larger_than_what_is_stored_is_suggested() {
        let column = numbers(&[(Raw, 8_000), (Bytedict, 30), (Zstd, 20)]);
        assert_eq!(column.suggest(Zstd).encoding, Zstd, "though codes are read faster");
    }

    #[test]
    fn a_dictionary_that_the_sample_outgrows_is_compared_as_raw() {
        let found = numbers(&[(Raw, 8_000), (Lz4, 4_000)]).suggest(Bytedict);
        assert_eq!((found.encoding, found.stored_bytes), (Lz4, 8_000));
    }

    #[test]
    fn of_nulls_alone_nothing_is_worth_saving() {
        let column = Measured { values: 0, is_text: true, bytes: vec![(Raw, 30), (Lz4, 20)] };
        assert_eq!(column.suggest(Raw).encoding, Raw);
        let empty = Measured { values: 0, is_text: true, bytes: vec![(Raw, 0), (Lz4, 0)] };
        assert_eq!(empty.suggest(Lz4).reduction_basis_points(), 0);
    }
}
