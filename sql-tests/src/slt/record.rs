//! What one record of a file was, and what came of it.

use std::path::Path;

use sqllogictest::{Record, RecordOutput, TestError, TestErrorKind};

use super::Failure;
use super::engine::{EngineError, SltType};

/// The records of a file and of those it includes.
pub(super) fn parse(path: &Path) -> Result<Vec<Record<SltType>>, Failure> {
    let failure = |line, text| Failure { file: path.display().to_string(), line, text };
    // The parser panics on what it cannot read, so that is found out first.
    std::fs::read_to_string(path)
        .map_err(|error| failure(0, format!("the file cannot be read: {error}")))?;
    if path.to_str().is_none() {
        return Err(failure(0, "the file's name is not UTF-8: rename it".to_owned()));
    }
    sqllogictest::parse_file(path).map_err(|error| Failure {
        file: error.location().file().to_owned(),
        line: error.location().line(),
        text: error.kind().to_string(),
    })
}

/// Whether a record is counted: statements, queries and system commands are.
pub(super) fn counts(record: &Record<SltType>) -> bool {
    matches!(
        record,
        Record::Statement { .. }
            | Record::Query { .. }
            | Record::System { .. }
            | Record::Let { .. }
    )
}

/// Whether a counted record was left out by its conditions.
pub(super) fn was_skipped(output: &RecordOutput<SltType>) -> bool {
    matches!(output, RecordOutput::Nothing)
}

/// Whether a record failed because the engine is gone.
pub(super) fn lost_connection(error: &TestError) -> bool {
    let source = match error.kind() {
        TestErrorKind::Fail { err, .. } | TestErrorKind::ErrorMismatch { err, .. } => err,
        _ => return false,
    };
    source.downcast_ref::<EngineError>().is_some_and(|error| error.is_disconnect)
}

/// The failure as a report shows it.
pub(super) fn failure(error: &TestError) -> Failure {
    let location = error.location();
    Failure {
        file: location.file().to_owned(),
        line: location.line(),
        text: error.kind().to_string(),
    }
}
