//! Rows of several values that are compared.
//!
//! | written | becomes |
//! |---|---|
//! | `(a, b) = (1, 2)` | `a = 1 AND b = 2` |
//! | `(a, b) < (1, 2)` | `a < 1 OR a = 1 AND b < 2` |
//! | `(a, b) IN ((1, 2), (3, 4))` | `a = 1 AND b = 2 OR a = 3 AND b = 4` |
//! | `(a, b) IN (SELECT ...)` | `compare_rows('= ANY', a, b, EXISTS (SELECT ...))` |
//!
//! To DataFusion these are values of type STRUCT, which are equal or not, but never NULL: a row with a
//! NULL is. Subqueries of several columns it does not take in the place of a value; `compare_rows` is
//! made a subquery again once names are known (`subqueries::RowComparisons`).
//!
//! Not here: a row that is compared to one value, which may be a STRUCT.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, ObjectName, ObjectNamePart, Parens, Query, SetExpr, Spanned,
    UnaryOperator, Value, Values, Visit, Visitor,
};

use super::query::call;
use super::repeated;
use super::syntax::position_of;
use crate::error::{ErrorCode, SqlError};
use crate::subqueries::{ANY, COMPARE_ROWS};

/// Rows of a list of constants that are compared one by one. Longer ones are joined.
const WRITTEN_OUT_MAX: usize = 32;

/// Parts of expressions that one statement's comparisons may say again: rows within rows double them.
const REPEATED_MAX: usize = 100_000;

/// Functions with another value each time that they are computed.
const VOLATILE: [&str; 2] = ["random", "uuid"];

/// Writes out a comparison of rows.
///
/// `repeated` counts the parts of the statement that are said again.
///
/// # Errors
/// Rows of different lengths, and expressions that cannot be said several times.
pub(super) fn write_out(expr: &mut Expr, repeated: &mut usize) -> Result<(), SqlError> {
    match written_out(expr, repeated) {
        Ok(None) => Ok(()),
        Ok(Some(written)) => {
            *expr = nested(written);
            Ok(())
        }
        Err(error) => Err(SqlError { position: position_of(expr.span()), ..error }),
    }
}

fn written_out(expr: &Expr, repeated: &mut usize) -> Result<Option<Expr>, SqlError> {
    use Expr::{Subquery, Tuple};
    match expr {
        Expr::BinaryOp { left, op, right } => match (left.as_ref(), right.as_ref()) {
            (Tuple(left), Tuple(right)) => compared(left, op, right, repeated),
            (Tuple(row), Subquery(query)) => Ok(of_query(row, op, query, "")),
            (Subquery(query), Tuple(row)) => {
                Ok(mirrored(op).and_then(|op| of_query(row, &op, query, "")))
            }
            _ => Ok(None),
        },
        Expr::IsDistinctFrom(left, right) => match (left.as_ref(), right.as_ref()) {
            (Tuple(left), Tuple(right)) => {
                distinct(left, right, Expr::IsDistinctFrom, &BinaryOperator::Or)
            }
            _ => Ok(None),
        },
        Expr::IsNotDistinctFrom(left, right) => match (left.as_ref(), right.as_ref()) {
            (Tuple(left), Tuple(right)) => {
                distinct(left, right, Expr::IsNotDistinctFrom, &BinaryOperator::And)
            }
            _ => Ok(None),
        },
        Expr::Between { expr, negated, low, high } => {
            match (expr.as_ref(), low.as_ref(), high.as_ref()) {
                (Tuple(row), Tuple(low), Tuple(high)) => {
                    Ok(between(row, low, high, repeated)?.map(|between| not(between, *negated)))
                }
                _ => Ok(None),
            }
        }
        Expr::InList { expr, list, negated } => match expr.as_ref() {
            Tuple(row) => Ok(in_list(row, list, repeated)?.map(|found| not(found, *negated))),
            _ => Ok(None),
        },
        Expr::InSubquery { expr, subquery, negated } => match expr.as_ref() {
            Tuple(row) => {
                let found = of_query(row, &BinaryOperator::Eq, subquery, ANY);
                Ok(found.map(|found| not(found, *negated)))
            }
            _ => Ok(None),
        },
        Expr::AnyOp { left, compare_op, right, .. } => match (left.as_ref(), right.as_ref()) {
            (Tuple(row), Subquery(query)) => Ok(of_query(row, compare_op, query, ANY)),
            _ => Ok(None),
        },
        Expr::AllOp { left, compare_op, right } => match (left.as_ref(), right.as_ref()) {
            (Tuple(row), Subquery(query)) => {
                // It is of all rows, if the opposite is of none.
                let any = opposite(compare_op).and_then(|op| of_query(row, &op, query, ANY));
                Ok(any.map(|any| not(any, true)))
            }
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

/// Two rows, compared; `None` by an operator that is none for rows.
fn compared(
    left: &[Expr],
    op: &BinaryOperator,
    right: &[Expr],
    repeated: &mut usize,
) -> Result<Option<Expr>, SqlError> {
    use BinaryOperator as Op;
    let pairs = pairs(left, right)?;
    let mut of_pairs = |joined: Op| {
        let parts = pairs.iter().map(|(left, right)| compared_values(left, op, right, repeated));
        Ok(joined_by(&joined, parts.collect::<Result<_, SqlError>>()?))
    };
    let strict = match op {
        Op::Eq => return of_pairs(Op::And),
        Op::NotEq => return of_pairs(Op::Or),
        Op::Lt | Op::LtEq => Op::Lt,
        Op::Gt | Op::GtEq => Op::Gt,
        _ => return Ok(None),
    };
    check_repeatable(left.iter().chain(right), 2, repeated)?;
    let mut pairs = pairs.into_iter().rev();
    let Some((left, right)) = pairs.next() else { return Ok(None) };
    let mut rest = compared_values(left, op, right, repeated)?;
    for (left, right) in pairs {
        let equal = compared_values(left, &Op::Eq, right, repeated)?;
        rest = binary(equal, Op::And, rest);
        rest = binary(compared_values(left, &strict, right, repeated)?, Op::Or, rest);
    }
    Ok(Some(rest))
}

/// Two values of rows, which may be rows.
fn compared_values(
    left: &Expr,
    op: &BinaryOperator,
    right: &Expr,
    repeated: &mut usize,
) -> Result<Expr, SqlError> {
    if let (Expr::Tuple(left), Expr::Tuple(right)) = (left, right)
        && let Some(compared) = compared(left, op, right, repeated)?
    {
        return Ok(compared);
    }
    Ok(binary(left.clone(), op.clone(), right.clone()))
}

/// `IS [NOT] DISTINCT FROM` of rows.
fn distinct(
    left: &[Expr],
    right: &[Expr],
    of_values: fn(Box<Expr>, Box<Expr>) -> Expr,
    joined: &BinaryOperator,
) -> Result<Option<Expr>, SqlError> {
    let parts = pairs(left, right)?.into_iter().map(|(left, right)| match (left, right) {
        (Expr::Tuple(left), Expr::Tuple(right)) => distinct(left, right, of_values, joined),
        _ => Ok(Some(of_values(Box::new(nested(left.clone())), Box::new(nested(right.clone()))))),
    });
    let parts = parts.collect::<Result<Option<Vec<_>>, _>>()?;
    Ok(parts.and_then(|parts| joined_by(joined, parts)))
}

fn between(
    row: &[Expr],
    low: &[Expr],
    high: &[Expr],
    repeated: &mut usize,
) -> Result<Option<Expr>, SqlError> {
    check_repeatable(row, 2, repeated)?;
    let low = compared(row, &BinaryOperator::GtEq, low, repeated)?;
    let high = compared(row, &BinaryOperator::LtEq, high, repeated)?;
    Ok(low.zip(high).map(|(low, high)| binary(low, BinaryOperator::And, high)))
}

/// A row in a list of rows; `None` of a list that has others.
fn in_list(row: &[Expr], list: &[Expr], repeated: &mut usize) -> Result<Option<Expr>, SqlError> {
    let rows: Option<Vec<_>> = list
        .iter()
        .map(|item| match item {
            Expr::Tuple(values) => Some(values.as_slice()),
            _ => None,
        })
        .collect();
    let Some(rows) = rows else { return Ok(None) };
    for other in &rows {
        pairs(row, other)?;
    }
    if rows.len() > WRITTEN_OUT_MAX && rows.iter().all(|row| row.iter().all(is_constant)) {
        let rows = rows.into_iter().map(|row| Parens::with_empty_span(row.to_vec()));
        let values = Values { explicit_row: false, value_keyword: false, rows: rows.collect() };
        let query = query_of(values);
        return Ok(of_query(row, &BinaryOperator::Eq, &query, ANY));
    }
    check_repeatable(row, rows.len(), repeated)?;
    let parts = rows.into_iter().map(|other| compared(row, &BinaryOperator::Eq, other, repeated));
    let parts = parts.collect::<Result<Option<Vec<_>>, _>>()?;
    Ok(parts.and_then(|parts| joined_by(&BinaryOperator::Or, parts)))
}

/// A row compared to those of a query; `None` by an operator that is none for rows.
fn of_query(row: &[Expr], op: &BinaryOperator, query: &Query, quantifier: &str) -> Option<Expr> {
    // Only operators of rows have a mirror.
    mirrored(op)?;
    let how = Value::SingleQuotedString(format!("{op}{quantifier}")).with_empty_span();
    // Its columns are taken by their places: nothing means their names.
    let mut query = query.clone();
    repeated::tell_apart(&mut query);
    let exists = Expr::Exists { subquery: Box::new(query), negated: false };
    let arguments = [Expr::Value(how)].into_iter().chain(row.iter().cloned()).chain([exists]);
    Some(call(COMPARE_ROWS, arguments.collect()))
}

/// The operator with its sides exchanged; `None` if it is none for rows.
fn mirrored(op: &BinaryOperator) -> Option<BinaryOperator> {
    use BinaryOperator as Op;
    Some(match op {
        Op::Eq => Op::Eq,
        Op::NotEq => Op::NotEq,
        Op::Lt => Op::Gt,
        Op::LtEq => Op::GtEq,
        Op::Gt => Op::Lt,
        Op::GtEq => Op::LtEq,
        _ => return None,
    })
}

/// The operator that is true where this one is false.
fn opposite(op: &BinaryOperator) -> Option<BinaryOperator> {
    use BinaryOperator as Op;
    Some(match op {
        Op::Eq => Op::NotEq,
        Op::NotEq => Op::Eq,
        Op::Lt => Op::GtEq,
        Op::LtEq => Op::Gt,
        Op::Gt => Op::LtEq,
        Op::GtEq => Op::Lt,
        _ => return None,
    })
}

fn pairs<'a>(left: &'a [Expr], right: &'a [Expr]) -> Result<Vec<(&'a Expr, &'a Expr)>, SqlError> {
    match left.len() == right.len() {
        true => Ok(left.iter().zip(right).collect()),
        false => Err(invalid(format!(
            "a row of {} values is compared to one of {}",
            left.len(),
            right.len()
        ))),
    }
}

fn invalid(message: String) -> SqlError {
    SqlError::new(ErrorCode::InvalidStatement, message)
}

/// Refuses expressions that cannot stand in a statement so many times.
fn check_repeatable<'a>(
    values: impl IntoIterator<Item = &'a Expr>,
    times: usize,
    repeated: &mut usize,
) -> Result<(), SqlError> {
    if times < 2 {
        return Ok(());
    }
    let mut parts = Parts::default();
    let is_volatile = values.into_iter().any(|value| value.visit(&mut parts).is_break());
    *repeated = repeated.saturating_add(parts.count.saturating_mul(times - 1));
    let what = match is_volatile {
        true => "a comparison of rows with random values",
        false if *repeated > REPEATED_MAX => "a comparison of so many rows, or of such long ones,",
        false => return Ok(()),
    };
    let error = SqlError::new(ErrorCode::FeatureNotSupported, format!("{what} is not supported"));
    Err(error.with_hint("compute the values in a subquery, and compare its columns"))
}

/// Counts the parts of expressions, and stops at a function that is volatile.
#[derive(Default)]
struct Parts {
    count: usize,
}

impl Visitor for Parts {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        self.count += 1;
        match expr {
            Expr::Function(function) if is_volatile(&function.name) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_relation(&mut self, _: &ObjectName) -> ControlFlow<()> {
        self.count += 1;
        ControlFlow::Continue(())
    }
}

fn is_volatile(function: &ObjectName) -> bool {
    let Some(ObjectNamePart::Identifier(name)) = function.0.last() else { return false };
    VOLATILE.iter().any(|volatile| name.value.eq_ignore_ascii_case(volatile))
}

/// Whether an expression is a value that has one type wherever it stands. A number with a point is a
/// decimal beside one.
fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.parse::<i64>().is_ok(),
            Value::SingleQuotedString(_) | Value::Boolean(_) | Value::Null => true,
            _ => false,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => {
            matches!(expr.as_ref(), Expr::Value(_)) && is_constant(expr)
        }
        _ => false,
    }
}

fn query_of(values: Values) -> Query {
    Query {
        with: None,
        body: Box::new(SetExpr::Values(values)),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: vec![],
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: vec![],
    }
}

fn nested(expr: Expr) -> Expr {
    match expr {
        simple @ (Expr::Nested(_) | Expr::Identifier(_) | Expr::Value(_)) => simple,
        other => Expr::Nested(Box::new(other)),
    }
}

fn not(expr: Expr, negated: bool) -> Expr {
    match negated {
        true => Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(nested(expr)) },
        false => expr,
    }
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(nested(left)), op, right: Box::new(nested(right)) }
}

/// Parts joined by AND or OR, no deeper than needed.
fn joined_by(op: &BinaryOperator, mut parts: Vec<Expr>) -> Option<Expr> {
    if parts.len() <= 1 {
        return parts.pop();
    }
    let right = parts.split_off(parts.len() / 2);
    let left = joined_by(op, parts)?;
    Some(binary(left, op.clone(), joined_by(op, right)?))
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn rewritten(text: &str) -> Result<String, SqlError> {
        let parser = Parser::new(&PostgreSqlDialect {});
        let mut expr = parser.try_with_sql(text).unwrap().parse_expr().unwrap();
        write_out(&mut expr, &mut 0)?;
        Ok(expr.to_string())
    }

    #[test]
    fn rows_are_compared_by_the_first_values_that_differ() {
        for (text, expected) in [
            ("(a, b) = (1, 2)", "((a = 1) AND (b = 2))"),
            ("(a, b) <> (1, 2)", "((a <> 1) OR (b <> 2))"),
            ("(a, b) <= (1, 2)", "((a < 1) OR ((a = 1) AND (b <= 2)))"),
            ("(a, (b, c)) = (1, (2, 3))", "((a = 1) AND ((b = 2) AND (c = 3)))"),
            (
                "(a, b) IS DISTINCT FROM (1, 2)",
                "((a IS DISTINCT FROM 1) OR (b IS DISTINCT FROM 2))",
            ),
            ("(a, b) NOT IN ((1, 2))", "(NOT ((a = 1) AND (b = 2)))"),
            ("(a, b) IN (SELECT 1, 2)", "(compare_rows('= ANY', a, b, EXISTS (SELECT 1, 2)))"),
            (
                "(a, b) < ALL (SELECT 1, 2)",
                "(NOT (compare_rows('>= ANY', a, b, EXISTS (SELECT 1, 2))))",
            ),
            ("(SELECT 1, 2) < (a, b)", "(compare_rows('>', a, b, EXISTS (SELECT 1, 2)))"),
            ("(a, b) = c", "(a, b) = c"),
        ] {
            assert_eq!(rewritten(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_said_several_times_is_refused() {
        let long = format!("(a, b) IN ({})", vec!["(c, 2)"; 100_000].join(", "));
        for text in ["(random(), a) < (1, 2)", "(a, b) = (1, 2, 3)", &long] {
            assert!(rewritten(text).is_err(), "{text}");
        }
        let constants = format!("(a, b) IN ({})", vec!["(1, 2)"; 10_000].join(", "));
        assert!(rewritten(&constants).unwrap().starts_with("(compare_rows("));
    }
}
