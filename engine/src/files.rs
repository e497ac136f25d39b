//! Files from outside the cluster: Parquet and CSV.

mod options;

pub use options::{CsvOptions, FileFormat};
