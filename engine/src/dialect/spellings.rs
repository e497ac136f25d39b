//! Standard SQL that DataFusion does not read, in words that it does.
//!
//! | written | becomes |
//! |---|---|
//! | `FETCH FIRST n ROWS ONLY` | `LIMIT n` |
//! | `x LIKE 'a!%' ESCAPE '!'` | the pattern with `\` |
//! | `mod(a, b)` | `(a) % (b)` |
//! | `- row_number() OVER ()` | that of a BIGINT: those functions give numbers without a sign |
//! | `TIMESTAMP '2020-01-31 10:00'` | the time with seconds |
//! | `[a, b]` | `make_array(a, b)`, which knows columns of the query around |

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType as SqlType, Expr, Fetch, Function, FunctionArg,
    FunctionArgExpr, FunctionArguments, LimitClause, Query, TypedString, UnaryOperator, Value,
};

use super::query::call;

/// Window functions that count from one.
const COUNTING: [&str; 4] = ["row_number", "rank", "dense_rank", "ntile"];

/// Makes FETCH a LIMIT. WITH TIES and PERCENT are left for DataFusion to refuse.
pub(super) fn fetch_as_limit(query: &mut Query) {
    let Some(Fetch { with_ties: false, percent: false, quantity }) = &query.fetch else { return };
    let rows = quantity.clone().unwrap_or_else(|| number("1"));
    match &mut query.limit_clause {
        None => {
            let limit =
                LimitClause::LimitOffset { limit: Some(rows), offset: None, limit_by: Vec::new() };
            query.limit_clause = Some(limit);
        }
        Some(LimitClause::LimitOffset { limit: limit @ None, limit_by, .. })
            if limit_by.is_empty() =>
        {
            *limit = Some(rows);
        }
        Some(_) => return,
    }
    query.fetch = None;
}

/// Rewrites an expression. An error's text when it has a form that has no other words.
pub(super) fn reword(expr: &mut Expr) -> Result<(), &'static str> {
    match expr {
        Expr::Like { .. } | Expr::ILike { .. } => escape_by_backslash(expr),
        Expr::Function(function) => {
            if let Some(remainder) = remainder(function) {
                *expr = remainder;
            }
            Ok(())
        }
        Expr::UnaryOp { op: UnaryOperator::Minus, expr: operand } => {
            if is_counting(operand) {
                with_sign(operand);
            }
            Ok(())
        }
        Expr::TypedString(TypedString { data_type, value, .. }) if is_timestamp(data_type) => {
            with_seconds(&mut value.value);
            Ok(())
        }
        Expr::Cast { data_type, expr: operand, .. } if is_timestamp(data_type) => {
            if let Expr::Value(value) = operand.as_mut() {
                with_seconds(&mut value.value);
            }
            Ok(())
        }
        Expr::Array(array) if !array.elem.is_empty() => {
            *expr = call("make_array", std::mem::take(&mut array.elem));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A number as it is written.
pub(super) fn number(digits: &str) -> Expr {
    Expr::Value(Value::Number(digits.to_owned(), false).with_empty_span())
}

fn escape_by_backslash(expr: &mut Expr) -> Result<(), &'static str> {
    let (Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. }) = expr
    else {
        return Ok(());
    };
    let Some(escape) = escape_char else { return Ok(()) };
    let Value::SingleQuotedString(escape) = &escape.value else { return Ok(()) };
    let mut characters = escape.chars();
    let escape = match (characters.next(), characters.next()) {
        (Some('\\'), None) => return Ok(()),
        (escape, None) => escape,
        (_, Some(_)) => return Ok(()),
    };
    let Expr::Value(pattern) = pattern.as_mut() else {
        return Err("ESCAPE of a pattern that is not written out");
    };
    if let Value::SingleQuotedString(pattern) = &mut pattern.value {
        *pattern = by_backslash(pattern, escape).ok_or("a pattern that ends with its ESCAPE")?;
    }
    *escape_char = None;
    Ok(())
}

/// A pattern with another escape, or with none.
fn by_backslash(pattern: &str, escape: Option<char>) -> Option<String> {
    let mut escaped = String::with_capacity(pattern.len());
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        let literal = match Some(character) == escape {
            true => characters.next()?,
            false if matches!(character, '%' | '_') => {
                escaped.push(character);
                continue;
            }
            false => character,
        };
        if matches!(literal, '%' | '_' | '\\') {
            escaped.push('\\');
        }
        escaped.push(literal);
    }
    Some(escaped)
}

/// `mod(a, b)` as an operator.
fn remainder(function: &Function) -> Option<Expr> {
    if !is_named(function, &["mod"]) || function.over.is_some() {
        return None;
    }
    let FunctionArguments::List(list) = &function.args else { return None };
    let [
        FunctionArg::Unnamed(FunctionArgExpr::Expr(left)),
        FunctionArg::Unnamed(FunctionArgExpr::Expr(right)),
    ] = list.args.as_slice()
    else {
        return None;
    };
    let nested = |expr: &Expr| Box::new(Expr::Nested(Box::new(expr.clone())));
    let (left, right) = (nested(left), nested(right));
    let operator = Expr::BinaryOp { left, op: BinaryOperator::Modulo, right };
    Some(Expr::Nested(Box::new(operator)))
}

fn is_named(function: &Function, names: &[&str]) -> bool {
    match function.name.0.as_slice() {
        [part] => part.as_ident().is_some_and(|name| {
            name.quote_style.is_none() && names.iter().any(|n| name.value.eq_ignore_ascii_case(n))
        }),
        _ => false,
    }
}

fn is_counting(expr: &Expr) -> bool {
    match expr {
        Expr::Function(function) => function.over.is_some() && is_named(function, &COUNTING),
        Expr::Nested(expr) => is_counting(expr),
        _ => false,
    }
}

fn with_sign(operand: &mut Expr) {
    let null = Expr::Value(Value::Null.with_empty_span());
    let number = Box::new(std::mem::replace(operand, null));
    *operand = Expr::Cast {
        kind: CastKind::Cast,
        expr: number,
        data_type: SqlType::BigInt(None),
        array: false,
        format: None,
    };
}

fn is_timestamp(data_type: &SqlType) -> bool {
    matches!(data_type, SqlType::Timestamp(..) | SqlType::TimestampNtz(_) | SqlType::Datetime(_))
}

/// `2020-01-31 10:00` as `2020-01-31 10:00:00`, with what zone it may have.
fn with_seconds(value: &mut Value) {
    const SHAPE: &[u8] = b"0000-00-00 00:00";
    let Value::SingleQuotedString(text) = value else { return };
    let bytes = text.as_bytes();
    let is_of_shape = bytes.len() >= SHAPE.len()
        && bytes.iter().zip(SHAPE).all(|(byte, shape)| match shape {
            b'0' => byte.is_ascii_digit(),
            b' ' => matches!(byte, b' ' | b'T'),
            other => byte == other,
        });
    let is_end = |byte: &u8| matches!(byte, b'+' | b'-' | b'Z' | b'z' | b' ');
    if is_of_shape && bytes.get(SHAPE.len()).is_none_or(is_end) {
        text.insert_str(SHAPE.len(), ":00");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escape_of_ones_own_leaves_the_backslash_to_itself() {
        for (pattern, escape, expected) in [
            ("a!_b", Some('!'), Some(r"a\_b")),
            ("50!%%", Some('!'), Some(r"50\%%")),
            (r"a\b!!", Some('!'), Some(r"a\\b!")),
            (r"a\_", None, Some(r"a\\_")),
            ("a%%%_", Some('%'), Some(r"a\%\_")),
            ("!a", Some('!'), Some("a")),
            ("a!", Some('!'), None),
        ] {
            assert_eq!(by_backslash(pattern, escape).as_deref(), expected, "{pattern}");
        }
    }
}
