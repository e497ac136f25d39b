//! Tests of the crate as its users see it.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail it")]
#![allow(missing_docs, reason = "tests are named for what they show")]

mod arrays;
mod check;
mod command_log;
mod commit_records;
mod corruption;
mod crash;
mod crash_incoming;
mod crash_vfs;
mod encodings;
mod golden;
mod hostile_meta;
mod incoming;
mod log_disk;
mod pages;
mod quarantine;
mod round_trip;
mod store;
mod support;
