//! The catalog: its rules against a naive model, its log against damage, its commits against
//! each other.

mod chosen_keys;
mod commits;
mod declarations;
mod directory;
pub(crate) mod fixtures;
mod model;
mod rebuild;
mod recovery;
mod replication;
mod rows;
mod rules;
mod salvage;
mod statistics;
