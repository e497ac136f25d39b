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
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName,
    ObjectNamePart, Parens, Query, SetExpr, Spanned, UnaryOperator, Value, Values, Visit, Visitor,
};

use super::query::call;
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
    operands(expr).into_iter().for_each(bare_row);
    match written_out(expr, repeated) {
        Ok(None) => Ok(()),
        Ok(Some(written)) => {
            *expr = nested(written);
            Ok(())
        }
        Err(error) => Err(SqlError { position: position_of(expr.span()), ..error }),
    }
}

/// What a comparison compares.
fn operands(expr: &mut Expr) -> Vec<&mut Expr> {
    match expr {
        Expr::BinaryOp { left, right, .. }
        | Expr::IsDistinctFrom(left, right)
        | Expr::IsNotDistinctFrom(left, right)
        | Expr::AnyOp { left, right, .. }
        | Expr::AllOp { left, right, .. } => vec![left, right],
        Expr::Between { expr, low, high, .. } => vec![expr, low, high],
        Expr::InList { expr, list, .. } => std::iter::once(&mut **expr).chain(list).collect(),
        Expr::InSubquery { expr, .. } => vec![expr],
        _ => vec![],
    }
}

/// Takes what else stands for a row off it: further brackets, and `ROW`.
fn bare_row(expr: &mut Expr) {
    let values = match expr {
        Expr::Nested(inner) => {
            bare_row(inner);
            match inner.as_mut() {
                Expr::Tuple(values) => std::mem::take(values),
                _ => return,
            }
        }
        Expr::Function(function) => match row_arguments(function) {
            Some(values) => values,
            None => return,
        },
        Expr::Tuple(values) => std::mem::take(values),
        _ => return,
    };
    let mut values = values;
    values.iter_mut().for_each(bare_row);
    *expr = Expr::Tuple(values);
}

/// The values of `ROW(a, b)`.
fn row_arguments(function: &Function) -> Option<Vec<Expr>> {
    let [ObjectNamePart::Identifier(name)] = function.name.0.as_slice() else { return None };
    let is_row = name.quote_style.is_none() && name.value.eq_ignore_ascii_case("row");
    let FunctionArguments::List(list) = &function.args else { return None };
    let is_plain = function.over.is_none()
        && function.filter.is_none()
        && list.duplicate_treatment.is_none()
        && list.clauses.is_empty();
    if !is_row || !is_plain {
        return None;
    }
    let values = list.args.iter().map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Some(value.clone()),
        _ => None,
    });
    values.collect()
}

fn written_out(expr: &Expr, repeated: &mut usize) -> Result<Option<Expr>, SqlError> {
    use Expr::{Subquery, Tuple};
    match expr {
        Expr::BinaryOp { left, op, right } => match (left.as_ref(), right.as_ref()) {
            (Tuple(left), Tuple(right)) => compared(left, op, right, repeated),
            (Tuple(row), Subquery(query)) => of_query(row, op, query, "", repeated),
            (Subquery(query), Tuple(row)) => match mirrored(op) {
                Some(op) => of_query(row, &op, query, "", repeated),
                None => Ok(None),
            },
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
                let found = of_query(row, &BinaryOperator::Eq, subquery, ANY, repeated)?;
                Ok(found.map(|found| not(found, *negated)))
            }
            _ => Ok(None),
        },
        Expr::AnyOp { left, compare_op, right, .. } => match (left.as_ref(), right.as_ref()) {
            (Tuple(row), Subquery(query)) => of_query(row, compare_op, query, ANY, repeated),
            _ => Ok(None),
        },
        Expr::AllOp { left, compare_op, right } => match (left.as_ref(), right.as_ref()) {
            (Tuple(row), Subquery(query)) => {
                // It is of all rows, if the opposite is of none.
                let Some(op) = opposite(compare_op) else { return Ok(None) };
                let any = of_query(row, &op, query, ANY, repeated)?;
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
    if rows.len() > WRITTEN_OUT_MAX && are_of_one_kind(&rows) {
        let rows = rows.into_iter().map(|row| Parens::with_empty_span(row.to_vec()));
        let values = Values { explicit_row: false, value_keyword: false, rows: rows.collect() };
        let query = query_of(values);
        return of_query(row, &BinaryOperator::Eq, &query, ANY, repeated);
    }
    check_repeatable(row, rows.len(), repeated)?;
    let parts = rows.into_iter().map(|other| compared(row, &BinaryOperator::Eq, other, repeated));
    let parts = parts.collect::<Result<Option<Vec<_>>, _>>()?;
    Ok(parts.and_then(|parts| joined_by(&BinaryOperator::Or, parts)))
}

/// A row compared to those of a query, whose values are said twice: whether it is, and whether that is not known.
/// `None` by an operator that is none for rows.
fn of_query(
    row: &[Expr],
    op: &BinaryOperator,
    query: &Query,
    quantifier: &str,
    repeated: &mut usize,
) -> Result<Option<Expr>, SqlError> {
    // Only operators of rows have a mirror.
    if mirrored(op).is_none() {
        return Ok(None);
    }
    check_repeatable(row, 2, repeated)?;
    let how = Value::SingleQuotedString(format!("{op}{quantifier}")).with_empty_span();
    // Its columns are taken by their places: nothing means their names.
    let mut query = query.clone();
    super::repeated::tell_apart(&mut query);
    let exists = Expr::Exists { subquery: Box::new(query), negated: false };
    let arguments = [Expr::Value(how)].into_iter().chain(row.iter().cloned()).chain([exists]);
    Ok(Some(call(COMPARE_ROWS, arguments.collect())))
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

/// What type a constant has wherever it stands beside others of its kind.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Integer,
    Text,
    Boolean,
    /// Of any type.
    Null,
}

/// Whether rows have constants of one kind in each place: VALUES makes one type of a column, where each pair of
/// values that are compared has its own.
fn are_of_one_kind(rows: &[&[Expr]]) -> bool {
    let Some(first) = rows.first() else { return false };
    let mut kinds = vec![Kind::Null; first.len()];
    rows.iter().all(|row| {
        row.iter().zip(&mut kinds).all(|(value, kind)| match kind_of(value) {
            None => false,
            Some(Kind::Null) => true,
            Some(own) if *kind == Kind::Null => {
                *kind = own;
                true
            }
            Some(own) => own == *kind,
        })
    })
}

/// The kind of a constant. A number with a point is none: it is a decimal beside one.
fn kind_of(expr: &Expr) -> Option<Kind> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.parse::<i64>().ok().map(|_| Kind::Integer),
            Value::SingleQuotedString(_) => Some(Kind::Text),
            Value::Boolean(_) => Some(Kind::Boolean),
            Value::Null => Some(Kind::Null),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } if matches!(**expr, Expr::Value(_)) => {
            kind_of(expr).filter(|kind| *kind == Kind::Integer)
        }
        _ => None,
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
