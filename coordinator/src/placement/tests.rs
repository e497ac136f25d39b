//! What a placement promises, by example and by property. [`history`] has the few moves.

mod history;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn worker(number: u128) -> WorkerId {
    WorkerId(Uuid::from_u128(number))
}

fn candidate(weight: u32, domain: Option<&str>) -> Candidate {
    Candidate { weight, domain: domain.map(str::to_owned) }
}

/// Workers of equal weight without labels.
fn problem(slices: u16, copies: usize, workers: impl IntoIterator<Item = u128>) -> Problem {
    let workers = workers.into_iter().map(|number| (worker(number), candidate(1, None))).collect();
    Problem { slices, copies, workers }
}

/// The placement with numbers for workers.
fn numbers(placement: &SliceWorkers) -> Vec<Vec<u128>> {
    let number = |id: &WorkerId| id.0.as_u128();
    placement.iter().map(|list| list.iter().map(number).collect()).collect()
}

fn check(problem: &Problem, previous: &SliceWorkers, expected: &[&[u128]]) -> SliceWorkers {
    let placement = solve(problem, previous);
    assert_eq!(numbers(&placement), expected);
    placement
}

#[test]
fn one_worker_owns_everything() {
    check(&problem(3, 2, [1]), &vec![], &[&[1], &[1], &[1]]);
    check(&problem(3, 2, []), &vec![], &[&[], &[], &[]]);
}

#[test]
fn of_two_workers_each_backs_the_other() {
    let alone = check(&problem(4, 2, [1]), &vec![], &[&[1], &[1], &[1], &[1]]);
    check(&problem(4, 2, [1, 2]), &vec![], &[&[1, 2], &[2, 1], &[1, 2], &[2, 1]]);
    check(&problem(4, 2, [1, 2]), &alone, &[&[2, 1], &[2, 1], &[1, 2], &[1, 2]]);
}

#[test]
fn of_three_workers_each_backs_both_others() {
    check(
        &problem(6, 2, [1, 2, 3]),
        &vec![],
        &[&[1, 2], &[2, 1], &[3, 1], &[1, 3], &[2, 3], &[3, 2]],
    );
}

#[test]
fn the_partners_of_a_lost_worker_own_its_slices() {
    let three = solve(&problem(6, 2, [1, 2, 3]), &vec![]);
    check(&problem(6, 2, [1, 2]), &three, &[&[1, 2], &[2, 1], &[1, 2], &[1, 2], &[2, 1], &[2, 1]]);
}

#[test]
fn a_third_worker_takes_a_third_from_both() {
    let two = solve(&problem(6, 2, [1, 2]), &vec![]);
    let three = solve(&problem(6, 2, [1, 2, 3]), &two);
    assert_eq!(copies_of(&three), BTreeMap::from([1, 2, 3].map(|number| (worker(number), 4))));
    assert_eq!(owned_by(&three), BTreeMap::from([1, 2, 3].map(|number| (worker(number), 2))));
    assert_eq!(moved(&two, &three), 4);
}

#[test]
fn copies_of_a_slice_are_in_different_racks() {
    let racks = [(1, "a"), (2, "a"), (3, "b"), (4, "b")];
    let workers = racks.map(|(number, rack)| (worker(number), candidate(1, Some(rack))));
    let problem = Problem { slices: 4, copies: 2, workers: BTreeMap::from(workers) };
    check(&problem, &vec![], &[&[1, 3], &[2, 4], &[3, 1], &[4, 2]]);
}

#[test]
fn a_worker_of_twice_the_weight_takes_twice_as_much() {
    let workers = [(1, 1), (2, 1), (3, 2), (4, 2)];
    let workers = workers.map(|(number, weight)| (worker(number), candidate(weight, None)));
    let problem = Problem { slices: 12, copies: 2, workers: BTreeMap::from(workers) };
    let placement = solve(&problem, &vec![]);
    let expected = [(1, 2), (2, 2), (3, 4), (4, 4)];
    assert_eq!(owned_by(&placement), BTreeMap::from(expected.map(|(n, owns)| (worker(n), owns))));
    let expected = [(1, 4), (2, 4), (3, 8), (4, 8)];
    assert_eq!(copies_of(&placement), BTreeMap::from(expected.map(|(n, has)| (worker(n), has))));
}

#[test]
fn a_worker_without_weight_gives_everything_away() {
    let mut problem = problem(6, 2, [1, 2, 3]);
    let before = solve(&problem, &vec![]);
    problem.workers.insert(worker(2), candidate(0, None));
    let placement = solve(&problem, &before);
    assert!(placement.iter().all(|list| list.len() == 2 && !list.contains(&worker(2))));
}

/// What would take hours if some step looked at all pairs of slices and workers again and again.
#[test]
fn four_thousand_slices_and_a_thousand_workers_are_placed_quickly() {
    let problem = problem(4096, 2, 0..1024);
    let placement = solve(&problem, &vec![]);
    check_shape(&problem, &placement);
    assert!(owned_by(&placement).values().all(|owns| *owns == 4));
    assert!(copies_of(&placement).values().all(|has| *has == 8));
}

/// How many slices each worker owns.
fn owned_by(placement: &SliceWorkers) -> BTreeMap<WorkerId, usize> {
    let mut counts = BTreeMap::new();
    for list in placement {
        *counts.entry(list[0]).or_default() += 1;
    }
    counts
}

/// How many copies each worker has.
fn copies_of(placement: &SliceWorkers) -> BTreeMap<WorkerId, usize> {
    let mut counts = BTreeMap::new();
    for id in placement.iter().flatten() {
        *counts.entry(*id).or_default() += 1;
    }
    counts
}

/// How many copies must be sent for the second placement where the first is.
fn moved(before: &SliceWorkers, after: &SliceWorkers) -> usize {
    let new = |(before, after): (&Vec<WorkerId>, &Vec<WorkerId>)| {
        after.iter().filter(|id| !before.contains(id)).count()
    };
    before.iter().zip(after).map(new).sum()
}

/// Every slice has as many different workers as it should, all of which take slices.
fn check_shape(problem: &Problem, placement: &SliceWorkers) {
    let takes = |id: &WorkerId| problem.workers.get(id).is_some_and(|worker| worker.weight > 0);
    let takers = problem.workers.keys().filter(|id| takes(id)).count();
    assert_eq!(placement.len(), usize::from(problem.slices));
    for list in placement {
        assert_eq!(list.len(), problem.copies.max(1).min(takers), "{list:?}");
        assert_eq!(list.iter().collect::<BTreeSet<_>>().len(), list.len(), "{list:?}");
        assert!(list.iter().all(takes), "{list:?}");
    }
}

/// Every slice is in as many failure domains as it can be.
fn check_domains(problem: &Problem, placement: &SliceWorkers) {
    let domain = |id: &WorkerId| match &problem.workers[id].domain {
        Some(label) => label.clone(),
        None => id.to_string(),
    };
    let takers = problem.workers.iter().filter(|(_, candidate)| candidate.weight > 0);
    let all: BTreeSet<String> = takers.map(|(id, _)| domain(id)).collect();
    for list in placement {
        let domains: BTreeSet<String> = list.iter().map(domain).collect();
        assert_eq!(domains.len(), list.len().min(all.len()), "{list:?}");
    }
}

/// Every worker owns its share by weight, rounded up or down.
fn check_owners(problem: &Problem, placement: &SliceWorkers) {
    let weight = |id: &WorkerId| problem.workers[id].weight as usize;
    let all: usize = problem.workers.keys().map(weight).sum();
    let owned = owned_by(placement);
    for id in problem.workers.keys().filter(|_| all > 0) {
        let exact = usize::from(problem.slices) * weight(id);
        let owns = owned.get(id).copied().unwrap_or(0);
        assert!((exact / all..=exact.div_ceil(all)).contains(&owns), "{id} owns {owns}");
    }
}

/// No worker could give a copy to another one and both be nearer to their shares by weight, but
/// for bounds: an owner keeps its slices, and nobody has a slice twice.
fn check_copies(problem: &Problem, placement: &SliceWorkers) {
    let (owned, copies) = (owned_by(placement), copies_of(placement));
    let count = |counts: &BTreeMap<WorkerId, usize>, id| counts.get(id).copied().unwrap_or(0);
    let takers = || problem.workers.iter().filter(|(_, candidate)| candidate.weight > 0);
    for (rich, rich_candidate) in takers() {
        for (poor, poor_candidate) in takers() {
            let (has, lacks) = (count(&copies, rich), count(&copies, poor));
            if has > count(&owned, rich) && lacks < usize::from(problem.slices) {
                assert!(
                    (has - 1) * poor_candidate.weight as usize
                        <= (lacks + 1) * rich_candidate.weight as usize,
                    "{rich} has {has} while {poor} has {lacks}",
                );
            }
        }
    }
}

/// Workers with everything that a candidate can have, on few racks or without labels.
fn any_problem(labelled: bool) -> impl Strategy<Value = Problem> {
    let label = prop::option::of("[a-e]").prop_map(move |label| label.filter(|_| labelled));
    let candidate = (0..5u32, label).prop_map(|(weight, domain)| Candidate { weight, domain });
    let workers = prop::collection::btree_map((1..24u128).prop_map(worker), candidate, 1..16);
    (1..100u16, 0..5usize, workers).prop_map(|(slices, copies, workers)| Problem {
        slices,
        copies,
        workers,
    })
}

/// Placements that no solver made: of workers that may not exist, some twice, some slices empty.
fn any_placement() -> impl Strategy<Value = SliceWorkers> {
    let list = prop::collection::vec((1..24u128).prop_map(worker), 0..5);
    prop_oneof![Just(vec![]), prop::collection::vec(list, 0..100)]
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_was_before_slices_are_whole_spread_and_owned_in_shares(
        problem in any_problem(true),
        previous in any_placement(),
    ) {
        let placement = solve(&problem, &previous);
        check_shape(&problem, &placement);
        check_domains(&problem, &placement);
        if problem.workers.values().any(|candidate| candidate.weight > 0) {
            check_owners(&problem, &placement);
        }
        prop_assert_eq!(&solve(&problem, &previous), &placement, "not the same again");
        prop_assert_eq!(&solve(&problem, &placement), &placement, "moves without a change");
    }

    #[test]
    fn copies_are_shared_by_weight(problem in any_problem(false), previous in any_placement()) {
        let placement = solve(&problem, &previous);
        if problem.workers.values().any(|candidate| candidate.weight > 0) {
            check_copies(&problem, &placement);
        }
    }

    #[test]
    fn the_slices_of_one_owner_have_different_partners_in_a_small_cohort(
        slices in 1..200u16,
        workers in 1..32u128,
    ) {
        let placement = solve(&problem(slices, 2, 1..=workers), &vec![]);
        prop_assert_eq!(spread_missing(&placement, workers as usize), 0);
        check_cohorts(&placement, COHORT_WORKERS_MAX);
        check_cohorts(&solve(&problem(slices, 3, 1..=workers), &vec![]), COHORT_WORKERS_MAX);
    }
}

/// How many different first partners owners' slices lack.
fn spread_missing(placement: &SliceWorkers, workers: usize) -> usize {
    let missing = |(owner, owns): (WorkerId, usize)| {
        let mine = placement.iter().filter(|list| list[0] == owner);
        let firsts: BTreeSet<_> = mine.filter_map(|list| list.get(1)).collect();
        owns.min(COHORT_WORKERS - 1).min(workers - 1).saturating_sub(firsts.len())
    };
    owned_by(placement).into_iter().map(missing).sum()
}

/// No cohort has more than `max` workers.
fn check_cohorts(placement: &SliceWorkers, max: usize) {
    let mut cohorts: BTreeMap<WorkerId, BTreeSet<WorkerId>> = BTreeMap::new();
    for list in placement {
        for id in list {
            cohorts.entry(*id).or_default().extend(list);
        }
    }
    for (id, cohort) in cohorts {
        assert!(cohort.len() <= max, "{id} is with {}", cohort.len());
    }
}
