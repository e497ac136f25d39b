//! What happened in worlds, counted by name: a simulation proves only what it has met.

use std::collections::BTreeMap;
use std::fmt;

/// What must have happened in a whole run of the test.
const WANTED: [&str; 42] = [
    "ack of a write",
    "clients: a write is sent again",
    "clients: an unknown outcome is resolved",
    "clients: one request is under way twice",
    "clients: a request key is reused and refused",
    "coordinator: a request is replayed",
    "coordinator: a write is planned again",
    "coordinator: a write conflicts",
    "coordinator: a commit is durable and never answered",
    "coordinator: a commit is lost with its coordinator",
    "coordinator: slices are placed anew",
    "coordinator: a lost member is removed",
    "coordinator: a stale plan is refused",
    "read: all rows",
    "read: an error",
    "read: planned again",
    "read: on an earlier commit",
    "repair: a copy is made",
    "repair: a copy is mended",
    "repair: a copy fails",
    "repair: a holder is forgotten",
    "repair: a missing copy is found",
    "scrub: a bad copy is found or mended",
    "garbage: removed",
    "garbage: kept for a pin",
    "garbage: kept for an open write",
    "garbage: kept by a worker's staging",
    "seal: a spare partner stands in",
    "fault: worker killed",
    "fault: power of a worker",
    "fault: power of all",
    "fault: disk wiped",
    "fault: machine replaced",
    "fault: copy corrupted",
    "fault: coordinator killed",
    "fault: log write fails",
    "fault: worker paused",
    "fault: coordinator paused",
    "fault: partition",
    "fault: one-way partition",
    "fault: worker joins",
    "fault: worker drained",
];

/// Counts by name.
#[derive(Debug, Default)]
pub(super) struct Seen(BTreeMap<&'static str, u64>);

impl Seen {
    pub(super) fn note(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub(super) fn count(&self, what: &'static str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    /// What should have happened `least` times, and has not.
    pub(super) fn fewer_than(&self, least: u64) -> Vec<&'static str> {
        WANTED.into_iter().filter(|what| self.count(what) < least).collect()
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.0 {
            writeln!(f, "{count:>8}  {what}")?;
        }
        Ok(())
    }
}
