//! `basalt status`: workers and tables at a glance.

use std::io::Write;

use basalt_sql_tests::client::Client;
use clap::Args;

use super::UrlFlag;
use crate::format::{self, Format, TableOptions};
use crate::terminal;

/// Show the workers and tables of a cluster
///
/// Exit code 1 when the cluster cannot be reached. The same is in SQL: sys.workers, sys.tables.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    url: UrlFlag,
    /// How to print; csv and json print the two tables one after the other
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub(super) async fn run(args: StatusArgs) -> anyhow::Result<()> {
    let mut client = args.url.connect().await?;
    let mut out = std::io::stdout();
    if args.format == Format::Table {
        writeln!(out, "cluster at {}", client.url())?;
    }
    for (title, table) in [("workers", "sys.workers"), ("tables", "sys.tables")] {
        let text = show(&mut client, table, args.format).await?;
        if args.format == Format::Table {
            writeln!(out, "\n{title}")?;
        }
        out.write_all(text.as_bytes())?;
    }
    Ok(())
}

async fn show(client: &mut Client, table: &str, format: Format) -> anyhow::Result<String> {
    let (schema, batches) = client.query_all(&format!("SELECT * FROM {table}")).await?;
    let options = TableOptions { width: terminal::width(), ..TableOptions::default() };
    Ok(format::to_text(format, &schema, &batches, options)?)
}
