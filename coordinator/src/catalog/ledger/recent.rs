//! The last records of the log, kept in memory for members that are not far behind.

use std::collections::VecDeque;
use std::sync::Arc;

use basalt_storage::command_log::Chain;
use basalt_storage::digest::Digest;

/// Bytes kept beyond what must be: a member that misses a few seconds is served from memory.
const BYTES_MAX: usize = 8 << 20;
/// Bytes of records in one message to a member: a few milliseconds of disk and network, so that
/// one that is far behind does not hold up anything.
pub const APPEND_BYTES_MAX: usize = 4 << 20;

/// Records in a row, and the hash of the one before them.
#[derive(Debug, Clone)]
pub struct Run {
    /// Hash of the record before the first.
    pub hash: Digest,
    /// The records.
    pub records: Vec<Arc<[u8]>>,
}

#[derive(Debug)]
pub(super) struct Recent {
    /// The record before the first one kept.
    start: u64,
    start_hash: Digest,
    records: VecDeque<(Digest, Arc<[u8]>)>,
    bytes: usize,
}

impl Recent {
    /// Nothing yet, of a log that ends here.
    pub(super) fn new(chain: Chain) -> Self {
        Self { start: chain.seq, start_hash: chain.hash, records: VecDeque::new(), bytes: 0 }
    }

    pub(super) fn push(&mut self, records: &[Arc<[u8]>]) {
        for record in records {
            self.bytes += record.len();
            self.records.push_back((Digest::of(record), Arc::clone(record)));
        }
    }

    /// Drops the oldest, of those that are on the own disk, while they are too many.
    pub(super) fn forget(&mut self, written: u64) {
        while self.bytes > BYTES_MAX && self.start < written {
            let Some((hash, record)) = self.records.pop_front() else { return };
            self.bytes -= record.len();
            (self.start, self.start_hash) = (self.start + 1, hash);
        }
    }

    /// Records after `after`, up to record `last`: at least one, if there is one; `None` when
    /// they have to be read from the disk.
    pub(super) fn run(&self, after: u64, last: u64) -> Option<Run> {
        let at = usize::try_from(after.checked_sub(self.start)?).ok()?;
        let hash = match at {
            0 => self.start_hash,
            _ => self.records.get(at - 1)?.0,
        };
        let count = usize::try_from(last.saturating_sub(after)).unwrap_or(usize::MAX);
        let (mut records, mut bytes) = (Vec::new(), 0);
        for (_, record) in self.records.iter().skip(at).take(count) {
            bytes += record.len();
            records.push(Arc::clone(record));
            if bytes >= APPEND_BYTES_MAX {
                break;
            }
        }
        Some(Run { hash, records })
    }
}
