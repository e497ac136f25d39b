//! The command line.

mod bench;
mod catalog;
mod coordinator;
mod demo;
mod fuzz;
mod load;
mod slt;
mod sql;
mod start;
mod status;
mod worker;

use basalt_sql_tests::client::{Client, ClientError, DEFAULT_URL};
use clap::{Args, Parser, Subcommand};

use crate::logging::Verbosity;

/// Basalt: a self-hosted columnar analytics engine
///
/// Start with `basalt demo`: it makes a three-worker cluster on this machine, loads TPC-H and
/// answers its 22 queries. Then `basalt sql` is the shell.
#[derive(Debug, Parser)]
#[command(name = "basalt", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Load TPC-H into a cluster on this machine, run its queries, and serve
    Demo(demo::DemoArgs),
    /// Serve an embedded cluster: coordinator and workers in this process
    Start(start::StartArgs),
    /// Serve as the coordinator of a cluster
    Coordinator(coordinator::CoordinatorArgs),
    /// Serve as a worker of a cluster
    Worker(worker::WorkerArgs),
    /// Check a catalog, or make it again from the copies of workers
    Catalog(catalog::CatalogArgs),
    /// SQL shell: interactive, or fed by -c, -f or a pipe
    Sql(sql::SqlArgs),
    /// Upload Parquet and CSV files of this machine into a table, in one commit
    Load(load::LoadArgs),
    /// Show the workers and tables of a cluster
    Status(status::StatusArgs),
    /// Run sqllogictest files against a cluster
    Slt(slt::SltArgs),
    /// Compare generated queries with plain DataFusion and with themselves
    Fuzz(fuzz::FuzzArgs),
    /// Measure a cluster against its peers on the same files
    ///
    /// Loads the files into the cluster by COPY where its tables are missing, then runs every query,
    /// warm unless it is --cold, on the cluster and on plain DataFusion over the files, alternating,
    /// and prints the medians and their ratio. --duckdb adds DuckDB with native tables to loads and
    /// queries. Without --url, --processes or --workers it measures an embedded cluster of three
    /// workers.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
}

impl Command {
    /// How much is logged by default.
    pub fn verbosity(&self) -> Verbosity {
        match self {
            Self::Start(_) | Self::Coordinator(_) | Self::Worker(_) => Verbosity::Server,
            _ => Verbosity::Quiet,
        }
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// Whatever should be printed, with the exit code that [`crate::exit::code`] gives it.
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Demo(args) => demo::run(args).await,
            Self::Start(args) => start::run(args).await,
            Self::Coordinator(args) => coordinator::run(args).await,
            Self::Worker(args) => worker::run(args).await,
            Self::Catalog(args) => catalog::run(args).await,
            Self::Sql(args) => sql::run(args).await,
            Self::Load(args) => load::run(args).await,
            Self::Status(args) => status::run(args).await,
            Self::Slt(args) => slt::run(args).await,
            Self::Fuzz(args) => fuzz::run(args).await,
            Self::Bench(args) => bench::run(args).await,
        }
    }
}

/// Which cluster a client command talks to.
#[derive(Debug, Clone, Args)]
pub struct UrlFlag {
    /// Flight SQL address of the cluster
    #[arg(long, value_name = "URL", env = "BASALT_URL", default_value = DEFAULT_URL)]
    pub url: String,
}

impl UrlFlag {
    async fn connect(&self) -> Result<Client, ClientError> {
        Client::connect(&self.url).await
    }
}
