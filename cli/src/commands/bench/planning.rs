//! `basalt bench planning`: what a statement costs before anything runs, in clusters larger than this machine.
//!
//! The catalog and the planner are real, and so is what grows with them: segments, tables, workers. Workers are
//! names, and nothing is executed ([`world`]).
//!
//! ```text
//! segments of one table   -> ms of each statement, tasks, streams
//! workers                 -> the same, and slices that move when one more comes
//! tables                  -> the same, and memory of the catalog
//! ```

mod world;

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use basalt_coordinator::placement::solve;
use basalt_engine::channels::Channels;
use basalt_engine::dialect::{self, Statement};
use basalt_engine::distribute::{Calls, calls, plan_distributed};
use basalt_engine::files::AllowedRoots;
use basalt_engine::runtime::Resources;
use basalt_engine::secret::ClusterSecret;
use basalt_engine::session::{PlanningSessions, SessionSpec, planning_state};
use basalt_engine::settings::Settings;
use basalt_engine::snapshot::Snapshot;
use basalt_storage::ids::WorkerId;
use clap::Args;
use serde::Serialize;

use self::world::{Size, problem, slices_of, snapshot};
use super::milliseconds;
use crate::machine::Machine;
use crate::terminal;

/// Statements of each kind, and what they are called. The key is in a segment of every slice, the days in those of
/// about one segment in twenty ([`world`]).
const STATEMENTS: [(&str, &str); 5] = [
    ("look-up", "SELECT * FROM t0 WHERE key = 123456"),
    (
        "range",
        "SELECT sum(amount) FROM t0 WHERE day BETWEEN DATE '1993-04-10' AND DATE '1993-05-10'",
    ),
    ("aggregate", "SELECT other, count(*), sum(amount) FROM t0 GROUP BY other"),
    ("join", "SELECT count(*) FROM t0 JOIN t1 ON t0.key = t1.key WHERE t1.other < 100"),
    ("shuffle", "SELECT count(*) FROM t0 JOIN t1 ON t0.other = t1.other"),
];

/// Measure planning in clusters that are nothing but their catalogs
///
/// Plans statements over catalogs of more and more segments, workers and tables, in memory: the catalog and the
/// planner are real, the workers and files are not. Prints the milliseconds of each statement (median), the tasks
/// and streams that it would start, slices that move when a worker is added, and memory.
#[derive(Debug, Args)]
pub struct PlanningArgs {
    /// The most segments of one table
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(100..))]
    segments: u32,
    /// The most workers
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u16).range(3..=500))]
    workers: u16,
    /// The most tables, of 100 segments each
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(10..))]
    tables: u16,
    /// Measured runs of every statement, after one to warm up
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Write what was measured to this file
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
}

/// One curve.
#[derive(Debug, Serialize)]
struct Curve {
    /// What grows.
    along: &'static str,
    points: Vec<Point>,
}

/// One cluster.
#[derive(Debug, Serialize)]
struct Point {
    workers: usize,
    tables: usize,
    /// Of each table.
    segments: usize,
    statements: Vec<Planned>,
    /// Memory of the process that came with the catalog, by segment; `None` where it is too little to tell.
    bytes_per_segment: Option<f64>,
    /// Slices' copies that move when one worker is added, and the fewest that could.
    moves: (usize, usize),
}

/// One statement.
#[derive(Debug, Serialize)]
struct Planned {
    name: &'static str,
    median_ms: f64,
    tasks: usize,
    streams: usize,
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    runs: u16,
    curves: Vec<Curve>,
}

pub(super) async fn run(args: PlanningArgs) -> anyhow::Result<()> {
    let (segments, workers, tables) =
        (args.segments as usize, usize::from(args.workers), usize::from(args.tables));
    let some_workers = workers.min(32);
    let by_segments = decades(100, segments)
        .map(|segments| Size { workers: some_workers, tables: 2, segments })
        .collect::<Vec<_>>();
    let by_workers = decades(3, workers)
        .map(|workers| Size { workers, tables: 2, segments: segments.min(10_000) })
        .collect();
    let by_tables = decades(10, tables)
        .map(|tables| Size { workers: some_workers, tables, segments: 100.min(segments) })
        .collect();
    let curves = [("segments", by_segments), ("workers", by_workers), ("tables", by_tables)];
    let bar = terminal::bar(curves.iter().map(|(_, sizes)| sizes.len() as u64).sum(), "planning");
    let mut report = Report { machine: Machine::here(), runs: args.runs, curves: vec![] };
    for (along, sizes) in curves {
        let mut points = Vec::new();
        for size in sizes {
            points.push(measure(size, args.runs).await?);
            bar.inc(1);
        }
        report.curves.push(Curve { along, points });
    }
    bar.finish_and_clear();
    std::io::stdout().write_all(text(&report).as_bytes())?;
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(file, text)
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(())
}

/// From `first` in steps of ten up to `last`, which is one of them.
fn decades(first: usize, last: usize) -> impl Iterator<Item = usize> {
    let steps = std::iter::successors(Some(first), |step| step.checked_mul(10));
    steps.take_while(move |step| *step < last).chain([last])
}

async fn measure(size: Size, runs: u16) -> anyhow::Result<Point> {
    let before = resident_bytes();
    let snapshot = Arc::new(snapshot(size)?);
    let segments = size.tables * size.segments;
    let grown = resident_bytes().zip(before).map(|(now, before)| now.saturating_sub(before) as f64);
    let bytes_per_segment =
        // What was freed before is used again: only what is much more says anything.
        grown.map(|bytes| bytes / segments as f64).filter(|_| segments >= 1_000_000);
    let planner = Planner::new(snapshot)?;
    let mut statements = Vec::new();
    for (name, sql) in STATEMENTS {
        let mut times = Vec::new();
        let mut found = Calls::default();
        for run in 0..=runs {
            let started = Instant::now();
            found = planner.plan(sql).await.with_context(|| format!("planning the {name}"))?;
            if run > 0 {
                times.push(milliseconds(started.elapsed()));
            }
        }
        times.sort_by(f64::total_cmp);
        let Calls { tasks, streams } = found;
        statements.push(Planned { name, median_ms: times[times.len() / 2], tasks, streams });
    }
    let Size { workers, tables, segments } = size;
    Ok(Point { workers, tables, segments, statements, bytes_per_segment, moves: moves(workers) })
}

/// Plans statements as a coordinator does.
struct Planner {
    snapshot: Arc<Snapshot>,
    sessions: Arc<PlanningSessions>,
}

impl Planner {
    fn new(snapshot: Arc<Snapshot>) -> anyhow::Result<Self> {
        let resources = Resources {
            memory_bytes: 1 << 30,
            spill_dir: std::env::temp_dir(),
            spill_bytes_max: 1 << 20,
        };
        let channels = Channels::new(&ClusterSecret::generate()?)?;
        let sessions = PlanningSessions::new(channels, resources.runtime()?, AllowedRoots::none())?;
        Ok(Self { snapshot, sessions: Arc::new(sessions) })
    }

    /// From the text to the plan that is sent, in a session of its own.
    async fn plan(&self, sql: &str) -> anyhow::Result<Calls> {
        let Statement::Query(query) = dialect::parse_one(sql)?.statement else {
            bail!("not a query: {sql}")
        };
        let spec = Arc::new(SessionSpec {
            snapshot: Arc::clone(&self.snapshot),
            settings: Settings::default(),
            computed_schemas: HashMap::new(),
            sessions: Arc::clone(&self.sessions),
        });
        let state = planning_state(&spec)?;
        let logical = state.statement_to_plan(query).await?;
        let planned = plan_distributed(&state, &logical).await?;
        if let Some(why) = planned.fallback {
            bail!("planned as one task: {why}")
        }
        Ok(calls(&planned.plan))
    }
}

/// Copies of slices that move when one more worker comes, and the fewest that give it its share.
fn moves(workers: usize) -> (usize, usize) {
    let slices = slices_of(workers);
    let mut ids: Vec<_> = (0..workers).map(|_| WorkerId::generate()).collect();
    let before = solve(&problem(slices, &ids), &vec![]);
    ids.push(WorkerId::generate());
    let after = solve(&problem(slices, &ids), &before);
    let moved = before
        .iter()
        .zip(&after)
        .map(|(before, after)| after.iter().filter(|worker| !before.contains(worker)).count());
    let copies: usize = before.iter().map(Vec::len).sum();
    (moved.sum(), copies / (workers + 1))
}

/// Memory of this process, in bytes; `None` where the system does not say.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn text(report: &Report) -> String {
    let Report { machine, runs, curves } = report;
    let mut text = format!(
        "{}, {} build of {}\n{} cores of {}, {}\nplanning, median of {runs} runs; ms (tasks, streams)\n",
        machine.date,
        machine.profile,
        machine.commit,
        machine.cores,
        machine.processor,
        machine.system
    );
    for Curve { along, points } in curves {
        text += &format!("\nmore {along}\n{:>8} {:>8} {:>9}", "workers", "tables", "segments");
        for (name, _) in STATEMENTS {
            text += &format!(" {name:>24}");
        }
        text += &format!(" {:>12} {:>16}\n", "B/segment", "moved (fewest)");
        for Point { workers, tables, segments, statements, bytes_per_segment, moves } in points {
            text += &format!("{workers:>8} {tables:>8} {:>9}", segments * tables);
            for Planned { median_ms, tasks, streams, .. } in statements {
                text += &format!(" {:>24}", format!("{median_ms:.2} ({tasks}, {streams})"));
            }
            let bytes = bytes_per_segment.map_or("-".to_owned(), |bytes| format!("{bytes:.0}"));
            text += &format!(" {bytes:>12} {:>16}\n", format!("{} ({})", moves.0, moves.1));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_ten_end_with_the_last() {
        assert_eq!(decades(100, 100_000).collect::<Vec<_>>(), [100, 1_000, 10_000, 100_000]);
        assert_eq!(decades(3, 300).collect::<Vec<_>>(), [3, 30, 300]);
        assert_eq!(decades(10, 10).collect::<Vec<_>>(), [10]);
        assert_eq!(decades(10, 25).collect::<Vec<_>>(), [10, 25]);
    }

    #[tokio::test]
    async fn a_look_up_of_a_key_that_every_slice_may_have_asks_one_task_however_many_workers_and_segments_there_are()
     {
        for size in [
            Size { workers: 3, tables: 2, segments: 100 },
            Size { workers: 40, tables: 2, segments: 1_000 },
        ] {
            let point = measure(size, 1).await.unwrap();
            let of = |name: &str| point.statements.iter().find(|s| s.name == name).unwrap();
            assert_eq!((of("look-up").tasks, of("look-up").streams), (1, 1));
            assert_eq!(
                of("range").tasks,
                size.workers,
                "some segments of several workers are left"
            );
            assert_eq!(
                (of("aggregate").tasks, of("aggregate").streams),
                (2 * size.workers, size.workers * size.workers + size.workers)
            );
            // Rows are joined where they lie.
            assert_eq!(of("join").tasks, size.workers);
        }
    }

    #[test]
    fn a_worker_more_takes_about_its_share_and_nothing_else_moves() {
        for workers in [3, 10, 30] {
            let (moved, fewest) = moves(workers);
            assert!(moved >= fewest && moved <= 2 * fewest + 2, "{workers}: {moved}, {fewest}");
        }
    }
}
