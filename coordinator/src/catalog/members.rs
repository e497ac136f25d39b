//! Who keeps copies of the log, and how many copies are enough: pure counting.
//!
//! A **log set** is a coordinator and up to `copies` workers, named by a record of the log itself.
//! With `m` members, `needed = min(copies, m)` and `covering = m - needed + 1`:
//!
//! | a record is durable in the set | once it is fsynced on |
//! |---|---|
//! | as its coordinator's | `needed` members, the coordinator among them |
//! | as another one's, that takes over | `max(covering, needed - 1)` workers |
//!
//! | the log may be written by | once it was promised by |
//! |---|---|
//! | the coordinator of the set | `needed` members, the coordinator among them |
//! | another one | `max(covering, a majority)` of the workers, whose copies are complete |
//!
//! Any way to be promised meets any way to be durable in a copy, so whoever writes next knows of
//! everything that was durable; and any two ways to be promised meet in a worker, so the older
//! writer cannot make anything durable any more (`ways_to_win_and_to_be_durable_meet`). Nothing
//! else is needed: no lease, no clock.
//!
//! A record that changes the set must be durable in the set before *and* in the new one. While it
//! is not known to be, the older sets stay **unsettled**: whatever follows must be durable, and
//! whoever writes must be promised, in all of them. The next record of another kind proves that it
//! was durable, because a coordinator writes none before.

use std::collections::BTreeSet;

use basalt_storage::ids::{CoordinatorId, LogEpoch, WorkerId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Copies of every record that the log wants, unless it says otherwise.
pub const LOG_COPIES_DEFAULT: u16 = 2;

/// The most unsettled sets: coordinators that start one after the other, none of which reaches
/// enough members. More would make the state grow without end.
pub(super) const UNSETTLED_MAX: usize = 64;

/// Who keeps copies of the log from one record on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSet {
    /// The epoch that began with the set.
    pub log_epoch: LogEpoch,
    /// The coordinator; nobody in particular in a log that never had members.
    pub coordinator: CoordinatorId,
    /// The workers.
    pub workers: BTreeSet<WorkerId>,
    /// How many copies every record has, where there are as many members.
    pub copies: u16,
}

impl LogSet {
    /// The set of a log that no record has named one in: the coordinator alone.
    pub fn alone() -> Self {
        Self {
            log_epoch: LogEpoch(0),
            coordinator: CoordinatorId(Uuid::nil()),
            workers: BTreeSet::new(),
            copies: LOG_COPIES_DEFAULT,
        }
    }

    /// How many members it has.
    pub fn members(&self) -> usize {
        1 + self.workers.len()
    }

    /// How many of them a record must be durable on.
    pub fn needed(&self) -> usize {
        usize::from(self.copies).min(self.members())
    }

    /// How many of them must be asked to be certain of every durable record.
    pub fn covering(&self) -> usize {
        self.members() - self.needed() + 1
    }

    /// Whether `own` is its coordinator. A set without workers is its opener's: there is nobody
    /// else who could have a copy.
    pub fn is_led_by(&self, own: CoordinatorId) -> bool {
        self.coordinator == own || self.workers.is_empty()
    }

    /// Whether a record is durable that `own` and the workers of `has` have fsynced.
    pub fn is_durable(&self, own: CoordinatorId, has: impl Fn(WorkerId) -> bool) -> bool {
        let workers = self.workers.iter().filter(|worker| has(**worker)).count();
        if self.is_led_by(own) {
            return 1 + workers >= self.needed();
        }
        workers >= self.covering().max(self.needed().saturating_sub(1))
    }

    /// Whether `own` may write the log, given what workers promised: `Some` of whether their copy
    /// is complete. Without `own`, whether anybody may who has no copy yet.
    pub fn is_won(
        &self,
        own: Option<CoordinatorId>,
        promised: impl Fn(WorkerId) -> Option<bool>,
    ) -> bool {
        let answers = || self.workers.iter().filter_map(|worker| promised(*worker));
        if own.is_some_and(|own| self.is_led_by(own)) {
            return 1 + answers().count() >= self.needed();
        }
        answers().filter(|complete| *complete).count() >= self.foreign_wins()
    }

    /// How many workers with complete copies another coordinator needs.
    pub fn foreign_wins(&self) -> usize {
        self.covering().max(self.workers.len() / 2 + 1)
    }
}

/// The set of the log, and those before it that still count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSets {
    /// The newest set.
    pub current: LogSet,
    /// Older ones that are not known to be replaced durably.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsettled: Vec<LogSet>,
    /// The newest epoch that an operator's word began, and no promises: what workers have of an
    /// older one may be acknowledged, and in no log that follows.
    #[serde(default = "no_epoch", skip_serializing_if = "is_zero")]
    pub forced: LogEpoch,
}

fn no_epoch() -> LogEpoch {
    LogEpoch(0)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(epoch: &LogEpoch) -> bool {
    epoch.0 == 0
}

impl Default for LogSets {
    fn default() -> Self {
        Self { current: LogSet::alone(), unsettled: Vec::new(), forced: LogEpoch(0) }
    }
}

impl LogSets {
    pub(super) fn is_initial(&self) -> bool {
        *self == Self::default()
    }

    /// All sets that count.
    pub fn all(&self) -> impl Iterator<Item = &LogSet> {
        std::iter::once(&self.current).chain(&self.unsettled)
    }

    /// Every worker of a set that counts.
    pub fn workers(&self) -> BTreeSet<WorkerId> {
        self.all().flat_map(|set| set.workers.iter().copied()).collect()
    }

    /// Whether `own` is the coordinator of all sets that count, or nobody in particular is.
    pub fn is_led_by(&self, own: CoordinatorId) -> bool {
        self.all().all(|set| set.is_led_by(own))
    }

    /// Whether no worker has a say: the coordinator alone makes records durable.
    pub fn is_alone(&self) -> bool {
        self.all().all(|set| set.workers.is_empty())
    }

    /// Whether a record is durable that `own` and the workers of `has` have fsynced.
    pub fn is_durable(&self, own: CoordinatorId, has: impl Fn(WorkerId) -> bool + Copy) -> bool {
        self.all().all(|set| set.is_durable(own, has))
    }

    /// Whether `own` may write the log: see [`LogSet::is_won`].
    pub fn is_won(
        &self,
        own: Option<CoordinatorId>,
        promised: impl Fn(WorkerId) -> Option<bool> + Copy,
    ) -> bool {
        self.all().all(|set| set.is_won(own, promised))
    }

    /// The sets after a record that names `next`.
    pub(super) fn followed_by(&self, next: LogSet, forced: bool) -> Self {
        if forced {
            let forced = next.log_epoch;
            return Self { current: next, unsettled: Vec::new(), forced };
        }
        let mut unsettled = self.unsettled.clone();
        let before = &self.current;
        // The same members under an older epoch ask for nothing more.
        let is_known = |set: &LogSet| {
            set.coordinator == before.coordinator
                && set.workers == before.workers
                && set.copies == before.copies
        };
        if !before.workers.is_empty() && !is_known(&next) && !unsettled.iter().any(is_known) {
            unsettled.push(before.clone());
        }
        Self { current: next, unsettled, forced: self.forced }
    }

    /// The sets after any other record.
    pub(super) fn settle(&mut self) {
        self.unsettled.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(workers: usize, copies: u16) -> LogSet {
        let workers = (0..workers).map(|_| WorkerId::generate()).collect();
        LogSet { workers, copies, coordinator: CoordinatorId::generate(), ..LogSet::alone() }
    }

    /// All subsets of a set's workers.
    fn subsets(set: &LogSet) -> Vec<BTreeSet<WorkerId>> {
        let workers: Vec<_> = set.workers.iter().copied().collect();
        let chosen = |bits: usize| {
            let is_in = |at: &usize| bits & (1 << at) != 0;
            (0..workers.len()).filter(is_in).map(|at| workers[at]).collect()
        };
        (0..1 << workers.len()).map(chosen).collect()
    }

    #[test]
    fn ways_to_win_and_to_be_durable_meet() {
        for (copies, workers) in [(2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (4, 4)] {
            let set = set(workers, copies);
            let (own, other) = (set.coordinator, CoordinatorId::generate());
            let wins = |who, asked: &BTreeSet<WorkerId>| {
                set.is_won(Some(who), |worker| asked.contains(&worker).then_some(true))
            };
            for (has, asked) in subsets(&set)
                .iter()
                .flat_map(|has| subsets(&set).into_iter().map(move |asked| (has.clone(), asked)))
            {
                let meet = !has.is_disjoint(&asked);
                let shown = format!("{copies} copies: {has:?} {asked:?}");
                let is_durable = |who| set.is_durable(who, |worker| has.contains(&worker));
                // What its coordinator made durable is on its own disk, and elsewhere.
                assert!(!(is_durable(own) && wins(other, &asked)) || meet, "{shown}");
                assert!(!(is_durable(other) && wins(other, &asked)) || meet, "{shown}");
                assert!(!(is_durable(other) && wins(own, &asked)) || meet, "{shown}");
                // Two writers are not promised the same.
                assert!(!(wins(own, &has) && wins(other, &asked)) || meet, "{shown}");
                assert!(!(wins(other, &has) && wins(other, &asked)) || meet, "{shown}");
                // Who lost its promises makes nothing durable.
                let rest = |worker| !asked.contains(&worker);
                assert!(!(wins(other, &asked) && set.is_durable(own, rest)), "{shown}");
                assert!(!(wins(own, &asked) && set.is_durable(other, rest)), "{shown}");
            }
        }
    }

    #[test]
    fn an_incomplete_copy_vouches_for_nothing() {
        let set = set(2, 2);
        let other = CoordinatorId::generate();
        let first = set.workers.first().copied();
        let promised = |worker| Some(Some(worker) != first);
        assert!(!set.is_won(Some(other), promised));
        assert!(!set.is_won(None, promised));
        assert!(set.is_won(None, |_| Some(true)));
        assert!(
            set.is_won(Some(set.coordinator), |worker| {
                (Some(worker) == first).then_some(false)
            })
        );
    }

    #[test]
    fn zero_one_and_two_workers_need_one_two_and_two_copies() {
        let needed = |workers| set(workers, LOG_COPIES_DEFAULT).needed();
        assert_eq!([needed(0), needed(1), needed(2)], [1, 2, 2]);
        let covering = |workers| set(workers, LOG_COPIES_DEFAULT).covering();
        assert_eq!([covering(0), covering(1), covering(2)], [1, 1, 2]);
    }

    #[test]
    fn a_changed_set_stays_unsettled_until_another_record_follows() {
        let (one, two) = (set(1, 2), set(2, 2));
        let own = one.coordinator;
        let mut sets = LogSets::default().followed_by(one.clone(), false);
        assert!(sets.unsettled.is_empty(), "a coordinator alone has no say that outlives it");
        sets = sets.followed_by(two.clone(), false);
        assert_eq!(sets.unsettled, std::slice::from_ref(&one));
        assert!(!sets.is_durable(own, |worker| two.workers.contains(&worker)));
        assert!(sets.is_durable(own, |_| true));
        sets.settle();
        assert!(sets.is_durable(own, |worker| two.workers.contains(&worker)));
        let forced = sets.followed_by(one.clone(), true);
        assert_eq!(forced.forced, one.log_epoch);
        assert_eq!((forced.current, forced.unsettled), (one, vec![]));
    }
}
