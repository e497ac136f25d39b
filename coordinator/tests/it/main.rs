//! Integration tests of the coordinator, one binary: each module is a part.

mod catalog;
mod catalog_membership;
mod flight;
