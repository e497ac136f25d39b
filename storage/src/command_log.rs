//! The command log of the catalog: the bytes of its records, and a log member's copy of it.
//!
//! ```text
//! coordinator ──Append(epoch, writer, after, hash, records)──▶ member
//!      redb: its own copy                                        log/00000001.log ...
//! ```
//! Invariant: a member never loses or changes a record that it said is durable, except for one of
//! an older epoch that a writer of a newer epoch replaces; and from the moment it has promised an
//! epoch it takes nothing from writers of older ones, also after a crash. Both are kept by
//! [`LogCopy`], which needs no network and no clock.
//!
//! Not here: what a command means, who the members are, and how many copies a commit needs (the
//! coordinator's catalog).
//!
//! - [`record`]: one record, byte by byte, and the chain that ties records together
//! - [`parts`]: records in a row, as messages carry them
//! - [`frame`]: what a member writes into its files
//! - [`disk`]: a folder of append-only files, behind a trait so that tests can crash it
//! - [`copy`]: a member's copy
//! - [`home`]: where a worker has it, and whose it is

pub mod copy;
pub mod disk;
pub mod frame;
pub mod home;
pub mod parts;
pub mod record;

pub use copy::{Append, LogCopy, LogError, Position, Verdict};
pub use disk::{DirDisk, LOG_DIR, LogDisk, LogFile};
pub use record::{Chain, RawRecord, RecordError};
