//! The fault harness: real processes, what can go wrong with them, and how to tell whether
//! promises were kept (FAULTS A6 to A8). Runs on a plain Linux machine, without containers.
//!
//! Tools, each of which says loudly when the machine does not allow it ([`skip`]):
//! - [`signals`]: SIGKILL, SIGSTOP, SIGCONT
//! - [`disk`]: damage to files below a data directory
//! - [`power`]: power cuts, on loop devices
//! - [`full_disk`]: a disk without space
//! - [`inject`]: failing system calls, by strace
//! - [`proxy`], [`callers`], [`network`]: slow, broken and lying links between nodes
//! - `basalt_storage::fail_point`: death and pause at named steps of a write
//!
//! What they are used on:
//! - [`cluster`]: coordinator and workers as processes, killed and started again one by one
//! - [`session`]: a client that survives its server
//! - [`workload`]: traffic and its checkers
//! - [`traffic`], [`violation`]: what writers, readers and the runner share
//!
//! Putting both together:
//! - [`nemesis`]: which fault, when, and how it is taken back
//! - [`runner`]: trials of a scenario, from a seed
//! - [`figures`]: what is counted, and the table of it
//! - [`choices`], [`ports`]: chance and addresses
//!
//! Scenarios are in `cli/tests/it/faults`, where the binary is known.

pub mod callers;
pub mod choices;
pub mod cluster;
pub mod disk;
pub mod figures;
pub mod full_disk;
pub mod inject;
pub mod nemesis;
pub mod network;
pub mod ports;
pub mod power;
pub mod proxy;
pub mod runner;
pub mod session;
pub mod signals;
pub mod skip;
pub mod traffic;
pub mod violation;
pub mod workload;
