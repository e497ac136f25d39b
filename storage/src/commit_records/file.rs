//! The commit records of one worker: the file that counts, and how it grows and is replaced.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use super::frame::{self, BODY_BYTES_MAX, HEADER_BYTES, Kind};
use super::scan::{Damage, Scan};
use crate::command_log::{Chain, LogDisk, LogFile, Verdict};

const SUFFIX: &str = ".commits";

/// Why records were not written or read.
#[derive(Debug, Error)]
pub enum CommitRecordsError {
    /// The file system failed.
    #[error("{op} of commit records failed: {source}")]
    Io {
        /// What was tried.
        op: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A write failed earlier, so what the disk has is unknown until a restart looks.
    #[error("no more commit records are taken since a write failed: {reason}")]
    Failed {
        /// The first failure.
        reason: String,
    },
    /// Another put began before this one ended.
    #[error("another put of commit records began before this one ended")]
    Superseded,
    /// A body that no frame can have.
    #[error("a commit record of {bytes} bytes is larger than the limit of {BODY_BYTES_MAX} bytes")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

impl CommitRecordsError {
    fn io(op: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { op, source }
    }
}

/// How far the records of a worker are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// The commit of the last put; `None` when there is none.
    pub at: Option<Chain>,
    /// Whether a delta can follow. After damage, and after a write that failed, only a full put
    /// can.
    pub appendable: bool,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of the full put it begins with.
    pub full_bytes: u64,
}

/// A put under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutId(u64);

#[derive(Debug)]
struct Current {
    number: u32,
    /// `None` when nothing may be appended.
    handle: Option<Box<dyn LogFile>>,
    at: Chain,
    bytes: u64,
    full_bytes: u64,
}

#[derive(Debug)]
struct Writing {
    id: PutId,
    kind: Kind,
    at: Chain,
    parts: u32,
    bytes: u64,
    number: u32,
    handle: Box<dyn LogFile>,
}

/// The commit records of a worker.
#[derive(Debug)]
pub struct CommitRecords {
    disk: Arc<dyn LogDisk>,
    current: Option<Current>,
    writing: Option<Writing>,
    /// The highest number that a file has.
    last_file: u32,
    puts: u64,
    /// What was damaged when they were opened.
    damage: Option<String>,
    failed: Option<String>,
}

impl CommitRecords {
    /// Opens the records on `disk`, and checks all of the file that counts: the newest one that
    /// holds a whole full put.
    ///
    /// What a crash tore off is left out, and so is what is damaged or cannot be read, and all after
    /// it. On `Ok` everything in [`Self::position`] survives a crash.
    ///
    /// # Errors
    /// [`CommitRecordsError::Io`].
    pub fn open(disk: Arc<dyn LogDisk>) -> Result<Self, CommitRecordsError> {
        let numbers = file_numbers(disk.as_ref())?;
        let last_file = numbers.last().copied().unwrap_or(0);
        let (mut current, mut damage) = (None, None);
        for number in numbers.into_iter().rev() {
            let scan = scan_file(disk.as_ref(), number)?;
            if let Some(Damage::Bytes(problem)) = &scan.damage {
                tracing::warn!(%problem, file = file_name(number), "commit records are damaged");
                damage = damage.or_else(|| Some(problem.clone()));
            }
            let Some(at) = scan.at else { continue };
            let handle = match scan.damage {
                None => {
                    Some(disk.open(&file_name(number)).map_err(CommitRecordsError::io("opening"))?)
                }
                Some(_) => None,
            };
            current =
                Some(Current { number, handle, at, bytes: scan.valid, full_bytes: scan.full });
            break;
        }
        Ok(Self { disk, current, writing: None, last_file, puts: 0, damage, failed: None })
    }

    /// How far the records are; all of it is durable.
    pub fn position(&self) -> Known {
        match &self.current {
            None => Known::default(),
            Some(Current { at, handle, bytes, full_bytes, .. }) => Known {
                at: Some(*at),
                appendable: handle.is_some(),
                bytes: *bytes,
                full_bytes: *full_bytes,
            },
        }
    }

    /// What was damaged when they were opened; what a crash tore off is no damage.
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// Reads the file that counts again, and says what is damaged, missing or cannot be read, if
    /// anything is. It ends before that from now on, and only a full put can follow.
    ///
    /// # Errors
    /// [`CommitRecordsError::Io`] without free descriptors or memory.
    pub fn verify(&mut self) -> Result<Option<String>, CommitRecordsError> {
        if self.writing.is_some() {
            return Ok(None);
        }
        let Some(current) = &mut self.current else { return Ok(None) };
        let name = file_name(current.number);
        let read = |offset, length| self.disk.read_at(&name, offset, length);
        let scan = Scan::run(current.bytes, read, |_, _| ());
        let scan = scan.map_err(CommitRecordsError::io("reading"))?;
        if scan.at == Some(current.at) && scan.damage.is_none() {
            return Ok(None);
        }
        let problem = match scan.damage {
            Some(Damage::Bytes(problem)) => problem,
            Some(Damage::Torn) | None => "a part of them is missing".to_owned(),
        };
        match scan.at {
            Some(at) => {
                (current.at, current.bytes, current.handle) = (at, scan.valid, None);
            }
            None => self.current = None,
        }
        self.damage = Some(problem.clone());
        Ok(Some(problem))
    }

    /// Gives up a put, if it is under way still.
    pub fn abandon(&mut self, id: PutId) {
        if self.writing.as_ref().is_some_and(|writing| writing.id == id) {
            self.give_up();
        }
    }

    /// Begins a put that makes commit `at` known: a full one, or one that follows the commit with
    /// the log record `after`. One that was under way is given up.
    ///
    /// [`Verdict::Refused`]: something newer is known; [`Verdict::Mismatch`]: it follows something
    /// else than what is here, so only a full put can.
    ///
    /// # Errors
    /// [`CommitRecordsError::Io`], [`CommitRecordsError::Failed`].
    pub fn begin(
        &mut self,
        kind: Kind,
        at: Chain,
        after: Option<Chain>,
    ) -> Result<Result<PutId, Verdict>, CommitRecordsError> {
        if let Some(reason) = &self.failed {
            return Err(CommitRecordsError::Failed { reason: reason.clone() });
        }
        self.give_up();
        let order = |chain: &Chain| (chain.log_epoch, chain.seq);
        let known = self.current.as_ref().map(|current| current.at);
        if known.is_some_and(|known| order(&known) > order(&at)) {
            return Ok(Err(Verdict::Refused));
        }
        let (number, handle) = match kind {
            Kind::Full => {
                self.last_file += 1;
                let name = file_name(self.last_file);
                let created = self.disk.create(&name);
                (self.last_file, created.map_err(|source| self.note_failure(source))?)
            }
            Kind::Delta => {
                let follows = known.is_some() && known == after && known != Some(at);
                let handle = match &mut self.current {
                    Some(current) if follows => current.handle.take(),
                    _ => None,
                };
                let Some(handle) = handle else { return Ok(Err(Verdict::Mismatch)) };
                // Until the put is done the file has a part of it, which nothing can follow.
                (self.current.as_ref().map_or(0, |current| current.number), handle)
            }
        };
        self.puts += 1;
        let id = PutId(self.puts);
        self.writing = Some(Writing { id, kind, at, parts: 0, bytes: 0, number, handle });
        Ok(Ok(id))
    }

    /// Writes the next frame of a put. With the last one the put is done: on `Ok` it survives a
    /// crash.
    ///
    /// # Errors
    /// [`CommitRecordsError::Superseded`], [`CommitRecordsError::TooLarge`],
    /// [`CommitRecordsError::Io`].
    pub fn part(
        &mut self,
        id: PutId,
        body: &[u8],
        is_last: bool,
    ) -> Result<(), CommitRecordsError> {
        if body.len() > BODY_BYTES_MAX {
            return Err(CommitRecordsError::TooLarge { bytes: body.len() });
        }
        let Some(writing) = self.writing.as_mut().filter(|writing| writing.id == id) else {
            return Err(CommitRecordsError::Superseded);
        };
        let bytes = frame::encode(writing.kind, writing.parts, is_last, writing.at, body);
        if let Err(source) = writing.handle.append(&bytes) {
            let failed = self.writing.take();
            let error = self.note_failure(source);
            failed.into_iter().for_each(|writing| self.discard(writing));
            return Err(error);
        }
        writing.parts += 1;
        writing.bytes += (HEADER_BYTES + body.len()) as u64;
        if is_last && let Some(writing) = self.writing.take() {
            self.finish(writing);
        }
        Ok(())
    }

    /// The bytes of the file that counts, up to the end of its last put: for
    /// [`Contents::of`](super::Contents::of). At least one when there are any behind `offset`, and
    /// at most `bytes_max`.
    ///
    /// # Errors
    /// [`CommitRecordsError::Io`].
    pub fn read(&self, offset: u64, bytes_max: usize) -> Result<Bytes, CommitRecordsError> {
        let Some(Current { number, bytes, .. }) = &self.current else { return Ok(Bytes::new()) };
        let rest = usize::try_from(bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let read = self.disk.read_at(&file_name(*number), offset, rest.min(bytes_max));
        read.map(Bytes::from).map_err(CommitRecordsError::io("reading"))
    }

    /// The number of the file that counts: what is read in pieces is of one file only while it
    /// stays the same.
    pub fn file_number(&self) -> Option<u32> {
        self.current.as_ref().map(|current| current.number)
    }

    fn finish(&mut self, writing: Writing) {
        let Writing { kind, at, bytes, number, handle, .. } = writing;
        match (kind, &mut self.current) {
            (Kind::Delta, Some(current)) => {
                current.handle = Some(handle);
                current.at = at;
                current.bytes += bytes;
            }
            _ => {
                let handle = Some(handle);
                self.current = Some(Current { number, handle, at, bytes, full_bytes: bytes });
                self.damage = None;
                self.remove_older(number);
            }
        }
    }

    /// Removes what a full put has replaced. What stays, or comes back after a crash, is passed over
    /// as long as the newer file is whole.
    fn remove_older(&self, number: u32) {
        let Ok(numbers) = file_numbers(self.disk.as_ref()) else { return };
        for older in numbers.into_iter().filter(|older| *older < number) {
            if let Err(error) = self.disk.remove(&file_name(older)) {
                tracing::warn!(%error, file = file_name(older), "old commit records stay");
            }
        }
    }

    fn give_up(&mut self) {
        match self.writing.take() {
            None => {}
            // Nothing was written, so the file can be appended to still.
            Some(Writing { kind: Kind::Delta, parts: 0, handle, .. }) => {
                if let Some(current) = &mut self.current {
                    current.handle = Some(handle);
                }
            }
            Some(writing) => self.discard(writing),
        }
    }

    /// Removes the file of a full put that does not get done: a disk that is full would not get
    /// emptier by the parts of one after the other.
    fn discard(&self, writing: Writing) {
        let Writing { kind, number, handle, .. } = writing;
        drop(handle);
        if kind == Kind::Full
            && let Err(error) = self.disk.remove(&file_name(number))
        {
            tracing::warn!(%error, file = file_name(number), "a part of commit records stays");
        }
    }

    fn note_failure(&mut self, source: io::Error) -> CommitRecordsError {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        if !full.contains(&source.kind()) {
            self.failed = Some(source.to_string());
        }
        CommitRecordsError::Io { op: "writing", source }
    }
}

fn scan_file(disk: &dyn LogDisk, number: u32) -> Result<Scan, CommitRecordsError> {
    let name = file_name(number);
    let length = disk.length(&name).map_err(CommitRecordsError::io("reading"))?;
    Scan::run(length, |offset, length| disk.read_at(&name, offset, length), |_, _| ())
        .map_err(CommitRecordsError::io("reading"))
}

fn file_name(number: u32) -> String {
    format!("{number:08}{SUFFIX}")
}

/// The numbers of the files, ascending. Names of any other form are none of ours.
fn file_numbers(disk: &dyn LogDisk) -> Result<Vec<u32>, CommitRecordsError> {
    let names = disk.list().map_err(CommitRecordsError::io("listing"))?;
    let mut numbers: Vec<_> = names
        .iter()
        .filter_map(|name| {
            let number = name.strip_suffix(SUFFIX)?.parse().ok()?;
            (file_name(number) == *name).then_some(number)
        })
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}
