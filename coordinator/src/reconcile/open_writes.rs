//! Writes that are under way: what they have put on disks is in no commit yet, and no garbage.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use basalt_storage::ids::TxnId;

/// The writes of one coordinator. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct OpenWrites(Arc<Mutex<HashMap<TxnId, Instant>>>);

/// A write under way, until it is dropped.
#[derive(Debug)]
pub struct OpenWrite {
    writes: OpenWrites,
    txn: TxnId,
}

impl OpenWrites {
    /// Notes a write that begins at `now`.
    pub fn begin(&self, txn: TxnId, now: Instant) -> OpenWrite {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(txn, now);
        OpenWrite { writes: self.clone(), txn }
    }

    /// When the oldest write began that is under way.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().min().copied()
    }
}

impl Drop for OpenWrite {
    fn drop(&mut self) {
        self.writes.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.txn);
    }
}
