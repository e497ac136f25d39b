//! A whole cluster in one thread, and everything that can happen to it: commit, membership and
//! repair together, on virtual time.
//!
//! ```text
//!  events ─▶ client ──network──▶ coordinator ──network──▶ workers ─▶ disks
//!   (seed)                        log │ decisions of the product      │ copies
//!                                     └────────▶ oracle ◀─────────────┘ checks every step
//! ```
//! What decides is the product's own code: the catalog's state machine, the roster, placement, the
//! plan of repair, what is garbage, what is scrubbed next, who gets a write and what a worker may
//! take (the fence). What does I/O is played: messages that are late, lost, doubled or cut off,
//! processes that die, hang and return, disks that lose what was not synced, rot or are replaced.
//! A worker's staging area is played too, by the rules of `worker/src/staging.rs`.
//!
//! A run is a function of its seed. One that fails prints the line that repeats it.
//! `sql-tests/planted/PLANTED.md` says which bugs, planted by hand, it finds.
//!
//! - `random`: all the randomness there is; `seen`: what happened, counted
//! - `messages`, `network`: who says what to whom, and what becomes of it
//! - `disk`, `worker`, `sealing`: a worker
//! - `coordinator`, `log`, `rounds`, `copying`: a coordinator, and how it keeps the cluster
//! - `writes`, `reads`, `clients`: statements, and who sends them
//! - `faults`: what goes wrong; `oracle`: what must be so whatever goes wrong; `rest`: what must be
//!   so in the end

mod clients;
mod coordinator;
mod copying;
mod disk;
mod faults;
mod log;
mod messages;
mod network;
mod oracle;
mod random;
mod reads;
mod rest;
mod rounds;
mod sealing;
mod seen;
mod worker;
mod world;
mod writes;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use seen::Seen;
use world::World;

/// Worlds of one test: about ten seconds unoptimised.
const SEEDS: u64 = 2_000;
/// Names the one seed to run.
const SEED_VARIABLE: &str = "BASALT_CLUSTER_SEED";
/// Names how many seeds to run, for a long night.
const SEEDS_VARIABLE: &str = "BASALT_CLUSTER_SEEDS";
/// Set to anything, it has one seed's story told.
const TOLD_VARIABLE: &str = "BASALT_CLUSTER_TOLD";

#[test]
fn nothing_acknowledged_is_lost_and_the_cluster_comes_to_rest() {
    let number = |variable| std::env::var(variable).ok().map(|n| n.parse::<u64>().unwrap());
    let seeds = match number(SEED_VARIABLE) {
        Some(seed) => seed..seed + 1,
        None => 0..number(SEEDS_VARIABLE).unwrap_or(SEEDS),
    };
    let is_whole = seeds.end - seeds.start >= SEEDS;
    let failed = Arc::new(AtomicBool::new(false));
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4) as u64;
    let parts = (0..threads).map(|first| {
        let seeds = seeds.clone().skip(first as usize).step_by(threads as usize);
        let failed = Arc::clone(&failed);
        std::thread::spawn(move || {
            let mut seen = Seen::default();
            for seed in seeds.take_while(|_| !failed.load(Ordering::Relaxed)) {
                seen.add(&run(seed, &failed));
            }
            seen
        })
    });
    let parts: Vec<_> = parts.collect();
    let mut seen = Seen::default();
    for part in parts {
        match part.join() {
            Ok(part) => seen.add(&part),
            Err(panic) => resume_unwind(panic),
        }
    }
    println!("{seen}");
    // Zero losses mean something only if everything was tried.
    let too_few = seen.fewer_than(20);
    assert!(!is_whole || too_few.is_empty(), "hardly seen: {too_few:?}\n{seen}");
}

/// Runs one world; prints the line that repeats it when it fails.
fn run(seed: u64, failed: &AtomicBool) -> Seen {
    let run = catch_unwind(AssertUnwindSafe(|| World::new(seed).run()));
    run.unwrap_or_else(|panic| {
        failed.store(true, Ordering::Relaxed);
        eprintln!(
            "REPRO seed={seed} cmd={SEED_VARIABLE}={seed} cargo test -p basalt-coordinator --lib \
             simulation::nothing"
        );
        resume_unwind(panic)
    })
}
