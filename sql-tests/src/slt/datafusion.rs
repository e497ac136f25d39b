//! DataFusion's dialect: how its own test files write rows and errors.
//!
//! Values are those of [`text`] with dates and times by fixed formats. A row whose last value has
//! several lines becomes a line of its other values and one numbered line for each, blanks in
//! front of it as dashes. `<slt:ignore>` stands for anything. Errors have a prefix.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::util::display::FormatOptions;

use super::text;

/// What the file names of its engine: labels of `skipif` and `onlyif`.
pub(super) const LABELS: [&str; 2] = ["DataFusion", "Datafusion"];
/// Stands for anything in expected rows.
const IGNORE: &str = "<slt:ignore>";

const OPTIONS: FormatOptions<'static> = text::OPTIONS
    .with_date_format(Some("%Y-%m-%d"))
    .with_datetime_format(Some("%Y-%m-%dT%H:%M:%S%.f"))
    .with_timestamp_format(Some("%Y-%m-%dT%H:%M:%S%.f"))
    .with_time_format(Some("%H:%M:%S%.f"));

/// Appends the rows of a batch as text.
pub(super) fn append_rows(
    batch: &RecordBatch,
    rows: &mut Vec<Vec<String>>,
) -> Result<(), ArrowError> {
    let mut written = Vec::new();
    text::append_rows_as(batch, &OPTIONS, &mut written)?;
    for row in written {
        append_lines(row, rows);
    }
    Ok(())
}

/// Appends a row, its last value by lines if it has several.
fn append_lines(mut row: Vec<String>, rows: &mut Vec<Vec<String>>) {
    let last = match row.pop() {
        Some(last) if last.contains('\n') => last,
        Some(last) => {
            row.push(last);
            return rows.push(row);
        }
        None => return rows.push(row),
    };
    rows.push(row);
    for (index, line) in last.split('\n').enumerate() {
        let content = line.trim_start();
        let dashes = "-".repeat(line.len() - content.len());
        rows.push(vec![format!("{:02}){dashes}{content}", index + 1)]);
    }
}

/// Whether rows are the lines of a file, in their order.
pub(super) fn rows_match(rows: &[Vec<String>], expected: &[String]) -> bool {
    let actual = lines(rows);
    let expected: Vec<&str> = expected.iter().map(|line| line.trim_end()).collect();
    if expected.iter().any(|line| line.contains(IGNORE)) {
        return matches_around(&actual.join("\n"), &expected.join("\n"));
    }
    actual == expected
}

/// Whether rows are the lines of a file in whatever order.
pub(super) fn same_in_some_order(rows: &[Vec<String>], expected: &[String]) -> bool {
    let mut actual = lines(rows);
    let mut expected: Vec<&str> = expected.iter().map(|line| line.trim_end()).collect();
    actual.sort_unstable();
    expected.sort_unstable();
    actual == expected
}

fn lines(rows: &[Vec<String>]) -> Vec<String> {
    rows.iter().map(|row| row.join(" ").trim_end().to_owned()).collect()
}

/// Whether a text has the parts between the marks for anything, in their order, the first at its
/// beginning. As with its own runner, more may follow the last one.
fn matches_around(actual: &str, expected: &str) -> bool {
    let mut rest = actual;
    for (index, part) in expected.split(IGNORE).enumerate() {
        match rest.find(part) {
            Some(at) if index > 0 || at == 0 => rest = &rest[at + part.len()..],
            _ => return false,
        }
    }
    true
}

/// An error as DataFusion's runner writes it.
pub(super) fn error_text(message: &str) -> String {
    format!("DataFusion error: {message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[&[&str]]) -> Vec<Vec<String>> {
        values.iter().map(|row| row.iter().map(|value| (*value).to_owned()).collect()).collect()
    }

    fn expected(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn a_last_value_of_several_lines_is_numbered() {
        let mut written = Vec::new();
        append_lines(vec!["plan".into(), "a\n  b\n c".into()], &mut written);
        append_lines(vec!["x".into(), "y".into()], &mut written);
        assert_eq!(written, rows(&[&["plan"], &["01)a"], &["02)--b"], &["03)-c"], &["x", "y"]]));
    }

    #[test]
    fn blanks_count_but_for_those_at_the_end() {
        assert!(rows_match(&rows(&[&["a", "b "]]), &expected(&["a b"])));
        assert!(!rows_match(&rows(&[&["a", " b"]]), &expected(&["a b"])));
        assert!(!rows_match(&rows(&[&["a"], &["b"]]), &expected(&["b", "a"])));
        assert!(same_in_some_order(&rows(&[&["a"], &["b"]]), &expected(&["b", "a"])));
        assert!(!same_in_some_order(&rows(&[&["a"], &["a"]]), &expected(&["b", "a"])));
    }

    #[test]
    fn a_mark_stands_for_anything_but_not_before_the_first_part() {
        let row = rows(&[&["foo bar baz"]]);
        for line in ["foo <slt:ignore> baz", "<slt:ignore>baz", "<slt:ignore>", "foo<slt:ignore>"] {
            assert!(rows_match(&row, &expected(&[line])), "{line}");
        }
        for line in ["bar<slt:ignore>", "foo <slt:ignore> foo"] {
            assert!(!rows_match(&row, &expected(&[line])), "{line}");
        }
    }
}
