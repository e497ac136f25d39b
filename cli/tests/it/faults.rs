//! Faults of real processes: what was acknowledged is there, no half of a statement is ever seen,
//! and an answer is right or an error (RULES 2, 3, 8, 9; FAULTS A6).
//!
//! - [`kills`]: SIGKILL at random moments and at every named step of a write; pauses
//! - [`power`]: power cuts of all nodes at once
//! - [`damage`]: files flipped, cut, swapped, gone
//! - [`wire`]: slow, held, cut and lying links
//! - [`calls`]: system calls that fail, disks without space
//! - [`replicas`]: what only copies on other workers can give
//! - [`at_length`]: all of them for long, by name, with the table of figures
//!
//! Each scenario is a function of a number of trials and a seed, and a short test of it. The seed
//! is `BASALT_FAULTS_SEED` (1) and `BASALT_FAULTS_TRIALS` overrides every number:
//! `BASALT_FAULTS_TRIALS=200 cargo test --workspace --locked -- --nocapture faults::kills`

mod at_length;
mod calls;
mod damage;
mod kills;
mod power;
mod replicas;
mod wire;

use std::path::Path;

use basalt_sql_tests::faults::cluster::{NodeId, Shape};
use basalt_sql_tests::faults::figures::Figures;
use basalt_sql_tests::faults::runner::from_environment;
use basalt_sql_tests::faults::workload::{Append, Bank, Cells, Requests, Statements, Workload};

/// What a scenario is run with.
#[derive(Debug, Clone, Copy)]
struct Run {
    trials: u64,
    seed: u64,
}

impl Run {
    /// As the environment says; so many trials if it does not.
    fn of(trials: u64) -> Self {
        Self {
            trials: from_environment("BASALT_FAULTS_TRIALS", trials).unwrap(),
            seed: from_environment("BASALT_FAULTS_SEED", 1).unwrap(),
        }
    }
}

/// A cluster of the binary under test: the one of this build, or the one that
/// `BASALT_FAULTS_BINARY` names, as a release build.
fn shape(workers: usize) -> Shape {
    let named = std::env::var_os("BASALT_FAULTS_BINARY");
    Shape::of(named.unwrap_or_else(|| env!("CARGO_BIN_EXE_basalt").into()), workers)
}

/// Every workload there is, small enough for two cores.
fn every_workload(dir: &Path) -> anyhow::Result<Vec<Box<dyn Workload>>> {
    Ok(vec![
        Box::new(Statements::new(dir)?),
        Box::new(Requests::new(dir)?),
        Box::new(Cells::new(2, 1)),
        Box::new(Append::new(1, 1)),
        Box::new(Bank::new(1, 1)),
    ])
}

/// Rows that are added and rows that are changed, by one client each.
fn light_workload(_: &Path) -> anyhow::Result<Vec<Box<dyn Workload>>> {
    Ok(vec![Box::new(Append::new(1, 1)), Box::new(Cells::new(1, 0))])
}

/// Whom a single fault can hit in a cluster of so many workers: each node, or all.
fn victims(workers: usize) -> Vec<Vec<NodeId>> {
    let nodes = || std::iter::once(NodeId::Coordinator).chain((0..workers).map(NodeId::Worker));
    nodes().map(|node| vec![node]).chain([nodes().collect()]).collect()
}

/// Prints what a scenario came to; shown with `--nocapture`.
#[expect(clippy::print_stdout, reason = "figures of a run, for who asks for them")]
fn report(scenario: &str, run: Run, figures: &Figures) {
    println!("{scenario}, seed {}:\n{figures}", run.seed);
    assert!(figures.is_clean(), "promises were broken");
}
