//! What must be so in the end: nothing is under way, everything is where it should be, and nothing
//! else is anywhere.

use std::collections::BTreeSet;
use std::sync::Arc;

use basalt_storage::ids::{SegmentId, WorkerId};

use super::world::World;
use crate::membership::MemberState;
use crate::reconcile::garbage::held_by;
use crate::reconcile::slices::placement_due;
use crate::reconcile::standing::Standing;

impl World {
    /// The first thing that is not yet as it should be.
    pub(super) fn what_is_not_at_rest(&self) -> Option<String> {
        let Some(brain) = &self.brain else { return Some("no coordinator".to_owned()) };
        if !self.clients_are_idle() || !brain.writes.is_empty() || !brain.reads.is_empty() {
            return Some("a statement is under way".to_owned());
        }
        if !brain.writer.is_idle() || !brain.fetches.is_empty() || !brain.ended.is_empty() {
            return Some("a commit or a copy is under way".to_owned());
        }
        if brain.published.oldest_pinned() < brain.published.snapshot.version {
            return Some("an earlier commit is seen".to_owned());
        }
        self.who_is_not_at_rest().or_else(|| self.which_segment_is_not_at_rest()).or_else(|| {
            let (cluster, snapshot) = (&brain.published.cluster, &brain.published.snapshot);
            let place = placement_due(cluster, snapshot, &self.standings())?;
            Some(format!("slices are not placed: {place:?}"))
        })
    }

    fn who_is_not_at_rest(&self) -> Option<String> {
        let brain = self.brain.as_ref()?;
        let members = self.members();
        for machine in self.machines.iter().filter(|machine| !machine.is_gone) {
            let member = members.iter().find(|member| member.worker == machine.worker);
            let is_live = member.is_some_and(|member| member.state == MemberState::Live);
            if !is_live || !brain.published.cluster.workers.contains(&machine.worker) {
                return Some(format!("worker {} is no live member: {member:?}", machine.worker));
            }
        }
        let standings = self.standings();
        let away = standings.iter().find(|(_, standing)| **standing == Standing::Away);
        away.map(|(worker, _)| format!("worker {worker} is away"))
    }

    fn which_segment_is_not_at_rest(&self) -> Option<String> {
        let brain = self.brain.as_ref()?;
        let snapshot = Arc::clone(&brain.published.snapshot);
        let standings = self.standings();
        let with = |wanted: Standing| -> BTreeSet<WorkerId> {
            let found = standings.iter().filter(|(_, standing)| **standing == wanted);
            found.map(|(worker, _)| *worker).collect()
        };
        let (usable, lost) = (with(Standing::Good), with(Standing::Lost));
        let wanted = snapshot.cluster.copies_wanted(self.rules.replicas);
        for record in snapshot.segments() {
            let segment = record.segment;
            let good = record
                .holders
                .iter()
                .filter(|holder| usable.contains(holder) && self.has_good(**holder, segment));
            if good.count() != wanted.min(usable.len()) {
                return Some(format!("{segment} of {wanted} copies: {:?}", record.holders));
            }
            // As the tests of repair have it: a cluster that is too small keeps what it has of lost
            // workers, and what a drained one has while others are lost.
            let is_small = usable.len() < wanted;
            let extra = record.holders.iter().find(|holder| !usable.contains(holder));
            let waits = usable.len() < wanted.min(usable.len() + lost.len());
            let is_kept = |holder: &WorkerId| match lost.contains(holder) {
                true => is_small,
                false => waits,
            };
            if let Some(holder) = extra.filter(|holder| !is_kept(holder)) {
                return Some(format!("{segment} is with {holder} still"));
            }
        }
        self.which_disk_is_not_at_rest()
    }

    /// On every disk there is what is on record, and nothing else.
    fn which_disk_is_not_at_rest(&self) -> Option<String> {
        let brain = self.brain.as_ref()?;
        for machine in self.machines.iter().filter(|machine| !machine.is_gone) {
            let named = held_by(&brain.published.snapshot, machine.worker);
            let named: BTreeSet<SegmentId> = named.into_keys().collect();
            let here: BTreeSet<SegmentId> = machine.disk.copies.keys().copied().collect();
            if named != here {
                let garbage = here.difference(&named).count();
                return Some(format!("{} has {garbage} segments as garbage", machine.worker));
            }
            let bad = machine.disk.copies.iter().find(|(_, copy)| !copy.good || !copy.durable);
            if let Some((segment, copy)) = bad {
                return Some(format!("{} has a bad {segment}: {copy:?}", machine.worker));
            }
        }
        None
    }

    /// All rows can be read.
    pub(super) fn last_reads(&mut self) {
        let before = self.seen.count("read: all rows");
        self.queries(0);
        let end = self.now + 60_000;
        let mut is_read = false;
        while !is_read && self.now < end {
            self.run_until(self.now + 200);
            is_read = self.seen.count("read: all rows") > before;
        }
        self.require(is_read, || "what was acknowledged cannot be read".to_owned());
    }
}
