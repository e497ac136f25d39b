//! `basalt catalog rebuild`: a catalog made again from what workers keep of its commits.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use basalt_coordinator::catalog::rebuild::{Rebuilt, WorkerRecords, found, rebuild};
use basalt_coordinator::commit_sources::{WorkerFolder, ask_worker};
use basalt_engine::channels::Channels;
use basalt_engine::secret::ClusterSecret;
use clap::Args;
use tokio::runtime::Handle;

use crate::roles::http_url;

/// Make the catalog again from the workers' commit records, when nothing else is left of it
///
/// For the day when the coordinator's disk is gone and `basalt catalog restore` finds too few
/// copies of its log. Name all workers: those that run by their address, those that do not, or that
/// wait for their coordinator, by their data folder. What comes out is the database at the newest
/// commit that any of them knows; commits of the last moment may be missing, and writes that are
/// sent again under their labels are new ones. When more than that is doubtful, it is printed and
/// nothing is written. Then start the coordinator in the new data folder, at the address that the
/// workers know.
#[derive(Debug, Args)]
pub(super) struct RebuildArgs {
    /// The coordinator's new data folder; made when missing
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// A copy of the cluster.secret that the workers were started with
    #[arg(long, value_name = "FILE")]
    secret_file: PathBuf,
    /// Address or data folder of a worker (repeatable)
    #[arg(long, value_name = "URL|DIR", required = true)]
    from: Vec<String>,
    /// Rebuild what is there although more may be missing: only when the other workers are gone for
    /// good
    #[arg(long)]
    accept_loss: bool,
}

pub(super) fn run(args: &RebuildArgs, runtime: &Handle) -> anyhow::Result<()> {
    let secret = ClusterSecret::read(&args.secret_file)?;
    let sources = Sources::open(&args.from, &secret, runtime)?;
    let rebuilt = rebuild(&sources.records)?;
    let mut out = std::io::stdout();
    print_doubts(&rebuilt, &mut out)?;
    let is_doubtful = rebuilt.doubts.iter().any(|doubt| !doubt.is_harmless());
    if is_doubtful && !args.accept_loss {
        bail!(
            "nothing was written: with --accept-loss what is there would be, without what is doubtful"
        );
    }
    found(&args.data_dir, &secret, &rebuilt)?;
    print_rebuilt(&rebuilt, &args.data_dir, &mut out)
}

/// The workers, and the locks of their folders.
struct Sources {
    records: Vec<WorkerRecords>,
    _folders: Vec<WorkerFolder>,
}

impl Sources {
    fn open(from: &[String], secret: &ClusterSecret, runtime: &Handle) -> anyhow::Result<Self> {
        let channels = Channels::new(secret)?;
        let (mut records, mut folders) = (Vec::new(), Vec::new());
        for from in from {
            if Path::new(from).is_dir() {
                let folder = WorkerFolder::open(Path::new(from)).map_err(anyhow::Error::msg)?;
                records.push(folder.records.clone());
                folders.push(folder);
            } else {
                let url = http_url(from)
                    .with_context(|| format!("{from} is neither a folder nor an address"))?;
                let asked = runtime.block_on(ask_worker(&channels, &url));
                records.push(asked.map_err(anyhow::Error::msg)?);
            }
        }
        Ok(Self { records, _folders: folders })
    }
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
    let Rebuilt { at, cluster, tables, views, .. } = rebuilt;
    let folder = folder.display();
    let segments = || tables.iter().flat_map(|table| &table.segments);
    let rows: u64 = segments().map(|segment| segment.live_rows()).sum();
    writeln!(out, "cluster {}: rebuilt as of commit {} into {folder}", cluster.cluster, at.seq)?;
    writeln!(
        out,
        "tables: {}, views: {}, segments: {}, rows: {rows}",
        tables.len(),
        views.len(),
        segments().count()
    )?;
    writeln!(out, "what was committed after that is not in it, and labels are not known any more")?;
    writeln!(out, "start it: basalt coordinator --data-dir {folder} --listen <the old address>")?;
    Ok(())
}
