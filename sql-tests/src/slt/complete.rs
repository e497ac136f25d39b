//! Rewrites the expectations of records that are not as expected, in place.
//!
//! Only the lines of such a record change, from its `query` or `statement` to the empty line
//! behind it: comments, conditions, includes and every other record keep their bytes.

use std::collections::BTreeMap;
use std::path::Path;

use sqllogictest::{
    ExpectedError, QueryExpect, Record, RecordOutput, StatementExpect, default_normalizer,
    update_record_with_output,
};

use super::check::Rules;
use super::engine::{SltType, columns_count_matches, columns_match};
use super::report::Failure;
use super::source::Placed;

/// New texts of records, by the line where each begins.
#[derive(Debug, Default)]
pub(super) struct Rewrites(BTreeMap<u32, String>);

impl Rewrites {
    /// Adds what a record would have to say. `false` if there is no way to say it.
    pub(super) fn add(
        &mut self,
        placed: &Placed,
        output: &RecordOutput<SltType>,
        rules: &Rules,
    ) -> bool {
        let by_letters = rules.letters(&placed.record).is_some();
        let columns = if by_letters { columns_count_matches } else { columns_match };
        let output = match output {
            RecordOutput::Query { types, rows, error } => {
                // A line per value or row; a line break in a value reads as a blank.
                let lines = rules.lines(rows).into_iter();
                let rows = lines.map(|line| vec![line.replace(['\n', '\r'], " ")]).collect();
                RecordOutput::Query { types: types.clone(), rows, error: error.clone() }
            }
            other => other.clone(),
        };
        let is_new = |_, _: &[Vec<String>], _: &[String]| false;
        let updated = update_record_with_output(
            &placed.record,
            &output,
            " ",
            is_new,
            default_normalizer,
            columns,
        );
        let Some(updated) = updated else { return false };
        // An empty line would end the record, and one in its old error hides where it ends.
        let ends_early = match &updated {
            Record::Query { expected: QueryExpect::Results { results, .. }, .. } => {
                results.iter().any(|line| line.trim().is_empty())
            }
            _ => false,
        };
        if ends_early || has_long_error(&placed.record) {
            return false;
        }
        self.0.insert(placed.line, updated.to_string());
        true
    }

    /// Writes the file anew, if there is anything new.
    pub(super) fn write(self, path: &Path) -> Result<(), Failure> {
        if self.0.is_empty() {
            return Ok(());
        }
        let failure = |error: std::io::Error| {
            Failure::new(path.display().to_string(), 0, format!("not rewritten: {error}"))
        };
        let text = std::fs::read_to_string(path).map_err(failure)?;
        std::fs::write(path, self.applied(&text)).map_err(failure)
    }

    fn applied(&self, text: &str) -> String {
        let line_end = if text.contains("\r\n") { "\r\n" } else { "\n" };
        let mut applied = String::with_capacity(text.len());
        let mut replacing = false;
        for (index, line) in text.split_inclusive('\n').enumerate() {
            let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
            if let Some(record) = self.0.get(&number) {
                for line in record.trim_end().lines() {
                    applied.push_str(line);
                    applied.push_str(line_end);
                }
                // An error of several lines ends with two empty ones; the file has one already.
                if record.ends_with("\n\n") {
                    applied.push_str(line_end);
                }
                replacing = true;
            } else if replacing && line.trim_end_matches(['\r', '\n']).is_empty() {
                replacing = false;
            }
            if !replacing {
                applied.push_str(line);
            }
        }
        applied
    }
}

/// Whether the error that a record expects has empty lines.
fn has_long_error(record: &Record<SltType>) -> bool {
    match record {
        Record::Statement {
            expected: StatementExpect::Error(ExpectedError::Multiline(text)),
            ..
        }
        | Record::Query { expected: QueryExpect::Error(ExpectedError::Multiline(text)), .. } => {
            text.trim().contains("\n\n")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lines_of_a_rewritten_record_change() {
        let text = "# a\r\nquery I\r\nSELECT 1\r\n----\r\n2\r\n\r\n# b\r\nstatement ok\r\nX";
        let rewrites = Rewrites([(2, "query I\nSELECT 1\n----\n1\n".to_owned())].into());
        let expected = text.replace("\n2\r", "\n1\r");
        assert_eq!(rewrites.applied(text), expected);
        let rewrites = Rewrites([(8, "statement error\nX\n".to_owned())].into());
        let expected =
            "# a\r\nquery I\r\nSELECT 1\r\n----\r\n2\r\n\r\n# b\r\nstatement error\r\nX\r\n";
        assert_eq!(rewrites.applied(text), expected);
    }
}
