//! End-to-end tests against clusters, one binary: each module is a part.

mod basics;
