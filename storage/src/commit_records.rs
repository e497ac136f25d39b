//! What a worker keeps of the catalog's commits: enough to make a catalog again when the
//! coordinator's disk and the copies of its log are gone.
//!
//! ```text
//! <data-dir>/commits/00000007.commits     frames (frame.rs)
//!    ┌ full ───────┐┌ delta ┐┌ delta ┐
//!    state at 120   to 131   to 140       <- "commits up to 140 are known here"
//! ```
//! A **put** is what the coordinator sends at a time: the whole state at one commit, or what is
//! other than at the commit of the put before. It takes one frame or several, and counts once the
//! last of them is there. A full put begins a new file, and the older files go; everything else is
//! appended. What the bodies say is the coordinator's business: nothing here looks into them.
//!
//! Invariant: what [`CommitRecords::position`] says is known survives a crash, and a crash at any
//! moment leaves the state of the last put that was done, or of the one under way, whole.
//!
//! Not here: whether a commit is durable. That is decided by the copies of the command log
//! ([`crate::command_log`]); these records follow later and vouch for nothing.
//!
//! - [`frame`]: the bytes
//! - [`scan`]: reading a file back
//! - [`file`]: the records of one worker

pub mod file;
pub mod frame;
pub mod scan;

pub use file::{CommitRecords, CommitRecordsError, Known, PutId};
pub use frame::BODY_BYTES_MAX;
pub use scan::{Contents, Damage, PutRead};

/// The folder of the records, below a worker's data directory.
pub const COMMITS_DIR: &str = "commits";
