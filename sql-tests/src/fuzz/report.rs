//! What a run has found: counts by class, and for every difference a script that shows it.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::duckdb::spelling;
use super::explained::Explained;
use super::oracles::{Oracle, Verdict};
use super::shrink::Shrunk;

/// Texts of unsupported queries that a summary shows.
const TEXTS_SHOWN: usize = 8;
/// Characters of one of them.
const TEXT_CHARS: usize = 160;

/// A difference that nothing explains.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The seed of its query.
    pub seed: u64,
    /// Which query of the run it was, from 0.
    pub query: u64,
    /// The flags of `basalt fuzz` that name the cluster.
    pub flags: String,
    /// The query as it was generated.
    pub original: String,
    /// The case and its data, as small as they got.
    pub shrunk: Shrunk,
    /// What DataFusion in one process with our arithmetic answers to the query that is wrong.
    pub in_one_process: String,
}

impl Finding {
    /// The command that runs the query again.
    pub fn command(&self) -> String {
        let oracle = self.shrunk.case.oracle.name();
        format!("basalt fuzz --seed {} --queries 1 --oracle {oracle} {}", self.seed, self.flags)
    }

    /// A complete SQL script: tables, rows, queries.
    pub fn script(&self) -> String {
        let mut lines = Vec::new();
        for table in &self.shrunk.tables {
            lines.push(format!("{};", table.create(true)));
            lines.extend(table.inserts().into_iter().map(|insert| format!("{insert};")));
        }
        let difference = &self.shrunk.difference;
        if self.shrunk.case.oracle == Oracle::DuckDb {
            lines.push(format!("{};", difference.got.0));
            // In comments, so that the script is still one of ours.
            let theirs = self.shrunk.tables.iter().flat_map(spelling::statements);
            let theirs = theirs.chain([difference.expected.0.clone()]);
            lines.extend(theirs.map(|statement| format!("-- DuckDB: {statement};")));
            return lines.join("\n");
        }
        lines.push(format!("{};", difference.expected.0));
        if difference.got.0 != difference.expected.0 {
            lines.push(format!("{};", difference.got.0));
        }
        lines.join("\n")
    }
}

impl Display for Finding {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let difference = &self.shrunk.difference;
        let oracle = self.shrunk.case.oracle.name();
        writeln!(f, "DIFFERENCE by {oracle} on {}: {}", self.flags, difference.text)?;
        writeln!(f, "-- as generated:\n-- {}", self.original)?;
        writeln!(f, "-- reproducer:\n{}", self.script())?;
        writeln!(f, "-- expected:\n{}", difference.expected.1)?;
        writeln!(f, "-- got:\n{}", difference.got.1)?;
        writeln!(f, "-- DataFusion in one process, our arithmetic:\n{}", self.in_one_process)?;
        write!(f, "REPRO seed={} query={} cmd={}", self.seed, self.query, self.command())
    }
}

/// Counts of a run.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Queries that were generated.
    pub queries: u64,
    /// Checks of each oracle; a query may be checked on several clusters.
    pub checks: BTreeMap<Oracle, u64>,
    /// Checks that passed.
    pub same: u64,
    /// Checks in which no side answered.
    pub both_fail: u64,
    /// Checks of what plain DataFusion cannot plan.
    pub unsupported: u64,
    /// Checks of what DuckDB cannot do, or the tested database beside it.
    pub unsupported_by_duckdb: u64,
    /// Differences with a known reason.
    pub explained: BTreeMap<Explained, u64>,
    /// Differences without.
    pub findings: Vec<Finding>,
    /// Why checks had no answer, by how often.
    reasons: BTreeMap<String, u64>,
    /// How long it took.
    pub time: Duration,
}

impl Summary {
    /// Counts a check. Differences are counted by their findings.
    pub fn count(&mut self, oracle: Oracle, verdict: &Verdict) {
        *self.checks.entry(oracle).or_default() += 1;
        match verdict {
            Verdict::Same => self.same += 1,
            Verdict::BothFail(text) => {
                self.both_fail += 1;
                self.reason("neither side answers", text);
            }
            Verdict::Unsupported(text) => {
                match oracle {
                    Oracle::DuckDb => self.unsupported_by_duckdb += 1,
                    _ => self.unsupported += 1,
                }
                self.reason("unsupported", text);
            }
            Verdict::Explained(reason) => *self.explained.entry(*reason).or_default() += 1,
            Verdict::Different(_) | Verdict::Lost(_) => {}
        }
    }

    fn reason(&mut self, class: &str, text: &str) {
        // Names and numbers differ from query to query.
        let text = text.replace('\n', " / ");
        let text: String = text.chars().filter(|c| !c.is_ascii_digit()).take(TEXT_CHARS).collect();
        *self.reasons.entry(format!("{class}: {text}")).or_default() += 1;
    }

    /// The checks of all oracles.
    pub fn checks(&self) -> u64 {
        self.checks.values().sum()
    }

    /// Whether so many checks had no answer that the others say little: more than 5 of 100.
    pub fn is_mostly_unanswered(&self) -> bool {
        (self.unsupported + self.unsupported_by_duckdb + self.both_fail) * 20 > self.checks()
    }

    /// Queries per second.
    pub fn rate(&self) -> f64 {
        let seconds = self.time.as_secs_f64();
        if seconds > 0.0 { self.queries as f64 / seconds } else { 0.0 }
    }
}

impl Display for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let checks = self.checks();
        let percent = |count: u64| count as f64 * 100.0 / checks.max(1) as f64;
        writeln!(
            f,
            "{} queries in {:.0} s, {:.1} per second",
            self.queries,
            self.time.as_secs_f64(),
            self.rate()
        )?;
        for (oracle, count) in &self.checks {
            writeln!(f, "  checked by {}: {count}", oracle.name())?;
        }
        writeln!(f, "  same: {}", self.same)?;
        for (reason, count) in &self.explained {
            writeln!(f, "  explained, {}: {count} ({:.2} %)", reason.name(), percent(*count))?;
        }
        writeln!(
            f,
            "  neither side answers: {} ({:.2} %)",
            self.both_fail,
            percent(self.both_fail)
        )?;
        let share = percent(self.unsupported);
        writeln!(f, "  unsupported by DataFusion: {} ({share:.2} %)", self.unsupported)?;
        if self.checks.contains_key(&Oracle::DuckDb) {
            let (count, share) = (self.unsupported_by_duckdb, percent(self.unsupported_by_duckdb));
            writeln!(f, "  unsupported beside DuckDB: {count} ({share:.2} %)")?;
        }
        let mut reasons: Vec<_> = self.reasons.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (reason, count) in reasons.into_iter().take(TEXTS_SHOWN) {
            writeln!(f, "    {count} x {reason}")?;
        }
        write!(f, "  unexplained differences: {}", self.findings.len())
    }
}
