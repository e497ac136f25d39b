//! Integration tests of the coordinator, one binary: each module is a part.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail it")]

mod catalog;
mod catalog_membership;
mod flight;
mod log_ledger;
mod log_simulation;
