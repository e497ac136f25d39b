//! `basalt catalog`: a coordinator's catalog while no coordinator runs.

mod rebuild;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use basalt_coordinator::catalog::restore::{Certainty, LogSource, Restored, detach, restore};
use basalt_coordinator::catalog::verify;
use basalt_coordinator::log_sources::{FolderSource, WorkerSource};
use basalt_engine::channels::{Channels, check_peer_address};
use basalt_engine::secret::ClusterSecret;
use clap::{Args, Subcommand};
use tokio::runtime::Handle;
use url::Url;

use crate::roles::http_url;

/// Check a catalog, or make it again from the copies of workers
#[derive(Debug, Args)]
pub struct CatalogArgs {
    #[command(subcommand)]
    command: CatalogCommand,
}

#[derive(Debug, Subcommand)]
enum CatalogCommand {
    /// Check the catalog in a coordinator's data folder, or the copy in a worker's
    Verify(VerifyArgs),
    /// Make the catalog of a coordinator whose disk is gone again
    Restore(RestoreArgs),
    /// Make the catalog again from the workers' commit records, when nothing else is left of it
    Rebuild(rebuild::RebuildArgs),
    /// Go on without the workers that keep copies of the catalog's log
    Detach(DetachArgs),
}

/// Check the catalog in a coordinator's data folder, or the copy in a worker's
///
/// Nothing may run on the folder. Exit code 1 when anything is damaged.
#[derive(Debug, Args)]
struct VerifyArgs {
    /// Folder of a coordinator or a worker
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

// No doc comment: a flattened one would replace that of the command.
#[derive(Debug, Args)]
struct EndsArgs {
    /// The coordinator's new data folder; made when missing
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// A copy of the cluster.secret that the workers were started with
    #[arg(long, value_name = "FILE")]
    secret_file: PathBuf,
    /// Address or data folder of a worker (repeatable)
    #[arg(long, value_name = "URL|DIR", required = true)]
    from: Vec<String>,
}

/// Make the catalog of a coordinator whose disk is gone again
///
/// Name all workers that kept copies of its log, as far as they are left: those that run by their
/// address, those that do not by their data folder. When every acknowledged commit is certain to
/// be among what they have, the catalog is written into the new data folder; else nothing is, and
/// what is missing is printed. Then start the coordinator there, at the address that the workers
/// know.
#[derive(Debug, Args)]
struct RestoreArgs {
    #[command(flatten)]
    ends: EndsArgs,
    /// Restore what is there although acknowledged commits may be missing: only when the other
    /// workers and the old coordinator are gone for good
    #[arg(long)]
    accept_loss: bool,
}

/// Go on without the workers that keep copies of the catalog's log
///
/// For a coordinator that takes no commits because those workers are gone for good. Until others
/// have copies, its own disk is the only one with the catalog; and a catalog that is restored from
/// the workers that were left behind lacks everything that is committed from now on.
#[derive(Debug, Args)]
struct DetachArgs {
    /// The coordinator's data folder; no coordinator may run there
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

pub(super) async fn run(args: CatalogArgs) -> anyhow::Result<()> {
    let runtime = Handle::current();
    let work = move || match args.command {
        CatalogCommand::Verify(args) => run_verify(&args.data_dir),
        CatalogCommand::Restore(args) => run_restore(&args, &runtime),
        CatalogCommand::Rebuild(args) => rebuild::run(&args, &runtime),
        CatalogCommand::Detach(args) => run_detach(&args.data_dir),
    };
    tokio::task::spawn_blocking(work).await?
}

fn run_verify(folder: &Path) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    if folder.join("IDENTITY.json").try_exists()? {
        let source = FolderSource::open(folder).map_err(anyhow::Error::msg)?;
        let member = source.position().map_err(anyhow::Error::msg)?;
        let tail = member.position.tail;
        writeln!(out, "worker {} of cluster {}", member.worker, member.cluster)?;
        writeln!(out, "log records: {}, log epoch {}", tail.seq, tail.log_epoch)?;
        return match source.damage() {
            Some(damage) => bail!("{damage}, after record {}", tail.seq),
            None => Ok(()),
        };
    }
    let report = verify(folder)?;
    writeln!(out, "log records: {}, epoch {}", report.records, report.epoch)?;
    writeln!(
        out,
        "tables: {}, segments: {}, rows: {}",
        report.tables, report.segments, report.rows
    )?;
    if report.is_sound() {
        return Ok(());
    }
    bail!("the catalog in {} is damaged: {}", folder.display(), report.problems.join("; "))
}

/// Where a worker is that `--from` names.
enum WorkerAt<'a> {
    /// Its data folder.
    Folder(&'a Path),
    /// Its address.
    Url(Url),
}

fn worker_at(from: &str) -> anyhow::Result<WorkerAt<'_>> {
    let folder = Path::new(from);
    if folder.is_dir() {
        return Ok(WorkerAt::Folder(folder));
    }
    let neither = || format!("{from} is neither a folder nor an address");
    // Anything is an address to those who parse addresses.
    let rest = from.split_once("://").map_or(from, |(_, rest)| rest);
    let is_path = from.starts_with(['/', '.']) || rest.trim_end_matches('/').contains('/');
    if is_path {
        bail!(neither());
    }
    let url = http_url(from).with_context(neither)?;
    check_peer_address(&url).map_err(anyhow::Error::new).with_context(neither)?;
    Ok(WorkerAt::Url(url))
}

fn run_restore(args: &RestoreArgs, runtime: &Handle) -> anyhow::Result<()> {
    let secret = ClusterSecret::read(&args.ends.secret_file)?;
    let channels = Channels::new(&secret)?;
    let mut sources: Vec<Box<dyn LogSource>> = Vec::new();
    for from in &args.ends.from {
        match worker_at(from)? {
            WorkerAt::Folder(folder) => match FolderSource::open(folder) {
                Ok(source) => sources.push(Box::new(source)),
                Err(problem) => bail!(problem),
            },
            WorkerAt::Url(url) => {
                sources.push(Box::new(WorkerSource::new(url, channels.clone(), runtime.clone())));
            }
        }
    }
    let certainty = if args.accept_loss { Certainty::Waived } else { Certainty::Required };
    let Restored { cluster, records, answered, doubts } =
        restore(&args.ends.data_dir, &secret, &sources, certainty)?;
    let mut out = std::io::stdout();
    let folder = args.ends.data_dir.display();
    writeln!(out, "cluster {cluster}: {records} log records restored into {folder}")?;
    for worker in answered {
        writeln!(out, "  copy of worker {worker}")?;
    }
    for doubt in doubts {
        writeln!(out, "acknowledged commits may be missing: {doubt}")?;
    }
    writeln!(out, "start it: basalt coordinator --data-dir {folder} --listen <the old address>")?;
    Ok(())
}

fn run_detach(folder: &Path) -> anyhow::Result<()> {
    let left = detach(folder)?;
    let mut out = std::io::stdout();
    if left.is_empty() {
        writeln!(out, "the coordinator alone has the log already")?;
    }
    for worker in left {
        writeln!(out, "worker {worker} has no say any more")?;
    }
    Ok(())
}
