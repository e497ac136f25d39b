//! Tests of the `basalt` program: its command line, its output and the pure parts of its client
//! commands. What needs a cluster and not the program is tested in `sql-tests`.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail it")]

mod bench;
mod catalog;
mod catalog_rebuild;
mod colocation;
mod command_line;
mod faults;
mod format;
mod python_clients;
mod secret_log;
mod soak;
mod split;
mod tpch;
mod upload;
