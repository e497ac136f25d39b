//! Zone maps: bounds and NULL counts of a run of values (Moerkotte 1998; "zone map" as Redshift).
//!
//! Invariant: bounds are *semantics*. `min <= every non-NULL value <= max` always holds; when a
//! bound cannot be had (NaN present, nested type, all NULL) it is absent, never guessed.

use serde::{Deserialize, Serialize};

/// A bound of a column's values, comparable within one column only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZoneValue {
    /// A boolean.
    Bool(bool),
    /// Signed integers, dates, times, timestamps: the physical number.
    Int(i64),
    /// Unsigned integers.
    UInt(u64),
    /// Floats, never NaN; written by its bits so that JSON keeps infinities and -0.0.
    Float(#[serde(with = "float_bits")] f64),
    /// Decimals up to 38 digits, unscaled, as text (JSON numbers end at 64 bits).
    Decimal(#[serde(with = "decimal_text")] i128),
    /// Text or binary, perhaps shortened: `exact` says whether it is a real value. A shortened
    /// upper bound was rounded up.
    Bytes {
        /// The bound.
        value: Vec<u8>,
        /// Whether the bound is a value of the column.
        exact: bool,
    },
}

/// What is known about the values of one column over a run of rows.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ZoneMap {
    /// How many values are NULL.
    pub null_count: u64,
    /// A lower bound of the non-NULL values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<ZoneValue>,
    /// An upper bound of the non-NULL values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<ZoneValue>,
}

mod float_bits {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &f64, s: S) -> Result<S::Ok, S::Error> {
        value.to_bits().serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
        u64::deserialize(d).map(f64::from_bits)
    }
}

mod decimal_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(value: &i128, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<i128, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}
