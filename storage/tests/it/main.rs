//! Tests of the crate as its users see it.

#![allow(missing_docs, reason = "tests are named for what they show")]

mod arrays;
mod corruption;
mod crash;
mod crash_vfs;
mod golden;
mod hostile_meta;
mod round_trip;
mod store;
mod support;
