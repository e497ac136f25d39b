//! The log on disk: records, the head and the checkpoint, in one redb file.
//!
//! ```text
//! table "log"   sequence number -> record (record.rs)
//! table "meta"  "head"          -> seq 8, epoch 8, BLAKE3 of the last record 32, log epoch 8, CRC-32C 4
//!               "committed"     -> seq 8, BLAKE3 of that record 32, CRC-32C 4
//!               "checkpoint"    -> checkpoint (checkpoint.rs)
//!               "coordinator"   -> whose copy it is (log/owner.rs)
//! ```
//! redb makes each write transaction atomic, so a crash leaves whole records only and a log that
//! ends where its head says. Therefore *every* failed check is damage, at the tail as well as in
//! the middle, and opening refuses with the number of the record (FAULTS F22): no acknowledged
//! commit is ever cut off in silence.
//!
//! What is here is one copy of several ([`members`](super::members)). `committed` says up to where
//! enough members were known to have the records when the last ones were written; what follows
//! may be on this disk alone, and nobody has seen it.

mod head;
mod owner;
mod reader;

use std::path::Path;
use std::sync::Arc;

use basalt_storage::command_log::Chain;
use basalt_storage::digest::Digest;
use basalt_storage::fail_point::{self, FailPoint};
use basalt_storage::ids::CoordinatorId;
use redb::{Builder, Database, Durability, ReadTransaction, ReadableDatabase, TableDefinition};

use super::checkpoint::{self, Checkpoint};
use super::error::CatalogError;
use super::record::{self, Mark, RawRecord};
use super::state::State;
use head::{decode_committed, decode_head, encode_committed, encode_head, head_corrupt};
pub use reader::LogReader;
use reader::Shared;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const HEAD: &str = "head";
const COMMITTED: &str = "committed";
const CHECKPOINT: &str = "checkpoint";

/// The log is checkpointed when this much was written since the last time, or as much as the
/// last checkpoint took if that is more: so checkpoints at most double what is written, and
/// opening parses about as much log as state.
const CHECKPOINT_EVERY_BYTES_MIN: usize = 4 << 20;

/// redb's page cache. The catalog is read once, at start, and then only appended to.
const CACHE_BYTES: usize = 16 << 20;

/// An open log, at its end.
pub(super) struct Log {
    shared: Arc<Shared>,
    chain: Chain,
    coordinator: CoordinatorId,
    since_checkpoint_bytes: usize,
    checkpoint_bytes: usize,
}

/// A log that was opened, and what it says.
pub(super) struct Opened {
    pub(super) log: Log,
    /// After the last record.
    pub(super) state: State,
    /// The last record that is known to be on enough members, and the state after it, when that
    /// is not the end.
    pub(super) committed: Option<(Mark, State)>,
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Log {
    /// Opens the log at `path`, or makes an empty one, and checks every record of it.
    ///
    /// Fails with [`CatalogError::Corrupt`] or [`CatalogError::NewerFormat`] naming the first bad
    /// record.
    pub(super) fn open(path: &Path, missing: Missing) -> Result<Opened, CatalogError> {
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
        let coordinator = owner::claim(&db, path)?;
        let log = Self {
            shared: Shared::new(db),
            chain: replay.chain,
            coordinator,
            since_checkpoint_bytes: replay.applied_bytes,
            checkpoint_bytes,
        };
        let committed = if replay.state.log_sets().is_alone() { None } else { replay.committed };
        Ok(Opened { log, state: replay.state, committed })
    }

    /// The end of the log.
    pub(super) fn chain(&self) -> Chain {
        self.chain
    }

    /// Whose copy this is.
    pub(super) fn coordinator(&self) -> CoordinatorId {
        self.coordinator
    }

    /// A way to read what is written, also while more is.
    pub(super) fn reader(&self) -> LogReader {
        LogReader::new(&self.shared)
    }

    /// Appends records, and notes up to where they are on enough members.
    ///
    /// On `Ok` all records are fsynced. On an error none or all of them are; the log must not be
    /// used again, because what the kernel kept of a failed write is unknown (FAULTS A2 rule 3).
    pub(super) fn append(
        &mut self,
        chain: Chain,
        records: &[Arc<[u8]>],
        committed: Mark,
    ) -> Result<(), CatalogError> {
        self.write(chain, records, committed, None)?;
        fail_point::hit(FailPoint::CatalogAppended);
        self.chain = chain;
        self.since_checkpoint_bytes += records.iter().map(|record| record.len()).sum::<usize>();
        Ok(())
    }

    /// Writes a checkpoint of `state`, the state at the end of the log, which is committed, if so
    /// much was written that one is due.
    pub(super) fn checkpoint_when_due(&mut self, state: &State) -> Result<(), CatalogError> {
        let due = self.checkpoint_bytes.max(CHECKPOINT_EVERY_BYTES_MIN);
        if self.since_checkpoint_bytes < due { Ok(()) } else { self.checkpoint(state) }
    }

    /// Writes a checkpoint of `state`, the state at the end of the log, which is committed, if it
    /// has grown since the last one.
    pub(super) fn checkpoint(&mut self, state: &State) -> Result<(), CatalogError> {
        if self.since_checkpoint_bytes == 0 {
            return Ok(());
        }
        if state.version() != self.chain.seq {
            return Err(CatalogError::invalid(format!(
                "a checkpoint of record {} cannot follow record {}",
                state.version(),
                self.chain.seq
            )));
        }
        let checkpoint = checkpoint::encode(state, self.chain.hash)?;
        self.write(self.chain, &[], Mark::at(self.chain), Some(&checkpoint))?;
        self.since_checkpoint_bytes = 0;
        self.checkpoint_bytes = checkpoint.len();
        Ok(())
    }

    fn write(
        &self,
        chain: Chain,
        records: &[Arc<[u8]>],
        committed: Mark,
        checkpoint: Option<&[u8]>,
    ) -> Result<(), CatalogError> {
        let write = |db: &Database| -> Result<(), redb::Error> {
            let mut txn = db.begin_write()?;
            txn.set_durability(Durability::Immediate)?;
            // With one phase, redb answers a damaged newest commit by going back to the one
            // before, silently; with two it refuses to open.
            txn.set_two_phase_commit(true);
            {
                let mut log = txn.open_table(LOG)?;
                for (seq, record) in (self.chain.seq + 1..).zip(records) {
                    log.insert(seq, record.as_ref())?;
                }
                let mut meta = txn.open_table(META)?;
                meta.insert(HEAD, encode_head(chain).as_slice())?;
                meta.insert(COMMITTED, encode_committed(committed).as_slice())?;
                if let Some(checkpoint) = checkpoint {
                    meta.insert(CHECKPOINT, checkpoint)?;
                }
            }
            fail_point::hit(FailPoint::CatalogBeforeFsync);
            txn.commit()?;
            Ok(())
        };
        self.shared.with(|db| write(db).map_err(CatalogError::database))
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
    /// The state at what is known to be committed, when that is not the end.
    committed: Option<(Mark, State)>,
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
            committed: None,
        };
        let (head, committed) = stored_ends(txn)?;
        let from = replay.state.version();
        // A checkpoint is of a committed state. Without either, as after a restore, nothing is known
        // but that the cluster was founded: readers wait for the rest until members have promised.
        let known_to = committed.map_or(0, |mark| mark.seq).max(from).max(1);
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
            if key == known_to && key < head.seq {
                replay.note_committed(committed)?;
            }
            if Some(key) == watch {
                replay.watched = Some(replay.state.digest()?);
                replay.watched_record = Some(replay.chain.hash);
            }
        }
        replay.check_end(head)?;
        Ok(replay)
    }

    fn apply(&mut self, record: &RawRecord<'_>) -> Result<(), CatalogError> {
        apply_record(&mut self.state, record)
    }

    fn note_committed(&mut self, committed: Option<Mark>) -> Result<(), CatalogError> {
        let here = Mark::at(self.chain);
        if committed.is_some_and(|mark| mark.seq == here.seq && mark != here) {
            return Err(head_corrupt("names another committed record than the log has"));
        }
        self.committed = Some((here, self.state.clone()));
        Ok(())
    }

    /// The log ends where its head says, and the state is that of its end.
    fn check_end(&self, head: Chain) -> Result<(), CatalogError> {
        if head.seq > self.chain.seq {
            return Err(CatalogError::corrupt_record(self.chain.seq + 1, "is missing at the end"));
        }
        if head != self.chain || self.state.version() != self.chain.seq {
            return Err(head_corrupt("does not match the last record"));
        }
        Ok(())
    }
}

/// Applies a record to the state before it: it was applied once, so it can be again.
pub(super) fn apply_record(state: &mut State, raw: &RawRecord<'_>) -> Result<(), CatalogError> {
    let refused =
        |error| CatalogError::corrupt_record(raw.seq, format!("cannot be applied: {error}"));
    state.apply(record::command(raw)?).map_err(refused)?;
    if state.epoch() != raw.epoch || state.log_epoch() != raw.log_epoch {
        return Err(CatalogError::corrupt_record(raw.seq, "has another epoch than its map"));
    }
    Ok(())
}

/// Where the log says that it ends, and up to where it is committed.
fn stored_ends(txn: &ReadTransaction) -> Result<(Chain, Option<Mark>), CatalogError> {
    let meta = txn.open_table(META).map_err(CatalogError::database)?;
    let head = match meta.get(HEAD).map_err(CatalogError::database)? {
        Some(bytes) => decode_head(bytes.value())?,
        None => Chain::start(),
    };
    let committed = match meta.get(COMMITTED).map_err(CatalogError::database)? {
        Some(bytes) => Some(decode_committed(bytes.value())?),
        None => None,
    };
    Ok((head, committed))
}
