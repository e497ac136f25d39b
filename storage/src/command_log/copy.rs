//! A member's copy of the log: what it has, what it promised, and what it takes from whom.
//!
//! Invariant: an answer is given only after what it says is on the disk. `Done` of an append means
//! that the copy has every record up to the last one appended, and that its chain is the writer's.

mod scan;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use super::disk::{LogDisk, LogFile};
pub use super::frame::Promise;
use super::frame::{Frame, HEADER_BYTES, Kind};
use super::parts;
use super::record::{Chain, RawRecord, RecordError};
use crate::digest::Digest;
use crate::ids::LogEpoch;
use scan::{Place, Scan, file_name};

/// A file of more bytes is followed by another one, so that one can be read at once.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Why a copy cannot do what it was asked.
#[derive(Debug, Error)]
pub enum LogError {
    /// The file system failed.
    #[error("{op} of the log failed: {source}")]
    Io {
        /// What was tried.
        op: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A write failed earlier, so what the disk has is unknown until a restart looks.
    #[error("the log takes no more records since a write failed: {reason}")]
    Failed {
        /// The first failure.
        reason: String,
    },
    /// What is in the folder is not this worker's copy, or not all of it.
    #[error(
        "the copy of the command log is not what it should be: {problem}; to begin an empty one, \
         when no commit is on this copy alone, remove log and LOG_IDENTITY from the data directory"
    )]
    Misplaced {
        /// What it is.
        problem: String,
    },
    /// A writer asks for an epoch that nobody can follow.
    #[error("log epoch {epoch} is out of range: the last one is {max}", max = LogEpoch::MAX)]
    EpochOutOfRange {
        /// The epoch.
        epoch: LogEpoch,
    },
    /// What was sent is no record, or a newer version of the program wrote it.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// What the copy has fails its checks: it has to be read again ([`LogCopy::reopen`]).
    #[error("the copy is damaged: {0}")]
    Damaged(RecordError),
    /// A writer sent another record of an epoch that has one at this place already: there are
    /// two writers of one epoch, which cannot be.
    #[error("log record {seq} is another one of the same log epoch {epoch}")]
    Diverged {
        /// The record.
        seq: u64,
        /// The epoch of both.
        epoch: LogEpoch,
    },
}

impl LogError {
    pub(super) fn io(op: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { op, source }
    }
}

/// What a copy has and has promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The newest promise.
    pub promised: Option<Promise>,
    /// The end of the copy.
    pub tail: Chain,
    /// Whether it has everything that it ever said was durable: not before it was filled for the
    /// first time, nor after damage, until a writer has filled it again.
    pub complete: bool,
}

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is done, and durable.
    Done,
    /// Another writer of this epoch or of a newer one was promised that nobody else writes.
    Refused,
    /// The copy does not have the record that the first one follows.
    Mismatch,
}

/// Records for a copy.
#[derive(Debug, Clone)]
pub struct Append {
    /// Who appends, at which epoch.
    pub promise: Promise,
    /// The record that the first one follows.
    pub after: u64,
    /// Its hash.
    pub hash: Digest,
    /// The records; none only asks whether the copy is still the writer's.
    pub records: Vec<Bytes>,
    /// The last record that may be acknowledged: the copy is not complete without it.
    pub committed: u64,
}

/// A member's copy of the log.
#[derive(Debug)]
pub struct LogCopy {
    disk: Arc<dyn LogDisk>,
    file_bytes_max: u64,
    /// Where record `i + 1` is.
    index: Vec<Place>,
    position: Position,
    /// The file that is appended to; `None` when the next write needs a new one.
    current: Option<Box<dyn LogFile>>,
    /// The last file of the log, and how much of it is valid.
    end: (u32, u64),
    /// The highest number a file has.
    last_file: u32,
    /// A file that was made and could not be written: it goes before another one is made, so that a
    /// full disk does not fill with them.
    spoiled: Option<u32>,
    failed: Option<String>,
    /// What was damaged when it was opened.
    damage: Option<String>,
}

impl LogCopy {
    /// Opens the copy on `disk`, or makes an empty one, and checks every record of it.
    ///
    /// What a crash tore off at the end is left out. What is damaged, and all after it, is left
    /// out as well, and the copy is not [`complete`](Position::complete) until a writer has
    /// filled it again. On `Ok` everything in [`Self::position`] survives a crash.
    ///
    /// # Errors
    /// [`LogError::Io`], and [`RecordError::NewerFormat`].
    pub fn open(disk: Arc<dyn LogDisk>) -> Result<Self, LogError> {
        Self::open_with(disk, FILE_BYTES_MAX)
    }

    /// The same, with files of about `file_bytes_max` bytes.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(disk: Arc<dyn LogDisk>, file_bytes_max: u64) -> Result<Self, LogError> {
        let scan = Scan::run(disk.as_ref(), None)?;
        if let Some(problem) = &scan.problem {
            tracing::warn!(%problem, seq = scan.tail.seq, "the copy of the command log ends early");
        }
        let current = match scan.appendable() {
            Some(file) => Some(disk.open(&file_name(file)).map_err(LogError::io("opening"))?),
            None => None,
        };
        let position =
            Position { promised: scan.promised, tail: scan.tail, complete: scan.complete };
        let (end, last_file) = (scan.end(), scan.last_file);
        let damage = scan.problem.filter(|_| !scan.torn);
        Ok(Self {
            disk,
            file_bytes_max,
            index: scan.index,
            position,
            current,
            end,
            last_file,
            spoiled: None,
            failed: None,
            damage,
        })
    }

    /// What the copy has and has promised, all of it durable.
    pub fn position(&self) -> Position {
        self.position
    }

    /// What was damaged when the copy was opened, where it ends since; what a crash tore off is
    /// no damage.
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// Promises to take nothing from writers of older epochs, nor from another one of this.
    ///
    /// `Done` and the promise survive a crash together, and damage to any one place of a file.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Failed`], [`LogError::EpochOutOfRange`].
    pub fn promise(&mut self, promise: Promise) -> Result<Verdict, LogError> {
        if !self.admits(promise)? {
            return Ok(Verdict::Refused);
        }
        if self.position.promised != Some(promise) {
            let complete = self.position.complete;
            let frame = Frame { kind: Kind::Promise, promised: Some(promise), complete, body: 0 };
            // Twice, in one write: records that damage takes are elsewhere, a promise is not.
            self.write(frame, &frame.encode())?;
        }
        Ok(Verdict::Done)
    }

    /// Makes the first file, when there is none: from then on a folder without files is one that
    /// somebody emptied. On `Ok` it survives a crash.
    ///
    /// # Errors
    /// As [`Self::promise`].
    pub fn begin(&mut self) -> Result<(), LogError> {
        if self.last_file > 0 {
            return Ok(());
        }
        let Position { promised, complete, .. } = self.position;
        let frame = Frame { kind: Kind::Promise, promised, complete, body: 0 };
        self.write(frame, &[]).map(|_| ())
    }

    /// Appends records. Those that are there already are passed over; those of older epochs that
    /// are in their place are replaced.
    ///
    /// # Errors
    /// [`LogError::Record`] when the records are no records, [`LogError::Diverged`],
    /// [`LogError::Damaged`], [`LogError::Io`], [`LogError::Failed`],
    /// [`LogError::EpochOutOfRange`].
    pub fn append(&mut self, append: &Append) -> Result<Verdict, LogError> {
        let Append { promise, after, hash, records, committed } = append;
        if !self.admits(*promise)? {
            return Ok(Verdict::Refused);
        }
        if *after > self.position.tail.seq {
            return Ok(Verdict::Mismatch);
        }
        let mut chain = self.chain_at(*after)?;
        if chain.hash != *hash {
            return Ok(Verdict::Mismatch);
        }
        let mut fresh = 0;
        let mut kept = *after;
        for (seq, bytes) in (after + 1..).zip(records) {
            chain.follow(seq, &RawRecord::decode(seq, bytes)?)?;
            let is_known = kept + 1 == seq && seq <= self.position.tail.seq;
            if is_known && self.chain_at(seq)? == chain {
                kept = seq;
                fresh += 1;
            }
        }
        let records = records.get(fresh..).unwrap_or_default();
        let complete = self.position.complete || chain.seq >= *committed;
        if records.is_empty()
            && self.position.promised == Some(*promise)
            && self.position.complete == complete
        {
            return Ok(Verdict::Done);
        }
        if records.is_empty() {
            let frame = Frame { kind: Kind::Promise, promised: Some(*promise), complete, body: 0 };
            self.write(frame, &[])?;
            return Ok(Verdict::Done);
        }
        self.check_replaceable(kept + 1, promise.epoch)?;
        let body = parts::join(records.iter().map(AsRef::as_ref));
        let length = u32::try_from(body.len())
            .map_err(|_| RecordError::TooLarge { bytes: body.len(), limit: u32::MAX as usize })?;
        let kind = Kind::Append { after: kept };
        let frame = Frame { kind, promised: Some(*promise), complete, body: length };
        let (file, offset) = self.write(frame, &body)?;
        self.note(kept, file, offset, records);
        self.position.tail = chain;
        Ok(Verdict::Done)
    }

    /// Verified records after record `after`: at least one when there is one, and no more when
    /// they have `bytes_max` bytes.
    ///
    /// # Errors
    /// [`LogError::Damaged`].
    pub fn read(&self, after: u64, bytes_max: usize) -> Result<Vec<Bytes>, LogError> {
        let mut records = Vec::new();
        let mut bytes = 0;
        let mut prev = None;
        for seq in after.saturating_add(1)..=self.position.tail.seq {
            let record = self.record(seq)?;
            let raw = RawRecord::decode(seq, &record).map_err(LogError::Damaged)?;
            if raw.seq != seq || prev.is_some_and(|prev| prev != raw.prev) {
                let problem = "does not continue the one before it".to_owned();
                return Err(LogError::Damaged(RecordError::Corrupt { seq, problem }));
            }
            prev = Some(raw.chain().hash);
            bytes += record.len();
            records.push(record);
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(records)
    }

    /// Up to where [`check`] can look while records are appended.
    pub fn checkable(&self) -> Checkable {
        let (disk, tail) = (Arc::clone(&self.disk), self.position.tail);
        Checkable { disk, end: self.end, tail }
    }

    /// Reads the copy again after damage: it ends before that from now on.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn reopen(&mut self) -> Result<(), LogError> {
        let failed = self.failed.take();
        *self = Self::open_with(Arc::clone(&self.disk), self.file_bytes_max)?;
        self.failed = failed;
        Ok(())
    }

    fn admits(&self, promise: Promise) -> Result<bool, LogError> {
        if promise.epoch > LogEpoch::MAX {
            return Err(LogError::EpochOutOfRange { epoch: promise.epoch });
        }
        Ok(match self.position.promised {
            None => true,
            Some(given) => given == promise || given.epoch < promise.epoch,
        })
    }

    /// The end of the copy as it was after record `seq`, which it has.
    fn chain_at(&self, seq: u64) -> Result<Chain, LogError> {
        if seq == self.position.tail.seq {
            return Ok(self.position.tail);
        }
        if seq == 0 {
            return Ok(Chain::start());
        }
        let bytes = self.record(seq)?;
        let record = RawRecord::decode(seq, &bytes).map_err(LogError::Damaged)?;
        Ok(record.chain())
    }

    /// Records from `seq` on may be replaced by those of a newer epoch only.
    fn check_replaceable(&self, seq: u64, epoch: LogEpoch) -> Result<(), LogError> {
        if seq > self.position.tail.seq {
            return Ok(());
        }
        // The chain never goes back, so the last one has the newest epoch of all that would go.
        let newest = self.position.tail.log_epoch;
        if newest < epoch {
            tracing::info!(from = seq, to = self.position.tail.seq, %newest, by = %epoch,
                "log records that no commit waits for any more are replaced");
            return Ok(());
        }
        Err(LogError::Diverged { seq, epoch })
    }

    /// The unverified bytes of a record that the copy has.
    fn record(&self, seq: u64) -> Result<Bytes, LogError> {
        let place = usize::try_from(seq).ok().and_then(|seq| self.index.get(seq.checked_sub(1)?));
        let Some(Place { file, offset, length }) = place.copied() else {
            let problem = "is not in this copy".to_owned();
            return Err(LogError::Damaged(RecordError::Corrupt { seq, problem }));
        };
        match self.disk.read_at(&file_name(file), offset, length as usize) {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) => {
                let problem = format!("cannot be read: {error}");
                Err(LogError::Damaged(RecordError::Corrupt { seq, problem }))
            }
        }
    }

    /// Writes one frame; on `Ok` it survives a crash. Returns where its body is.
    fn write(&mut self, frame: Frame, body: &[u8]) -> Result<(u32, u64), LogError> {
        if let Some(reason) = &self.failed {
            return Err(LogError::Failed { reason: reason.clone() });
        }
        match self.try_write(frame, body) {
            Ok(place) => {
                self.position.promised = frame.promised;
                self.position.complete = frame.complete;
                Ok(place)
            }
            Err(source) => {
                // What is in the file beyond its valid end does not matter: the next one says so.
                self.current = None;
                let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
                if !full.contains(&source.kind()) {
                    self.failed = Some(source.to_string());
                }
                Err(LogError::Io { op: "writing", source })
            }
        }
    }

    fn try_write(&mut self, frame: Frame, body: &[u8]) -> io::Result<(u32, u64)> {
        if self.end.1 >= self.file_bytes_max {
            self.current = None;
        }
        let mut bytes = Vec::new();
        let mut end = self.end;
        let mut file = match self.current.take() {
            Some(file) => file,
            None => {
                let (file, valid) = self.end;
                let kind = Kind::Start { file, valid };
                let complete = self.position.complete;
                let promised = self.position.promised;
                bytes = Frame { kind, promised, complete, body: 0 }.encode();
                if let Some(spoiled) = self.spoiled {
                    self.disk.remove(&file_name(spoiled))?;
                    self.spoiled = None;
                }
                // Counted before it is made: a name whose making failed is not tried again.
                self.last_file += 1;
                end = (self.last_file, 0);
                let file = self.disk.create(&file_name(self.last_file))?;
                self.spoiled = Some(self.last_file);
                file
            }
        };
        bytes.extend_from_slice(&frame.encode());
        let place = (end.0, end.1 + bytes.len() as u64);
        bytes.extend_from_slice(body);
        file.append(&bytes)?;
        self.spoiled = None;
        self.current = Some(file);
        self.end = (end.0, end.1 + bytes.len() as u64);
        Ok(place)
    }

    /// Notes where the records after record `after` are.
    fn note(&mut self, after: u64, file: u32, body: u64, records: &[Bytes]) {
        self.index.truncate(usize::try_from(after).unwrap_or(usize::MAX));
        let mut offset = body;
        for record in records {
            offset += 4;
            let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
            self.index.push(Place { file, offset, length });
            offset += record.len() as u64;
        }
    }
}

/// A part of a copy that can be read again without stopping it.
#[derive(Debug, Clone)]
pub struct Checkable {
    disk: Arc<dyn LogDisk>,
    end: (u32, u64),
    tail: Chain,
}

/// Reads a copy again; says what is damaged, if anything is. The cure is [`LogCopy::reopen`].
///
/// # Errors
/// [`LogError::Io`] when it cannot be read.
pub fn check(part: &Checkable) -> Result<Option<String>, LogError> {
    let scan = Scan::run(part.disk.as_ref(), Some(part.end))?;
    if scan.tail == part.tail {
        return Ok(None);
    }
    let problem = scan.problem.unwrap_or_else(|| "records are missing".to_owned());
    Ok(Some(format!("{problem}, after record {}", scan.tail.seq)))
}

/// Where a frame's body begins, counted from the frame.
const BODY_AT: u64 = HEADER_BYTES as u64;
