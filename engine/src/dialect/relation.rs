//! Views, schemas and `DROP`.

use super::parser::{StatementParser, unsupported};
use super::statement::{CreateSchema, CreateView, DropSchema, DropTable, DropView, Statement};
use super::{names, references};
use crate::error::{ErrorCode, Position, SqlError};
use datafusion::sql::sqlparser::tokenizer::Token;

/// `VIEW [IF NOT EXISTS] name [(columns)] AS query`, after `CREATE [OR REPLACE]`.
pub(super) fn create_view(
    parser: &mut StatementParser<'_>,
    or_replace: bool,
) -> Result<Statement, SqlError> {
    let start = parser.position();
    parser.expect_word("VIEW")?;
    let if_not_exists = parser.words(&["IF", "NOT", "EXISTS"]);
    if if_not_exists && or_replace {
        let message = "OR REPLACE and IF NOT EXISTS exclude each other";
        return Err(SqlError::new(ErrorCode::InvalidStatement, message).at(start));
    }
    let (name, name_position) = parser.object_ref()?;
    let columns = if *parser.peek_token(0) == Token::LParen {
        parser.name_list()?.into_iter().map(|(name, _)| name).collect()
    } else {
        Vec::new()
    };
    parser.expect_word("AS")?;
    let mark = parser.text_mark(0);
    let query = parser.query()?;
    let query_text = parser.text_since(mark);
    let unqualified = references::unqualified(&query)
        .into_iter()
        .map(|(name, at)| (name, parser.bytes_between(mark, at)))
        .collect();
    if parser.peek_word(0).is_some_and(|word| word.eq_ignore_ascii_case("WITH")) {
        return Err(parser.refuse("CREATE VIEW ... WITH", "leave it out"));
    }
    Ok(Statement::CreateView(Box::new(CreateView {
        name,
        name_position,
        or_replace,
        if_not_exists,
        columns,
        query,
        query_text,
        unqualified,
    })))
}

/// `SCHEMA [IF NOT EXISTS] name`, after `CREATE`.
pub(super) fn create_schema(parser: &mut StatementParser<'_>) -> Result<Statement, SqlError> {
    parser.expect_word("SCHEMA")?;
    let if_not_exists = parser.words(&["IF", "NOT", "EXISTS"]);
    let name = schema_name(parser)?;
    if parser.peek_word(0).is_some_and(|word| word.eq_ignore_ascii_case("AUTHORIZATION")) {
        return Err(parser.refuse("AUTHORIZATION", "leave it out: schemas have no owner"));
    }
    Ok(Statement::CreateSchema(CreateSchema { name, if_not_exists }))
}

/// `DROP TABLE | VIEW | SCHEMA [IF EXISTS] names [CASCADE | RESTRICT]`.
pub(super) fn drop(
    parser: &mut StatementParser<'_>,
    start: Position,
) -> Result<Statement, SqlError> {
    parser.expect_word("DROP")?;
    let Some(kind) = parser.peek_word(0).map(str::to_ascii_uppercase) else {
        return parser.expected("TABLE, VIEW or SCHEMA");
    };
    if !matches!(kind.as_str(), "TABLE" | "VIEW" | "SCHEMA") {
        return Err(unsupported(&format!("DROP {kind}"), start));
    }
    parser.next_token();
    let if_exists = parser.words(&["IF", "EXISTS"]);
    if kind == "SCHEMA" {
        let name = schema_name(parser)?;
        let cascade = parser.word("CASCADE");
        let _restrict_is_the_default = !cascade && parser.word("RESTRICT");
        return Ok(Statement::DropSchema(DropSchema { name, if_exists, cascade }));
    }
    let mut names = vec![parser.object_ref()?.0];
    while parser.token(&Token::Comma) {
        names.push(parser.object_ref()?.0);
    }
    if parser.peek_word(0).is_some_and(|word| word.eq_ignore_ascii_case("CASCADE")) {
        return Err(parser.refuse(
            &format!("DROP {kind} ... CASCADE"),
            "leave it out: views that use it are kept and say so when they are queried",
        ));
    }
    parser.word("RESTRICT");
    Ok(match kind.as_str() {
        "TABLE" => Statement::DropTable(DropTable { names, if_exists }),
        _ => Statement::DropView(DropView { names, if_exists }),
    })
}

fn schema_name(parser: &mut StatementParser<'_>) -> Result<String, SqlError> {
    let name = parser.run(|parser| parser.parse_object_name(false))?;
    names::schema_name(&name)
}
