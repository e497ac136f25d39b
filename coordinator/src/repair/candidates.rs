//! Which workers a segment's copies belong on, the best first.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use basalt_engine::snapshot::apart;
use basalt_storage::ids::{SliceId, TableId, WorkerId};
use basalt_storage::layout::SegmentKey;

use super::{Observed, WorkerState};
use crate::placement::SliceWorkers;

/// For each slice of each table the workers that may have copies, made when they are asked for.
///
/// The workers of the slice come first, then all others. The others are in an order of their own
/// for every slice of every table (rendezvous hashing), so that one that comes or goes changes
/// nothing about the rest. Workers that are away keep their place: it is theirs when they return.
#[derive(Debug)]
pub(super) struct Candidates<'a> {
    desired: &'a SliceWorkers,
    domains: &'a BTreeMap<WorkerId, String>,
    /// Those that are live, or away.
    usable: Vec<WorkerId>,
    /// Members that are lost.
    pub(super) lost: usize,
    by_slice: BTreeMap<(TableId, SliceId), Vec<WorkerId>>,
}

impl<'a> Candidates<'a> {
    pub(super) fn new(desired: &'a SliceWorkers, observed: &Observed<'a>) -> Self {
        let is_usable =
            |(_, state): &(_, &WorkerState)| matches!(state, WorkerState::Live | WorkerState::Away);
        let usable = observed.workers.iter().filter(is_usable).map(|(worker, _)| *worker);
        let lost = observed.workers.values().filter(|state| **state == WorkerState::Lost).count();
        Self {
            desired,
            domains: observed.domains,
            usable: usable.collect(),
            lost,
            by_slice: BTreeMap::new(),
        }
    }

    /// The workers for a segment, the best first.
    pub(super) fn of(&mut self, segment: SegmentKey) -> &[WorkerId] {
        let Self { desired, domains, usable, by_slice, .. } = self;
        by_slice.entry((segment.table, segment.slice)).or_insert_with(|| {
            let placed = desired.get(usize::from(segment.slice.0)).map_or(&[][..], Vec::as_slice);
            let is_placed = |worker: &&WorkerId| placed.contains(worker);
            let mut others: Vec<WorkerId> =
                usable.iter().filter(|worker| !is_placed(worker)).copied().collect();
            others.sort_by_cached_key(|worker| (Reverse(score(segment, *worker)), *worker));
            let placed = placed.iter().filter(|worker| usable.binary_search(worker).is_ok());
            let mut workers: Vec<_> = placed.copied().collect();
            workers.extend(apart(&workers, others, domains));
            workers
        })
    }
}

/// How well a worker suits the segments of one slice of one table: a hash, and nothing on disk
/// depends on which.
fn score(segment: SegmentKey, worker: WorkerId) -> u64 {
    let (high, low) = worker.0.as_u64_pair();
    let parts = [segment.table.0, u64::from(segment.slice.0), high, low];
    parts.into_iter().fold(0, |hash, part| mix(hash ^ part))
}

/// The finaliser of SplitMix64: every bit of the input changes half of the output.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
