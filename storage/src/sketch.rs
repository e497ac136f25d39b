//! Sketches: what a few kilobytes can tell of a column's values, however many there are.
//!
//! ```text
//! rows of one task ─▶ sketch ─┐
//! rows of another  ─▶ sketch ─┼─ union ─▶ the sketch of all of them, to the byte
//! an older sketch  ───────────┘
//! ```
//! - [`distinct`]: how many different values there are (HyperLogLog)
//! - [`sample`]: some rows, drawn evenly, and the histogram that they make
//!
//! Invariant: a sketch is a function of the *set* of what was put in. Neither order, nor how it was
//! cut into parts, nor putting the same in twice changes a byte, so that three workers find what
//! one would, and reading a segment again does no harm.
//!
//! Sketches lie in the catalog and travel between workers: their bytes begin with a version, and
//! whoever reads them checks them ([`InvalidSketch`]). Not here: what they are used for.

pub mod distinct;
pub mod sample;

pub use distinct::DistinctSketch;
pub use sample::RowSample;

/// Bytes that are no sketch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind}: {problem}")]
pub struct InvalidSketch {
    kind: &'static str,
    problem: String,
}

/// Serialises a sketch as the base64 of its bytes, which is how the catalog's JSON has it.
macro_rules! base64_serde {
    ($sketch:ty) => {
        impl serde::Serialize for $sketch {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&base64::Engine::encode(
                    &base64::prelude::BASE64_STANDARD,
                    self.to_bytes(),
                ))
            }
        }

        impl<'de> serde::Deserialize<'de> for $sketch {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                use serde::de::Error as _;
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                let bytes =
                    base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text.as_bytes())
                        .map_err(D::Error::custom)?;
                Self::from_bytes(&bytes).map_err(D::Error::custom)
            }
        }
    };
}
use base64_serde;
