//! Files from outside the cluster: Parquet and CSV, for `read_parquet`, `read_csv` and `COPY`.
//!
//! ```text
//! 'pattern' --FileSet::resolve--> files with size and time    (fixed at the start of a statement)
//!           --FileScan::open----> one schema, rows per file   (footers or samples are read)
//!           --FileScan::split---> units per task and partition
//!           --FileScanExec------> batches, on whichever process runs the task
//! ```
//!
//! Invariants: a path is checked against the allowed roots of the process that opens it, each time
//! it is opened; a file that changed since it was resolved is an error; every row of the set is in
//! exactly one unit, and a unit delivers exactly its rows or an error.
//!
//! Not here: DataFusion's file sources and `object_store`, which know no allowed roots and would
//! serve whatever path a plan names.
//!
//! - [`AllowedRoots`]: what may be read
//! - [`FileFormat`], [`CsvOptions`]: what a file is
//! - [`FileSet`]: which files
//! - [`FileScan`]: their schema and rows, and how they are split
//! - [`ParquetFile`], `csv`: reading one unit
//! - [`FileScanExec`]: the leaf of a plan, and `proto`: its encoding
//! - [`FileTable`], [`ReadFiles`]: the same as a table and as table functions
//! - [`load_mapping`], [`checked_cast`]: from the columns of files to those of a table

mod cast;
mod csv;
mod exec;
mod mapping;
mod options;
mod parquet;
mod proto;
mod roots;
mod scan;
mod set;
mod table;

pub use cast::{checked_cast, checked_cast_column};
pub use exec::FileScanExec;
pub use mapping::{ColumnMapping, Conversion, load_mapping};
pub use options::{CsvOptions, FileFormat};
pub use parquet::ParquetFile;
pub use roots::AllowedRoots;
pub use scan::{FileScan, ScannedFile, Unit};
pub use set::{FILES_MAX, FileSet, SourceFile};
pub use table::{FileTable, ReadFiles};

use std::path::Path;

use crate::error::{ErrorCode, SqlError, printable};

/// A path as messages show it.
fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

/// An error about one file.
fn file_error(path: &Path, what: impl std::fmt::Display) -> SqlError {
    SqlError::new(ErrorCode::SourceFile, format!("file \"{}\" {what}", shown(path)))
}
