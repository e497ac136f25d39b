//! Generated queries on clusters, against plain DataFusion and against themselves (RULES 1).
//!
//! The seeds are fixed, so that CI is the same every time; `basalt fuzz` runs more of them, and
//! prints the command that repeats one.

use basalt_sql_tests::fuzz::run::{Options, QUERIES_PER_HALF, run};
use basalt_sql_tests::fuzz::setup::{Source, Topology};
use basalt_sql_tests::fuzz::shrink::Budget;

/// Half of the queries are before the tables are compacted.
const SEED: u64 = QUERIES_PER_HALF - QUERIES / 2;
const QUERIES: u64 = 160;
/// The workers that see every query, and those that see each n-th one, with what scans may leave
/// out left out.
const WORKERS_ALWAYS: u16 = 3;
const WORKERS_SOMETIMES: [(u16, &str); 5] = [
    (1, "batch_rows=1"),
    (3, "colocation=off,join_order=off"),
    (2, "pruning=off,filter_pushdown=off,whole_builds=off"),
    (3, "column_cache=off,batch_rows=7"),
    (5, "pruning=off,sorted_scans=off"),
];
const SOMETIMES: u64 = 12;

fn topologies() -> Vec<Topology> {
    let always =
        Topology { workers: WORKERS_ALWAYS, partitions: 2, settings: vec![], every: 1, offset: 0 };
    let sometimes = (0..).zip(WORKERS_SOMETIMES).map(|(index, (workers, settings))| Topology {
        workers,
        partitions: 4,
        settings: settings.split(',').map(str::to_owned).collect(),
        every: SOMETIMES,
        offset: index * SOMETIMES / 5,
    });
    [always].into_iter().chain(sometimes).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_queries_give_the_rows_that_they_should() {
    let dir = tempfile::tempdir().unwrap();
    let source = Source::Embedded { dir: dir.path().to_owned(), topologies: topologies() };
    let options = Options {
        seed: SEED,
        queries: QUERIES,
        oracle: None,
        duckdb: None,
        keeps_going: true,
        jobs: 4,
        budget: Budget { queries: 100, loads: 10 },
    };
    let summary = run(&options, &source, &mut |_| {}).await.unwrap();
    let findings: Vec<_> = summary.findings.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{summary}\n\n{}", findings.join("\n\n"));
    assert_eq!(summary.queries, QUERIES);
    assert!(!summary.is_mostly_unanswered(), "{summary}");
}
