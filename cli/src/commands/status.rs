//! `basalt status`: workers, tables and copies at a glance.

use std::io::Write;

use basalt_sql_tests::client::Client;
use clap::Args;

use super::UrlFlag;
use crate::format::{self, Format, TableOptions};
use crate::terminal;

/// What is shown, each with its title.
const SECTIONS: [(&str, &str); 4] = [
    ("workers", "SELECT * FROM sys.workers"),
    (
        "tables",
        "SELECT schema_name, table_name, distribution, replicas, sort_key, unsorted, columns, \
         segments, rows, bytes FROM sys.tables",
    ),
    (
        "column chunks and their copies",
        "SELECT state, copies_wanted, copies_reachable, count(*) AS chunks, sum(bytes) AS bytes \
         FROM sys.chunks GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
    ),
    (
        "copies that are being made",
        "SELECT table_name, worker, reason, count(*) AS segments FROM sys.repairs \
         WHERE state = 'running' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
    ),
];

/// Show the workers, tables and copies of a cluster
///
/// Exit code 1 when the cluster cannot be reached. The same is in SQL: sys.workers, sys.tables,
/// sys.chunks, sys.repairs.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    url: UrlFlag,
    /// How to print; csv and json print the tables one after the other
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub(super) async fn run(args: StatusArgs) -> anyhow::Result<()> {
    let mut client = args.url.connect().await?;
    let mut out = std::io::stdout();
    if args.format == Format::Table {
        writeln!(out, "cluster at {}", client.url())?;
    }
    for (title, sql) in SECTIONS {
        let text = show(&mut client, sql, args.format).await?;
        if args.format == Format::Table {
            writeln!(out, "\n{title}")?;
        }
        out.write_all(text.as_bytes())?;
    }
    Ok(())
}

async fn show(client: &mut Client, sql: &str, format: Format) -> anyhow::Result<String> {
    let (schema, batches) = client.query_all(sql).await?;
    let options = TableOptions { width: terminal::width(), ..TableOptions::default() };
    Ok(format::to_text(format, &schema, &batches, options)?)
}
