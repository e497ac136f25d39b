//! Whether two engines gave the same for one record, whatever the file says.
//!
//! Two errors agree, whatever their words. Rows are compared as text: in their order if the
//! record sorts them or its SQL orders them, else as a multiset.

use sqllogictest::{Record, RecordOutput};

use super::engine::SltType;
use super::source;

/// Rows of a difference that are shown of each side.
const ROWS_SHOWN_MAX: usize = 20;

/// Compares; an error is the difference as a text for people.
pub(super) fn compare(
    record: &Record<SltType>,
    ours: &RecordOutput<SltType>,
    theirs: &RecordOutput<SltType>,
) -> Result<(), String> {
    match (Given::of(ours), Given::of(theirs)) {
        (Given::Error(_), Given::Error(_)) => Ok(()),
        (Given::Error(error), Given::Rows(rows)) => {
            Err(format!("ours failed: {error}\nthe oracle answered:\n{}", shown(rows)))
        }
        (Given::Rows(rows), Given::Error(error)) => {
            Err(format!("the oracle failed: {error}\nours answered:\n{}", shown(rows)))
        }
        (Given::Rows(ours), Given::Rows(theirs)) => {
            // A statement has nothing to compare but that it was done.
            if matches!(record, Record::Statement { .. }) || ours == theirs {
                return Ok(());
            }
            let sorted = |rows: &[Vec<String>]| {
                let mut rows = rows.to_vec();
                rows.sort_unstable();
                rows
            };
            let same_rows = sorted(ours) == sorted(theirs);
            if same_rows && !is_ordered(source::sql(record)) {
                return Ok(());
            }
            let what = if same_rows { "the same rows in another order" } else { "other rows" };
            Err(format!("{what}: ours:\n{}\nthe oracle:\n{}", shown(ours), shown(theirs)))
        }
    }
}

enum Given<'a> {
    Rows(&'a [Vec<String>]),
    Error(String),
}

impl<'a> Given<'a> {
    fn of(output: &'a RecordOutput<SltType>) -> Self {
        match output {
            RecordOutput::Query { error: Some(error), .. }
            | RecordOutput::Statement { error: Some(error), .. } => Self::Error(error.to_string()),
            RecordOutput::Let { error: Some(error), .. } => Self::Error(error.to_string()),
            RecordOutput::Let { values, .. } => Self::Rows(std::slice::from_ref(values)),
            RecordOutput::Query { rows, .. } => Self::Rows(rows),
            _ => Self::Rows(&[]),
        }
    }
}

fn shown(rows: &[Vec<String>]) -> String {
    let mut lines: Vec<String> =
        rows.iter().take(ROWS_SHOWN_MAX).map(|row| format!("    {}", row.join(" | "))).collect();
    if rows.len() > ROWS_SHOWN_MAX {
        lines.push(format!("    ... and {} more rows", rows.len() - ROWS_SHOWN_MAX));
    }
    if lines.is_empty() { "    (no rows)".to_owned() } else { lines.join("\n") }
}

/// Whether a query has an ORDER BY outside of all parentheses, texts and comments.
pub fn is_ordered(sql: &str) -> bool {
    let mut outside = String::with_capacity(sql.len());
    let mut depth = 0u32;
    let mut rest = sql.char_indices().peekable();
    while let Some((at, character)) = rest.next() {
        match character {
            '\'' | '"' | '`' => {
                rest.by_ref().find(|(_, other)| *other == character);
                outside.push(' ');
            }
            '-' if sql[at..].starts_with("--") => {
                rest.by_ref().find(|(_, other)| *other == '\n');
                outside.push(' ');
            }
            '/' if sql[at..].starts_with("/*") => {
                let end = sql[at + 2..].find("*/").map_or(sql.len(), |end| at + 2 + end + 2);
                while rest.next_if(|(index, _)| *index < end).is_some() {}
                outside.push(' ');
            }
            '(' => depth += 1,
            ')' => {
                depth = depth.saturating_sub(1);
                outside.push(' ');
            }
            _ if depth == 0 => outside.push(character.to_ascii_lowercase()),
            _ => {}
        }
    }
    let words: Vec<&str> = outside.split_whitespace().collect();
    words.windows(2).any(|pair| pair == ["order", "by"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_counts_outside_of_parentheses_texts_and_comments_only() {
        for sql in [
            "SELECT 1 ORDER BY 1",
            "select (1) order\n  by 1",
            "SELECT ')' ORDER BY a",
            "SELECT 1 /* x */ ORDER BY 1",
            "SELECT 1 -- (\nORDER BY 1",
        ] {
            assert!(is_ordered(sql), "{sql}");
        }
        for sql in [
            "SELECT 1",
            "SELECT * FROM (SELECT 1 ORDER BY 1)",
            "SELECT 'order by 1'",
            "SELECT 1 -- ORDER BY 1",
            "SELECT 1 /* ORDER BY 1 */",
            "SELECT \"order by\" FROM t",
            "SELECT sum(x) OVER (ORDER BY y) FROM t",
        ] {
            assert!(!is_ordered(sql), "{sql}");
        }
    }

    fn output(rows: &[&str]) -> RecordOutput<SltType> {
        let rows = rows.iter().map(|row| vec![(*row).to_owned()]).collect();
        RecordOutput::Query { types: vec![SltType::Integer], rows, error: None }
    }

    fn compared(sql: &str, ours: &[&str], theirs: &[&str]) -> Result<(), String> {
        let text = format!("query I\n{sql}\n----\n1\n");
        let record = sqllogictest::parse::<SltType>(&text).unwrap().remove(0);
        compare(&record, &output(ours), &output(theirs))
    }

    #[test]
    fn the_order_matters_where_the_query_has_one() {
        assert_eq!(compared("SELECT a FROM t", &["1", "2"], &["2", "1"]), Ok(()));
        let difference = compared("SELECT a FROM t ORDER BY a", &["1", "2"], &["2", "1"]);
        assert!(difference.unwrap_err().contains("another order"));
    }

    #[test]
    fn rows_are_a_multiset() {
        assert!(compared("SELECT a FROM t", &["1", "1", "2"], &["1", "2", "2"]).is_err());
        assert!(compared("SELECT a FROM t", &["1"], &[]).is_err());
    }
}
