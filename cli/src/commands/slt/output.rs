//! What `basalt slt` prints.

use std::io::{self, Write};

use basalt_sql_tests::slt::{Failure, FileReport};

use super::needs::print_needs;
use super::totals::{OracleTotals, Totals, per_second};
use crate::shell::duration_text;

/// Failures, and differences from the oracle, of one file that are shown in full.
const SHOWN_MAX: usize = 20;

/// A sentence nobody should miss.
pub(super) fn warn(text: &str) {
    // With standard error gone as well there is nobody left to tell.
    let _ = writeln!(io::stderr(), "WARNING: {text}");
}

pub(super) fn print_file(report: &FileReport) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let path = report.path.display();
    if let Some(reason) = &report.skip {
        return writeln!(out, "SKIPPED {path}: {reason} ({} records)", report.skipped);
    }
    let verdict = if report.failed == 0 { "ok" } else { "FAILED" };
    let mut notes = vec![format!("{} passed", report.passed)];
    let more = [
        (report.failed, "failed"),
        (report.known, "of them known to fail"),
        (report.rewritten, "of them rewritten"),
        (report.skipped, "skipped"),
    ];
    notes.extend(more.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")));
    notes.push(duration_text(report.elapsed));
    writeln!(out, "{verdict:6} {path} ({})", notes.join(", "))?;
    print_some(&mut out, &report.failures, report.failed, "failures")?;
    if let Some(oracle) = &report.oracle {
        // Those of which only the oracle is right are the failures above, or known.
        let others: Vec<Failure> = oracle
            .differences
            .iter()
            .filter(|difference| !difference.text.starts_with("only the oracle"))
            .cloned()
            .collect();
        print_some(&mut out, &others, oracle.only_ours + oracle.different, "differences")?;
    }
    out.flush()
}

fn print_some(
    out: &mut impl Write,
    failures: &[Failure],
    count: u64,
    what: &str,
) -> io::Result<()> {
    for failure in failures.iter().take(SHOWN_MAX) {
        writeln!(out, "\n{}:{}: {}\n", failure.file, failure.line, failure.text.trim_end())?;
    }
    let hidden = count.saturating_sub(failures.len().min(SHOWN_MAX) as u64);
    if hidden > 0 {
        writeln!(out, "... and {hidden} more {what}")?;
    }
    Ok(())
}

pub(super) fn print_totals(totals: &Totals, oracle: Option<&str>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if !totals.slowest.is_empty() {
        writeln!(out, "the slowest records:")?;
    }
    for slow in &totals.slowest {
        let time = duration_text(slow.time);
        writeln!(out, "{time:>10}  {}:{}  {}", slow.file, slow.line, slow.sql)?;
    }
    if let (Some(name), Some(oracle)) = (oracle, &totals.oracle) {
        print_oracle(&mut out, totals, name, oracle)?;
    }
    if !totals.tallies.is_empty() {
        print_needs(&mut out, &totals.tallies, oracle)?;
    }
    if totals.files_skipped > 0 {
        writeln!(out, "{} of {} files were SKIPPED", totals.files_skipped, totals.files)?;
    }
    Ok(())
}

fn print_oracle(
    out: &mut impl Write,
    totals: &Totals,
    name: &str,
    oracle: &OracleTotals,
) -> io::Result<()> {
    writeln!(out, "against {name}:")?;
    let rows = [
        (oracle.both, "both as expected"),
        (oracle.both_unexpected, "neither as expected, both the same"),
        (oracle.only_oracle, "only the oracle as expected"),
        (oracle.only_ours, "only ours as expected"),
        (oracle.different, "neither as expected, each in its own way"),
        (oracle.one_side, "on one side only, by their conditions"),
    ];
    for (count, what) in rows {
        writeln!(out, "{count:>10}  {what}")?;
    }
    let ratio = if oracle.engine_seconds > 0.0 {
        totals.engine_seconds / oracle.engine_seconds
    } else {
        0.0
    };
    writeln!(
        out,
        "ours {:.2} s ({:.0} records/s), {name} {:.2} s ({:.0} records/s): {ratio:.2} times",
        totals.engine_seconds,
        per_second(totals.records, totals.engine_seconds),
        oracle.engine_seconds,
        per_second(oracle.records, oracle.engine_seconds),
    )
}

/// The last two lines.
pub(super) fn print_last(totals: &Totals) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{} records in {:.2} s: {:.0} records/s",
        totals.records,
        totals.wall_seconds,
        per_second(totals.records, totals.wall_seconds),
    )?;
    writeln!(
        out,
        "{} passed, {} failed, {} skipped",
        totals.passed, totals.failed, totals.skipped
    )?;
    out.flush()
}
