//! Client-side loading: a user's own Parquet and CSV files as one stream of batches.
//!
//! ```text
//! PATH... --find--> SourceFile --schema--> one Schema (or every difference) --read--> batches
//! ```
//! Columns are matched by name. Types that differ only in their Arrow layout (dictionary, view,
//! large) are the same type here; anything else is a difference, and all of them are reported at
//! once before a single row is sent.

mod files;
mod read;
mod schema;

pub use files::{FileKind, SourceFile, find};
pub use read::stream;
pub use schema::{CsvOptions, SchemaDifferences, file_schema, unify};
