//! The log on disk: records, the head and the checkpoint, in one redb file.
//!
//! ```text
//! table "log"   sequence number -> record (record.rs)
//! table "meta"  "head"          -> seq 8, epoch 8, BLAKE3 of the last record 32, CRC-32C 4
//!               "checkpoint"    -> checkpoint (checkpoint.rs)
//! ```
//! redb makes each write transaction atomic, so a crash leaves whole records only and a log that
//! ends where its head says. Therefore *every* failed check is damage, at the tail as well as in
//! the middle, and opening refuses with the number of the record (FAULTS F22): no acknowledged
//! commit is ever cut off in silence.

use std::path::Path;

use basalt_storage::digest::Digest;
use basalt_storage::fail_point::{self, FailPoint};
use basalt_storage::ids::Epoch;
use redb::{Builder, Database, Durability, ReadTransaction, ReadableDatabase, TableDefinition};

use super::checkpoint::{self, Checkpoint};
use super::error::CatalogError;
use super::record::{Chain, RawRecord, Reader};
use super::state::State;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const HEAD: &str = "head";
const CHECKPOINT: &str = "checkpoint";

/// The log is checkpointed when this much was written since the last time, or as much as the
/// last checkpoint took if that is more: so checkpoints at most double what is written, and
/// opening parses about as much log as state.
const CHECKPOINT_EVERY_BYTES_MIN: usize = 4 << 20;

/// redb's page cache. The catalog is read once, at start, and then only appended to.
const CACHE_BYTES: usize = 16 << 20;

/// An open log, at its end.
pub(super) struct Log {
    db: Database,
    chain: Chain,
    since_checkpoint_bytes: usize,
    checkpoint_bytes: usize,
}

impl Log {
    /// Opens the log at `path`, or makes an empty one, and checks every record of it.
    ///
    /// Returns the state after the last record. Fails with [`CatalogError::Corrupt`] or
    /// [`CatalogError::NewerFormat`] naming the first bad record.
    pub(super) fn open(path: &Path, missing: Missing) -> Result<(Self, State), CatalogError> {
        let db = open_database(path, missing)?;
        let txn = db.begin_read().map_err(CatalogError::database)?;
        let stored = stored_checkpoint(&txn)?;
        let checkpoint_bytes = stored.as_ref().map_or(0, Vec::len);
        let start = match stored.as_deref().map(checkpoint::decode).transpose() {
            Ok(start) => start,
            Err(error @ CatalogError::Corrupt { .. }) => {
                tracing::warn!(%error, "replaying the whole log instead");
                None
            }
            Err(error) => return Err(error),
        };
        let replay = Replay::run(&txn, start)?;
        drop(txn);
        let log = Self {
            db,
            chain: replay.chain,
            since_checkpoint_bytes: replay.applied_bytes,
            checkpoint_bytes,
        };
        Ok((log, replay.state))
    }

    /// The end of the log.
    pub(super) fn chain(&self) -> Chain {
        self.chain
    }

    /// Appends records and a checkpoint of `state`, the state after them, when one is due.
    ///
    /// On `Ok` all records are fsynced. On an error none or all of them are; the log must not be
    /// used again, because what the kernel kept of a failed write is unknown (FAULTS A2 rule 3).
    pub(super) fn append(
        &mut self,
        chain: Chain,
        records: &[Vec<u8>],
        state: &State,
    ) -> Result<(), CatalogError> {
        let bytes: usize = records.iter().map(Vec::len).sum();
        let since = self.since_checkpoint_bytes + bytes;
        let due = since >= self.checkpoint_bytes.max(CHECKPOINT_EVERY_BYTES_MIN);
        let checkpoint = if due { Some(checkpoint::encode(state, chain.hash)?) } else { None };
        self.write(chain, records, checkpoint.as_deref()).map_err(CatalogError::database)?;
        fail_point::hit(FailPoint::CatalogAppended);
        self.chain = chain;
        self.since_checkpoint_bytes = since;
        if let Some(checkpoint) = checkpoint {
            self.since_checkpoint_bytes = 0;
            self.checkpoint_bytes = checkpoint.len();
        }
        Ok(())
    }

    /// Writes a checkpoint of `state`, the state at the end of the log, if it has grown since.
    pub(super) fn checkpoint(&mut self, state: &State) -> Result<(), CatalogError> {
        if self.since_checkpoint_bytes == 0 {
            return Ok(());
        }
        let checkpoint = checkpoint::encode(state, self.chain.hash)?;
        self.write(self.chain, &[], Some(&checkpoint)).map_err(CatalogError::database)?;
        self.since_checkpoint_bytes = 0;
        self.checkpoint_bytes = checkpoint.len();
        Ok(())
    }

    fn write(
        &self,
        chain: Chain,
        records: &[Vec<u8>],
        checkpoint: Option<&[u8]>,
    ) -> Result<(), redb::Error> {
        let mut txn = self.db.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        // With one phase, redb answers a damaged newest commit by going back to the one before,
        // silently; with two it refuses to open.
        txn.set_two_phase_commit(true);
        {
            let mut log = txn.open_table(LOG)?;
            for (seq, record) in (self.chain.seq + 1..).zip(records) {
                log.insert(seq, record.as_slice())?;
            }
            let mut meta = txn.open_table(META)?;
            meta.insert(HEAD, encode_head(chain).as_slice())?;
            if let Some(checkpoint) = checkpoint {
                meta.insert(CHECKPOINT, checkpoint)?;
            }
        }
        fail_point::hit(FailPoint::CatalogBeforeFsync);
        txn.commit()?;
        Ok(())
    }
}

/// What opening does when the file is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// Make an empty log.
    Create,
    /// Fail.
    Refuse,
}

/// Opens the file with redb's own page checksums verified: a plain open of a damaged file may
/// panic, this one returns an error.
pub(super) fn open_database(path: &Path, missing: Missing) -> Result<Database, CatalogError> {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    let db = match missing {
        Missing::Create => builder.create(path).map_err(CatalogError::database)?,
        Missing::Refuse => builder.open(path).map_err(database_damage)?,
    };
    if missing == Missing::Create {
        let init = || -> Result<(), redb::Error> {
            let txn = db.begin_write()?;
            txn.open_table(LOG)?;
            txn.open_table(META)?;
            txn.commit()?;
            Ok(())
        };
        init().map_err(CatalogError::database)?;
    }
    Ok(db)
}

fn database_damage(error: redb::DatabaseError) -> CatalogError {
    match error {
        redb::DatabaseError::Storage(redb::StorageError::Corrupted(problem)) => {
            CatalogError::Corrupt { place: "the database file".to_owned(), problem }
        }
        error => CatalogError::database(error),
    }
}

/// The bytes of the checkpoint, unchecked.
pub(super) fn stored_checkpoint(txn: &ReadTransaction) -> Result<Option<Vec<u8>>, CatalogError> {
    let meta = txn.open_table(META).map_err(CatalogError::database)?;
    let stored = meta.get(CHECKPOINT).map_err(CatalogError::database)?;
    Ok(stored.map(|bytes| bytes.value().to_vec()))
}

/// A walk over the whole log that checks every record and applies those after a checkpoint.
pub(super) struct Replay {
    pub(super) chain: Chain,
    pub(super) state: State,
    /// Bytes of the records that were applied.
    pub(super) applied_bytes: usize,
    /// Digest of each wanted state on the way (see [`Self::run_watching`]).
    pub(super) watched: Option<Digest>,
    /// Hash of the record at the watched place.
    pub(super) watched_record: Option<Digest>,
}

impl Replay {
    /// Checks all records; applies those after `start`, or all.
    pub(super) fn run(
        txn: &ReadTransaction,
        start: Option<Checkpoint>,
    ) -> Result<Self, CatalogError> {
        Self::run_watching(txn, start, None)
    }

    /// As [`Self::run`]; also notes the digest of the state after record `watch`.
    pub(super) fn run_watching(
        txn: &ReadTransaction,
        start: Option<Checkpoint>,
        watch: Option<u64>,
    ) -> Result<Self, CatalogError> {
        let (state, known) = match start {
            Some(Checkpoint { state, record }) => (state, Some(record)),
            None => (State::new(), None),
        };
        let mut replay = Self {
            chain: Chain::start(),
            state,
            applied_bytes: 0,
            watched: None,
            watched_record: None,
        };
        let from = replay.state.version();
        let table = txn.open_table(LOG).map_err(CatalogError::database)?;
        for entry in table.range::<u64>(..).map_err(CatalogError::database)? {
            let (key, bytes) = entry.map_err(CatalogError::database)?;
            let (key, bytes) = (key.value(), bytes.value());
            let record = RawRecord::decode(key, bytes)?;
            replay.chain.follow(key, &record)?;
            if key > from {
                replay.apply(&record)?;
                replay.applied_bytes += bytes.len();
            } else if key == from && known != Some(replay.chain.hash) {
                return Err(CatalogError::corrupt_record(
                    key,
                    "is not what the checkpoint follows",
                ));
            }
            if Some(key) == watch {
                replay.watched = Some(replay.state.digest()?);
                replay.watched_record = Some(replay.chain.hash);
            }
        }
        replay.check_end(txn)?;
        Ok(replay)
    }

    fn apply(&mut self, record: &RawRecord<'_>) -> Result<(), CatalogError> {
        let refused =
            |error| CatalogError::corrupt_record(record.seq, format!("cannot be applied: {error}"));
        self.state.apply(record.command()?).map_err(refused)?;
        if self.state.epoch() != record.epoch {
            return Err(CatalogError::corrupt_record(record.seq, "has another epoch than its map"));
        }
        Ok(())
    }

    /// The log ends where its head says, and the state is that of its end.
    fn check_end(&self, txn: &ReadTransaction) -> Result<(), CatalogError> {
        let meta = txn.open_table(META).map_err(CatalogError::database)?;
        let head = match meta.get(HEAD).map_err(CatalogError::database)? {
            Some(bytes) => decode_head(bytes.value())?,
            None => Chain::start(),
        };
        if head.seq > self.chain.seq {
            return Err(CatalogError::corrupt_record(self.chain.seq + 1, "is missing at the end"));
        }
        if head != self.chain || self.state.version() != self.chain.seq {
            return Err(head_corrupt("does not match the last record"));
        }
        Ok(())
    }
}

fn encode_head(chain: Chain) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(52);
    bytes.extend_from_slice(&chain.seq.to_le_bytes());
    bytes.extend_from_slice(&chain.epoch.0.to_le_bytes());
    bytes.extend_from_slice(chain.hash.as_bytes());
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode_head(bytes: &[u8]) -> Result<Chain, CatalogError> {
    let (covered, crc) =
        bytes.split_last_chunk::<4>().ok_or_else(|| head_corrupt("is too short"))?;
    let mut at = Reader(covered);
    match (at.take(), at.take(), at.take(), at.0) {
        (Some(seq), Some(epoch), Some(hash), [])
            if crc32c::crc32c(covered) == u32::from_le_bytes(*crc) =>
        {
            Ok(Chain {
                seq: u64::from_le_bytes(seq),
                epoch: Epoch(u64::from_le_bytes(epoch)),
                hash: Digest::from_bytes(hash),
            })
        }
        _ => Err(head_corrupt("fails its checksum")),
    }
}

fn head_corrupt(problem: &str) -> CatalogError {
    CatalogError::Corrupt { place: "the head of the log".to_owned(), problem: problem.to_owned() }
}
