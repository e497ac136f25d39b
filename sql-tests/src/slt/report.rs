//! What came of a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::class::Class;
use super::dialect::Dialect;
use super::tally::Tallies;

/// Failures of one file that are kept in full; the rest is counted.
const FAILURES_KEPT_MAX: usize = 1000;

/// One record that did not do what the file says.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The file, which may be one that was included.
    pub file: String,
    /// The line of the record, from 1.
    pub line: u32,
    /// What was expected and what came, as a diff where it is about rows.
    pub text: String,
}

impl Failure {
    pub(super) fn new(file: impl Into<String>, line: u32, text: impl Into<String>) -> Self {
        Self { file: file.into(), line, text: text.into() }
    }
}

/// A record and how long it took.
#[derive(Debug, Clone)]
pub struct Slow {
    /// The file.
    pub file: Arc<str>,
    /// The line of the record.
    pub line: u32,
    /// From sending it to having all rows.
    pub time: Duration,
    /// How it begins.
    pub sql: String,
}

/// A record that ran, for an allow-list.
#[derive(Debug, Clone)]
pub struct Mark {
    /// The file.
    pub file: Arc<str>,
    /// The line of the record.
    pub line: u32,
    /// Why it is not as expected; none if it is. The text is of the first of its kind.
    pub unexpected: Option<(Class, Option<String>)>,
}

/// What the oracle says about the records that ran on both sides.
#[derive(Debug, Clone, Default)]
pub struct OracleReport {
    /// Both did what the file says.
    pub both: u64,
    /// Neither did, and both gave the same.
    pub both_unexpected: u64,
    /// Only the oracle did: the failures.
    pub only_oracle: u64,
    /// Only ours did.
    pub only_ours: u64,
    /// Neither did, and each gave something else.
    pub different: u64,
    /// Records that ran on one side only, by their conditions.
    pub one_side: u64,
    /// All differences: `only_oracle`, `only_ours`, `different`.
    pub differences: Vec<Failure>,
    /// Time in the oracle.
    pub elapsed: Duration,
    /// Records that ran in the oracle.
    pub records: u64,
}

/// What came of one file.
#[derive(Debug, Clone)]
pub struct FileReport {
    /// The file.
    pub path: PathBuf,
    /// How it writes results; none if it could not be read.
    pub dialect: Option<Dialect>,
    /// Records that did what the file says, and those that are known not to.
    pub passed: u64,
    /// Those of `passed` that are on the allow-list.
    pub known: u64,
    /// Records that did something else.
    pub failed: u64,
    /// Records left out by `skipif`, `onlyif`, or because the file was stopped.
    pub skipped: u64,
    /// With an oracle: records that neither side answers as the file says, beside those that are
    /// `known`. They count as skipped.
    pub undecided: u64,
    /// What failed, in order; the first thousand.
    pub failures: Vec<Failure>,
    /// Why the file was not run.
    pub skip: Option<String>,
    /// Whether the file ended early because the engine was lost.
    pub lost_connection: bool,
    /// Expectations that were rewritten.
    pub rewritten: u64,
    /// Time in the engine.
    pub elapsed: Duration,
    /// Records that ran.
    pub records: u64,
    /// The slowest records, slowest first.
    pub slowest: Vec<Slow>,
    /// Every record that ran, when asked for.
    pub marks: Vec<Mark>,
    /// The other engine.
    pub oracle: Option<OracleReport>,
    /// DataFusion's dialect: the records by what they need.
    pub tallies: Tallies,
}

impl FileReport {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            dialect: None,
            passed: 0,
            known: 0,
            failed: 0,
            skipped: 0,
            undecided: 0,
            failures: Vec::new(),
            skip: None,
            lost_connection: false,
            rewritten: 0,
            elapsed: Duration::ZERO,
            records: 0,
            slowest: Vec::new(),
            marks: Vec::new(),
            oracle: None,
            tallies: Tallies::default(),
        }
    }

    pub(super) fn fail(&mut self, failure: Failure) {
        self.failed += 1;
        keep(&mut self.failures, failure);
    }

    /// Remembers a record if it is among the slowest `most`.
    pub(super) fn took(&mut self, most: usize, slow: impl FnOnce() -> Slow, time: Duration) {
        let is_slow = self.slowest.len() < most
            || self.slowest.last().is_some_and(|fastest| time > fastest.time);
        if most > 0 && is_slow {
            let at = self.slowest.partition_point(|other| other.time >= time);
            self.slowest.insert(at, slow());
            self.slowest.truncate(most);
        }
    }
}

/// Adds one to the failures that are kept.
pub(super) fn keep(failures: &mut Vec<Failure>, failure: Failure) {
    if failures.len() < FAILURES_KEPT_MAX {
        failures.push(failure);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_are_kept_slowest_first() {
        let mut report = FileReport::new(Path::new("a.slt"));
        for (line, millis) in [(1, 5), (2, 9), (3, 1), (4, 9), (5, 7)] {
            let time = Duration::from_millis(millis);
            let slow = || Slow { file: "a.slt".into(), line, time, sql: String::new() };
            report.took(3, slow, time);
        }
        let lines: Vec<u32> = report.slowest.iter().map(|slow| slow.line).collect();
        assert_eq!(lines, [2, 4, 5]);
    }

    #[test]
    fn failures_beyond_the_bound_are_counted() {
        let mut report = FileReport::new(Path::new("a.slt"));
        for line in 0..1500 {
            report.fail(Failure::new("a.slt", line, ""));
        }
        assert_eq!((report.failed, report.failures.len()), (1500, FAILURES_KEPT_MAX));
    }
}
