//! Integration tests of the coordinator.

mod flight;
