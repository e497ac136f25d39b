//! End-to-end tests against clusters, one binary: each module is a part.

mod arrows;
mod basics;
mod python_clients;
mod suites;
mod vertical;
