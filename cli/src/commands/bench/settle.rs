//! Waiting for the background: hot queries are measured where tables lie as they will.

use std::time::{Duration, Instant};

use anyhow::Context;
use arrow::array::RecordBatch;
use basalt_sql_tests::client::Client;

use super::number;
use crate::terminal;
use crate::workload::{self, Workload};

/// Segments that should be on every worker and are not yet.
const NOT_EVERYWHERE: &str = "SELECT count(*) FROM sys.segments s JOIN sys.tables t USING (table_id) \
     WHERE t.colocation = 'all workers' AND length(s.holders) - length(replace(s.holders, ',', '')) + 1 \
     < (SELECT count(*) FROM sys.workers)";
/// How long copies may take that are made in the background after a load: hot queries find them there.
const COPIED_WITHIN: Duration = Duration::from_secs(60);

/// Waits for the copies of tables that every worker should have.
pub(super) async fn wait_copied(client: &mut Client) -> anyhow::Result<()> {
    let started = Instant::now();
    while number(client, NOT_EVERYWHERE).await? > 0 {
        if started.elapsed() > COPIED_WITHIN {
            tracing::warn!("tables are not copied to all workers yet: queries fetch from others");
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// How often tables left to AUTO may change where their rows lie before they stay.
const CHANGES_MAX: u16 = 12;
/// What has become of AUTO, as one text: which changes while rows are written by a key.
const DISTRIBUTIONS: &str = "SELECT string_agg(table_name || ' ' || distribution || ' ' || \
     coalesce(distribution_reason, ''), ', ' ORDER BY table_name) FROM sys.tables";
/// Nothing is under way when that has been the same for so long: columns are looked at meanwhile, and the background
/// pauses as long as it works.
const AT_REST_AFTER: Duration = Duration::from_secs(15);
/// How long tables may be written anew.
const WRITTEN_WITHIN: Duration = Duration::from_secs(1_200);

/// Runs all queries again and again until so many rounds of them have changed no table's distribution.
pub(super) async fn settle_distribution(
    client: &mut Client,
    workload: &Workload,
    rounds_unchanged: u16,
) -> anyhow::Result<()> {
    let bar = terminal::bar(u64::from(rounds_unchanged), "letting AUTO see the queries");
    let (mut last, mut unchanged) = (distributions(client).await?, 0);
    let mut changes = 0;
    while changes < CHANGES_MAX {
        for query in workload.queries {
            workload::run(client, query).await.with_context(|| format!("query {}", query.name))?;
        }
        unchanged += 1;
        if unchanged < rounds_unchanged && distributions(client).await? == last {
            bar.inc(1);
            continue;
        }
        let now = distributions_at_rest(client).await?;
        if now == last {
            bar.finish_and_clear();
            return wait_copied(client).await;
        }
        (last, unchanged, changes) = (now, 0, changes + 1);
        bar.set_position(0);
    }
    anyhow::bail!("after {CHANGES_MAX} changes AUTO still changes where rows lie")
}

async fn distributions(client: &mut Client) -> anyhow::Result<Vec<RecordBatch>> {
    Ok(client.query_all(DISTRIBUTIONS).await?.1)
}

async fn distributions_at_rest(client: &mut Client) -> anyhow::Result<Vec<RecordBatch>> {
    let started = Instant::now();
    let (mut last, mut since) = (distributions(client).await?, Instant::now());
    while since.elapsed() < AT_REST_AFTER {
        anyhow::ensure!(started.elapsed() < WRITTEN_WITHIN, "tables are still written anew");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = distributions(client).await?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(last)
}
