//! What moves when workers come and go: placements that have a history.

use super::*;

/// The most copies that move beyond those that have to, for each that has to, when one worker
/// comes or goes. Cohorts cost it: where everybody may be with everybody, hardly any do. Measured
/// over ten thousand changes: 0.1 on average, and 1.7 at most.
const EXTRA_MOVES_MAX: usize = 2;

/// What few slices may cost more: shares of two or three copies round badly.
const EXTRA_MOVES_OF_FEW: usize = 8;

/// How many of the different partners that all owners together can have may be lacking where a
/// cluster has a history: what would give the last ones theirs may not be found, or not be worth
/// as many copies as it takes. Nearly always none are.
const SPREAD_MISSING_PERCENT_MAX: usize = 10;

/// What happens to a cluster.
#[derive(Debug, Clone, Copy)]
enum Change {
    Joins,
    /// The worker of this rank, modulo their number.
    Leaves(usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![Just(Change::Joins), (0..100usize).prop_map(Change::Leaves)]
}

/// A cluster of equal workers and its placement.
#[derive(Debug)]
struct Cluster {
    problem: Problem,
    placement: SliceWorkers,
    /// The number of the worker that comes next.
    next: u128,
}

impl Cluster {
    fn new(slices: u16, copies: usize, workers: u128) -> Self {
        let problem = problem(slices, copies, 1..=workers);
        let placement = solve(&problem, &vec![]);
        Self { problem, placement, next: workers + 1 }
    }

    /// A worker that comes, or one that goes; the last one stays.
    fn change(&mut self, change: Change) {
        let workers = self.problem.workers.len();
        match change {
            Change::Leaves(rank) if workers > 1 => self.leaves(rank % workers),
            Change::Leaves(_) | Change::Joins => self.joins(),
        }
    }

    fn joins(&mut self) {
        let id = worker(self.next);
        self.next += 1;
        self.problem.workers.insert(id, candidate(1, None));
        let before = self.solve();
        let sent = moved(&before, &self.placement);
        let share = copies_of(&self.placement).get(&id).copied().unwrap_or(0);
        assert!(
            sent - share <= EXTRA_MOVES_MAX * share + EXTRA_MOVES_OF_FEW,
            "{sent} copies are sent for a share of {share}",
        );
    }

    fn leaves(&mut self, rank: usize) {
        let id = *self.problem.workers.keys().nth(rank).unwrap();
        self.problem.workers.remove(&id);
        let before = self.solve();
        for (before, after) in before.iter().zip(&self.placement) {
            let was_owner = before[0] == id;
            assert!(
                !was_owner || before.len() == 1 || before[1..].contains(&after[0]),
                "{before:?} is owned by one without the data: {after:?}",
            );
        }
        let lost = copies_of(&before).get(&id).copied().unwrap_or(0);
        let sent = moved(&before, &self.placement);
        assert!(
            sent <= lost + EXTRA_MOVES_MAX * lost + EXTRA_MOVES_OF_FEW,
            "{sent} copies are sent for {lost} that are lost",
        );
    }

    /// Solves and checks what holds always; the placement before.
    fn solve(&mut self) -> SliceWorkers {
        let placement = solve(&self.problem, &self.placement);
        check_shape(&self.problem, &placement);
        check_owners(&self.problem, &placement);
        check_copies(&self.problem, &placement);
        assert_eq!(solve(&self.problem, &placement), placement, "moves without a change");
        std::mem::replace(&mut self.placement, placement)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..config() })]

    #[test]
    fn few_copies_move_when_workers_come_and_go(
        slices in 1..128u16,
        copies in 1..4usize,
        workers in 1..16u128,
        changes in prop::collection::vec(change(), 1..6),
    ) {
        let mut cluster = Cluster::new(slices, copies, workers);
        for one in changes {
            cluster.change(one);
        }
    }

    #[test]
    fn cohorts_stay_small_while_a_cluster_grows_and_shrinks(
        slices in 64..128u16,
        workers in 1..16u128,
        changes in prop::collection::vec(change(), 1..8),
    ) {
        let mut cluster = Cluster::new(slices, 2, workers);
        for one in changes {
            cluster.change(one);
            // Balance ranks above cohorts: one more worker was seen once in 14,000 histories.
            check_cohorts(&cluster.placement, COHORT_WORKERS_MAX + 1);
            let workers = cluster.problem.workers.len();
            let possible = workers * (workers - 1).min(COHORT_WORKERS - 1);
            let missing = spread_missing(&cluster.placement, workers);
            prop_assert!(
                100 * missing <= SPREAD_MISSING_PERCENT_MAX * possible,
                "{missing} of {possible} partners are missing",
            );
        }
    }

    #[test]
    fn more_copies_are_added_to_those_there_are(
        // With fewer slices than workers, balance may have a copy moved.
        slices in 24..128u16,
        copies in 1..5usize,
        workers in 1..24u128,
        changes in prop::collection::vec(change(), 0..4),
    ) {
        let mut cluster = Cluster::new(slices, copies, workers);
        for one in changes {
            cluster.change(one);
        }
        cluster.problem.copies += 1;
        let before = cluster.solve();
        for (before, after) in before.iter().zip(&cluster.placement) {
            prop_assert_eq!(before[0], after[0]);
            prop_assert!(before.iter().all(|id| after.contains(id)), "{before:?}: {after:?}");
        }
    }
}

#[test]
fn a_worker_that_comes_to_a_small_cluster_takes_its_share_and_nothing_else_moves() {
    for workers in 1..7 {
        let mut cluster = Cluster::new(64, 2, workers);
        let before = cluster.placement.clone();
        cluster.joins();
        let new = copies_of(&cluster.placement)[&worker(workers + 1)];
        let sent = moved(&before, &cluster.placement);
        assert!(sent <= new + 3, "{sent} copies are sent for a share of {new}");
    }
}

#[test]
fn when_a_worker_of_a_small_cluster_goes_only_its_own_copies_are_made_again() {
    for workers in 3..=8 {
        let mut cluster = Cluster::new(64, 2, workers);
        let before = cluster.placement.clone();
        cluster.leaves(0);
        assert_eq!(moved(&before, &cluster.placement), copies_of(&before)[&worker(1)]);
    }
}

#[test]
fn where_others_can_go_a_slice_that_lost_its_owner_stays_with_who_has_it() {
    // Whoever owns none gets a slice of the partner of the lost worker, but not the one it lost.
    Cluster::new(11, 2, 13).leaves(2);
}

#[test]
fn more_copies_of_many_slices_on_many_workers_move_nothing() {
    for workers in 8..24 {
        let mut cluster = Cluster::new(100, 4, workers);
        cluster.problem.copies += 1;
        let before = cluster.solve();
        assert_eq!(moved(&before, &cluster.placement), 100, "{workers} workers");
    }
}

/// Copies that are sent, and those of them that have to be, while a cluster grows by ten workers
/// one by one and loses ten.
fn sent_while_growing_and_shrinking(copies: usize) -> (usize, usize) {
    let mut cluster = Cluster::new(128, copies, 12);
    let (mut sent, mut needed) = (0, 0);
    for round in 0..20 {
        let before = cluster.placement.clone();
        if round < 10 {
            cluster.joins();
            let id = worker(cluster.next - 1);
            needed += copies_of(&cluster.placement)[&id];
        } else {
            let rank = 7 * round % cluster.problem.workers.len();
            let id = *cluster.problem.workers.keys().nth(rank).unwrap();
            cluster.leaves(rank);
            needed += copies_of(&before)[&id];
        }
        sent += moved(&before, &cluster.placement);
    }
    (sent, needed)
}

/// The percentages are what was measured (100, 126 and 133), and a little more: they are there to
/// notice when it gets worse.
#[test]
fn over_a_long_history_few_copies_are_sent_beyond_those_that_have_to_be() {
    for (copies, percent_max) in [(1, 100), (2, 135), (3, 150)] {
        let (sent, needed) = sent_while_growing_and_shrinking(copies);
        assert!(100 * sent <= percent_max * needed, "{copies}: {sent} are sent for {needed}");
    }
}
