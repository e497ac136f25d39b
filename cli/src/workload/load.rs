//! Loading the Parquet files into a cluster, by the COPY that users have.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use basalt_sql_tests::client::Client;

use super::{Declared, Table, Workload, parquet_rows};
use crate::terminal;

/// What loading did.
#[derive(Debug, Clone, Copy)]
pub struct Loaded {
    /// Rows of all tables.
    pub rows: u64,
    /// Tables that were loaded now; the others were there.
    pub tables: usize,
    /// Time in COPY.
    pub time: Duration,
}

/// Creates the tables that are missing as `declared` says, and fills those that are empty from `<dir>/<table>.parquet`.
///
/// # Errors
/// What the server says; a table whose rows are not those of its file, with the remedy.
pub async fn load(
    client: &mut Client,
    workload: &Workload,
    dir: &Path,
    declared: Declared,
) -> anyhow::Result<Loaded> {
    let dir = std::fs::canonicalize(dir)
        .with_context(|| format!("folder {} cannot be found", dir.display()))?;
    let mut loaded = Loaded { rows: 0, tables: 0, time: Duration::ZERO };
    let bar = terminal::bar(workload.tables.len() as u64, "loading");
    for table in workload.tables {
        bar.set_message(format!("loading {}", table.name));
        let file = dir.join(format!("{}.parquet", table.name));
        let expected = parquet_rows(&file)?;
        client.execute_update(&table.create(declared)).await?;
        let mut rows = count(client, table).await?;
        if rows == 0 && expected > 0 {
            let start = Instant::now();
            let path = file.to_string_lossy().replace('\'', "''");
            let copy = format!("COPY {} FROM '{path}' FORMAT PARQUET", table.name);
            client.execute_update(&copy).await?;
            loaded.time += start.elapsed();
            loaded.tables += 1;
            rows = count(client, table).await?;
        }
        if rows != expected {
            bail!(
                "table {} has {rows} rows and {} has {expected}: drop the table, or use another \
                 cluster or data folder",
                table.name,
                file.display()
            );
        }
        loaded.rows += rows;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(loaded)
}

/// Drops all tables, with what is in them.
///
/// # Errors
/// What the server says.
pub async fn drop_tables(client: &mut Client, workload: &Workload) -> anyhow::Result<()> {
    for table in workload.tables {
        client.execute_update(&format!("DROP TABLE IF EXISTS {}", table.name)).await?;
    }
    Ok(())
}

async fn count(client: &mut Client, table: &Table) -> anyhow::Result<u64> {
    let (_, batches) = client.query_all(&format!("SELECT count(*) FROM {}", table.name)).await?;
    let batch = batches.iter().find(|batch| batch.num_rows() == 1).context("count(*) has a row")?;
    let count = batch.column(0).as_primitive_opt::<Int64Type>().context("count(*) is a BIGINT")?;
    Ok(u64::try_from(count.value(0))?)
}
