//! `basalt demo`: from nothing to the 22 queries of TPC-H, in one command.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt64Array};
use basalt_sql_tests::client::Client;
use clap::Args;

use crate::config::{ClusterConfig, ServerFlags};
use crate::exit::Interrupted;
use crate::format::{self, Format, TableOptions};
use crate::memory::{MemoryFlags, ResultCacheFlag};
use crate::shell::{duration_text, grouped};
use crate::tpch::TPCH;
use crate::workload::Declared;
use crate::{data_dir, roles, serve, terminal, workload};

/// Load TPC-H into a cluster on this machine, run its queries, and serve
///
/// Generates the data as Parquet below the data folder, loads it by COPY, runs the 22 queries
/// through the Flight SQL endpoint, prints rows and times, and serves until Ctrl-C. A second run
/// uses what the first one made.
///
/// Defaults: data in ./basalt-data, Flight SQL on 127.0.0.1:50051, COPY may read the
/// current folder.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Scale of TPC-H: 1 is about 1 GB as text and 8.7 million rows
    #[arg(long, value_name = "SF", default_value_t = 1.0)]
    scale: f64,
    /// Number of workers [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    workers: Option<u16>,
    /// Stop after the queries instead of serving
    #[arg(long)]
    exit: bool,
    #[command(flatten)]
    memory: MemoryFlags,
    #[command(flatten)]
    server: ServerFlags,
}

pub(super) async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let workers = args.workers.map(usize::from);
    let mut config = ClusterConfig::resolve(
        args.server,
        workers,
        args.memory,
        ResultCacheFlag::default(),
        "basalt-data",
    )?;
    let home = config.data_dir;
    let files = home.join(format!("tpch-sf{}", args.scale));
    config.data_dir = home.join(format!("demo-sf{}-w{}", args.scale, config.workers));
    config.allow_path.push(files.clone());

    let mut out = std::io::stdout();
    let shown = config.data_dir.display();
    let workers = if config.workers == 1 { "worker" } else { "workers" };
    writeln!(out, "TPC-H scale {} on {} {workers}, data in {shown}", args.scale, config.workers)?;
    workload::generate(&TPCH, &files, args.scale).await?;
    data_dir::claim(&config.data_dir, config.workers)?;
    let running = roles::start_cluster(config).await?;
    let shown = tokio::select! {
        shown = show(&running.url, &files) => shown,
        Ok(()) = tokio::signal::ctrl_c() => Err(Interrupted.into()),
    };
    if shown.is_err() || args.exit {
        let stopped = running.stop().await;
        return shown.and(stopped);
    }
    out.write_all(connect_text(&running.url).as_bytes())?;
    serve::wait_and_stop(running).await
}

/// Loads and queries through the front door, as every client does.
async fn show(url: &str, files: &Path) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let mut client = Client::connect(url).await?;
    let loaded =
        workload::load(&mut client, &TPCH, &PathBuf::from(files), Declared::default()).await?;
    let rows = grouped(loaded.rows);
    if loaded.tables == 0 {
        writeln!(out, "{rows} rows are there from an earlier run\n")?;
    } else {
        writeln!(out, "loaded {rows} rows in {}\n", duration_text(loaded.time))?;
    }
    let bar = terminal::bar(TPCH.queries.len() as u64, "running");
    let mut results = Vec::new();
    for query in TPCH.queries {
        bar.set_message(format!("running {}", query.name));
        let (rows, time) = workload::run(&mut client, query)
            .await
            .map_err(|error| anyhow::Error::new(error).context(format!("query {}", query.name)))?;
        results.push((query.name, rows, time));
        bar.inc(1);
    }
    bar.finish_and_clear();
    out.write_all(results_text(&results)?.as_bytes())?;
    let total: Duration = results.iter().map(|(_, _, time)| *time).sum();
    writeln!(out, "22 queries in {}", duration_text(total))?;
    Ok(())
}

fn results_text(results: &[(&str, u64, Duration)]) -> anyhow::Result<String> {
    let names: StringArray = results.iter().map(|(name, ..)| Some(*name)).collect();
    let rows: UInt64Array = results.iter().map(|(_, rows, _)| Some(*rows)).collect();
    let times: Float64Array = results
        .iter()
        .map(|(.., time)| Some((time.as_secs_f64() * 10_000.0).round() / 10.0))
        .collect();
    let columns: [(&str, ArrayRef); 3] =
        [("query", Arc::new(names)), ("rows", Arc::new(rows)), ("ms", Arc::new(times))];
    let batch = RecordBatch::try_from_iter(columns)?;
    let schema = batch.schema();
    Ok(format::to_text(Format::Table, &schema, &[batch], TableOptions::default())?)
}

fn connect_text(url: &str) -> String {
    format!(
        r#"
Serving until Ctrl-C. Connect from another terminal:
  shell            basalt sql --url {url}
  one statement    basalt sql --url {url} -c "SELECT count(*) FROM lineitem"
  Python           pip install adbc-driver-flightsql adbc-driver-manager pyarrow

    import adbc_driver_flightsql.dbapi as basalt
    with basalt.connect("{url}", autocommit=True) as db, db.cursor() as cursor:
        cursor.execute("SELECT n_name, count(*) FROM nation GROUP BY n_name")
        print(cursor.fetch_arrow_table())
"#
    )
}
