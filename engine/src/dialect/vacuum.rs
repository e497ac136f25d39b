//! `VACUUM`: segments written again, for speed; nothing that a query can see changes.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::names::ObjectRef;
use super::parser::StatementParser;
use super::statement::Statement;
use crate::error::{Position, SqlError};

/// `VACUUM [FULL] [t]`. Redshift's other kinds have no meaning here and are refused.
pub(super) fn vacuum(parser: &mut StatementParser<'_>) -> Result<Statement, SqlError> {
    parser.expect_word("VACUUM")?;
    parser.word("FULL");
    if let Some(word) = parser.peek_word(0).map(str::to_ascii_uppercase)
        && matches!(word.as_str(), "SORT" | "DELETE" | "REINDEX" | "RECLUSTER" | "ANALYZE")
    {
        return Err(parser.refuse(&format!("VACUUM {word}"), "write VACUUM or VACUUM table"));
    }
    let table: Option<(ObjectRef, Position)> = match parser.peek_token(0) {
        Token::Word(_) => Some(parser.object_ref()?),
        _ => None,
    };
    Ok(Statement::Vacuum(table))
}
