//! DataFusion's sentences about types, in the words of SQL.

/// Arrow's names of types in messages, and what users call them.
const TYPES: [(&str, &str); 17] = [
    ("Boolean", "BOOLEAN"),
    ("Int8", "TINYINT"),
    ("Int16", "SMALLINT"),
    ("Int32", "INTEGER"),
    ("Int64", "BIGINT"),
    ("UInt8", "TINYINT UNSIGNED"),
    ("UInt16", "SMALLINT UNSIGNED"),
    ("UInt32", "INTEGER UNSIGNED"),
    ("UInt64", "BIGINT UNSIGNED"),
    ("Float32", "REAL"),
    ("Float64", "DOUBLE"),
    ("Utf8", "VARCHAR"),
    ("Utf8View", "VARCHAR"),
    ("LargeUtf8", "VARCHAR"),
    ("Binary", "BYTEA"),
    ("BinaryView", "BYTEA"),
    ("Date32", "DATE"),
];

/// The text with the names of types as SQL has them. What stands in quotes is the user's own, and
/// a name before a parenthesis is part of an expression (`Int64(1)`): both stay.
pub(super) fn with_sql_types(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = opening_quote(rest) {
        let (before, quoted) = rest.split_at(open);
        let end = quoted[1..].find('\'').map_or(quoted.len(), |close| close + 2);
        let (quoted, after) = quoted.split_at(end);
        shown.push_str(&renamed(before));
        shown.push_str(quoted);
        rest = after;
    }
    shown + &renamed(rest)
}

/// Where a quoted part begins; the apostrophe of "can't" begins none.
fn opening_quote(text: &str) -> Option<usize> {
    let mut quotes = text.match_indices('\'').map(|(at, _)| at);
    quotes.find(|at| !text[..*at].ends_with(char::is_alphanumeric))
}

fn renamed(text: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_name) {
        let (before, from) = rest.split_at(start);
        let (word, after) = from.split_at(from.find(|c| !is_name(c)).unwrap_or(from.len()));
        let known = TYPES.iter().find(|(arrow, _)| *arrow == word && !after.starts_with('('));
        shown.push_str(before);
        shown.push_str(known.map_or(word, |(_, sql)| sql));
        rest = after;
    }
    shown + rest
}

/// Message and hint for a call whose arguments fit no signature of the function, from DataFusion's
/// list of everything that it tried.
pub(super) fn no_signature(text: &str) -> Option<(String, String)> {
    let (head, tried) = text.split_once(" failed to match any signature, errors:")?;
    let name = head.rsplit_once('\'')?.0.rsplit_once('\'')?.1;
    let mut wanted: Vec<&str> = vec![];
    let mut given = None;
    for attempt in tried.split("' requires ").skip(1) {
        let (want, but) = attempt.split_once(", but received ")?;
        given = but.split_once("(DataType: ").and_then(|(_, of)| of.split_once(')')).or(given);
        if !wanted.contains(&want) {
            wanted.push(want);
        }
    }
    let given = with_sql_types(given?.0);
    let wanted = with_sql_types(&wanted.join(", "));
    let message = format!("function \"{name}\" does not take an argument of type {given}");
    Some((message, format!("it takes {wanted}: cast the argument")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_their_sql_names_but_not_inside_quotes_and_expressions() {
        assert_eq!(
            with_sql_types("can't cast 'Int32' in Int64(1) of Utf8View to Boolean"),
            "can't cast 'Int32' in Int64(1) of VARCHAR to BOOLEAN"
        );
    }

    #[test]
    fn a_call_that_fits_no_signature_names_what_would() {
        let text = "Function 'sum' failed to match any signature, errors: Error during planning: \
                    Function 'sum' requires Int64, but received String (DataType: Utf8View).,\
                    Error during planning: Function 'sum' requires Float64, but received String \
                    (DataType: Utf8View).";
        let (message, hint) = no_signature(text).unwrap();
        assert_eq!(message, "function \"sum\" does not take an argument of type VARCHAR");
        assert_eq!(hint, "it takes BIGINT, DOUBLE: cast the argument");
        assert_eq!(no_signature("something else"), None);
    }
}
