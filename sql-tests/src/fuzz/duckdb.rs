//! DuckDB as an oracle: an engine that shares no line with DataFusion, so that it sees what DataFusion
//! and ours do wrongly alike.
//!
//! ```text
//! tables -> create, inserts (spelling) -> DuckDB in a Python (process, peer.py)
//! query  -> the same query in DuckDB's words (spelling) -> answer (Arrow)
//! both answers -> values (values) -> same, or explained, or different (check)
//! ```
//!
//! - [`process`]: the Python that runs DuckDB, spoken to through its standard streams
//! - [`spelling`]: types, literals and queries in DuckDB's words
//! - [`values`]: when values of two engines are the same
//! - [`check`]: what came of a query
//!
//! Invariant: types that mean the same in both, and words that mean the same. What still differs on
//! purpose is in the closed list of [`super::explained`], each with its check.

pub(super) mod check;
pub mod process;
pub mod spelling;
pub mod values;

#[cfg(test)]
mod tests;
