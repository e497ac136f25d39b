//! The table of a soak: what every gauge did, and whether it was flat.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::SoakConfig;
use super::flat::Course;
use super::gauges::{Kind, Sample};
use super::load::Counts;

/// What became of the gauges.
#[derive(Debug, Clone)]
pub struct Report {
    workers: usize,
    seed: u64,
    lasted: Duration,
    samples: usize,
    counts: Counts,
    lines: Vec<Line>,
}

#[derive(Debug, Clone)]
struct Line {
    node: String,
    kind: Kind,
    course: Course,
}

impl Report {
    /// The report of some samples.
    pub fn new(config: &SoakConfig, lasted: Duration, samples: &[Sample], counts: Counts) -> Self {
        let gauges: BTreeSet<_> = samples.iter().flat_map(|sample| sample.values.keys()).collect();
        let line = |(node, kind): &(String, Kind)| {
            let key = (node.clone(), *kind);
            let series = samples.iter().filter_map(|sample| sample.values.get(&key).copied());
            let course = Course::of(&series.collect::<Vec<_>>())?;
            Some(Line { node: node.clone(), kind: *kind, course })
        };
        let mut lines: Vec<_> = gauges.into_iter().filter_map(line).collect();
        // Chunks are the workers'.
        lines.retain(|line| line.course.most > 0.0);
        let (workers, seed, samples) = (config.workers, config.seed, samples.len());
        Self { workers, seed, lasted, samples, counts, lines }
    }

    /// What grew though it must not, a sentence each.
    pub fn growing(&self) -> Vec<String> {
        self.growing_beside(&[])
    }

    /// The same without some gauges: those that a short run has no time to warm up.
    pub fn growing_beside(&self, left_out: &[Kind]) -> Vec<String> {
        let grows = |line: &&Line| line.kind.margin().is_some_and(|m| !line.course.is_flat(m));
        let sentence = |line: &Line| {
            let (node, kind, course) = (&line.node, line.kind.name(), line.course);
            format!("{node}, {kind}: {:.1}, then {:.1}", course.before, course.last)
        };
        let lines = self.lines.iter().filter(|line| !left_out.contains(&line.kind));
        lines.filter(grows).map(sentence).collect()
    }

    /// The most that a gauge ever showed in any process.
    pub fn most(&self, kind: Kind) -> f64 {
        let of_kind = self.lines.iter().filter(|line| line.kind == kind);
        of_kind.map(|line| line.course.most).fold(0.0, f64::max)
    }

    /// How much there was to do.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Bytes of a copy of the log for each of its records, between the medians of the last two thirds.
    fn log_bytes_per_record(&self) -> Option<f64> {
        let course = |kind: Kind| {
            self.lines.iter().find(|line| line.kind == kind && line.node != "coordinator")
        };
        let (bytes, records) = (course(Kind::LogMib)?.course, course(Kind::LogRecords)?.course);
        let mib = bytes.last - bytes.before;
        Some(mib * f64::from(1 << 20) / (records.last - records.before).max(1.0))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { written, answered, refused, cut_off, connections } = self.counts;
        writeln!(
            f,
            "{} workers, seed {}, {:.1} minutes, {} samples: {written} writes made, {answered} queries \
             answered rightly, {refused} refused as they must be, {cut_off} given up by their client, \
             {connections} connections",
            self.workers,
            self.seed,
            self.lasted.as_secs_f64() / 60.0,
            self.samples
        )?;
        writeln!(
            f,
            "| {:<12} | {:<24} | {:>8} | {:>12} | {:>10} | {:>8} | {:<18} |",
            "process", "gauge", "start", "second third", "last third", "most", "verdict"
        )?;
        for Line { node, kind, course } in &self.lines {
            let verdict = match kind.margin() {
                None => "grows by design".to_owned(),
                Some(margin) => {
                    let word = if course.is_flat(margin) { "flat" } else { "GROWS" };
                    format!("{word} (x{} + {})", margin.factor, margin.slack)
                }
            };
            let Course { first, before, last, most } = course;
            writeln!(
                f,
                "| {node:<12} | {:<24} | {first:>8.1} | {before:>12.1} | {last:>10.1} | {most:>8.1} | {verdict:<18} |",
                kind.name()
            )?;
        }
        if let Some(bytes) = self.log_bytes_per_record() {
            writeln!(f, "a record of the log takes {bytes:.0} bytes of a copy, on average")?;
        }
        writeln!(
            f,
            "at the end: no statement, no staged file, no garbage, no reserved memory is left"
        )
    }
}
