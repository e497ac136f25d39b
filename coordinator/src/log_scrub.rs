//! The scrubber of the coordinator's own copy of the command log: reads it again now and then,
//! and takes a damaged record from a member.
//!
//! redb checks its pages when it opens a file and not on ordinary reads, so damage that comes
//! later would be found at the next start, when it is too late to be picky.

use std::time::Duration;

use basalt_engine::channels::Channels;
use basalt_engine::protocol::WireId;
use basalt_storage::command_log::RecordError;
use tokio_util::sync::CancellationToken;

use crate::catalog::{Catalog, CatalogError};
use crate::log_links::{log_client, read};

/// How often: the log is small, and all of it is needed when it is needed.
pub const LOG_SCRUB_EVERY: Duration = Duration::from_secs(3600);

/// What a scrub found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scrubbed {
    /// Nothing.
    Sound,
    /// So many damaged records, all of them replaced by a member's.
    Repaired(u64),
    /// Damage that no member could repair: the catalog takes no more commits.
    Damaged(String),
}

/// Scrubs the own copy of a catalog's log.
#[derive(Clone)]
pub struct LogScrub {
    catalog: Catalog,
    channels: Channels,
}

impl LogScrub {
    /// A scrubber that reaches members by `channels`.
    pub fn new(catalog: Catalog, channels: Channels) -> Self {
        Self { catalog, channels }
    }

    /// Scrubs every so often, until `stop` is cancelled.
    pub async fn run(&self, every: Duration, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
            match self.scrub_now().await {
                Ok(Scrubbed::Sound) => tracing::debug!("the command log is sound"),
                Ok(found) => tracing::error!(?found, "the command log was damaged"),
                Err(error) => tracing::warn!(%error, "the command log cannot be checked"),
            }
        }
    }

    /// Reads the whole log again, and repairs what can be.
    ///
    /// What is in memory is right, and members have copies. But a log that cannot be opened again
    /// must not go on: a coordinator whose log is beyond repair takes no more commits, and is to
    /// be restored from its members.
    ///
    /// # Errors
    /// When the log cannot be read at all.
    pub async fn scrub_now(&self) -> Result<Scrubbed, CatalogError> {
        let mut repaired = 0;
        loop {
            let log = self.catalog.log();
            let damage = match blocking(move || log.verify()).await {
                Ok(None) if repaired == 0 => return Ok(Scrubbed::Sound),
                Ok(None) => return Ok(Scrubbed::Repaired(repaired)),
                Ok(Some(damage)) => damage,
                Err(stopped @ CatalogError::Stopped { .. }) => return Err(stopped),
                Err(error) => return self.give_up(error.to_string()).await,
            };
            let RecordError::Corrupt { seq, .. } = &damage else {
                return self.give_up(damage.to_string()).await;
            };
            if !self.repair(*seq).await? {
                return self.give_up(damage.to_string()).await;
            }
            tracing::warn!(%damage, "a log record was damaged, and taken from a log member");
            repaired += 1;
        }
    }

    async fn give_up(&self, damage: String) -> Result<Scrubbed, CatalogError> {
        self.catalog.stop_commits(damage.clone()).await;
        Ok(Scrubbed::Damaged(damage))
    }

    /// Takes a record from the first member that has it.
    async fn repair(&self, seq: u64) -> Result<bool, CatalogError> {
        let cluster = self.catalog.cluster().cluster.to_wire();
        let snapshot = self.catalog.snapshot();
        for member in self.catalog.log_status().members {
            let Some(url) = snapshot.cluster.workers.get(&member.worker) else { continue };
            let named = Some(member.worker);
            let Ok(mut client) = log_client(&self.channels, named, url) else { continue };
            let records = match read(&mut client, cluster.clone(), seq - 1).await {
                Ok(records) => records,
                Err(status) => {
                    tracing::debug!(worker = %member.worker, problem = status.message(),
                        "a log member has no copy of a damaged record");
                    continue;
                }
            };
            let Some(record) = records.into_iter().next() else { continue };
            let log = self.catalog.log();
            if blocking(move || log.repair(seq, &record)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CatalogError> + Send + 'static,
) -> Result<T, CatalogError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(CatalogError::Stopped { reason: error.to_string() }),
    }
}
