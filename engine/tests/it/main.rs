//! Integration tests of the engine: one binary, one module per topic.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail it")]

mod dialect;
mod dialect_declarations;
mod dialect_errors;
mod dialect_labels;
mod files;
mod files_csv;
mod files_mapping;
mod files_parquet;
mod hostile_csv;
mod hostile_parquet;
mod types;
