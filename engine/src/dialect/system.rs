//! `ALTER SYSTEM`: what is changed of the cluster itself.

use super::parser::{StatementParser, unsupported};
use super::statement::{DrainWorker, Statement};
use crate::error::SqlError;

/// `ALTER SYSTEM DRAIN WORKER 'id'`, and `UNDRAIN`, which takes it back. Other kinds of ALTER are
/// refused.
pub(super) fn alter(parser: &mut StatementParser<'_>) -> Result<Statement, SqlError> {
    let start = parser.position();
    parser.expect_word("ALTER")?;
    if !parser.word("SYSTEM") {
        return Err(unsupported("ALTER", start));
    }
    let drain = parser.word("DRAIN");
    if !drain && !parser.word("UNDRAIN") {
        return parser.expected("DRAIN WORKER or UNDRAIN WORKER");
    }
    parser.expect_word("WORKER")?;
    let position = parser.position();
    let worker = parser.string("the id of a worker, as sys.workers shows it")?;
    Ok(Statement::DrainWorker(DrainWorker { worker, position, drain }))
}
