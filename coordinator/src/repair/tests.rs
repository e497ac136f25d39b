//! What repair does next, by example. [`simulation`] runs it against everything at once.

mod simulation;

use basalt_storage::ids::{SegmentId, SliceId, TableId};
use uuid::Uuid;

use super::WorkerState::{Away, Draining, Live, Lost};
use super::*;
use crate::placement::SliceWorkers;

fn worker(number: u128) -> WorkerId {
    WorkerId(Uuid::from_u128(number))
}

fn workers(numbers: &[u128]) -> Vec<WorkerId> {
    numbers.iter().copied().map(worker).collect()
}

/// A segment of slice 0 of table 1.
fn key(number: u128) -> SegmentKey {
    SegmentKey { table: TableId(1), slice: SliceId(0), segment: SegmentId(Uuid::from_u128(number)) }
}

/// Everything a plan depends on; all segments are of one slice.
struct World {
    desired: SliceWorkers,
    states: BTreeMap<WorkerId, WorkerState>,
    segments: Vec<Owned>,
    bad: BTreeSet<(WorkerId, SegmentKey)>,
    in_flight: Vec<InFlight>,
    domains: BTreeMap<WorkerId, String>,
    limits: Limits,
}

/// A segment with its holders.
#[derive(Debug, Clone)]
struct Owned {
    key: SegmentKey,
    bytes: u64,
    holders: Vec<WorkerId>,
    wanted: usize,
    everywhere: bool,
    heat: u64,
}

impl Owned {
    fn segment(&self) -> Segment<'_> {
        let Self { key, bytes, ref holders, wanted, everywhere, heat } = *self;
        Segment { key, bytes, holders, wanted, everywhere, heat }
    }
}

impl World {
    /// Workers 1, 2, ... in these states, and the workers where the slice should be.
    fn new(states: &[WorkerState], desired: &[u128]) -> Self {
        let states = (1..).map(worker).zip(states.iter().copied()).collect();
        Self {
            desired: vec![workers(desired)],
            states,
            segments: Vec::new(),
            bad: BTreeSet::new(),
            in_flight: Vec::new(),
            domains: BTreeMap::new(),
            limits: Limits::default(),
        }
    }

    /// One more segment, 1 being the first, that wants two copies.
    fn segment(mut self, holders: &[u128]) -> Self {
        let key = key(self.segments.len() as u128 + 1);
        let holders = workers(holders);
        self.segments.push(Owned {
            key,
            bytes: 100,
            holders,
            wanted: 2,
            everywhere: false,
            heat: 0,
        });
        self
    }

    /// The same for the last segment with another number of copies.
    fn wanting(mut self, wanted: usize) -> Self {
        if let Some(segment) = self.segments.last_mut() {
            segment.wanted = wanted;
        }
        self
    }

    /// The last segment belongs on every worker.
    fn everywhere(mut self) -> Self {
        if let Some(segment) = self.segments.last_mut() {
            segment.everywhere = true;
        }
        self
    }

    fn bad(mut self, holder: u128, segment: u128) -> Self {
        self.bad.insert((worker(holder), key(segment)));
        self
    }

    fn plan(&self) -> Plan {
        let Self { states, bad, in_flight, domains, .. } = self;
        let observed = Observed { workers: states, bad, in_flight, domains };
        plan(self.segments.iter().map(Owned::segment), &self.desired, &observed, self.limits)
    }

    /// Checks the steps, each in short.
    fn check(&self, expected: &[&str]) {
        let short = |step: &Step| match step {
            Step::Copy { segment, sources, to, reason } => {
                let sources: Vec<u128> = sources.iter().map(|id| id.0.as_u128()).collect();
                let (segment, to) = (segment.segment.0.as_u128(), to.0.as_u128());
                format!("copy {segment} from {sources:?} to {to}: {reason:?}")
            }
            Step::Rebuild { segment, worker, sources } => {
                let sources: Vec<u128> = sources.iter().map(|id| id.0.as_u128()).collect();
                let (segment, worker) = (segment.segment.0.as_u128(), worker.0.as_u128());
                format!("rebuild {segment} on {worker} from {sources:?}")
            }
            Step::Forget { segment, worker, reason } => {
                let (segment, worker) = (segment.segment.0.as_u128(), worker.0.as_u128());
                format!("forget {segment} on {worker}: {reason:?}")
            }
        };
        let steps: Vec<String> = self.plan().steps.iter().map(short).collect();
        assert_eq!(steps, expected);
    }
}

#[test]
fn a_segment_that_is_where_it_should_be_needs_nothing() {
    World::new(&[Live, Live, Live], &[1, 2]).segment(&[1, 2]).check(&[]);
    World::new(&[Live, Live, Live], &[1, 2]).segment(&[2, 1]).check(&[]);
}

#[test]
fn a_worker_that_is_away_causes_no_copy() {
    World::new(&[Live, Away, Live], &[1, 2]).segment(&[1, 2]).check(&[]);
}

#[test]
fn what_a_lost_worker_had_is_copied_and_then_it_is_forgotten() {
    World::new(&[Live, Lost, Live], &[1, 3])
        .segment(&[1, 2])
        .check(&["copy 1 from [1] to 3: TooFew"]);
    World::new(&[Live, Lost, Live], &[1, 3]).segment(&[1, 2, 3]).check(&["forget 1 on 2: Lost"]);
}

#[test]
fn a_lost_worker_stays_on_record_while_the_cluster_is_too_small_without_it() {
    World::new(&[Live, Lost], &[1]).segment(&[1, 2]).check(&[]);
}

#[test]
fn a_bad_copy_is_rebuilt_where_it_belongs_and_forgotten_elsewhere() {
    let world = || World::new(&[Live, Live, Live], &[1, 2]);
    world().segment(&[1, 2]).bad(2, 1).check(&["rebuild 1 on 2 from [1]"]);
    world().segment(&[1, 2, 3]).bad(3, 1).check(&["forget 1 on 3: Bad"]);
    world().segment(&[1, 3]).bad(3, 1).check(&["copy 1 from [1] to 2: TooFew"]);
}

#[test]
fn a_worker_is_drained_by_copies_of_what_it_has() {
    World::new(&[Live, Draining, Live], &[1, 3])
        .segment(&[2, 1])
        .check(&["copy 1 from [1, 2] to 3: Drain"]);
    World::new(&[Live, Draining, Live], &[1, 3])
        .segment(&[2])
        .check(&["copy 1 from [2] to 1: TooFew", "copy 1 from [2] to 3: Drain"]);
    World::new(&[Live, Draining, Live], &[1, 3])
        .segment(&[2, 1, 3])
        .check(&["forget 1 on 2: Drained"]);
}

#[test]
fn a_worker_keeps_what_it_is_drained_of_while_another_one_is_lost() {
    World::new(&[Lost, Draining, Live], &[3]).segment(&[1, 2, 3]).check(&[]);
    World::new(&[Live, Draining, Live, Lost], &[1, 3])
        .segment(&[2, 1, 3])
        .check(&["forget 1 on 2: Drained"]);
    World::new(&[Draining, Live], &[2]).segment(&[1, 2]).check(&["forget 1 on 1: Drained"]);
}

#[test]
fn a_worker_that_has_the_only_copy_is_not_drained_of_it() {
    World::new(&[Draining], &[]).segment(&[1]).check(&[]);
    World::new(&[Draining, Away], &[2]).segment(&[1]).check(&[]);
    World::new(&[Draining, Live], &[2])
        .segment(&[1, 2])
        .bad(2, 1)
        .check(&["rebuild 1 on 2 from [1]"]);
}

#[test]
fn copies_beyond_those_placed_go_where_nothing_fails_together() {
    let mut world = World::new(&[Live; 5], &[1]).segment(&[1]).wanting(3);
    for (worker, domain) in [(1, "a"), (2, "a"), (3, "b"), (4, "b"), (5, "c")] {
        world.domains.insert(self::worker(worker), domain.to_owned());
    }
    let copies = world.plan().steps.into_iter().filter_map(|step| match step {
        Step::Copy { to, .. } => world.domains.get(&to).cloned(),
        _ => None,
    });
    assert_eq!(copies.collect::<BTreeSet<_>>(), BTreeSet::from(["b".to_owned(), "c".to_owned()]));
}

#[test]
fn what_belongs_on_every_worker_gets_there_last_and_nothing_waits_for_it() {
    World::new(&[Live, Live, Live], &[1, 2])
        .segment(&[1, 2])
        .everywhere()
        .segment(&[1])
        .check(&["copy 2 from [1] to 2: TooFew", "copy 1 from [2, 1] to 3: Everywhere"]);
    World::new(&[Live, Live, Away], &[1, 2]).segment(&[1, 2]).everywhere().check(&[]);
    World::new(&[Live, Live, Lost], &[1, 2])
        .segment(&[1, 2, 3])
        .everywhere()
        .check(&["forget 1 on 3: Lost"]);
    World::new(&[Live, Live, Draining], &[1, 2])
        .segment(&[1, 2, 3])
        .everywhere()
        .check(&["forget 1 on 3: Drained"]);
    World::new(&[Live, Live, Live], &[1, 2])
        .segment(&[1, 2, 3])
        .everywhere()
        .bad(3, 1)
        .check(&["rebuild 1 on 3 from [1, 2]"]);
}

#[test]
fn copies_move_before_the_old_ones_go() {
    let world = || World::new(&[Live, Live, Live], &[1, 2]);
    world().segment(&[1, 3]).check(&["copy 1 from [1, 3] to 2: Placement"]);
    world().segment(&[1, 3, 2]).check(&["forget 1 on 3: Surplus"]);
}

#[test]
fn a_copy_in_flight_is_not_made_twice_and_its_source_stays() {
    let mut world = World::new(&[Live, Live, Live, Live], &[1, 2]).segment(&[4, 3, 1]);
    world.check(&["copy 1 from [4, 3, 1] to 2: Placement"]);
    world.in_flight = vec![InFlight { segment: key(1), from: worker(3), to: worker(2) }];
    world.check(&["forget 1 on 4: Surplus"]);
}

#[test]
fn a_copy_in_flight_counts_wherever_it_goes() {
    let mut world = World::new(&[Live, Away, Live, Live], &[1, 2]).segment(&[1]);
    assert_eq!(world.plan().steps.len(), 1);
    world.in_flight = vec![InFlight { segment: key(1), from: worker(1), to: worker(3) }];
    world.check(&[]);
}

#[test]
fn others_stand_in_where_the_copy_belongs_to_a_worker_that_is_away() {
    World::new(&[Live, Away, Live], &[1, 2]).segment(&[1]).check(&["copy 1 from [1] to 3: TooFew"]);
    World::new(&[Live, Away, Live], &[1, 2]).segment(&[1, 3]).check(&[]);
    World::new(&[Live, Live, Live], &[1, 2])
        .segment(&[1, 3])
        .check(&["copy 1 from [1, 3] to 2: Placement"]);
}

#[test]
fn a_table_may_want_fewer_copies_than_the_placement_has_or_more() {
    let world = || World::new(&[Live, Live, Live, Live], &[1, 2]);
    world().segment(&[1]).wanting(1).check(&[]);
    world().segment(&[2]).wanting(1).check(&["copy 1 from [2] to 1: Placement"]);
    world().segment(&[1, 2, 3, 4]).wanting(4).check(&[]);
    let steps = world().segment(&[1, 2]).wanting(3).plan().steps;
    let [Step::Copy { to, .. }] = steps[..] else { panic!("{steps:?}") };
    assert!(to == worker(3) || to == worker(4));
}

#[test]
fn a_segment_without_a_good_copy_is_reported_with_who_may_return_with_one() {
    let plan = World::new(&[Live, Lost, Away], &[1, 3]).segment(&[1, 2, 3]).bad(1, 1).plan();
    assert_eq!(plan.steps, []);
    let lost = LostSegment { segment: key(1), may_return_with: workers(&[2, 3]) };
    assert_eq!(plan.lost, [lost]);
    assert_eq!(plan.progress.lost, Tally { count: 1, bytes: 100 });
}

#[test]
fn what_has_fewest_copies_goes_first_then_what_is_hot_then_what_is_small() {
    let mut world = World::new(&[Live, Live, Live, Live], &[1, 2, 3])
        .segment(&[1, 2])
        .wanting(3)
        .segment(&[2])
        .wanting(2)
        .segment(&[2])
        .wanting(2)
        .segment(&[2])
        .wanting(2);
    world.limits.in_flight_per_target_max = 3;
    world.limits.in_flight_per_source_max = 4;
    world.segments[1].bytes = 200;
    world.segments[3].heat = 5;
    world.check(&[
        "copy 4 from [2] to 1: TooFew",
        "copy 3 from [2] to 1: TooFew",
        "copy 2 from [2] to 1: TooFew",
        "copy 1 from [1, 2] to 3: TooFew",
    ]);
    world.limits.steps_max = 1;
    world.check(&["copy 4 from [2] to 1: TooFew"]);
}

#[test]
fn what_is_missing_goes_before_what_is_elsewhere() {
    World::new(&[Live, Live, Live], &[3, 1, 2])
        .segment(&[1])
        .wanting(1)
        .segment(&[1, 2])
        .wanting(3)
        .check(&["copy 2 from [1, 2] to 3: TooFew", "copy 1 from [1] to 3: Placement"]);
}

#[test]
fn nobody_sends_or_receives_more_than_the_limits_allow() {
    let world =
        || World::new(&[Live, Live, Live], &[1, 2]).segment(&[1]).segment(&[1]).segment(&[3, 2]);
    let mut one_in = world();
    one_in.limits.in_flight_per_target_max = 1;
    one_in.check(&["copy 1 from [1] to 2: TooFew", "copy 3 from [3, 2] to 1: Placement"]);
    let mut one_out = world();
    one_out.limits.in_flight_per_source_max = 1;
    one_out.check(&["copy 1 from [1] to 2: TooFew", "copy 3 from [3, 2] to 1: Placement"]);
    one_out.in_flight = vec![InFlight { segment: key(9), from: worker(1), to: worker(3) }];
    one_out.check(&["copy 3 from [3, 2] to 1: Placement"]);
}

#[test]
fn a_copy_that_cannot_be_read_now_does_not_make_a_segment_full() {
    let progress = World::new(&[Live, Away], &[1, 2]).segment(&[1, 2]).plan().progress;
    let single = Tally { count: 1, bytes: 100 };
    assert_eq!(progress, Progress { single, ..Progress::default() });
}

#[test]
fn progress_counts_every_segment_once() {
    let plan = World::new(&[Live, Live, Live, Lost], &[1, 2, 3])
        .segment(&[1, 2])
        .segment(&[1, 3])
        .segment(&[1, 4])
        .segment(&[4])
        .segment(&[1, 2, 4])
        .wanting(3)
        .plan();
    let tally = |count| Tally { count, bytes: 100 * count };
    let expected = Progress {
        full: tally(2),
        degraded: tally(1),
        single: tally(1),
        lost: tally(1),
        copies_missing: tally(2),
        moves: tally(1),
    };
    assert_eq!(plan.progress, expected);
}
