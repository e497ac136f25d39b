//! Tools that test SQL end to end: a client, a sqllogictest runner, test clusters.
//!
//! - [`client`]: the Flight SQL client, used by the `basalt` binary as well
//! - [`slt`]: runs sqllogictest files against a cluster or plain DataFusion
//! - [`clients`]: the Python drivers' tests and their virtual environment
//! - [`cluster`]: a whole cluster in one process
//! - [`explain`]: counters out of EXPLAIN ANALYZE
//! - [`processes`]: clusters of real processes, for `basalt bench` and tests
//! - [`faults`]: faults of processes, disks and networks, and checkers of promises
//! - [`soak`]: a mixed load for long, and what of the processes must not grow by it
//! - [`fuzz`]: generated queries against plain DataFusion and against themselves

pub mod client;
pub mod clients;
pub mod cluster;
pub mod explain;
pub mod faults;
pub mod fuzz;
pub mod processes;
pub mod slt;
pub mod soak;
