//! When the load is over nothing of it is left: no statement, no staged file, no garbage, and no memory that
//! is reserved.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::gauges::files_below;
use super::load::Hand;
use crate::faults::cluster::Cluster;

/// How long compaction, garbage collection and cancelled queries may take to end.
const QUIET_WITHIN: Duration = Duration::from_secs(60);
/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Waits until nothing is under way and nothing is left over.
///
/// # Errors
/// What is left.
pub async fn all_is_quiet(cluster: &Cluster, hand: &mut Hand) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        match left_over(cluster, hand).await? {
            None => return Ok(()),
            Some(left) => ensure!(started.elapsed() < QUIET_WITHIN, "left over: {left}"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Something that should not be there any more.
async fn left_over(cluster: &Cluster, hand: &mut Hand) -> anyhow::Result<Option<String>> {
    let running = "SELECT count(*) FROM sys.queries WHERE state = 'running'";
    let running = hand.numbers(running).await?;
    if running != [1] {
        return Ok(Some(format!("{running:?} statements that run, this one among them")));
    }
    let reserved = "SELECT count(*) FROM sys.cache WHERE room_bytes < budget_bytes";
    let reserved = hand.numbers(reserved).await?;
    if reserved != [0] {
        return Ok(Some(format!("memory of queries on {reserved:?} workers")));
    }
    let live = hand.rows("SELECT segment, holders FROM sys.segments").await?;
    let holders = |text: &str| text.split(", ").filter(|holder| !holder.is_empty()).count();
    let live = live.into_iter().map(|row| match &row[..] {
        [segment, of] => Ok((segment.replace('-', ""), holders(of))),
        row => Err(anyhow::anyhow!("a row {row:?}")),
    });
    let live = live.collect::<anyhow::Result<BTreeMap<_, _>>>()?;
    let mut stored: BTreeMap<String, usize> = BTreeMap::new();
    for id in cluster.workers() {
        let home = cluster.home(id);
        let mut here: Vec<String> = Vec::new();
        for (path, _) in files_below(home)? {
            let below = path.strip_prefix(home).context("a file lies below its folder")?;
            let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
            match parts.first().map(AsRef::as_ref) {
                // chunks/<table>/<slice>/<segment>/... or <segment>.pack...
                Some("chunks") if parts.len() > 3 => {
                    here.push(parts[3].split('.').next().unwrap_or_default().to_owned());
                }
                Some("tmp" | "spill" | "quarantine") => {
                    return Ok(Some(format!("{id} has {}", below.display())));
                }
                _ => {}
            }
        }
        here.sort_unstable();
        here.dedup();
        here.into_iter().for_each(|segment| *stored.entry(segment).or_default() += 1);
    }
    let differs = stored.iter().find(|(segment, copies)| live.get(*segment) != Some(*copies));
    Ok(match differs {
        Some((segment, copies)) => {
            let wanted = live.get(segment).copied().unwrap_or_default();
            let count = stored.len();
            Some(format!("segment {segment} has {copies} copies, not {wanted}; {count} are stored"))
        }
        None if stored.len() != live.len() => {
            Some(format!("{} segments are stored and {} are live", stored.len(), live.len()))
        }
        None => None,
    })
}
