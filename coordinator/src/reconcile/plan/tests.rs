//! Examples, and a simulation: workers die, come back, are drained and join while copies are made,
//! fail or turn bad; no good copy is given up that is needed, and the cluster comes to rest.

use basalt_storage::digest::Digest;
use basalt_storage::ids::{SliceId, TableId, TxnId};
use basalt_storage::manifest::Layout;
use uuid::Uuid;

use super::*;

fn worker(n: usize) -> WorkerId {
    WorkerId(Uuid::from_u128(n as u128 + 1))
}

fn segment(slice: u16, holders: &[usize]) -> Arc<SegmentRecord> {
    Arc::new(SegmentRecord {
        table: TableId(1),
        slice: SliceId(slice),
        segment: SegmentId::generate(),
        txn: TxnId::generate(),
        layout: Layout::Packed,
        rows: 1,
        row_groups: vec![1],
        bytes: 1,
        meta_digest: Digest::of(b""),
        columns: BTreeMap::new(),
        holders: holders.iter().map(|n| worker(*n)).collect(),
        deleted: None,
    })
}

/// A cluster in which every slice is on its neighbours, two copies of each segment wanted.
struct Scene {
    standings: BTreeMap<WorkerId, Standing>,
    slice_workers: Vec<Vec<WorkerId>>,
    bad: HashSet<(WorkerId, SegmentId)>,
    under_way: HashSet<(SegmentId, WorkerId)>,
}

const WANTED: usize = 2;

impl Scene {
    fn new(standings: &[Standing]) -> Self {
        let standings: BTreeMap<_, _> =
            standings.iter().enumerate().map(|(n, standing)| (worker(n), *standing)).collect();
        let mut scene = Self {
            standings,
            slice_workers: vec![],
            bad: HashSet::new(),
            under_way: HashSet::new(),
        };
        scene.place();
        scene
    }

    /// Slices on those that stay, as the solver would.
    fn place(&mut self) {
        let staying = self
            .standings
            .iter()
            .filter(|(_, standing)| matches!(standing, Standing::Good | Standing::Away));
        let staying: Vec<_> = staying.map(|(worker, _)| *worker).collect();
        if staying.is_empty() {
            return;
        }
        let at = |n: usize| staying[n % staying.len()];
        self.slice_workers = (0..4)
            .map(|slice| {
                let mut workers = vec![at(slice), at(slice + 1)];
                workers.dedup();
                workers
            })
            .collect();
    }

    fn situation(&self) -> Situation<'_> {
        Situation {
            standings: &self.standings,
            slice_workers: &self.slice_workers,
            bad: &self.bad,
            under_way: &self.under_way,
        }
    }

    fn plan(&self, segments: &[Arc<SegmentRecord>]) -> Plan {
        plan(self.situation(), segments.iter().map(|segment| (segment, WANTED)))
    }
}

use Standing::{Away, Draining, Good, Lost};

#[track_caller]
fn check(standings: &[Standing], holders: &[usize], copied_to: &[usize], forgotten: &[usize]) {
    let scene = Scene::new(standings);
    let plan = scene.plan(&[segment(0, holders)]);
    let to: Vec<_> = plan.copies.iter().map(|copy| copy.to).collect();
    assert_eq!(to, copied_to.iter().map(|n| worker(*n)).collect::<Vec<_>>(), "{plan:?}");
    let forget: Vec<_> = plan.forget.iter().flat_map(|step| step.remove.clone()).collect();
    assert_eq!(forget, forgotten.iter().map(|n| worker(*n)).collect::<Vec<_>>(), "{plan:?}");
}

#[test]
fn what_is_as_it_should_be_is_left_alone() {
    check(&[Good, Good, Good], &[0, 1], &[], &[]);
}

#[test]
fn nothing_is_copied_for_a_worker_that_is_away_for_a_while() {
    check(&[Good, Away, Good], &[0, 1], &[], &[]);
}

#[test]
fn the_copies_of_a_lost_worker_are_made_again_and_then_forgotten() {
    check(&[Good, Lost, Good], &[0, 1], &[2], &[]);
    check(&[Good, Lost, Good], &[0, 1, 2], &[], &[1]);
}

#[test]
fn a_draining_worker_is_a_source_until_others_have_what_it_had() {
    let scene = Scene::new(&[Draining, Good, Good]);
    let segments = [segment(0, &[0])];
    let plan = scene.plan(&segments);
    assert!(plan.copies.iter().all(|copy| copy.sources == [worker(0)]));
    assert_eq!(plan.copies.len(), 2);
    assert!(plan.forget.is_empty());
    check(&[Draining, Good, Good], &[0, 1, 2], &[], &[0]);
}

#[test]
fn a_bad_copy_is_mended_where_it_is_and_never_a_source() {
    let mut scene = Scene::new(&[Good, Good, Good]);
    let segments = [segment(0, &[0, 1])];
    scene.bad.insert((worker(0), segments[0].segment));
    let plan = scene.plan(&segments);
    assert_eq!(plan.copies[0].to, worker(0));
    assert_eq!(plan.copies[0].sources, [worker(1)]);
}

#[test]
fn copies_move_to_where_they_should_be_and_only_then_from_where_they_were() {
    check(&[Good, Good, Good], &[1, 2], &[0], &[]);
    check(&[Good, Good, Good], &[1, 2, 0], &[], &[2]);
}

#[test]
fn the_last_copy_is_never_forgotten_and_a_lost_one_is_told() {
    check(&[Draining], &[0], &[], &[]);
    check(&[Lost, Good], &[0, 1], &[], &[]);
    let scene = Scene::new(&[Lost, Good, Good]);
    let gone = [segment(0, &[0])];
    assert_eq!(scene.plan(&gone).lost, [gone[0].segment]);
}

#[test]
fn segments_with_the_fewest_good_copies_come_first() {
    let scene = Scene::new(&[Good, Good, Good, Lost]);
    let segments = [segment(0, &[1, 2]), segment(0, &[0, 3])];
    let plan = scene.plan(&segments);
    assert_eq!(plan.copies[0].segment.segment, segments[1].segment, "one good copy");
}

/// A seeded source of choices (Knuth's MMIX linear congruential generator).
struct Choices(u64);

impl Choices {
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % end as u64).unwrap()
    }
}

/// A cluster with disks: which worker really has which good copy.
struct Simulation {
    scene: Scene,
    segments: Vec<Arc<SegmentRecord>>,
    disks: HashSet<(WorkerId, SegmentId)>,
    seed: u64,
}

impl Simulation {
    fn new(seed: u64, workers: usize) -> Self {
        let scene = Scene::new(&vec![Good; workers]);
        let segments: Vec<_> = (0..6u16)
            .map(|n| {
                let slice = usize::from(n % 4);
                segment(n % 4, &[slice % workers, (slice + 1) % workers])
            })
            .collect();
        let disks = segments
            .iter()
            .flat_map(|segment| segment.holders.iter().map(|holder| (*holder, segment.segment)))
            .collect();
        Self { scene, segments, disks, seed }
    }

    fn repro(&self) -> String {
        format!("REPRO seed={} test=repair_keeps_what_it_can_and_comes_to_rest", self.seed)
    }

    /// Good copies that can be read now.
    fn readable(&self, segment: &SegmentRecord) -> usize {
        let live =
            |worker: &&WorkerId| matches!(self.scene.standings.get(worker), Some(Good | Draining));
        let holders = segment.holders.iter().filter(live);
        holders.filter(|worker| self.disks.contains(&(**worker, segment.segment))).count()
    }

    /// Something happens to one worker. At most one at a time is not there, so that no segment
    /// loses both copies.
    fn event(&mut self, choices: &mut Choices) {
        let workers: Vec<_> = self.scene.standings.keys().copied().collect();
        let all_there = self.scene.standings.values().all(|standing| *standing == Good);
        let victim = workers[choices.below(workers.len())];
        let standing = self.scene.standings[&victim];
        let next = match (standing, choices.below(3)) {
            (Good, 0) if all_there && self.is_at_rest() => Away,
            (Good, 1) if all_there && self.is_at_rest() => Draining,
            (Away, 0) => Good,
            (Away, 1) => Lost,
            (Lost, 0) => {
                // Its disk is new.
                self.disks.retain(|(worker, _)| *worker != victim);
                for segment in &self.segments {
                    if segment.holders.contains(&victim) {
                        self.scene.bad.insert((victim, segment.segment));
                    }
                }
                Good
            }
            (Draining, 0) => Good,
            (standing, _) => standing,
        };
        self.scene.standings.insert(victim, next);
        self.scene.place();
    }

    fn is_at_rest(&self) -> bool {
        let plan = self.scene.plan(&self.segments);
        plan.copies.is_empty() && plan.forget.is_empty() && self.scene.bad.is_empty()
    }

    /// One round of repair, some copies of which fail.
    fn round(&mut self, choices: &mut Choices, may_fail: bool) {
        let plan = self.scene.plan(&self.segments);
        assert!(plan.lost.is_empty(), "{}: a segment is lost", self.repro());
        for step in &plan.forget {
            self.forget(step);
        }
        for copy in plan.copies.into_iter().take(3) {
            let key = copy.segment.segment;
            for source in &copy.sources {
                assert!(self.disks.contains(&(*source, key)), "{}: a bad source", self.repro());
            }
            if may_fail && choices.below(4) == 0 {
                continue;
            }
            assert!(!copy.sources.is_empty(), "{}: a copy from nobody", self.repro());
            self.disks.insert((copy.to, key));
            self.scene.bad.remove(&(copy.to, key));
            self.change(key, |holders| {
                if !holders.contains(&copy.to) {
                    holders.push(copy.to);
                }
            });
        }
    }

    fn forget(&mut self, step: &CopyMove) {
        let before = self.segments.iter().find(|s| s.segment == step.segment).unwrap();
        let before = self.readable(before);
        self.change(step.segment, |holders| holders.retain(|h| !step.remove.contains(h)));
        let after = self.segments.iter().find(|s| s.segment == step.segment).unwrap();
        let after = self.readable(after);
        assert!(
            after >= before.min(WANTED) && after > 0,
            "{}: {before} good copies became {after}",
            self.repro()
        );
        for worker in &step.remove {
            self.scene.bad.remove(&(*worker, step.segment));
        }
    }

    fn change(&mut self, key: SegmentId, change: impl FnOnce(&mut Vec<WorkerId>)) {
        let segment = self.segments.iter_mut().find(|segment| segment.segment == key).unwrap();
        change(&mut Arc::make_mut(segment).holders);
    }
}

#[test]
fn repair_keeps_what_it_can_and_comes_to_rest() {
    for seed in 0..5_000 {
        let mut choices = Choices(seed);
        let workers = 3 + choices.below(4);
        let mut simulation = Simulation::new(seed, workers);
        for _ in 0..30 {
            simulation.event(&mut choices);
            simulation.round(&mut choices, true);
        }
        for standing in simulation.scene.standings.values_mut() {
            // Who is away for good is lost in the end.
            *standing = if *standing == Away { Lost } else { *standing };
        }
        simulation.scene.place();
        let rounds = (0..100).take_while(|_| {
            let at_rest = simulation.is_at_rest();
            if !at_rest {
                simulation.round(&mut choices, false);
            }
            !at_rest
        });
        let rounds = rounds.count();
        assert!(rounds < 100, "{}: no rest", simulation.repro());
        for segment in &simulation.segments {
            let copies = simulation.readable(segment);
            assert!(copies >= WANTED, "{}: {copies} copies at rest", simulation.repro());
        }
    }
}
