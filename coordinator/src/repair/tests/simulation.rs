//! A cluster to which everything happens: workers die, return with or without their disks, join
//! and are drained, copies finish, fail and rot. Every plan is checked before it is carried out;
//! when nothing happens any more, everything must come to rest where it should be.
//!
//! A run is a function of its seed. One that fails prints the line that repeats it.

use super::*;
use crate::placement::{Candidate, Problem, solve};

/// Runs of one test: a few seconds unoptimised.
const SEEDS: u64 = 1_000;
/// Names the one seed to run.
const SEED_VARIABLE: &str = "BASALT_REPAIR_SEED";

#[test]
fn whatever_happens_no_step_is_unsafe_and_everything_comes_to_rest() {
    let seeds = match std::env::var(SEED_VARIABLE) {
        Ok(seed) => {
            let seed: u64 = seed.parse().unwrap();
            seed..seed + 1
        }
        Err(_) => 0..SEEDS,
    };
    let mut seen = Seen::default();
    let is_whole = seeds.end - seeds.start > 1;
    for seed in seeds {
        let mut simulation = Simulation::new(seed);
        simulation.run();
        seen.add(simulation.seen);
    }
    // Zero faults mean something only if everything was tried.
    let Seen { copies, rebuilds, forgets, lost, failed } = seen;
    let all = [copies, rebuilds, forgets, lost, failed];
    assert!(!is_whole || all.iter().all(|count| *count > 100), "{seen:?}");
}

/// How often things were seen.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    copies: usize,
    rebuilds: usize,
    forgets: usize,
    lost: usize,
    failed: usize,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.copies += other.copies;
        self.rebuilds += other.rebuilds;
        self.forgets += other.forgets;
        self.lost += other.lost;
        self.failed += other.failed;
    }
}

/// SplitMix64: all the randomness there is.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end.max(1) as u64) as usize
    }

    fn one_of<T: Copy>(&mut self, things: &[T]) -> Option<T> {
        things.get(self.below(things.len())).copied()
    }
}

/// The cluster, as it is and as it is known.
struct Simulation {
    seed: u64,
    random: Random,
    /// The catalog: segments and holders, the placement, and what is known of workers.
    world: World,
    slices: u16,
    copies: usize,
    /// Workers that are to be emptied, also while they are away.
    drained: BTreeSet<WorkerId>,
    /// What lies on each disk, and whether it is intact.
    disks: BTreeMap<WorkerId, BTreeMap<SegmentKey, bool>>,
    next: u128,
    seen: Seen,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let slices = [1, 2, 4][random.below(3)];
        let mut world = World::new(&[], &[]);
        world.limits = Limits {
            steps_max: 1 + random.below(12),
            in_flight_per_target_max: 1 + random.below(3),
            in_flight_per_source_max: 1 + random.below(3),
        };
        let copies = 1 + random.below(3);
        let mut simulation = Self {
            seed,
            random,
            world,
            slices,
            copies,
            drained: BTreeSet::new(),
            disks: BTreeMap::new(),
            next: 1,
            seen: Seen::default(),
        };
        for _ in 0..1 + simulation.random.below(6) {
            simulation.join();
        }
        for _ in 0..1 + simulation.random.below(10) {
            simulation.load();
        }
        simulation
    }

    fn run(&mut self) {
        for _ in 0..40 {
            self.something_happens();
            self.round();
            for _ in 0..self.random.below(4) {
                self.a_copy_ends();
            }
        }
        self.calm_down();
        self.come_to_rest();
    }

    /// Fails with the line that repeats the run.
    fn require(&self, holds: bool, what: impl FnOnce() -> String) {
        assert!(
            holds,
            "{}\nREPRO seed={} cmd={SEED_VARIABLE}={} cargo test -p basalt-coordinator --lib \
             repair::tests::simulation",
            what(),
            self.seed,
            self.seed,
        );
    }

    fn workers_in(&self, states: &[WorkerState]) -> Vec<WorkerId> {
        let is_in = |(_, state): &(&WorkerId, &WorkerState)| states.contains(state);
        self.world.states.iter().filter(is_in).map(|(id, _)| *id).collect()
    }

    fn something_happens(&mut self) {
        let up = self.workers_in(&[Live, Draining]);
        let away = self.workers_in(&[Away]);
        let down = self.workers_in(&[Away, Lost]);
        let (one_up, one_away) = (self.random.one_of(&up), self.random.one_of(&away));
        let one_down = self.random.one_of(&down);
        match (self.random.below(12), one_up, one_away, one_down) {
            (0 | 1, Some(id), _, _) => self.dies(id),
            (2 | 3, _, Some(id), _) => self.grace_ends(id),
            (4 | 5, _, _, Some(id)) => self.returns(id),
            (6, _, _, Some(id)) => {
                self.disks.insert(id, BTreeMap::new());
                self.returns(id);
            }
            (7, Some(id), _, _) => self.is_drained(id),
            (8, _, _, _) => self.join(),
            (9 | 10, Some(id), _, _) => self.something_rots(id),
            _ => self.load(),
        }
    }

    fn join(&mut self) {
        let id = worker(self.next);
        self.next += 1;
        self.world.states.insert(id, Live);
        self.disks.insert(id, BTreeMap::new());
        self.place();
    }

    fn dies(&mut self, id: WorkerId) {
        self.world.states.insert(id, Away);
        self.world.in_flight.retain(|copy| copy.from != id && copy.to != id);
    }

    fn grace_ends(&mut self, id: WorkerId) {
        self.world.states.insert(id, Lost);
        self.place();
    }

    /// A worker returns with what its disk has; its copies on record are checked by digest.
    fn returns(&mut self, id: WorkerId) {
        let state = if self.drained.contains(&id) { Draining } else { Live };
        self.world.states.insert(id, state);
        for segment in &self.world.segments {
            let is_intact = self.disks[&id].get(&segment.key).copied().unwrap_or(false);
            if segment.holders.contains(&id) && !is_intact {
                self.world.bad.insert((id, segment.key));
            }
        }
        self.place();
    }

    fn is_drained(&mut self, id: WorkerId) {
        self.drained.insert(id);
        self.world.states.insert(id, Draining);
        self.place();
    }

    /// One copy rots, and half of the time nobody knows until it is read.
    fn something_rots(&mut self, id: WorkerId) {
        let keys: Vec<SegmentKey> = self.disks[&id].keys().copied().collect();
        let Some(key) = self.random.one_of(&keys) else { return };
        self.disks.entry(id).or_default().insert(key, false);
        if self.random.below(2) == 0 {
            self.world.bad.insert((id, key));
        }
    }

    /// A new segment, durable on as many live workers as there are of those it wants.
    fn load(&mut self) {
        let slice = SliceId(self.random.below(usize::from(self.slices)) as u16);
        let wanted = 1 + self.random.below(self.copies + 1);
        let live = self.workers_in(&[Live]);
        let placed = self.world.desired[usize::from(slice.0)].iter();
        let mut holders: Vec<WorkerId> =
            placed.filter(|id| live.contains(id)).copied().take(wanted).collect();
        for id in live {
            if holders.len() < wanted && !holders.contains(&id) {
                holders.push(id);
            }
        }
        if holders.is_empty() {
            return;
        }
        let segment = SegmentId(Uuid::from_u128(self.world.segments.len() as u128));
        let key = SegmentKey { table: TableId(1), slice, segment };
        for id in &holders {
            self.disks.entry(*id).or_default().insert(key, true);
        }
        let (bytes, heat) = (self.random.below(5) as u64, self.random.below(3) as u64);
        let everywhere = self.random.below(4) == 0;
        self.world.segments.push(Owned { key, bytes, holders, wanted, everywhere, heat });
    }

    /// Workers that are away keep their slices; lost and drained ones do not.
    fn place(&mut self) {
        let states = &self.world.states;
        let candidate = |state: &WorkerState| Candidate {
            weight: u32::from(matches!(state, Live | Away)),
            domain: None,
        };
        let workers = states.iter().map(|(id, state)| (*id, candidate(state))).collect();
        let problem = Problem { slices: self.slices, copies: self.copies, workers };
        self.world.desired = solve(&problem, &self.world.desired);
    }

    /// Plans, checks the plan, and begins what it says.
    fn round(&mut self) -> Plan {
        let plan = self.world.plan();
        let limits = self.world.limits;
        self.require(plan.steps.len() <= limits.steps_max, || "too many steps".to_owned());
        self.require(plan == self.world.plan(), || "another plan of the same".to_owned());
        self.seen.lost += plan.lost.len();
        for step in &plan.steps {
            match step {
                Step::Copy { segment, sources, to, reason } => {
                    self.seen.copies += 1;
                    let holds = self.holders(*segment).contains(to);
                    self.require(!holds, || format!("a second copy: {step:?}"));
                    let is_spare = matches!(reason, CopyReason::Placement | CopyReason::Everywhere);
                    self.require(is_spare || self.is_short(*segment), || {
                        format!("a copy too many: {step:?}")
                    });
                    self.begin(*segment, sources, *to);
                }
                Step::Rebuild { segment, worker, sources } => {
                    self.seen.rebuilds += 1;
                    let is_bad = self.world.bad.contains(&(*worker, *segment))
                        && self.holders(*segment).contains(worker);
                    self.require(is_bad, || format!("a copy that is not bad: {step:?}"));
                    self.begin(*segment, sources, *worker);
                }
                Step::Forget { segment, worker, reason } => {
                    self.seen.forgets += 1;
                    self.forget(*segment, *worker, *reason);
                }
            }
        }
        plan
    }

    fn holders(&self, key: SegmentKey) -> &[WorkerId] {
        let segment = self.world.segments.iter().find(|segment| segment.key == key);
        segment.map_or(&[], |segment| &segment.holders)
    }

    /// Whether a segment will have fewer copies than it wants when those in flight are there and
    /// those who are away are back.
    fn is_short(&self, key: SegmentKey) -> bool {
        let segment = self.world.segments.iter().find(|segment| segment.key == key);
        let wanted = segment.map_or(0, |segment| segment.wanted);
        let good = |id: &&WorkerId| self.is_good(key, **id, &[Live, Away]);
        // One on its way to a worker that is drained since counts no more than what that one has.
        let counts = |copy: &&InFlight| {
            copy.segment == key && self.world.states.get(&copy.to) == Some(&Live)
        };
        let flights = self.world.in_flight.iter().filter(counts);
        self.holders(key).iter().filter(good).count() + flights.count() < wanted
    }

    /// Whether a holder has a copy that is good as far as anybody knows, and can be read.
    fn is_good(&self, key: SegmentKey, id: WorkerId, states: &[WorkerState]) -> bool {
        self.holders(key).contains(&id)
            && !self.world.bad.contains(&(id, key))
            && self.world.states.get(&id).is_some_and(|state| states.contains(state))
    }

    fn begin(&mut self, segment: SegmentKey, sources: &[WorkerId], to: WorkerId) {
        for source in sources {
            let is_good = self.is_good(segment, *source, &[Live, Draining]);
            self.require(is_good, || format!("{source} is a bad source of {segment}"));
        }
        let is_live = self.world.states.get(&to) == Some(&Live);
        self.require(is_live && !sources.is_empty(), || format!("{to} gets {segment}"));
        let flights = &self.world.in_flight;
        let is_first = !flights.iter().any(|copy| copy.to == to && copy.segment == segment);
        self.require(is_first, || format!("{to} gets {segment} twice"));
        self.world.in_flight.push(InFlight { segment, from: sources[0], to });
        let Limits { in_flight_per_source_max, in_flight_per_target_max, .. } = self.world.limits;
        let flights = || self.world.in_flight.iter();
        let sent = flights().filter(|copy| copy.from == sources[0]).count();
        let received = flights().filter(|copy| copy.to == to).count();
        let is_within = sent <= in_flight_per_source_max && received <= in_flight_per_target_max;
        self.require(is_within, || format!("{sent} from {}, {received} to {to}", sources[0]));
    }

    fn forget(&mut self, key: SegmentKey, id: WorkerId, reason: ForgetReason) {
        let members = self.workers_in(&[Live, Away, Lost]).len();
        let mut flights = self.world.in_flight.iter().filter(|copy| copy.segment == key);
        let is_read = flights.any(|copy| copy.from == id || copy.to == id);
        self.require(!is_read, || format!("{id} is forgotten in the middle of a copy of {key}"));
        let segment = self.world.segments.iter_mut().find(|segment| segment.key == key);
        let segment = segment.unwrap();
        let wanted = segment.wanted;
        assert!(segment.holders.contains(&id), "{id} does not hold {key}");
        segment.holders.retain(|holder| *holder != id);
        self.disks.entry(id).or_default().remove(&key);
        self.world.bad.remove(&(id, key));
        let left = self.holders(key).iter();
        let good = left.filter(|holder| self.is_good(key, **holder, &[Live])).count();
        let enough = match reason {
            ForgetReason::Drained => wanted.min(members).max(1),
            ForgetReason::Surplus | ForgetReason::Bad | ForgetReason::Lost => wanted,
        };
        self.require(good >= enough, || {
            format!("{good} of {wanted} copies of {key} are left without {id}: {reason:?}")
        });
    }

    /// A copy that is in flight arrives, or fails.
    fn a_copy_ends(&mut self) {
        let flights = self.world.in_flight.len();
        if flights == 0 {
            return;
        }
        let InFlight { segment: key, from, to } =
            self.world.in_flight.swap_remove(self.random.below(flights));
        let fails_by_itself = self.random.below(5) == 0;
        self.ends(key, from, to, fails_by_itself);
    }

    /// Digests are checked: what is read from a rotten copy is not stored, and then it is known.
    fn ends(&mut self, key: SegmentKey, from: WorkerId, to: WorkerId, fails: bool) {
        let is_intact = self.disks[&from].get(&key).copied().unwrap_or(false);
        if !is_intact {
            self.world.bad.insert((from, key));
        }
        if fails || !is_intact {
            self.seen.failed += 1;
            return;
        }
        self.disks.entry(to).or_default().insert(key, true);
        self.world.bad.remove(&(to, key));
        let segment = self.world.segments.iter_mut().find(|segment| segment.key == key);
        let holders = &mut segment.unwrap().holders;
        if !holders.contains(&to) {
            holders.push(to);
        }
    }

    /// Nothing happens any more: who is away returns or is given up, and all rot is found.
    fn calm_down(&mut self) {
        for id in self.workers_in(&[Away]) {
            if self.random.below(2) == 0 { self.returns(id) } else { self.grace_ends(id) }
        }
        let disks = self.disks.clone();
        for segment in &self.world.segments {
            for holder in &segment.holders {
                let is_up = matches!(self.world.states.get(holder), Some(Live | Draining));
                if is_up && disks[holder].get(&segment.key) != Some(&true) {
                    self.world.bad.insert((*holder, segment.key));
                }
            }
        }
    }

    fn come_to_rest(&mut self) {
        // Each round makes a copy where any is missing, and every segment is forgotten by those
        // who should not have it in as many rounds as it has holders, as far as steps allow.
        let holders = self.world.segments.iter().map(|segment| segment.holders.len());
        let copies = self.copies.max(self.world.states.len());
        let bound = holders.sum::<usize>() + self.world.segments.len() * (copies + 2) + 1;
        let mut rounds = 0;
        loop {
            let plan = self.round();
            if plan.steps.is_empty() && self.world.in_flight.is_empty() {
                break;
            }
            for InFlight { segment, from, to } in std::mem::take(&mut self.world.in_flight) {
                self.ends(segment, from, to, false);
            }
            rounds += 1;
            self.require(rounds <= bound, || format!("no rest after {rounds} rounds: {plan:?}"));
        }
        self.check_rest();
        self.check_that_nothing_comes_of_an_absence();
    }

    /// Everything is where it should be.
    fn check_rest(&self) {
        let usable = self.workers_in(&[Live]);
        let mut lost = 0;
        for segment in &self.world.segments {
            let key = segment.key;
            let holders: BTreeSet<WorkerId> = segment.holders.iter().copied().collect();
            self.require(holders.len() == segment.holders.len(), || format!("{segment:?}"));
            let good = |id: &&WorkerId| self.is_good(key, **id, &[Live]);
            let good: BTreeSet<WorkerId> = holders.iter().filter(good).copied().collect();
            if !holders.iter().any(|id| self.is_good(key, *id, &[Live, Draining])) {
                lost += 1;
                continue;
            }
            let wanted = if segment.everywhere { usable.len() } else { segment.wanted };
            let is_whole = good.len() == wanted.min(usable.len());
            let has_rest = usable.is_empty() || usable.len() < segment.wanted;
            let is_clean = holders.len() == good.len() || has_rest;
            self.require(is_whole && is_clean, || format!("{segment:?} of {usable:?}"));
            let placed = &self.world.desired[usize::from(key.slice.0)];
            let placed = &placed[..segment.wanted.min(placed.len())];
            let is_placed = placed.iter().all(|id| good.contains(id));
            self.require(is_placed, || format!("{segment:?} is not on {placed:?}"));
            // What is drained becomes empty, unless others are lost that would have to have copies.
            let drained = holders.iter().filter(|id| self.world.states.get(id) == Some(&Draining));
            let members = usable.len() + self.workers_in(&[Lost]).len();
            let waits = usable.is_empty() || usable.len() < segment.wanted.min(members);
            self.require(waits || drained.count() == 0, || format!("{segment:?}"));
        }
        let plan = self.world.plan();
        let progress = plan.progress;
        let all = [progress.full, progress.degraded, progress.single, progress.lost];
        let counted: u64 = all.iter().map(|tally| tally.count).sum();
        let is_counted = counted == self.world.segments.len() as u64
            && progress.lost.count == lost
            && progress.moves == Tally::default()
            && progress.copies_missing == Tally::default();
        self.require(is_counted, || format!("{progress:?}, {lost} are lost"));
    }

    /// A worker that is away for a while, and returns with its disk, causes no step.
    fn check_that_nothing_comes_of_an_absence(&mut self) {
        for id in self.workers_in(&[Live]) {
            self.world.states.insert(id, Away);
            self.require(self.world.plan().steps.is_empty(), || format!("{id} is away"));
            self.world.states.insert(id, Live);
            self.require(self.world.plan().steps.is_empty(), || format!("{id} is back"));
        }
    }
}
