//! `SIMILAR TO` as SQL means it: the pattern is of the whole text, `%` is any text and `_` any character.
//!
//! DataFusion takes the pattern for a regular expression that matches anywhere: `'abc' SIMILAR TO 'a%'` is
//! false there and `'abc' SIMILAR TO 'b'` true. So a pattern that is written out becomes the regular
//! expression that it means (SQL:2016, 8.6; PostgreSQL's `similar_to_escape` has the same rules).

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Value};

/// Rewrites a `SIMILAR TO`. An error's text when its pattern is not known.
pub(super) fn mean_sql(expr: &mut Expr) -> Result<(), &'static str> {
    let Expr::SimilarTo { negated, expr: text, pattern, escape_char } = expr else { return Ok(()) };
    let Expr::Value(value) = pattern.as_mut() else {
        return Err("SIMILAR TO with a pattern that is not a text");
    };
    let escape = match escape_char.as_ref().map(|escape| &escape.value) {
        None => Some('\\'),
        Some(Value::SingleQuotedString(escape)) => escape.chars().next(),
        Some(_) => return Err("SIMILAR TO with an ESCAPE that is not a text"),
    };
    match &mut value.value {
        Value::SingleQuotedString(pattern) => *pattern = regular_expression(pattern, escape),
        Value::Null => {}
        _ => return Err("SIMILAR TO with a pattern that is not a text"),
    }
    let op = match negated {
        false => BinaryOperator::PGRegexMatch,
        true => BinaryOperator::PGRegexNotMatch,
    };
    let null = || Expr::Value(Value::Null.with_empty_span());
    let left = Box::new(std::mem::replace(text.as_mut(), null()));
    let right = Box::new(std::mem::replace(pattern.as_mut(), null()));
    *expr = Expr::Nested(Box::new(Expr::BinaryOp { left, op, right }));
    Ok(())
}

/// The regular expression of a pattern.
fn regular_expression(pattern: &str, escape: Option<char>) -> String {
    const SPECIAL: &str = r".^$\#&-~";
    let mut regex = String::from("^(?s:");
    let mut characters = pattern.chars();
    let mut in_brackets = false;
    while let Some(character) = characters.next() {
        match character {
            _ if Some(character) == escape => {
                if let Some(literal) = characters.next() {
                    if !literal.is_alphanumeric() && literal.is_ascii() {
                        regex.push('\\');
                    }
                    regex.push(literal);
                }
            }
            '[' if !in_brackets => {
                in_brackets = true;
                regex.push('[');
            }
            ']' => {
                in_brackets = false;
                regex.push(']');
            }
            // `[[:alpha:]_]`: the class has a bracket of its own.
            '[' if characters.clone().next() == Some(':') => {
                regex.push('[');
                let mut last = '[';
                for other in characters.by_ref() {
                    regex.push(other);
                    if other == ']' && last == ':' {
                        break;
                    }
                    last = other;
                }
            }
            other if in_brackets => regex.push(other),
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            '(' => regex.push_str("(?:"),
            other => {
                if SPECIAL.contains(other) {
                    regex.push('\\');
                }
                regex.push(other);
            }
        }
    }
    regex.push_str(")$");
    regex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_of_the_whole_text() {
        for (pattern, expected) in [
            ("a%", "^(?s:a.*)$"),
            ("_b_", "^(?s:.b.)$"),
            ("a(b|c)*", "^(?s:a(?:b|c)*)$"),
            ("[a-c]+.x", r"^(?s:[a-c]+\.x)$"),
            ("[[:alpha:]_]%", "^(?s:[[:alpha:]_].*)$"),
            (r"100\%", r"^(?s:100\%)$"),
            ("a|b", "^(?s:a|b)$"),
        ] {
            assert_eq!(regular_expression(pattern, Some('\\')), expected, "{pattern}");
        }
    }
}
