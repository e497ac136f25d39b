//! Errors between members of the cluster: the code travels with the message, whole.

use basalt_storage::error::StorageError;
use datafusion::error::DataFusionError;
use tonic::{Code, Status};

use super::from_datafusion::is_of_transport;
use super::{ErrorCode, SqlError, from_datafusion};

/// The metadata key that carries [`ErrorCode::name`].
const CODE_HEADER: &str = "x-basalt-error-code";

/// An error of an internal RPC's work, as its answer.
pub fn to_status(error: DataFusionError) -> Status {
    let error = from_datafusion(error);
    let code = match error.code {
        ErrorCode::Unavailable => Code::Unavailable,
        ErrorCode::ResourcesExhausted => Code::ResourceExhausted,
        ErrorCode::DataCorrupted => Code::DataLoss,
        ErrorCode::Cancelled => Code::Cancelled,
        ErrorCode::Conflict | ErrorCode::StalePlan => Code::Aborted,
        ErrorCode::PermissionDenied => Code::PermissionDenied,
        ErrorCode::UnknownHandle => Code::FailedPrecondition,
        ErrorCode::Internal => Code::Internal,
        _ => Code::InvalidArgument,
    };
    let mut status = Status::new(code, error.message);
    if let Ok(name) = error.code.name().parse() {
        status.metadata_mut().insert(CODE_HEADER, name);
    }
    status
}

/// The error that an internal RPC answered with.
pub fn from_status(status: &Status) -> SqlError {
    let carried = status.metadata().get(CODE_HEADER).and_then(|value| value.to_str().ok());
    let code = carried.and_then(ErrorCode::from_name).unwrap_or(match status.code() {
        _ if is_of_transport(status) => ErrorCode::Unavailable,
        // Another process, of another cluster, answers where a worker was before.
        Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Unauthenticated => {
            ErrorCode::Unavailable
        }
        Code::ResourceExhausted => ErrorCode::ResourcesExhausted,
        Code::DataLoss => ErrorCode::DataCorrupted,
        Code::Cancelled => ErrorCode::Cancelled,
        _ => ErrorCode::Internal,
    });
    let message = match carried {
        Some(_) => status.message().to_owned(),
        None => format!("a worker cannot be used: {}", status.message()),
    };
    SqlError::new(code, message)
}

/// An error of the storage layer on its way through DataFusion.
pub fn storage_error(error: StorageError) -> DataFusionError {
    let code = match &error {
        StorageError::Corrupt { .. } | StorageError::Misaligned { .. } => ErrorCode::DataCorrupted,
        StorageError::Missing { .. } => ErrorCode::Unavailable,
        StorageError::NullValue { .. } => ErrorCode::NotNullViolation,
        StorageError::UnsupportedType { .. } => ErrorCode::FeatureNotSupported,
        StorageError::Io { .. } | StorageError::ReadOnly { .. } => ErrorCode::Unavailable,
        _ => ErrorCode::Internal,
    };
    SqlError::new(code, error.to_string()).into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tonic::transport::Endpoint;

    use super::*;

    #[tokio::test]
    async fn a_request_whose_connection_was_closed_is_not_one_that_was_cancelled() {
        // Nobody listens at port 1.
        let failed = Endpoint::from_static("http://127.0.0.1:1").connect().await.unwrap_err();
        let cancelled = Status::cancelled("operation was canceled");
        let mut closed = cancelled.clone();
        closed.set_source(Arc::new(failed));
        for (status, code) in [(cancelled, ErrorCode::Cancelled), (closed, ErrorCode::Unavailable)]
        {
            assert_eq!(from_status(&status).code, code);
            let error = DataFusionError::External(Box::new(status));
            assert_eq!(from_datafusion(error).code, code);
        }
    }

    /// STORAGE.md T11: a worker waits ten seconds for its plan, and nobody plans again but us.
    #[test]
    fn a_fragment_whose_plan_got_lost_may_be_planned_again() {
        let text = "Worker::execute_task timed-out while waiting for the plan to be set by the coordinator. (x)";
        let error = from_datafusion(DataFusionError::Execution(text.to_owned()));
        assert_eq!(error.code, ErrorCode::Unavailable);
        assert!(error.code.is_retryable());
    }
}
