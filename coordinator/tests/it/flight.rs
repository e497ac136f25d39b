//! The Flight SQL service over a backend that is plain DataFusion: raw RPCs. The real drivers run
//! against a real cluster in `sql-tests`.

mod cancellation;
mod fake_backend;
mod requests;
mod rpc;
mod sessions;
mod test_server;
