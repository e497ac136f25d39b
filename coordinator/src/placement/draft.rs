//! A placement being worked on: workers as numbers, and the counts that decisions need.
//!
//! Invariant: the counts are always those of the lists; only [`Draft::add`], [`Draft::remove`],
//! [`Draft::make_owner`] and [`Draft::put_first`] change either.

use std::collections::{BTreeMap, BTreeSet};

use basalt_storage::ids::WorkerId;

use super::{COHORT_WORKERS, COHORT_WORKERS_MAX, Problem, SliceWorkers};

/// The workers that take slices, numbered in the order of their ids.
#[derive(Debug)]
pub(super) struct Workers {
    pub(super) ids: Vec<WorkerId>,
    pub(super) weights: Vec<u64>,
    /// The failure domain of each; a worker without a label is one by itself.
    pub(super) domains: Vec<usize>,
    /// How many workers each domain has.
    pub(super) domain_sizes: Vec<usize>,
}

impl Workers {
    pub(super) fn of(problem: &Problem) -> Self {
        let taking = || problem.workers.iter().filter(|(_, candidate)| candidate.weight > 0);
        let mut numbers = BTreeMap::new();
        let (mut domains, mut domain_sizes) = (Vec::new(), Vec::new());
        for (_, candidate) in taking() {
            let fresh = domain_sizes.len();
            let domain = match &candidate.domain {
                Some(label) => *numbers.entry(label).or_insert(fresh),
                None => fresh,
            };
            if domain == fresh {
                domain_sizes.push(0);
            }
            domain_sizes[domain] += 1;
            domains.push(domain);
        }
        Self {
            ids: taking().map(|(id, _)| *id).collect(),
            weights: taking().map(|(_, candidate)| u64::from(candidate.weight)).collect(),
            domains,
            domain_sizes,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }
}

/// Who has what, and how much of it.
#[derive(Debug, Clone)]
pub(super) struct Draft<'a> {
    pub(super) workers: &'a Workers,
    /// Workers that each slice should have.
    pub(super) copies: usize,
    /// The workers of each slice, its owner first.
    pub(super) slices: Vec<Vec<usize>>,
    /// The same before anything was changed: to move one of these copies costs a transfer.
    pub(super) settled: Vec<Vec<usize>>,
    /// Slices whose owner takes none any more.
    pub(super) orphans: BTreeSet<usize>,
    /// Whether a worker that had copies takes none any more.
    pub(super) somebody_left: bool,
    /// Whether workers came or went: only then it is worth moving copies for smaller cohorts.
    pub(super) members_changed: bool,
    /// Whether every slice lacks copies and that is all: then nothing moves that lies somewhere.
    pub(super) only_grows: bool,
    /// Slices that each worker owns.
    pub(super) owned: Vec<usize>,
    /// Slices that each worker has as owner or partner.
    pub(super) held: Vec<BTreeSet<usize>>,
    /// `shared[a * workers + b]`: slices that both have, in whatever role.
    shared: Vec<u32>,
    /// `partnered[a * workers + b]`: slices of owner `a` that have `b` as a partner.
    partnered: Vec<u32>,
    /// With whom each worker shares slices.
    neighbours: Vec<BTreeSet<usize>>,
}

impl<'a> Draft<'a> {
    /// The placement `previous` without workers that do not take slices any more.
    pub(super) fn of(problem: &Problem, workers: &'a Workers, previous: &SliceWorkers) -> Self {
        let count = workers.len();
        let slices = usize::from(problem.slices);
        let mut draft = Self {
            workers,
            copies: problem.copies.max(1).min(count),
            slices: vec![Vec::new(); slices],
            settled: Vec::new(),
            orphans: BTreeSet::new(),
            somebody_left: false,
            members_changed: false,
            only_grows: false,
            owned: vec![0; count],
            held: vec![BTreeSet::new(); count],
            shared: vec![0; count * count],
            partnered: vec![0; count * count],
            neighbours: vec![BTreeSet::new(); count],
        };
        for (slice, list) in previous.iter().take(slices).enumerate() {
            let has_left = |id: &WorkerId| workers.ids.binary_search(id).is_err();
            draft.somebody_left |= list.iter().any(has_left);
            if list.first().is_some_and(has_left) {
                draft.orphans.insert(slice);
            }
            for worker in list.iter().filter_map(|id| workers.ids.binary_search(id).ok()) {
                if !draft.slices[slice].contains(&worker) {
                    draft.add(slice, worker);
                }
            }
        }
        draft
    }

    /// The same placement, to be changed: all copies there are count as settled.
    pub(super) fn successor(&self) -> Self {
        let somebody_is_new = self.held.iter().any(BTreeSet::is_empty);
        let members_changed = self.somebody_left || somebody_is_new;
        let lacks = |list: &Vec<usize>| !list.is_empty() && list.len() < self.copies;
        Self {
            settled: self.slices.clone(),
            members_changed,
            only_grows: !members_changed && self.slices.iter().all(lacks),
            ..self.clone()
        }
    }

    /// Takes the placement as it is for the one before.
    pub(super) fn forget_who_left(&mut self) {
        self.orphans.clear();
        self.somebody_left = false;
    }

    /// The placement by worker ids.
    pub(super) fn into_placement(self) -> SliceWorkers {
        let ids = |list: Vec<usize>| list.into_iter().map(|worker| self.workers.ids[worker]);
        self.slices.into_iter().map(|list| ids(list).collect()).collect()
    }

    /// Gives a slice one more worker: its owner when it has none, else a partner.
    pub(super) fn add(&mut self, slice: usize, worker: usize) {
        let list = std::mem::take(&mut self.slices[slice]);
        for holder in &list {
            self.join(*holder, worker);
        }
        match list.first() {
            Some(owner) => self.partnered[owner * self.workers.len() + worker] += 1,
            None => self.owned[worker] += 1,
        }
        self.held[worker].insert(slice);
        self.slices[slice] = list;
        self.slices[slice].push(worker);
    }

    /// Takes a partner away from a slice.
    pub(super) fn remove(&mut self, slice: usize, partner: usize) {
        let mut list = std::mem::take(&mut self.slices[slice]);
        list.retain(|holder| *holder != partner);
        for holder in &list {
            self.part(*holder, partner);
        }
        self.partnered[list[0] * self.workers.len() + partner] -= 1;
        self.held[partner].remove(&slice);
        self.slices[slice] = list;
    }

    /// Puts a worker in the place of a partner.
    pub(super) fn replace(&mut self, slice: usize, partner: usize, worker: usize) {
        let was_first = self.slices[slice][1] == partner;
        self.remove(slice, partner);
        self.add(slice, worker);
        if was_first {
            self.put_first(slice, worker);
        }
    }

    /// Whether a worker can stand in for a partner without a loss of failure domains.
    pub(super) fn can_replace(&self, slice: usize, partner: usize, worker: usize) -> bool {
        let list = &self.slices[slice];
        let are_labelled = self.workers.domain_sizes.len() < self.workers.len();
        let domains = |with, without| self.domains(slice, with, without);
        !list.contains(&worker)
            && list[1..].contains(&partner)
            && (!are_labelled || domains(Some(worker), Some(partner)) >= domains(None, None))
    }

    /// Makes a partner the owner, and the owner the first partner: no copy moves.
    pub(super) fn make_owner(&mut self, slice: usize, partner: usize) {
        let count = self.workers.len();
        let before = self.slices[slice][0];
        for holder in &self.slices[slice][1..] {
            self.partnered[before * count + holder] -= 1;
        }
        self.put_first(slice, partner);
        self.slices[slice].swap(0, 1);
        for holder in &self.slices[slice][1..] {
            self.partnered[partner * count + holder] += 1;
        }
        self.owned[before] -= 1;
        self.owned[partner] += 1;
    }

    /// Makes a partner the first partner.
    pub(super) fn put_first(&mut self, slice: usize, partner: usize) {
        if let Some(place) = self.slices[slice].iter().position(|worker| *worker == partner) {
            self.slices[slice][1..=place].rotate_right(1);
        }
    }

    /// Counts a slice that two workers have from now on.
    fn join(&mut self, one: usize, other: usize) {
        let count = self.workers.len();
        self.shared[one * count + other] += 1;
        self.shared[other * count + one] += 1;
        if self.shared[one * count + other] == 1 {
            self.neighbours[one].insert(other);
            self.neighbours[other].insert(one);
        }
    }

    /// Counts a slice that two workers have no longer.
    fn part(&mut self, one: usize, other: usize) {
        let count = self.workers.len();
        self.shared[one * count + other] -= 1;
        self.shared[other * count + one] -= 1;
        if self.shared[one * count + other] == 0 {
            self.neighbours[one].remove(&other);
            self.neighbours[other].remove(&one);
        }
    }

    /// How many slices two workers share.
    pub(super) fn shared(&self, one: usize, other: usize) -> u32 {
        self.shared[one * self.workers.len() + other]
    }

    /// How many slices of `owner` have `partner`.
    pub(super) fn partnered(&self, owner: usize, partner: usize) -> u32 {
        self.partnered[owner * self.workers.len() + partner]
    }

    /// How many copies a worker has.
    pub(super) fn load(&self, worker: usize) -> usize {
        self.held[worker].len()
    }

    /// The slices that a worker owns.
    pub(super) fn slices_of(&self, owner: usize) -> impl Iterator<Item = usize> {
        self.held[owner].iter().copied().filter(move |slice| self.slices[*slice][0] == owner)
    }

    /// With whom a worker shares slices.
    pub(super) fn neighbours(&self, worker: usize) -> &BTreeSet<usize> {
        &self.neighbours[worker]
    }

    /// With how many others a worker should share slices.
    pub(super) fn neighbours_aim(&self) -> usize {
        // With many copies each slice brings many neighbours: three to choose each from.
        (COHORT_WORKERS - 1).max(3 * (self.copies - 1))
    }

    /// With how many others a worker may share slices.
    pub(super) fn neighbours_max(&self) -> usize {
        self.neighbours_aim() + COHORT_WORKERS_MAX - COHORT_WORKERS
    }

    /// With how many others a worker shares slices beyond what its cohort allows.
    pub(super) fn beyond_cohort(&self, worker: usize) -> usize {
        self.neighbours[worker].len().saturating_sub(self.neighbours_max())
    }

    /// Whether somebody would have a new neighbour and more than `max`, were `worker` to get the
    /// slice (in place of `instead`).
    pub(super) fn outgrows(
        &self,
        max: usize,
        slice: usize,
        worker: usize,
        instead: Option<usize>,
    ) -> bool {
        let stays = |holder: &&usize| Some(**holder) != instead;
        let new = || {
            let holders = self.slices[slice].iter().filter(stays);
            holders.filter(|holder| self.shared(**holder, worker) == 0)
        };
        let goes = |holder: usize| instead.is_some_and(|instead| self.shared(holder, instead) == 1);
        let grows =
            |holder: &usize| self.neighbours[*holder].len() + 1 - usize::from(goes(*holder)) > max;
        let count = new().count();
        count > 0 && (self.neighbours[worker].len() + count > max || new().any(grows))
    }

    /// How many failure domains a slice's workers would be in, with one more and without another.
    pub(super) fn domains(
        &self,
        slice: usize,
        with: Option<usize>,
        without: Option<usize>,
    ) -> usize {
        let stays = |worker: &&usize| Some(**worker) != without;
        let workers = || self.slices[slice].iter().filter(stays).chain(with.as_ref());
        let domain = |worker: &usize| self.workers.domains[*worker];
        let is_first = |(place, worker): &(usize, &usize)| {
            workers().take(*place).all(|before| domain(before) != domain(worker))
        };
        workers().enumerate().filter(is_first).count()
    }

    /// How many failure domains a slice's workers can be in at most.
    pub(super) fn domains_max(&self) -> usize {
        self.copies.min(self.workers.domain_sizes.len())
    }

    /// Whether a copy may be moved for the sake of cohorts and spread alone: one that is on no disk
    /// yet, or any while workers come and go. Nothing moves by and by.
    pub(super) fn may_tidy(&self, slice: usize, worker: usize) -> bool {
        self.members_changed || !self.is_settled(slice, worker)
    }

    /// Whether a worker's copy lay there before anything was changed.
    pub(super) fn is_settled(&self, slice: usize, worker: usize) -> bool {
        self.settled[slice].contains(&worker)
    }

    /// The different first partners of an owner's slices, each with how many.
    pub(super) fn first_partners(&self, owner: usize) -> BTreeMap<usize, usize> {
        let mut counts = BTreeMap::new();
        for slice in self.slices_of(owner) {
            if let Some(first) = self.slices[slice].get(1) {
                *counts.entry(*first).or_default() += 1;
            }
        }
        counts
    }

    /// How many different first partners an owner's slices can have.
    pub(super) fn first_partners_max(&self, owner: usize) -> usize {
        if self.copies < 2 {
            return 0;
        }
        let domain = self.workers.domains[owner];
        let elsewhere = self.workers.len() - self.workers.domain_sizes[domain];
        let others = if elsewhere > 0 { elsewhere } else { self.workers.len() - 1 };
        self.owned[owner].min(COHORT_WORKERS - 1).min(others)
    }
}
