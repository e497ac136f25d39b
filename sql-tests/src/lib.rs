//! sqllogictest runner, suites and test clusters.
//!
//! - [`clients`]: the Python drivers' tests and their virtual environment

pub mod clients;
