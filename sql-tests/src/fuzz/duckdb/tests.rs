//! What comes of answers and errors beside DuckDB, which is played here: the tests that need DuckDB are in
//! `tests/it/duckdb_oracle.rs`.

use async_trait::async_trait;

use crate::fuzz::answers::{Answer, Failure};
use crate::fuzz::ast::{Expr, Family, Query, Select};
use crate::fuzz::databases::{Database, PlainDataFusion};
use crate::fuzz::explained::Explained;
use crate::fuzz::oracles::{Case, Databases, Kind, Oracle, Verdict};
use crate::fuzz::{data, run};

/// A database that answers everything as it answers this, or fails.
struct Always(Result<&'static str, Failure>);

#[async_trait]
impl Database for Always {
    async fn query(&self, _: &str) -> Result<Answer, Failure> {
        match &self.0 {
            Ok(sql) => PlainDataFusion::new(1).query(sql).await,
            Err(failure) => Err(failure.clone()),
        }
    }

    async fn execute(&self, _: &str) -> Result<(), Failure> {
        Ok(())
    }

    fn is_ours(&self) -> bool {
        false
    }
}

fn fails(sqlstate: &str, message: &str) -> Always {
    Always(Err(Failure { sqlstate: Some(sqlstate.to_owned()), message: message.to_owned() }))
}

fn gives(sql: &'static str) -> Always {
    Always(Ok(sql))
}

/// The verdict on `SELECT item AS c` where DuckDB and ours answer as they are told.
async fn verdict(item: &str, duckdb: Always, tested: Always) -> Verdict {
    let plain = PlainDataFusion::new(1);
    let checked = PlainDataFusion::checked(1);
    let databases = Databases {
        plain: &plain,
        checked: &checked,
        without_pushdown: &plain,
        with_few_rules: &plain,
        duckdb: Some(&duckdb),
        tested: &tested,
    };
    let items = vec![(Expr::leaf(Family::Int, item), "c".to_owned())];
    let query = Query::select(Select { items, ..Select::default() });
    Case { oracle: Oracle::DuckDb, query }.check(databases).await
}

#[track_caller]
fn check_kind(verdict: &Verdict, kind: &Kind) {
    let Verdict::Different(difference) = verdict else { panic!("{verdict:?}") };
    assert_eq!(difference.kind, *kind, "{difference:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_compared_by_value() {
    let same = verdict("1", gives("SELECT 1.0 AS x"), gives("SELECT 1 AS c")).await;
    assert_eq!(same, Verdict::Same);
    let other = verdict("1", gives("SELECT 2 AS c"), gives("SELECT 1 AS c")).await;
    check_kind(&other, &Kind::Rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_side_has_no_plan_for_is_unsupported() {
    let one = || gives("SELECT 1 AS c");
    let duckdb = verdict("1", fails("0A000", "BinderException: no"), one()).await;
    assert_eq!(duckdb, Verdict::Unsupported("by DuckDB: BinderException: no".to_owned()));
    let ours = verdict("1", one(), fails("0A000", "no")).await;
    assert_eq!(ours, Verdict::Unsupported("by the tested database: no".to_owned()));
    let both = verdict("1", fails("0A000", "no"), fails("42703", "no")).await;
    assert_eq!(both, Verdict::Unsupported("by both: no".to_owned()));
    // What is wrong with ours is no matter of support.
    check_kind(&verdict("1", one(), fails("42703", "no")).await, &Kind::Fails("42703".to_owned()));
    let crash = verdict("1", fails("0A000", "no"), fails("XX000", "lost")).await;
    check_kind(&crash, &Kind::Fails("XX000".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_duckdb_is_not_an_answer() {
    let lost = Always(Err(Failure::of_lost("killed")));
    let lost = verdict("1", lost, gives("SELECT 1 AS c")).await;
    assert!(matches!(&lost, Verdict::Lost(reason) if reason.contains("killed")), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overflow_of_one_side_is_explained_where_there_is_one() {
    let one = || gives("SELECT 1 AS c");
    let beside = |message| verdict("1", one(), fails("22003", message));
    assert_eq!(
        beside("integer out of range: 9223372036854775807 + 1").await,
        Verdict::Explained(Explained::OverflowBesideDuckDb)
    );
    check_kind(&beside("integer out of range: 1 + 1").await, &Kind::Fails("22003".to_owned()));
    let overflow = || fails("22000", "OutOfRangeException: Overflow");
    // DataFusion has our answer, so DuckDB computed what need not be.
    assert_eq!(verdict("1", overflow(), one()).await, Verdict::Explained(Explained::DuckDbFails));
    check_kind(&verdict("2", overflow(), one()).await, &Kind::Answers);
    check_kind(&verdict("9223372036854775807 + 1", overflow(), one()).await, &Kind::Answers);
    let both = verdict("1", overflow(), fails("22003", "integer out of range")).await;
    assert!(matches!(both, Verdict::BothFail(_)), "{both:?}");
}

/// Queries that were found before there was this oracle are still those of their seeds.
#[test]
fn the_seeds_of_other_oracles_mean_what_they_did() {
    const FOUND: &str = include_str!("../../../results/fuzz-100000.txt");
    let mut checked = 0;
    let mut original = "";
    let mut lines = FOUND.lines();
    while let Some(line) = lines.next() {
        if line == "-- as generated:" {
            original = lines.next().unwrap_or_default();
        }
        let Some(found) = line.strip_prefix("REPRO seed=") else { continue };
        // A finding that was small from the start is printed as a reproducer only.
        let original = std::mem::take(&mut original);
        let seed: u64 = found.split(' ').next().unwrap().parse().unwrap();
        let oracle = match found {
            _ if found.contains("--oracle differential") => Oracle::Differential,
            _ if found.contains("--oracle norec") => Oracle::NoRec,
            _ => continue,
        };
        let tables = data::tables(seed / (2 * run::QUERIES_PER_HALF), false);
        let case = run::case(seed, Some(oracle), false, &tables);
        if original.is_empty() {
            continue;
        }
        let start = original.trim_start_matches("-- ").trim_end_matches(" ...");
        let text = case.query.to_string();
        assert!(start.len() > 20 && text.starts_with(start), "seed {seed}: {text}");
        checked += 1;
    }
    assert!(checked >= 30, "{checked}");
}
