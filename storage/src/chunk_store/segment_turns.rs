//! One change at a time to a segment's files.
//!
//! Placing, replacing, quarantining and removing take several renames each. Names are never
//! overwritten, so two at once would lose nothing; but one could vouch for a file that the other
//! is about to take away. Readers take no turn: they verify what they read.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::layout::SegmentKey;

/// The segments whose files are being changed.
#[derive(Debug, Default)]
pub(super) struct SegmentTurns {
    taken: Mutex<HashSet<SegmentKey>>,
    given_back: Condvar,
}

/// The right to change the files of some segments, until dropped.
#[derive(Debug)]
pub(super) struct SegmentTurn<'a> {
    turns: &'a SegmentTurns,
    keys: HashSet<SegmentKey>,
}

impl SegmentTurns {
    /// Waits until nobody changes any of the segments. All or none are taken, so two who want the
    /// same ones cannot wait for each other; who has a turn must not ask for another.
    pub(super) fn take(&self, keys: impl IntoIterator<Item = SegmentKey>) -> SegmentTurn<'_> {
        let keys: HashSet<SegmentKey> = keys.into_iter().collect();
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = self
            .given_back
            .wait_while(taken, |taken| !taken.is_disjoint(&keys))
            .unwrap_or_else(PoisonError::into_inner);
        taken.extend(&keys);
        drop(taken);
        SegmentTurn { turns: self, keys }
    }
}

impl Drop for SegmentTurn<'_> {
    fn drop(&mut self) {
        let mut taken = self.turns.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|key| !self.keys.contains(key));
        self.turns.given_back.notify_all();
    }
}
