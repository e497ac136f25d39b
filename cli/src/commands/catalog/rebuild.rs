//! `basalt catalog rebuild`: a catalog made again from what workers keep of its commits.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use basalt_coordinator::catalog::rebuild::{Rebuilt, found, rebuild};
use basalt_coordinator::commit_sources::CommitSources;
use basalt_engine::channels::Channels;
use basalt_engine::secret::ClusterSecret;
use clap::Args;
use tokio::runtime::Handle;

use super::{EndsArgs, WorkerAt, worker_at};
use crate::machine::utc;

/// Make the catalog again from the workers' commit records, when nothing else is left of it
///
/// For the day when the coordinator's disk is gone and `basalt catalog restore` finds too few
/// copies of its log. Name all workers: those that run by their address, those that do not, or that
/// wait for their coordinator, by their data folder. What comes out is the database at the newest
/// commit that any of them knows, which is printed with its time; what was committed after it is
/// missing, deletes too, and writes that are sent again under their labels are new ones. When more
/// than that is doubtful, it is printed and nothing is written. Then start the coordinator in the new
/// data folder, at the address that the workers know.
///
/// Segments on the disks of workers that no record names become tables in the schema `recovered`:
/// they may be of newer commits, of none, or of rows that were deleted. Look at them, take over what
/// you want with INSERT ... SELECT, and drop them.
#[derive(Debug, Args)]
pub(super) struct RebuildArgs {
    #[command(flatten)]
    ends: EndsArgs,
    /// Rebuild what is there although more may be missing: only when the other workers are gone for
    /// good
    #[arg(long)]
    accept_loss: bool,
    /// Leave segments that no record names where they are: they are removed like other garbage
    #[arg(long)]
    no_salvage: bool,
}

pub(super) fn run(args: &RebuildArgs, runtime: &Handle) -> anyhow::Result<()> {
    let secret = ClusterSecret::read(&args.ends.secret_file)?;
    let sources = open(&args.ends.from, &secret, runtime)?;
    let mut rebuilt = rebuild(&sources.records)?;
    let mut out = std::io::stdout();
    print_doubts(&rebuilt, &mut out)?;
    let is_doubtful = rebuilt.doubts.iter().any(|doubt| !doubt.is_harmless());
    if is_doubtful && !args.accept_loss {
        bail!(
            "nothing was written: with --accept-loss what is there would be, without what is doubtful"
        );
    }
    if !args.no_salvage {
        let salvaged = runtime.block_on(sources.salvage(&mut rebuilt));
        salvaged.map_err(anyhow::Error::msg).context(
            "nothing was written: try again, or leave what no record names with --no-salvage, and \
             it is removed",
        )?;
    }
    found(&args.ends.data_dir, &secret, &rebuilt)?;
    print_rebuilt(&rebuilt, &args.ends.data_dir, &mut out)?;
    let is_folder = |from: &String| Path::new(from).is_dir();
    if args.ends.from.iter().all(is_folder) {
        writeln!(
            out,
            "{} could not be checked, as no worker was asked: they refuse a coordinator with another \
             secret than their own",
            args.ends.secret_file.display()
        )?;
    }
    Ok(())
}

/// The workers; those that are folders stay locked.
fn open(
    from: &[String],
    secret: &ClusterSecret,
    runtime: &Handle,
) -> anyhow::Result<CommitSources> {
    let channels = Channels::new(secret)?;
    let mut sources = CommitSources::default();
    for from in from {
        let added = match worker_at(from)? {
            WorkerAt::Folder(folder) => sources.open(folder),
            WorkerAt::Url(url) => runtime.block_on(sources.ask(&channels, &url)),
        };
        added.map_err(anyhow::Error::msg)?;
    }
    Ok(sources)
}

fn print_doubts(rebuilt: &Rebuilt, out: &mut impl Write) -> anyhow::Result<()> {
    for (worker, at) in &rebuilt.workers {
        match at {
            Some(at) => writeln!(out, "worker {worker} knows commits up to {}", at.seq)?,
            None => writeln!(out, "worker {worker} knows no commit")?,
        }
    }
    for doubt in &rebuilt.doubts {
        writeln!(out, "doubt: {doubt}")?;
    }
    Ok(())
}

fn print_rebuilt(rebuilt: &Rebuilt, folder: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    let Rebuilt { at, told_ms, cluster, tables, views, recovered, .. } = rebuilt;
    let told = utc(i64::try_from(told_ms / 1_000).unwrap_or(0));
    let folder = folder.display();
    let segments = || tables.iter().flat_map(|table| &table.segments);
    let rows: u64 = segments().map(|segment| segment.live_rows()).sum();
    let (cluster, seq) = (cluster.cluster, at.seq);
    writeln!(out, "cluster {cluster}: rebuilt as of commit {seq} of {told} into {folder}")?;
    writeln!(
        out,
        "tables: {}, views: {}, segments: {}, rows: {rows}",
        tables.len(),
        views.len(),
        segments().count()
    )?;
    for table in &recovered.tables {
        let definition = &table.definition;
        let rows: u64 = table.segments.iter().map(|segment| segment.rows).sum();
        writeln!(
            out,
            "no record names them: {} segments with {rows} rows, in {}.\"{}\"",
            table.segments.len(),
            definition.schema,
            definition.name
        )?;
    }
    for left in &recovered.left {
        writeln!(out, "not salvaged: {left}")?;
    }
    writeln!(
        out,
        "what was committed after that is not in it, rows that were deleted after it are back, and \
         labels are not known any more"
    )?;
    writeln!(out, "start it: basalt coordinator --data-dir {folder} --listen <the old address>")?;
    Ok(())
}
