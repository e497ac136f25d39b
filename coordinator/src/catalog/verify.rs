//! The offline check of a catalog: everything that opening checks, and more, as a report.

use std::path::Path;

use basalt_engine::snapshot::Relation;
use basalt_storage::digest::Digest;
use basalt_storage::ids::Epoch;
use redb::ReadableDatabase;

use super::checkpoint;
use super::directory::Directory;
use super::error::CatalogError;
use super::log::{Missing, Replay, open_database, stored_checkpoint};
use super::record::Chain;
use super::state::State;

/// What is in a catalog, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Records of the log, all of them checked; 0 when the log is damaged.
    pub records: u64,
    /// The epoch of the last record.
    pub epoch: Epoch,
    /// BLAKE3 of the last record.
    pub head: Digest,
    /// Digest of the state after the last record.
    pub state: Option<Digest>,
    /// The record that the checkpoint was taken after, when there is one and it is sound.
    pub checkpoint: Option<u64>,
    /// Tables at the last record.
    pub tables: u64,
    /// Live segments of all tables.
    pub segments: u64,
    /// Rows of all live segments, deleted ones included.
    pub rows: u64,
    /// What is wrong; empty when nothing is.
    pub problems: Vec<String>,
}

impl Report {
    /// Whether everything is as it should be.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    fn count(&mut self, state: &State) {
        for relation in state.schemas.values().flat_map(|schema| schema.relations.values()) {
            if let Relation::Table(table) = relation {
                self.tables += 1;
                self.segments += table.segments.len() as u64;
                self.rows += table.segments.iter().map(|segment| segment.rows).sum::<u64>();
            }
        }
    }
}

/// Checks the catalog in the data directory `path`, which no process may have open.
///
/// Checks every page, record and link of the chain, replays the log from its first record
/// whatever the checkpoint says, and compares the checkpoint with the state replayed.
/// Damage is in the report; an error means that the check could not be made.
pub fn verify(path: &Path) -> Result<Report, CatalogError> {
    let directory = Directory::lock(path)?;
    if !directory.has_catalog()? {
        return Err(CatalogError::NoCluster { path: path.to_owned() });
    }
    let mut report = Report {
        records: 0,
        epoch: Chain::start().epoch,
        head: Chain::start().hash,
        state: None,
        checkpoint: None,
        tables: 0,
        segments: 0,
        rows: 0,
        problems: Vec::new(),
    };
    match check(&directory, &mut report) {
        Ok(()) => Ok(report),
        Err(damage @ (CatalogError::Corrupt { .. } | CatalogError::NewerFormat { .. })) => {
            report.problems.push(damage.to_string());
            Ok(report)
        }
        Err(error) => Err(error),
    }
}

fn check(directory: &Directory, report: &mut Report) -> Result<(), CatalogError> {
    let db = open_database(&directory.catalog(), Missing::Refuse)?;
    let txn = db.begin_read().map_err(CatalogError::database)?;
    let checkpoint = match stored_checkpoint(&txn)?.as_deref().map(checkpoint::decode).transpose() {
        Ok(checkpoint) => checkpoint,
        Err(damage) => {
            report.problems.push(damage.to_string());
            None
        }
    };
    let at = checkpoint.as_ref().map(|checkpoint| checkpoint.state.version());
    let replay = Replay::run_watching(&txn, None, at)?;
    report.records = replay.chain.seq;
    report.epoch = replay.chain.epoch;
    report.head = replay.chain.hash;
    report.state = Some(replay.state.digest()?);
    report.count(&replay.state);
    if let Some(checkpoint) = checkpoint {
        let digest = checkpoint.state.digest()?;
        if replay.watched == Some(digest) && replay.watched_record == Some(checkpoint.record) {
            report.checkpoint = at;
        } else {
            report.problems.push("the checkpoint is not what the log says".to_owned());
        }
    }
    Ok(())
}
