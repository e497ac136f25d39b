//! Power cuts of all nodes at once (FAULTS F5): what NATS lost a seventh of its writes to.

use basalt_sql_tests::faults::figures::Figures;
use basalt_sql_tests::faults::nemesis::Nemesis;
use basalt_sql_tests::faults::power::PowerGrid;
use basalt_sql_tests::faults::runner::Runner;
use basalt_sql_tests::faults::skip::skip;

use super::{Run, every_workload, report, shape};

/// Cuts the power of the whole cluster again and again. A cluster that was cut recovers from what
/// recoveries before it left.
pub(super) async fn cuts(run: Run) -> anyhow::Result<Figures> {
    if let Err(reason) = PowerGrid::possible() {
        skip("a power cut", &reason);
        let skipped = vec![format!("power cuts: {reason}")];
        return Ok(Figures { skipped, ..Figures::default() });
    }
    let mut shape = shape(2);
    shape.power_cuts = true;
    let test = "faults::power::acknowledged_writes_survive_a_power_cut_of_all_nodes";
    let mut runner = Runner::start(test, run.seed, shape, every_workload).await?;
    // Every other time processes see their writes fail before they die.
    let schedule = |_: &_, trial: u64, _: &mut _| Nemesis::PowerCut { frozen: trial % 2 == 1 };
    runner.trials(run.trials, schedule).await?;
    Ok(runner.finish())
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_a_power_cut_of_all_nodes() {
    let run = Run::of(3);
    report("power cut", run, &cuts(run).await.unwrap());
}
