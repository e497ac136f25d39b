//! `ANALYZE COMPRESSION`: what a table's columns would take in other encodings.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::parser::StatementParser;
use super::statement::{AnalyzeCompression, Statement};
use crate::error::SqlError;

/// Whether `ANALYZE COMPRESSION` follows.
pub(super) fn is_next(parser: &StatementParser<'_>) -> bool {
    let words = ["ANALYZE", "COMPRESSION"];
    words
        .iter()
        .enumerate()
        .all(|(n, word)| parser.peek_word(n).is_some_and(|found| found.eq_ignore_ascii_case(word)))
}

/// `ANALYZE COMPRESSION t [(column, ...)]`.
pub(super) fn analyze_compression(parser: &mut StatementParser<'_>) -> Result<Statement, SqlError> {
    parser.expect_word("ANALYZE")?;
    parser.expect_word("COMPRESSION")?;
    let (table, table_position) = parser.object_ref()?;
    let columns = match parser.peek_token(0) {
        Token::LParen => parser.name_list()?,
        _ => Vec::new(),
    };
    if parser.peek_word(0).is_some_and(|word| word.eq_ignore_ascii_case("COMPROWS")) {
        return Err(parser.refuse("COMPROWS", "leave it out: up to 100,000 rows are measured"));
    }
    Ok(Statement::AnalyzeCompression(AnalyzeCompression { table, table_position, columns }))
}
