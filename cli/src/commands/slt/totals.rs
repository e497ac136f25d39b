//! Sums over files.

use std::time::Duration;

use basalt_sql_tests::slt::{FileReport, OracleReport, Slow, Tallies};
use serde::Serialize;

/// What came of all files.
#[derive(Debug, Default, Serialize)]
pub(super) struct Totals {
    pub(super) files: usize,
    pub(super) files_skipped: usize,
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
    pub(super) known: u64,
    pub(super) undecided: u64,
    pub(super) rewritten: u64,
    /// Records that ran.
    pub(super) records: u64,
    /// From the first file to the last.
    pub(super) wall_seconds: f64,
    /// Time in our engine, over all connections.
    pub(super) engine_seconds: f64,
    pub(super) oracle: Option<OracleTotals>,
    #[serde(skip)]
    pub(super) slowest: Vec<Slow>,
    /// DataFusion's dialect: the records by what they need.
    #[serde(skip)]
    pub(super) tallies: Tallies,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct OracleTotals {
    pub(super) both: u64,
    pub(super) both_unexpected: u64,
    pub(super) only_oracle: u64,
    pub(super) only_ours: u64,
    pub(super) different: u64,
    pub(super) one_side: u64,
    pub(super) records: u64,
    pub(super) engine_seconds: f64,
}

impl Totals {
    pub(super) fn of(reports: &[FileReport], wall: Duration, slowest: usize) -> Self {
        let mut totals =
            Self { files: reports.len(), wall_seconds: wall.as_secs_f64(), ..Self::default() };
        for report in reports {
            totals.files_skipped += usize::from(report.skip.is_some());
            totals.passed += report.passed;
            totals.failed += report.failed;
            totals.skipped += report.skipped;
            totals.known += report.known;
            totals.undecided += report.undecided;
            totals.rewritten += report.rewritten;
            totals.records += report.records;
            totals.engine_seconds += report.elapsed.as_secs_f64();
            totals.slowest.extend(report.slowest.iter().cloned());
            totals.tallies.merge(&report.tallies);
            if let Some(oracle) = &report.oracle {
                totals.oracle.get_or_insert_default().add(oracle);
            }
        }
        totals.slowest.sort_by_key(|slow| std::cmp::Reverse(slow.time));
        totals.slowest.truncate(slowest);
        totals
    }
}

impl OracleTotals {
    fn add(&mut self, report: &OracleReport) {
        self.both += report.both;
        self.both_unexpected += report.both_unexpected;
        self.only_oracle += report.only_oracle;
        self.only_ours += report.only_ours;
        self.different += report.different;
        self.one_side += report.one_side;
        self.records += report.records;
        self.engine_seconds += report.elapsed.as_secs_f64();
    }
}

/// A rate; 0 of no time.
pub(super) fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}
