//! Tools that test SQL end to end: a client, a sqllogictest runner, test clusters.
//!
//! - [`client`]: the Flight SQL client, used by the `basalt` binary as well
//! - [`slt`]: runs sqllogictest files against a cluster or plain DataFusion

pub mod client;
pub mod slt;
//! sqllogictest runner, suites and test clusters.
//!
//! - [`clients`]: the Python drivers' tests and their virtual environment

pub mod clients;
