//! What can go wrong with the catalog, by what the caller can do about it.
//!
//! [`CatalogError::code`] decides retryability from the type, never from text (RULES 22).

use std::fmt;
use std::io;
use std::path::PathBuf;

use basalt_engine::error::{ErrorCode, SqlError};
use basalt_storage::ids::{TxnId, WorkerId};
use thiserror::Error;

use super::command::RequestKey;
use basalt_engine::secret::SecretError;

/// A kind of thing that users name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// A namespace of relations.
    Schema,
    /// A stored table.
    Table,
    /// A named query.
    View,
    /// A column of a table.
    Column,
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Schema => "schema",
            Self::Table => "table",
            Self::View => "view",
            Self::Column => "column",
        })
    }
}

/// Why the catalog did not do what it was asked.
#[derive(Debug, Error)]
pub enum CatalogError {
    /// A schema does not exist.
    #[error("schema \"{schema}\" does not exist")]
    UnknownSchema {
        /// The name asked for.
        schema: String,
        /// The schema that was perhaps meant.
        suggestion: Option<String>,
    },
    /// A table or view does not exist.
    #[error("table \"{schema}.{name}\" does not exist")]
    UnknownRelation {
        /// The schema looked in.
        schema: String,
        /// The name asked for.
        name: String,
        /// The relation that was perhaps meant.
        suggestion: Option<String>,
    },
    /// The name is taken.
    #[error("{kind} \"{name}\" already exists")]
    AlreadyExists {
        /// What has the name.
        kind: ObjectKind,
        /// The name.
        name: String,
    },
    /// A view where a table is needed, or the reverse.
    #[error("\"{name}\" is a {actual}, not a {wanted}")]
    WrongKind {
        /// The relation.
        name: String,
        /// What it is.
        actual: ObjectKind,
        /// What is needed.
        wanted: ObjectKind,
    },
    /// A schema that still has relations cannot be dropped.
    #[error("schema \"{schema}\" is not empty: it has {relations} tables and views")]
    SchemaNotEmpty {
        /// The schema.
        schema: String,
        /// How many relations it has.
        relations: usize,
    },
    /// The schema belongs to the engine.
    #[error("schema \"{schema}\" is built in")]
    BuiltInSchema {
        /// The schema.
        schema: String,
    },
    /// Text that cannot be a name.
    #[error("{kind} name {name:?} {problem}")]
    InvalidName {
        /// What was to be named.
        kind: ObjectKind,
        /// The text, shortened.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A table or view definition that means nothing valid.
    #[error("\"{name}\" cannot be created: {problem}")]
    InvalidDefinition {
        /// The table or view.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// New rows have NULL in a NOT NULL column.
    #[error("column \"{column}\" of table \"{table}\" is NOT NULL, and {nulls} new rows have NULL")]
    NotNull {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// How many rows of one segment.
        nulls: u64,
    },
    /// Somebody else changed the same thing first; planning again may succeed.
    #[error("{object} was {what} by transaction {winner}")]
    Conflict {
        /// What both wanted to change.
        object: String,
        /// What the other did.
        what: &'static str,
        /// Who the other is.
        winner: TxnId,
    },
    /// A request key that breaks the rules for keys.
    #[error("the request key {problem}")]
    InvalidRequestKey {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A request key was used before for another statement.
    #[error("request key \"{key}\" was used for another statement by transaction {first}")]
    RequestKeyReused {
        /// The key.
        key: RequestKey,
        /// The transaction that has it.
        first: TxnId,
    },
    /// A worker is no member of the cluster.
    #[error("worker {worker} is not in the cluster")]
    UnknownWorker {
        /// The worker.
        worker: WorkerId,
    },
    /// A command is larger than one log record may be.
    #[error("a commit of {bytes} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// Its size when serialised.
        bytes: usize,
        /// The most there can be.
        limit: usize,
    },
    /// A count reached its limit.
    #[error("the cluster cannot have more than {limit} {what}")]
    LimitReached {
        /// What is counted.
        what: &'static str,
        /// The most there can be.
        limit: usize,
    },
    /// The command contradicts itself or the state: a bug in who made it.
    #[error("the command is wrong: {problem}")]
    InvalidCommand {
        /// What is wrong.
        problem: String,
    },
    /// A write to the log failed; whether this commit survives shows only after a restart.
    #[error("the outcome of transaction {txn} is unknown: {cause}")]
    OutcomeUnknown {
        /// The transaction.
        txn: TxnId,
        /// How the write failed.
        cause: String,
    },
    /// An earlier write failed, or the catalog is being closed: nothing was done.
    #[error("the catalog takes no more commits: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
    /// Too few members of the command log answer: nothing was done.
    #[error("the catalog takes no commits now: {reason}")]
    LogUnavailable {
        /// Who does not answer.
        reason: String,
    },
    /// The copies of the command log do not make a catalog.
    #[error("the catalog cannot be restored: {problem}")]
    CannotRestore {
        /// What is missing.
        problem: String,
    },
    /// The commit records of workers do not make a catalog.
    #[error("the catalog cannot be rebuilt: {problem}")]
    CannotRebuild {
        /// What is wrong.
        problem: String,
    },
    /// Stored state fails its checks. Nothing was repaired, skipped or guessed.
    #[error("the catalog is corrupt: {place} {problem}")]
    Corrupt {
        /// Which record, or which other part.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A newer version of the program wrote this.
    #[error("{place} has format version {found}, and this version reads up to {supported}")]
    NewerFormat {
        /// Which record, or which other part.
        place: String,
        /// The version it has.
        found: u16,
        /// The newest version known here.
        supported: u16,
    },
    /// Another process has the data directory.
    #[error("data directory {path} is in use by another process")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds no cluster.
    #[error("data directory {path} holds no cluster")]
    NoCluster {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds a cluster already.
    #[error("data directory {path} holds a cluster already")]
    ClusterExists {
        /// The directory.
        path: PathBuf,
    },
    /// The cluster secret cannot be made, read or trusted.
    #[error(transparent)]
    Identity(#[from] SecretError),
    /// The file system failed.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
    /// The database under the log failed.
    #[error("the catalog database failed: {0}")]
    Database(#[source] Box<redb::Error>),
}

impl CatalogError {
    /// The code that SQL users see.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownSchema { .. } | Self::UnknownRelation { .. } => ErrorCode::UndefinedTable,
            Self::AlreadyExists { .. } => ErrorCode::DuplicateObject,
            Self::WrongKind { .. }
            | Self::SchemaNotEmpty { .. }
            | Self::BuiltInSchema { .. }
            | Self::InvalidName { .. }
            | Self::InvalidDefinition { .. } => ErrorCode::InvalidStatement,
            Self::NotNull { .. } => ErrorCode::NotNullViolation,
            Self::Conflict { .. } => ErrorCode::Conflict,
            Self::InvalidRequestKey { .. }
            | Self::RequestKeyReused { .. }
            | Self::UnknownWorker { .. } => ErrorCode::InvalidParameter,
            Self::TooLarge { .. } | Self::LimitReached { .. } => ErrorCode::FeatureNotSupported,
            Self::Corrupt { .. } | Self::CannotRestore { .. } | Self::CannotRebuild { .. } => {
                ErrorCode::DataCorrupted
            }
            Self::OutcomeUnknown { .. } => ErrorCode::OutcomeUnknown,
            Self::InvalidCommand { .. } => ErrorCode::Internal,
            Self::Stopped { .. } | Self::LogUnavailable { .. } => ErrorCode::Unavailable,
            Self::NewerFormat { .. }
            | Self::Locked { .. }
            | Self::NoCluster { .. }
            | Self::ClusterExists { .. }
            | Self::Identity(_)
            | Self::Io { .. }
            | Self::Database(_) => ErrorCode::Internal,
        }
    }

    /// Whether the same statement, planned again on a new snapshot, may succeed. Nothing of the
    /// failed attempt is visible then.
    pub fn is_retryable(&self) -> bool {
        self.code().is_retryable()
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownSchema { suggestion, .. } | Self::UnknownRelation { suggestion, .. } => {
                suggestion.as_ref().map(|name| format!("did you mean \"{name}\"?"))
            }
            Self::InvalidName { .. } => {
                Some("a name has 1 to 255 characters, none of which controls a terminal".to_owned())
            }
            Self::SchemaNotEmpty { .. } => {
                Some("drop its tables and views first, or use DROP SCHEMA ... CASCADE".to_owned())
            }
            Self::Conflict { .. } => Some("run the statement again".to_owned()),
            Self::RequestKeyReused { .. } => Some(
                "use another key for another write; sys.requests tells what this one stands for"
                    .to_owned(),
            ),
            Self::UnknownWorker { .. } => Some("sys.workers lists the workers".to_owned()),
            Self::OutcomeUnknown { .. } => Some(
                "look for the transaction in sys.requests, after a restart of the coordinator if \
                 it takes no more commits, before sending the statement again; with the same \
                 request key (LABEL) sending it again is safe"
                    .to_owned(),
            ),
            Self::Stopped { .. } => {
                Some("look into the coordinator's log and restart it".to_owned())
            }
            Self::LogUnavailable { .. } => {
                Some("start the workers that are missing; sys.log_members lists them".to_owned())
            }
            _ => None,
        }
    }

    /// A record of the log that fails a check.
    pub(crate) fn corrupt_record(seq: u64, problem: impl Into<String>) -> Self {
        Self::Corrupt { place: format!("log record {seq}"), problem: problem.into() }
    }

    /// A contradiction that only a bug can cause.
    pub(super) fn invalid(problem: impl Into<String>) -> Self {
        Self::InvalidCommand { problem: problem.into() }
    }

    /// Any of redb's errors.
    pub(super) fn database(error: impl Into<redb::Error>) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

impl From<CatalogError> for SqlError {
    fn from(error: CatalogError) -> Self {
        let sql = SqlError::new(error.code(), error.to_string());
        match error.hint() {
            Some(hint) => sql.with_hint(hint),
            None => sql,
        }
    }
}
