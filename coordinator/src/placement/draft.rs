//! A placement being worked on: workers as numbers, and the counts that decisions need.
//!
//! Invariant: the counts are always those of the lists; only [`Draft::add`], [`Draft::remove`],
//! [`Draft::make_owner`] and [`Draft::put_first`] change either.

use std::collections::{BTreeMap, BTreeSet};

use basalt_storage::ids::WorkerId;

use super::{COHORT_WORKERS_MAX, Problem, SliceWorkers};

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
    /// Slices that each worker owns.
    pub(super) owned: Vec<usize>,
    /// Slices that each worker has as owner or partner.
    pub(super) held: Vec<BTreeSet<usize>>,
    /// `links[a * workers + b]`: slices of owner `a` that have `b` as a partner.
    links: Vec<u32>,
    /// How many different partners each owner's slices have.
    partners: Vec<usize>,
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
            owned: vec![0; count],
            held: vec![BTreeSet::new(); count],
            links: vec![0; count * count],
            partners: vec![0; count],
        };
        for (slice, list) in previous.iter().take(slices).enumerate() {
            if list.first().is_some_and(|owner| workers.ids.binary_search(owner).is_err()) {
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
        Self { settled: self.slices.clone(), ..self.clone() }
    }

    /// The placement by worker ids.
    pub(super) fn into_placement(self) -> SliceWorkers {
        let ids = |list: Vec<usize>| list.into_iter().map(|worker| self.workers.ids[worker]);
        self.slices.into_iter().map(|list| ids(list).collect()).collect()
    }

    /// Gives a slice one more worker: its owner when it has none, else a partner.
    pub(super) fn add(&mut self, slice: usize, worker: usize) {
        self.slices[slice].push(worker);
        self.held[worker].insert(slice);
        let owner = self.slices[slice][0];
        if owner == worker {
            self.owned[worker] += 1;
        } else {
            self.link(owner, worker);
        }
    }

    /// Takes a partner away from a slice.
    pub(super) fn remove(&mut self, slice: usize, partner: usize) {
        let owner = self.slices[slice][0];
        self.slices[slice].retain(|worker| *worker != partner);
        self.held[partner].remove(&slice);
        self.unlink(owner, partner);
    }

    /// Makes a worker, partner or not, the owner; the owner before becomes the first partner.
    pub(super) fn make_owner(&mut self, slice: usize, worker: usize) {
        let mut list = std::mem::take(&mut self.slices[slice]);
        for partner in &list[1..] {
            self.unlink(list[0], *partner);
        }
        self.owned[list[0]] -= 1;
        self.owned[worker] += 1;
        self.held[worker].insert(slice);
        list.retain(|holder| *holder != worker);
        list.insert(0, worker);
        for partner in &list[1..] {
            self.link(worker, *partner);
        }
        self.slices[slice] = list;
    }

    /// Makes a partner the first partner.
    pub(super) fn put_first(&mut self, slice: usize, partner: usize) {
        if let Some(place) = self.slices[slice].iter().position(|worker| *worker == partner) {
            self.slices[slice][1..=place].rotate_right(1);
        }
    }

    fn link(&mut self, owner: usize, partner: usize) {
        let link = &mut self.links[owner * self.workers.ids.len() + partner];
        *link += 1;
        self.partners[owner] += usize::from(*link == 1);
    }

    fn unlink(&mut self, owner: usize, partner: usize) {
        let link = &mut self.links[owner * self.workers.ids.len() + partner];
        *link -= 1;
        self.partners[owner] -= usize::from(*link == 0);
    }

    /// How many slices of `owner` have `partner`.
    pub(super) fn links(&self, owner: usize, partner: usize) -> u32 {
        self.links[owner * self.workers.len() + partner]
    }

    /// How many copies a worker has.
    pub(super) fn load(&self, worker: usize) -> usize {
        self.held[worker].len()
    }

    /// How many different partners an owner's slices have beyond what its cohort allows.
    pub(super) fn beyond_cohort(&self, owner: usize) -> usize {
        self.partners[owner].saturating_sub(COHORT_WORKERS_MAX - 1)
    }

    /// Whether `partner` would be one more than an owner's cohort has room for, were it to come
    /// (in place of `instead`).
    pub(super) fn outgrows_cohort(
        &self,
        owner: usize,
        partner: usize,
        instead: Option<usize>,
    ) -> bool {
        let goes = instead.is_some_and(|worker| self.links(owner, worker) == 1);
        self.links(owner, partner) == 0
            && self.partners[owner] - usize::from(goes) >= COHORT_WORKERS_MAX - 1
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

    /// Whether a worker's copy lay there before anything was changed.
    pub(super) fn is_settled(&self, slice: usize, worker: usize) -> bool {
        self.settled[slice].contains(&worker)
    }

    /// The different first partners of an owner's slices, each with how many.
    pub(super) fn first_partners(&self, owner: usize) -> BTreeMap<usize, usize> {
        let mut counts = BTreeMap::new();
        for slice in self.held[owner].iter().filter(|slice| self.slices[**slice][0] == owner) {
            if let Some(first) = self.slices[*slice].get(1) {
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
        self.owned[owner].min(COHORT_WORKERS_MAX - 1).min(others)
    }
}
