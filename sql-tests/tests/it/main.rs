//! End-to-end tests against clusters, one binary: each module is a part.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail it")]

mod arrows;
mod basics;
mod python_clients;
mod suites;
mod vertical;
