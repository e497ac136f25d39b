//! DEFAULT values of columns: an expression over nothing, kept as text.
//!
//! Invariant: what [`check_default`] let through gives a value of its column's type whenever it is
//! used. It is evaluated once per statement: `now()` is the same in all of its rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use basalt_storage::schema::Column;
use datafusion::common::tree_node::{TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, lit};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::sqlparser::ast;

use crate::dialect::parse_expression;
use crate::error::{ErrorCode, SqlError, from_datafusion, printable};
use crate::files::checked_cast_column;
use crate::types::{column_type_name, scan_type};

/// The longest text of a DEFAULT, in bytes: every snapshot and every append carries it.
const TEXT_BYTES_MAX: usize = 4_096;

/// What a column gets when an INSERT gives it nothing: its DEFAULT, or NULL.
///
/// # Errors
///
/// When the text of the DEFAULT no longer means anything, as after an upgrade.
pub fn default_expr(state: &SessionState, column: &Column) -> Result<Expr> {
    let data_type = scan_type(&column.data_type);
    match &column.declared.default {
        None => Ok(lit(ScalarValue::try_new_null(&data_type)?)),
        Some(text) => {
            let value = planned(state, text)?;
            Ok(Expr::Cast(Cast::new(Box::new(value), data_type)))
        }
    }
}

/// The text of a DEFAULT, planned: parsed by the grammar of statements.
fn planned(state: &SessionState, text: &str) -> Result<Expr> {
    let expr = parse_expression(text)?;
    let named = ast::ExprWithAlias { expr, alias: None };
    state.create_logical_expr_from_sql_expr(named, &DFSchema::empty())
}

/// The same, as what the keyword DEFAULT among other values stands for.
///
/// # Errors
///
/// When the text of the DEFAULT is no expression.
pub fn default_ast(column: &Column) -> Result<ast::Expr, SqlError> {
    match &column.declared.default {
        None => Ok(ast::Expr::Value(ast::Value::Null.with_empty_span())),
        Some(text) => Ok(ast::Expr::Nested(Box::new(parse_expression(text)?))),
    }
}

/// Refuses a DEFAULT that a column cannot have.
///
/// # Errors
///
/// - [`ErrorCode::FeatureNotSupported`] for queries and for functions that differ with each call
/// - [`ErrorCode::DatatypeMismatch`] when its value is none of the column's type
/// - what planning and computing it ends in
pub fn check_default(state: &SessionState, column: &Column) -> Result<(), SqlError> {
    let Some(text) = &column.declared.default else { return Ok(()) };
    if text.len() > TEXT_BYTES_MAX {
        return Err(refused(column, &format!("is longer than {TEXT_BYTES_MAX} bytes")));
    }
    let value = planned(state, text).map_err(|error| {
        let error = from_datafusion(error);
        match error.code {
            ErrorCode::UndefinedColumn => {
                refused(column, "names a column").with_hint("texts are written in single quotes")
            }
            // Positions count in the expression alone.
            _ => SqlError { position: None, ..error },
        }
    })?;
    let mut problem = None;
    let walked = value.apply(|expr| {
        problem = match expr {
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) => Some("has a query"),
            Expr::AggregateFunction(_) => Some("has an aggregate function"),
            Expr::WindowFunction(_) => Some("has a window function"),
            Expr::Placeholder(_) => Some("has a parameter"),
            expr if expr.is_volatile_node() => Some("differs with each call"),
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        Ok(TreeNodeRecursion::Stop)
    });
    walked.map_err(from_datafusion)?;
    if let Some(problem) = problem {
        return Err(refused(column, problem)
            .with_hint("use a constant, or a function such as now() or current_date"));
    }
    let array = evaluate(state, value).map_err(from_datafusion)?;
    fits(column, &array)
}

fn refused(column: &Column, problem: &str) -> SqlError {
    let message = format!("DEFAULT of column \"{}\" {problem}", printable(&column.name));
    SqlError::new(ErrorCode::FeatureNotSupported, message)
}

/// The value as an array of one row.
fn evaluate(state: &SessionState, value: Expr) -> Result<ArrayRef> {
    let schema = DFSchema::empty();
    let options = state.config_options();
    let context = SimplifyContext::builder()
        .with_schema(Arc::new(schema.clone()))
        .with_config_options(Arc::clone(options))
        .with_current_time()
        .build();
    let simplifier = ExprSimplifier::new(context);
    let mut value = simplifier.coerce(value, &schema)?;
    for rewrite in state.analyzer().function_rewrites() {
        value = value.transform_up(|expr| rewrite.rewrite(expr, &schema, options)).data()?;
    }
    let value = simplifier.simplify(value)?;
    let one_row = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(
        Arc::new(arrow::datatypes::Schema::empty()),
        vec![],
        &one_row,
    )?;
    state.create_physical_expr(value, &schema)?.evaluate(&row)?.into_array(1)
}

/// A value fits as it would in an INSERT: text is read as the type, a number may lose nothing.
fn fits(column: &Column, value: &ArrayRef) -> Result<(), SqlError> {
    let mismatch = || {
        let message = format!(
            "DEFAULT of column \"{}\" is no value of type {}",
            printable(&column.name),
            column_type_name(column)
        );
        SqlError::new(ErrorCode::DatatypeMismatch, message)
    };
    let target = &column.data_type;
    let from = value.data_type();
    let is_text = matches!(from, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8);
    let array = if is_text || from.is_temporal() || target.is_nested() {
        let strict = arrow::compute::CastOptions { safe: false, ..Default::default() };
        arrow::compute::cast_with_options(value, target, &strict).map_err(|_| mismatch())?
    } else {
        checked_cast_column(&column.name, value, target).map_err(|_| mismatch())?
    };
    if !column.nullable && array.null_count() > 0 {
        let message = format!(
            "DEFAULT of column \"{}\" is NULL and the column is NOT NULL",
            printable(&column.name)
        );
        return Err(SqlError::new(ErrorCode::NotNullViolation, message));
    }
    crate::row_checks::check_length(column, &array).map_err(|_| mismatch())
}
