//! The Flight SQL service over a backend that is plain DataFusion: raw RPCs here, real drivers
//! in `drivers`.

mod cancellation;
#[path = "../../../sql-tests/src/clients.rs"]
mod clients;
mod drivers;
mod fake_backend;
mod rpc;
mod sessions;
mod test_server;
