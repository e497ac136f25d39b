//! Testing with generated queries: a run of `basalt fuzz`, and its part in CI.
//!
//! ```text
//! seed -> tables (data)  -> plain DataFusion, clusters (databases, setup)
//! seed -> query (generate, ast) -> check (oracles, answers) -> same, or different
//! different -> explained (closed list), or smaller and smaller (shrink) -> a script (report)
//! ```
//!
//! In reading order:
//!
//! - [`random`]: numbers from a seed
//! - [`data`]: tables; `scope`, [`ast`], [`generate`]: queries
//! - [`answers`], [`databases`]: who answers, and when two answers are the same
//! - [`oracles`]: against plain DataFusion, ternary logic partitioning, NoREC
//! - [`duckdb`]: against an engine that is not DataFusion
//! - [`explained`]: differences that are meant
//! - [`shrink`], [`report`]: from a difference to a script
//! - [`setup`], [`run`]: clusters of several sizes, rounds of queries
//!
//! Invariant: a seed gives the same tables and the same query for ever, on every machine.

pub mod answers;
pub mod ast;
pub mod data;
pub mod databases;
pub mod duckdb;
pub mod explained;
pub mod generate;
pub mod oracles;
pub mod random;
pub mod report;
pub mod run;
mod scope;
pub mod setup;
pub mod shrink;

#[cfg(test)]
mod tests;
