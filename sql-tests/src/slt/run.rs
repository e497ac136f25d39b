//! One file, record by record, on one engine or on two.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sqllogictest::Record;

use super::check::{Problem, Verdict};
use super::complete::Rewrites;
use super::datafusion;
use super::dialect::Dialect;
use super::engine::EngineError;
use super::known::{Known, KnownFile};
use super::needs::Excluded;
use super::report::{self, Failure, FileReport, Mark, OracleReport, Slow};
use super::side::{Connect, Outcome, Side};
use super::source::{self, Placed, Source};
use super::{SltOptions, agree};

/// Characters of a slow record's SQL that are shown.
const SQL_SHOWN_MAX: usize = 80;
/// Characters of a reason that go into an allow-list.
const REASON_MAX: usize = 120;

/// Runs a file on one engine, or in lockstep on a second one, the oracle.
///
/// Lockstep, so that both see the same tables and no result is kept longer than it takes to
/// compare it.
pub async fn run_with<'a>(
    path: &Path,
    ours: Connect<'a>,
    oracle: Option<Connect<'a>>,
    options: &SltOptions,
) -> FileReport {
    let mut report = FileReport::new(path);
    if let Err(failure) = Run::all(path, ours, oracle, options, &mut report).await {
        report.fail(failure);
    }
    report
}

/// A file on its way.
struct Run<'a, 'o> {
    source: Source,
    ours: Side<'a>,
    oracle: Option<Side<'a>>,
    known: KnownLines<'o>,
    rewrites: Option<Rewrites>,
    options: &'o SltOptions,
}

impl<'a, 'o> Run<'a, 'o> {
    async fn all(
        path: &Path,
        ours: Connect<'a>,
        oracle: Option<Connect<'a>>,
        options: &'o SltOptions,
        report: &mut FileReport,
    ) -> Result<(), Failure> {
        let name = path.display().to_string();
        let no_connection = |whose: &str, error: EngineError| {
            Failure::new(&name, 0, format!("no connection to {whose}: {error}"))
        };
        // Until both are there, the connection is lost.
        report.lost_connection = true;
        let mut ours = Side::start(ours, &labels_of(options, &options.labels))
            .await
            .map_err(|error| no_connection("the engine", error))?;
        let labels: Vec<String> = ours.labels.iter().cloned().collect();
        let source = source::read(path, options.dialect, &labels)
            .inspect_err(|_| report.lost_connection = false)?;
        ours.rules = super::check::Rules::new(source.dialect);
        report.dialect = Some(source.dialect);
        if let Some(reason) = &source.skip {
            report.lost_connection = false;
            report.skip = Some(reason.clone());
            report.skipped =
                source.records.iter().filter(|placed| source::counts(&placed.record)).count()
                    as u64;
            return Ok(());
        }
        let oracle = match oracle {
            Some(connect) => {
                let mut side = Side::start(connect, &labels_of(options, &options.oracle_labels))
                    .await
                    .map_err(|error| no_connection("the oracle", error))?;
                side.rules = super::check::Rules::new(source.dialect);
                report.oracle = Some(OracleReport::default());
                Some(side)
            }
            None => None,
        };
        report.lost_connection = false;
        let rewrites = match options.complete {
            true if source.is_verbatim => Some(Rewrites::default()),
            true => return Err(Failure::new(name, 1, "a file with loops cannot be completed")),
            false => None,
        };
        let known = KnownLines::new(options.known.as_deref());
        let mut run = Self { source, ours, oracle, known, rewrites, options };
        run.records(report).await;
        run.end(path, report).await
    }

    async fn records(&mut self, report: &mut FileReport) {
        let placed = std::mem::take(&mut self.source.records);
        let mut stopped = false;
        for placed in &placed {
            let counts = source::counts(&placed.record);
            stopped |= matches!(placed.record, Record::Halt { .. })
                || self.options.stop.load(Ordering::Relaxed);
            if stopped {
                report.skipped += u64::from(counts);
            } else if counts {
                self.record(placed, report).await;
                stopped |= report.lost_connection || self.options.fail_fast && report.failed > 0;
            } else {
                self.ours.follow(&placed.record).await;
                if let Some(oracle) = &mut self.oracle
                    && !matches!(placed.record, Record::Sleep { .. })
                {
                    oracle.follow(&placed.record).await;
                }
            }
        }
    }

    async fn record(&mut self, placed: &Placed, report: &mut FileReport) {
        if let Some(Excluded { need, runs: false }) = placed.excluded {
            report.tallies.add_not_run(need);
            report.skipped += 1;
            return;
        }
        let outcome = self.ours.run(placed).await;
        if !matches!(outcome.verdict, Verdict::LeftOut) {
            let slow = || Slow {
                file: placed.file.clone(),
                line: placed.line,
                time: outcome.time,
                sql: one_line(source::sql(&placed.record), SQL_SHOWN_MAX),
            };
            report.took(self.options.slowest, slow, outcome.time);
        }
        // What a command does to the machine it does once.
        let theirs = match &mut self.oracle {
            Some(oracle) if !matches!(placed.record, Record::System { .. }) => {
                Some(oracle.run(placed).await)
            }
            _ => None,
        };
        if self.source.dialect == Dialect::DataFusion {
            let need = placed.excluded.map(|excluded| excluded.need);
            let theirs = theirs.as_ref().map(|theirs| &theirs.verdict);
            report.tallies.add(need, &outcome.verdict, theirs);
        }
        if placed.excluded.is_some() {
            self.count_excluded(&outcome, report);
            return;
        }
        self.mark(placed, &outcome, theirs.as_ref(), report);
        let judged = match theirs {
            Some(theirs) => self.judge_both(placed, &outcome, &theirs, report),
            None => self.judge(placed, &outcome, report),
        };
        if let Judged::Failed(problem_text) = judged {
            report.lost_connection |= is_lost(&outcome);
            report.fail(Failure::new(&*placed.file, placed.line, problem_text));
        }
    }

    /// A record that is left out of the judgement has passed or counts as skipped.
    fn count_excluded(&mut self, outcome: &Outcome, report: &mut FileReport) {
        match outcome.verdict {
            Verdict::Expected(_) => report.passed += 1,
            Verdict::LeftOut | Verdict::Unexpected(_) => report.skipped += 1,
        }
        report.lost_connection |= is_lost(outcome);
    }

    /// Remembers a record for an allow-list: what the oracle did where it ran, else what ours did.
    fn mark(
        &self,
        placed: &Placed,
        ours: &Outcome,
        theirs: Option<&Outcome>,
        report: &mut FileReport,
    ) {
        let outcome = theirs.unwrap_or(ours);
        let unexpected = match &outcome.verdict {
            Verdict::LeftOut => return,
            Verdict::Expected(_) => None,
            Verdict::Unexpected(problem) => Some(problem),
        };
        if !self.options.marks {
            return;
        }
        let unexpected = unexpected.map(|problem| {
            let is_first = !report.marks.iter().rev().take(MARKS_BACK).any(
                |mark| matches!(&mark.unexpected, Some((class, _)) if *class == problem.class),
            );
            let reason = is_first.then(|| one_line(&problem.reason(), REASON_MAX));
            (problem.class, reason)
        });
        report.marks.push(Mark { file: placed.file.clone(), line: placed.line, unexpected });
    }

    fn judge(&mut self, placed: &Placed, ours: &Outcome, report: &mut FileReport) -> Judged {
        match &ours.verdict {
            Verdict::LeftOut => {
                report.skipped += 1;
                Judged::Counted
            }
            Verdict::Expected(_) => self.expected(placed, report),
            Verdict::Unexpected(problem) => {
                if self.known.has(placed) {
                    report.passed += 1;
                    report.known += 1;
                    return Judged::Counted;
                }
                if let Some(rewrites) = &mut self.rewrites
                    && *placed.file == *report.path.to_string_lossy()
                    && !is_lost(ours)
                    && rewrites.add(placed, &ours.output, &self.ours.rules)
                {
                    report.passed += 1;
                    report.rewritten += 1;
                    return Judged::Counted;
                }
                Judged::Failed(problem.text())
            }
        }
    }

    fn expected(&mut self, placed: &Placed, report: &mut FileReport) -> Judged {
        if self.known.has(placed) {
            return Judged::Failed(
                "is on the list of known failures, but does what the file says: take it off"
                    .to_owned(),
            );
        }
        report.passed += 1;
        Judged::Counted
    }

    fn judge_both(
        &mut self,
        placed: &Placed,
        ours: &Outcome,
        theirs: &Outcome,
        report: &mut FileReport,
    ) -> Judged {
        let Some(mut oracle) = report.oracle.take() else { return Judged::Counted };
        let judged = self.compare(placed, ours, theirs, report, &mut oracle);
        report.oracle = Some(oracle);
        judged
    }

    fn compare(
        &mut self,
        placed: &Placed,
        ours: &Outcome,
        theirs: &Outcome,
        report: &mut FileReport,
        oracle: &mut OracleReport,
    ) -> Judged {
        let agreement = agree::compare(&placed.record, &ours.output, &theirs.output);
        let sql = source::sql(&placed.record);
        let mut differ = |what: &str, problem: Option<&Problem>| {
            let detail = match (&agreement, problem) {
                (Err(difference), _) => difference.clone(),
                (Ok(()), Some(problem)) => problem.text(),
                (Ok(()), None) => String::new(),
            };
            let text = format!("{what}\n{detail}\n[SQL] {sql}");
            let failure = Failure::new(&*placed.file, placed.line, text);
            report::keep(&mut oracle.differences, failure);
        };
        match (&ours.verdict, &theirs.verdict) {
            (Verdict::LeftOut, Verdict::LeftOut) => self.judge(placed, ours, report),
            (Verdict::LeftOut, _) | (_, Verdict::LeftOut) => {
                oracle.one_side += 1;
                self.judge(placed, ours, report)
            }
            (Verdict::Expected(_), Verdict::Expected(_)) => {
                oracle.both += 1;
                self.expected(placed, report)
            }
            (Verdict::Expected(_), Verdict::Unexpected(problem)) => {
                differ("only ours is as the file says", Some(problem));
                oracle.only_ours += 1;
                self.expected(placed, report)
            }
            (Verdict::Unexpected(problem), Verdict::Expected(_)) => {
                differ("only the oracle is as the file says", Some(problem));
                oracle.only_oracle += 1;
                match self.judge(placed, ours, report) {
                    Judged::Failed(text) => {
                        Judged::Failed(format!("only the oracle is as the file says: {text}"))
                    }
                    judged => judged,
                }
            }
            (Verdict::Unexpected(_), Verdict::Unexpected(_)) => {
                if agreement.is_err() {
                    differ("neither is as the file says, each in its own way", None);
                    oracle.different += 1;
                } else {
                    oracle.both_unexpected += 1;
                }
                report.lost_connection |= is_lost(ours) || is_lost(theirs);
                if self.known.has(placed) {
                    report.passed += 1;
                    report.known += 1;
                } else {
                    report.skipped += 1;
                    report.undecided += 1;
                }
                Judged::Counted
            }
        }
    }

    async fn end(mut self, path: &Path, report: &mut FileReport) -> Result<(), Failure> {
        self.ours.stop().await;
        report.elapsed = self.ours.elapsed;
        report.records = self.ours.records;
        if let (Some(side), Some(oracle)) = (&mut self.oracle, &mut report.oracle) {
            side.stop().await;
            oracle.elapsed = side.elapsed;
            oracle.records = side.records;
        }
        match self.rewrites {
            Some(_) if report.lost_connection => {
                report.rewritten = 0;
                Err(Failure::new(
                    path.display().to_string(),
                    1,
                    "not completed: the connection was lost on the way",
                ))
            }
            Some(rewrites) => rewrites.write(path),
            None => Ok(()),
        }
    }
}

/// How many records back a reason of the same class need not be told again.
const MARKS_BACK: usize = 200;

/// The labels of a side: those that were given, else in DataFusion's dialect those of its files.
fn labels_of(options: &SltOptions, given: &[String]) -> Vec<String> {
    if given.is_empty() && options.dialect == Some(Dialect::DataFusion) {
        return datafusion::LABELS.map(str::to_owned).to_vec();
    }
    given.to_vec()
}

enum Judged {
    Counted,
    Failed(String),
}

fn is_lost(outcome: &Outcome) -> bool {
    matches!(&outcome.verdict, Verdict::Unexpected(problem)
        if problem.class == super::class::Class::Connection)
}

/// The beginning of a text in one line.
fn one_line(text: &str, most: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// The allow-list as one file sees it: records come file by file.
struct KnownLines<'o> {
    known: Option<&'o Known>,
    file: Option<(Arc<str>, Option<&'o KnownFile>)>,
}

impl<'o> KnownLines<'o> {
    fn new(known: Option<&'o Known>) -> Self {
        Self { known, file: None }
    }

    fn has(&mut self, placed: &Placed) -> bool {
        let Some(known) = self.known else { return false };
        if self.file.as_ref().is_none_or(|(name, _)| *name != placed.file) {
            self.file = Some((placed.file.clone(), known.file(&placed.file)));
        }
        let file = self.file.as_ref().and_then(|(_, file)| *file);
        file.is_some_and(|file| file.has(placed.line))
    }
}
