//! DEFAULT in an INSERT: the keyword among values, and the columns that it leaves out. Also values that
//! must not become floats on their way into a DECIMAL.

use basalt_engine::defaults::{default_ast, default_expr};
use basalt_engine::dialect::{Insert, make_exact};
use basalt_engine::error::{ErrorCode, SqlError};
use basalt_engine::snapshot::TableSnapshot;
use basalt_storage::schema::Column;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

/// The rows of an INSERT, with the value of each `DEFAULT` in its place, and long numbers exact.
pub(super) fn source_with_defaults(
    insert: &Insert,
    table: &TableSnapshot,
) -> Result<Box<ast::Query>, SqlError> {
    let columns = &table.schema.columns;
    let Some(source) = &insert.source else {
        let values = columns.iter().map(default_ast);
        return one_row(values.collect::<Result<_, SqlError>>()?);
    };
    let mut source = source.clone();
    if let ast::SetExpr::Values(values) = source.body.as_mut() {
        let named = |name: &String| columns.iter().find(|column| column.name == *name);
        for row in &mut values.rows {
            for (index, value) in row.content.iter_mut().enumerate() {
                // What is one value too many is for the planner to refuse.
                let column = match insert.columns.is_empty() {
                    true => columns.get(index),
                    false => insert.columns.get(index).and_then(named),
                };
                match column {
                    Some(column) if is_default(value) => *value = default_ast(column)?,
                    Some(column) if column.data_type.is_decimal() => make_exact(value),
                    _ => {}
                }
            }
        }
    }
    Ok(source)
}

/// `VALUES (...)` of one row.
fn one_row(row: Vec<ast::Expr>) -> Result<Box<ast::Query>, SqlError> {
    // A query has many parts; the parser knows what each is when it is absent.
    let parsed = Parser::new(&GenericDialect {})
        .try_with_sql("VALUES (1)")
        .and_then(|mut parser| parser.parse_query());
    if let Ok(mut query) = parsed
        && let ast::SetExpr::Values(values) = query.body.as_mut()
        && let Some(only) = values.rows.first_mut()
    {
        only.content = row;
        return Ok(query);
    }
    Err(SqlError::new(ErrorCode::Internal, "a row of DEFAULT values cannot be put together"))
}

fn is_default(value: &ast::Expr) -> bool {
    let ast::Expr::Identifier(name) = value else { return false };
    name.quote_style.is_none() && name.value.eq_ignore_ascii_case("default")
}

/// The rows with the defaults of the columns that an INSERT does not name.
pub(super) fn fill_defaults(
    state: &SessionState,
    rows: LogicalPlan,
    table: &TableSnapshot,
    named: &[String],
) -> Result<LogicalPlan, DataFusionError> {
    let columns = &table.schema.columns;
    let uses_default = |column: &Column| {
        !named.is_empty() && !named.contains(&column.name) && column.declared.default.is_some()
    };
    if !columns.iter().any(uses_default) {
        return Ok(rows);
    }
    let outputs = columns
        .iter()
        .zip(rows.schema().columns())
        .map(|(column, given)| {
            let value = match uses_default(column) {
                true => default_expr(state, column)?,
                false => Expr::Column(given),
            };
            Ok(value.alias(column.name.clone()))
        })
        .collect::<Result<Vec<_>, DataFusionError>>()?;
    LogicalPlanBuilder::from(rows).project(outputs)?.build()
}
