//! The command log under faults, simulated: the coordinator's ledger and the members' copies are
//! the real ones, the network, the disks, the clock and the operator are played by a seed.
//!
//! Workers lose power in the middle of writes, messages are lost, delayed, doubled and overtaken,
//! coordinators crash between any two steps, are paused, lose their disk and are restored from
//! copies while the old one may still run. Whatever happens:
//!
//! - no acknowledged commit is lost, and no two records are acknowledged at one place;
//! - what readers saw is never gone;
//! - a restore that is not refused has everything that was acknowledged;
//! - once everything is healed, commits go on.
//!
//! `BASALT_LOG_SEEDS` (how many, 400 by default) and `BASALT_LOG_SEED` (only this one) choose.

mod coordinator;
mod faults;
#[path = "../../../storage/tests/it/log_disk.rs"]
pub(crate) mod log_disk;
mod world;

use std::panic::AssertUnwindSafe;

use world::{Profile, World};

/// Seeds of a run of the test.
const SEEDS: u64 = 400;

fn run(seed: u64) -> Result<world::Counts, String> {
    let ran = std::panic::catch_unwind(AssertUnwindSafe(|| World::new(seed).run()));
    match ran {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Err(text.unwrap_or_else(|| "it panicked".to_owned()))
        }
    }
}

#[test]
fn a_seed_is_a_run() {
    for seed in 0..8 {
        assert_eq!(run(seed).unwrap(), run(seed).unwrap(), "seed {seed}");
    }
}

#[test]
fn no_acknowledged_commit_is_lost_whatever_fails() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("BASALT_LOG_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("BASALT_LOG_SEEDS").unwrap_or(SEEDS),
    };
    let mut sum = world::Counts::default();
    for seed in seeds.clone() {
        match run(seed) {
            Ok(counts) => sum.add(&counts),
            Err(problem) => panic!(
                "{problem}\nREPRO BASALT_LOG_SEED={seed} cargo test --workspace --test it \
                 no_acknowledged_commit_is_lost -- --nocapture ({:?})",
                Profile::of(seed)
            ),
        }
    }
    println!("{} seeds: {sum:?}", seeds.end - seeds.start);
    if seeds.end - seeds.start >= 100 {
        sum.check_that_everything_happened();
    }
}
