//! Reading the log while it is written: for members that lag, and for the scrubber.
//!
//! Invariant: once a log is closed no reader has its file open, so that the next one can.

use std::sync::{Arc, PoisonError, RwLock};

use basalt_storage::command_log::{Chain, RecordError};
use basalt_storage::digest::Digest;
use redb::{Database, ReadableDatabase};

use super::{CatalogError, LOG, RawRecord, stored_ends};
use crate::catalog::ledger::Run;

/// The open database; `None` once it is closed.
pub(super) struct Shared(RwLock<Option<Database>>);

impl Shared {
    pub(super) fn new(db: Database) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Some(db))))
    }

    /// Waits for those who read, and closes the file.
    pub(super) fn close(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(super) fn with<T>(
        &self,
        f: impl FnOnce(&Database) -> Result<T, CatalogError>,
    ) -> Result<T, CatalogError> {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            Some(db) => f(db),
            None => Err(CatalogError::Stopped { reason: "the catalog is closed".to_owned() }),
        }
    }
}

/// Reads a log that is open elsewhere in this process.
#[derive(Clone)]
pub struct LogReader(Arc<Shared>);

impl LogReader {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self(Arc::clone(shared))
    }

    /// Records after record `after`: at least one when there is one, and no more when they have
    /// `bytes_max` bytes. Each has its own checksum; who takes them checks the chain. Blocks.
    ///
    /// # Errors
    /// [`CatalogError::Stopped`] once the catalog is closed, and what the database says.
    pub fn run(&self, after: u64, bytes_max: usize) -> Result<Run, CatalogError> {
        self.0.with(|db| {
            let txn = db.begin_read().map_err(CatalogError::database)?;
            let table = txn.open_table(LOG).map_err(CatalogError::database)?;
            let hash = match after {
                0 => Chain::start().hash,
                _ => {
                    let found = table.get(after).map_err(CatalogError::database)?;
                    let missing = || CatalogError::corrupt_record(after, "is missing");
                    Digest::of(found.ok_or_else(missing)?.value())
                }
            };
            let (mut records, mut bytes) = (Vec::new(), 0);
            for entry in table.range(after + 1..).map_err(CatalogError::database)? {
                let (_, record) = entry.map_err(CatalogError::database)?;
                bytes += record.value().len();
                records.push(Arc::from(record.value()));
                if bytes >= bytes_max {
                    break;
                }
            }
            Ok(Run { hash, records })
        })
    }

    /// Reads every record again: its checksum, and that it continues the one before. Says which is
    /// the first that does not. Blocks.
    ///
    /// # Errors
    /// [`CatalogError::Corrupt`] when the damage is beyond single records.
    pub fn verify(&self) -> Result<Option<RecordError>, CatalogError> {
        self.0.with(|db| {
            let txn = db.begin_read().map_err(CatalogError::database)?;
            let (head, _) = stored_ends(&txn)?;
            let table = txn.open_table(LOG).map_err(CatalogError::database)?;
            let mut chain = Chain::start();
            for entry in table.range::<u64>(..).map_err(CatalogError::database)? {
                let (key, bytes) = entry.map_err(CatalogError::database)?;
                let followed = RawRecord::decode(key.value(), bytes.value())
                    .and_then(|record| chain.follow(key.value(), &record));
                if let Err(error) = followed {
                    return Ok(Some(error));
                }
            }
            if chain != head {
                return Err(super::head_corrupt("does not match the last record"));
            }
            Ok(None)
        })
    }

    /// Puts `bytes` in the place of a damaged record, if they are what was there: their hash is in
    /// the record after them, or in the head. On `Ok(true)` that survives a crash. Blocks.
    ///
    /// # Errors
    /// What the database says.
    pub fn repair(&self, seq: u64, bytes: &[u8]) -> Result<bool, CatalogError> {
        if RawRecord::decode(seq, bytes).is_err() {
            return Ok(false);
        }
        self.0.with(|db| {
            let wanted = hash_of(db, seq)?;
            if wanted != Some(Digest::of(bytes)) {
                return Ok(false);
            }
            let write = || -> Result<(), redb::Error> {
                let mut txn = db.begin_write()?;
                txn.set_two_phase_commit(true);
                txn.open_table(LOG)?.insert(seq, bytes)?;
                txn.commit()?;
                Ok(())
            };
            write().map_err(CatalogError::database)?;
            Ok(true)
        })
    }
}

/// The hash that record `seq` must have, as the record after it or the head says.
fn hash_of(db: &Database, seq: u64) -> Result<Option<Digest>, CatalogError> {
    let txn = db.begin_read().map_err(CatalogError::database)?;
    let (head, _) = stored_ends(&txn)?;
    if seq == head.seq {
        return Ok(Some(head.hash));
    }
    let table = txn.open_table(LOG).map_err(CatalogError::database)?;
    let Some(next) = table.get(seq + 1).map_err(CatalogError::database)? else { return Ok(None) };
    Ok(RawRecord::decode(seq + 1, next.value()).ok().map(|next| next.prev))
}
