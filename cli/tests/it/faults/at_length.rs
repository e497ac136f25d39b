//! All scenarios for long, by name, with the table of figures (FAULTS A7):
//!
//! ```console
//! $ cargo test --workspace --locked -- --ignored --nocapture faults_at_length
//! ```
//! `BASALT_FAULTS_SEED` (1) chooses another run, `BASALT_FAULTS_TRIALS` a number of trials for
//! each scenario, `BASALT_FAULTS_ONLY` some of them by a part of their names, and
//! `BASALT_FAULTS_REPORT` a file for the table. A broken promise ends its scenario, not the run.

use std::fmt::Write;
use std::pin::Pin;
use std::time::Instant;

use basalt_sql_tests::faults::figures::Figures;

use super::{Run, calls, damage, kills, power, replicas, wire};

type Scenario = fn(Run) -> Pin<Box<dyn Future<Output = anyhow::Result<Figures>>>>;

/// Each scenario with its number of trials.
const SCENARIOS: [(&str, u64, Scenario); 15] = [
    ("random kills", 150, |run| Box::pin(kills::random_kills(run))),
    ("kills at steps", 150, |run| Box::pin(kills::kills_at_steps(run))),
    ("pauses at steps", 30, |run| Box::pin(kills::pauses_at_steps(run))),
    ("pauses", 20, |run| Box::pin(kills::pauses(run))),
    ("power cuts", 50, |run| Box::pin(power::cuts(run))),
    ("damage", 200, |run| Box::pin(damage::damages(run))),
    ("links", 50, |run| Box::pin(wire::links(run))),
    ("failing calls", 48, |run| Box::pin(calls::failing_calls(run))),
    ("lying wire", 20, |run| Box::pin(wire::flips(run))),
    ("one worker away", 50, |run| Box::pin(replicas::one_worker_away(run, 1_000_000))),
    ("wiped disks", 20, |run| Box::pin(replicas::wiped_disks(run))),
    ("power of one", 20, |run| Box::pin(replicas::power_of_one(run))),
    ("copies", 20, |run| Box::pin(replicas::no_copy_over_a_cut_link(run))),
    ("repairs", 200, |run| Box::pin(replicas::repairs(run))),
    ("coordinator's disk", 20, |run| Box::pin(replicas::coordinator_disk_lost(run))),
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes an hour; named by the README"]
async fn faults_at_length() {
    let only = std::env::var("BASALT_FAULTS_ONLY").unwrap_or_default();
    let mut all = Figures::default();
    let mut text = String::new();
    let mut broken = Vec::new();
    for (name, trials, scenario) in SCENARIOS.into_iter().filter(|(name, ..)| name.contains(&only))
    {
        let (run, started) = (Run::of(trials), Instant::now());
        match scenario(run).await {
            Ok(figures) => {
                let seconds = started.elapsed().as_secs();
                let number = figures.trials();
                writeln!(text, "{name}: {number} trials from seed {}, {seconds} s", run.seed)
                    .unwrap();
                all.add(figures);
            }
            Err(error) => {
                writeln!(text, "{name}: FAILED {error:#}").unwrap();
                broken.push(name);
            }
        }
        println!("{}", text.lines().last().unwrap_or_default());
    }
    let table = format!("{text}\n{all}");
    println!("\n{table}");
    if let Some(path) = std::env::var_os("BASALT_FAULTS_REPORT") {
        std::fs::write(path, table).unwrap();
    }
    assert!(broken.is_empty() && all.is_clean(), "promises were broken: {broken:?}");
}
