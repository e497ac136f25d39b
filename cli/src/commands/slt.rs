//! `basalt slt`: sqllogictest files against a cluster.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use basalt_sql_tests::slt::{self, FileReport, FlightEngine, SltOptions};
use clap::Args;
use futures::StreamExt;
use regex::Regex;

use super::UrlFlag;
use crate::exit::Reported;
use crate::shell::duration_text;
use crate::terminal;

/// Failures of one file that are shown in full.
const FAILURES_SHOWN_MAX: usize = 20;

/// Run sqllogictest files against a cluster
///
/// The label of this engine for `skipif` and `onlyif` is `basalt`. The last line is
/// `N passed, N failed, N skipped`, counting statements and queries; the exit code is 1 when one
/// failed.
#[derive(Debug, Args)]
pub struct SltArgs {
    #[command(flatten)]
    url: UrlFlag,
    /// Run the files only whose path matches this regular expression
    #[arg(long, value_name = "RE")]
    filter: Option<Regex>,
    /// Stop at the first failure
    #[arg(long)]
    fail_fast: bool,
    /// Run so many files at a time: for files that use different tables
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    /// Files, folders (every .slt and .test below) or quoted globs
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
}

pub(super) async fn run(args: SltArgs) -> anyhow::Result<()> {
    // Say so once, and not once per file, when nobody answers.
    drop(args.url.connect().await?);
    let mut files = slt::find_files(&args.paths)?;
    if let Some(filter) = &args.filter {
        files.retain(|file| filter.is_match(&file.to_string_lossy()));
    }
    let options = SltOptions { fail_fast: args.fail_fast, labels: Vec::new() };
    let (mut passed, mut failed, mut skipped, mut not_run) = (0, 0, 0, files.len());
    let bar = terminal::bar(files.len() as u64, "files");
    let mut reports = futures::stream::iter(files)
        .map(|file| run_one(file, &args.url.url, &options))
        .buffered(usize::from(args.jobs));
    while let Some((report, time)) = reports.next().await {
        passed += report.passed;
        failed += report.failures.len();
        skipped += report.skipped;
        not_run -= 1;
        bar.inc(1);
        // `suspend` keeps the bar and the report from writing into each other.
        bar.suspend(|| print(&report, &time))?;
        if args.fail_fast && failed > 0 {
            break;
        }
    }
    bar.finish_and_clear();
    let mut out = std::io::stdout();
    if not_run > 0 {
        writeln!(out, "stopped at the first failure: {not_run} files were not run")?;
    }
    writeln!(out, "{passed} passed, {failed} failed, {skipped} skipped")?;
    if failed > 0 { Err(Reported.into()) } else { Ok(()) }
}

async fn run_one(file: PathBuf, url: &str, options: &SltOptions) -> (FileReport, String) {
    let start = Instant::now();
    let report = slt::run_file(&file, || FlightEngine::connect(url), options).await;
    (report, duration_text(start.elapsed()))
}

fn print(report: &FileReport, time: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let verdict = if report.failures.is_empty() { "ok" } else { "FAILED" };
    writeln!(out, "{verdict:6} {} ({} passed, {time})", report.path.display(), report.passed)?;
    for failure in report.failures.iter().take(FAILURES_SHOWN_MAX) {
        writeln!(out, "\n{}:{}: {}\n", failure.file, failure.line, failure.text.trim_end())?;
    }
    let hidden = report.failures.len().saturating_sub(FAILURES_SHOWN_MAX);
    if hidden > 0 {
        writeln!(out, "... and {hidden} more failures in {}", report.path.display())?;
    }
    out.flush()
}
