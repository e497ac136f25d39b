//! `ANALYZE`: what tables hold, found out for the planner; nothing that a query can see changes.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::parser::StatementParser;
use super::statement::{Analyze, Statement};
use crate::error::SqlError;

/// `ANALYZE [t [(columns)]] [ALL COLUMNS]`. Other kinds of PostgreSQL and Redshift are refused.
pub(super) fn analyze(parser: &mut StatementParser<'_>) -> Result<Statement, SqlError> {
    parser.expect_word("ANALYZE")?;
    if let Some(word) = parser.peek_word(0).map(str::to_ascii_uppercase)
        && matches!(word.as_str(), "VERBOSE" | "COMPRESSION" | "SKIP_LOCKED")
    {
        return Err(refused(parser, &word));
    }
    let mut analyze = Analyze { table: None, columns: vec![] };
    if !parser.words(&["ALL", "COLUMNS"]) && matches!(parser.peek_token(0), Token::Word(_)) {
        analyze.table = Some(parser.object_ref()?);
        if *parser.peek_token(0) == Token::LParen {
            analyze.columns = parser.name_list()?;
        } else if parser.peek_word(0).is_some_and(|word| word.eq_ignore_ascii_case("PREDICATE")) {
            return Err(refused(parser, "PREDICATE COLUMNS"));
        } else {
            parser.words(&["ALL", "COLUMNS"]);
        }
    }
    Ok(Statement::Analyze(analyze))
}

fn refused(parser: &StatementParser<'_>, what: &str) -> SqlError {
    let what = format!("ANALYZE {what}");
    parser.refuse(&what, "write ANALYZE, ANALYZE table or ANALYZE table (columns)")
}
