//! `basalt slt`: sqllogictest files against a cluster.
//!
//! Not here: how a file is run and judged ([`basalt_sql_tests::slt`]).

mod needs;
mod output;
mod reports;
mod totals;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Context;
use basalt_sql_tests::client::Client;
use basalt_sql_tests::slt::{self, Dialect, FileReport, Known, Place, SltOptions, known};
use clap::Args;
use futures::StreamExt;
use regex::Regex;

use super::UrlFlag;
use crate::exit::{Reported, UsageError};
use crate::terminal;
use totals::Totals;

/// Run sqllogictest files against a cluster
///
/// Each file runs on a connection and in a schema of its own. The label of this engine for
/// `skipif` and `onlyif` is `basalt`. The last line is `N passed, N failed, N skipped`, counting
/// statements and queries; the exit code is 1 when one failed.
///
/// With --oracle, the same records run in lockstep on another engine, and a record fails when
/// only the oracle answers it as the file says; what neither answers so counts as skipped.
/// `--url datafusion` and `--url duckdb` need no server.
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
    /// Run so many files at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    /// Set a setting of the tested server's sessions, its schema excepted (may be repeated)
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    set: Vec<String>,
    /// How files write results: auto, postgres, sqlite, duckdb, or datafusion for its own files
    #[arg(long, value_name = "DIALECT", default_value = "auto")]
    dialect: String,
    /// Label for skipif and onlyif instead of `basalt` (may be repeated)
    #[arg(long, value_name = "LABEL")]
    engine_name: Vec<String>,
    /// Run the records elsewhere too and compare: datafusion, duckdb, or the address of a server
    #[arg(long, value_name = "ENGINE", conflicts_with = "complete")]
    oracle: Option<String>,
    /// Label for skipif and onlyif of the oracle instead of its own (may be repeated)
    #[arg(long, value_name = "LABEL", requires = "oracle")]
    oracle_name: Vec<String>,
    /// Let the records on this list fail, and fail those of them that do not
    #[arg(long, value_name = "FILE", conflicts_with = "complete")]
    known: Option<PathBuf>,
    /// Write the list of records that are not as expected: on the oracle if there is one
    #[arg(long, value_name = "FILE")]
    write_known: Option<PathBuf>,
    /// Rewrite the expectations that are not met, in place
    #[arg(long)]
    complete: bool,
    /// Run all files where the server puts tables, not each in a schema of its own
    #[arg(long)]
    shared_schema: bool,
    /// Show so many of the slowest records
    #[arg(long, value_name = "N", default_value_t = 0)]
    slowest: usize,
    /// Write a JUnit report
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write a report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Files, folders (every .slt and .test below) or quoted globs
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
}

pub(super) async fn run(args: SltArgs) -> anyhow::Result<()> {
    let options = Arc::new(args.options()?);
    let mut files = slt::find_files(&args.paths)?;
    if let Some(filter) = &args.filter {
        let found = files.len();
        files.retain(|file| filter.is_match(&file.to_string_lossy()));
        if files.is_empty() {
            let message = format!("--filter {filter} matches none of the {found} files");
            return Err(UsageError(message).into());
        }
    }
    // Says so once, and not once per file, when nobody answers.
    let place = args.place(&args.url.url, &args.set).await?;
    let oracle = match &args.oracle {
        None => None,
        Some(oracle) => Some(args.place(oracle, &[]).await?),
    };
    let start = Instant::now();
    let reports = run_files(files, args.jobs, &place, oracle.as_ref(), &options).await?;
    let totals = Totals::of(&reports, start.elapsed(), options.slowest);
    output::print_totals(&totals, oracle.as_ref().map(Place::name))?;
    if let Some(path) = &args.write_known {
        write(path, &known::write(&reports))?;
    }
    if let Some(path) = &args.json {
        let versions = reports::versions(&place, oracle.as_ref()).await;
        write(path, &reports::json(&reports, &totals, versions)?)?;
    }
    if let Some(path) = &args.junit {
        write(path, &reports::junit(&reports))?;
    }
    output::print_last(&totals)?;
    if totals.failed > 0 { Err(Reported.into()) } else { Ok(()) }
}

fn write(path: &std::path::Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}

impl SltArgs {
    fn options(&self) -> anyhow::Result<SltOptions> {
        let dialect: Option<Dialect> = match self.dialect.as_str() {
            "auto" => None,
            name => Some(name.parse().map_err(UsageError)?),
        };
        let known = match &self.known {
            Some(path) => Some(Arc::new(Known::read(path)?)),
            None => None,
        };
        Ok(SltOptions {
            fail_fast: self.fail_fast,
            labels: self.engine_name.clone(),
            oracle_labels: self.oracle_name.clone(),
            dialect,
            known,
            marks: self.write_known.is_some(),
            complete: self.complete,
            slowest: self.slowest,
            stop: Arc::new(AtomicBool::new(false)),
        })
    }

    /// Where files run: at a server, or in this process by the name of an engine.
    async fn place(&self, url: &str, settings: &[String]) -> anyhow::Result<Place> {
        let local = match url {
            "datafusion" => Some(Place::DataFusion),
            "duckdb" | "duckdb-cli" => Some(Place::DuckDb),
            _ => None,
        };
        match local {
            Some(_) if !settings.is_empty() => {
                let message = format!("--set is for servers, and {url} is none");
                return Err(UsageError(message).into());
            }
            Some(local) => return Ok(local),
            None => {}
        }
        // Say so once, with a remedy, when nobody answers or a setting is refused.
        let mut client = Client::connect(url).await?;
        for statement in settings {
            client.execute_update(statement).await?;
        }
        let settings = settings.to_vec();
        if self.shared_schema {
            return Ok(Place::Server { url: url.to_owned(), schemas: None, settings });
        }
        let (place, why_not) = Place::server(url).await?;
        if let Some(reason) = why_not {
            let reason = reason.lines().next().unwrap_or_default();
            output::warn(&format!(
                "{url} gives files no schema of their own ({reason}): \
                 tables of one file are in the way of the next"
            ));
        }
        Ok(place.with_settings(settings))
    }
}

/// The statement that a setting of the command line is.
fn setting(text: &str) -> Result<String, String> {
    let (name, value) = text.split_once('=').ok_or("it has no '=': write NAME=VALUE")?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    if name.is_empty() || !name.chars().all(is_name) {
        return Err(format!("'{name}' is no name of a setting"));
    }
    Ok(format!("SET {name} = '{}'", value.replace('\'', "''")))
}

/// Runs the files, `jobs` at a time, printing each as it ends, in order.
async fn run_files(
    files: Vec<PathBuf>,
    jobs: u16,
    place: &Place,
    oracle: Option<&Place>,
    options: &Arc<SltOptions>,
) -> anyhow::Result<Vec<FileReport>> {
    let bar = terminal::bar(files.len() as u64, "files");
    let mut running = futures::stream::iter(files)
        .map(|file| {
            let (place, oracle, options) = (place.clone(), oracle.cloned(), options.clone());
            // A task of its own, so that files use more than one core.
            tokio::spawn(async move { slt::run_at(&file, &place, oracle.as_ref(), &options).await })
        })
        .buffered(usize::from(jobs));
    let mut reports = Vec::new();
    while let Some(report) = running.next().await {
        let report = report.context("a file was not run to its end")?;
        bar.inc(1);
        if options.fail_fast && report.failed > 0 {
            // Those that run end at their next record and drop their schemas.
            options.stop.store(true, Ordering::Relaxed);
        }
        // A file that was stopped before it began has nothing to say.
        let was_stopped = options.stop.load(Ordering::Relaxed) && report.records == 0;
        if !was_stopped || report.failed > 0 {
            // `suspend` keeps the bar and the report from writing into each other.
            bar.suspend(|| output::print_file(&report))?;
        }
        reports.push(report);
    }
    bar.finish_and_clear();
    Ok(reports)
}
