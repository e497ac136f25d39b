//! SIGKILL and SIGSTOP in the middle of writes: at random moments, and at every named step.

use std::time::Duration;

use basalt_sql_tests::faults::choices::Choices;
use basalt_sql_tests::faults::cluster::NodeId;
use basalt_sql_tests::faults::figures::Figures;
use basalt_sql_tests::faults::nemesis::Nemesis;
use basalt_sql_tests::faults::runner::Runner;
use basalt_storage::fail_point::{FailAction, FailPlan, FailPoint};

use super::{Run, every_workload, light_workload, report, shape, victims};

const WORKERS: usize = 2;

/// Kills one node or all of them, at a random moment of all workloads.
pub(super) async fn random_kills(run: Run) -> anyhow::Result<Figures> {
    let test = "faults::kills::acknowledged_writes_survive_sigkill_whole";
    let mut runner = Runner::start(test, run.seed, shape(WORKERS), every_workload).await?;
    let victims = victims(WORKERS);
    let schedule = |_: &_, trial: u64, choices: &mut Choices| {
        // The first trials have every victim once.
        let first = usize::try_from(trial).ok().and_then(|trial| victims.get(trial));
        let nodes = first.unwrap_or_else(|| choices.pick(&victims)).clone();
        Nemesis::Kill { nodes, lasts: Duration::ZERO }
    };
    runner.trials(run.trials, schedule).await?;
    Ok(runner.finish())
}

/// Ends, or pauses, a process at each named step in turn, from the step of a number on, at one of
/// its first passes.
async fn at_steps(test: &str, run: Run, action: FailAction, from: u64) -> anyhow::Result<Figures> {
    let mut runner = Runner::start(test, run.seed, shape(WORKERS), light_workload).await?;
    let first = from.wrapping_add(run.seed).wrapping_sub(1);
    let schedule = |_: &_, trial: u64, choices: &mut Choices| {
        let steps = FailPoint::ALL.len() as u64;
        let point = FailPoint::ALL[usize::try_from(first.wrapping_add(trial) % steps).unwrap()];
        let node = match on_worker(point) {
            true => NodeId::Worker(usize::try_from(choices.below(WORKERS as u64)).unwrap()),
            false => NodeId::Coordinator,
        };
        let pass = 1 + u32::try_from(choices.below(6)).unwrap();
        let plan = FailPlan { point, pass, action };
        Nemesis::AtStep { node, plan, lasts: Duration::from_millis(300) }
    };
    runner.trials(run.trials, schedule).await?;
    Ok(runner.finish())
}

/// Kills at every named step in turn.
pub(super) async fn kills_at_steps(run: Run) -> anyhow::Result<Figures> {
    let test = "faults::kills::acknowledged_writes_survive_a_kill_at_every_step";
    at_steps(test, run, FailAction::Kill, 0).await
}

/// Pauses at every named step in turn.
pub(super) async fn pauses_at_steps(run: Run) -> anyhow::Result<Figures> {
    let test = "faults::kills::a_process_that_pauses_at_a_step_goes_on";
    at_steps(test, run, FailAction::Stop, FailPoint::SealBeforeReply as u64).await
}

/// Pauses one node or all of them for a second or two.
pub(super) async fn pauses(run: Run) -> anyhow::Result<Figures> {
    let test = "faults::kills::a_paused_cluster_goes_on_where_it_was";
    let mut runner = Runner::start(test, run.seed, shape(WORKERS), light_workload).await?;
    let mut victims = victims(WORKERS);
    victims.reverse();
    let schedule = |_: &_, trial: u64, choices: &mut Choices| {
        let first = usize::try_from(trial).ok().and_then(|trial| victims.get(trial));
        let nodes = first.unwrap_or_else(|| choices.pick(&victims)).clone();
        Nemesis::Pause { nodes, lasts: Duration::from_millis(500 + choices.below(1_500)) }
    };
    runner.trials(run.trials, schedule).await?;
    Ok(runner.finish())
}

/// Whether a worker passes the step; otherwise the coordinator does.
fn on_worker(point: FailPoint) -> bool {
    !["commit.", "catalog."].iter().any(|role| point.name().starts_with(role))
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_sigkill_whole() {
    let run = Run::of(4);
    report("SIGKILL", run, &random_kills(run).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_a_kill_at_every_step() {
    let run = Run::of(FailPoint::ALL.len() as u64);
    report("SIGKILL at every step", run, &kills_at_steps(run).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_pauses_at_a_step_goes_on() {
    let run = Run::of(3);
    report("pause at a step", run, &pauses_at_steps(run).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_cluster_goes_on_where_it_was() {
    let run = Run::of(2);
    report("SIGSTOP", run, &pauses(run).await.unwrap());
}
