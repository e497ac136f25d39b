//! The SQL dialect: text in, a closed set of statements out.
//!
//! ```text
//! text -> tokens -> one token list per statement -> Statement
//!         (`?` becomes `$n`)   (`;` at any depth)
//! ```
//!
//! Queries are DataFusion's generic dialect, parsed by sqlparser; everything that changes state is
//! parsed here, so that a statement this engine does not know by name never reaches DataFusion.
//!
//! Invariant: parsing runs nothing, touches no file, and ends in an error with a position for any
//! text of at most [`SQL_BYTES_MAX`], however deep, without overflowing a 2 MiB stack.
//!
//! Not here: which tables exist, which settings may be set, which paths may be read.
//!
//! - [`statement`]: the closed set of statements
//! - `tokens`: tokens, statement boundaries, parameters, nesting limits
//! - `grammar`: DataFusion's dialect, with bounded work
//! - `parser`: one statement's tokens, and the dispatch on its first words
//! - `create_table`: `CREATE TABLE` with Redshift's attributes
//! - `keys`, `encode`: keys and encodings of `CREATE TABLE`
//! - `copy`: `COPY ... FROM` and its options
//! - `label`, `consistency`: `LABEL 'key'` and `WITH CONSISTENCY` at the end of what writes
//! - `modify`: `DELETE` and `UPDATE`
//! - `vacuum`: `VACUUM`
//! - `analyze`: `ANALYZE`
//! - `analyze_compression`: `ANALYZE COMPRESSION`
//! - `system`: `ALTER SYSTEM`
//! - `relation`: views, schemas and `DROP`
//! - `session`: `SET`, `SHOW`, `EXPLAIN` and transactions
//! - `query`: what a query may contain
//! - `size`: how large it may become
//! - `references`: the relations it names
//! - `numbers`, `named_windows`, `similar`, `spellings`, `using`: what DataFusion reads otherwise
//! - `repeated`: columns it has twice
//! - `rows`: rows of several values, compared
//! - `series`, `lateral`: tables that look into those before them
//! - `branches`: the later branches of UNION and the like
//! - `casts`, `group_casts`: aggregates and keys that differ in casts only
//! - `named_subqueries`: subqueries that would have one name
//! - `own_level`: a SELECT without its subqueries
//! - [`names`]: identifiers and qualified names
//! - `syntax`: sqlparser's errors as [`SqlError`]

mod analyze;
mod analyze_compression;
mod branches;
mod casts;
mod consistency;
mod copy;
mod create_table;
mod encode;
mod grammar;
mod group_casts;
mod keys;
mod label;
mod lateral;
mod modify;
mod named_subqueries;
mod named_windows;
pub mod names;
mod numbers;
mod own_level;
mod parser;
mod query;
mod references;
mod relation;
mod repeated;
mod rows;
mod series;
mod session;
mod similar;
mod size;
mod spellings;
pub mod statement;
mod syntax;
mod system;
mod tokens;
mod using;
mod vacuum;

pub use encode::encodings;
pub use label::{LABEL_BYTES_MAX, label_problem};
pub use modify::{Assignment, Delete, Rows, Update};
pub use names::{NAME_CHARS_MAX, ObjectRef};
pub use numbers::make_exact;
pub use repeated::shown_names;
pub use statement::{
    Analyze, AnalyzeCompression, ColumnSpec, CopyFrom, CreateSchema, CreateTable, CreateView,
    DistributionSpec, DrainWorker, DropSchema, DropTable, DropView, Explain, Insert, KeySpec,
    KeySpecKind, Label, ParsedStatement, Statement,
};

use datafusion::sql::sqlparser::ast::Expr;

use crate::error::{ErrorCode, SqlError};

/// The longest text that is parsed, in bytes: what one Flight message may carry, with room.
pub const SQL_BYTES_MAX: usize = 16 << 20;

/// Parses a script: any number of statements separated by `;`.
///
/// Empty statements and comments are dropped, so the result may be empty. Positions in errors and
/// in the statements' AST count in the whole script.
///
/// # Errors
///
/// The first error of the script: [`ErrorCode::SyntaxError`] with a position,
/// [`ErrorCode::FeatureNotSupported`] for statements that this engine does not have,
/// [`ErrorCode::InvalidStatement`] for those that contradict themselves.
pub fn parse(sql: &str) -> Result<Vec<ParsedStatement>, SqlError> {
    // A byte order mark is invisible in an editor: positions do not count it.
    let sql = sql.strip_prefix('\u{feff}').unwrap_or(sql);
    tokens::split(sql)?.into_iter().map(parser::parse_statement).collect()
}

/// Parses exactly one statement; a `;` after it is fine.
///
/// # Errors
///
/// As [`parse`], and [`ErrorCode::SyntaxError`] when there is no statement or more than one.
pub fn parse_one(sql: &str) -> Result<ParsedStatement, SqlError> {
    let mut statements = parse(sql)?;
    match (statements.pop(), statements.pop()) {
        (Some(statement), None) => Ok(statement),
        (None, _) => Err(SqlError::new(ErrorCode::SyntaxError, "the statement is empty")),
        (Some(second), Some(_)) => {
            Err(SqlError::new(ErrorCode::SyntaxError, "the text has more than one statement")
                .at(second.start)
                .with_hint("send one statement at a time"))
        }
    }
}

/// Parses a text that is an expression and nothing else, as [`ColumnSpec::default`] has it.
///
/// # Errors
///
/// [`ErrorCode::SyntaxError`] when it is none.
pub fn parse_expression(text: &str) -> Result<Expr, SqlError> {
    let lists = tokens::split(text)?;
    match lists.as_slice() {
        [list] => parser::parse_expression(list),
        _ => Err(SqlError::new(ErrorCode::SyntaxError, "the text is not one expression")),
    }
}

/// An error of sqlparser that came through DataFusion.
pub(crate) fn parser_error(error: &datafusion::sql::sqlparser::parser::ParserError) -> SqlError {
    syntax::parser_error(error, None)
}
