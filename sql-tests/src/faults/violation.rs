//! A promise that was broken, by which one it was.

use std::fmt;

/// Which promise (FAULTS A6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Something that was acknowledged is not there.
    Lost,
    /// A statement is there by half, or a reader saw half of it.
    Partial,
    /// A statement was made twice, or one that was refused was made.
    Duplicate,
    /// An answer is not that of any commit.
    WrongAnswer,
    /// Damage was not noticed.
    Undetected,
    /// A query failed that should have been answered.
    Unavailable,
    /// No answer, or no recovery.
    Hang,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Lost,
        Self::Partial,
        Self::Duplicate,
        Self::WrongAnswer,
        Self::Undetected,
        Self::Unavailable,
        Self::Hang,
    ];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "acknowledged and lost",
            Self::Partial => "there by half",
            Self::Duplicate => "made twice, or made after a refusal",
            Self::WrongAnswer => "wrong answer",
            Self::Undetected => "damage not noticed",
            Self::Unavailable => "failed without need",
            Self::Hang => "hangs",
        })
    }
}

/// A broken promise.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{kind}: {detail}")]
pub struct Violation {
    /// Which promise.
    pub kind: Kind,
    /// What was seen.
    pub detail: String,
}

impl Violation {
    /// A broken promise and what was seen of it.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

/// Fails with a violation unless something holds.
///
/// # Errors
/// The violation.
pub fn expect(holds: bool, kind: Kind, detail: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation::new(kind, detail())) }
}
