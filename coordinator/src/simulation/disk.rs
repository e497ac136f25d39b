//! What lies on the disk of one worker, and what of it survives.

use std::collections::BTreeMap;

use basalt_storage::ids::{ClusterId, SegmentId};

use super::world::Ms;

/// A row: the statement that wrote it, and which of its rows it is.
pub(super) type Row = u64;

/// Removals that a loss of power may undo: those whose directory may not be synced yet.
const UNDONE_WITHIN: Ms = 2_000;

/// A copy of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Copy {
    /// Every byte of it is as it was written.
    pub(super) good: bool,
    /// It survives a loss of power.
    pub(super) durable: bool,
}

#[derive(Debug, Default)]
pub(super) struct Disk {
    /// The cluster that the data directory belongs to.
    pub(super) cluster: Option<ClusterId>,
    pub(super) copies: BTreeMap<SegmentId, Copy>,
    removed: Vec<(Ms, SegmentId, Copy)>,
}

impl Disk {
    /// Writes a copy, which survives a loss of power once it is synced.
    pub(super) fn write(&mut self, segment: SegmentId) {
        self.copies.insert(segment, Copy { good: true, durable: false });
    }

    /// Makes a copy durable that is there and good; `false` when it is not.
    pub(super) fn sync(&mut self, segment: SegmentId) -> bool {
        match self.copies.get_mut(&segment) {
            Some(copy) if copy.good => {
                copy.durable = true;
                true
            }
            _ => false,
        }
    }

    /// Whether there is a copy that verifies.
    pub(super) fn is_good(&self, segment: SegmentId) -> bool {
        self.copies.get(&segment).is_some_and(|copy| copy.good)
    }

    pub(super) fn is_good_and_durable(&self, segment: SegmentId) -> bool {
        self.copies.get(&segment).is_some_and(|copy| copy.good && copy.durable)
    }

    pub(super) fn remove(&mut self, segment: SegmentId, now: Ms) -> bool {
        let Some(copy) = self.copies.remove(&segment) else { return false };
        self.removed.push((now, segment, copy));
        true
    }

    /// What was not synced is gone, and what was removed a moment ago may be there again.
    pub(super) fn loses_power(&mut self, now: Ms, undo: bool) {
        for (when, segment, copy) in std::mem::take(&mut self.removed) {
            if undo && now - when < UNDONE_WITHIN {
                self.copies.entry(segment).or_insert(copy);
            }
        }
        self.copies.retain(|_, copy| copy.durable);
    }

    pub(super) fn wipe(&mut self) {
        self.copies.clear();
        self.removed.clear();
    }
}
