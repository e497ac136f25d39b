//! How many copies each worker may still send and receive.

use std::collections::BTreeMap;

use basalt_storage::ids::WorkerId;

use super::{InFlight, Limits};

/// Copies in flight, those of the plan so far included.
#[derive(Debug)]
pub(super) struct Budget {
    limits: Limits,
    received: BTreeMap<WorkerId, usize>,
    sent: BTreeMap<WorkerId, usize>,
}

impl Budget {
    pub(super) fn new(limits: Limits, in_flight: &[InFlight]) -> Self {
        let mut budget = Self { limits, received: BTreeMap::new(), sent: BTreeMap::new() };
        for copy in in_flight {
            budget.count(copy.from, copy.to);
        }
        budget
    }

    fn count(&mut self, from: WorkerId, to: WorkerId) {
        *self.sent.entry(from).or_default() += 1;
        *self.received.entry(to).or_default() += 1;
    }

    /// Plans a copy from the least busy of `sources`; all of them in that order, or `None` when
    /// either end has its hands full.
    pub(super) fn admit(&mut self, sources: &[WorkerId], to: WorkerId) -> Option<Vec<WorkerId>> {
        let received = self.received.get(&to).copied().unwrap_or(0);
        let sent = |worker: &WorkerId| self.sent.get(worker).copied().unwrap_or(0);
        let mut sources = sources.to_vec();
        sources.sort_by_key(sent);
        let first = *sources.first()?;
        let has_room = received < self.limits.in_flight_per_target_max
            && sent(&first) < self.limits.in_flight_per_source_max;
        has_room.then(|| {
            self.count(first, to);
            sources
        })
    }
}
