//! What can go wrong with stored bytes, by what the caller can do about it.
//!
//! Invariant: an operation that cannot hand out exactly what was committed returns one of these;
//! it never hands out less. Paths are relative to the data directory where one is known.

use std::io;
use std::path::PathBuf;

use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use parquet::errors::ParquetError;
use thiserror::Error;

/// A storage operation failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Bytes on this disk are not the committed ones: read another copy, repair this one.
    #[error("{} is corrupt: {detail}", .path.display())]
    Corrupt {
        /// The file, or what stands for it when the bytes came from elsewhere.
        path: PathBuf,
        /// What does not fit.
        detail: String,
    },
    /// A file or chunk is not there: read another copy, repair this one.
    #[error("{} is missing", .path.display())]
    Missing {
        /// The file or chunk.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{op} {} failed: {source}", .path.display())]
    Io {
        /// What was tried: `write`, `fsync`, `rename`, `read`, ...
        op: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The type is outside the closed set of storable types.
    #[error("{}type {data_type} cannot be stored", column_prefix(.column))]
    UnsupportedType {
        /// The column, when known; empty otherwise.
        column: String,
        /// The type.
        data_type: DataType,
    },
    /// Rows of a column do not line up with the rest of the segment.
    #[error("{} is misaligned: {detail}", .path.display())]
    Misaligned {
        /// The chunk.
        path: PathBuf,
        /// Which counts differ.
        detail: String,
    },
    /// The data directory belongs to another cluster or worker.
    #[error("data directory {} belongs to {found}, not to {expected}", .path.display())]
    WrongIdentity {
        /// The data directory.
        path: PathBuf,
        /// Whose it should be.
        expected: String,
        /// Whose it is.
        found: String,
    },
    /// Another process has the data directory open.
    #[error("data directory {} is in use by another process", .path.display())]
    Locked {
        /// The data directory.
        path: PathBuf,
    },
    /// Written by a newer release: upgrade this one.
    #[error(
        "{} has format version {found}, this release reads versions up to {supported}",
        .path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version this release reads.
        supported: u32,
    },
    /// An earlier fsync failed, so what this volume holds is unknown: it takes no more writes
    /// until the process restarts and verifies it.
    #[error("data directory {} is read-only since an fsync failed", .path.display())]
    ReadOnly {
        /// The data directory.
        path: PathBuf,
    },
    /// A NULL in a column that allows none.
    #[error("column \"{column}\" is NOT NULL and has a NULL value")]
    NullValue {
        /// The column.
        column: String,
    },
    /// Values do not fit the column or the format's limits.
    #[error("{}{detail}", column_prefix(.column))]
    InvalidData {
        /// The column, when known; empty otherwise.
        column: String,
        /// What does not fit.
        detail: String,
    },
    /// The caller asked for something that cannot be: a bug of the caller.
    #[error("invalid storage request: {detail}")]
    InvalidRequest {
        /// What cannot be.
        detail: String,
    },
}

/// Shorthand for results of this crate.
pub type Result<T, E = StorageError> = std::result::Result<T, E>;

impl StorageError {
    /// The stable name of the kind of error, as in logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Corrupt { .. } => "CORRUPT",
            Self::Missing { .. } => "MISSING",
            Self::Io { .. } => "IO",
            Self::UnsupportedType { .. } => "UNSUPPORTED_TYPE",
            Self::Misaligned { .. } => "MISALIGNED",
            Self::WrongIdentity { .. } => "WRONG_IDENTITY",
            Self::Locked { .. } => "LOCKED",
            Self::NewerFormat { .. } => "NEWER_FORMAT",
            Self::ReadOnly { .. } => "READ_ONLY",
            Self::NullValue { .. } => "NULL_VALUE",
            Self::InvalidData { .. } => "INVALID_DATA",
            Self::InvalidRequest { .. } => "INVALID_REQUEST",
        }
    }

    /// Whether the same call may succeed later on this disk: space was freed, a descriptor was
    /// closed. A damaged copy does not heal by itself: see [`Self::is_copy_suspect`].
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Locked { .. })
    }

    /// Whether another copy of the same chunk may serve where this one cannot.
    pub fn is_copy_suspect(&self) -> bool {
        matches!(
            self,
            Self::Corrupt { .. }
                | Self::Missing { .. }
                | Self::Misaligned { .. }
                | Self::Io { .. }
                | Self::NewerFormat { .. }
        )
    }

    /// Names the column in errors that concern one and do not name it yet.
    pub fn with_column(mut self, name: &str) -> Self {
        if let Self::UnsupportedType { column, .. } | Self::InvalidData { column, .. } = &mut self
            && column.is_empty()
        {
            name.clone_into(column);
        }
        self
    }

    /// Bytes that are not what was committed.
    pub fn corrupt(path: impl Into<PathBuf>, detail: impl Into<String>) -> Self {
        Self::Corrupt { path: path.into(), detail: detail.into() }
    }

    pub(crate) fn misaligned(path: impl Into<PathBuf>, detail: impl Into<String>) -> Self {
        Self::Misaligned { path: path.into(), detail: detail.into() }
    }

    pub(crate) fn invalid_data(detail: impl Into<String>) -> Self {
        Self::InvalidData { column: String::new(), detail: detail.into() }
    }

    /// A request that makes no sense for this segment or store.
    pub fn invalid_request(detail: impl Into<String>) -> Self {
        Self::InvalidRequest { detail: detail.into() }
    }

    pub(crate) fn unsupported(data_type: &DataType) -> Self {
        Self::UnsupportedType { column: String::new(), data_type: data_type.clone() }
    }

    /// An I/O error; "not found" becomes [`StorageError::Missing`].
    pub(crate) fn io(op: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        if source.kind() == io::ErrorKind::NotFound {
            return Self::Missing { path };
        }
        Self::Io { op, path, source }
    }
}

/// Arrow kernels fail here only on values: a type that does not fit is refused before.
impl From<ArrowError> for StorageError {
    fn from(error: ArrowError) -> Self {
        Self::invalid_data(error.to_string())
    }
}

/// Only the encoder uses this conversion; decoding turns Parquet errors into `Corrupt`.
impl From<ParquetError> for StorageError {
    fn from(error: ParquetError) -> Self {
        Self::invalid_data(error.to_string())
    }
}

fn column_prefix(column: &str) -> String {
    if column.is_empty() { String::new() } else { format!("column \"{column}\": ") }
}
