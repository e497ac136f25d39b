//! One engine on its way through a file.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use sqllogictest::{Control, Record, RecordOutput, Runner};

use super::check::{Rules, Verdict};
use super::dialect::Dialect;
use super::engine::{Adapter, BoxEngine, EngineError, SharedWriting, SltType};
use super::source::{self, Placed};

/// Makes one engine per connection that a file names.
pub type Connect<'a> =
    Box<dyn FnMut() -> BoxFuture<'a, Result<BoxEngine, EngineError>> + Send + 'a>;

type MakeAdapter<'a> = Box<dyn FnMut() -> BoxFuture<'a, Result<Adapter, EngineError>> + Send + 'a>;

/// What came of one record.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) output: RecordOutput<SltType>,
    pub(super) verdict: Verdict,
    pub(super) time: Duration,
}

/// An engine, the state of its run and its clock.
pub(super) struct Side<'a> {
    runner: Runner<Adapter, MakeAdapter<'a>>,
    writing: SharedWriting,
    pub(super) labels: HashSet<String>,
    pub(super) rules: Rules,
    pub(super) elapsed: Duration,
    pub(super) records: u64,
}

impl<'a> Side<'a> {
    /// Connects; the labels are the engine's own name where none are given.
    pub(super) async fn start(
        mut connect: Connect<'a>,
        labels: &[String],
    ) -> Result<Self, EngineError> {
        let writing = SharedWriting::default();
        let engine = connect().await?;
        let labels: HashSet<String> = if labels.is_empty() {
            [engine.name().to_owned()].into()
        } else {
            labels.iter().cloned().collect()
        };
        let mut first = Some(engine);
        let shared = writing.clone();
        let make: MakeAdapter<'a> = Box::new(move || {
            let writing = shared.clone();
            if let Some(engine) = first.take() {
                return Box::pin(async move { Ok(Adapter { engine, writing }) });
            }
            let connecting = connect();
            Box::pin(async move { connecting.await.map(|engine| Adapter { engine, writing }) })
        });
        let mut runner = Runner::new(make);
        for label in &labels {
            runner.add_label(label);
        }
        let rules = Rules::new(Dialect::Postgres);
        Ok(Self { runner, writing, labels, rules, elapsed: Duration::ZERO, records: 0 })
    }

    /// Follows a record that is not counted.
    pub(super) async fn follow(&mut self, record: &Record<SltType>) {
        match record {
            // Results are compared by digest when the file has a digest, whatever the threshold.
            Record::HashThreshold { .. } => return,
            Record::Control(Control::ResultMode(mode)) => self.rules.set_result_mode(*mode),
            _ => {}
        }
        self.runner.apply_record(record.clone()).await;
    }

    /// Runs a record that is counted, as often as its `retry` says.
    pub(super) async fn run(&mut self, placed: &Placed) -> Outcome {
        if source::is_left_out(&placed.record, &self.labels) {
            let output = RecordOutput::Nothing;
            return Outcome { output, verdict: Verdict::LeftOut, time: Duration::ZERO };
        }
        self.writing.set(self.rules.writing(&placed.record));
        let retry = match &placed.record {
            Record::Statement { retry, .. }
            | Record::Query { retry, .. }
            | Record::System { retry, .. } => retry.clone(),
            _ => None,
        };
        let mut attempts = retry.as_ref().map_or(1, |retry| retry.attempts);
        loop {
            let start = Instant::now();
            let output = self.runner.apply_record(placed.record.clone()).await;
            let time = start.elapsed();
            self.elapsed += time;
            let verdict = self.rules.check(placed, &output);
            attempts -= 1;
            match (&verdict, &retry) {
                (Verdict::Unexpected(_), Some(retry)) if attempts > 0 => {
                    tokio::time::sleep(retry.backoff).await;
                }
                _ => {
                    self.records += 1;
                    return Outcome { output, verdict, time };
                }
            }
        }
    }

    pub(super) async fn stop(&mut self) {
        self.runner.shutdown_async().await;
    }
}
