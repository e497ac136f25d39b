//! Names of things the server keeps for a client: prepared statements and tickets.
//!
//! Invariant: a handle cannot be guessed; it holds 244 random bits and nothing else.

use bytes::Bytes;
use uuid::Uuid;

/// An unguessable name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Handle([u8; 32]);

impl Handle {
    /// A new one, from the operating system's random source.
    pub(super) fn generate() -> Self {
        let mut bytes = [0; 32];
        let (left, right) = bytes.split_at_mut(16);
        left.copy_from_slice(Uuid::new_v4().as_bytes());
        right.copy_from_slice(Uuid::new_v4().as_bytes());
        Self(bytes)
    }

    /// Reads what a client sent; `None` for anything that was never handed out.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(super) fn to_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }
}
