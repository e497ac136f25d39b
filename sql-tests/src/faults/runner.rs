//! Trials of a scenario: traffic, a fault in the middle of it, recovery, and the checks.
//!
//! ```text
//! prepare ─ traffic ──────────────────────────────────────── stop ─ check everything
//!              └ acknowledged ─ moment ─ strike ─ ... ─ heal ─ probe ┘
//! ```
//! Every trial has a seed of its own, the scenario's plus its number; whatever fails prints one
//! line that starts with `REPRO` and runs it again as the first trial, and keeps the data.
//! Moments of threads and disks are not in the seed: a line repeats the choices, and mostly, not
//! always, the failure.
//!
//! Invariant: when a trial has ended, nothing is wrong with the cluster and nothing is under way.

use std::fmt;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::JoinSet;

use super::choices::Choices;
use super::cluster::{Cluster, Shape};
use super::figures::Figures;
use super::nemesis::Nemesis;
use super::session::{RECOVERY_MAX, STATEMENT_MAX, Session};
use super::traffic::Traffic;
use super::violation::{Kind, Violation, expect};
use super::workload::{Unanswered, Workload};

/// The latest moment of a fault, after the first acknowledgements.
const MOMENT_MAX_MS: u64 = 400;

/// A scenario under way.
pub struct Runner {
    repro: Repro,
    cluster: Cluster,
    workloads: Vec<Box<dyn Workload>>,
    figures: Figures,
    reads_must_not_fail: bool,
    dir: Option<tempfile::TempDir>,
}

/// What runs a failed trial again.
#[derive(Debug, Clone)]
pub struct Repro {
    /// The test, by its path in its binary.
    pub test: String,
    /// The seed of the trial.
    pub seed: u64,
    /// What happened in it.
    pub fault: String,
}

impl fmt::Display for Repro {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { test, seed, fault } = self;
        let git = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
        let git = git.ok().filter(|output| output.status.success());
        let git = git.and_then(|output| String::from_utf8(output.stdout).ok());
        let git = git.as_deref().map_or("unknown", str::trim);
        write!(
            f,
            "REPRO seed={seed} git={git} scenario={test} fault=[{fault}] \
             cmd=BASALT_FAULTS_SEED={seed} cargo test --workspace --locked -- --nocapture \
             --include-ignored --exact {test}"
        )
    }
}

impl Repro {
    /// Prints the line, also when a test runner keeps output back.
    pub fn print(&self, failure: &str) {
        let _closed = writeln!(std::io::stderr(), "\n{failure}\n{self}");
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.failed("the test panicked");
        }
    }
}

impl Runner {
    /// Starts a cluster and makes the tables of the workloads. `test` is the path of the test, as
    /// `--exact` takes it.
    ///
    /// # Errors
    /// When the cluster does not start.
    pub async fn start(
        test: &str,
        seed: u64,
        shape: Shape,
        workloads: impl FnOnce(&Path) -> anyhow::Result<Vec<Box<dyn Workload>>>,
    ) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("basalt-faults-").tempdir()?;
        let repro = Repro { test: test.to_owned(), seed, fault: "none yet".to_owned() };
        let cluster = Cluster::start(shape, dir.path())?;
        let workloads = workloads(dir.path())?;
        let mut runner = Self {
            repro,
            cluster,
            workloads,
            figures: Figures::default(),
            reads_must_not_fail: false,
            dir: Some(dir),
        };
        let mut session = Session::new(&runner.cluster.url());
        session.write_until_acknowledged("CREATE TABLE probe (n BIGINT) DISTKEY(n)").await?;
        for workload in &mut runner.workloads {
            workload.prepare(&mut session).await?;
        }
        Ok(runner)
    }

    /// From now on a query that fails during a fault is a broken promise.
    pub fn reads_must_not_fail(&mut self) {
        self.reads_must_not_fail = true;
    }

    /// The cluster, for what a scenario does beside trials.
    pub fn cluster(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    /// The figures so far.
    pub fn figures(&mut self) -> &mut Figures {
        &mut self.figures
    }

    /// Runs trials with the faults that `schedule` chooses, from the scenario's seed on.
    ///
    /// # Errors
    /// As [`Self::trial`].
    pub async fn trials(
        &mut self,
        number: u64,
        mut schedule: impl FnMut(&Cluster, u64, &mut Choices) -> Nemesis,
    ) -> anyhow::Result<()> {
        let first = self.repro.seed;
        for trial in 0..number {
            let seed = first.wrapping_add(trial);
            let mut choices = Choices::new(seed);
            let nemesis = schedule(&self.cluster, trial, &mut choices);
            self.trial(seed, &nemesis, &mut choices).await?;
        }
        Ok(())
    }

    /// Runs one trial.
    ///
    /// # Errors
    /// A broken promise, as a [`Violation`], or a fault that the machine does not make.
    pub async fn trial(
        &mut self,
        seed: u64,
        nemesis: &Nemesis,
        choices: &mut Choices,
    ) -> anyhow::Result<()> {
        (self.repro.seed, self.repro.fault) = (seed, nemesis.to_string());
        let result = self.try_trial(nemesis, choices).await;
        if let Err(error) = &result {
            let kind = error.downcast_ref().map(|violation: &Violation| violation.kind);
            if let Some(kind) = kind {
                *self.figures.violations.entry(kind).or_default() += 1;
            }
            self.failed(&format!("{error:#}"));
        }
        result
    }

    async fn try_trial(&mut self, nemesis: &Nemesis, choices: &mut Choices) -> anyhow::Result<()> {
        nemesis.prepare(&mut self.cluster)?;
        let traffic = Arc::new(Traffic::default());
        let mut tasks = self.begin(&traffic, choices);
        if !nemesis.is_armed() {
            let first = traffic.wait_acknowledged(tasks.len() as u64);
            let first = tokio::time::timeout(RECOVERY_MAX, first).await;
            first.map_err(|_| Violation::new(Kind::Hang, "no write before the fault"))?;
            // The moment is the fault that is injected, not a wait for something.
            tokio::time::sleep(Duration::from_millis(choices.below(MOMENT_MAX_MS))).await;
        }
        let struck = nemesis.strike(&mut self.cluster, choices)?;
        let happened = struck.happened;
        tokio::time::sleep(struck.lasts()).await;
        let healed = nemesis.heal(struck, &mut self.cluster)?;
        let recovery = self.probe().await?;
        traffic.stop();
        self.end(&mut tasks).await?;
        let unanswered = self.check().await?;
        let failed = if self.reads_must_not_fail { traffic.counts().failed } else { 0 };
        expect(failed == 0, Kind::Unavailable, || {
            let first = traffic.first_failure().unwrap_or_default();
            format!("{failed} queries failed, the first of them {first}")
        })?;

        let figures = &mut self.figures;
        *figures.trials.entry(nemesis.kind()).or_default() += u64::from(happened);
        if let (Nemesis::AtStep { plan, .. }, true) = (nemesis, happened) {
            figures.steps.insert(plan.point.name());
        }
        figures.calls_failed += healed.injected as u64;
        figures.add_statements(traffic.counts());
        figures.unanswered = figures.unanswered.and(unanswered);
        figures.recoveries.push(recovery);
        let (write, read) = traffic.longest_stalls();
        figures.write_stall = figures.write_stall.max(write);
        figures.read_stall = figures.read_stall.max(read);
        Ok(())
    }

    /// Hands each workload to a task of its own.
    fn begin(&mut self, traffic: &Arc<Traffic>, choices: &mut Choices) -> Tasks {
        let mut tasks = JoinSet::new();
        for mut workload in self.workloads.drain(..) {
            let (url, traffic) = (self.cluster.url(), Arc::clone(traffic));
            let mut choices = choices.fork();
            tasks.spawn(async move {
                let result = workload.run(&url, &traffic, &mut choices).await;
                (workload, result)
            });
        }
        tasks
    }

    /// Takes the workloads back. All of them, also when one saw a promise broken.
    async fn end(&mut self, tasks: &mut Tasks) -> anyhow::Result<()> {
        let mut first = Ok(());
        let deadline = tokio::time::Instant::now() + RECOVERY_MAX + STATEMENT_MAX;
        loop {
            let task = tokio::time::timeout_at(deadline, tasks.join_next()).await;
            match task.map_err(|_| Violation::new(Kind::Hang, "a client does not end"))? {
                Some(Ok((workload, result))) => {
                    self.workloads.push(workload);
                    first = first.and(result);
                }
                Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
                None => return first.map_err(anyhow::Error::new),
            }
        }
    }

    /// How long it takes until a write over all slices is acknowledged.
    async fn probe(&self) -> Result<Duration, Violation> {
        let started = Instant::now();
        let sql = "INSERT INTO probe SELECT value FROM generate_series(1, 100)";
        Session::new(&self.cluster.url()).write_until_acknowledged(sql).await?;
        Ok(started.elapsed())
    }

    async fn check(&mut self) -> Result<Unanswered, Violation> {
        let mut session = Session::new(&self.cluster.url());
        let mut unanswered = Unanswered::default();
        for workload in &mut self.workloads {
            unanswered = unanswered.and(workload.check(&mut session).await?);
        }
        Ok(unanswered)
    }

    /// Prints how to run the trial again, and keeps the data of this one. Once.
    fn failed(&mut self, failure: &str) {
        if let Some(dir) = self.dir.take() {
            let kept = dir.keep();
            self.repro.print(&format!("FAILED {failure}\nthe data is kept in {}", kept.display()));
        }
    }

    /// Ends the scenario.
    pub fn finish(mut self) -> Figures {
        std::mem::take(&mut self.figures)
    }
}

type Tasks = JoinSet<(Box<dyn Workload>, Result<(), Violation>)>;

/// A number from the environment, or a default.
///
/// # Errors
/// When it is no number.
pub fn from_environment(name: &str, default: u64) -> anyhow::Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text} is no number")),
        Err(_) => Ok(default),
    }
}
