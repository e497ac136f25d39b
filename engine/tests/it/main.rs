//! Integration tests of the engine: one binary, one module per topic.

mod dialect;
mod dialect_errors;
mod files;
mod files_csv;
mod files_mapping;
mod types;
