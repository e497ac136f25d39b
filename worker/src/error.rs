//! What can go wrong with a worker as a process, by what its operator can do.

use std::io;
use std::path::PathBuf;

use basalt_storage::error::StorageError;
use datafusion::error::DataFusionError;
use tonic::{Code, Status};

/// Why a worker cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The data directory cannot be used.
    #[error("data directory {path}: {source}")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The chunk store cannot be opened.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// The cause.
        source: io::Error,
    },
    /// An address beyond this machine was asked for; there is no TLS yet.
    #[error("refusing to listen on {address}: only loopback addresses are allowed without TLS")]
    NotLoopback {
        /// The address.
        address: String,
    },
    /// The coordinator refused this worker.
    #[error("the coordinator at {coordinator} refused this worker: {}", reason(.status))]
    Refused {
        /// The coordinator.
        coordinator: String,
        /// Its answer.
        status: Box<Status>,
    },
    /// The query runtime cannot be set up.
    #[error("cannot set up the query runtime: {0}")]
    Runtime(#[from] DataFusionError),
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// What an answer says, or else what its code means.
fn reason(status: &Status) -> String {
    match (status.message(), status.code()) {
        ("", Code::Unimplemented) => "it is no coordinator".to_owned(),
        ("", code) => code.description().to_owned(),
        (message, _) => message.to_owned(),
    }
}
